"""A decision that audit has, made once more from the inputs that it has of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct, structs

from sidecar.audit.entry import Inputs
from sidecar.model.context import Context
from sidecar.model.decision import Cause, Reason
from sidecar.policy.attributes import head_of, identity_of
from sidecar.policy.gaps import Gaps
from sidecar.policy.lineage import digest
from sidecar.policy.resolver import fallback_of
from sidecar.policy.snapshot import compile_snapshot
from sidecar.policy.trace import Asked, Step, Trace, trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.audit.entry import Entry
    from sidecar.model.decision import Decision
    from sidecar.model.identity import Identity
    from sidecar.model.policy import Policy

_LATER: Final = {
    cause.value: cause
    for cause in (Cause.UPSTREAM_FAILED, Cause.UPSTREAM_TIMEOUT, Cause.OVERLOADED)
}
"""Causes that a version is rejected for after a decision was made for it."""


class Difference(Struct, frozen=True):
    """Something that audit says, and that came out otherwise now."""

    what: str
    then: str
    now: str


class Again(NamedTuple):
    """A decision once more: by the document of its revision, with all that audit has of it.

    `trace` ends before versions failed and others served instead, as `decision` then tells.
    `missing` are attributes that could make a difference and that audit does not have; `parting`
    is the first step that went otherwise, if that can be told.
    """

    identity: Identity
    trace: Trace
    decision: Decision
    killed: str
    missing: tuple[str, ...]
    differences: tuple[Difference, ...]
    parting: Step | None


def again(entry: Entry, policy: Policy) -> Again:
    """Decide a request of audit again, by the policy of its revision.

    Versions that failed then before an answer began, fail again.
    """
    inputs = entry.inputs or Inputs()
    context = _context(entry, inputs)
    identity = structs.replace(
        identity_of(context),
        subject=entry.subject,
        app=entry.app,
        grants=inputs.grants,
    )
    head = head_of(context)
    pins = {} if inputs.pin is None else {entry.tenant: inputs.pin}
    snapshot = compile_snapshot(policy, pins, inputs.kills, frozenset(inputs.unready))
    traced = trace(snapshot, identity, head)
    decision, failed = traced.decision, _failed(entry)
    while decision.version in failed:
        cause = failed.pop(decision.version)
        decision = fallback_of(snapshot, identity, head, decision, cause) or decision
    told = frozenset(inputs.attributes) | {"subject", "app"}
    missing = Gaps(policy, told).met(identity, head, traced.decision)
    differences = tuple(_differences(entry, decision, policy))
    return Again(
        identity,
        traced,
        decision,
        inputs.kills.get("", ""),
        tuple(sorted(missing)),
        differences,
        _parting(entry, inputs, policy, traced) if differences else None,
    )


def _context(entry: Entry, inputs: Inputs) -> Context:
    return Context(
        request_id=entry.request_id,
        at_s=entry.at_s,
        model=entry.model,
        tenant=entry.tenant,
        version=entry.version,
        reason=entry.reason,
        revision=entry.revision,
        duration_s=entry.duration_s,
        instance=entry.writer,
        attributes=inputs.attributes,
        asked_version=inputs.asked_version,
    )


def _failed(entry: Entry) -> dict[str, Cause]:
    """Return the versions that were tried and failed, so that others served in their place."""
    return {name: _LATER[cause] for name, cause in entry.rejected.items() if cause in _LATER}


def _differences(entry: Entry, now: Decision, policy: Policy) -> Iterator[Difference]:
    refusal = "" if now.refusal is None else now.refusal.slug
    refused = "" if entry.version else entry.code
    version = policy.versions.get(now.version)
    rejected = {one.version: one.cause.value for one in now.rejected}
    pairs = [
        ("version", entry.version, now.version),
        ("reason", entry.reason, now.reason),
        ("rejected", spell_rejected(entry.rejected), spell_rejected(rejected)),
        ("refused with", refused, refusal),
        ("lineage", entry.lineage, "" if version is None else digest(version)),
    ]
    yield from (Difference(what, then, again) for what, then, again in pairs if then != again)


def spell_rejected(causes: dict[str, str]) -> str:
    """Return causes by version as people read them."""
    return ", ".join(f"{version} ({cause})" for version, cause in causes.items())


def _parting(entry: Entry, inputs: Inputs, policy: Policy, now: Trace) -> Step | None:
    """Return the step that ended one way to an outcome, while the other way went on or differs."""
    then = _place(entry, inputs, policy)
    rules = {rule.id: number for number, rule in enumerate(policy.rules)}
    places = [(_ORDER[one.asked], rules.get(one.of, 0), one) for one in now.steps]
    if then is None or not places:
        return None
    return next((one for asked, rule, one in places if (asked, rule) >= then), places[-1][2])


_ORDER = {asked: number for number, asked in enumerate(Asked)}
_DECIDED_BY = {
    Reason.KILLED.value: Asked.KILL,
    Reason.EXPLICIT.value: Asked.EXPLICIT,
    Reason.PINNED.value: Asked.PIN,
    Reason.RULE.value: Asked.RULE,
    Reason.SPLIT.value: Asked.RULE,
    Reason.DEFAULT.value: Asked.DEFAULT,
    Reason.FALLBACK.value: Asked.FALLBACK,
}


def _place(entry: Entry, inputs: Inputs, policy: Policy) -> tuple[int, int] | None:
    """Return which step decided then: its kind and the number of its rule; None: not told."""
    reason, _, of = entry.reason.partition(":")
    asked = _DECIDED_BY.get(reason)
    if asked is Asked.RULE:
        number = next((n for n, rule in enumerate(policy.rules) if rule.id == of), None)
        return None if number is None else (_ORDER[asked], number)
    if asked is not None:
        return _ORDER[asked], 0
    if of == Cause.RULE.value:
        return None  # one that denies; its id is not told
    if inputs.asked_version is not None:
        return _ORDER[Asked.EXPLICIT], 0
    return _ORDER[Asked.FALLBACK if inputs.pin is None else Asked.PIN], 0
