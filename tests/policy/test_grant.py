"""A caller gets no version that its token does not grant, whatever leads there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from sidecar.errors import Code
from sidecar.model.decision import Cause, Rejected
from sidecar.model.policy import (
    DefaultAccess,
    OnUnavailable,
    Policy,
    Rule,
    Shadow,
    Split,
    State,
)
from sidecar.policy import grant, snapshot
from sidecar.policy.resolver import fallback_of, resolve
from sidecar.policy.snapshot import compile_snapshot
from tests.policy.examples import caller, due, make_head, make_policy, version

if TYPE_CHECKING:
    from sidecar.model.identity import Identity

HEAD = make_head()
RELEASES = {name: version() for name in ("v1", "v2.0.9", "v2.1.0", "v3.0.0-rc.1", "blue")}
LABELLED = replace(make_policy(versions=RELEASES), labels={"canary": "v2.1.0", "stable": "v1"})


def granted(*texts: str, tenant: str = "acme", model: str = "tumor") -> Identity:
    return replace(caller(tenant), grants={model: texts})


@pytest.mark.parametrize(
    ("texts", "meant"),
    [
        ((), set()),
        (("v1", "gone"), {"v1"}),
        ((">=2 <4",), {"v2.0.9", "v2.1.0"}),
        (("~2.1", "^1"), {"v1", "v2.1.0"}),
        ((">=3.0.0-rc.1",), {"v3.0.0-rc.1"}),
        (("label:canary", "label:gone", "label:v1"), {"v2.1.0"}),
        (("canary",), set()),
        (("2.1", "v2"), set()),
        (("=2.1",), {"v2.1.0"}),
        (("blue", "*"), set(RELEASES)),
        (("* || 1",), {"v1", "v2.0.9", "v2.1.0"}),
    ],
)
def test_grants_mean_names_labels_and_ranges_of_versions(
    texts: tuple[str, ...], meant: set[str]
) -> None:
    assert grant.granted(texts, LABELLED) == meant


def test_a_model_that_is_named_has_no_grants_but_its_own() -> None:
    grants = {"tumor": ("v1",), "*": ("v2",), "fraud": ()}

    assert [grant.of_model(grants, one) for one in ("tumor", "fraud", "spam")] == [
        ("v1",),
        (),
        ("v2",),
    ]
    assert grant.of_model({}, "tumor") == ()


@pytest.mark.parametrize(
    "text", ["", " ", ">=", "label:", "label:a b", "v1 or v2", "a" * 65, "x\n", "é", ">1 " * 100]
)
def test_grants_that_cannot_be_read_grant_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        grant.read(("v1", text))

    assert grant.granted(("v1", text), LABELLED) == frozenset()


def test_ranges_together_are_no_longer_than_one_may_be() -> None:
    grant.read((">=1",) * 50)

    with pytest.raises(ValueError, match="at most 256 characters"):
        grant.read((">=1",) * 60)


RULES = (
    Rule(id="beta", when={"header.x-beta": True}, serve="v2"),
    Rule(id="canary", split=Split(arms={"v1": 1, "v2": 1000})),
)
MODEL = replace(
    make_policy(*RULES, default="v3"),
    versions={
        "v1": version(),
        "v2": replace(version(), fallback="v3"),
        "v3": replace(version(), fallback="v1"),
    },
    labels={"stable": "v1"},
)


def decided(
    policy: Policy, identity: Identity, pin: str = "", asked: bytes | None = None, **kills: str
) -> tuple[str, str, Code | None]:
    made = compile_snapshot(policy, {"acme": pin} if pin else {}, kills)
    found = resolve(made, identity, make_head(asked_version=asked))
    return found.version, found.reason, found.refusal


def test_no_step_leaves_what_a_token_grants() -> None:
    only = granted("label:stable")

    assert decided(MODEL, only) == ("v1", "SPLIT:canary", None)
    assert decided(MODEL, only, asked=b"v1") == ("v1", "EXPLICIT", None)
    assert decided(MODEL, only, asked=b"stable") == ("v1", "EXPLICIT", None)
    refused = ("", "DENIED:not-entitled", Code.VERSION_FORBIDDEN)
    assert decided(MODEL, only, asked=b"v2") == refused
    assert decided(MODEL, only, pin="v2") == refused
    falling = replace(MODEL, on_unavailable=OnUnavailable.FALLBACK)
    assert decided(falling, only, pin="v2") == ("v1", "FALLBACK:not-entitled", None)
    assert decided(falling, granted("v2"), pin="v2", v2="bad") == (
        "",
        "DENIED:killed",
        Code.VERSION_UNAVAILABLE,
    )
    assert decided(MODEL, granted("v2"), v2="bad") == (
        "",
        "DENIED:killed",
        Code.NO_ELIGIBLE_VERSION,
    )
    assert decided(MODEL, granted("v9")) == ("", "DENIED:not-entitled", Code.TENANT_DENIED)
    assert decided(MODEL, granted("*", model="fraud"), asked=b"v1") == refused


def test_a_version_that_failed_is_followed_by_one_that_is_granted_alone() -> None:
    made = compile_snapshot(MODEL, {}, {})
    identity = granted("v2", "v1")
    first = resolve(made, granted("v2", "v1"), HEAD)

    after = fallback_of(made, identity, HEAD, first, Cause.UPSTREAM_FAILED)

    assert first.version == "v2"
    assert after is not None
    assert (after.version, after.reason) == ("v1", "FALLBACK:upstream-failed")
    assert Rejected("v3", Cause.NOT_ENTITLED) in after.rejected
    assert fallback_of(made, granted("v2"), HEAD, first, Cause.UPSTREAM_FAILED) is None


def test_a_label_that_moves_takes_its_grants_with_it() -> None:
    moved = replace(MODEL, labels={"stable": "v3"})
    identity = granted("label:stable")

    assert decided(MODEL, identity, asked=b"v1")[0] == "v1"
    assert decided(moved, identity, asked=b"v1")[0] == ""
    assert decided(moved, identity, asked=b"v3")[0] == "v3"


def test_two_tokens_of_one_tenant_get_each_its_own() -> None:
    made = compile_snapshot(replace(MODEL, rules=()), {}, {})
    callers = (caller("acme"), granted("v1"), granted("v2"), granted("v3"), granted())

    for _ in range(3):
        served = [resolve(made, one, HEAD).version for one in callers]
        assert served == ["v3", "v1", "", "v3", ""]


def test_grants_open_nothing_that_the_policy_closes() -> None:
    closed = replace(MODEL, deny=({"tenant": "acme"},))

    assert decided(closed, granted("*"), asked=b"v1")[2] is Code.VERSION_FORBIDDEN


def test_of_a_version_that_is_not_granted_nobody_learns_the_state() -> None:
    retired = replace(MODEL.versions["v2"], state=State.RETIRED, accepts=({"app": "none"},))
    policy = replace(MODEL, versions=MODEL.versions | {"v2": retired}, rules=())

    refused = decided(policy, granted("v1"), asked=b"v2", v2="bad")

    assert refused == ("", "DENIED:not-entitled", Code.VERSION_FORBIDDEN)


def test_a_shadow_is_copied_to_whatever_the_token_grants() -> None:
    """Its answers reach nobody, and grants are about answers."""
    policy = replace(MODEL, rules=(), shadows=(Shadow(version="v2"),), default="v1")
    made = compile_snapshot(policy, {}, {})
    decision = resolve(made, granted("v1"), HEAD)

    assert decision.version == "v1"
    assert due(made, granted("v1"), HEAD, decision) == policy.shadows


def test_equal_decisions_are_one_object_whatever_tokens_grant() -> None:
    made = compile_snapshot(MODEL, {}, {})

    asked = make_head(asked_version=b"v1")
    assert resolve(made, granted("v1"), asked) is resolve(made, granted("v1", "v2"), asked)
    assert resolve(made, granted("*"), asked) is resolve(made, caller(), asked)


def test_what_is_remembered_of_grants_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_VIEWED", 30)
    monkeypatch.setattr(snapshot, "MAX_PLANS", 100)
    policy = make_policy(versions={f"v{n}": version() for n in range(10)}, default="v0")
    made = compile_snapshot(policy, {}, {})

    for n in range(300):
        identity = granted(f"v{n % 10}", f"gone-{n}", tenant=f"t{n}")
        assert resolve(made, identity, HEAD).version == ("v0" if n % 10 == 0 else "")
        assert len(made.views) <= 3
        assert sum(len(one.plans) for one in (made, *made.views.values())) <= 100


ALLOWED = ({"scope": "beta"},)


@pytest.mark.parametrize(
    ("policy", "scopes", "open_to"),
    [
        (make_policy(), (), {"v1", "v2", "v3"}),
        (replace(make_policy(), default_access=DefaultAccess.DENY), (), set()),
        (replace(make_policy(), allow=ALLOWED), (), set()),
        (
            replace(make_policy(), allow=ALLOWED, default_access=DefaultAccess.DENY),
            ("beta",),
            {"v1", "v2", "v3"},
        ),
        (replace(make_policy(), allow=ALLOWED, deny=({"tenant": "acme"},)), ("beta",), set()),
    ],
)
def test_a_model_is_open_to_whom_it_and_its_version_let_in(
    policy: Policy, scopes: tuple[str, ...], open_to: set[str]
) -> None:
    made = compile_snapshot(policy, {}, {})
    identity = caller("acme", scopes=scopes)

    found = {
        name
        for name in policy.versions
        if resolve(made, identity, make_head(asked_version=name.encode())).version
    }

    assert found == open_to


def test_with_deny_by_default_a_version_is_open_to_its_own_allow_alone() -> None:
    one = replace(version(), allow=ALLOWED)
    policy = replace(
        make_policy(versions={"v1": version(), "v2": one}), default_access=DefaultAccess.DENY
    )

    assert decided(policy, caller(scopes=("beta",)), asked=b"v2")[0] == "v2"
    assert decided(policy, caller(scopes=("beta",)), asked=b"v1")[0] == ""
    assert decided(policy, caller(), asked=b"v2")[0] == ""
