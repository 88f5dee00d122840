"""Which URLs open a store, and what is said of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sidecar.errors import ConfigError
from sidecar.store.connect import open_store
from tests.store.documents import default_of, document, eventually, watching

if TYPE_CHECKING:
    from tests.support.valkey import Valkey


@pytest.mark.parametrize(
    "url",
    ["redis://127.0.0.1:1/0", "rediss://:secret@127.0.0.1:1", "unix:///nowhere.sock", "embedded"],
)
async def test_a_store_opens_without_connecting(url: str) -> None:
    store = open_store(url, "rmv", "/nowhere")

    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h/policies",
        "rediss+sentinel://ann:s%40cret@h:26379,[::1]:26380/policies/3"
        "?sentinel_username=sam&sentinel_password=x&ssl_cert_reqs=none",
        "redis+cluster://h",
        "rediss+cluster://:secret@h:7000,i:7001,j/?ssl_check_hostname=false",
    ],
)
async def test_sentinels_and_clusters_open_without_connecting(url: str) -> None:
    await open_store(url).close()


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h",
        "redis+sentinel://h/policies/x",
        "redis+sentinel:///policies",
        "redis+sentinel://h:port/policies",
        "redis+sentinel://h,,i/policies",
        "redis+sentinel://:secret/x@h/policies",
        "redis+cluster://",
        "redis+cluster://h/3",
        "redis+cluster://:secret/x@h",
        "sentinel://h/policies",
    ],
)
def test_a_malformed_url_of_several_servers_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="redis:") as caught:
        open_store(url)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "http://h", "embed", "localhost:6379", "redis://h:port", "redis://h?db=x"]
)
def test_any_other_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="redis:"):
        open_store(url)


@pytest.mark.parametrize(
    "url", ["amqp://ann:secret@h", "redis://:secret/x@h", "redis://:secret#@h"]
)
def test_an_error_does_not_show_a_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)

    assert "secret" not in str(caught.value)


async def test_embedded_with_a_prefix_is_the_server_of_the_state_directory(valkey: Valkey) -> None:
    store = open_store("embedded", "team", valkey.state_dir)
    async with watching(store) as live:
        await valkey.client.set("team:policy:fraud", document())

        await eventually(lambda: default_of(live) == "v1")
    await store.close()
