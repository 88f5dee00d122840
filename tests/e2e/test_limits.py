"""Every limit and timeout can be set, has its status and code, and is counted."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.bench.idle import cpu_s
from tests.support.memory import MIB, resident_bytes
from tests.support.messages import PATIENCE_S, Answer, read_answer
from tests.support.sidecar import flags, sidecar, spell
from tests.support.upstream import ANSWER, never, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.sidecar import Sidecar
    from tests.support.upstream import Received

SETTINGS = """
workers = 1
[limits]
head_bytes = 600
headers = 5
body_bytes = 10
[timeouts]
head_s = 0.3
idle_s = 0.3
first_byte_s = 0.3
body_idle_s = 0.3
"""
FEW = """
workers = 1
[limits]
connections = 3
[timeouts]
idle_s = 1.0
connect_s = 0.1
"""
START = b"POST / HTTP/1.1\r\nHost: h\r\n"
LIMITS = {
    (431, "head-too-large"): (
        b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % (b"x" * 600),
        START + b"A: 1\r\n" * 5 + b"\r\n",
    ),
    (413, "body-too-large"): (
        START + b"Content-Length: 11\r\n\r\n",
        START + b"Transfer-Encoding: chunked\r\n\r\nB\r\n01234567890\r\n",
    ),
    (408, "request-timeout"): (b"GET / HT", START + b"Content-Length: 10\r\n\r\nhalf"),
    (504, "upstream-timeout"): (spell(path="/silent"),),
}
CLIENTS = 1_000  # `python -m tests.bench.idle` has ten thousand
EACH_AT_MOST = 4 * 1024  # 1.9 KiB measured
REST_S = 1.0
CPU_AT_MOST_S = 0.3  # of a second at rest; 0.01 measured, and to spin takes it all


async def said(running: Sidecar, request: bytes) -> tuple[Answer, bytes]:
    """Send bytes; return the answer and what follows it until the sidecar closes."""
    reader, writer = await asyncio.open_connection(*running.listen)
    try:
        writer.write(request)
        answer = await read_answer(reader)
        async with asyncio.timeout(PATIENCE_S):
            return answer, await reader.read()
    finally:
        writer.close()


async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
    await never(request, writer) if request.target == b"/silent" else writer.write(ANSWER)


@contextmanager
def deaf() -> Iterator[str]:
    """An address that neither accepts nor refuses: its backlog is full."""
    with ExitStack() as sockets:
        listening = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 -- the name is Python's
            waiting.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_each_limit_has_its_status_its_code_and_a_count() -> None:
    async with (
        scripted_upstream(answer) as upstream,
        sidecar(*flags(v1=upstream.url), settings=SETTINGS) as running,
    ):
        for (status, code), requests in LIMITS.items():
            for request in requests:
                refused, rest = await said(running, request)

                assert (refused.status, refused.code, rest) == (status, code, b""), request
            counted = await running.counted("rmv_requests_total", status=str(status), code=code)
            assert counted == len(requests)
        assert await running.counted("rmv_timeouts_total", phase="head") == 1
        assert await running.counted("rmv_timeouts_total", phase="body", version="v1") == 1
        assert await running.counted("rmv_timeouts_total", phase="first-byte", version="v1") == 1
        assert await running.counted("rmv_limits_hit_total", limit="head") == 2
        assert await running.counted("rmv_limits_hit_total", limit="body") == 2
        assert (await running.ask()).status == 200


async def test_connections_and_waiting_for_one_are_bounded() -> None:
    async def is_empty() -> bool:
        return await running.counted("rmv_connections") == 0

    with deaf() as dead_url:
        async with (
            scripted_upstream() as upstream,
            sidecar(*flags(v1=upstream.url, v2=dead_url), settings=FEW) as running,
        ):
            many = [await asyncio.open_connection(*running.listen) for _ in range(4)]
            turned_away = await read_answer(many[-1][0])
            async with asyncio.timeout(PATIENCE_S):
                assert await many[0][0].read() == b""  # idle for too long: without a word
            for _, writer in many:
                writer.close()
            await running.until(is_empty, "room")
            late = await running.ask(X_Model_Version="v2")

            assert (turned_away.status, turned_away.code) == (503, "overloaded")
            assert (late.status, late.code) == (502, "upstream-failed")
            assert await running.counted("rmv_requests_total", code="upstream-failed") == 1
            assert await running.counted("rmv_limits_hit_total", limit="connections") == 1
            assert await running.counted("rmv_timeouts_total", phase="connect", version="v2") == 1
            assert await running.counted("rmv_timeouts_total", phase="idle") >= 1


async def test_idle_connections_cost_little() -> None:
    async with scripted_upstream() as upstream, sidecar(*flags(v1=upstream.url)) as running:
        (worker,) = running.workers()
        await running.ask()
        before = resident_bytes(worker)
        writers = []
        for _ in range(CLIENTS):
            reader, writer = await asyncio.open_connection(*running.listen)
            writer.write(spell())
            assert (await read_answer(reader)).status == 200
            writers.append(writer)

        grown = resident_bytes(worker) - before
        used_s = cpu_s(worker)
        await asyncio.sleep(REST_S)
        used_s = cpu_s(worker) - used_s
        for writer in writers:
            writer.close()
        assert grown < CLIENTS * EACH_AT_MOST + MIB
        assert used_s < CPU_AT_MOST_S
