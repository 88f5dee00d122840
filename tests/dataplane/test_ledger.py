"""Every request that a shadow is eligible for, and every copy, is counted once, come what may."""

from __future__ import annotations

import asyncio
import random
from itertools import cycle
from typing import TYPE_CHECKING

from sidecar.model.limits import Limits, Timeouts
from tests.support.judge import NotingJudge
from tests.support.proxy import policy, proxy
from tests.support.upstream import ANSWER, eventually, never, reset, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sidecar.dataplane.trial import Book
    from tests.support.proxy import Client, Proxy
    from tests.support.upstream import Received, ScriptedUpstream

NUMBER = 5_000
CLIENTS = 8
SIZES = (0, 1, 30, 900, 3_000, 20_000, 70_000)
MEMORY = 400_000
STATES = ("healthy", "slow", "failing", "hanging", "resetting", "absent", "healthy again")
TENANTS = ("acme", "globex", "initech", "")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n \r\n0\r\n\r\n"
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n0\r\n\r\n"
)
LARGE = b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + bytes(9_000)
ANSWERS = {b"/chunked": CHUNKED, b"/sse": STREAM, b"/large": LARGE}
FAILING = b"HTTP/1.1 503 Down\r\nContent-Length: 4\r\n\r\ndown"


async def serve(request: Received, writer: asyncio.StreamWriter) -> None:
    """Answer as the path says."""
    writer.write(ANSWERS.get(request.target, ANSWER))


class Fickle:
    """A shadow that goes from one state to the next; a script."""

    def __init__(self) -> None:
        self.state = "healthy"

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        if self.state == "slow":
            await asyncio.sleep(0.02)
        if self.state == "failing":
            writer.write(FAILING)
        elif self.state == "hanging":
            await never(request, writer)
        elif self.state == "resetting":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")
            reset(writer)
        else:
            await serve(request, writer)

    async def turn(self, state: str, upstream: ScriptedUpstream) -> None:
        """Be in a state from now on."""
        port = int(upstream.url.rpartition(":")[2])
        if self.state == "absent":
            await upstream.start(port)
        self.state = state
        if state == "absent":
            await upstream.stop()


def requests(seed: int) -> Iterator[bytes]:
    """Make up requests of mixed methods, paths, tenants and sizes."""
    draw = random.Random(seed)  # noqa: S311 -- the same every time
    paths = cycle(("/", "/chunked", "/sse", "/large", "/"))
    for path in paths:
        size = draw.choice(SIZES)
        method = draw.choice(("POST", "POST", "POST", "GET", "DELETE"))
        tenant = draw.choice(TENANTS)
        lines = f"{method} {path} HTTP/1.1\r\nHost: h\r\n"
        if tenant:
            lines += f"X-Tenant: {tenant}\r\n"
        if draw.random() < 0.2:
            chunk = b"%x\r\n" % size + bytes(size) + b"\r\n" if size else b""
            yield lines.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
        else:
            yield lines.encode() + b"Content-Length: %d\r\n\r\n" % size + bytes(size)


def check(book: Book) -> None:
    """Hold the identities of the ledger, which are true at any moment."""
    ledger = book.ledger()
    skipped, failed = sum(ledger.skipped.values()), sum(ledger.failed.values())
    assert ledger.eligible == ledger.sampled_out + ledger.mirrored + skipped
    ended = ledger.compared + failed + sum(ledger.uncompared.values())
    assert ledger.mirrored == ended + book.under_way
    for table in (ledger.sizes, ledger.tenants):
        assert sum(share.number for share in table.values()) == ledger.eligible
        assert sum(share.part for share in table.values()) == ledger.mirrored


async def ask(running: Proxy, client: Client, number: int, seed: int) -> None:
    made = requests(seed)
    for _ in range(number):
        request = next(made)
        answer = await client.ask(request)
        assert answer.status == 200
        target = request.split(b" ", 2)[1]
        _, _, body = ANSWERS.get(target, ANSWER).partition(b"\r\n\r\n")
        assert answer.raw_body == body


async def break_off(running: Proxy) -> None:
    """Leave in the middle of a request."""
    async with running.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc")
        await asyncio.sleep(0.01)


async def test_the_ledger_is_exact_whatever_befalls_a_shadow(log: Path) -> None:
    fickle, judge = Fickle(), NotingJudge()
    limits = Limits(mirror_memory_bytes=MEMORY, mirror_connections=4, mirror_queue=40)
    async with scripted_upstream(serve) as primary, scripted_upstream(fickle) as shadow:
        document = policy(
            {"v1": primary.url, "v2": shadow.url, "v3": shadow.url},
            shadows=[
                {"version": "v2", "methods": ["POST"], "compare": {"max_body_bytes": 5_000}},
                {"version": "v3", "methods": ["*"], "percent": 60, "max_body_bytes": 2_000},
            ],
        )
        async with proxy(
            document, log, limits=limits, timeouts=Timeouts(mirror_s=0.1), judge=judge
        ) as running:
            mirror = running.listener.plane.mirror
            sent = 0
            for n, state in enumerate(STATES):
                await fickle.turn(state, shadow)
                share = (NUMBER - sent) // (len(STATES) - n)
                each = [
                    share // CLIENTS + (1 if i < share % CLIENTS else 0) for i in range(CLIENTS)
                ]
                async with asyncio.TaskGroup() as group:
                    for i, number in enumerate(each):
                        group.create_task(one_client(running, number, seed=100 * n + i))
                    group.create_task(break_off(running))
                sent += share
                if state == "hanging":
                    mirror.sweep(mirror.now_s() + 1.0)  # as if they had hung so long
                for book in mirror.books.values():
                    check(book)
            await eventually(lambda: all(book.is_quiet for book in mirror.books.values()))

            assert sent == NUMBER
            by_version = {book.version: book for book in mirror.books.values()}
            for book in by_version.values():
                check(book)
                assert book.under_way == 0
                assert book.eligible == NUMBER + len(STATES)
                assert book.skipped["aborted"] >= 1
                told = running.counted(
                    "rmv_mirrors_total", model="m", version=book.version, outcome="eligible"
                )
                assert told == book.eligible
            causes = by_version["v2"].ledger()
            assert {"method", "queue", "queue-timeout", "aborted"} <= causes.skipped.keys()
            assert {"connect", "lost", "timeout"} == causes.failed.keys()
            assert "size" in causes.uncompared
            assert causes.compared == len(judge.judged) > 0
            assert sum(causes.failed.values()) == len(judge.failed)
            plain = by_version["v3"].ledger()
            assert plain.sampled_out > NUMBER / 4
            assert plain.skipped["size"] > NUMBER / 10
            assert plain.uncompared.keys() == {"off"}
            assert mirror.memory.free == MEMORY


async def one_client(running: Proxy, number: int, seed: int) -> None:
    async with running.client() as client:
        await ask(running, client, number, seed)
