"""How many requests may be with a version, who waits, and for how long."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.policy import Version
from sidecar.telemetry.metrics import Metrics
from sidecar.upstream.breaker import Breaker, Turn
from sidecar.upstream.pool import PoolSettings, Upstreams

A = "http://127.0.0.1:9001"


class Line:
    """A breaker, and what became of those who waited."""

    def __init__(self, max_in_flight: int | None, max_waiting: int | None = None) -> None:
        self.breaker = Breaker()
        self.breaker.limit(max_in_flight, max_waiting)
        self.admitted: list[str] = []
        self.late: list[str] = []

    def turn(self, name: str, deadline_s: float = 1.0) -> Turn:
        return Turn(lambda: self.admitted.append(name), lambda: self.late.append(name), deadline_s)


def test_without_a_limit_all_may_enter_and_are_counted() -> None:
    line = Line(None)

    assert all(line.breaker.enter() for _ in range(10_000))
    assert line.breaker.in_flight == 10_000


def test_past_the_limit_requests_wait_and_past_the_line_they_are_refused() -> None:
    line = Line(1)

    assert [line.breaker.enter(), line.breaker.enter()] == [True, False]
    assert [line.breaker.wait(line.turn(name)) for name in "abc"] == [True, True, False]


def test_who_leaves_lets_in_who_waited_longest() -> None:
    line = Line(1)
    line.breaker.enter()
    for name in "ab":
        line.breaker.wait(line.turn(name))

    line.breaker.leave()

    assert line.admitted == ["a"]
    assert line.breaker.in_flight == 1


def test_who_waited_too_long_is_turned_away() -> None:
    line = Line(1, 3)
    line.breaker.enter()
    for name, deadline_s in (("a", 1.0), ("b", 2.0)):
        line.breaker.wait(line.turn(name, deadline_s))

    line.breaker.sweep(1.5)
    line.breaker.leave()

    assert (line.late, line.admitted) == (["a"], ["b"])


def test_who_withdrew_is_not_let_in() -> None:
    line = Line(1)
    line.breaker.enter()
    turn = line.turn("a")
    line.breaker.wait(turn)
    line.breaker.withdraw(turn)

    line.breaker.leave()

    assert line.admitted == []
    assert line.breaker.in_flight == 0


def test_a_line_of_those_who_leave_at_once_does_not_pile_up_calls() -> None:
    breaker = Breaker()
    breaker.limit(1, 5_000)
    breaker.enter()
    for _ in range(5_000):
        breaker.wait(Turn(breaker.leave, breaker.leave, 1.0))

    breaker.leave()

    assert (breaker.in_flight, breaker.waiting) == (0, 0)


def test_a_limit_that_is_raised_lets_in_who_waits() -> None:
    line = Line(1)
    line.breaker.enter()
    line.breaker.wait(line.turn("a"))

    line.breaker.limit(2, None)

    assert line.admitted == ["a"]


@given(st.lists(st.sampled_from(["enter", "leave", "late", "raise", "lower"])), st.integers(1, 3))
def test_nobody_is_lost_and_nobody_is_counted_twice(steps: list[str], limit: int) -> None:
    line = Line(limit, 2)
    entered = waited = left = now = 0
    for step in steps:
        if step == "enter" and line.breaker.enter():
            entered += 1
        elif step == "enter":
            waited += line.breaker.wait(line.turn(str(now), now + 2.0))
        elif step == "leave" and line.breaker.in_flight:
            line.breaker.leave()
            left += 1
        elif step == "late":
            now += 1
            line.breaker.sweep(float(now))
        else:
            line.breaker.limit(limit + 1 if step == "raise" else limit, 2)
        assert line.breaker.in_flight == entered + len(line.admitted) - left
        assert line.breaker.waiting == waited - len(line.admitted) - len(line.late)


def test_a_version_has_one_group_whatever_becomes_of_its_policy() -> None:
    metrics = Metrics()
    upstreams = Upstreams(PoolSettings(), time.monotonic, metrics)
    group = upstreams.group_of("m", "v1", Version((A,), max_concurrency=1))
    group.enter()

    changed = upstreams.group_of("m", "v1", Version((A, "http://127.0.0.1:9002")))

    assert changed is group
    assert len(group.pools) == 2
    upstreams.measure()
    assert metrics.levels["rmv_in_flight", "model", "m", "version", "v1"] == 1


def test_a_worker_takes_its_share_of_a_limit_rounded_up() -> None:
    upstreams = Upstreams(PoolSettings(workers=4), time.monotonic)
    group = upstreams.group_of("m", "v1", Version((A,), max_concurrency=10))

    assert [group.enter() for _ in range(4)] == [True, True, True, False]


def test_a_version_that_is_gone_is_forgotten_once_it_is_idle() -> None:
    upstreams = Upstreams(PoolSettings(), time.monotonic)
    group = upstreams.group_of("m", "v1", Version((A,)))
    group.enter()

    upstreams.retain_versions(())
    assert upstreams.group_of("m", "v1", Version((A,))) is group
    group.leave()
    upstreams.retain_versions(())
    assert upstreams.group_of("m", "v1", Version((A,))) is not group
