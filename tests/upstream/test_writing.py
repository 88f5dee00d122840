"""When the bytes of a request are written: in order, and late only to be written in a row."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.dataplane.client import Clients
from sidecar.dataplane.connection import ClientConnection
from sidecar.runtime.outbox import Outbox
from sidecar.upstream.connection import MAX_LATE_BYTES
from sidecar.upstream.pool import PoolSettings, Upstreams
from tests.support.proxy import policy, proxy
from tests.support.upstream import ANSWER, UNASKED, eventually, scripted_upstream

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sidecar.upstream.connection import UpstreamConnection
    from tests.support.upstream import Received

HEAD = b"POST /m HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n"
REQUEST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"


class Drain:
    """A client's transport, and what it was given."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 1) if name == "peername" else None


class Endpoint:
    """What has arrived at a server, all of it in order."""

    def __init__(self) -> None:
        self.read = b""
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while piece := await reader.read(65_536):
            self.read += piece
        writer.close()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Endpoint, UpstreamConnection]]:
    endpoint = Endpoint()
    async with await asyncio.start_server(endpoint.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        pools = Upstreams(PoolSettings(), time.monotonic)
        made: asyncio.Future[UpstreamConnection] = asyncio.get_running_loop().create_future()
        pool = pools.group([f"http://127.0.0.1:{port}"]).pick()
        pool.connect(made.set_result, lambda reason: made.set_exception(ConnectionError(reason)))
        connection = await made
        await eventually(lambda: bool(endpoint.writers))
        try:
            yield endpoint, connection
        finally:
            connection.abandon()
            pools.close()
            for writer in endpoint.writers:
                writer.close()
            await asyncio.sleep(0)


async def test_whatever_is_sent_arrives_in_its_order() -> None:
    large = b"l" * (MAX_LATE_BYTES + 1)
    async with connected() as (endpoint, connection):
        connection.send(b"1")
        connection.send(b"2")
        connection.send(memoryview(b"3"))
        connection.send_pieces([b"4", b"5"])
        connection.send(large)
        connection.send(b"6")
        await asyncio.sleep(0)
        connection.send(b"7")
        connection.send_pieces([b"8"])

        await eventually(lambda: endpoint.read.endswith(b"8"))
        assert endpoint.read == b"12345" + large + b"678"


async def test_more_than_a_little_does_not_wait() -> None:
    async with connected() as (_, connection):
        transport = connection.transport
        connection.send(b"x" * 64 * 1024 * 1024)

        assert getattr(transport, "get_write_buffer_size")() > 0  # noqa: B009 -- not of ours


def _read(kept: UpstreamConnection) -> None:
    kept.data_received(UNASKED)


def _read_where_it_lies(kept: UpstreamConnection) -> None:
    head, _, body = UNASKED.partition(b"\r\n\r\n")
    large = head.replace(b" 7", b" 70000") + b"\r\n\r\n" + body * 10_000
    kept.take_read(memoryview(large))


@pytest.mark.parametrize("read", [_read, _read_where_it_lies])
async def test_bytes_that_came_before_the_request_was_written_answer_nothing(
    tmp_path: Path, read: Callable[[UpstreamConnection], None]
) -> None:
    async with (
        scripted_upstream() as server,
        proxy(policy({"v1": server.url}), tmp_path / "log") as running,
    ):
        plane = running.listener.plane
        pool = plane.upstreams.group((server.url,)).pick()
        made: asyncio.Future[UpstreamConnection] = asyncio.get_running_loop().create_future()
        pool.connect(made.set_result, lambda reason: made.set_exception(ConnectionError(reason)))
        kept = await made
        kept.served = 1  # a request on a fresh connection is not sent again
        kept.give_back()
        client, drain = ClientConnection(plane, Clients(1)), Drain()
        client.connection_made(drain)
        client.data_received(REQUEST)
        read(kept)  # in the turn in which the request came

        await eventually(lambda: drain.written.endswith(b"ok"))
        assert b"unasked" not in drain.written
        assert [one.connection for one in server.received] == [2]
        client.connection_lost(None)


LENGTH = b"Content-Length: 70000\r\n\r\n" + bytes(70_000)  # written in two pieces
CHUNKS = (
    b"Transfer-Encoding: chunked\r\n\r\n" + (b"2710\r\n%b\r\n" % bytes(10_000)) * 7 + b"0\r\n\r\n"
)
LATE = b"Content-Length: 5000\r\n\r\n" + bytes(5_000)


@pytest.mark.parametrize("rest", [LENGTH, CHUNKS, LATE], ids=["in pieces", "joined", "late"])
async def test_an_answer_that_is_here_before_a_request_is_written_answers_nothing(
    tmp_path: Path, rest: bytes
) -> None:
    """A large one is written at once; a small one in the next turn, when sockets have been read."""
    writers: list[asyncio.StreamWriter] = []

    async def note(_request: Received, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(ANSWER)

    async with (
        scripted_upstream(note) as server,
        proxy(policy({"v1": server.url}), tmp_path / "log") as running,
    ):
        assert (await running.ask(REQUEST)).body == b"ok"
        client, drain = ClientConnection(running.listener.plane, Clients(1)), Drain()
        client.connection_made(drain)

        if rest is LATE:  # in the turn in which it is written, just before
            asyncio.get_running_loop().call_soon(writers[0].write, UNASKED)
        else:
            writers[0].write(UNASKED)  # is in the kernel by now
        client.data_received(b"POST / HTTP/1.1\r\nHost: h\r\n" + rest)

        await eventually(lambda: drain.written.endswith(b"ok"))
        assert b"unasked" not in drain.written
        assert [len(one.body) for one in server.received] == [2, 5_000 if rest is LATE else 70_000]
        client.connection_lost(None)


async def test_what_is_given_up_before_it_was_written_is_not_written() -> None:
    async with connected() as (endpoint, connection):
        connection.send(HEAD)
        connection.abandon()

        await eventually(endpoint.writers[0].is_closing)
        assert endpoint.read == b""


class Noting:
    is_done = False
    is_told = False

    def write_out(self) -> None:
        self.is_done = True

    def kept_fd(self) -> int:
        return -1

    def withhold(self) -> None: ...

    def on_fault(self) -> None:
        self.is_told = True


class Failing(Noting):
    def write_out(self) -> None:
        raise ZeroDivisionError


async def test_a_writer_that_fails_is_told_and_keeps_no_other_waiting(
    counted_faults: Counter[str],
) -> None:
    outbox, before, failing, after = Outbox(), Noting(), Failing(), Noting()
    for writer in (before, failing, after):
        outbox.add(writer)
    assert not before.is_done

    await eventually(lambda: after.is_done)
    assert before.is_done
    assert [one.is_told for one in (before, failing, after)] == [False, True, False]
    assert counted_faults == {"turn": 1}
    outbox.add(again := Noting())
    await eventually(lambda: again.is_done)


class Unpollable(Noting):
    def kept_fd(self) -> int:
        raise ZeroDivisionError


async def test_what_cannot_be_polled_is_written(counted_faults: Counter[str]) -> None:
    outbox = Outbox()
    outbox.add(writer := Unpollable())

    await eventually(lambda: writer.is_done)
    assert counted_faults == {"turn": 1}


@pytest.mark.parametrize("sent", [b"", HEAD])
async def test_a_request_of_which_nothing_is_written_is_unread(sent: bytes) -> None:
    async with connected() as (endpoint, connection):
        if sent:
            connection.send(sent)
            await eventually(lambda: endpoint.read == sent)
        connection.send(b"late")

        assert connection.is_unread() == (not sent)
