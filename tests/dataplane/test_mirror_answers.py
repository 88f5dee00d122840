"""Answers that are compared: captured as they were on both sides, within bounds, and no others."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.dataplane.trial import MAX_MARKS
from sidecar.model.limits import Limits, Timeouts
from tests.support.judge import NotingJudge
from tests.support.proxy import policy, proxy
from tests.support.upstream import ANSWER, eventually, never, reset, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sidecar.dataplane.trial import Book
    from sidecar.model.identity import JSON
    from tests.support.proxy import Proxy
    from tests.support.upstream import Received, Script, ScriptedUpstream

GET = b"GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: one\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\nX-Tenant: acme\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n"
    b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-T: 2\r\n\r\n"
)
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n0\r\n\r\n"
)
TO_THE_END = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end"
EMPTY = b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + bytes(1_001)
CONTINUE = 100


class Pair:
    """A sidecar with a shadow whose answers are compared, and both ends."""

    def __init__(
        self,
        running: Proxy,
        judge: NotingJudge,
        primary: ScriptedUpstream,
        shadow: ScriptedUpstream,
    ) -> None:
        self.proxy = running
        self.judge = judge
        self.primary = primary
        self.shadow = shadow

    @property
    def book(self) -> Book:
        """What is counted of the shadow."""
        (book,) = self.proxy.listener.plane.mirror.books.values()
        return book

    @property
    def free(self) -> int:
        """Bytes that the mirror may still take."""
        return self.proxy.listener.plane.mirror.memory.free

    async def quiet(self) -> Book:
        """Wait until nothing is under way."""
        await eventually(lambda: self.book.eligible > 0 and self.book.is_quiet)
        return self.book


@asynccontextmanager
async def pair(
    log: Path,
    primary: Script = ANSWER,
    shadow: Script = ANSWER,
    *,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    **compare: JSON,
) -> AsyncIterator[Pair]:
    """Run v1 and its shadow v2, compared as told."""
    judge = NotingJudge()
    async with scripted_upstream(primary) as first, scripted_upstream(shadow) as second:
        shadows: JSON = [{"version": "v2", "methods": ["POST"], "compare": compare}]
        document = policy({"v1": first.url, "v2": second.url}, shadows=shadows)
        async with proxy(document, log, limits=limits, timeouts=timeouts, judge=judge) as running:
            yield Pair(running, judge, first, second)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (ANSWER, b"ok"),
        (CHUNKED, b"hello world"),
        (STREAM, b"data: a\n\ndata: b\n\n"),
        (TO_THE_END, b"to the end"),
        (EMPTY, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED, b"hello world"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", b"no"),
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_both_answers_are_captured_without_their_framing(
    log: Path, answer: bytes, body: bytes, version: bytes
) -> None:
    async def answer_and_close(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        if answer is TO_THE_END:
            writer.close()

    async with pair(log, answer_and_close, answer_and_close) as made:
        async with made.proxy.client() as client:
            got = await client.ask(GET.replace(b"1.1", version, 1))
            if got.status == CONTINUE:
                got = await client.answer()
        book = await made.quiet()

    assert got.body == body
    (judged,) = made.judge.judged
    for side in (judged.primary, judged.shadow):
        assert (side.status, side.body) == (got.status, body)
        assert side.first_byte_s >= 0
        assert side.duration_s >= side.first_byte_s
    fields = dict(judged.primary.fields)
    assert fields == dict(judged.shadow.fields)
    assert fields.get("x-a") == ("1" if b"X-A" in answer else None)
    assert (judged.trial.serving, judged.trial.request_id) == ("v1", b"one")
    assert book.ledger().compared == book.mirrored == 1


@pytest.mark.parametrize("splits", [1, 7, 10_000])
async def test_an_answer_that_comes_in_pieces_is_captured_whole(log: Path, splits: int) -> None:
    async def dribble(_request: Received, writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(CHUNKED), splits):
            writer.write(CHUNKED[at : at + splits])
            await asyncio.sleep(0)

    async with pair(log, dribble, dribble) as made:
        await made.proxy.ask(GET)
        await made.quiet()

    (judged,) = made.judge.judged
    assert judged.primary.body == judged.shadow.body == b"hello world"
    for side in (judged.primary, judged.shadow):
        sizes, times = zip(*side.marks, strict=True)
        assert list(sizes) == sorted(sizes)
        assert list(times) == sorted(times)
        assert sizes[-1] == len(b"hello world")


async def test_a_stream_has_no_more_marks_than_are_kept(log: Path) -> None:
    number = MAX_MARKS + 500

    async def stream(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(number):
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")

    async with pair(log, ANSWER, stream) as made:
        await made.proxy.ask(GET)
        await made.quiet()
        assert made.free == Limits().mirror_memory_bytes

    (judged,) = made.judge.judged
    assert len(judged.shadow.body) == number
    assert len(judged.shadow.marks) <= MAX_MARKS
    assert judged.primary.marks == ()  # no stream


async def hang_up(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
    reset(writer)


@pytest.mark.parametrize("answer", [ANSWER, CHUNKED, STREAM, EMPTY, LONG])
@pytest.mark.parametrize("shadow", [None, ANSWER, LONG, STREAM, never, hang_up, b"garbage\r\n\r\n"])
async def test_not_a_byte_of_the_clients_answer_changes(
    log: Path, answer: bytes, shadow: Script | None
) -> None:
    """With a shadow in each of its states as without one."""
    close = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with (
        scripted_upstream(answer) as first,
        proxy(policy({"v1": first.url}), log) as alone,
        alone.client() as client,
    ):
        await client.send(GET + close)
        wanted = await client.rest()
    async with pair(log, answer, ANSWER if shadow is None else shadow) as made:
        if shadow is None:
            await made.shadow.stop()
        async with made.proxy.client() as client:
            await client.send(GET + close)
            assert await client.rest() == wanted


@pytest.mark.parametrize(("primary", "shadow"), [(LONG, ANSWER), (ANSWER, LONG), (LONG, LONG)])
async def test_an_answer_over_the_bound_is_not_compared_and_reaches_the_client(
    log: Path, primary: bytes, shadow: bytes
) -> None:
    async with pair(log, primary, shadow, max_body_bytes=1_000) as made:
        answer = await made.proxy.ask(GET)
        book = await made.quiet()

        assert answer.raw_body == primary.partition(b"\r\n\r\n")[2]
        assert book.ledger().uncompared == {"size": 1}
        assert made.free == Limits().mirror_memory_bytes


@pytest.mark.parametrize("is_compared", [True, False])
@pytest.mark.parametrize(
    ("head", "piece"),
    [(b"", bytes(65_536)), (b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n" * 10_000)],
    ids=["until close", "chunks"],
)
async def test_an_endless_answer_is_read_for_a_while_and_cut(
    log: Path, head: bytes, piece: bytes, is_compared: bool
) -> None:
    cut = 0

    async def flood(_request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal cut
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n" % head)
        try:
            while True:
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            cut += 1

    patience = Timeouts(mirror_s=3600)
    async with pair(log, shadow=flood, timeouts=patience, max_body_bytes=1_000) as made:
        if not is_compared:
            made.proxy.listener.plane.mirror.trials.judge = None
        free = made.free
        assert (await made.proxy.ask(GET)).body == b"ok"
        book = await made.quiet()
        await eventually(lambda: cut == 1)

        assert book.uncompared == {"size" if is_compared else "off": 1}
        assert book.failed == {}
        assert made.free == free


async def test_answers_past_the_memory_are_not_compared(log: Path) -> None:
    limits = Limits(mirror_memory_bytes=1_500)
    async with pair(log, LONG, LONG, limits=limits) as made:
        for _ in range(3):
            assert (await made.proxy.ask(GET)).status == 200
            await made.quiet()

        assert made.book.ledger().uncompared == {"memory": 3}
        assert made.free == 1_500


async def test_a_client_that_leaves_is_compared_with_nothing_and_its_copy_goes_on(
    log: Path,
) -> None:
    async with pair(log, never) as made:
        async with made.proxy.client() as client:
            await client.send(GET)
            await made.shadow.until(1)
        book = await made.quiet()

        assert book.ledger().uncompared == {"primary": 1}
        assert len(made.shadow.received) == 1
        assert made.free == Limits().mirror_memory_bytes


@pytest.mark.parametrize("primary", [b"garbage\r\n\r\n", hang_up])
async def test_an_upstream_that_fails_is_compared_with_nothing(log: Path, primary: Script) -> None:
    async with pair(log, primary) as made:
        async with made.proxy.client() as client:
            await client.send(POST)
            await client.some()
            book = await made.quiet()

        assert book.ledger().uncompared == {"primary": 1}


@pytest.mark.parametrize(
    ("primary", "status"),
    [(b"garbage\r\n\r\n", 0), (hang_up, 0), (never, 0), (ANSWER, 200)],
)
async def test_the_clients_side_has_no_status_where_its_upstream_failed(
    log: Path, primary: Script, status: int
) -> None:
    timeouts = Timeouts(first_byte_s=0.2)
    async with pair(log, primary, shadow=hang_up, timeouts=timeouts) as made:
        async with made.proxy.client() as client:
            await client.send(POST)
            await client.some()
            await eventually(lambda: bool(made.judge.failed))

        assert made.judge.failed == [("lost", status)]


async def test_the_clients_side_has_a_status_where_the_client_left(log: Path) -> None:
    async with pair(log, never, shadow=hang_up) as made:
        async with made.proxy.client() as client:
            await client.send(GET)
            await made.primary.until(1)
        await eventually(lambda: bool(made.judge.failed))

        assert made.judge.failed == [("lost", 499)]


@pytest.mark.parametrize(
    ("shadow", "cause"), [(hang_up, "lost"), (never, "timeout"), (b"garbage\r\n\r\n", "lost")]
)
async def test_a_copy_without_a_whole_answer_is_told_with_what_the_client_got(
    log: Path, shadow: Script, cause: str
) -> None:
    async with pair(log, shadow=shadow, timeouts=Timeouts(mirror_s=0.2)) as made:
        await made.proxy.ask(POST)
        book = await made.quiet()

        assert book.ledger().failed == {cause: 1}
        assert book.ledger().uncompared == {}
        assert made.judge.failed == [(cause, 200)]
        assert made.free == Limits().mirror_memory_bytes


async def test_a_fallback_to_the_shadow_itself_proves_nothing(log: Path) -> None:
    judge = NotingJudge()
    async with scripted_upstream(hang_up_unanswered) as bad, scripted_upstream() as good:
        document = policy(
            {"v1": {"endpoints": [bad.url], "fallback": "v2"}, "v2": good.url},
            shadows=[{"version": "v2", "compare": {}}],
        )
        async with proxy(document, log, judge=judge) as running:
            assert (await running.ask(GET)).get(b"X-Model-Version") == b"v2"
            (book,) = running.listener.plane.mirror.books.values()
            await eventually(lambda: book.is_quiet)

            assert book.ledger().uncompared == {"primary": 1}


async def hang_up_unanswered(_request: Received, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def test_a_pair_is_that_of_the_version_that_served_in_the_end(log: Path) -> None:
    judge = NotingJudge()
    async with (
        scripted_upstream(hang_up_unanswered) as bad,
        scripted_upstream() as good,
        scripted_upstream() as shadow,
    ):
        versions: JSON = {"endpoints": [bad.url], "fallback": "v3"}
        document = policy(
            {"v1": versions, "v2": shadow.url, "v3": good.url},
            shadows=[{"version": "v2", "compare": {}}],
        )
        async with proxy(document, log, judge=judge) as running:
            assert (await running.ask(GET)).get(b"X-Model-Version") == b"v3"
            await eventually(lambda: len(judge.judged) == 1)

    assert judge.judged[0].trial.serving == "v3"


async def test_nothing_is_kept_of_answers_that_nobody_compares(log: Path) -> None:
    async with scripted_upstream(LONG) as first, scripted_upstream(LONG) as second:
        shadows: JSON = [{"version": "v2", "compare": {}}]
        document = policy({"v1": first.url, "v2": second.url}, shadows=shadows)
        async with proxy(document, log) as running:  # without a judge
            await running.ask(GET)
            (book,) = running.listener.plane.mirror.books.values()
            await eventually(lambda: book.is_quiet)

            assert book.ledger().uncompared == {"off": 1}


async def test_the_request_is_kept_where_evidence_needs_it(log: Path) -> None:
    async with pair(log, keep={"bodies": True}) as made:
        await made.proxy.ask(POST)
        await made.quiet()

        assert made.free == Limits().mirror_memory_bytes
    (judged,) = made.judge.judged
    assert judged.request_body == b"body"
    assert judged.trial.identity.tenant == "acme"


async def test_the_order_in_which_both_sides_end_does_not_matter(log: Path) -> None:
    go = asyncio.Event()

    async def wait(_request: Received, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(CHUNKED)

    async with pair(log, wait, ANSWER) as made, made.proxy.client() as client:
        await client.send(GET)
        await made.shadow.until(1)
        await eventually(lambda: made.book.statuses[2] == 1)
        go.set()
        assert (await client.answer()).body == b"hello world"
        await made.quiet()

    (judged,) = made.judge.judged
    assert (judged.primary.body, judged.shadow.body) == (b"hello world", b"ok")


@asynccontextmanager
async def controlled(
    log: Path, control: Script, percent: float = 100.0
) -> AsyncIterator[tuple[Proxy, NotingJudge, ScriptedUpstream]]:
    """Run v1, its shadow v2 and the control v3."""
    judge = NotingJudge()
    async with (
        scripted_upstream() as first,
        scripted_upstream() as second,
        scripted_upstream(control) as third,
    ):
        shadow: JSON = {
            "version": "v2",
            "methods": ["POST"],
            "headers": {"X-Team": "shadows"},
            "body_model": "other",
            "compare": {"control": "again", "control_percent": percent},
        }
        urls: dict[str, JSON] = {"v1": first.url, "v2": second.url, "v3": third.url}
        document = policy(urls, shadows=[shadow], labels={"again": "v3"})
        async with proxy(document, log, judge=judge, timeouts=Timeouts(mirror_s=0.2)) as running:
            yield running, judge, third


async def test_a_control_answers_what_the_client_asked(log: Path) -> None:
    body = b'{"model": "m"}'
    request = b"POST / HTTP/1.1\r\nHost: h\r\nCookie: c\r\nContent-Length: 14\r\n\r\n" + body
    async with controlled(log, CHUNKED) as (running, judge, control):
        await running.ask(request)
        await eventually(lambda: len(judge.judged) == 1)

        (judged,) = judge.judged
        assert judged.control is not None
        assert (judged.control.status, judged.control.body) == (200, b"hello world")
        (copy,) = control.received
        assert (copy.get(b"X-Shadow"), copy.get(b"X-Model-Version")) == (b"1", b"v3")
        assert (copy.body, copy.get(b"X-Team"), copy.get(b"Cookie")) == (body, None, None)
        (book,) = running.listener.plane.mirror.books.values()
        assert book.mirrored == 1
        assert running.listener.plane.mirror.memory.free == Limits().mirror_memory_bytes


@pytest.mark.parametrize("control", [never, hang_up, b"garbage\r\n\r\n"])
async def test_a_control_that_fails_is_no_fault_of_the_shadow(log: Path, control: Script) -> None:
    async with controlled(log, control) as (running, judge, _):
        await running.ask(POST)
        await eventually(lambda: len(judge.judged) == 1)

        assert judge.judged[0].control is None
        (book,) = running.listener.plane.mirror.books.values()
        assert (book.ledger().compared, book.ledger().failed) == (1, {})
        assert running.listener.plane.mirror.memory.free == Limits().mirror_memory_bytes


async def test_a_share_of_the_copies_goes_to_the_control(log: Path) -> None:
    async with controlled(log, ANSWER, percent=25) as (running, judge, control):
        async with running.client() as client:
            for _ in range(100):
                await client.ask(POST)
        await eventually(lambda: len(judge.judged) == 100)

    assert 10 <= len(control.received) <= 40  # ids are counted from a fixed start
    assert sum(one.control is not None for one in judge.judged) == len(control.received)


async def test_what_waits_for_the_client_at_the_end_is_counted(log: Path) -> None:
    async with pair(log, never) as made, made.proxy.client() as client:
        await client.send(POST)
        await made.shadow.until(1)
        await eventually(lambda: made.book.statuses[2] == 1)
        made.proxy.listener.plane.mirror.close()

        assert made.book.ledger().uncompared == {"shutdown": 1}
        assert made.book.is_quiet
        assert made.judge.judged == []


async def test_an_end_of_the_sidecar_is_no_fault_of_the_shadow(log: Path) -> None:
    async with pair(log, shadow=never) as made:
        await made.proxy.ask(POST)
        await made.shadow.until(1)
        made.proxy.listener.plane.mirror.close()

        assert made.book.ledger().failed == {"shutdown": 1}
        assert made.book.is_quiet
        assert made.judge.failed == []
        assert made.free == Limits().mirror_memory_bytes


async def test_what_is_kept_of_answers_is_within_the_memory_of_copies(log: Path) -> None:
    limits = Limits(mirror_memory_bytes=20_000)
    async with pair(log, LONG, never, limits=limits, timeouts=Timeouts(mirror_s=0.5)) as made:
        async with made.proxy.client() as client:
            for _ in range(30):
                answer = await client.ask(POST)
                assert answer.raw_body == bytes(1_001)
                assert 0 <= made.free <= 20_000
        assert made.free < 1_500
        await made.quiet()

        assert made.book.ledger().skipped.keys() == {"memory"}
        assert made.free == 20_000


async def test_what_waits_for_its_control_at_the_end_is_judged_without(log: Path) -> None:
    async with controlled(log, never) as (running, judge, control):
        mirror = running.listener.plane.mirror
        mirror.timeout_s = 60.0  # the lane is made with the first request
        await running.ask(POST)
        await control.until(1)
        (book,) = mirror.books.values()
        await eventually(lambda: book.statuses[2] == 1)
        await running.listener.drain()
        mirror.close()

        assert [one.control for one in judge.judged] == [None]
        assert book.is_quiet
        assert mirror.memory.free == Limits().mirror_memory_bytes
