"""How much of one kind a document may hold, so that nothing has to look through more at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.model.policy import Operators
from sidecar.policy.match import options_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sized

    from sidecar.model.policy import Matcher, Policy, Version
    from sidecar.policy.problem import Finding, Findings, Path

MAX_NAMES: Final = 1_000  # versions, labels: a kill looks at all; arms of a split
MAX_SHADOWS: Final = 50  # one request may go to each: 0.2 ms of the loop a copy
MAX_ENDPOINTS: Final = 1_000  # of one version
MAX_MATCHERS: Final = 1_000  # of one list: a request may ask each
MAX_CONDITIONS: Final = 100  # of one matcher
MAX_VALUES: Final = 10_000  # that the conditions of one matcher list: a millisecond to compile
MAX_NETWORKS: Final = 5_000  # that they list: each is parsed, but in steps
MAX_HEADERS: Final = 100  # that a version or a shadow sets: more than most servers take
MAX_STATUSES: Final = 500  # of health: there are no more that differ


def excesses(policy: Policy) -> Findings:
    """Yield what a policy has too many of."""
    yield from _over(policy.versions, MAX_NAMES, ("versions",), "versions")
    yield from _over(policy.labels, MAX_NAMES, ("labels",), "labels")
    yield from _over(policy.shadows, MAX_SHADOWS, ("shadows",), "shadows")
    yield from _of_matchers(policy.allow or (), ("allow",))
    yield from _of_matchers(policy.deny, ("deny",))
    for name, version in policy.versions.items():
        yield from _of_version(version, ("versions", name))
        yield None
    for name, segment in policy.segments.items():
        yield from _of_matchers(segment.when, ("segments", name, "when"))
        yield None
    for n, shadow in enumerate(policy.shadows):
        yield from _of_matchers(shadow.when, ("shadows", n, "when"))
        yield from _over(shadow.headers, MAX_HEADERS, ("shadows", n, "headers"), "headers")
        yield None
    for n, rule in enumerate(policy.rules):
        yield from matcher_excesses(rule.when, ("rules", n, "when"))
        if rule.split is not None:
            at: Path = ("rules", n, "split", "arms")
            yield from _over(rule.split.arms, MAX_NAMES, at, "arms")
        yield None


def matcher_excesses(matcher: Matcher, at: Path) -> Iterator[Finding]:
    """Yield what a matcher has too many of."""
    if len(matcher) > MAX_CONDITIONS:
        yield from _over(matcher, MAX_CONDITIONS, at, "conditions")
        return  # to count what so many list takes long
    values, networks = 0, 0
    for condition in matcher.values():
        if isinstance(condition, Operators):
            values += len(condition.in_ or ()) + len(condition.not_in or ())
            networks += len(condition.cidr or ())
        else:
            values += len(options_of(condition))
    if values > MAX_VALUES:
        yield at, f"lists {values} values: {MAX_VALUES} are the most; a segment includes any number"
    if networks > MAX_NETWORKS:
        yield at, f"lists {networks} networks: {MAX_NETWORKS} are the most"


def _of_version(version: Version, at: Path) -> Findings:
    yield from _over(version.endpoints, MAX_ENDPOINTS, (*at, "endpoints"), "endpoints")
    lists = {"allow": version.allow, "deny": version.deny, "accepts": version.accepts}
    for member, matchers in lists.items():
        yield from _of_matchers(matchers or (), (*at, member))
    if version.rewrite is not None:
        here: Path = (*at, "rewrite", "headers")
        yield from _over(version.rewrite.headers, MAX_HEADERS, here, "headers")
    if version.health is not None:
        here = (*at, "health", "status")
        yield from _over(version.health.status, MAX_STATUSES, here, "statuses")


def _of_matchers(matchers: tuple[Matcher, ...], at: Path) -> Findings:
    yield from _over(matchers, MAX_MATCHERS, at, "matchers")
    for n, matcher in enumerate(matchers):
        yield from matcher_excesses(matcher, (*at, n))
        yield None


def _over(held: Sized, most: int, at: Path, what: str) -> Iterator[Finding]:
    if len(held) > most:
        yield at, f"has {len(held)} {what}: {most} are the most"
