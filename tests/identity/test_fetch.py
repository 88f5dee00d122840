"""Keys are fetched from where the settings say, in bounded time and size, or not at all."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from sidecar.identity import fetch as fetching
from sidecar.identity.fetch import MAX_BYTES, FetchError, Place, fetch
from tests.support.certificates import write_certificate
from tests.support.keys import JWKS_PATH, flood, hang, key_server, trickle
from tests.support.upstream import answering, scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.keys import Answer

WELL_KNOWN = "/.well-known/openid-configuration"
KEYS = b'{"keys": [1, 2, 3]}'  # what it means is not this module's business


def at(url: str, ca_file: Path | None = None) -> Place:
    return Place("https://issuer.test", url, "" if ca_file is None else str(ca_file))


async def cause_of(place: Place) -> str:
    """Return why a fetch failed."""
    with pytest.raises(FetchError) as caught:
        await fetch(place)
    return caught.value.cause


async def test_keys_come_over_tls_from_a_server_that_is_vouched_for(tmp_path: Path) -> None:
    tls = write_certificate(tmp_path)
    async with key_server(KEYS, tls=tls) as server:
        assert server.url.startswith("https://")
        assert await fetch(at(server.jwks_url, tls[0])) == KEYS
        assert server.asked == [JWKS_PATH]


async def test_a_server_that_nobody_vouches_for_is_not_believed(tmp_path: Path) -> None:
    other = write_certificate(tmp_path, "other")
    tls = write_certificate(tmp_path)
    async with key_server(KEYS, tls=tls) as server:
        assert await cause_of(at(server.jwks_url)) == "tls"
        assert await cause_of(at(server.jwks_url, other[0])) == "tls"
        assert await cause_of(at(server.jwks_url, tmp_path / "no.pem")) == "tls"
        for_another = server.jwks_url.replace("127.0.0.1", "127.0.0.2")
        assert await cause_of(at(for_another, tls[0])) in {"tls", "connect"}
    assert server.asked == []


async def test_plain_http_is_spoken_on_loopback() -> None:
    async with key_server(KEYS) as server:
        assert await fetch(at(server.jwks_url)) == KEYS


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with key_server(KEYS) as server, key_server() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)

        assert await fetch(at(server.jwks_url)) == KEYS
    assert proxy.asked == []


@pytest.mark.parametrize("answer", [hang, trickle])
async def test_an_answer_has_two_seconds_to_be_whole(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    assert fetching.TIMEOUT_S == 2.0
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.1)
    async with key_server(answer=answer) as server:
        assert await cause_of(at(server.jwks_url)) == "timeout"


async def test_an_answer_is_read_up_to_its_limit_and_no_further() -> None:
    longest = KEYS + b" " * (MAX_BYTES - len(KEYS))
    async with key_server(longest) as server:
        assert await fetch(at(server.jwks_url)) == longest
        server.keys += b" "
        assert await cause_of(at(server.jwks_url)) == "size"
        server.answer = flood
        assert await cause_of(at(server.jwks_url)) == "size"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    async with key_server(KEYS) as elsewhere:

        async def redirect(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers={"Location": elsewhere.jwks_url})

        async with key_server(answer=redirect) as server:
            assert await cause_of(at(server.jwks_url)) == "redirect"
        assert elsewhere.asked == []


async def test_another_status_than_200_is_no_answer() -> None:
    for status in (204, 206, 404, 500):

        async def fail(_request: web.Request, status: int = status) -> web.StreamResponse:
            return web.Response(status=status, body=KEYS)

        async with key_server(answer=fail) as server:
            assert await cause_of(at(server.jwks_url)) == "status"


async def test_an_encoding_that_was_not_asked_for_is_no_answer() -> None:
    async def packed(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        body = gzip.compress(b" " * 10_000_000)
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    async with key_server(answer=packed) as server:
        assert await cause_of(at(server.jwks_url)) == "answer"


async def test_who_does_not_listen_or_speaks_no_http_is_told_apart() -> None:
    async with scripted_upstream(answering(b"220 mail.test ESMTP\r\n", closes=True)) as server:
        assert await cause_of(at(server.url)) == "answer"
    assert await cause_of(at(server.url)) == "connect"


async def test_whom_it_could_not_reach_is_told_and_why(tmp_path: Path) -> None:
    async def told(place: Place) -> str:
        with pytest.raises(FetchError) as caught:
            await fetch(place)
        return str(caught.value)

    tls = write_certificate(tmp_path)
    async with key_server(KEYS, tls=tls) as server:
        nobody = await told(at(server.jwks_url))
    address = server.url.removeprefix("https://")
    gone = await told(at(server.jwks_url, tls[0]))

    assert nobody.startswith(f"cannot connect to {address}: self-signed certificate")
    assert gone == f"cannot connect to {address}: Connection refused"


# --- discovery ----------------------------------------------------------------------------------


async def test_an_issuer_is_asked_where_its_keys_are(tmp_path: Path) -> None:
    tls = write_certificate(tmp_path)
    async with key_server(KEYS, tls=tls) as server:
        for issuer in (server.url, server.url + "/realms/a", server.url + "/realms/a/"):
            path = issuer.removeprefix(server.url).removesuffix("/") + WELL_KNOWN
            described = {"issuer": issuer, "jwks_uri": server.jwks_url, "other": [1]}
            server.documents[path] = json.dumps(described).encode()

            assert await fetch(Place(issuer, "", str(tls[0]))) == KEYS
            assert server.asked[-2:] == [path, JWKS_PATH]


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://other.test", "jwks_uri": "{url}/keys"},
        {"issuer": "{url}/", "jwks_uri": "{url}/keys"},
        {"jwks_uri": "{url}/keys"},
        {"issuer": "{url}"},
        {"issuer": "{url}", "jwks_uri": 7},
        {"issuer": "{url}", "jwks_uri": "/keys"},
        {"issuer": "{url}", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "{url}", "jwks_uri": "{plain}"},
        {"issuer": "{url}", "jwks_uri": "https://u:p@127.0.0.1/"},
        [],
    ],
)
async def test_a_description_that_is_not_the_issuers_own_leads_nowhere(
    tmp_path: Path, described: object
) -> None:
    """Above all not from an issuer behind TLS to plain http on this host."""
    tls = write_certificate(tmp_path)
    async with key_server(KEYS, tls=tls) as server, key_server(KEYS) as plain:
        text = json.dumps(described).replace("{url}", server.url)
        server.documents[WELL_KNOWN] = text.replace("{plain}", plain.jwks_url).encode()

        assert await cause_of(Place(server.url, "", str(tls[0]))) == "discovery"
        assert server.asked == [WELL_KNOWN]
        assert plain.asked == []


async def test_an_issuer_on_loopback_may_name_keys_on_loopback() -> None:
    async with key_server(KEYS) as server:
        described = {"issuer": server.url, "jwks_uri": server.jwks_url}
        server.documents[WELL_KNOWN] = json.dumps(described).encode()

        assert await fetch(Place(server.url, "", "")) == KEYS


async def test_a_description_that_says_a_thing_twice_is_none() -> None:
    async with key_server(KEYS) as server:
        described = f'{{"issuer": "{server.url}", "jwks_uri": "{server.jwks_url}", "issuer": "x"}}'
        server.documents[WELL_KNOWN] = described.encode()

        assert await cause_of(Place(server.url, "", "")) == "discovery"
