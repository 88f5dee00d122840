"""The shadow tests that a store knows of: what the policies ask for, and what sidecars counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import NamedTuple

from sidecar.cli import output
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError, policy_of, version_named
from sidecar.model.policy import Policy, Shadow
from sidecar.model.shadow import Tally
from sidecar.policy.problem import PolicyError
from sidecar.shadow.naming import test_of
from sidecar.shadow.tally import merge
from sidecar.store.base import Store


class ShadowTest(NamedTuple):
    """One shadow test: what the fleet counted, and what the policy says of its shadow now.

    `shadow` is None where the policy has no such shadow any more; `is_current` says whether the
    test is of the shadow as it is now. Without copies so far `tally` is empty.
    """

    tally: Tally
    shadow: Shadow | None
    is_current: bool
    currency: str

    @property
    def name(self) -> str:
        """The shadow as it is named on the command line."""
        return f"{self.tally.model}@{self.tally.version}"


async def shadow_tests(store: Store, model: str | None = None) -> list[ShadowTest]:
    """Return the tests of a model or of all, by model and version, the current ones first.

    What cannot be read is told on stderr.
    """
    tallied = await store.tallies(model)
    for fault in tallied.faults:
        output.warn(fault)
    models = {one.model for one in tallied.tallies}
    models |= {model} if model is not None else set(await store.models())
    policies = {name: await _policy(store, name) for name in models}
    counted = [_counted(tally, policies[tally.model]) for tally in _merged(tallied.tallies)]
    known = {(one.tally.model, one.tally.version) for one in counted if one.is_current}
    fresh = [
        test
        for policy in policies.values()
        if policy is not None
        for test in _fresh(policy)
        if (test.tally.model, test.tally.version) not in known
    ]
    return sorted([*counted, *fresh], key=_order)


async def shadow_test_named(store: Store, model: str, named: str, test: str | None) -> ShadowTest:
    """Return the current test of a version or label, or the one of this id.

    Without a current one it is the one that was counted last. Raises NotFoundError.
    """
    version = named
    policy = await _policy(store, model)
    if policy is not None and (named in policy.versions or named in policy.labels):
        version = version_named(policy, named)
    found = [one for one in await shadow_tests(store, model) if one.tally.version == version]
    fitting = [one for one in found if test in {None, one.tally.test}]
    if fitting:
        return fitting[0]
    if found:
        ids = ", ".join(one.tally.test for one in found)
        raise NotFoundError(f"{model}@{version} has no test {test}; it has {ids}")
    if policy is None:
        await policy_of(store, model)  # raises with what to do
    error = NotFoundError(f"{model}@{version} is no shadow, and no counts of one are stored")
    raise advised(error, f"`rmv get {model}` shows the policy; docs/shadow.md says how to begin.")


def _merged(tallies: Iterable[Tally]) -> Iterable[Tally]:
    ordered = sorted(tallies, key=_key)
    return [merge(same) for _, same in groupby(ordered, key=_key)]


def _key(tally: Tally) -> tuple[str, str, str]:
    return tally.model, tally.version, tally.test


def _order(one: ShadowTest) -> tuple[str, str, bool, float]:
    return one.tally.model, one.tally.version, not one.is_current, -one.tally.until_s


def _counted(tally: Tally, policy: Policy | None) -> ShadowTest:
    if policy is None:
        return ShadowTest(tally, None, is_current=False, currency="")
    shadow = _shadows(policy).get(tally.version)
    is_current = shadow is not None and test_of(policy, shadow) == tally.test
    return ShadowTest(
        tally, shadow if is_current else None, is_current, _currency(policy, tally.version)
    )


def _fresh(policy: Policy) -> Iterable[ShadowTest]:
    """Return the tests that a policy asks for, nothing counted."""
    for version, shadow in _shadows(policy).items():
        tally = Tally(policy.model, version, test_of(policy, shadow), 0.0, workers=0)
        yield ShadowTest(tally, shadow, is_current=True, currency=_currency(policy, version))


def _shadows(policy: Policy) -> Mapping[str, Shadow]:
    return {policy.labels.get(one.version, one.version): one for one in policy.shadows}


def _currency(policy: Policy, version: str) -> str:
    deployed = policy.versions.get(version)
    return deployed.price.currency if deployed is not None and deployed.price is not None else ""


async def _policy(store: Store, model: str) -> Policy | None:
    try:
        stored = await store.get_policy(model)
    except PolicyError as error:
        output.warn(f"{model}: the stored document is not valid: {error.problems[0]}")
        return None
    return None if stored is None or stored.policy.deleted else stored.policy
