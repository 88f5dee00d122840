"""Kill, explicit, pin, rules, default, fallback: in this order, each with its reason."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.errors import Code
from sidecar.model.decision import Cause, Decision, Rejected
from sidecar.model.policy import (
    OnUnavailable,
    Operators,
    Policy,
    Rule,
    Segment,
    Shadow,
    Split,
    State,
    Version,
)
from sidecar.policy.bucket import choose, sampled
from sidecar.policy.resolver import fallback_of, resolve, shadows_for
from sidecar.policy.snapshot import Snapshot, compile_snapshot
from tests.policy.examples import (
    caller,
    due,
    everything_is_looked_up,
    make_head,
    make_policy,
    version,
)
from tests.policy.plain import PlainReading
from tests.policy.policies import KILLS, PINS, UNREADY, VERSIONS, callers, heads, policies

if TYPE_CHECKING:
    from collections.abc import Set

    from sidecar.model.identity import Identity
    from sidecar.model.policy import Matcher
    from sidecar.model.request import RequestHead

HEAD = make_head()
CANARY = Rule(id="canary", split=Split(arms={"v1": 90, "v2": 10}))
NOT_FOR_ACME = Version(endpoints=("http://127.0.0.1:9001",), deny=({"tenant": "acme"},))


def snapshot_of(
    policy: Policy,
    pins: dict[str, str] | None = None,
    kills: dict[str, str] | None = None,
    unready: Set[str] = frozenset(),
) -> Snapshot:
    return compile_snapshot(policy, {} if pins is None else pins, kills or {}, frozenset(unready))


def limited(**versions: Version) -> dict[str, Version]:
    return {name: version() for name in VERSIONS} | versions


def outcome(decision: Decision) -> tuple[str, str, Code | None]:
    return decision.version, decision.reason, decision.refusal


REQUESTS = st.lists(st.tuples(callers(), heads()), min_size=1, max_size=6)


@given(policies(), PINS, KILLS, UNREADY, REQUESTS)
def test_the_resolver_is_a_plain_reading_of_the_document(
    policy: Policy,
    pins: dict[str, str],
    kills: dict[str, str],
    unready: frozenset[str],
    requests: list[tuple[Identity, RequestHead]],
) -> None:
    reading = PlainReading(policy, pins, kills, unready)
    asking = compile_snapshot(policy, pins, kills, unready)
    with everything_is_looked_up():
        looking_up = compile_snapshot(policy, pins, kills, unready)

    those, theirs = zip(*requests, strict=True)
    turned = zip(those, (*theirs[1:], theirs[0]), strict=True)
    # Again, and with the heads of others: what is remembered must be right, too.
    for (identity, head), snapshot in product(
        (*requests, *requests, *turned), (asking, looking_up)
    ):
        decision = resolve(snapshot, identity, head)
        assert replace(decision, detail="") == reading.decide(identity, head)
        assert bool(decision.detail) == (decision.refusal is not None)
        if decision.version:
            by_name = decision.reason in {"EXPLICIT", "PINNED"}
            assert reading.cause(decision.version, identity, head, by_name=by_name) is None


@given(policies(), KILLS, UNREADY, st.tuples(callers(), heads()))
def test_a_request_is_drawn_first_and_then_copied_unless_the_shadow_is_idle(
    policy: Policy,
    kills: dict[str, str],
    unready: frozenset[str],
    request: tuple[Identity, RequestHead],
) -> None:
    snapshot, (identity, head) = snapshot_of(policy, None, kills, unready), request
    decision = resolve(snapshot, identity, head)

    drawn = shadows_for(snapshot, identity, head, decision)

    reading = PlainReading(policy, {}, kills, unready)
    killed = {reading.name(ref) for ref in kills}
    wanted: dict[str, list[Shadow]] = {"due": [], "spared": [], "idle": []}
    for shadow in policy.shadows:
        name = reading.name(shadow.version)
        version = policy.versions[name]
        if decision.version in {"", name} or version.state is State.RETIRED:
            continue
        if version.accepts is not None and not reading.fits(version.accepts, identity, head):
            continue
        if shadow.when and not reading.fits(shadow.when, identity, head):
            continue
        fate = "idle" if name in killed | unready or not shadow.enabled else "due"
        is_drawn = sampled(f"tumor/{name}", head.request_id, shadow.percent)
        wanted[fate if is_drawn else "spared"].append(replace(shadow, version=name))
    assert {fate: [one.shadow for one in getattr(drawn, fate)] for fate in wanted} == wanted
    assert drawn.is_any == any(wanted.values())


def test_the_default_serves_whom_nothing_else_concerns() -> None:
    assert outcome(resolve(snapshot_of(make_policy()), caller(), HEAD)) == ("v1", "DEFAULT", None)


def test_a_pin_beats_rules_and_default() -> None:
    snapshot = snapshot_of(make_policy(Rule(id="all", serve="v3")), {"acme": "v2"})

    assert outcome(resolve(snapshot, caller("acme"), HEAD)) == ("v2", "PINNED", None)
    assert outcome(resolve(snapshot, caller("globex"), HEAD)) == ("v3", "RULE:all", None)


def test_a_pin_changes_without_a_new_snapshot() -> None:
    pins: dict[str, str] = {}
    snapshot = snapshot_of(make_policy(), pins)

    before = resolve(snapshot, caller(), HEAD)
    pins["acme"] = "v2"
    pinned = resolve(snapshot, caller(), HEAD)
    del pins["acme"]
    after = resolve(snapshot, caller(), HEAD)

    assert [one.version for one in (before, pinned, after)] == ["v1", "v2", "v1"]


@pytest.mark.parametrize(
    ("pin", "reason", "refusal"),
    [
        ("v2", "DENIED:killed", Code.VERSION_UNAVAILABLE),
        ("v3", "DENIED:not-entitled", Code.VERSION_FORBIDDEN),
        ("v4", "DENIED:unknown", Code.VERSION_UNAVAILABLE),
    ],
)
def test_a_pin_to_a_version_that_may_not_serve_refuses(
    pin: str, reason: str, refusal: Code
) -> None:
    policy = make_policy(versions=limited(v3=NOT_FOR_ACME))
    snapshot = snapshot_of(policy, {"acme": pin}, {"v2": "bad weights at globex"})

    decision = resolve(snapshot, caller("acme"), HEAD)

    assert outcome(decision) == ("", reason, refusal)
    assert pin in decision.detail
    assert "globex" not in decision.detail


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (b"v1", ("v1", "EXPLICIT", None)),
        (b"v2", ("", "DENIED:killed", Code.VERSION_UNAVAILABLE)),
        (b"v3", ("", "DENIED:not-entitled", Code.VERSION_FORBIDDEN)),
        (b"v4", ("", "DENIED:unknown", Code.NO_SUCH_VERSION)),
        (b"", ("", "DENIED:unknown", Code.NO_SUCH_VERSION)),
        (b"\xff", ("", "DENIED:unknown", Code.NO_SUCH_VERSION)),
    ],
)
def test_an_explicit_version_is_served_or_refused_with_the_cause(
    asked: bytes, found: tuple[str, str, Code | None]
) -> None:
    policy = make_policy(versions=limited(v3=NOT_FOR_ACME))
    snapshot = snapshot_of(policy, {"acme": "v1"}, {"v2": "why"})

    decision = resolve(snapshot, caller("acme"), make_head(asked_version=asked))

    assert outcome(decision) == found


def test_a_caller_who_may_not_use_a_version_does_not_learn_that_it_is_killed() -> None:
    snapshot = snapshot_of(make_policy(versions=limited(v3=NOT_FOR_ACME)), kills={"v3": "why"})

    decision = resolve(snapshot, caller("acme"), make_head(asked_version=b"v3"))

    assert decision.refusal is Code.VERSION_FORBIDDEN


def test_a_killed_model_refuses_everybody() -> None:
    snapshot = snapshot_of(make_policy(), {"acme": "v1"}, {"": "why"})

    for head in (HEAD, make_head(asked_version=b"v1")):
        decision = resolve(snapshot, caller(), head)
        assert outcome(decision) == ("", "KILLED", Code.NO_ELIGIBLE_VERSION)


def test_a_killed_default_is_unavailable() -> None:
    decision = resolve(snapshot_of(make_policy(), kills={"v1": "why"}), caller(), HEAD)

    assert outcome(decision) == ("", "DENIED:killed", Code.NO_ELIGIBLE_VERSION)
    assert decision.rejected == (Rejected("v1", Cause.KILLED),)


@pytest.mark.parametrize(
    ("pins", "asked", "expected"),
    [
        ({}, b"v2", ("", "DENIED:not-ready", Code.VERSION_UNAVAILABLE)),
        ({"acme": "v2"}, None, ("", "DENIED:not-ready", Code.VERSION_UNAVAILABLE)),
        ({}, None, ("v1", "DEFAULT", None)),
    ],
)
def test_a_version_that_is_not_ready_fares_like_a_killed_one(
    pins: dict[str, str], asked: bytes | None, expected: tuple[str, str, Code | None]
) -> None:
    policy = make_policy(Rule(id="all", serve="v2"))
    snapshot = snapshot_of(policy, pins, unready=frozenset({"v2"}))

    decision = resolve(snapshot, caller("acme"), make_head(asked_version=asked))

    assert outcome(decision) == expected
    assert decision.rejected == (Rejected("v2", Cause.NOT_READY),)


def test_when_no_version_is_ready_nothing_serves() -> None:
    snapshot = snapshot_of(make_policy(CANARY), unready=frozenset({"v1", "v2", "v3"}))

    decision = resolve(snapshot, caller(), HEAD)

    assert outcome(decision) == ("", "DENIED:not-ready", Code.NO_ELIGIBLE_VERSION)


def test_of_a_killed_version_nobody_learns_that_it_is_not_ready() -> None:
    snapshot = snapshot_of(make_policy(), None, {"v1": "why"}, frozenset({"v1"}))

    assert resolve(snapshot, caller(), HEAD).rejected == (Rejected("v1", Cause.KILLED),)


def test_without_a_default_nothing_serves() -> None:
    decision = resolve(snapshot_of(make_policy(default=None)), caller(), HEAD)

    assert outcome(decision) == ("", "DENIED:no-default", Code.NO_ELIGIBLE_VERSION)


def test_a_caller_entitled_to_no_version_is_denied() -> None:
    policy = make_policy(versions={"v1": NOT_FOR_ACME}, default=None)

    decision = resolve(snapshot_of(policy), caller("acme"), HEAD)

    assert outcome(decision) == ("", "DENIED:not-entitled", Code.TENANT_DENIED)


def test_deny_wins_over_allow() -> None:
    both = Version(
        endpoints=("http://h:1",),
        allow=({"scope": "beta"},),
        deny=({"tenant": "acme"}, {"tenant": "initech"}),
    )
    snapshot = snapshot_of(make_policy(versions={"v1": both}))

    assert resolve(snapshot, caller("acme", scopes=("beta",)), HEAD).refusal is Code.TENANT_DENIED
    assert resolve(snapshot, caller("globex", scopes=("beta",)), HEAD).version == "v1"
    assert resolve(snapshot, caller("globex"), HEAD).refusal is Code.TENANT_DENIED


def test_a_rule_that_denies_ends_the_search_with_its_words() -> None:
    deny = Rule(id="no", when={"tenant": "acme"}, deny="moved to eu.example")
    snapshot = snapshot_of(make_policy(deny, CANARY))

    decision = resolve(snapshot, caller("acme"), HEAD)

    assert outcome(decision) == ("", "DENIED:rule", Code.TENANT_DENIED)
    assert decision.detail == "moved to eu.example"


def test_rules_are_asked_in_order_whoever_they_name() -> None:
    snapshot = snapshot_of(
        make_policy(
            Rule(id="beta", when={"header.x-beta": True}, serve="v3"),
            Rule(id="acme", when={"tenant": ("acme", "globex")}, serve="v2"),
            Rule(id="rest", serve="v1"),
        )
    )
    beta = make_head(headers=((b"X-Beta", b"true"),))

    assert resolve(snapshot, caller("acme"), beta).reason == "RULE:beta"
    assert resolve(snapshot, caller("acme"), HEAD).reason == "RULE:acme"
    assert resolve(snapshot, caller("initech"), HEAD).reason == "RULE:rest"


def test_a_rule_is_passed_over_when_its_version_may_not_serve() -> None:
    rules = (Rule(id="one", serve="v3"), Rule(id="two", when={"tenant": "acme"}, serve="v2"))
    policy = make_policy(*rules, versions=limited(v3=NOT_FOR_ACME))

    decision = resolve(snapshot_of(policy), caller("acme"), HEAD)

    assert outcome(decision) == ("v2", "RULE:two", None)
    assert decision.rejected == (Rejected("v3", Cause.NOT_ENTITLED),)


def test_a_split_is_sticky_by_its_key() -> None:
    snapshot = snapshot_of(make_policy(CANARY))

    for n in range(200):
        tenant = f"tenant-{n}"
        decision = resolve(snapshot, caller(tenant), HEAD)
        assert decision.reason == "SPLIT:canary"
        assert decision.version == choose({"v1": 90, "v2": 10}, "tumor/canary", tenant.encode())


def test_killing_an_arm_moves_only_its_callers() -> None:
    rule = Rule(id="abc", split=Split(arms={"v1": 1, "v2": 1, "v3": 1}, key="subject"))
    before = snapshot_of(make_policy(rule))
    after = snapshot_of(make_policy(rule), kills={"v2": "why"})

    moved = set()
    for n in range(300):
        identity = caller(subject=f"s{n}")
        was, now = (resolve(one, identity, HEAD).version for one in (before, after))
        assert now != "v2"
        assert was in {now, "v2"}
        moved.add((was, now))

    assert {("v2", "v1"), ("v2", "v3")} < moved


def test_a_request_is_drawn_anew_each_time() -> None:
    snapshot = snapshot_of(
        make_policy(Rule(id="r", split=Split(arms={"v1": 1, "v2": 1}, key="request")))
    )

    drawn = {
        resolve(snapshot, caller(), make_head(request_id=bytes([n]))).version for n in range(64)
    }

    assert drawn == {"v1", "v2"}


def test_a_caller_without_the_key_gets_otherwise_or_the_next_rule() -> None:
    split = Split(arms={"v2": 1}, key="subject")
    without = snapshot_of(make_policy(Rule(id="ab", split=split)))
    given_one = snapshot_of(make_policy(Rule(id="ab", split=replace(split, otherwise="v3"))))

    assert outcome(resolve(without, caller(), HEAD)) == ("v1", "DEFAULT", None)
    assert outcome(resolve(given_one, caller(), HEAD)) == ("v3", "RULE:ab", None)


def test_equal_decisions_are_one_object() -> None:
    policy = make_policy(CANARY, versions=limited(v3=NOT_FOR_ACME))
    snapshot = snapshot_of(policy, {"globex": "v2"}, {"v2": "why"})
    asked = [None, b"v1", b"v2", b"v3", b"nonsense"]

    for tenant in ("acme", "globex", "initech"):
        for version_asked in asked:
            head = make_head(asked_version=version_asked)
            first = resolve(snapshot, caller(tenant), head)
            assert resolve(snapshot, caller(tenant), head) is first


def test_what_is_remembered_of_tenants_is_bounded() -> None:
    snapshot = snapshot_of(make_policy())

    for n in range(40_000):
        resolve(snapshot, caller(str(n)), HEAD)

    assert len(snapshot.plans) <= 16_384


def test_entitlement_follows_the_claims_of_each_identity() -> None:
    gold = Version(endpoints=("http://h:1",), allow=({"claim.plan": "gold"},))
    snapshot = snapshot_of(make_policy(versions={"v1": gold}))

    for _ in range(3):
        assert resolve(snapshot, caller(claims={"plan": "gold"}), HEAD).version == "v1"
        assert resolve(snapshot, caller(claims={"plan": "tin"}), HEAD).version == ""


def test_entitlement_follows_each_request_of_an_identity() -> None:
    by_header = replace(version(), allow=({"header.x-beta": True},))
    snapshot = snapshot_of(make_policy(versions={"v1": by_header}))
    identity, beta = caller(), make_head(headers=((b"X-Beta", b"true"),))

    served = [resolve(snapshot, identity, head).version for head in (HEAD, beta, HEAD, beta)]

    assert served == ["", "v1", "", "v1"]


def test_whether_a_caller_is_entitled_to_nothing_is_found_for_each_caller() -> None:
    gold = replace(version(), allow=({"claim.plan": "gold"},))
    snapshot = snapshot_of(make_policy(versions={"v1": gold}, default=None))

    refused = [
        resolve(snapshot, caller(claims={"plan": plan}), HEAD).refusal for plan in ("tin", "gold")
    ]

    assert refused == [Code.TENANT_DENIED, Code.NO_ELIGIBLE_VERSION]


def test_a_refused_request_has_no_shadows() -> None:
    snapshot = snapshot_of(make_policy(default=None, shadows=(Shadow(version="v2"),)))
    decision = resolve(snapshot, caller(), HEAD)

    assert not shadows_for(snapshot, caller(), HEAD, decision).is_any


def test_a_shadow_keyed_by_tenant_takes_all_or_nothing_of_it() -> None:
    shadow = Shadow(version="v2", percent=50, key="tenant")
    snapshot = snapshot_of(make_policy(shadows=(shadow,)))

    for tenant in ("", *(f"t{n}" for n in range(50))):
        identity = caller(tenant)
        decision = resolve(snapshot, identity, HEAD)
        is_taken = bool(tenant) and sampled("tumor/v2", tenant.encode(), 50)
        for n in range(3):
            head = make_head(request_id=bytes([n]))
            wanted = (shadow,) if is_taken else ()
            assert due(snapshot, identity, head, decision) == wanted


def deployed(
    state: State = State.ACTIVE,
    fallback: str | None = None,
    accepts: tuple[Matcher, ...] | None = None,
) -> Version:
    return replace(version(), state=state, fallback=fallback, accepts=accepts)


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (State.REGISTERED, Cause.NOT_ACTIVE),
        (State.WARMING, Cause.NOT_ACTIVE),
        (State.RETIRED, Cause.RETIRED),
    ],
)
def test_a_version_that_is_not_in_service_serves_nobody(state: State, cause: Cause) -> None:
    policy = make_policy(Rule(id="all", serve="v2"), versions=limited(v2=deployed(state)))
    snapshot = snapshot_of(policy, {"acme": "v2"})
    refused = ("", f"DENIED:{cause.value}", Code.VERSION_UNAVAILABLE)

    assert outcome(resolve(snapshot, caller("acme"), HEAD)) == refused
    asked = make_head(asked_version=b"v2")
    assert outcome(resolve(snapshot, caller("globex"), asked)) == refused
    decision = resolve(snapshot, caller("globex"), HEAD)
    assert outcome(decision) == ("v1", "DEFAULT", None)
    assert decision.rejected == (Rejected("v2", cause),)


def test_a_draining_version_serves_pins_and_explicit_requests_alone() -> None:
    draining = limited(v2=deployed(State.DRAINING))
    split = Split(arms={"v2": 1}, key="subject", otherwise="v2")
    rules = (
        Rule(id="one", when={"tenant": "one"}, serve="v2"),
        Rule(id="two", when={"tenant": "two"}, split=split),
    )
    by_rule = snapshot_of(make_policy(*rules, versions=draining), {"acme": "v2"})
    by_default = snapshot_of(make_policy(versions=draining, default="v2"))
    by_fallback = snapshot_of(
        make_policy(versions=draining | {"v1": deployed(fallback="v2")}), kills={"v1": "why"}
    )

    assert resolve(by_rule, caller("acme"), HEAD).reason == "PINNED"
    assert resolve(by_rule, caller("globex"), make_head(asked_version=b"v2")).reason == "EXPLICIT"
    for identity in (caller("one"), caller("two"), caller("two", subject="s")):
        decision = resolve(by_rule, identity, HEAD)
        assert (decision.version, decision.reason) == ("v1", "DEFAULT")
        assert decision.rejected == (Rejected("v2", Cause.DRAINING),)
    for snapshot in (by_default, by_fallback):
        assert Rejected("v2", Cause.DRAINING) in resolve(snapshot, caller(), HEAD).rejected


def test_an_incompatible_version_is_out_in_every_step() -> None:
    new = deployed(accepts=({"header.x-schema": Operators(gte=2)}, {"app": "web"}))
    policy = make_policy(Rule(id="all", serve="v2"), versions=limited(v2=new))
    snapshot = snapshot_of(policy, {"acme": "v2"})
    fits = make_head(headers=((b"X-Schema", b"2"),))

    assert resolve(snapshot, caller("acme"), fits).reason == "PINNED"
    assert resolve(snapshot, caller("globex"), fits).reason == "RULE:all"
    assert resolve(snapshot, caller("globex", app="web"), HEAD).reason == "RULE:all"
    assert resolve(snapshot, caller("globex"), HEAD).rejected == (
        Rejected("v2", Cause.INCOMPATIBLE),
    )
    for identity, head in (
        (caller("acme"), HEAD),
        (caller("globex"), make_head(asked_version=b"v2")),
    ):
        refused = ("", "DENIED:incompatible", Code.VERSION_UNAVAILABLE)
        assert outcome(resolve(snapshot, identity, head)) == refused


def test_a_caller_who_may_not_use_a_version_learns_nothing_of_its_state() -> None:
    retired = replace(NOT_FOR_ACME, state=State.RETIRED, accepts=({"app": "none"},))
    snapshot = snapshot_of(make_policy(versions=limited(v3=retired)))

    decision = resolve(snapshot, caller("acme"), make_head(asked_version=b"v3"))

    assert decision.refusal is Code.VERSION_FORBIDDEN


def test_a_rule_may_be_for_a_segment() -> None:
    policy = Policy(
        model="tumor",
        versions=limited(),
        segments={"beta": Segment(include=("acme",), when=({"claim.plan": "gold"},))},
        rules=(Rule(id="beta", when={"segment": "beta"}, serve="v2"),),
        default="v1",
    )
    snapshot = snapshot_of(policy)

    for _ in range(2):
        assert resolve(snapshot, caller("acme"), HEAD).version == "v2"
        assert resolve(snapshot, caller("x", claims={"plan": "gold"}), HEAD).version == "v2"
        assert resolve(snapshot, caller("x"), HEAD).version == "v1"


def test_a_window_is_not_remembered_beyond_its_end() -> None:
    window = Operators(from_="1970-01-01T00:16:40Z", until="1970-01-01T00:33:20Z")
    night = replace(version(), deny=({"time": window},))
    by_rule = snapshot_of(make_policy(Rule(id="w", when={"time": window}, serve="v2")))
    by_access = snapshot_of(make_policy(versions={"v1": night, "v2": version()}))

    served = []
    for at_s in (0.0, 1000.0, 1999.0, 2000.0):
        head = make_head()
        head.at_s = at_s
        served.append(
            (resolve(by_rule, caller(), head).version, resolve(by_access, caller(), head).version)
        )

    assert served == [("v1", "v1"), ("v2", ""), ("v2", ""), ("v1", "v1")]


CHAIN = {
    "v1": deployed(fallback="v2"),
    "v2": deployed(fallback="v3"),
    "v3": deployed(fallback="v4"),
    "v4": deployed(fallback="v1"),
}


def test_when_nothing_serves_the_fallbacks_are_tried_in_order() -> None:
    snapshot = snapshot_of(make_policy(versions=CHAIN), kills={"v1": "why"}, unready={"v2"})

    decision = resolve(snapshot, caller(), HEAD)

    assert outcome(decision) == ("v3", "FALLBACK:killed", None)
    assert decision.rejected == (Rejected("v1", Cause.KILLED), Rejected("v2", Cause.NOT_READY))


def test_fallbacks_are_those_of_the_first_version_that_was_rejected() -> None:
    versions = limited(v1=deployed(fallback="v3"), v2=deployed(fallback="v4"), v4=version())
    rule = Rule(id="all", serve="v2")
    snapshot = snapshot_of(
        make_policy(rule, versions=versions), kills={"v1": "why"}, unready={"v2"}
    )

    assert outcome(resolve(snapshot, caller(), HEAD)) == ("v4", "FALLBACK:not-ready", None)


def test_a_default_that_may_serve_comes_before_any_fallback() -> None:
    versions = limited(v2=deployed(fallback="v3"))
    snapshot = snapshot_of(
        make_policy(Rule(id="all", serve="v2"), versions=versions), kills={"v2": "why"}
    )

    assert outcome(resolve(snapshot, caller(), HEAD)) == ("v1", "DEFAULT", None)


def test_fallbacks_that_come_round_end() -> None:
    snapshot = snapshot_of(make_policy(versions=CHAIN), unready=set(CHAIN))

    decision = resolve(snapshot, caller(), HEAD)

    assert outcome(decision) == ("", "DENIED:not-ready", Code.NO_ELIGIBLE_VERSION)
    assert [one.version for one in decision.rejected] == ["v1", "v2", "v3", "v4"]


def test_a_chain_of_fallbacks_without_end_is_not_compiled() -> None:
    versions = {f"v{n}": deployed(fallback=f"v{n + 1}") for n in range(1, 2_500)}

    with pytest.raises(ValueError, match="over 16 fallbacks in a row"):
        snapshot_of(make_policy(versions=versions | {"v2500": version()}))


def test_no_fallback_leads_to_a_version_that_the_caller_may_not_use() -> None:
    versions = {"v1": deployed(fallback="v2"), "v2": replace(NOT_FOR_ACME, fallback="v3")}
    snapshot = snapshot_of(make_policy(versions=limited(**versions)), kills={"v1": "why"})

    assert resolve(snapshot, caller("acme"), HEAD).version == "v3"
    assert resolve(snapshot, caller("globex"), HEAD).version == "v2"


def test_an_explicit_request_never_falls_back() -> None:
    policy = replace(make_policy(versions=CHAIN), on_unavailable=OnUnavailable.FALLBACK)
    snapshot = snapshot_of(policy, kills={"v1": "why"})

    decision = resolve(snapshot, caller(), make_head(asked_version=b"v1"))

    assert outcome(decision) == ("", "DENIED:killed", Code.VERSION_UNAVAILABLE)


@pytest.mark.parametrize(
    ("on_unavailable", "unready", "expected"),
    [
        (OnUnavailable.REFUSE, set(), ("", "DENIED:killed", Code.VERSION_UNAVAILABLE)),
        (OnUnavailable.FALLBACK, set(), ("v2", "FALLBACK:killed", None)),
        (OnUnavailable.FALLBACK, {"v2"}, ("v3", "FALLBACK:killed", None)),
        (
            OnUnavailable.FALLBACK,
            {"v2", "v3", "v4"},
            ("", "DENIED:killed", Code.VERSION_UNAVAILABLE),
        ),
    ],
)
def test_a_pin_to_an_unavailable_version_follows_on_unavailable(
    on_unavailable: OnUnavailable, unready: set[str], expected: tuple[str, str, Code | None]
) -> None:
    policy = replace(make_policy(versions=CHAIN), on_unavailable=on_unavailable)
    snapshot = snapshot_of(policy, {"acme": "v1"}, {"v1": "why"}, frozenset(unready))

    assert outcome(resolve(snapshot, caller("acme"), HEAD)) == expected


def test_a_version_that_failed_is_followed_by_the_next_of_its_chain_that_was_not_tried() -> None:
    snapshot = snapshot_of(make_policy(versions=CHAIN), kills={"v3": "why"})
    first = resolve(snapshot, caller(), HEAD)

    second = fallback_of(snapshot, caller(), HEAD, first, Cause.UPSTREAM_FAILED)
    assert second is not None
    third = fallback_of(snapshot, caller(), HEAD, second, Cause.OVERLOADED)
    assert third is not None
    last = fallback_of(snapshot, caller(), HEAD, third, Cause.UPSTREAM_TIMEOUT)

    assert outcome(first) == ("v1", "DEFAULT", None)
    assert outcome(second) == ("v2", "FALLBACK:upstream-failed", None)
    assert outcome(third) == ("v4", "FALLBACK:overloaded", None)
    assert third.rejected == (
        Rejected("v1", Cause.UPSTREAM_FAILED),
        Rejected("v2", Cause.OVERLOADED),
        Rejected("v3", Cause.KILLED),
    )
    assert last is None


@pytest.mark.parametrize(
    ("on_unavailable", "asked", "follower"),
    [
        (OnUnavailable.REFUSE, None, None),
        (OnUnavailable.FALLBACK, None, "v2"),
        (OnUnavailable.FALLBACK, b"v1", None),
    ],
)
def test_who_asked_for_a_version_that_failed_gets_no_other(
    on_unavailable: OnUnavailable, asked: bytes | None, follower: str | None
) -> None:
    policy = replace(make_policy(versions=CHAIN), on_unavailable=on_unavailable)
    snapshot, head = snapshot_of(policy, {"acme": "v1"}), make_head(asked_version=asked)
    decision = resolve(snapshot, caller("acme"), head)

    after = fallback_of(snapshot, caller("acme"), head, decision, Cause.UPSTREAM_FAILED)

    assert (after.version if after else None) == follower


def test_a_refusal_has_no_fallback() -> None:
    snapshot = snapshot_of(make_policy(Rule(id="no", deny="no"), versions=CHAIN))
    decision = resolve(snapshot, caller(), HEAD)

    assert fallback_of(snapshot, caller(), HEAD, decision, Cause.UPSTREAM_FAILED) is None


@pytest.mark.parametrize("state", State)
def test_a_shadow_may_be_in_any_state_but_retired(state: State) -> None:
    shadow = Shadow(version="v2")
    policy = make_policy(versions=limited(v2=deployed(state)), shadows=(shadow,))
    snapshot = snapshot_of(policy)
    decision = resolve(snapshot, caller(), HEAD)

    taken = due(snapshot, caller(), HEAD, decision)

    assert taken == (() if state is State.RETIRED else (shadow,))


def test_a_shadow_gets_no_request_that_its_version_does_not_accept() -> None:
    picky = deployed(accepts=({"header.x-schema": "2"},))
    policy = make_policy(versions=limited(v2=picky), shadows=(Shadow(version="v2"),))
    snapshot = snapshot_of(policy)
    decision = resolve(snapshot, caller(), HEAD)

    fits = make_head(headers=((b"X-Schema", b"2"),))

    assert not shadows_for(snapshot, caller(), HEAD, decision).is_any
    assert due(snapshot, caller(), fits, decision) == policy.shadows
