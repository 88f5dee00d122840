"""`rmv access`: who may use which version of a model, and what a caller may use of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

import msgspec
import typer

from sidecar.cli import matchers, output
from sidecar.cli.bearer import TokenFile, caller_of
from sidecar.cli.callers import Told
from sidecar.cli.heads import request_head
from sidecar.cli.lookup import maybe_stored, policy_of
from sidecar.cli.names import complete_model
from sidecar.cli.options import (
    AppName,
    At,
    Claims,
    Grants,
    Headers,
    Method,
    Scopes,
    Segments,
    Since,
    Subject,
    Target,
    commands,
)
from sidecar.cli.session import Session, with_store
from sidecar.errors import ConfigError
from sidecar.model.context import Context
from sidecar.model.identity import Identity
from sidecar.model.policy import DefaultAccess, Matcher, Policy, Scalar, State, Version
from sidecar.model.request import RequestHead
from sidecar.policy.attributes import CLAIMED, GRANTED, attributes_of, head_of, identity_of
from sidecar.policy.barrier import Barrier, Barriers, doors_of
from sidecar.policy.match import Needs, needs_of_attribute
from sidecar.policy.problem import PolicyError
from sidecar.runtime.clock import SystemClock
from sidecar.store.base import Store

MAX_SHOWN = 20  # callers; --json has all
POST, ROOT = "POST", "/"

app = commands()


class May(msgspec.Struct, frozen=True):
    """Whether a caller may use a version: `by` lets it in, or `barrier` keeps it out.

    `untold` are attributes that this hangs on and that a sampled request does not tell.
    """

    version: str
    state: State
    labels: tuple[str, ...]
    may: bool
    by: tuple[str, ...] = ()
    barrier: Barrier | None = None
    untold: tuple[str, ...] = ()

    def why(self) -> str:
        """Say it in words."""
        if self.untold:
            return f"not told: {', '.join(self.untold)}"
        if self.barrier is not None:
            return self.barrier.in_words()
        return ", ".join(self.by) or "open to everybody"


class Known(NamedTuple):
    """A caller of late, by what access looks at: `requests` of it have come, about."""

    tenant: str
    attributes: dict[str, tuple[Scalar, ...]]
    requests: float
    versions: tuple[May, ...]


@app.command("access")
@with_store
async def access(
    session: Session,
    *,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Which model; of a caller: default all.",
            autocompletion=complete_model,
        ),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Who calls.")] = "",
    subject: Subject = "",
    app_name: AppName = "",
    scope: Scopes = None,
    segment: Segments = None,
    grant: Grants = None,
    claim: Claims = None,
    token: TokenFile = "",
    header: Headers = None,
    method: Method = POST,
    path: Target = ROOT,
    at_s: At = None,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Of the callers that sidecars have sampled.")
    ] = False,
    since: Since = None,
) -> None:
    """Show who may use which version, and why.

    Of MODEL alone: whom each version lets in, in words. Of a caller, told by options or a token:
    what it may use of MODEL or of all models. With --sampled: the same of each caller of late.
    It is about entitlement: whether a version is killed, ready or chosen is not asked.
    """
    told = Told(tenant, subject, app_name, scope, segment, grant, claim)
    _refuse_mixed(is_told=bool(told), is_token=bool(token), is_sampled=sampled)
    now_s = SystemClock().now_s()
    if sampled:
        found = await _sampled(session.store, _named(model), now_s - since if since else 0.0)
        _tell_known(found, as_json=session.as_json)
        return
    if not token and not told:
        _tell_doors(await policy_of(session.store, _named(model)), as_json=session.as_json)
        return
    if token:
        identity = await caller_of(session, token, now_s)
    else:
        identity = told.identity()
    head = request_head(method, path, header or (), "")
    head.at_s = now_s if at_s is None else at_s
    policies = await _policies(session.store, model)
    _tell_caller(policies, identity, head, as_json=session.as_json)


def _refuse_mixed(*, is_told: bool, is_token: bool, is_sampled: bool) -> None:
    if is_told and is_token:
        msg = (
            "--token says who calls: leave out --tenant, --subject, --app, --scope, --segment, "
            "--grant and --claim"
        )
        raise ConfigError(msg)
    if is_sampled and (is_told or is_token):
        msg = "--sampled is of callers that came: leave out what says who calls"
        raise ConfigError(msg)


def _named(model: str | None) -> str:
    if not model:
        msg = "name the model: rmv access MODEL; or a caller: rmv access --token FILE"
        raise typer.BadParameter(msg)
    return model


async def _policies(store: Store, model: str | None) -> list[Policy]:
    """Return the policy of one model, or of all that have a valid one."""
    if model:
        return [await policy_of(store, model)]
    found: list[Policy] = []
    for name in sorted(await store.models()):
        try:
            stored = await maybe_stored(store, name)
        except PolicyError:
            output.warn(f"{name}: the stored document is not valid: see `rmv status`")
            continue
        if stored is not None and not stored.policy.deleted:
            found.append(stored.policy)
    return found


def _judge(
    policy: Policy, barriers: Barriers, identity: Identity, head: RequestHead
) -> tuple[May, ...]:
    return tuple(
        _may(policy, name, version, barriers, (identity, head))
        for name, version in policy.versions.items()
    )


def _may(
    policy: Policy,
    name: str,
    version: Version,
    barriers: Barriers,
    asked: tuple[Identity, RequestHead],
) -> May:
    barrier = barriers.met(name, *asked)
    by = barriers.passed(name, *asked) if barrier is None else ()
    return May(name, version.state, _labels(policy, name), barrier is None, by, barrier)


def _labels(policy: Policy, version: str) -> tuple[str, ...]:
    return tuple(label for label, of in policy.labels.items() if of == version)


def _tell_doors(policy: Policy, *, as_json: bool) -> None:
    """Tell whom each version of a policy lets in, whoever that is."""
    if as_json:
        output.emit(
            {
                "model": policy.model,
                "revision": policy.revision,
                "default_access": policy.default_access,
                "allow": policy.allow,
                "deny": policy.deny,
                "versions": [_door(policy, *one) for one in policy.versions.items()],
            }
        )
        return
    rows = [
        (
            name,
            version.state.value,
            ", ".join(_labels(policy, name)),
            _who_may(policy, version),
            _who_may_not(policy, version),
        )
        for name, version in policy.versions.items()
    ]
    output.table(("VERSION", "STATE", "LABELS", "WHO MAY", "WHO MAY NOT"), rows)
    output.note("note: a token's grants take from that what they do not mean")


def _door(policy: Policy, name: str, version: Version) -> dict[str, object]:
    return {
        "version": name,
        "state": version.state,
        "labels": _labels(policy, name),
        "allow": version.allow,
        "deny": version.deny,
        "who_may": _who_may(policy, version),
        "who_may_not": _who_may_not(policy, version),
    }


def _who_may(policy: Policy, version: Version) -> str:
    given = [matchers.any_of(one) for one in (policy.allow, version.allow) if one is not None]
    if given:
        return "; and ".join(given)
    is_closed = policy.default_access is DefaultAccess.DENY
    return matchers.NOBODY if is_closed else matchers.EVERYBODY


def _who_may_not(policy: Policy, version: Version) -> str:
    denied: tuple[Matcher, ...] = (*policy.deny, *version.deny)
    return matchers.any_of(denied) if denied else ""


def _tell_caller(
    policies: Sequence[Policy], identity: Identity, head: RequestHead, *, as_json: bool
) -> None:
    """Tell what one caller may use of some models."""
    judged = [(one, _judge(one, Barriers(one), identity, head)) for one in policies]
    if as_json:
        output.emit(
            {
                "tenant": identity.tenant,
                "subject": identity.subject,
                "app": identity.app,
                "scopes": identity.scopes,
                "segments": identity.segments,
                "grants": identity.grants,
                "models": [
                    {"model": policy.model, "revision": policy.revision, "versions": versions}
                    for policy, versions in judged
                ],
            }
        )
    else:
        _show_caller(judged, identity)
    for policy in policies:
        asked = _asked_of_request(policy)
        if asked:
            output.note(
                f"note: who may use {policy.model} also hangs on {', '.join(asked)} of the "
                "request; --header, --method, --path and --at say what it has"
            )


def _show_caller(judged: Sequence[tuple[Policy, Sequence[May]]], identity: Identity) -> None:
    output.facts(
        [
            ("tenant", identity.tenant),
            ("subject", identity.subject),
            ("app", identity.app),
            ("scopes", " ".join(identity.scopes)),
            ("segments", " ".join(identity.segments)),
            ("grants", matchers.grants_in_words(identity.grants)),
        ]
    )
    rows = [
        (policy.model, one.version, one.state.value, "yes" if one.may else "no", one.why())
        for policy, versions in judged
        for one in versions
    ]
    colours: list[output.Colour | None] = ["green" if row[3] == "yes" else "red" for row in rows]
    print()
    output.table(("MODEL", "VERSION", "STATE", "MAY", "WHY"), rows, colours)


def _asked_of_request(policy: Policy) -> list[str]:
    """Return the attributes of requests that access to a model hangs on."""
    told = attributes_of(doors_of(policy)) - {CLAIMED}  # the caller tells its segments
    return sorted(one for one in told if needs_of_attribute(one) is Needs.REQUEST)


async def _sampled(store: Store, model: str, from_s: float) -> tuple[Policy, list[Known]]:
    """Return the callers of a model that were sampled, the busiest first."""
    policy = await policy_of(store, model)
    asked = attributes_of(doors_of(policy)) | {GRANTED}
    callers: dict[tuple[object, ...], tuple[Context, float]] = {}
    async for context in store.contexts(model):
        if context is None or context.model != model or context.at_s < from_s:
            continue
        seen = {name: values for name, values in context.attributes.items() if name in asked}
        key = (context.tenant, *sorted(seen.items()))
        first, requests = callers.get(key, (context, 0.0))
        callers[key] = first, requests + context.stands_for
    barriers = Barriers(policy)
    known = [_known(policy, barriers, asked, *one) for one in callers.values()]
    return policy, sorted(known, key=lambda one: -one.requests)


def _known(
    policy: Policy, barriers: Barriers, asked: Iterable[str], context: Context, requests: float
) -> Known:
    untold = tuple(sorted(set(asked) - {GRANTED} - context.attributes.keys()))
    judged = _judge(policy, barriers, identity_of(context), head_of(context))
    if untold:
        judged = tuple(
            May(one.version, one.state, one.labels, may=False, untold=untold) for one in judged
        )
    seen = {name: values for name, values in context.attributes.items() if name in asked}
    return Known(context.tenant, seen, requests, judged)


def _tell_known(found: tuple[Policy, list[Known]], *, as_json: bool) -> None:
    policy, known = found
    if as_json:
        callers = [one._asdict() for one in known]
        output.emit({"model": policy.model, "revision": policy.revision, "callers": callers})
        return
    if not known:
        output.say(f"{policy.model}: no request was sampled, so no caller is known")
        return
    rows = [
        (
            one.tenant,
            "; ".join(f"{name} {_values(values)}" for name, values in one.attributes.items()),
            f"{one.requests:,.0f}",
            ", ".join(may.version for may in one.versions if may.may),
            ", ".join(f"{may.version} ({may.why()})" for may in one.versions if not may.may),
        )
        for one in known[:MAX_SHOWN]
    ]
    output.table(("TENANT", "WITH", "REQUESTS", "MAY USE", "MAY NOT USE"), rows)
    if len(known) > MAX_SHOWN:
        output.say(f"and {len(known) - MAX_SHOWN:,} more: see --json")


def _values(values: Sequence[Scalar]) -> str:
    return " ".join(map(str, values)) or "(absent)"
