"""Mutated messages against the real data plane, from either side, for a bounded time.

The seed is printed; `RMV_FUZZ_SEED` repeats it, as far as sockets repeat.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import TYPE_CHECKING

from tests.support.proxy import chain
from tests.support.upstream import ANSWER, Received
from tests.wire import plain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.proxy import Proxy

FOR_S = 20.0
SILENCE_S = 0.1  # after which nothing more is expected
_SEED = int(os.environ.get("RMV_FUZZ_SEED", "0")) or random.SystemRandom().getrandbits(32)
_GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"
_REQUESTS = (
    _GOOD,
    b"POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n0\r\nT: 1\r\n\r\n",
    b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
)
_RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
)
_PUT = (
    b"\r", b"\n", b"\r\n", b"\0", b" ", b":", b";", b"0", b"f", b"\x7f",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n",
)  # fmt: skip


def _mutate(rng: random.Random, message: bytes) -> bytes:
    for _ in range(rng.randrange(4)):
        a, b = sorted(rng.randrange(len(message) + 1) for _ in range(2))
        lines = message.split(b"\r\n")
        message = rng.choice(
            (
                message[:a] + rng.choice(_PUT) + message[a:],
                message[:a] + message[a + 1 :],
                message[:a] + message[b:],
                message[:a] + message[a:b] * 2 + message[b:],
                b"\r\n".join([*lines[:2], rng.choice(_PUT).strip(), *lines[2:]]),
                b"\r\n".join([*lines[:2], *lines[1:]]),
            )
        )
    return message


async def _talk(rng: random.Random, port: int, data: bytes) -> tuple[bytes, bool]:
    """Send `data` in random pieces; return what came back, and whether it ended by a FIN."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data) + 1)
            writer.write(data[:at])
            data = data[at:]
            await asyncio.sleep(0)
        writer.write(data)
        while part := await asyncio.wait_for(reader.read(65_536), SILENCE_S):
            got += part
    except TimeoutError:
        return got, False
    except ConnectionError:
        return got, False
    else:
        return got, True
    finally:
        writer.transport.abort()


def _answers(got: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the whole final responses in `got`, by a strict reader, and what is left."""
    found: list[tuple[int, bytes]] = []
    while (end := got.find(b"\r\n\r\n")) >= 0:
        head = plain.read_response(got[: end + 2])
        assert head is not None, got
        status, rest = int(head.start[0]), got[end + 4 :]
        if status < 200:
            got = rest
            continue
        if head.framing == plain.CHUNKED:
            whole = plain.decode(rest)
            if whole is None:
                return found, got
            body, size = whole
        elif head.framing == plain.UNTIL_CLOSE:
            body, size = rest, len(rest)
        else:
            assert isinstance(head.framing, int), got
            size = head.framing
            body = rest[:size]
            if len(body) < size:
                return found, got
        found.append((status, body))
        got = rest[size:]
    return found, got


async def _is_fine(proxy: Proxy) -> bool:
    return (await proxy.ask(_GOOD)).status == 200


async def test_no_mutated_request_gets_past_its_own_answer(tmp_path: Path) -> None:
    print("seed", _SEED)  # noqa: T201 -- to repeat it
    rng, faults = random.Random(_SEED), []  # noqa: S311 -- repeatable
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    until_s = time.monotonic() + FOR_S
    async with chain(tmp_path / "log") as (proxy, upstream):
        while time.monotonic() < until_s:
            upstream.received.clear()
            sent = b"".join(_mutate(rng, rng.choice(_REQUESTS)) for _ in range(rng.randint(1, 3)))
            got, _ = await _talk(rng, proxy.port, sent)
            answers, left = _answers(got)
            assert not left, (sent, got)
            assert len(upstream.received) <= len(answers), (sent, got)
            for request in upstream.received:
                assert plain.read_request(request.head + b"\r\n"), (sent, request.head)
            assert await _is_fine(proxy), sent
    assert not faults


async def test_no_mutated_response_ends_well_unless_it_is(tmp_path: Path) -> None:
    print("seed", _SEED)  # noqa: T201 -- to repeat it
    rng, faults, script = random.Random(_SEED), [], [b""]  # noqa: S311 -- repeatable
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        if b"/good" in request.line:
            writer.write(ANSWER)
            return
        at = rng.randrange(len(script[0]) + 1)
        writer.write(script[0][:at])
        await asyncio.sleep(0)
        writer.write(script[0][at:])
        writer.close()

    until_s = time.monotonic() + FOR_S
    asked = b"GET /bad HTTP/1.1\r\nHost: a\r\n\r\n"
    async with chain(tmp_path / "log", answer) as (proxy, _upstream):
        while time.monotonic() < until_s:
            script[0] = _mutate(rng, rng.choice(_RESPONSES))
            got, is_ended = await _talk(rng, proxy.port, asked)
            answers, left = _answers(got)
            assert len(answers) <= 1, (script, got)
            assert not (is_ended and left), (script, got)
            assert await _is_fine(proxy), script
    assert not faults
