"""What a policy may not mean: every problem at once, each with its path."""

from __future__ import annotations

import re
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from sidecar.model.identity import MAX_TENANT_CHARS, is_tenant
from sidecar.model.policy import Operators, Policy, State
from sidecar.policy import reach, size
from sidecar.policy.address import ANYWHERE
from sidecar.policy.circle import circles
from sidecar.policy.compiled import MAX_FALLBACKS
from sidecar.policy.condition import header_faults, matcher_faults
from sidecar.policy.deployment import access_faults, version_faults
from sidecar.policy.oddity import oddities
from sidecar.policy.partial import Names, Unread
from sidecar.policy.problem import MAX_PROBLEMS, gather
from sidecar.policy.segment import MAX_DEPTH, references
from sidecar.policy.shadowing import shadow_faults
from sidecar.policy.shape import NAME_RULE, suggestion
from sidecar.policy.steps import Steps, finish

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sidecar.model.policy import Rule, Segment, Shadow, Split, Version
    from sidecar.policy.address import AllowList
    from sidecar.policy.partial import Partial
    from sidecar.policy.problem import Finding, Findings, Path, Problem

_NONE = Unread()

KEYS = ("tenant", "subject", "app", "request")

MAX_SHOWN = 10  # names in one reason

_NO_TENANT = (
    "no caller can be of this tenant: one is printable ASCII without outer blanks, "
    f"at most {MAX_TENANT_CHARS} characters"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def validate(
    policy: Policy, source: str = "", allowed: AllowList = ANYWHERE
) -> tuple[Problem, ...]:
    """Return everything that keeps a policy from being used; empty when it is good.

    `allowed` is where this sidecar's settings let endpoints be.
    """
    return finish(validating(policy, source, allowed))


def validating(policy: Policy, source: str, allowed: AllowList) -> Steps[tuple[Problem, ...]]:
    """Do what `validate` does, in steps."""
    found = yield from _first(_findings(_Scope(policy, allowed)), MAX_PROBLEMS + 1)
    return gather(found, source)


def judging(partial: Partial, allowed: AllowList, most: int) -> Steps[list[Finding]]:
    """Return what keeps the part of a document from being used that decodes, `most` of it."""
    scope = _Scope(partial.sound.policy, allowed, partial.unread)
    found = chain(
        partial.sound.placed(_findings(scope)),
        partial.mended.placed(_by_themselves(partial.mended.policy, scope)),
    )
    return (yield from _first(partial.without_follow_ups(found), most))


def _first(findings: Findings, most: int) -> Steps[list[Finding]]:
    found: list[Finding] = []
    for one in findings if most > 0 else ():
        if one is None:
            yield
            continue
        found.append(one)
        if len(found) >= most:
            break
    return found


def warnings(policy: Policy, source: str = "", now_s: float = float("-inf")) -> tuple[Problem, ...]:
    """Return what a good policy may hardly mean at a time, in epoch seconds."""
    return gather(_oddities(policy, now_s), source)


class _Scope(NamedTuple):
    """What the names in a part mean; those that are `unread` nobody knows."""

    policy: Policy
    allowed: AllowList = ANYWHERE
    unread: Unread = _NONE

    @property
    def segments(self) -> Collection[str]:
        """The segments that there are, or may be."""
        known = self.policy.segments
        return known if self.unread is _NONE else Names(known, self.unread.segments)


def _findings(scope: _Scope) -> Findings:
    policy, is_over = scope.policy, False
    for excess in size.excesses(policy):
        is_over = is_over or excess is not None
        yield excess
    if is_over:
        return  # to look through all that is too much may take long
    yield from _name(policy.model, ("model",))
    if policy.deleted:
        yield from _deleted(policy)
    elif not policy.versions:
        yield ("versions",), "a policy needs at least one version"
    yield from access_faults(policy, (), scope.segments)
    for name, version in policy.versions.items():
        yield from _version(name, version, scope)
    yield from _fallbacks(policy)
    yield from _labels(scope)
    for name, segment in policy.segments.items():
        yield from _segment(name, segment, scope)
    yield from _segment_references(policy)
    yield from _rules(scope)
    yield from _default(scope)
    yield from _shadows(scope)


def _by_themselves(parts: Policy, scope: _Scope) -> Findings:
    """Judge parts that are not in the scope, without what they have to do with others."""
    is_over = False
    for excess in size.excesses(parts):
        is_over = is_over or excess is not None
        yield excess
    if is_over:
        return
    yield from access_faults(parts, (), scope.segments)
    for name, version in parts.versions.items():
        yield from _version(name, version, scope)
    for name, segment in parts.segments.items():
        yield from _segment(name, segment, scope)
    for n, rule in enumerate(parts.rules):
        yield from _rule(rule, scope, ("rules", n))
    for n, shadow in enumerate(parts.shadows):
        yield from _shadow(shadow, scope, ("shadows", n))


def _version(name: str, version: Version, scope: _Scope) -> Findings:
    at: Path = ("versions", name)
    yield from _name(name, at)
    yield from version_faults(version, at, scope.segments, scope.allowed)
    if version.fallback is not None:
        yield from _ref(version.fallback, scope, (*at, "fallback"))
    yield None


def _deleted(policy: Policy) -> Iterator[Finding]:
    heading = Policy(
        policy.model,
        versions={},
        revision=policy.revision,
        actor=policy.actor,
        comment=policy.comment,
        applied=policy.applied,
        deleted=True,
        signature=policy.signature,
    )
    if policy != heading:
        yield ("deleted",), "a model that is deleted has no versions, and nothing else"


def _name(name: str, at: Path) -> Iterator[Finding]:
    if not _NAME.fullmatch(name):
        yield at, f'"{name[:80]}" is not a name: {NAME_RULE}'


def _ref(ref: str, scope: _Scope, at: Path) -> Iterator[Finding]:
    """Judge a place that names a version, by its own name or by a label."""
    policy = scope.policy
    name = reach.named(policy, ref)
    if name is not None and policy.versions[name].state is State.RETIRED:
        meant = f'"{ref}"' if ref == name else f'"{ref}" ({name})'
        yield at, f"{meant} is retired: name another version here, or none"
    elif name is None and ref not in policy.labels and ref not in scope.unread.versions:
        known = (*policy.versions, *policy.labels)
        yield at, f'unknown version "{ref[:80]}"' + suggestion(ref, known)


def _fallbacks(policy: Policy) -> Findings:
    def after(name: str) -> list[str]:
        fallback = policy.versions[name].fallback
        found = None if fallback is None else reach.named(policy, fallback)
        return [] if found is None else [found]

    found = 0
    for circle in circles(policy.versions, after):
        if circle is None:
            yield None
            continue
        found += 1
        yield ("versions", circle[0], "fallback"), f"falls back in a circle: {_arrows(circle)}"

    for name in () if found else policy.versions:
        way = list(islice(reach.fallbacks(policy, name), MAX_FALLBACKS + 3))
        if len(way) == MAX_FALLBACKS + 2:  # those before it are as wrong, and by this one
            yield (
                ("versions", name, "fallback"),
                f"over {MAX_FALLBACKS} fallbacks in a row: {_arrows(way)}",
            )
        yield None


def _arrows(circle: list[str]) -> str:
    if len(circle) > MAX_SHOWN:
        circle = [*circle[: MAX_SHOWN - 2], "...", circle[-1]]
    return " -> ".join(circle)


def _labels(scope: _Scope) -> Iterator[Finding]:
    policy = scope.policy
    for label, name in policy.labels.items():
        at: Path = ("labels", label)
        yield from _name(label, at)
        if label in policy.versions:
            yield at, f'"{label}" is a version; a label needs a name of its own'
        if name in policy.labels and name not in policy.versions:
            yield at, f'a label names a version, and "{name}" is a label'
        elif name not in policy.versions and name not in scope.unread.versions:
            yield at, f'unknown version "{name[:80]}"' + suggestion(name, policy.versions)


def _segment(name: str, segment: Segment, scope: _Scope) -> Findings:
    at: Path = ("segments", name)
    yield from _name(name, at)
    if not segment.include and not segment.when and not segment.claimed:
        yield at, "nobody is in it: give include, when or claimed"
    for member, tenants in (("include", segment.include), ("exclude", segment.exclude)):
        for n, tenant in enumerate(tenants):
            if not is_tenant(tenant):
                yield (*at, member, n), _NO_TENANT
            yield None
    for n, matcher in enumerate(segment.when):
        yield from matcher_faults(matcher, (*at, "when", n), scope.segments)
        yield None
    yield None


def _segment_references(policy: Policy) -> Findings:
    after: dict[str, list[str]] = {}
    for name, segment in policy.segments.items():
        after[name] = _named_in(name, segment, policy)
        yield None
    found = 0
    for circle in circles(after, after.__getitem__):
        if circle is None:
            yield None
            continue
        found += 1
        yield ("segments", circle[0]), f"is made of itself: {_arrows(circle)}"
    if not found:
        yield from _too_deep(after)
    while after:
        after.popitem()
        yield None


def _too_deep(after: dict[str, list[str]]) -> Findings:
    """Judge segments by what each names, where none leads back to itself."""
    known: set[str] = set()
    for _ in range(MAX_DEPTH):
        if len(known) == len(after):
            return
        ready = []
        for name, named in after.items():
            if known.issuperset(named):
                ready.append(name)
            yield None
        known.update(ready)
        yield None
    for name, named in after.items():
        if name not in known and known.issuperset(named):  # those above it are as wrong, and by it
            yield ("segments", name), f"names segments that name others, over {MAX_DEPTH} deep"
        yield None


def _named_in(name: str, segment: Segment, policy: Policy) -> list[str]:
    """Return the segments that a segment refers to, each once."""
    conditions = (matcher.get("segment") for matcher in segment.when)
    if any(isinstance(one, Operators) and one.exists is not None for one in conditions):
        return [name]  # it asks for all, and so for itself
    return sorted(references(segment, policy.segments) & policy.segments.keys())


def _rules(scope: _Scope) -> Findings:
    policy, seen = scope.policy, set[str]()
    answered = reach.Answered()
    reached = reach.judged(policy, answered)
    for n, (rule, unreached) in enumerate(zip(policy.rules, reached, strict=True)):
        at: Path = ("rules", n)
        if rule.id in seen:
            yield (*at, "id"), f'the rule id "{rule.id}" is given twice'
        seen.add(rule.id)
        if unreached:
            yield at, unreached
        yield None
        yield from _rule(rule, scope, at)
    yield from answered.forgetting()


def _rule(rule: Rule, scope: _Scope, at: Path) -> Findings:
    yield from _name(rule.id, (*at, "id"))
    yield from matcher_faults(rule.when, (*at, "when"), scope.segments)
    yield from _outcome(rule, scope, at)
    yield None


def _outcome(rule: Rule, scope: _Scope, at: Path) -> Iterator[Finding]:
    given = [name for name in ("serve", "split", "deny") if getattr(rule, name) is not None]
    if len(given) != 1:
        count = f"has {' and '.join(given)}" if given else "has none of them"
        yield at, f"a rule has exactly one of serve, split and deny; this one {count}"
    if rule.serve is not None:
        yield from _ref(rule.serve, scope, (*at, "serve"))
    if rule.deny is not None and not rule.deny.strip():
        yield (*at, "deny"), "deny needs words: they are what the caller reads"
    if rule.split is not None:
        yield from _split(rule.split, scope, (*at, "split"))


def _split(split: Split, scope: _Scope, at: Path) -> Iterator[Finding]:
    policy = scope.policy
    if not split.arms:
        yield (*at, "arms"), "a split needs at least one arm"
    elif not any(split.arms.values()):
        yield (*at, "arms"), "the weights sum to zero"
    else:
        bars = [reach.bar(policy, ref) for ref, weight in split.arms.items() if weight]
        if all(bars):
            yield (*at, "arms"), f"no arm can serve anybody: {', '.join(bars[:MAX_SHOWN])}"
    first: dict[str, str] = {}
    for ref in split.arms:
        yield from _ref(ref, scope, (*at, "arms", ref))
        name = reach.named(policy, ref)
        if name is not None and first.setdefault(name, ref) != ref:
            yield (*at, "arms", ref), f'is {name}, and so is the arm "{first[name]}"'
    yield from _key(split.key, (*at, "key"))
    if split.otherwise is not None:
        yield from _ref(split.otherwise, scope, (*at, "otherwise"))


def _default(scope: _Scope) -> Iterator[Finding]:
    policy = scope.policy
    if policy.default is None:
        return
    at: Path = ("default",)
    refused = list(_ref(policy.default, scope, at))
    yield from refused
    way = list(reach.fallbacks(policy, policy.default))
    ahead = policy.versions[way[-1]].fallback if way else None
    leads_on = ahead is not None and ahead in scope.unread.versions
    bars = [reach.bar(policy, name) for name in way]
    if bars and all(bars) and not refused and not leads_on:
        yield at, f"no caller may use it: {', '.join(bars[:MAX_SHOWN])}"


def _shadows(scope: _Scope) -> Findings:
    policy, seen = scope.policy, set[str]()
    for n, shadow in enumerate(policy.shadows):
        at: Path = ("shadows", n)
        name = reach.named(policy, shadow.version) or shadow.version
        if name in seen:
            yield (*at, "version"), f'"{name}" is shadowed twice'
        seen.add(name)
        yield from _shadow(shadow, scope, at)


def _shadow(shadow: Shadow, scope: _Scope, at: Path) -> Findings:
    policy = scope.policy
    yield from _ref(shadow.version, scope, (*at, "version"))
    yield from _key(shadow.key, (*at, "key"))
    yield from shadow_faults(shadow, at, scope.segments)
    name = reach.named(policy, shadow.version)
    if shadow.cost_per_day is not None and name and policy.versions[name].price is None:
        yield (*at, "cost_per_day"), f'the version "{name}" has no price: give it one'
    if shadow.compare is not None and shadow.compare.control is not None:
        here: Path = (*at, "compare", "control")
        control = shadow.compare.control
        yield from _ref(control, scope, here)
        if name is not None and reach.named(policy, control) == name:
            yield here, f'"{control}" is the shadow itself: name what serves, or its like'
    yield None


def _key(key: str, at: Path) -> Iterator[Finding]:
    if key.startswith("header."):
        yield from header_faults(key.removeprefix("header."), at)
    elif key not in KEYS:
        known = ", ".join(KEYS)
        yield at, f'unknown key "{key[:80]}": one of {known}, header.<name>' + suggestion(key, KEYS)


def _oddities(policy: Policy, now_s: float) -> Iterator[Finding]:
    if policy.default is None and not policy.deleted and not reach.answers_everybody(policy):
        yield (
            (),
            "no default, and no rule answers everybody: callers whom no rule serves get 503",
        )
    yield from _odd_versions(policy)
    for label in policy.labels:
        if list(_ref(label, _Scope(policy), ())):
            yield (
                ("labels", label),
                f"{policy.labels[label]} is retired: who asks for it is refused",
            )
    yield from _odd_segments(policy)
    yield from oddities(policy, now_s)
    for at, ref in _served(policy):
        why = reach.bar(policy, ref)
        if why:
            yield at, f"serves nobody now: {why}"


def _odd_versions(policy: Policy) -> Iterator[Finding]:
    for name, version in policy.versions.items():
        at: Path = ("versions", name)
        shut = reach.shut(policy, version)
        if shut:
            yield at, f"is {shut}"
        if version.deprecation is not None and version.state is not State.DRAINING:
            yield (*at, "deprecation"), "is told to nobody before the state is draining"
        if version.max_queue is not None and version.max_concurrency is None:
            yield (*at, "max_queue"), "nobody waits without max_concurrency"


def _odd_segments(policy: Policy) -> Iterator[Finding]:
    for name, segment in policy.segments.items():
        both = set(segment.include)
        for n, tenant in enumerate(segment.exclude):
            if tenant in both:
                yield (
                    ("segments", name, "exclude", n),
                    f'"{tenant}" is in include, too, and that wins',
                )


def _served(policy: Policy) -> Iterator[tuple[Path, str]]:
    """Yield the places that name a version to serve whoever has not asked for it."""
    for name, version in policy.versions.items():
        if version.fallback is not None:
            yield ("versions", name, "fallback"), version.fallback
    for n, rule in enumerate(policy.rules):
        if rule.serve is not None:
            yield ("rules", n, "serve"), rule.serve
        if rule.split is not None:
            at: Path = ("rules", n, "split")
            yield from (
                ((*at, "arms", arm), arm) for arm, share in rule.split.arms.items() if share
            )
            if rule.split.otherwise is not None:
                yield (*at, "otherwise"), rule.split.otherwise
    if policy.default is not None:
        yield ("default",), policy.default
