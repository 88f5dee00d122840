"""When a shadow test is another test: what it is a test of has a digest."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from sidecar.model.comparison import Comparison, Kept, Thresholds

if TYPE_CHECKING:
    from sidecar.model.policy import Policy, Shadow, Version

_DIGITS: Final = 12  # hexadecimal: of a million tests of one version no two are likely the same


def test_of(policy: Policy, shadow: Shadow) -> str:
    """Return 12 hex digits that stand for what a shadow of a policy tests, and on what.

    It changes with what decides which requests are copied and how, what answers them and how
    answers are compared. Labels, states and access do not change it, nor does what no pair depends
    on: `enabled`, `cost_per_day`, thresholds, and what is kept of pairs.
    """
    compare = shadow.compare
    control = "" if compare is None or compare.control is None else compare.control
    told = replace(
        shadow,
        version=_named(policy, shadow.version),
        enabled=True,
        cost_per_day=None,
        compare=None if compare is None else _plain(compare, _named(policy, control)),
    )
    parts = [told, *(_deployed(policy, ref) for ref in (shadow.version, control) if ref)]
    return sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:_DIGITS]


def _named(policy: Policy, ref: str) -> str:
    """Return the version of a name or label."""
    return ref if ref in policy.versions else policy.labels.get(ref, ref)


def _plain(compare: Comparison, control: str) -> Comparison:
    return replace(compare, control=control or None, thresholds=Thresholds(), keep=Kept())


def _deployed(policy: Policy, ref: str) -> tuple[object, ...]:
    """Return what of a version makes its answers."""
    version: Version = policy.versions[_named(policy, ref)]
    return sorted(version.endpoints), version.rewrite, version.lineage
