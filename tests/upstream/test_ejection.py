"""When an endpoint is left alone, for how long, and when it is not."""

from __future__ import annotations

import logging

import pytest

from sidecar.model.policy import Version
from sidecar.telemetry.metrics import Metrics
from sidecar.upstream.pool import PoolSettings, Upstreams
from tests.support.clock import HandClock

A, B = (f"http://127.0.0.1:{port}" for port in (9001, 9002))


class Bed:
    """Two endpoints of one version, and a clock."""

    def __init__(self, *urls: str) -> None:
        self.clock = HandClock()
        self.metrics = Metrics()
        self.upstreams = Upstreams(PoolSettings(), self.clock.monotonic_s, self.metrics)
        self.group = self.upstreams.group_of("m", "v1", Version(urls or (A, B)))
        self.pool = self.group.pools[0]

    def fail(self, times: int = 5, at: int = 0) -> None:
        for _ in range(times):
            self.group.pools[at].note_failure()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.upstreams.sweep(self.clock.monotonic_s())


def test_five_failures_in_a_row_eject() -> None:
    bed = Bed()
    bed.fail(4)
    assert bed.pool.is_available
    bed.fail(1)

    assert not bed.pool.is_available
    bed.upstreams.measure()
    assert bed.metrics.levels["rmv_endpoints_ejected", "traffic", "requests"] == 1
    assert {bed.group.pick().url for _ in range(50)} == {B}


def test_a_good_check_does_not_end_an_ejection() -> None:
    bed = Bed()
    bed.pool.is_healthy = False
    bed.fail()

    bed.pool.is_healthy = True
    assert not bed.pool.is_available
    bed.advance(10)
    assert bed.pool.is_available


def test_an_ejection_counts_for_each_version_that_has_the_endpoint() -> None:
    bed = Bed()
    bed.upstreams.group_of("n", "v2", Version((A, B)))
    bed.upstreams.group_of("n", "v3", Version((B,)))
    bed.fail()

    counted = {
        (dict(zip(key[1::2], key[2::2], strict=True))["version"], number)
        for key, number in bed.metrics.events.items()
        if key[0] == "rmv_ejections_total"
    }
    assert counted == {("v1", 1), ("v2", 1)}
    assert bed.metrics.events[
        "rmv_ejections_total", "model", "n", "version", "v2", "endpoint", A, "traffic", "requests"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "is_down"), [(500, False), (502, True), (503, True), (504, True), (505, False)]
)
def test_bad_gateways_and_the_like_are_failures(status: int, is_down: bool) -> None:
    bed = Bed()
    for _ in range(5):
        bed.pool.note_status(status)

    assert bed.pool.is_ejected is is_down


def test_a_success_starts_the_count_anew() -> None:
    bed = Bed()
    bed.fail(4)
    bed.pool.note_success()
    bed.fail(4)

    assert bed.pool.is_available


def test_it_is_back_after_ten_seconds_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    bed = Bed()
    with caplog.at_level(logging.WARNING):
        bed.fail()
        bed.advance(9.9)
        assert not bed.pool.is_available
        bed.advance(0.2)

    assert bed.pool.is_available
    assert [record.message for record in caplog.records] == ["endpoint ejected", "endpoint is back"]


def test_each_ejection_is_twice_as_long_up_to_five_minutes() -> None:
    bed = Bed()
    lasted: list[int] = []
    for _ in range(7):
        bed.fail()
        seconds = 0
        while not bed.pool.is_available:
            bed.advance(1.0)
            seconds += 1
        lasted.append(seconds)

    assert lasted == [10, 20, 40, 80, 160, 300, 300]


def test_after_a_long_good_time_it_is_ten_seconds_again() -> None:
    bed = Bed()
    bed.fail()
    bed.advance(10.0)
    bed.fail()
    bed.advance(20.0)
    bed.advance(300.0)

    bed.fail()

    bed.advance(10.0)
    assert bed.pool.is_available


def test_the_last_available_endpoint_stays() -> None:
    bed = Bed()
    bed.fail(at=0)
    bed.fail(50, at=1)

    assert [pool.is_ejected for pool in bed.group.pools] == [True, False]


def test_an_only_endpoint_stays() -> None:
    bed = Bed(A)
    bed.fail(50)

    assert bed.pool.is_available


def test_an_endpoint_stays_while_another_version_has_no_other() -> None:
    bed = Bed()
    bed.upstreams.group_of("m", "v2", Version((A,)))
    bed.fail(50)

    assert bed.pool.is_available


def test_failures_of_what_was_under_way_do_not_lengthen_an_ejection() -> None:
    bed = Bed()
    bed.fail(50)
    bed.advance(10.0)

    assert bed.pool.is_available
