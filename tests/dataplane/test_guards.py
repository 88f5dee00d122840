"""Errors that nobody foresaw end what they come up in: they leak nothing, and stop nothing else."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final

import pytest

from sidecar.dataplane import listener
from sidecar.dataplane.flow import UPSTREAM_FULL, Reading
from sidecar.model.limits import Limits, Timeouts
from sidecar.model.tls import TlsSettings
from sidecar.runtime.tls import ServerTls
from sidecar.upstream.dial import Dial
from tests.support.certificates import write_certificate
from tests.support.proxy import chain, policy, proxy
from tests.support.upstream import ANSWER, eventually, never, scripted_upstream

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from sidecar.dataplane.connection import ClientConnection
    from sidecar.upstream.pool import Group
    from tests.support.proxy import Proxy
    from tests.support.upstream import Received

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"
FAULT: Final = (500, "sidecar-fault")


class Faulty:
    """What is called in place of `call`, and fails the first `times`."""

    def __init__(self, call: object, times: int = 1) -> None:
        self.call = call
        self.left = times

    def __call__(self, *args: object) -> object:
        if self.left:
            self.left -= 1
            raise ZeroDivisionError
        return self.call(*args)  # type: ignore[operator]


class FaultyWrites:
    """A transport whose first writes fail."""

    def __init__(self, transport: object) -> None:
        self._transport = transport
        self.write = self.writelines = Faulty(print, times=1_000)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


class FaultyAborts:
    """A transport that cannot be aborted, once."""

    def __init__(self, transport: object) -> None:
        self._transport = transport
        self.abort = Faulty(transport.abort)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


def connection(running: Proxy) -> ClientConnection:
    """Return the sidecar's end of the one client's connection."""
    [client] = running.listener._clients  # noqa: SLF001
    return client  # type: ignore[return-value]


def group(running: Proxy) -> Group:
    """Return the endpoints of `v1`, and who is with them."""
    return running.listener.plane.upstreams._groups["m", "v1"]  # noqa: SLF001


async def is_sound(running: Proxy) -> None:
    """Expect that nothing is left of what failed, and that the next is served."""
    await eventually(lambda: not running.listener._connections())  # noqa: SLF001
    assert (await running.ask(GET)).status == 200
    await eventually(lambda: not group(running).in_flight)
    assert not group(running).waiting


# --- of a client --------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [GET, POST])
async def test_a_fault_while_a_request_is_read_is_answered_once_and_ends_its_connection(
    log: Path, counted_faults: Counter[str], request_: bytes
) -> None:
    async with chain(log) as (running, upstream), running.client() as client:
        plane = running.listener.plane
        plane.decide = Faulty(plane.decide)  # type: ignore[assignment]
        await client.send(request_ * 3)
        answer = await client.answer()

        assert (answer.status, answer.code) == FAULT
        assert answer.get(b"Connection") == b"close"
        assert not await client.rest()
        client.close()
        await is_sound(running)
        assert [one["code"] for one in running.records()] == ["sidecar-fault", ""]
        assert counted_faults == {"client": 1}
        assert running.counted("rmv_failed_exchanges_total", code="sidecar-fault") == 1
        assert len(upstream.received) == 1


async def test_a_fault_over_tls_ends_no_other_way(
    log: Path, counted_faults: Counter[str], tmp_path: Path
) -> None:
    cert, key = map(str, write_certificate(tmp_path))
    async with chain(log, tls=ServerTls(TlsSettings(cert, key))) as (running, _):
        plane = running.listener.plane
        plane.decide = Faulty(plane.decide)  # type: ignore[assignment]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", running.port, ssl=ssl.create_default_context(cafile=cert)
        )
        writer.write(GET)
        said = await reader.read()
        writer.close()

        assert said.startswith(b"HTTP/1.1 500 ")
        assert counted_faults == {"client": 1}


async def test_a_fault_past_the_decision_lets_the_next_request_in(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with chain(log) as (running, _):
        assert (await running.ask(GET)).status == 200
        chosen, pools = group(running), group(running).pools
        chosen.limit(1, 0)
        chosen.pools = ()  # of none nothing can be picked
        assert (await running.ask(GET)).code == "sidecar-fault"
        assert not chosen.in_flight
        chosen.pools = pools

        await is_sound(running)
        assert counted_faults == {"client": 1}


async def test_a_fault_as_an_exchange_ends_leaves_client_and_version_alone(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with chain(log) as (running, _), running.client() as client:
        plane = running.listener.plane
        await client.ask(GET)
        group(running).limit(1, 0)
        plane.record = Faulty(plane.record)  # type: ignore[assignment]
        for _ in range(3):
            assert (await client.ask(GET)).status == 200

        assert counted_faults == {"record": 1}
        assert not group(running).in_flight
        assert len(running.records()) == 3  # of four


async def test_a_fault_in_what_waited_for_a_turn_ends_that_connection_alone(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with chain(log) as (running, _), running.client() as client:
        plane = running.listener.plane
        refused = b"GET / HTTP/1.1\r\nHost: h\r\nX-Model-Version: none\r\n\r\n"
        begun = 0
        decide = plane.decide

        def failing(*args: object) -> object:
            nonlocal begun
            begun += 1
            if begun == 33:  # the first of another turn
                raise ZeroDivisionError
            return decide(*args)  # type: ignore[arg-type]

        plane.decide = failing  # type: ignore[assignment]
        await client.send(refused * 40)
        answers = [await client.answer() for _ in range(33)]

        assert [one.status for one in answers] == [404] * 32 + [500]
        assert not await client.rest()
        client.close()
        await is_sound(running)
        assert counted_faults.total() == 1


async def test_a_fault_as_a_client_leaves_leaks_nothing(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with chain(log, never) as (running, upstream):
        async with running.client() as client:
            await client.send(GET)
            await eventually(lambda: len(upstream.received) == 1)
            exchange = connection(running)._current  # noqa: SLF001
            assert exchange is not None
            assert exchange.upstream is not None
            exchange.upstream.transport = FaultyAborts(exchange.upstream.transport)  # type: ignore[assignment]

        assert (await running.recorded())[0]["code"] == "sidecar-fault"
        await eventually(lambda: not group(running).in_flight)
        assert counted_faults == {"client": 1}
        upstream.script = ANSWER
        await is_sound(running)


async def test_a_fault_as_a_client_joins_closes_its_connection(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with chain(log) as (running, _):
        plane = running.listener.plane
        plane.monotonic_s, works = Faulty(plane.monotonic_s), plane.monotonic_s  # type: ignore[assignment]
        async with running.client() as client:
            assert not await client.rest()
        plane.monotonic_s = works

        await is_sound(running)
        assert counted_faults.total() == 1


async def test_a_fault_while_somebody_waits_in_line_ends_his_wait(
    log: Path, counted_faults: Counter[str]
) -> None:
    is_due = asyncio.Event()

    async def late(_request: Received, writer: asyncio.StreamWriter) -> None:
        await is_due.wait()
        writer.write(ANSWER)

    async with (
        chain(log, late) as (running, upstream),
        running.client() as first,
        running.client() as second,
    ):
        await first.send(GET)
        await eventually(lambda: len(upstream.received) == 1)
        chosen, pools = group(running), group(running).pools
        chosen.limit(1, 5)
        await second.send(GET)
        await eventually(lambda: chosen.waiting == 1)
        chosen.pools = ()
        is_due.set()

        assert (await first.answer()).status == 200
        assert (await second.answer()).code == "sidecar-fault"
        chosen.pools = pools
        first.close()
        second.close()
        await is_sound(running)
        assert counted_faults == {"client": 1}


# --- of an upstream -----------------------------------------------------------------------------


async def test_a_fault_while_an_answer_is_passed_on_cuts_it_and_drops_its_connection(
    log: Path, counted_faults: Counter[str]
) -> None:
    is_due = asyncio.Event()

    async def in_parts(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npart")
        await is_due.wait()
        writer.write(b"part")

    async with chain(log, in_parts) as (running, upstream):
        async with running.client() as client:
            await client.send(GET)
            await client.until(b"part")
            held = connection(running)
            held.transport = FaultyWrites(held.transport)  # type: ignore[assignment]
            is_due.set()

            assert await client.reset()
        [record] = await running.recorded()
        assert (record["status"], record["code"]) == (200, "sidecar-fault")
        await eventually(lambda: upstream.lost == 1)
        upstream.script = ANSWER
        await is_sound(running)
        assert counted_faults == {"upstream": 1}


async def test_a_fault_while_an_answer_begins_leaves_nobody_waiting(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with chain(log) as (running, upstream):
        async with running.client() as client:
            await client.ask(GET)
            held = connection(running)
            held.transport = FaultyWrites(held.transport)  # type: ignore[assignment]
            await client.send(GET)

            assert await client.reset()
        assert [one["code"] for one in await running.recorded(2)] == ["", "sidecar-fault"]
        await eventually(lambda: upstream.lost == 1)
        await is_sound(running)
        assert counted_faults == {"upstream": 1}


async def test_a_fault_of_connecting_is_answered_and_blames_no_endpoint(
    log: Path, counted_faults: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = Faulty(Dial.connect, times=6)

    async def connect(*args: object) -> object:
        return await faulty(*args)  # type: ignore[misc]

    monkeypatch.setattr(Dial, "connect", connect)
    async with chain(log) as (running, _):
        answers = [await running.ask(GET) for _ in range(6)]

        assert [(one.status, one.code) for one in answers] == [FAULT] * 6
        assert running.counted("rmv_ejections_total") == 0
        assert not group(running).pools[0]._failures  # noqa: SLF001
        assert not group(running).pools[0].outstanding
        await is_sound(running)
        assert counted_faults == {"upstream": 6}


async def test_a_request_that_cannot_be_written_late_is_answered_at_once(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with chain(log) as (running, _), running.client() as client:
        await client.ask(GET)
        [pool] = group(running).pools
        [idle] = pool._idle  # noqa: SLF001
        idle.transport = FaultyWrites(idle.transport)  # type: ignore[assignment]
        answer = await client.ask(GET)

        assert (answer.status, answer.code) == FAULT
        client.close()
        await is_sound(running)
        assert counted_faults == {"turn": 1}


async def test_a_fault_as_an_endpoint_is_lost_leaves_nobody_waiting(
    log: Path, counted_faults: Counter[str]
) -> None:
    is_due = asyncio.Event()

    async def leaving(_request: Received, writer: asyncio.StreamWriter) -> None:
        await is_due.wait()
        writer.close()

    async with chain(log, leaving) as (running, upstream):
        async with running.client() as client:
            await client.send(GET)
            await eventually(lambda: len(upstream.received) == 1)
            held = connection(running)
            held.transport = FaultyWrites(held.transport)  # type: ignore[assignment]
            is_due.set()

            assert await client.rest() == b""
        upstream.script = ANSWER
        await is_sound(running)
        assert counted_faults == {"upstream": 1, "client": 1}  # nor could the problem be written


async def test_a_fault_in_a_tunnel_ends_both_of_its_ends(
    log: Path, counted_faults: Counter[str]
) -> None:
    is_due = asyncio.Event()

    async def switch(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        await is_due.wait()
        writer.write(b"hello")

    asking = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    async with chain(log, switch) as (running, upstream):
        async with running.client() as client:
            await client.send(asking)
            await client.head()
            held = connection(running)
            held.transport = FaultyWrites(held.transport)  # type: ignore[assignment]
            is_due.set()

            assert await client.rest() == b""
        await eventually(lambda: upstream.lost == 1)
        [one] = await running.recorded()
        assert (one["status"], one["code"]) == (101, "sidecar-fault")
        upstream.script = ANSWER
        await is_sound(running)
        assert counted_faults == {"upstream": 1}


class FaultyPauses(FaultyWrites):
    """A transport that cannot be paused or resumed."""

    def pause_reading(self) -> None:
        raise ZeroDivisionError

    resume_reading = pause_reading


@pytest.mark.parametrize("call", ["pause_writing", "resume_writing"])
async def test_a_fault_of_backpressure_from_a_client_ends_its_request(
    log: Path, counted_faults: Counter[str], call: str
) -> None:
    async with chain(log, never) as (running, upstream), running.client() as client:
        await client.send(GET)
        await eventually(lambda: len(upstream.received) == 1)
        held = connection(running)
        exchange = held._current  # noqa: SLF001
        assert exchange is not None
        assert exchange.upstream is not None
        exchange.upstream.transport = FaultyPauses(exchange.upstream.transport)  # type: ignore[assignment]
        exchange.upstream.is_reading = call == "pause_writing"
        getattr(held, call)()

        assert (await client.answer()).code == "sidecar-fault"
        client.close()
        upstream.script = ANSWER
        await is_sound(running)
        assert counted_faults == {"client": 1}


@pytest.mark.parametrize("call", ["pause_writing", "resume_writing"])
async def test_a_fault_of_backpressure_from_an_endpoint_ends_its_request(
    log: Path, counted_faults: Counter[str], call: str
) -> None:
    async with chain(log, never) as (running, upstream), running.client() as client:
        await client.send(GET)
        await eventually(lambda: len(upstream.received) == 1)
        held = connection(running)
        exchange = held._current  # noqa: SLF001
        assert exchange is not None
        assert exchange.upstream is not None
        reading = held.reading = Reading(FaultyPauses(held.transport))  # type: ignore[arg-type]
        reading._reasons = UPSTREAM_FULL if call == "resume_writing" else 0  # noqa: SLF001
        getattr(exchange.upstream, call)()

        assert (await client.answer()).code == "sidecar-fault"
        client.close()
        upstream.script = ANSWER
        await is_sound(running)
        assert counted_faults["upstream"] == 1


async def test_a_fault_once_keys_have_come_ends_who_waited_for_them(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with chain(log, never) as (running, upstream), running.client() as client:
        plane = running.listener.plane
        await client.send(GET)
        await eventually(lambda: len(upstream.received) == 1)
        exchange = connection(running)._current  # noqa: SLF001
        assert exchange is not None
        plane.decide = Faulty(plane.decide)  # type: ignore[assignment]
        exchange.on_keys()

        assert (await client.answer()).code == "sidecar-fault"
        client.close()
        upstream.script = ANSWER
        await is_sound(running)
        assert counted_faults == {"client": 1}


async def test_a_fault_in_the_answer_of_a_shadow_ends_that_copy_alone(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with scripted_upstream() as first, scripted_upstream() as second:
        document = policy({"v1": first.url, "v2": second.url}, shadows=[{"version": "v2"}])
        async with proxy(document, log) as running:
            assert (await running.ask(GET)).status == 200
            mirror = running.listener.plane.mirror
            [book] = mirror.books.values()
            await eventually(lambda: book.is_quiet)
            statuses = list(book.statuses)
            book.statuses.clear()  # so that none can be counted
            assert (await running.ask(GET)).status == 200
            await eventually(lambda: book.failed == {"lost": 1})
            book.statuses += statuses
            assert (await running.ask(GET)).status == 200
            await eventually(lambda: book.mirrored == 3 and book.is_quiet)

            assert mirror.memory.free == Limits().mirror_memory_bytes
            assert not mirror.upstreams._groups["m", "v2"].pools[0]._failures  # noqa: SLF001
    assert counted_faults == {"upstream": 1}


# --- of the sweep -------------------------------------------------------------------------------


async def test_a_part_of_the_sweep_that_always_fails_keeps_no_timeout_from_its_time(
    log: Path, counted_faults: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(listener.Listener, "_look_at_tls", broken)
    async with chain(log, never, timeouts=Timeouts(first_byte_s=0.3)) as (running, _):
        await eventually(lambda: counted_faults["sweep"] >= 2)

        assert (await running.ask(GET)).code == "upstream-timeout"
        assert len(await running.recorded()) == 1  # the log is flushed by the sweep
        await running.swept()


async def test_a_sweep_that_fails_is_followed_by_the_next(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with chain(log, never, timeouts=Timeouts(first_byte_s=0.3)) as (running, _):
        plane = running.listener.plane
        plane.now_s = Faulty(plane.now_s)  # type: ignore[assignment]
        await eventually(lambda: counted_faults["sweep"] == 1)

        assert (await running.ask(GET)).code == "upstream-timeout"


async def test_a_client_whose_timeout_fails_is_closed_and_the_others_have_theirs(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with chain(log, never, timeouts=Timeouts(first_byte_s=0.3)) as (running, upstream):
        asking = [asyncio.ensure_future(running.ask(GET)) for _ in range(8)]
        await eventually(lambda: len(upstream.received) == 8)
        for held in list(running.listener._clients)[:3]:  # noqa: SLF001
            exchange = held._current  # type: ignore[attr-defined] # noqa: SLF001
            exchange.upstream.transport = FaultyAborts(exchange.upstream.transport)
        codes = sorted([str(one.code) for one in await asyncio.gather(*asking)])

        assert codes == ["sidecar-fault"] * 3 + ["upstream-timeout"] * 5
        assert counted_faults == {"client": 3}
        upstream.script = ANSWER
        await is_sound(running)


async def test_an_endpoint_that_cannot_be_swept_keeps_nobody_in_line_for_ever(
    log: Path, counted_faults: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_dial: Dial) -> None:
        raise ZeroDivisionError

    async with (
        chain(log, never, timeouts=Timeouts(queue_s=0.1)) as (running, upstream),
        running.client() as first,
        running.client() as second,
    ):
        await first.send(GET)
        await eventually(lambda: len(upstream.received) == 1)
        monkeypatch.setattr(Dial, "refresh", broken)
        [pool] = group(running).pools
        pool._is_used = True  # noqa: SLF001
        group(running).limit(1, 5)
        answer = await second.ask(GET)

        assert answer.code == "overloaded"
        assert counted_faults["sweep"] >= 1
