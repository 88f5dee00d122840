"""One request that was sampled: how it was decided, and whether it would be so again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from sidecar.cli import durations, output, steps
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError
from sidecar.cli.session import Session
from sidecar.model.context import Context
from sidecar.model.decision import Cause, Decision, Reason
from sidecar.model.identity import Identity
from sidecar.model.policy import Policy
from sidecar.policy.attributes import head_of, identity_of
from sidecar.policy.gaps import Gaps
from sidecar.policy.trace import Trace, trace
from sidecar.store import document
from sidecar.store.base import Store
from sidecar.store.committed import expect_committed, find_revision
from sidecar.store.snapshots import snapshot_of

_OWN_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PASSING = frozenset(
    cause.value
    for cause in (
        Cause.NOT_READY,
        Cause.UPSTREAM_FAILED,
        Cause.UPSTREAM_TIMEOUT,
        Cause.OVERLOADED,
    )
)
"""Causes that no store knows of: they come and go with the endpoints."""


class Again(NamedTuple):
    """A request decided once more: by the document of its time, with the pins and kills of now.

    `missing` are attributes that could make a difference and that its context does not tell;
    `killed` is why the whole model is switched off, if it is.
    """

    identity: Identity
    trace: Trace
    killed: str
    missing: tuple[str, ...]
    is_same: bool


class Explained(NamedTuple):
    """A sampled request; `again` is None when the document that decided it is not there."""

    context: Context
    again: Again | None

    def as_json(self, *, is_brief: bool) -> dict[str, object]:
        """Return all that is known, for programs; each step to the decision unless `is_brief`."""
        again = self.again
        told: dict[str, object] = {"request": msgspec.to_builtins(self.context), "again": None}
        if again is not None:
            is_same = None if again.missing else again.is_same
            traced: dict[str, object] = msgspec.to_builtins(again.trace)
            if is_brief:
                traced = {"decision": traced["decision"]}
            told["again"] = {"is_same": is_same, "missing": again.missing, "trace": traced}
        return told

    def tell(self, *, is_brief: bool) -> None:
        """Print all that is known, for people; each step to the decision unless `is_brief`."""
        output.facts(_recorded(self.context))
        print()
        output.say(self._verdict())
        if self.again is not None and not is_brief:
            steps.tell(self.again.trace, self.again.identity, self.again.killed)

    def _verdict(self) -> str:
        context, again = self.context, self.again
        if again is None:
            return f"revision {context.revision} is not in the history: it cannot be decided again"
        if again.missing:
            what = ", ".join(again.missing)
            return f"it cannot be decided again for sure: its context does not tell {what}"
        if again.is_same:
            return f"decided again by revision {context.revision}: the same"
        now = again.trace.decision
        return (
            f"decided again by revision {context.revision}: {now.version or 'refused'} "
            f"({now.reason}), for pins, kills or endpoints are not what they were"
        )


def looks_like_a_request(text: str) -> bool:
    """Return whether `text` is spelled as sidecars and most clients spell ids of requests."""
    return _OWN_ID.fullmatch(text) is not None


async def tell_sampled(
    session: Session, request_id: str, model: str | None, *, is_brief: bool
) -> None:
    """Find a sampled request, of one model or of any, and print how it was and would be decided.

    Raises:
        NotFoundError: it is not among those that are kept.
    """
    found = await _explained(session.store, request_id, model)
    if session.as_json:
        output.emit(found.as_json(is_brief=is_brief))
    else:
        found.tell(is_brief=is_brief)


async def _explained(store: Store, request_id: str, model: str | None) -> Explained:
    context = await _find(store, request_id, [model] if model else await store.models())
    if context is None:
        msg = (
            f"no request {request_id}{f' of {model}' if model else ''} was sampled: sidecars keep "
            "contexts.per_second of them, for contexts.keep_s"
        )
        raise advised(NotFoundError(msg), "The exchange log has the decision about every one.")
    policy = await _policy_then(store, context)
    return Explained(context, None if policy is None else await _again(store, context, policy))


def _recorded(context: Context) -> list[tuple[str, str]]:
    rejected = (f"{version} ({cause})" for version, cause in context.rejected.items())
    return [
        ("request", context.request_id),
        ("at", durations.clock(context.at_s, "milliseconds")),
        ("model", context.model),
        ("tenant", context.tenant),
        ("asked for", context.asked_version or ""),
        *((attribute, _spell(values)) for attribute, values in sorted(context.attributes.items())),
        ("version", context.version),
        ("refused", context.code),
        ("reason", context.reason),
        ("revision", str(context.revision)),
        ("rejected", ", ".join(rejected)),
        ("took", f"{context.duration_s * 1000:.1f} ms"),
    ]


async def _find(store: Store, request_id: str, models: Iterable[str]) -> Context | None:
    for model in models:
        async for context in store.contexts(model):
            if context is not None and context.request_id == request_id:
                return context
    return None


async def _policy_then(store: Store, context: Context) -> Policy | None:
    """Return the policy by which a request was decided, from the history."""
    entry = await find_revision(store, context.model, context.revision)
    if entry is None:
        return None
    expect_committed(entry, context.model)
    source = f"revision {entry.revision} of {context.model}"
    return document.load(entry.document, model=context.model, source=source)


async def _again(store: Store, context: Context, policy: Policy) -> Again:
    identity, head = identity_of(context), head_of(context)
    unready = frozenset(name for name, cause in context.rejected.items() if cause in _PASSING)
    now = await snapshot_of(store, policy, frozenset({context.tenant}))
    traced = trace(now.with_health(now.kills, unready), identity, head)
    missing = Gaps(policy, frozenset(context.attributes)).met(identity, head, traced.decision)
    is_same = _is_same(context, traced.decision)
    return Again(identity, traced, now.kills.get("", ""), tuple(sorted(missing)), is_same)


def _is_same(context: Context, decision: Decision) -> bool:
    code = "" if decision.refusal is None else decision.refusal.slug
    if (context.version, context.code) != (decision.version, code):
        return False
    if context.reason.startswith(Reason.FALLBACK.value):  # what failed then only is not ready now
        return decision.reason.startswith(Reason.FALLBACK.value)
    return context.reason == decision.reason


def _spell(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "(absent)"
