"""A snapshot follows kills and readiness without compiling its document again."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.model.decision import Cause, Rejected
from sidecar.model.policy import Operators, Policy, Rule, Segment, Shadow, Split
from sidecar.policy.compiled import compiling
from sidecar.policy.resolver import resolve
from sidecar.policy.ruleset import PORTION
from sidecar.policy.snapshot import compile_snapshot
from tests.policy.examples import caller, due, make_head, make_policy
from tests.policy.policies import VERSIONS, callers, heads, policies

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.request import RequestHead

HEAD = make_head()
NAMES = st.sampled_from(VERSIONS)


@given(
    policies(),
    st.dictionaries(NAMES, st.just("why")),
    st.frozensets(NAMES),
    st.lists(st.tuples(callers(), heads()), min_size=1, max_size=4),
)
def test_other_kills_decide_as_a_snapshot_made_anew(
    policy: Policy,
    kills: dict[str, str],
    unready: frozenset[str],
    requests: list[tuple[Identity, RequestHead]],
) -> None:
    before = compile_snapshot(policy, {}, {})
    for identity, head in requests:
        resolve(before, identity, head)  # what it remembers must not show afterwards

    after, anew = before.with_health(kills, unready), compile_snapshot(policy, {}, kills, unready)

    for identity, head in requests:
        decision = resolve(after, identity, head)
        assert decision == resolve(anew, identity, head)
        assert due(after, identity, head, decision) == due(anew, identity, head, decision)


def test_a_kill_compiles_no_document() -> None:
    snapshot = compile_snapshot(make_policy(Rule(id="r", split=Split(arms={"v1": 1}))), {}, {})

    killed = snapshot.with_health({"v1": "why"}, frozenset())

    assert killed.compiled is snapshot.compiled
    assert killed.pins is snapshot.pins
    assert resolve(killed, caller(), HEAD).version == ""
    assert resolve(killed.with_health({}, frozenset()), caller(), HEAD).version == "v1"


def test_a_label_means_its_version_wherever_one_is_named() -> None:
    policy = Policy(
        model="tumor",
        versions=make_policy().versions,
        labels={"stable": "v1", "canary": "v2"},
        rules=(
            Rule(id="one", when={"tenant": "one"}, serve="canary"),
            Rule(
                id="two",
                when={"tenant": "two"},
                split=Split(arms={"canary": 1}, key="subject", otherwise="canary"),
            ),
        ),
        default="stable",
        shadows=(Shadow(version="canary"),),
    )
    pins = {"three": "canary"}
    snapshot = compile_snapshot(policy, pins, {})

    def served(tenant: str, subject: str = "", asked: bytes | None = None) -> str:
        head = make_head(asked_version=asked)
        return resolve(snapshot, caller(tenant, subject=subject), head).version

    assert served("one") == served("two", "s") == served("two") == served("three") == "v2"
    assert served("four") == "v1"
    assert served("four", asked=b"canary") == "v2"
    decision = resolve(snapshot, caller("four"), HEAD)
    assert due(snapshot, caller("four"), HEAD, decision) == (Shadow(version="v2"),)
    assert due(snapshot, caller("one"), HEAD, resolve(snapshot, caller("one"), HEAD)) == ()


def test_a_label_hides_no_version_of_its_name() -> None:
    policy = Policy(
        model="tumor", versions=make_policy().versions, labels={"v2": "v1"}, default="v2"
    )

    assert resolve(compile_snapshot(policy, {}, {}), caller(), HEAD).version == "v2"


def test_a_big_document_is_compiled_in_small_steps() -> None:
    rules = [Rule(id=f"t{n}", when={"tenant": f"t{n}"}, serve="v2") for n in range(500)]
    rules += [Rule(id=f"a{n}", when={"app": f"a{n}"}, serve="v2") for n in range(500)]
    rules += [Rule(id=f"s{n}", when={"segment": f"s{n}"}, serve="v3") for n in range(500)]
    policy = Policy(
        model="tumor",
        versions=make_policy().versions,
        segments={f"s{n}": Segment(include=(f"x{n}",)) for n in range(500)},
        rules=tuple(rules),
        default="v1",
    )

    pauses = sum(1 for _ in compiling(policy))

    assert pauses > (3 * 500 + 500) / PORTION


def test_nothing_compiled_refers_to_itself() -> None:
    # Counting references has to be what frees it: the collector does not look at policies.
    policy = Policy(
        model="tumor",
        versions={"v1": replace(make_policy().versions["v1"], allow=({"app": "a"}, {}))},
        segments={"beta": Segment(include=("acme",), when=({"claim.plan": "gold"},))},
        rules=(
            Rule(id="a", when={"segment": "beta", "app": Operators(prefix="b")}, serve="v1"),
            Rule(id="b", when={"header.x": Operators(semver=">1")}, split=Split(arms={"v1": 1})),
        ),
        shadows=(Shadow(version="v1", percent=50),),
    )
    gc.collect()
    gc.disable()
    try:
        snapshot = compile_snapshot(policy, {}, {})
        resolve(snapshot, caller(app="b"), HEAD)
        resolve(snapshot.with_health({"v1": "why"}, frozenset()), caller(), HEAD)
        del snapshot
        left = gc.collect()
    finally:
        gc.enable()

    assert left == 0


def test_a_kill_by_label_switches_its_version_off() -> None:
    policy = Policy(
        model="tumor",
        versions=make_policy().versions,
        labels={"canary": "v2"},
        rules=(Rule(id="all", serve="v2"),),
        default="v1",
        shadows=(Shadow(version="v2"),),
    )
    snapshot = compile_snapshot(policy, {}, {"canary": "wrong scores"})

    decision = resolve(snapshot, caller(), HEAD)

    assert decision.version == "v1"
    assert decision.rejected == (Rejected("v2", Cause.KILLED),)
    assert due(snapshot, caller(), HEAD, decision) == ()


def test_moving_a_label_moves_whoever_is_pinned_to_it() -> None:
    pins = {"acme": "stable"}
    versions = make_policy().versions

    served = [
        resolve(
            compile_snapshot(
                Policy(model="tumor", versions=versions, labels={"stable": version}), pins, {}
            ),
            caller("acme"),
            HEAD,
        )
        for version in ("v1", "v2")
    ]

    assert [(one.version, one.reason) for one in served] == [("v1", "PINNED"), ("v2", "PINNED")]
