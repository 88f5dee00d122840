"""What is copied, to whom and how: methods, matchers, headers, credentials, bodies, bounds."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from sidecar.dataplane import delivery
from sidecar.dataplane.delivery import AT_ONCE, Copied
from sidecar.dataplane.mirror import MAX_BOOKS
from sidecar.dataplane.trial import Book
from sidecar.decide import Verdict
from sidecar.model.decision import Decision
from sidecar.model.limits import Limits
from sidecar.runtime.tasks import spawn
from tests.policy.examples import caller, make_head
from tests.support.clock import HandClock
from tests.support.judge import NotingJudge
from tests.support.messages import Feed
from tests.support.proxy import policy, proxy
from tests.support.upstream import eventually, never, scripted_upstream

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from sidecar.model.identity import JSON
    from tests.support.proxy import Proxy
    from tests.support.upstream import Received, Script, ScriptedUpstream

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: h\r\n\r\n"
DAY = 20_833  # since the epoch, of the hand clock


def post(body: bytes, *lines: bytes) -> bytes:
    head = b"".join(line + b"\r\n" for line in lines)
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST / HTTP/1.1\r\nHost: h\r\n" + head + length + b"\r\n" + body


class Mirrored:
    """A sidecar before v1, and what its shadow v2 gets."""

    def __init__(
        self,
        running: Proxy,
        clock: HandClock,
        shadow: ScriptedUpstream,
        document: Mapping[str, JSON],
    ) -> None:
        self.proxy = running
        self.clock = clock
        self.shadow = shadow
        self.document = document

    @property
    def book(self) -> Book:
        """What is counted of the newest test."""
        return [*self.proxy.listener.plane.mirror.books.values()][-1]

    def change(self, **shadow: JSON) -> None:
        """Let the policy say something else of the shadow."""
        changed = {**self.document, "shadows": [{"version": "v2", "methods": ["POST"], **shadow}]}
        self.proxy.live.put_policy("m", msgspec.json.encode(changed))
        assert not self.proxy.live.faults

    async def copy(self, request: bytes, how: Feed = Feed.WHOLE) -> Received:
        """Send a request; return its copy."""
        number = len(self.shadow.received)
        await self.proxy.ask(request, how)
        return (await self.shadow.until(number + 1))[number]

    async def skipped(self, request: bytes) -> dict[str, int]:
        """Send a request that is not copied, if something is eligible; return the causes so far."""
        before = self.book.eligible if self.proxy.listener.plane.mirror.books else 0
        await self.proxy.ask(request)
        await eventually(lambda: self.book.eligible == before + 1)
        return self.book.skipped


@asynccontextmanager
async def mirrored(
    log: Path,
    shadow: Script | None = None,
    *,
    limits: Limits | None = None,
    version: Mapping[str, JSON] | None = None,
    **members: JSON,
) -> AsyncIterator[Mirrored]:
    """Run v1 and its shadow v2; `version` and `members` are what the policy says of it."""
    async with (
        scripted_upstream() as first,
        scripted_upstream(*(() if shadow is None else (shadow,))) as second,
    ):
        v2: JSON = {"endpoints": [second.url], **(version or {})}
        shadows: JSON = [{"version": "v2", **members}]
        document: dict[str, JSON] = msgspec.json.decode(
            policy({"v1": first.url, "v2": v2}, shadows=shadows)
        )
        clock = HandClock()
        async with proxy(msgspec.json.encode(document), log, limits=limits, clock=clock) as running:
            yield Mirrored(running, clock, second, document)


# --- which requests ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_safe_method_is_copied_by_default(log: Path, method: str) -> None:
    async with mirrored(log) as made:
        copy = await made.copy(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n".encode())

    assert copy.method == method.encode()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PURGE"])
@pytest.mark.parametrize(
    ("version", "methods", "is_copied"),
    [
        ({}, [], False),
        ({}, ["QUERY"], False),
        ({"idempotent": True}, [], True),
        ({}, ["*"], True),
        ({}, ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PURGE"], True),
    ],
)
async def test_another_method_is_copied_where_the_policy_says_so(
    log: Path,
    method: str,
    version: Mapping[str, JSON],
    methods: list[JSON],
    is_copied: bool,
) -> None:
    request = f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    async with mirrored(log, version=version, methods=methods) as made:
        if is_copied:
            assert (await made.copy(request)).method == method.encode()
            return
        assert await made.skipped(request) == {"method": 1}
        assert (await made.copy(LAST)).target == b"/last"


async def test_only_what_a_matcher_fits_is_eligible(log: Path) -> None:
    when: JSON = [{"tenant": "acme"}, {"header.x-team": "shadows"}]
    async with mirrored(log, when=when, methods=["*"]) as made:
        await made.proxy.ask(GET)
        await made.proxy.ask(post(b"", b"X-Tenant: globex"))
        await made.copy(post(b"", b"X-Tenant: acme"))
        await made.copy(post(b"", b"X-Team: shadows"))
        await eventually(lambda: made.book.is_quiet)

        assert (made.book.eligible, made.book.mirrored) == (2, 2)


async def test_what_is_sampled_out_is_eligible_all_the_same(log: Path) -> None:
    async with mirrored(log, percent=50, key="tenant", methods=["POST"]) as made:
        async with made.proxy.client() as client:
            for n in range(40):
                await client.ask(post(bytes(n), b"X-Tenant: t%d" % n))
        await made.proxy.ask(post(b"no tenant"))
        await eventually(lambda: made.book.is_quiet)

        ledger = made.book.ledger()
        assert ledger.eligible == 41
        assert ledger.mirrored == len(made.shadow.received) == 41 - ledger.sampled_out
        assert 5 < ledger.mirrored < 35
        assert {name: share.part for name, share in ledger.tenants.items() if share.part} == {
            copy.fields.get(b"X-Tenant").decode(): 1  # type: ignore[union-attr]
            for copy in made.shadow.received
        }
        assert ledger.tenants[""].number == 1
        assert ledger.sizes[0].number == 1  # t0 sent none
        assert ledger.sizes[6].number == 8  # 32 to 39 bytes


async def test_a_shadow_that_is_off_is_counted(log: Path) -> None:
    async with mirrored(log, methods=["POST"], enabled=False) as made:
        assert await made.skipped(GET) == {"disabled": 1}
        made.change(enabled=True)
        await made.copy(GET)

        assert made.book.ledger().skipped == {"disabled": 1}  # the same test goes on


async def test_a_shadow_that_is_killed_or_not_ready_is_counted(log: Path) -> None:
    async with mirrored(log) as made:
        live = made.proxy.live
        live.put_kill("m", "v2", "too hot")
        assert await made.skipped(GET) == {"disabled": 1}
        live.put_kill("m", "v2", None)
        await made.copy(GET)
        live.set_unready("m", frozenset({"v2"}))
        assert await made.skipped(GET) == {"disabled": 2}


async def test_a_shadow_that_has_cost_enough_gets_no_more(log: Path) -> None:
    async with mirrored(log, version={"price": {"per_request": 1.0}}) as made:
        await made.copy(b"GET / HTTP/1.1\r\nHost: h\r\nX-Tenant: acme\r\n\r\n")
        made.proxy.listener.plane.mirror.capped.add(("m", "v2"))

        assert await made.skipped(GET) == {"cost": 1}
        assert made.book.copies == {DAY: {"acme": 1}}


async def test_copies_are_not_begun_while_the_sidecar_drains(log: Path) -> None:
    async with mirrored(log) as made, made.proxy.client() as client:
        await client.ask(GET)
        draining = spawn(drain(made.proxy), name="drain")
        await asyncio.sleep(0)
        assert (await client.ask(GET)).status == 200
        await draining

        assert made.book.skipped == {"draining": 1}


async def drain(running: Proxy) -> None:
    await running.listener.drain()


# --- how --------------------------------------------------------------------------------------

SECRETS = (b"Authorization", b"Cookie", b"X-Api-Key", b"Proxy-Authorization")
SECRET = tuple(name + b": secret" for name in (*SECRETS, b"X_Api_Key", b"cookie"))


@pytest.mark.parametrize("how", Feed)
async def test_no_secret_reaches_a_shadow(log: Path, how: Feed) -> None:
    async with mirrored(log, methods=["POST"]) as made:
        copy = await made.copy(post(b"body", *SECRET), how)

    assert b"secret" not in copy.head
    assert copy.body == b"body"


async def test_a_shadow_may_be_allowed_credentials(log: Path) -> None:
    async with mirrored(log, credentials=True) as made:
        copy = await made.copy(
            b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nCookie: c\r\nX-Api-Key: k\r\n"
            b"Proxy-Authorization: p\r\nExpect: 200-maybe\r\n\r\n"
        )

    values = [copy.get(name) for name in (*SECRETS, b"Expect")]
    assert values == [b"a", b"c", b"k", None, None]


async def test_headers_of_a_shadow_take_the_place_of_the_clients(log: Path) -> None:
    headers: JSON = {"X-Team": "shadows", "Authorization": "Bearer own"}
    async with mirrored(log, headers=headers) as made:
        copy = await made.copy(
            b"GET / HTTP/1.1\r\nHost: h\r\nx-team: mine\r\nAuthorization: a\r\nX-Shadow: 0\r\n\r\n"
        )

    assert copy.get(b"X-Team") == b"shadows"
    assert copy.get(b"Authorization") == b"Bearer own"
    assert copy.get(b"X-Shadow") == b"1"


@pytest.mark.parametrize(
    ("body", "copied"),
    [
        (b'{"model":"m","n":1.50}', b'{"model":"m-next","n":1.50}'),
        (b' {"a" : {"model": 1} ,"mod\\u0065l" : 0 }',
         b' {"a" : {"model": 1} ,"mod\\u0065l" : "m-next" }'),
        (b'{"a": "\\"model\\": 1", "model": [1, 2]}',
         b'{"a": "\\"model\\": 1", "model": "m-next"}'),
        (b'{"n":1}', b'{"n":1}'),
        (b'[{"model":"m"}]', b'[{"model":"m"}]'),
        (b'{"model":"m"', b'{"model":"m"'),
        (b'{"model":"a","model":"b"}', b'{"model":"a","model":"b"}'),
        (b'\xff\xfe{"model"', b'\xff\xfe{"model"'),
        (b"", b""),
    ],
)  # fmt: skip
async def test_a_body_names_another_model_and_is_the_same_elsewhere(
    log: Path, body: bytes, copied: bytes
) -> None:
    async with mirrored(log, methods=["POST"], body_model="m-next") as made:
        copy = await made.copy(post(body))

    assert copy.body == copied
    assert copy.get(b"Content-Length") == b"%d" % len(copied)


async def test_a_version_is_still_asked_by_its_own_path(log: Path) -> None:
    rewrite: JSON = {"path": "/v2/models/next{rest}", "headers": {"X-B": "2"}}
    async with mirrored(log, version={"rewrite": rewrite}, headers={"X-A": "1"}) as made:
        copy = await made.copy(b"GET /v2/models/m/ready?a HTTP/1.1\r\nHost: h\r\nX-B: 0\r\n\r\n")

    assert copy.target == b"/v2/models/next/ready?a"
    assert (copy.get(b"X-A"), copy.get(b"X-B")) == (b"1", b"2")


# --- bounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_one_request_goes_to_those_shadows_that_take_its_length(
    log: Path, is_chunked: bool
) -> None:
    async with (
        scripted_upstream() as first,
        scripted_upstream() as small,
        scripted_upstream() as large,
        scripted_upstream() as larger,
    ):
        bounds = {"v2": (small, 10), "v3": (large, 1_000), "v4": (larger, 10_000_000)}
        urls: dict[str, JSON] = {name: upstream.url for name, (upstream, _) in bounds.items()}
        shadows: JSON = [
            {"version": name, "methods": ["POST"], "max_body_bytes": most}
            for name, (_, most) in bounds.items()
        ]
        document = policy({"v1": first.url, **urls}, shadows=shadows)
        limits = Limits(mirror_body_bytes=5_000)
        async with proxy(document, log, limits=limits) as running, running.client() as client:
            for size in (10, 11, 1_000, 1_001, 5_000, 5_001):
                request = post(bytes(size))
                if is_chunked:
                    chunks = b"".join(
                        b"%x\r\n%b\r\n" % (len(part), part)
                        for part in (bytes(size // 2), bytes(size - size // 2))
                    )
                    request = (
                        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                        + chunks
                        + b"0\r\n\r\n"
                    )
                await client.ask(request)
            books = {book.version: book for book in running.listener.plane.mirror.books.values()}
            await eventually(lambda: all(book.is_quiet for book in books.values()))

            sizes = {
                name: [len(copy.body) for copy in upstream.received]
                for name, (upstream, _) in bounds.items()
            }
            assert {name: sorted(them) for name, them in sizes.items()} == {
                "v2": [10],
                "v3": [10, 11, 1_000],
                "v4": [10, 11, 1_000, 1_001, 5_000],
            }
            assert {name: book.skipped for name, book in books.items()} == {
                "v2": {"size": 5},
                "v3": {"size": 3},
                "v4": {"size": 1},
            }
            for book in books.values():  # the bias: by size, what was eligible and what was copied
                ledger = book.ledger()
                assert {bits: one.number for bits, one in ledger.sizes.items()} == {
                    4: 2,
                    10: 2,
                    13: 2,
                }
            assert {bits: one.part for bits, one in books["v3"].ledger().sizes.items()} == {
                4: 2, 10: 1, 13: 0,
            }  # fmt: skip
            assert running.listener.plane.mirror.memory.free == limits.mirror_memory_bytes


async def test_a_shadow_has_bounds_of_its_own(log: Path) -> None:
    async with mirrored(log, never, max_connections=1, max_queue=3, timeout_s=1.0) as made:
        for _ in range(5):
            await made.proxy.ask(GET)
        await made.shadow.until(1)

        assert (made.book.mirrored, made.book.skipped) == (1, {"queue": 2})
        made.clock.advance(1.1)
        made.proxy.listener.plane.mirror.sweep(made.clock.monotonic_s())
        await eventually(lambda: made.book.failed == {"timeout": 1})
        assert made.book.skipped == {"queue": 2, "queue-timeout": 2}


async def test_memory_is_bounded_and_given_back_whatever_hangs(log: Path) -> None:
    limits = Limits(mirror_memory_bytes=100_000, mirror_connections=1_000)
    async with mirrored(log, never, limits=limits, methods=["POST"]) as made:
        mirror = made.proxy.listener.plane.mirror
        async with made.proxy.client() as client:
            for _ in range(100):
                await client.ask(post(bytes(4_000)))
                assert mirror.memory.free >= 0
        ledger = made.book.ledger()
        assert ledger.mirrored == 23  # of 4,000 bytes and a head
        assert ledger.skipped == {"memory": 77}
        made.clock.advance(11.0)
        mirror.sweep(made.clock.monotonic_s())

        await eventually(lambda: made.book.failed == {"timeout": 23})
        assert mirror.memory.free == 100_000


async def steps(book: Book, *, until: Callable[[], bool]) -> list[int]:
    """Return how many steps were taken in each turn: copies that set out, that end, that do not."""
    taken: list[int] = []
    async with asyncio.timeout(30):
        before = steps_of(book)
        while not until():
            await asyncio.sleep(0)  # a turn
            taken.append(steps_of(book) - before)
            before += taken[-1]
    return taken


def steps_of(book: Book) -> int:
    ledger = book.ledger()
    assert ledger.eligible == ledger.sampled_out + ledger.mirrored + sum(ledger.skipped.values())
    return ledger.mirrored + sum(ledger.failed.values()) + sum(ledger.skipped.values())


async def test_copies_that_hang_end_a_few_a_turn_so_that_no_client_waits_for_all(
    log: Path,
) -> None:
    async with mirrored(log, never, max_connections=40, max_queue=100) as made:
        for _ in range(100):
            await made.proxy.ask(GET)
        await made.shadow.until(40)
        made.clock.advance(11.0)
        mirror = made.proxy.listener.plane.mirror
        mirror.sweep(made.clock.monotonic_s())
        mirror.sweep(made.clock.monotonic_s())
        assert made.book.pending == 60

        assert max(await steps(made.book, until=lambda: made.book.is_quiet)) == AT_ONCE
        assert made.book.failed == {"timeout": 40}
        assert made.book.skipped == {"queue-timeout": 60}
        assert mirror.memory.free == Limits().mirror_memory_bytes


async def test_all_shadows_that_hang_have_a_turn_together(log: Path) -> None:
    async with scripted_upstream() as first, scripted_upstream(never) as second:
        names = [f"v{number}" for number in range(2, 8)]
        urls: dict[str, JSON] = dict.fromkeys(["v1", *names], second.url)
        shadows: JSON = [{"version": name, "max_connections": 5} for name in names]
        clock = HandClock()
        document = policy({**urls, "v1": first.url}, shadows=shadows)
        async with proxy(document, log, clock=clock) as running:
            for _ in range(20):
                await running.ask(GET)
            mirror = running.listener.plane.mirror
            books = [*mirror.books.values()]
            clock.advance(11.0)
            mirror.sweep(clock.monotonic_s())
            taken, before = [0], sum(map(steps_of, books))
            async with asyncio.timeout(30):
                while not all(book.is_quiet for book in books):
                    await asyncio.sleep(0)
                    taken.append(sum(map(steps_of, books)) - before)
                    before += taken[-1]

            assert max(taken) == AT_ONCE
            for book in books:
                assert (book.failed, book.skipped) == ({"timeout": 5}, {"queue-timeout": 15})


async def test_an_endpoint_that_dies_has_the_line_set_out_a_few_a_turn(log: Path) -> None:
    hung: list[asyncio.StreamWriter] = []

    async def hang(request: Received, writer: asyncio.StreamWriter) -> None:
        hung.append(writer)
        await never(request, writer)

    async with mirrored(log, hang, max_connections=20, max_queue=100) as made:
        for _ in range(60):
            await made.proxy.ask(GET)
        await eventually(lambda: len(hung) == 20)
        lane = next(iter(made.proxy.listener.plane.mirror._lanes.values()))  # noqa: SLF001
        for one in tuple(lane.under_way):
            one.on_response_lost("reset", is_unanswered=True)
        assert (made.book.mirrored, made.book.failed) == (20, {"lost": 20})

        taken = await steps(made.book, until=lambda: made.book.mirrored == 40)

        assert max(taken) == AT_ONCE
        assert len(lane.under_way) == 20


async def test_who_comes_late_does_not_get_past_the_line(log: Path) -> None:
    async with mirrored(log, never, methods=["POST"], max_connections=1) as made:
        for number in range(3):
            await made.proxy.ask(post(b"%d" % number))
        await made.shadow.until(1)
        lane = next(iter(made.proxy.listener.plane.mirror._lanes.values()))  # noqa: SLF001
        for one in tuple(lane.under_way):
            one.expire()
            copy = Copied(
                make_head(b"/late"), Verdict(caller("acme"), Decision("m", "v1", "default", 1))
            )
            made.book.pending += 1
            assert lane.offer(copy, [], [])

        assert [one.body for one in await made.shadow.until(2)] == [b"0", b"1"]


async def test_a_copy_that_cannot_be_made_is_counted_and_nothing_to_client_or_other_shadows(
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    counted_faults: Counter[str],
) -> None:
    def broken(*_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(delivery, "with_model", broken)
    async with scripted_upstream() as first, scripted_upstream() as second:
        urls: dict[str, JSON] = {"v1": first.url, "v2": second.url, "v3": second.url}
        shadows: JSON = [{"version": "v2", "body_model": "other"}, {"version": "v3"}]
        async with proxy(policy(urls, shadows=shadows), log) as running, running.client() as client:
            for _ in range(3):
                assert (await client.ask(GET)).status == 200
            mirror = running.listener.plane.mirror
            faulty, good = mirror.books.values()
            await eventually(lambda: good.is_quiet)

            assert (faulty.eligible, faulty.skipped, good.mirrored) == (3, {"fault": 3}, 3)
            assert faulty.is_quiet
            assert counted_faults == {"copying": 3}
            assert mirror.memory.free == Limits().mirror_memory_bytes
    told = [one for one in caplog.records if one.name == "sidecar.faults"]
    assert [(one.message, one.exc_info is not None) for one in told] == [
        ("a fault of the sidecar", True)
    ]


async def test_what_is_new_in_a_book_is_told_to_the_metrics_once(log: Path) -> None:
    async with mirrored(log) as made:
        for number in range(1, 4):
            await made.copy(GET)
            await eventually(lambda: made.book.is_quiet)
            mirror = made.proxy.listener.plane.mirror
            for _ in range(2):
                mirror.measure()

            for outcome in ("eligible", "mirrored", "uncompared-off"):
                assert made.proxy.counted("rmv_mirrors_total", outcome=outcome) == number
            assert made.proxy.counted("rmv_mirror_responses_total") == number


async def test_old_books_make_room_one_by_one(log: Path) -> None:
    async with mirrored(log) as made:
        mirror = made.proxy.listener.plane.mirror
        for number in range(MAX_BOOKS):
            book = mirror.books["gone", "v2", str(number)] = Book("gone", "v2", str(number), 0.0)
            book.is_old = True
        for size in range(10, 13):
            made.change(max_body_bytes=size)
            await made.copy(GET)
            await eventually(lambda: made.book.is_quiet)

            assert len(mirror.books) == MAX_BOOKS
        assert made.proxy.counted("rmv_mirrors_total", outcome="mirrored") == 3


async def test_a_copy_whose_control_cannot_be_asked_gives_all_its_memory_back(log: Path) -> None:
    def broken(*_: object) -> bytes:
        raise ZeroDivisionError

    async with scripted_upstream() as first, scripted_upstream() as second:
        urls: dict[str, JSON] = dict.fromkeys(("v1", "v2", "twin"), second.url)
        compared: JSON = {"control": "twin", "keep": {"pairs": 1, "bodies": True}}
        shadows: JSON = [{"version": "v2", "methods": ["POST"], "compare": compared}]
        document = policy({**urls, "v1": first.url}, shadows=shadows)
        async with proxy(document, log, judge=NotingJudge()) as running, running.client() as client:
            await client.ask(post(b"x"))
            mirror = running.listener.plane.mirror
            [book] = mirror.books.values()
            [lane] = mirror._lanes.values()  # noqa: SLF001
            assert lane._control is not None  # noqa: SLF001
            lane._control.spelling.rewrite = broken  # noqa: SLF001
            for _ in range(2):
                assert (await client.ask(post(b"x"))).status == 200
            await eventually(lambda: book.is_quiet)

            assert (book.eligible, book.mirrored, book.skipped) == (3, 1, {"fault": 2})
            assert mirror.memory.free == Limits().mirror_memory_bytes


# --- policies that change ---------------------------------------------------------------------


async def test_a_request_whose_shadow_goes_before_it_is_whole_is_counted(log: Path) -> None:
    async with mirrored(log, methods=["POST"]) as made, made.proxy.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbo")
        await eventually(lambda: bool(made.proxy.listener.plane.mirror.books))
        made.change(percent=50)
        assert (await client.ask(b"dy")).status == 200

        (book,) = made.proxy.listener.plane.mirror.books.values()
        assert book.skipped == {"policy": 1}


async def test_a_change_that_is_not_about_the_test_touches_nothing_of_it(log: Path) -> None:
    go = asyncio.Event()

    async def wait(_request: Received, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with mirrored(log, wait, methods=["POST"], max_connections=2) as made:
        for _ in range(3):
            await made.proxy.ask(post(b"x"))
        made.change(max_connections=2, enabled=True, cost_per_day=None)
        for _ in range(3):
            await made.proxy.ask(post(b"x"))
        await made.shadow.until(2)
        assert made.book.mirrored == 2  # no more at a time than before
        go.set()
        await eventually(lambda: made.book.is_quiet)

        assert len(made.proxy.listener.plane.mirror.books) == 1
        assert made.book.mirrored == 6


@pytest.mark.parametrize(
    ("change", "cause"),
    [("removed", "policy"), ("changed", "policy"), ("off", "disabled"), ("killed", "disabled")],
)
async def test_copies_in_line_do_not_set_out_for_a_shadow_that_gets_none(
    log: Path, change: str, cause: str
) -> None:
    go = asyncio.Event()

    async def wait(_request: Received, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with mirrored(log, wait, methods=["POST"], max_connections=1) as made:
        for _ in range(3):
            await made.proxy.ask(post(b"x"))
        await made.shadow.until(1)
        book = made.book
        if change == "removed":
            made.proxy.live.put_policy("m", msgspec.json.encode({**made.document, "shadows": []}))
        elif change == "killed":
            made.proxy.live.put_kill("m", "v2", "too hot")
        elif change == "off":
            made.change(max_connections=1, enabled=False)
        else:
            made.change(max_connections=1, percent=10)
        await eventually(lambda: book.skipped == {cause: 2})
        go.set()
        await eventually(lambda: book.is_quiet)

        assert len(made.shadow.received) == 1
        assert book.ledger().uncompared == {"off": 1}


async def test_a_change_of_the_test_begins_another_book_and_ends_the_old_one(log: Path) -> None:
    async with mirrored(log, methods=["POST"]) as made:
        mirror = made.proxy.listener.plane.mirror
        await made.copy(post(b"x"))
        old = made.book
        made.change(max_body_bytes=10)
        await made.copy(post(b"x"))
        await eventually(lambda: old.is_quiet)

        assert (old.is_old, made.book.is_old) == (True, False)
        assert old.test != made.book.test
        mirror.forget(old)
        assert [*mirror.books.values()] == [made.book]
        assert made.proxy.counted("rmv_mirrors_total", outcome="mirrored") == 2


async def test_a_book_that_is_forgotten_while_its_test_goes_on_is_begun_anew(log: Path) -> None:
    go = asyncio.Event()

    async def wait(_request: Received, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with mirrored(log, wait) as made:
        await made.copy(GET)
        old = made.book
        made.proxy.listener.plane.mirror.forget(old)
        await made.copy(GET)
        assert made.book is not old
        go.set()
        await eventually(lambda: made.book.is_quiet and old.is_quiet)

        assert (old.mirrored, made.book.mirrored) == (1, 1)
        assert made.proxy.counted("rmv_mirrors_total", outcome="uncompared-off") == 2
        assert made.proxy.counted("rmv_mirrors_total", outcome="eligible") == 2


async def test_a_request_that_outlasts_its_book_has_a_copy_that_ends(log: Path) -> None:
    async with mirrored(log, never, methods=["POST"]) as made, made.proxy.client() as client:
        mirror = made.proxy.listener.plane.mirror
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbo")
        await eventually(lambda: bool(mirror.books))
        old = made.book
        mirror.forget(old)
        mirror.sweep(made.clock.monotonic_s())
        await client.ask(b"dy")
        await made.shadow.until(1)
        made.clock.advance(11.0)
        mirror.sweep(made.clock.monotonic_s())

        await eventually(lambda: old.failed == {"timeout": 1})
        assert mirror.memory.free == Limits().mirror_memory_bytes


async def test_what_a_book_says_is_told_as_changed_once(log: Path) -> None:
    async with mirrored(log) as made:
        await made.copy(GET)
        await eventually(lambda: made.book.is_quiet)
        assert made.book.is_changed
        made.book.note_published()
        assert not made.book.is_changed
        await made.copy(GET)
        assert made.book.is_changed


# --- what it costs ----------------------------------------------------------------------------


async def test_what_copying_costs_is_measured(log: Path) -> None:
    async with mirrored(log, percent=50) as made:
        async with made.proxy.client() as client:
            for _ in range(200):
                await client.ask(GET)
        await eventually(lambda: made.book.is_quiet)

        book = made.book
        assert book.copied_latency.number == book.mirrored
        assert book.spared_latency.number == book.sampled_out
        assert sum(book.copied_latency.histogram().buckets.values()) == book.mirrored
        assert 0 < book.copies_timed <= 200 // 64
        assert book.copy_s > 0


async def test_a_copy_that_cannot_be_begun_is_nothing_to_its_client(
    log: Path, counted_faults: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> str:
        raise ZeroDivisionError

    async with mirrored(log) as made:
        await made.copy(GET)
        await eventually(lambda: made.book.is_quiet)
        mirror = made.proxy.listener.plane.mirror
        mirror._lanes.clear()  # noqa: SLF001 -- so that it has to be found out whose a copy is
        with monkeypatch.context() as patched:
            patched.setattr("sidecar.dataplane.mirror.test_of", broken)
            assert (await made.proxy.ask(GET)).status == 200
        assert (await made.proxy.ask(GET)).status == 200
        await eventually(lambda: made.book.mirrored == 2 and made.book.is_quiet)

        assert counted_faults == {"copying": 1}
        assert mirror.memory.free == Limits().mirror_memory_bytes


async def test_a_body_that_cannot_be_copied_is_nothing_to_its_client(
    log: Path, counted_faults: Counter[str]
) -> None:
    async with mirrored(log, methods=["POST"]) as made:
        mirror = made.proxy.listener.plane.mirror
        mirror._copies = 63  # the next is timed  # noqa: SLF001
        calls, cpu_s = 0, mirror.cpu_s

        def failing() -> float:
            nonlocal calls
            calls += 1
            if calls == 3:  # as the body comes
                raise ZeroDivisionError
            return cpu_s()

        mirror.cpu_s = failing
        for _ in range(2):
            assert (await made.proxy.ask(post(b"body"))).status == 200
        await eventually(lambda: made.book.is_quiet)

        assert made.book.skipped == {"fault": 1}
        assert (made.book.eligible, made.book.mirrored) == (2, 1)
        assert counted_faults == {"copying": 1}
        assert mirror.memory.free == Limits().mirror_memory_bytes
