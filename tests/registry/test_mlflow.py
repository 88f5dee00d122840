"""An MLflow server is asked within bounds, and its failures are told in words."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import RegistryError
from sidecar.registry import mlflow
from sidecar.registry.mlflow import Mlflow
from tests.support.certificates import write_certificate
from tests.support.mlflow import MLMODEL, running_mlflow
from tests.support.upstream import never, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.mlflow import Mlflow as Told

VERSION = "/api/2.0/mlflow/model-versions/get"


@pytest.fixture
def told() -> Iterator[Told]:
    with running_mlflow() as server:
        server.has_version()
        yield server


async def why_not(uri: str) -> str:
    """Return how asking for a version fails."""
    with pytest.raises(RegistryError) as refused:
        async with Mlflow(uri, {}) as server:
            await server.version("credit", "3")
    return str(refused.value)


async def test_a_version_its_run_and_its_file_are_read(told: Told) -> None:
    async with Mlflow(f"{told.url}/", {}) as server:
        version = await server.version("credit", "3")
        run = await server.run(version.run_id)
        described = await server.description(version)

    assert (version.name, version.version, version.run_id) == ("credit", "3", "r1")
    assert version.creation_timestamp == 1763902800123
    assert [one.dataset.name for one in run.inputs.dataset_inputs] == ["loans", "holdout"]
    assert {one.key: one.value for one in run.data.params} == {"solver": "lbfgs", "C": "1.0"}
    assert described == MLMODEL.encode()
    assert server.page(version) == f"{told.url}/#/models/credit/versions/3"
    assert told.asked[0].query == {"name": "credit", "version": "3"}


async def test_an_alias_is_resolved_by_the_server(told: Told) -> None:
    async with Mlflow(told.url, {}) as server:
        version = await server.version_of_alias("credit", "the champion & more")

    assert version.version == "3"
    assert told.asked[0].query == {"name": "credit", "alias": "the champion & more"}


async def test_numbers_may_be_spelled_as_text(told: Told) -> None:
    told.has_version(creation_timestamp="1763902800123")

    async with Mlflow(told.url, {}) as server:
        assert (await server.version("credit", "3")).creation_timestamp == 1763902800123


@pytest.mark.parametrize(
    ("given", "environ", "sent"),
    [
        ("", {}, None),
        ("", {"MLFLOW_TRACKING_TOKEN": "t0k"}, "Bearer t0k"),
        ("", {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, b"u:p"),
        (
            "",
            {
                "MLFLOW_TRACKING_TOKEN": "t0k",
                "MLFLOW_TRACKING_USERNAME": "u",
                "MLFLOW_TRACKING_PASSWORD": "p",
            },
            b"u:p",
        ),
        ("me:s%40crt@", {"MLFLOW_TRACKING_TOKEN": "t0k"}, b"me:s@crt"),
    ],
)
async def test_who_asks_is_told_as_mlflows_own_clients_do(
    told: Told, given: str, environ: dict[str, str], sent: str | bytes | None
) -> None:
    uri = told.url.replace("http://", f"http://{given}")
    async with Mlflow(uri, environ) as server:
        await server.version("credit", "3")

    if isinstance(sent, bytes):
        sent = f"Basic {base64.b64encode(sent).decode()}"
    assert told.asked[0].headers.get("Authorization") == sent
    assert server.uri == told.url


async def test_a_redirection_is_not_followed(told: Told) -> None:
    told.says(VERSION, b"", 302, Location=f"{told.url}/elsewhere")

    assert "/elsewhere, and nothing follows" in await why_not(told.url)
    assert len(told.asked) == 1


async def test_what_is_not_there_is_told_in_the_servers_words(told: Told) -> None:
    told.answers.clear()

    said = await why_not(told.url)

    assert said == (
        f"{told.url}: name credit, version 3: there is no such thing: Registered Model not found"
    )


@pytest.mark.parametrize("status", [401, 403])
async def test_who_is_not_allowed_is_told_how_to_say_who_asks(told: Told, status: int) -> None:
    told.says(VERSION, b"You are not authenticated", status)

    assert f"MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD, say who asks ({status})" in (
        await why_not(told.url)
    )


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"model_version": {"name": "credit"}}', b"\xff"]
)
async def test_another_server_is_told_from_mlflow(told: Told, body: bytes) -> None:
    told.says(VERSION, body)

    assert "no answer of MLflow" in await why_not(told.url)


async def test_an_answer_without_end_is_cut(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "MAX_BYTES", 1000)
    told.says(VERSION, b"x" * 1001)

    assert "the answer is over 1,000 bytes" in await why_not(told.url)


async def test_a_server_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "TIMEOUT_S", 0.2)
    async with scripted_upstream(never) as silent:
        assert "has not answered in 0.2 s" in await why_not(silent.url)


async def test_a_server_that_is_not_there_is_told() -> None:
    async with scripted_upstream() as gone:
        url = gone.url

    assert f"{url} cannot be asked" in await why_not(url)


@pytest.mark.parametrize(
    "uri", ["sqlite:///m.db", "./mlruns", "databricks", "http://", "http://h:x"]
)
def test_what_is_no_server_is_refused(uri: str) -> None:
    with pytest.raises(RegistryError, match="--tracking-uri"):
        Mlflow(uri, {})


async def test_a_server_is_believed_by_the_authorities_that_are_named(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    environ = {"MLFLOW_TRACKING_SERVER_CERT_PATH": str(certificate)}
    with running_mlflow((certificate, key)) as told:
        told.has_version()
        async with Mlflow(told.url, environ) as server:
            version = await server.version("credit", "3")
        unknown = await why_not(told.url)

    assert version.run_id == "r1"
    assert "cannot be asked" in unknown
    assert "certificate" in unknown.lower()


def test_a_file_of_authorities_that_is_none_is_refused() -> None:
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_SERVER_CERT_PATH: /nowhere"):
        Mlflow("https://h", {"MLFLOW_TRACKING_SERVER_CERT_PATH": "/nowhere"})


@pytest.mark.parametrize("token", ["a\r\nX: y", "\u00e4"])
def test_a_token_that_is_none_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(RegistryError) as refused:
        Mlflow("https://h", {"MLFLOW_TRACKING_TOKEN": token})

    assert token not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "is_clear"),
    [
        ("http://mlflow.example", True),
        ("https://mlflow.example", False),
        ("http://localhost:5000", False),
        ("http://[::1]:5000", False),
    ],
)
def test_a_secret_that_goes_out_in_clear_is_known(uri: str, is_clear: bool) -> None:
    assert Mlflow(uri, {"MLFLOW_TRACKING_TOKEN": "t"}).sends_secrets_in_clear is is_clear
    assert not Mlflow(uri, {}).sends_secrets_in_clear
