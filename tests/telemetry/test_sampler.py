"""Which requests leave a context, and how many each of them stands for."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from sidecar.model.decision import Decision
from sidecar.model.policy import Rule
from sidecar.policy.attributes import identity_of
from sidecar.telemetry.sampler import Sampler
from tests.policy.examples import caller, make_head, make_policy

if TYPE_CHECKING:
    from sidecar.model.context import Context

DECISION = Decision("tumor", "v1", "DEFAULT", 1)


def sampler(per_second: int = 10, *models: str) -> Sampler:
    made = Sampler(per_second, random.Random(7).random, "here")  # noqa: S311 -- no secret
    for model in models or ("tumor",):
        made.follow(model, make_policy())
    return made


def send(made: Sampler, number: int, model: str = "tumor", tenants: int = 1) -> None:
    """Let so many requests end, of tenants that take turns."""
    tally = made.tally(model)
    assert tally is not None
    for n in range(number):
        if tally.is_due():
            decision = Decision(model, "v1", "DEFAULT", 1)
            tally.take(caller(f"t{n % tenants}"), make_head(), decision, 1.0, 0.5)


def stand_for(contexts: list[Context]) -> float:
    return sum(one.stands_for for one in contexts)


@pytest.mark.parametrize("number", [1, 7, 10, 11, 500, 12_345])
def test_the_contexts_of_a_second_stand_for_all_of_its_requests(number: int) -> None:
    made = sampler(10)

    send(made, number)
    taken = made.drain()

    assert stand_for(taken) == pytest.approx(number)
    assert len(taken) == min(number, 10)


def test_no_request_is_forgotten_over_many_seconds() -> None:
    made, numbers = sampler(10), [3, 0, 900, 5000, 1, 0, 0, 44, 10_000, 2, 2, 2]

    taken = []
    for number in numbers:
        send(made, number)
        taken += made.drain()
        assert len(taken) <= 10 * len(numbers)
    owed = sum(numbers) - stand_for(taken)

    assert 0 <= owed <= 6  # those since the last context, which the next one will stand for


def test_at_a_steady_pace_contexts_are_spread_over_the_second() -> None:
    made = sampler(20)
    send(made, 2000)
    made.drain()

    send(made, 1000)
    early = made.drain()

    assert 7 <= len(early) <= 13  # of 20 for twice as many


def test_callers_who_take_turns_are_met_alike() -> None:
    made = sampler(100)
    met: Counter[str] = Counter()
    for _ in range(50):
        send(made, 1000, tenants=10)
        met.update(one.tenant for one in made.drain())

    assert set(met) == {f"t{n}" for n in range(10)}
    assert max(met.values()) < 1.3 * min(met.values())


def test_a_rare_model_is_not_drowned_by_a_busy_one() -> None:
    made = sampler(10, "busy", "rare")
    for _ in range(5):
        send(made, 10_000, "busy")
        send(made, 2, "rare")
        rare = [one for one in made.drain() if one.model == "rare"]

        assert stand_for(rare) == 2


def test_more_models_than_contexts_a_second_take_turns_and_none_is_forgotten() -> None:
    models = [f"m{n}" for n in range(40)]
    made = sampler(10, *models)
    stood_for: Counter[str] = Counter()
    taken = []
    for _ in range(50):
        for model in models:
            send(made, 3, model)
        taken.append(made.drain())
        for one in taken[-1]:
            stood_for[one.model] += round(one.stands_for)

    assert all(len(batch) <= 40 for batch in taken[1:])
    assert sum(map(len, taken[1:])) <= 10 * 49
    assert set(stood_for) == set(models)
    assert all(3 * 40 < number <= 3 * 50 for number in stood_for.values())


def test_an_idle_model_leaves_its_part_to_the_others() -> None:
    made = sampler(10, "busy", "idle")
    send(made, 1000, "busy")
    made.drain()

    send(made, 1000, "busy")

    assert len(made.drain()) > 5


def test_off_takes_nothing() -> None:
    made = sampler(0)

    for _ in range(3):
        send(made, 1000)
        assert made.drain() == []


def test_without_a_drain_no_more_is_taken() -> None:
    made = sampler(10)

    send(made, 100_000)

    assert len(made.drain()) == 10


def test_a_context_has_what_its_policy_asks_for_and_nothing_else() -> None:
    made = Sampler(10, random.random, "here")
    rules = (
        Rule(id="r", when={"header.X-Beta": "yes", "claim.org.plan": "gold"}, serve="v2"),
        Rule(id="s", when={"header.cookie": "a"}, serve="v2"),
    )
    made.follow("tumor", make_policy(*rules))
    tally = made.tally("tumor")
    assert tally is not None
    assert tally.is_due()
    identity = caller(
        "acme", subject="ann", app="web", claims={"org": {"plan": "gold"}, "email": "a@b.c"}
    )
    head = make_head(
        b"/infer?patient=7",
        asked_version=b"v" * 400,
        headers=((b"x-beta", b"yes"), (b"cookie", b"session"), (b"authorization", b"Bearer x")),
    )

    tally.take(identity, head, DECISION, 12.0, 0.25)
    [context] = made.drain()

    assert context.attributes == {"header.x-beta": ("yes",), "claim.org.plan": ("gold",)}
    assert (context.tenant, context.request_id, context.instance) == ("acme", "r-1", "here")
    assert (context.at_s, context.duration_s, context.stands_for) == (12.0, 0.25, 1)
    assert context.asked_version == "v" * 65


def test_a_model_that_is_gone_is_followed_no_more() -> None:
    made = sampler(10)

    made.follow("tumor", None)

    assert made.tally("tumor") is None
    assert made.drain() == []


def test_what_cannot_be_written_or_is_long_is_not_taken() -> None:
    made = Sampler(10, random.random, "here")
    names = ("header.x-raw", "header.x-long", "header.x-good", "claim.org", "claim.tags")
    made.follow("tumor", make_policy(Rule(id="r", when=dict.fromkeys(names, "x"), serve="v2")))
    tally = made.tally("tumor")
    assert tally is not None
    assert tally.is_due()
    head = make_head(
        headers=((b"x-raw", b"\xff"), (b"x-long", b"x" * 257), (b"x-good", "\u00fc".encode()))
    )
    identity = caller(claims={"org": {"plan": "gold"}, "tags": ["a", 1, True]})

    tally.take(identity, head, DECISION, 1.0, 0.1)
    [context] = made.drain()

    assert context.attributes == {"header.x-good": ("\u00fc",), "claim.tags": ("a", 1, True)}


@pytest.mark.parametrize(
    ("grants", "told"),
    [
        (None, None),
        ({}, ()),
        ({"tumor": ("v1", "label:canary"), "fraud": ("v2",)}, ("v1", "label:canary")),
        ({"fraud": ("v2",), "*": (">=2",)}, (">=2",)),
        ({"tumor": tuple(f"v{n}" for n in range(500))}, tuple(f"v{n}" for n in range(500))),
    ],
)
def test_a_context_tells_what_the_token_grants_of_its_model_whole_or_not_at_all(
    grants: dict[str, tuple[str, ...]] | None, told: tuple[str, ...] | None
) -> None:
    tally = sampler().tally("tumor")
    assert tally is not None
    identity = replace(caller("acme"), grants=grants)

    tally.take(identity, make_head(), DECISION, 1.0, 0.1)

    (context,) = tally.drain(10.0)
    assert context.attributes.get("granted") == told
    again = identity_of(context)
    assert again.grants == (None if told is None else {"tumor": told})
