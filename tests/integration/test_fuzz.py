"""Mutated messages against the real data plane, from either side, for a bounded time.

And sound ones of many clients at a time, whose bodies pile up. On uvloop, which serves, and on
asyncio's own loop: only the first reads long bodies where they are written from.
What passes is compared with the plain grammar of `tests.wire`. The seed is printed:
`RMV_FUZZ_SEED` repeats it, as far as sockets repeat; `RMV_FUZZ_S` is how long each test takes.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import TYPE_CHECKING, Final

import pytest
import uvloop

from sidecar.model.limits import Timeouts
from sidecar.runtime.inbox import LONG_BYTES
from sidecar.upstream.connection import FEW_HEAD_BYTES, LARGE_BYTES
from tests.support.memory import bounded
from tests.support.messages import PATIENCE_S
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import ANSWER, Received, receive, reset, scripted_upstream
from tests.wire import plain, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from tests.support.proxy import Proxy
    from tests.support.upstream import ScriptedUpstream

    Lane = Callable[[random.Random, Path], Coroutine[None, None, int]]

FOR_S: Final = float(os.environ.get("RMV_FUZZ_S", "15"))
LANES: Final = 8  # at a time, each with a sidecar of its own
CLIENTS: Final = 3  # of a lane at a time, where what they ask is sound
SOON: Final = Timeouts(head_s=0.3, body_idle_s=0.3, drain_idle_s=0.05)  # ends what is not whole
TAIL: Final = 200  # bytes: a short message, and the last one
AT_ONCE_S: Final = (0.0,)
PAUSES_S: Final = (0.0, 0.001)  # the longer one gives what was sent a read of its own
WAITS_S: Final = (0.0, 0.0, 0.01)  # of an upstream, for bodies to pile up
SHOWN: Final = 1000  # bytes of either end of what failed
pytestmark = pytest.mark.timeout(FOR_S + 120)
_SEED = int(os.environ.get("RMV_FUZZ_SEED", "0")) or random.SystemRandom().getrandbits(32)
_CLOSE = b"Connection: close\r\n"
_LAST = b"GET /last HTTP/1.1\r\nHost: a\r\n" + _CLOSE + b"\r\n"
_SHORT_REQUESTS = (
    b"GET /good HTTP/1.1\r\nHost: a\r\nX-A: a value with room for what may not be in it\r\n\r\n",
    b"POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n"
    b"5\r\nhello\r\n0\r\nT: 1\r\n\r\n",
    b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"HEAD //a/%2e?b HTTP/1.1\r\nhOsT: a\r\nX-A: \xff\r\nX-A: 2\r\n"
    b"Connection: X-B\r\nX-B: 1\r\n\r\n",
)
_LONG_REQUESTS = (
    b"PUT /long HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n\1hello",
    b"PUT /long HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n\1hello\r\n0\r\n\r\n",
)
_REQUESTS = _SHORT_REQUESTS * 4 + _LONG_REQUESTS  # a long one takes the time of many others
_LONG = b"\1"  # where a long body goes
_LONG_REQUEST_BYTES = (LONG_BYTES + 300_000, 3 * LONG_BYTES)  # past the read that it begins with
_PILED_UP_BYTES = (5_000_000, 6_000_000)  # more than the kernel takes for who does not read
_LONG_RESPONSE_BYTES = (LARGE_BYTES, 5 * LARGE_BYTES)
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CHUNKS = b"5\r\nhello\r\n3;a=b\r\nyou\r\n0\r\n"
_ANNOUNCED = b"Trailer: X-Sum, Host\r\n"
_TRAILERS = b"X-Sum: 1\r\nHost: b\r\nX-Other: 2\r\nx-sum: \xff\r\n"
_RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a\r\nset-cookie: \xff\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\n" + _CHUNKED + b"\r\n" + _CHUNKS + b"\r\n",
    b"HTTP/1.1 200 OK\r\n" + _CHUNKED + _ANNOUNCED + b"\r\n" + _CHUNKS + _TRAILERS + b"\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 500 No\r\n" + _CHUNKED + b"\r\n" + _CHUNKS + b"\r\n",
    b"HTTP/1.1 204 None\r\nX-A: 1\r\n\r\n",
    b"HTTP/1.1 304 Same\r\nETag: a\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nuntil the end",
    b"HTTP/1.0 404 Not there\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\n" + _CLOSE + b"Content-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\n" + _CHUNKED + b"\r\n%x\r\n\1hello\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n\1hello",
    b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * FEW_HEAD_BYTES + b"\r\nContent-Length: %d\r\n\r\n\1hello",
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n\1hello",
)
_ASKED = (  # method, minor version, and what keeps the connection
    (b"GET", b"1", b""),
    (b"HEAD", b"1", b""),
    (b"GET", b"0", b"Connection: keep-alive\r\n"),
)
_LONG_REQUEST, _LONG_RESPONSE = (
    (one % size).replace(_LONG, bytes(size - len(b"hello")))
    for one, size in ((_LONG_REQUESTS[0], 2 * LONG_BYTES), (_RESPONSES[-1], 2 * LARGE_BYTES))
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


def _one_of(
    rng: random.Random, messages: tuple[bytes, ...], sizes: tuple[int, int], *, mutated: bool
) -> bytes:
    """Return one of `messages`; `sizes` are those of a long body, of which mutations spare most."""
    message, size = rng.choice(messages), rng.randrange(*sizes)
    if _LONG in message:
        message %= size + len(b"hello")
    if mutated:
        message = _mutate(rng, message)
    return message.replace(_LONG, rng.randbytes(size)) if _LONG in message else message


def _cut(data: bytes) -> bytes:
    """Return as much of `data` as is worth showing."""
    return data if len(data) < 4 * SHOWN else data[:SHOWN] + b" ... " + data[-SHOWN:]


def _is_read_as_served(proxy: Proxy) -> bool:
    """Return whether long bodies were read into the buffers for them, where uvloop does it."""
    is_on_uvloop = isinstance(asyncio.get_running_loop(), uvloop.Loop)
    return bool(proxy.listener.plane.turns.inbox._buffers) == is_on_uvloop  # noqa: SLF001


async def _talk(
    rng: random.Random, port: int, data: bytes, pauses_s: tuple[float, ...] = AT_ONCE_S
) -> tuple[bytes, bool]:
    """Send `data` in random pieces; return all that came back, and whether a FIN ended it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(data) + 1)
            if rng.randrange(2):  # near the end, which is where what follows a long body is
                at = max(len(data) - at % TAIL, 0)
            writer.write(data[:at])
            data = data[at:]
            await asyncio.sleep(rng.choice(pauses_s))
            if writer.transport.is_closing():  # what has been sent was enough
                break
        else:
            writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            while part := await reader.read(65_536):
                got += part
    except ConnectionError:
        return got, False
    else:
        return got, True
    finally:
        writer.transport.abort()


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """What runs lanes."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


async def _in_lanes(lane: Lane, folder: Path) -> None:
    """Run a few lanes at a time; none may leave an error with the event loop."""
    print("seed", _SEED)  # noqa: T201 -- to repeat it
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    async with asyncio.TaskGroup() as group:
        lanes = [
            group.create_task(lane(random.Random(_SEED + n), folder / str(n)))  # noqa: S311
            for n in range(LANES)
        ]
    print("cases", sum(one.result() for one in lanes))  # noqa: T201 -- what the time was enough for
    assert not faults


# --- requests ------------------------------------------------------------------------------------


def _answers(got: bytes, methods: list[bytes]) -> int:
    """Return how many whole responses `got` is, which may be to `methods`; a rest is an error."""
    number = 0
    while got:
        method = methods[number] if number < len(methods) else b""
        response = whole.read_response(got, method)
        assert response is not None, _cut(got)
        got = got[response.size :]
        number += 1
    return number


def _without_host(request: whole.Request) -> whole.Request:
    fields = [field for field in request.fields if field[0].lower() != b"host"]
    return request._replace(fields=fields)


def _as_read(received: Received, expected: whole.Request) -> whole.Request | None:
    """Return a request as an upstream got it; without its Host, if the client named none."""
    head = plain.read_request(received.head + b"\r\n")
    if head is None:
        return None
    request = whole.Request(head.start, head.fields, received.body)
    return request if expected != _without_host(expected) else _without_host(request)


async def _attack(proxy: Proxy, upstream: ScriptedUpstream, rng: random.Random) -> None:
    upstream.received.clear()
    sent = b"".join(
        _one_of(rng, _REQUESTS, _LONG_REQUEST_BYTES, mutated=True) for _ in range(rng.randint(1, 3))
    )
    expected = whole.read_requests(sent + _LAST)

    got, _ = await _talk(rng, proxy.port, sent + _LAST)

    received, shown = upstream.received, _cut(sent)
    assert len(received) <= _answers(got, [one.start[0] for one in expected]), (shown, got)
    assert len(received) <= len(expected), (shown, received[-1].head)
    for one, should in zip(received, expected, strict=False):
        is_same = _as_read(one, should) == should  # by itself: pytest would show all of it
        assert is_same, (shown, one.head, _cut(one.body))


async def _polite(request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER if request.method != b"HEAD" else ANSWER.removesuffix(b"ok"))


async def _request_lane(rng: random.Random, log: Path) -> int:
    until_s, cases = time.monotonic() + FOR_S, 0
    async with chain(log, _polite, timeouts=SOON) as (proxy, upstream):
        while time.monotonic() < until_s:
            await _attack(proxy, upstream, rng)
            cases += 1
        while (status := (await proxy.ask(_LONG_REQUEST)).status) != 200:
            assert status == 408  # a busy machine, for which `SOON` is too soon
        assert _is_read_as_served(proxy)
    return cases


def test_an_upstream_sees_the_requests_that_were_sent_and_answers_each(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    runner.run(_in_lanes(_request_lane, tmp_path))


# --- requests as they should be ------------------------------------------------------------------


class _Echo:
    """An upstream that lets bodies wait, and then sends each back, framed as it likes."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.received: list[Received] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        bounded(writer)
        while True:
            await asyncio.sleep(self._rng.choice(WAITS_S))
            request = await receive(reader)
            self.received.append(request)
            writer.write(self._answer(request))
            await writer.drain()

    def _answer(self, request: Received) -> bytes:
        body = request.body
        if request.method == b"HEAD" or request.target == b"/old" or self._rng.randrange(2):
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        head = b"HTTP/1.1 200 OK\r\n" + _CHUNKED + b"\r\n"
        return head + (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"


async def _ask(rng: random.Random, port: int) -> list[whole.Request]:
    """Send sound requests, and see that their bodies come back; return them as they should pass."""
    sent = _LAST
    for _ in range(rng.randint(1, 3)):
        sizes = rng.choice((_LONG_REQUEST_BYTES, _PILED_UP_BYTES))
        sent = _one_of(rng, _SHORT_REQUESTS + _LONG_REQUESTS, sizes, mutated=False) + sent
    expected = whole.read_requests(sent)

    got, ended = await _talk(rng, port, sent, PAUSES_S)

    assert ended, (_cut(sent), _cut(got))
    for request in expected:
        answer = whole.read_response(got, request.start[0])
        is_echo = answer is not None and answer.body == request.body
        assert is_echo, (_cut(sent), _cut(got))
        got = got[answer.size :]
    assert not got
    return expected


async def _sound_lane(rng: random.Random, log: Path) -> int:
    until_s, cases = time.monotonic() + FOR_S, 0
    echo = _Echo(rng)
    async with (
        scripted_upstream(conversation=echo) as upstream,
        proxy(policy({"v1": upstream.url}), log) as running,
    ):
        while time.monotonic() < until_s:
            echo.received.clear()
            asked = await asyncio.gather(*(_ask(rng, running.port) for _ in range(CLIENTS)))
            _assert_passed(echo.received, [one for requests in asked for one in requests])
            cases += CLIENTS
        assert _is_read_as_served(running)
    return cases


def _assert_passed(received: list[Received], expected: list[whole.Request]) -> None:
    """Hold what an upstream got, in any order, to what it should."""
    assert len(received) == len(expected)
    # By `_without_host` all are alike: some had none of their own.
    passed = [_as_read(one, _without_host(expected[0])) for one in received]
    assert None not in passed
    is_same = sorted(passed) == sorted(map(_without_host, expected))
    assert is_same


def test_sound_requests_of_many_and_their_bodies_back_are_passed_whole(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    runner.run(_in_lanes(_sound_lane, tmp_path))


# --- responses -----------------------------------------------------------------------------------


class _Liar:
    """An upstream that answers /bad as it was told to `plan`, and anything else as it should.

    `meant` is how that answer is to be taken, None if not as a whole one.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.response = b""
        self.meant: whole.Response | None = None
        self.spoiled = 0  # requests on a connection that cannot be trusted any more
        self._size = 0  # of what is meant, in `response`
        self._may_go_on = self._resets = False
        self._unsound: set[int] = set()

    def plan(self, response: bytes, method: bytes) -> None:
        """Answer next with `response`, which is to `method`."""
        self.response = response
        self._resets = not self._rng.randrange(8)
        found = whole.read_response(self.response, method)
        self._size = len(self.response) if found is None else found.size
        has_surplus = self._size < len(self.response)
        is_ended_by_close = found is not None and found.framing == plain.UNTIL_CLOSE
        self._may_go_on = found is not None and not has_surplus and not is_ended_by_close
        # What follows a response that can have no body is dropped: its head is whole all the same.
        is_spoiled = has_surplus and found is not None and found.may_have_body(method)
        self.meant = None if is_spoiled or (is_ended_by_close and self._resets) else found

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        """Answer a request."""
        self.spoiled += request.connection in self._unsound
        if request.target != b"/bad":
            writer.write(ANSWER)
            return
        # Surplus comes with the end of what it follows: as bytes that come later, to the next
        # request, nobody could tell it from the answer.
        at = self._rng.randrange(max(min(self._size, self._rng.choice((TAIL, self._size))), 1))
        writer.write(self.response[:at])
        await asyncio.sleep(0)
        writer.write(self.response[at:])
        if not self._may_go_on:
            self._unsound.add(request.connection)
            reset(writer) if self._resets else writer.close()


def _heads(heads: list[plain.Plain]) -> list[tuple[object, object]]:
    return [(head.start, head.fields) for head in heads]


def _assert_same(got: whole.Response, meant: whole.Response, *, is_http10: bool) -> None:
    assert _heads([got.head]) == _heads([meant.head])
    is_same = got.body == meant.body  # by itself: pytest would show all of it
    assert is_same
    assert _heads(got.interim) == ([] if is_http10 else _heads(meant.interim))
    assert got.trailers == ([] if is_http10 else meant.passable_trailers())


def _assert_beginning(got: bytes, sent: bytes) -> None:
    """Hold what came before a cut to what was sent."""
    seen, meant = whole.begin_response(got), whole.begin_response(sent)
    assert _heads(seen.interim) == _heads(meant.interim)[: len(seen.interim)]
    if seen.head is not None:
        assert meant.head is not None
        assert _heads([seen.head]) == _heads([meant.head])
        assert whole.body_so_far(sent).startswith(whole.body_so_far(got))


def _assert_failure(got: whole.Response | None, method: bytes) -> None:
    assert got is not None
    assert got.head.start[0] == b"502"
    assert (b"Content-Type", b"application/problem+json") in got.head.fields
    assert method == b"HEAD" or b'"code":"upstream-failed"' in got.body


def _assert_taken(got: bytes, ended: bool, liar: _Liar, asked: tuple[bytes, bytes, bytes]) -> None:
    """Hold what a client got to what its upstream sent."""
    method, minor, _ = asked
    if not ended:
        assert liar.meant is None
        _assert_beginning(got, liar.response)
        return
    first = whole.read_response(got, method)
    if liar.meant is None:
        _assert_failure(first, method)
    assert first is not None
    if liar.meant is not None:
        _assert_same(first, liar.meant, is_http10=minor == b"0")
    rest = got[first.size :]
    if first.framing != plain.UNTIL_CLOSE and (rest or minor != b"0"):
        last = whole.read_response(rest, b"GET")
        assert last is not None
        assert (last.head.start[0], last.body, last.size) == (b"200", b"ok", len(rest))
    assert not liar.spoiled


async def _lie(rng: random.Random, proxy: Proxy, liar: _Liar) -> None:
    asked = rng.choice(_ASKED)
    liar.plan(_one_of(rng, _RESPONSES, _LONG_RESPONSE_BYTES, mutated=True), asked[0])
    request = b"%b /bad HTTP/1.%b\r\nHost: a\r\n%b\r\n" % asked
    got, ended = await _talk(rng, proxy.port, request + _LAST)
    try:
        _assert_taken(got, ended, liar, asked)
    except AssertionError as error:
        sent = _cut(liar.response)
        error.add_note(f"asked {asked}, sent {sent!r}, got {_cut(got)!r}, {ended=}")
        raise


async def _response_lane(rng: random.Random, log: Path) -> int:
    until_s, cases = time.monotonic() + FOR_S, 0
    liar = _Liar(rng)
    async with chain(log, liar) as (proxy, _upstream):
        while time.monotonic() < until_s:
            await _lie(rng, proxy, liar)
            cases += 1
        liar.plan(_LONG_RESPONSE, b"GET")
        assert (await proxy.ask(b"GET /bad HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
        assert _is_read_as_served(proxy)
    return cases


def test_a_client_gets_the_response_that_was_sent_or_sees_that_it_does_not(
    runner: asyncio.Runner, tmp_path: Path
) -> None:
    runner.run(_in_lanes(_response_lane, tmp_path))
