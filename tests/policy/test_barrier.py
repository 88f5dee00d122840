"""Who is told by `rmv access` to be kept out is who is kept out, and the first bar is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from msgspec.structs import replace

from sidecar.model.decision import Cause
from sidecar.model.policy import DefaultAccess, Matcher, Policy, Version
from sidecar.policy.barrier import Bar, Barriers
from sidecar.policy.snapshot import compile_snapshot
from tests.policy.examples import caller, make_head
from tests.policy.policies import ENDPOINTS, callers, heads, policies

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.request import RequestHead

ACME: Matcher = {"tenant": "acme"}
OTHERS: Matcher = {"tenant": "globex"}
Matchers = tuple[Matcher, ...]


@given(policies(), callers(), heads())
def test_a_bar_is_met_by_whom_the_sidecar_refuses_and_nobody_else(
    policy: Policy, identity: Identity, head: RequestHead
) -> None:
    barriers = Barriers(policy)
    snapshot = compile_snapshot(policy, {}, {})
    if identity.grants is not None:
        snapshot = snapshot.granting(identity.grants)

    for name, version in policy.versions.items():
        candidate = snapshot.named(name)
        assert candidate is not None
        is_refused = candidate.cause(identity, head) is Cause.NOT_ENTITLED
        barrier = barriers.met(name, identity, head)
        assert (barrier is not None) is is_refused
        if barrier is None:
            lets_in = policy.allow, version.allow, identity.grants
            told = barriers.passed(name, identity, head)
            assert len(told) == sum(one is not None for one in lets_in)


@pytest.mark.parametrize(
    ("of_model", "of_version", "default", "grants", "bar"),
    [
        ((None, (ACME,)), ((ACME,), (ACME,)), "deny", (), Bar.MODEL_DENY),
        (((OTHERS,), ()), ((OTHERS,), (OTHERS, ACME)), "deny", (), Bar.VERSION_DENY),
        ((None, ()), (None, ()), "deny", (), Bar.DEFAULT_ACCESS),
        (((OTHERS,), ()), ((OTHERS,), ()), "deny", (), Bar.MODEL_ALLOW),
        (((ACME,), ()), ((OTHERS,), ()), "deny", (), Bar.VERSION_ALLOW),
        (((ACME,), ()), (None, ()), "deny", (), Bar.GRANT),
        ((None, ()), ((ACME,), ()), "deny", ("v1",), None),
        ((None, ()), (None, ()), "allow", None, None),
    ],
)
def test_of_several_bars_the_first_is_told(
    of_model: tuple[Matchers | None, Matchers],
    of_version: tuple[Matchers | None, Matchers],
    default: str,
    grants: tuple[str, ...] | None,
    bar: Bar | None,
) -> None:
    policy = Policy(
        model="tumor",
        versions={"v1": Version(ENDPOINTS, allow=of_version[0], deny=of_version[1])},
        default_access=DefaultAccess(default),
        allow=of_model[0],
        deny=of_model[1],
    )
    told = None if grants is None else {"tumor": grants}

    barrier = Barriers(policy).met("v1", replace(caller("acme"), grants=told), make_head(b"/"))

    assert (None if barrier is None else barrier.by) is bar
    if barrier is not None:
        number = {Bar.MODEL_DENY: 0, Bar.VERSION_DENY: 1}.get(barrier.by)
        assert barrier.number == number
