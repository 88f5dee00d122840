"""Which endpoint a request gets, and which one a second attempt."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from sidecar.upstream.pool import Group, PoolSettings, Upstreams
from tests.support.clock import HandClock

A, B, C = (f"http://127.0.0.1:{port}" for port in (9001, 9002, 9003))


def group_of(*urls: str) -> Group:
    clock = HandClock()
    draw = random.Random(7).random  # noqa: S311 -- a test repeats
    return Upstreams(PoolSettings(), clock.monotonic_s, draw=draw).group(urls)


def test_the_only_endpoint_is_taken_even_when_it_is_out() -> None:
    group = group_of(A)
    group.pools[0].is_healthy = False

    assert group.pick().url == A
    assert group.after(A).url == A


def test_idle_endpoints_get_equal_shares() -> None:
    group = group_of(A, B, C)

    taken = Counter(group.pick().url for _ in range(3_000))

    assert all(900 < taken[url] < 1_100 for url in (A, B, C)), taken


def test_the_busiest_of_all_is_never_taken() -> None:
    group = group_of(A, B, C)
    group.pools[1].outstanding = 3

    assert {group.pick().url for _ in range(300)} == {A, C}


def test_requests_that_stay_spread_evenly() -> None:
    group = group_of(A, B, C)
    for _ in range(300):
        group.pick().outstanding += 1

    assert max(pool.outstanding for pool in group.pools) <= 103


@pytest.mark.parametrize("mark", ["is_healthy", "is_ejected"])
def test_an_endpoint_that_is_out_is_skipped(mark: str) -> None:
    group = group_of(A, B, C)
    setattr(group.pools[0], mark, mark == "is_ejected")

    assert {group.pick().url for _ in range(300)} == {B, C}


def test_all_are_taken_while_all_are_out() -> None:
    group = group_of(A, B, C)
    for pool in group.pools:
        pool.is_healthy = False

    assert {group.pick().url for _ in range(300)} == {A, B, C}


def test_a_second_attempt_goes_elsewhere_and_to_an_available_endpoint() -> None:
    group = group_of(A, B, C)
    assert {group.after(A).url for _ in range(100)} == {B, C}

    group.pools[1].is_healthy = False

    assert {group.after(A).url for _ in range(100)} == {C}


def test_a_second_attempt_goes_elsewhere_even_when_the_others_are_out() -> None:
    group = group_of(A, B)
    group.pools[1].is_healthy = False

    assert group.after(A).url == B


def test_a_second_attempt_survives_a_policy_that_dropped_the_endpoint() -> None:
    assert group_of(A, B).after(C).url in {A, B}
