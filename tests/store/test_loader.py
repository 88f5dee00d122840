"""Large documents come into force in slices: whatever changes meanwhile is not lost."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
import yaml
from msgspec.structs import replace

from sidecar.model.decision import Cause
from sidecar.model.identity import Identity
from sidecar.model.policy import Rule
from sidecar.policy import codec
from sidecar.policy.resolver import resolve
from sidecar.policy.steps import finish
from sidecar.runtime import slices
from sidecar.runtime.slices import in_slices, lasting
from sidecar.runtime.tasks import spawn, stop
from sidecar.store import loader as loaders
from sidecar.store.live import LARGE_BYTES, SMALL_BYTES, Contents, LivePolicies
from sidecar.store.loader import Loader
from tests.policy.examples import make_head
from tests.store.documents import default_of, document, eventually, policy, watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.policy.steps import Steps
    from sidecar.store.redis import RedisStore
    from tests.support.valkey import Valkey

RULES = 1_500


def large(default: str = "v1", revision: int = 0, serve: str = "v1") -> bytes:
    rules = tuple(
        Rule(id=f"r{n}", when={"tenant": f"tenant-{n}"}, serve=serve) for n in range(RULES)
    )
    raw = codec.encode(replace(policy(default=default, revision=revision), rules=rules))
    assert len(raw) > LARGE_BYTES > SMALL_BYTES
    return raw


def some(steps: Steps[bool], count: int) -> None:
    """Do so many steps, which must not be the last ones."""
    for _ in range(count):
        next(steps)


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def live(changes: list[str]) -> LivePolicies:
    made = LivePolicies(on_change=lambda model: changes.append(default_of(made, model) or "gone"))
    assert made.put_policy("fraud", document())
    changes.clear()
    return made


@pytest.fixture
def every_step_is_a_slice() -> Iterator[None]:
    with patch.object(slices, "SLICE_S", 0.0):
        yield


@pytest.mark.usefixtures("every_step_is_a_slice")
async def test_the_loop_comes_round_many_times_before_a_large_document_serves(
    live: LivePolicies,
) -> None:
    rounds = 0
    taking = asyncio.ensure_future(in_slices(live.taking("fraud", large(default="v2"))))

    while not taking.done():
        rounds += default_of(live) == "v1"
        await asyncio.sleep(0)

    assert taking.result()
    assert default_of(live) == "v2"
    assert rounds > 3 * RULES  # read, shaped and judged one by one


def test_a_document_that_was_overtaken_never_serves(live: LivePolicies, changes: list[str]) -> None:
    steps = live.taking("fraud", large(default="v2"))
    some(steps, RULES)

    assert live.put_policy("fraud", document(default="v1", comment="newer"))

    assert not finish(steps)
    assert changes == ["v1"]
    assert live.snapshots["fraud"].policy.comment == "newer"


def test_a_document_that_goes_back_to_the_one_in_force_overtakes_too(
    live: LivePolicies, changes: list[str]
) -> None:
    steps = live.taking("fraud", large(default="v2"))
    some(steps, RULES)

    assert live.put_policy("fraud", document())

    assert not finish(steps)
    assert changes == []


def test_a_model_that_is_removed_meanwhile_stays_removed(live: LivePolicies) -> None:
    steps = live.taking("fraud", large())
    some(steps, RULES)

    live.put_policy("fraud", None)

    assert not finish(steps)
    assert live.snapshots == {}
    assert live.put_policy("fraud", large())


def test_kills_pins_and_health_of_meanwhile_hold_at_once_and_after(live: LivePolicies) -> None:
    steps = live.taking("fraud", large(default="v2"))
    some(steps, RULES)

    live.put_kill("fraud", "v1", "bad")
    live.set_unready("fraud", frozenset({"v2"}))
    live.put_pin("fraud", "acme", "v2")
    before = live.snapshots["fraud"]
    assert finish(steps)
    after = live.snapshots["fraud"]

    for snapshot in (before, after):
        assert snapshot.versions["v1"].out is Cause.KILLED
        assert snapshot.versions["v2"].out is Cause.NOT_READY
        assert snapshot.pins == {"acme": "v2"}
    assert (before.policy.default, after.policy.default) == ("v1", "v2")


def test_a_load_that_was_broken_off_is_begun_anew_when_it_is_seen_again(
    live: LivePolicies,
) -> None:
    raw = large(default="v2")
    steps = live.taking("fraud", raw)
    some(steps, RULES)

    steps.close()  # as by the loss of a connection

    assert not live.is_taking("fraud")
    assert live.put_policy("fraud", raw)
    assert default_of(live) == "v2"


def test_the_same_document_is_not_taken_twice_at_a_time(
    live: LivePolicies, changes: list[str]
) -> None:
    raw = large(default="v2")
    steps = live.taking("fraud", raw)
    some(steps, RULES)

    assert not finish(live.taking("fraud", raw))
    assert finish(steps)
    assert changes == ["v2"]


def test_what_is_replaced_is_gathered_in_steps_before_the_one_that_replaces_it(
    live: LivePolicies,
) -> None:
    def steps_before(live: LivePolicies) -> int:
        before = live.snapshots.get("fraud")
        steps = live.taking("fraud", document(default="v2"))
        return sum(live.snapshots.get("fraud") is before for _ in steps)

    assert steps_before(live) >= steps_before(LivePolicies()) + 3


def test_who_still_holds_the_policy_before_decides_by_it(live: LivePolicies) -> None:
    assert live.put_policy("fraud", large(default="v2", serve="v1"))
    held = live.snapshots["fraud"]

    assert live.put_policy("fraud", large(default="v1", serve="v2"))

    for n in (0, RULES - 1):
        caller = Identity(tenant=f"tenant-{n}")
        assert resolve(held, caller, make_head()).version == "v1"
        assert resolve(live.snapshots["fraud"], caller, make_head()).version == "v2"
    assert len(held.policy.rules) == RULES


def test_a_replacement_takes_large_documents_in_steps(live: LivePolicies) -> None:
    steps = live.replacing(Contents({"fraud": large(default="v2")}))

    assert sum(1 for _ in steps) > 3 * RULES
    assert default_of(live) == "v2"


def test_a_large_document_with_a_fault_is_refused_and_the_last_good_one_serves(
    live: LivePolicies,
) -> None:
    assert not finish(live.taking("fraud", large(serve="v9")))

    assert default_of(live) == "v1"
    assert live.faults["fraud"].count("\n") == 100
    assert 'rules[0].serve: unknown version "v9"' in live.faults["fraud"]


@pytest.mark.usefixtures("every_step_is_a_slice")
async def test_of_large_documents_put_in_a_row_only_the_last_one_serves(
    live: LivePolicies, changes: list[str]
) -> None:
    taken: list[tuple[int, bool]] = []
    loader = Loader(live, lambda _model, raw, serves: taken.append((len(raw), serves)))
    running = spawn(loader.run(), name="loader under test")
    first, second, last = (large("v2", 10**n) for n in (1, 3, 5))

    loader.put("fraud", first)
    for _ in range(RULES):
        await asyncio.sleep(0)
    loader.put("fraud", second)
    loader.put("fraud", last)
    await eventually(lambda: (len(last), True) in taken)
    await stop(running)

    assert changes == ["v2"]
    assert live.snapshots["fraud"].revision == 10**5
    assert taken == [(len(first), False), (len(last), True)]


async def test_a_small_document_serves_before_put_returns_and_overtakes_a_large_one(
    live: LivePolicies, changes: list[str]
) -> None:
    loader = Loader(live, lambda *_: None)
    running = spawn(loader.run(), name="loader under test")

    loader.put("fraud", large())
    loader.put("fraud", document(default="v2"))

    assert default_of(live) == "v2"
    await asyncio.sleep(0)
    await stop(running)
    assert changes == ["v2"]


@pytest.mark.usefixtures("every_step_is_a_slice")
async def test_a_small_document_that_takes_long_lets_the_loop_come_round(
    live: LivePolicies, changes: list[str]
) -> None:
    taken: list[bool] = []
    loader = Loader(live, lambda _model, _raw, serves: taken.append(serves))
    running = spawn(loader.run(), name="loader under test")

    with patch.object(loaders, "AT_ONCE_S", 0.0):
        loader.put("fraud", document(default="v2"))

    assert default_of(live) == "v1"
    await eventually(lambda: taken == [True])
    await stop(running)
    assert changes == ["v2"]


@pytest.mark.usefixtures("every_step_is_a_slice")
async def test_the_loop_comes_round_between_documents_that_were_written_in_one_go(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    rounds = 0
    changed_in: set[int] = set()
    live = LivePolicies(on_change=lambda _model: changed_in.add(rounds))

    async with watching(redis_store, live):
        models = [f"m{n}" for n in range(50)]
        await valkey.client.mset({f"rmv:policy:{one}": document(model=one) for one in models})
        while live.snapshots.keys() < set(models):
            rounds += 1
            await asyncio.sleep(0)

    assert len(changed_in) >= len(models) // 2


@pytest.mark.parametrize("revision", [0, 7])
async def test_a_document_of_yaml_is_adopted_as_it_stands(
    valkey: Valkey, redis_store: RedisStore, revision: int
) -> None:
    spelled = yaml.safe_dump({**json.loads(document()), "revision": revision}).encode()
    async with watching(redis_store) as live:
        await valkey.client.set("rmv:policy:fraud", spelled)
        await eventually(lambda: "fraud" in live.snapshots)
        adopted = revision or 1
        await eventually(lambda: live.snapshots["fraud"].revision == adopted)

        async with asyncio.timeout(20):
            while not (entries := await redis_store.history("fraud")):  # noqa: ASYNC110 -- a server's
                await asyncio.sleep(0.002)
    assert [entry.revision for entry in entries] == [adopted]
    assert codec.decode(entries[0].document, source="").default == "v1"
    assert (entries[0].document == spelled) == bool(revision)


async def test_a_large_edit_and_a_kill_behind_it_come_into_force(
    valkey: Valkey, redis_store: RedisStore
) -> None:
    await valkey.client.set("rmv:policy:fraud", document())
    async with watching(redis_store) as live:
        await valkey.client.set("rmv:policy:fraud", large(default="v2"))
        await valkey.client.set("rmv:kill:fraud:v1", "bad")
        await eventually(lambda: live.snapshots["fraud"].kills == {"v1": "bad"})

        await eventually(lambda: default_of(live) == "v2" and len(live.snapshots) == 1)
        assert live.snapshots["fraud"].versions["v1"].out is Cause.KILLED
        await eventually(lambda: live.snapshots["fraud"].revision == 1)  # adopted


def test_the_collector_rests_until_all_that_lasts_is_built() -> None:
    assert gc.isenabled()
    with lasting():
        with lasting():
            assert not gc.isenabled()
        assert not gc.isenabled()

    assert gc.isenabled()
    gc.unfreeze()  # the other tests' garbage is garbage
