"""The model container, run as the process it is and asked over its socket."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
import pytest_asyncio

from tests.support.container import DEMO, PATIENCE_S, SERVER, V2, ready_line, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROWS: list[list[float]] = json.loads((DEMO / "rows.json").read_text())["rows"]
EXPECTED: list[float] = json.loads(V2.read_text())["expected"]
INFER = "/v2/models/tumor/infer"

Json = dict[str, object]


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """Run a container and hand out a session whose base is its address."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with (
        running("--port", "0") as (_, ready),
        aiohttp.ClientSession(ready[-1], timeout=timeout) as session,
    ):
        yield session


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """One container for the tests that ask for nothing that it would remember."""
    async with client() as shared:
        yield shared


def body(rows: list[list[float]], **changes: object) -> Json:
    tensor: Json = {"name": "rows", "shape": [len(rows), 30], "datatype": "FP64", "data": rows}
    return {"inputs": [tensor | changes]}


async def test_inference_answers_every_row_with_what_the_model_knows(
    session: aiohttp.ClientSession,
) -> None:
    async with session.post(INFER, json=body(ROWS) | {"id": "a-1"}) as answer:
        said = await answer.json()

    assert answer.status == 200
    assert (said["model_name"], said["model_version"], said["id"]) == ("tumor", "v2", "a-1")
    chance, label = said["outputs"]
    assert (chance["name"], chance["datatype"], chance["shape"]) == ("probability", "FP64", [60])
    assert chance["data"] == pytest.approx(EXPECTED, rel=0, abs=1e-9)
    assert (label["name"], label["datatype"], label["shape"]) == ("label", "INT64", [60])
    assert label["data"] == [int(p >= 0.5) for p in EXPECTED]


async def test_a_named_version_and_flat_fp32_data_are_served(
    session: aiohttp.ClientSession,
) -> None:
    path = "/v2/models/tumor/versions/v2/infer"
    asked = body(ROWS[:1], datatype="FP32", data=ROWS[0]) | {"outputs": [{"name": "label"}]}

    async with session.post(path, json=asked) as answer:
        said = await answer.json()

    assert [output["name"] for output in said["outputs"]] == ["label"]
    assert "id" not in said


async def test_metadata_and_health_follow_the_protocol(session: aiohttp.ClientSession) -> None:
    said: dict[str, Json] = {}
    for path in ("", "/health/live", "/health/ready", "/models/tumor", "/models/tumor/ready"):
        async with session.get(f"/v2{path}") as answer:
            said[path] = await answer.json()
    async with session.get("/v2/models/tumor/versions/v2") as answer:
        named = await answer.json()

    assert set(said[""]) == {"name", "version", "extensions"}
    assert said["/health/live"] == {"live": True}
    assert said["/health/ready"] == {"ready": True}
    assert said["/models/tumor/ready"] == {"name": "tumor", "ready": True}
    assert said["/models/tumor"] == named
    assert named["versions"] == ["v2"]
    assert named["inputs"] == [{"name": "rows", "datatype": "FP64", "shape": [-1, 30]}]
    assert [output["name"] for output in named["outputs"]] == ["probability", "label"]


BAD: list[tuple[str, bytes | Json, str]] = [
    ("no JSON", b"{", "truncated"),
    ("no UTF-8", b'{"id": "\xff"}', "utf-8"),
    ("deep nesting", b'{"x":' + b"[" * 100_000, "recursion"),
    ("no object", b"[]", "object"),
    ("no inputs", {}, "inputs"),
    ("empty inputs", {"inputs": []}, "length"),
    ("another tensor", body(ROWS, name="image"), "name"),
    ("a datatype it has not", body(ROWS, datatype="INT64"), "datatype"),
    ("an unknown output", body(ROWS) | {"outputs": [{"name": "colour"}]}, "colour"),
    ("29 columns", body(ROWS, shape=[60, 29]), "shape"),
    ("no rows", body([], shape=[0, 30]), "shape"),
    ("negative rows", body([], shape=[-1, 30]), "shape"),
    ("three dimensions", body(ROWS, shape=[60, 30, 1]), "shape"),
    ("fewer rows than the shape", body(ROWS, shape=[61, 30]), "fill"),
    ("a ragged row", body([*ROWS[1:], ROWS[0][:29]]), "fill"),
    ("flat data that ends early", body(ROWS[:1], data=ROWS[0][:29]), "fill"),
    ("numbers among rows", body(ROWS, data=[1.0, ROWS[0]]), "mixes"),
    ("text for a number", body([["1"] * 30]), "float"),  # type: ignore[list-item]  # bad on purpose
    ("a truth value for a number", body([[True] * 30]), "float"),
    ("no number", b'{"inputs":[{"name":"rows","shape":[1,1],"datatype":"FP64","data":[NaN]}]}', ""),
    ("a number out of range", body([[1e300] * 30]), "1000000000000"),
]


async def test_bad_input_is_refused_with_400_and_the_reason(session: aiohttp.ClientSession) -> None:
    said: dict[str, tuple[int, Json]] = {}

    for name, bad, _ in BAD:
        data = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
        async with session.post(INFER, data=data) as answer:
            said[name] = answer.status, await answer.json()

    for name, _, reason in BAD:
        status, error = said[name]
        assert (status, list(error)) == (400, ["error"]), name
        assert reason in str(error["error"]).lower(), name


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/tumor/versions/v9", 404),
        ("POST", "/v2/models/tumor/versions/v9/infer", 404),
        ("GET", "/nowhere", 404),
        ("GET", INFER, 405),
        ("GET", "/v2/models/tumor/events?count=-1", 400),
        ("GET", f"/v2/models/tumor/events?count={'9' * 5_000}", 400),
        ("GET", "/v2/models/tumor/events?every_ms=99999999", 400),
    ],
)
async def test_what_is_not_served_is_refused_as_json(
    session: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with session.request(method, path) as answer:
        said = await answer.json()

    assert answer.status == status
    assert list(said) == ["error"]
    assert ("Allow" in answer.headers) == (status == 405)


async def test_a_body_over_the_limit_is_refused_with_413(session: aiohttp.ClientSession) -> None:
    oversize = io.BytesIO(b" " * (1024 * 1024 + 1))

    async with session.post(INFER, data=oversize) as answer:
        said = await answer.json()

    assert answer.status == 413
    assert list(said) == ["error"]


async def test_events_are_streamed_and_end() -> None:
    async with client() as session:
        async with session.post(INFER, json=body(ROWS)):
            pass
        async with session.get("/v2/models/tumor/events?count=3&every_ms=0") as answer:
            text = await answer.text()

    assert answer.content_type == "text/event-stream"
    events = text.removesuffix("\n\n").split("\n\n")
    assert [event.split("\n")[0] for event in events] == ["id: 0", "id: 1", "id: 2"]
    data = json.loads(events[0].split("data: ")[1])
    assert data == {"model": "tumor", "version": "v2", "rows_scored": 60}


async def test_the_websocket_echoes_text_and_bytes(session: aiohttp.ClientSession) -> None:
    async with session.ws_connect("/ws") as socket:
        await socket.send_str("häuser")
        text = await socket.receive_str()
        await socket.send_bytes(b"\x00\xff")
        octets = await socket.receive_bytes()

    assert (text, octets) == ("häuser", b"\x00\xff")


async def test_sigterm_ends_it_cleanly_with_streams_and_sockets_open() -> None:
    async with (
        running("--port", "0") as (process, ready),
        aiohttp.ClientSession(ready[-1]) as session,
        session.ws_connect("/ws") as socket,
        session.get("/v2/models/tumor/events?count=9&every_ms=60000") as events,
    ):
        await events.content.readline()

        process.send_signal(signal.SIGTERM)

        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 0
            await events.read()
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    path = str(tmp_path / "v2.sock")

    async with (
        running("--unix", path) as (_, ready),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
        session.get("http://model/v2/health/ready") as answer,
    ):
        assert ready == ["ready", "tumor", "v2", f"unix:{path}"]
        assert answer.status == 200


async def test_it_ends_when_its_parent_is_killed() -> None:
    starter = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, *sys.argv[1:]])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", starter, str(SERVER), "--model", str(V2)),
        *("--version", "v2", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    lines = [(await ready_line(parent)), (await ready_line(parent))]
    child = next(int(line[0]) for line in lines if len(line) == 1)
    try:
        parent.kill()
        await parent.wait()
        async with asyncio.timeout(PATIENCE_S):
            left = await parent.stdout.read()  # the child holds the pipe open while it lives
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        raise

    assert left == b""


@pytest.mark.parametrize(
    "flags",
    [
        ("--model", str(V2)),
        ("--model", "/nowhere.json", "--port", "0"),
        ("--model", str(DEMO / "rows.json"), "--port", "0"),
    ],
    ids=["no address", "no such file", "no model file"],
)
async def test_flags_it_cannot_use_end_it_with_status_2(flags: tuple[str, ...]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(SERVER), "--version", "v2", *flags),
        stderr=asyncio.subprocess.PIPE,
    )

    _, said = await process.communicate()

    assert process.returncode == 2
    assert said.startswith(b"usage:")
