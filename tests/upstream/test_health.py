"""Endpoints that answer badly get nothing, and versions without a good one serve nobody."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.policy import Health, Policy, Version
from sidecar.runtime import tasks
from sidecar.telemetry.metrics import Metrics
from sidecar.upstream.health import HealthChecks, Standing, is_good
from sidecar.upstream.pool import PoolSettings, Upstreams
from sidecar.upstream.probe import probe
from tests.support.files import no_files_left
from tests.support.proxy import policy, proxy
from tests.support.upstream import ANSWER, eventually, never, scripted_upstream

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sidecar.model.identity import JSON
    from tests.support.proxy import Proxy
    from tests.support.upstream import Received, Script

INTERVAL_S = 0.05
READY = Health(path="/ready?deep=1", interval_s=INTERVAL_S, timeout_s=0.5, unhealthy_after=2)
BAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Server:
    """A model server whose readiness a test sets."""

    def __init__(self) -> None:
        self.health: Script = ANSWER
        self.checks: list[Received] = []

    async def script(self, request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target != READY.path.encode():
            writer.write(ANSWER)
            return
        self.checks.append(request)
        if isinstance(self.health, bytes):
            writer.write(self.health)
        else:
            await self.health(request, writer)

    async def asked(self, times: int) -> None:
        """Wait until it has been asked so often from now on."""
        wanted = len(self.checks) + times
        await eventually(lambda: len(self.checks) >= wanted)


class Checking:
    """Health checks, and all that they tell."""

    def __init__(self, traffic: tuple[Upstreams, ...] = ()) -> None:
        self.draws = 0
        self.metrics = Metrics()
        self.unready: dict[str, frozenset[str]] = {}
        self.traffic = traffic or (upstreams(),)
        self.checks = HealthChecks(
            upstreams(max_idle=0), self.traffic, self.metrics, self._note, self._draw
        )

    def _note(self, model: str, versions: frozenset[str]) -> None:
        self.unready[model] = versions

    def _draw(self) -> float:
        self.draws += 1
        return 0.5

    def is_healthy(self, url: str) -> bool:
        (found,) = {one.group((url,)).pick().is_healthy for one in self.traffic}
        assert self.metrics.levels["rmv_endpoint_healthy", "endpoint", url] == found
        return found


def upstreams(max_idle: int = 8) -> Upstreams:
    return Upstreams(PoolSettings(max_idle=max_idle), asyncio.get_running_loop().time)


def one_version(*urls: str, health: Health | None = READY) -> Policy:
    return Policy(model="m", versions={"v1": Version(endpoints=urls, health=health)})


@pytest.fixture
async def checking() -> AsyncIterator[Checking]:
    made = Checking()
    yield made
    made.checks.close()


@asynccontextmanager
async def checked_proxy(document: bytes, log: Path) -> AsyncIterator[Proxy]:
    """Run a proxy whose endpoints are checked, as a worker does."""
    async with proxy(document, log) as running:
        plane = running.listener.plane
        checks = HealthChecks(
            upstreams(max_idle=0),
            (plane.upstreams, plane.mirror.upstreams),
            running.metrics,
            running.live.set_unready,
            lambda: 0.5,
        )
        checks.update("m", running.live.snapshots["m"].policy)
        yield running
        checks.close()


async def test_a_check_that_meets_a_fault_is_made_again_and_holds_nothing_against_the_endpoint(
    checking: Checking, monkeypatch: pytest.MonkeyPatch, counted_faults: Counter[str]
) -> None:
    monkeypatch.setattr(tasks, "REST_S", 0.0)
    server, failures = Server(), 5

    async def failing(*args: object) -> object:
        nonlocal failures
        if failures:
            failures -= 1
            raise ZeroDivisionError
        return await probe(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("sidecar.upstream.health.probe", failing)
    async with scripted_upstream(server.script) as upstream:
        checking.checks.update("m", one_version(upstream.url))
        await server.asked(1)
        assert checking.is_healthy(upstream.url)
        assert counted_faults == {"health": 5}
        server.health = BAD
        await eventually(lambda: not checking.is_healthy(upstream.url))


async def test_requests_move_to_the_default_while_a_version_is_unhealthy_and_back(
    tmp_path: Path,
) -> None:
    server = Server()
    async with scripted_upstream(server.script) as v2, scripted_upstream() as v1:
        health: JSON = {"path": READY.path, "interval_s": INTERVAL_S}
        document = policy(
            {"v1": v1.url, "v2": {"endpoints": [v2.url], "health": health}},
            rules=[{"id": "all", "serve": "v2"}],
        )
        async with checked_proxy(document, tmp_path / "log") as running:
            versions = running.live.snapshots
            asked = GET.replace(b"\r\n\r\n", b"\r\nX-Model-Version: v2\r\n\r\n")
            assert (await running.ask(GET)).get(b"X-Model-Version") == b"v2"

            server.health = BAD
            await eventually(lambda: "v2" in versions["m"].unready)
            away = await running.ask(GET)
            refused = await running.ask(asked)

            server.health = ANSWER
            await eventually(lambda: not versions["m"].unready)
            back = await running.ask(asked)

    assert (away.get(b"X-Model-Version"), away.get(b"X-Model-Decision")) == (b"v1", b"DEFAULT")
    assert refused.status == 409
    assert b"version-unavailable" in refused.body
    assert (back.status, back.get(b"X-Model-Version")) == (200, b"v2")


async def test_an_endpoint_that_is_out_gets_no_requests_while_there_is_another(
    tmp_path: Path,
) -> None:
    good, bad = Server(), Server()
    bad.health = BAD
    async with scripted_upstream(good.script) as one, scripted_upstream(bad.script) as other:
        health: JSON = {"path": READY.path, "interval_s": INTERVAL_S}
        document = policy({"v1": {"endpoints": [one.url, other.url], "health": health}})
        async with checked_proxy(document, tmp_path / "log") as running:
            level = "rmv_endpoint_healthy", "endpoint", other.url
            await eventually(lambda: running.metrics.levels[level] == 0)

            for _ in range(10):
                await running.ask(GET)

            assert {record["endpoint"] for record in await running.recorded(10)} == {one.url}


async def test_an_endpoint_counts_as_healthy_until_it_has_been_asked(checking: Checking) -> None:
    checking.checks.update("m", one_version("http://127.0.0.1:9"))

    assert checking.is_healthy("http://127.0.0.1:9")
    assert checking.unready == {"m": frozenset()}


async def test_a_version_is_ready_while_one_endpoint_is(checking: Checking) -> None:
    good, bad = Server(), Server()
    bad.health = BAD
    async with scripted_upstream(good.script) as one, scripted_upstream(bad.script) as other:
        checking.checks.update("m", one_version(one.url, other.url))

        await eventually(lambda: not checking.is_healthy(other.url))
        ready = checking.unready["m"]
        good.health = BAD
        await eventually(lambda: not checking.is_healthy(one.url))

    assert ready == frozenset()
    assert checking.unready["m"] == {"v1"}


@pytest.mark.parametrize(
    "health",
    [
        BAD,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"nonsense\r\n\r\n",
        never,
    ],
    ids=["503", "cut", "101", "nonsense", "silence"],
)
async def test_whatever_is_no_whole_good_answer_is_bad(checking: Checking, health: Script) -> None:
    server = Server()
    server.health = health
    quick = Health(path=READY.path, interval_s=0.05, timeout_s=0.1, unhealthy_after=1)
    async with scripted_upstream(server.script) as upstream:
        checking.checks.update("m", one_version(upstream.url, health=quick))

        await eventually(lambda: checking.unready["m"] == {"v1"})


async def test_an_endpoint_that_nobody_listens_on_is_bad(checking: Checking) -> None:
    async with scripted_upstream() as upstream:
        url = upstream.url
    checking.checks.update("m", one_version(url))

    await eventually(lambda: checking.unready["m"] == {"v1"})


async def test_an_endpoint_that_cannot_be_asked_for_want_of_files_is_not_bad() -> None:
    async with scripted_upstream() as upstream:
        (pool,) = upstreams(max_idle=0).group([upstream.url]).pools
        with no_files_left():
            assert await probe(pool, READY.path, timeout_s=20.0) is None

        assert await probe(pool, READY.path, timeout_s=20.0) == 200


async def test_what_could_not_be_asked_changes_nothing(
    checking: Checking, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def cannot(*_: object) -> None:
        nonlocal asked
        asked += 1

    monkeypatch.setattr("sidecar.upstream.health.probe", cannot)
    url = "http://127.0.0.1:9"
    checking.checks.update("m", one_version(url))
    await eventually(lambda: asked > READY.unhealthy_after)

    assert checking.is_healthy(url)


async def test_each_check_is_a_get_on_a_fresh_connection(checking: Checking) -> None:
    server = Server()
    async with scripted_upstream(server.script) as upstream:
        checking.checks.update("m", one_version(upstream.url))
        await server.asked(3)

        assert [one.connection for one in server.checks[:3]] == [1, 2, 3]
        assert server.checks[0].line == b"GET /ready?deep=1 HTTP/1.1"
        assert server.checks[0].get(b"Host") == upstream.url.removeprefix("http://").encode()


async def test_each_wait_for_a_check_is_drawn_so_that_workers_do_not_keep_step(
    checking: Checking,
) -> None:
    server = Server()
    async with scripted_upstream(server.script) as upstream:
        checking.checks.update("m", one_version(upstream.url))
        await server.asked(4)

    assert checking.draws >= 4


async def test_a_check_ends_with_the_policy_that_asked_for_it(checking: Checking) -> None:
    server = Server()
    server.health = BAD
    async with scripted_upstream(server.script) as upstream:
        checking.checks.update("m", one_version(upstream.url))
        await eventually(lambda: checking.unready["m"] == {"v1"})

        checking.checks.update("m", one_version(upstream.url, health=None))
        number = len(server.checks)
        checking.checks.update("m", None)
        await asyncio.sleep(4 * INTERVAL_S)  # for what must not happen

        assert len(server.checks) <= number + 1  # one may have been on its way
        assert checking.unready["m"] == frozenset()
        assert checking.traffic[0].group((upstream.url,)).pick().is_healthy
        assert not checking.metrics.levels


async def test_models_that_ask_the_same_share_a_check(checking: Checking) -> None:
    server = Server()
    async with scripted_upstream(server.script) as upstream:
        for model in ("m", "n"):
            checking.checks.update(model, one_version(upstream.url))
        server.health = BAD
        await eventually(lambda: checking.unready == {"m": {"v1"}, "n": {"v1"}})

        checking.checks.update("n", None)

        assert checking.unready == {"m": {"v1"}, "n": frozenset()}
        assert not checking.is_healthy(upstream.url)


async def test_an_edit_elsewhere_in_the_policy_keeps_what_is_known(checking: Checking) -> None:
    server = Server()
    server.health = BAD
    async with scripted_upstream(server.script) as upstream:
        checking.checks.update("m", one_version(upstream.url))
        await eventually(lambda: checking.unready["m"] == {"v1"})

        edited = one_version(upstream.url).versions | {"v2": Version(endpoints=("http://h:1",))}
        checking.checks.update("m", Policy(model="m", versions=edited, default="v2"))

        assert checking.unready["m"] == {"v1"}


async def test_another_way_of_asking_keeps_what_is_known_until_the_answer(
    checking: Checking,
) -> None:
    server = Server()
    server.health = BAD
    elsewhere = Health(path="/elsewhere", interval_s=INTERVAL_S)  # answered well
    async with scripted_upstream(server.script) as upstream:
        checking.checks.update("m", one_version(upstream.url))
        await eventually(lambda: checking.unready["m"] == {"v1"})

        checking.checks.update("m", one_version(upstream.url, "http://h:1", health=elsewhere))
        assert checking.unready["m"] == frozenset()  # by its new endpoint
        assert not checking.is_healthy(upstream.url)

        await eventually(lambda: checking.is_healthy(upstream.url))


async def test_a_new_version_of_an_endpoint_that_is_out_has_a_fresh_start(
    checking: Checking,
) -> None:
    server = Server()
    server.health = BAD
    async with scripted_upstream(server.script) as upstream:
        checking.checks.update("m", one_version(upstream.url))
        await eventually(lambda: checking.unready["m"] == {"v1"})

        other = Health(path="/other", interval_s=INTERVAL_S)
        new = one_version(upstream.url).versions | {"v2": Version((upstream.url,), health=other)}
        checking.checks.update("m", Policy(model="m", versions=new))

        assert checking.unready["m"] == {"v1"}


async def test_versions_in_one_server_have_readiness_of_their_own(checking: Checking) -> None:
    async def half(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER if request.target == b"/v1" else BAD)

    async with scripted_upstream(half) as upstream:
        versions = {
            name: Version(
                endpoints=(upstream.url,), health=Health(path=f"/{name}", interval_s=INTERVAL_S)
            )
            for name in ("v1", "v2")
        }
        checking.checks.update("m", Policy(model="m", versions=versions))

        await eventually(lambda: checking.unready["m"] == {"v2"})
        assert checking.is_healthy(upstream.url)


@given(st.lists(st.booleans()), st.integers(1, 4), st.integers(1, 4))
def test_a_standing_changes_after_so_many_answers_in_a_row(
    answers: list[bool], unhealthy_after: int, healthy_after: int
) -> None:
    health = Health(path="/", unhealthy_after=unhealthy_after, healthy_after=healthy_after)
    standing, expected = Standing(health), True

    for n, is_good_now in enumerate(answers):
        before = expected
        needed = healthy_after if is_good_now else unhealthy_after
        if answers[: n + 1][-needed:] == [is_good_now] * needed:
            expected = is_good_now
        assert standing.take(is_good=is_good_now) == (expected != before)
        assert standing.is_healthy == expected


@pytest.mark.parametrize(
    ("listed", "answer", "expected"),
    [
        ((), 200, True),
        ((), 299, True),
        ((), 304, False),
        ((), "connection lost", False),
        ((200, 429), 429, True),
        ((200, 429), 204, False),
    ],
)
def test_the_status_says_whether_an_answer_is_good(
    listed: tuple[int, ...], answer: int | str, *, expected: bool
) -> None:
    assert is_good(Health(path="/", status=listed), answer) == expected
