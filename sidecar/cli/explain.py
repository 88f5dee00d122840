"""`rmv explain`: the decision that a request would get, and why."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from sidecar.cli import output
from sidecar.cli.callers import read_claims, verified
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError, policy_of, version_named
from sidecar.cli.names import complete_model, complete_version
from sidecar.cli.options import At, Claims, Headers, Scopes, commands
from sidecar.cli.plan import snapshot_of
from sidecar.cli.request import looks_like_a_request, tell_sampled
from sidecar.cli.session import Session, with_store
from sidecar.cli.steps import tell
from sidecar.errors import ConfigError
from sidecar.model.decision import Decision
from sidecar.model.identity import Identity
from sidecar.model.policy import Policy, Shadow
from sidecar.model.request import RequestHead
from sidecar.policy.resolver import resolve, shadows_for
from sidecar.policy.route import RouteTable
from sidecar.policy.snapshot import Snapshot
from sidecar.policy.trace import trace
from sidecar.runtime.clock import SystemClock
from sidecar.store.base import Store

ASKED = "--asked-version"
_OPTIONS = {"x-model-version": ASKED, "x-model": "MODEL", "x-tenant": "--tenant"}
"""Headers that no rule sees: what they say is an option here."""

app = commands()


@app.command("explain")
@with_store
async def explain(
    session: Session,
    *,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="The model that is called.", autocompletion=complete_model
        ),
    ] = None,
    model_option: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="The same, as an option.",
            metavar="MODEL",
            autocompletion=complete_model,
        ),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Who calls.")] = "",
    subject: Annotated[str, typer.Option(help="The caller's subject.")] = "",
    app_name: Annotated[str, typer.Option("--app", help="The caller's app.")] = "",
    scope: Scopes = None,
    claim: Claims = None,
    token: Annotated[
        str,
        typer.Option(help="A token that says all this; - reads it from stdin.", metavar="JWT"),
    ] = "",
    header: Headers = None,
    method: Annotated[str, typer.Option(help="The request's method.")] = "POST",
    path: Annotated[str, typer.Option(help="The request's target.")] = "/",
    asked_version: Annotated[
        str,
        typer.Option(
            help="What X-Model-Version asks for.",
            metavar="VERSION",
            autocompletion=complete_version,
        ),
    ] = "",
    at_s: At = None,
    not_ready: Annotated[
        list[str] | None,
        typer.Option(
            help="As if it had no healthy endpoint; may be repeated.",
            metavar="VERSION",
            autocompletion=complete_version,
        ),
    ] = None,
    brief: Annotated[
        bool, typer.Option("--brief", help="Only what is decided, not each step to it.")
    ] = False,
    request: Annotated[
        str, typer.Option(help="A request that was sampled, by its X-Request-Id.", metavar="ID")
    ] = "",
) -> None:
    """Show which version a request would be served by, and each step to it.

    As the store stands now; every version counts as healthy that --not-ready does not name. With
    --request, or an id in the place of MODEL: how that request was decided, and would be again.
    """
    if model and not request and looks_like_a_request(model):
        request, model = model, model_option
    if request:
        _refuse_described(tenant, subject, app_name, scope, claim, token, header, asked_version)
        _refuse_described(not_ready, at_s is not None, method != "POST", path != "/")
        named = _one_model(model, model_option) if model or model_option else None
        await tell_sampled(session, request, named, is_brief=brief)
        return
    model = _one_model(model, model_option)
    now_s = SystemClock().now_s()
    if token:
        _refuse_both(tenant, subject, app_name, scope, claim)
        identity = verified(session.config, _told(token), now_s)
    else:
        claims = read_claims(claim or ())
        identity = Identity(tenant, subject, app_name, tuple(scope or ()), claims)
    head = request_head(method, path, header or (), asked_version)
    head.at_s = now_s if at_s is None else at_s
    policy = await _policy(session.store, model)
    unready = frozenset(version_named(policy, name) for name in not_ready or ())
    now = await snapshot_of(session.store, policy, frozenset({identity.tenant}))
    snapshot = now.with_health(now.kills, unready)
    ask_by_path(head, snapshot)
    decision = resolve(snapshot, identity, head)
    shadows = shadows_for(snapshot, identity, head, decision)
    found = trace(snapshot, identity, head)
    if session.as_json:
        told = _as_json(identity, decision, shadows)
        steps = {"versions": found.versions, "steps": found.steps, "unreached": found.unreached}
        output.emit(told if brief else told | steps)
        return
    _print(identity, decision, shadows)
    if not brief:
        tell(found, identity, snapshot.kills.get("", ""))
    await _note_health(session.store, policy, unready)
    if _is_drawn(policy):
        output.note("note: something here is drawn anew for each request; another one may differ")


def request_head(
    method: str, target: str, headers: Sequence[str], asked_version: str
) -> RequestHead:
    """Return the head of a request as it is told by flags; ConfigError for a header without `:`."""
    fields: list[bytes] = []
    for text in headers:
        name, colon, value = text.partition(":")
        if not name.strip() or not colon:
            msg = f"--header {text}: write 'NAME: VALUE'"
            raise ConfigError(msg)
        option = _OPTIONS.get(name.strip().lower())
        if option == ASKED:
            asked_version = _asked(value.strip(), asked_version)
            continue
        if option is not None:
            msg = f"--header {text}: say it by {option}"
            raise ConfigError(msg)
        fields.append(f"{name.strip()}: {value.strip()}\r\n".encode())
    return RequestHead(
        method.encode(),
        target.encode(),
        fields,
        request_id=secrets.token_hex(16).encode(),
        asked_version=asked_version.encode() or None,
    )


def _asked(by_header: str, asked_version: str) -> str:
    """Return the version that is asked for, by the header or as an option."""
    if asked_version not in {"", by_header}:
        msg = f"two versions are asked for: {asked_version} and {by_header}"
        raise ConfigError(msg)
    return by_header


def ask_by_path(head: RequestHead, snapshot: Snapshot) -> None:
    """Make a version or label that the path names the one that is asked for.

    Raises ConfigError when the head asks for another one already: the sidecar answers 400.
    """
    route = RouteTable((), snapshot.model).find(head)
    if route.model != snapshot.model or (route.version is None and route.label is None):
        return
    named = route.version or snapshot.policy.labels.get(route.label or "", "")
    asked = head.asked_version
    if asked is not None:
        other = snapshot.named(asked.decode("utf-8", "replace"))
        if asked != named.encode() and (other is None or other is not snapshot.named(named)):
            msg = (
                f"--path names version {route.version or route.label}, --asked-version another one"
            )
            raise ConfigError(msg)
    head.asked_version = named.encode()


async def _policy(store: Store, model: str) -> Policy:
    """Return a model's policy; where there is none, the name may be the id of a request."""
    try:
        return await policy_of(store, model)
    except NotFoundError as error:
        advice = f"If it is the id of a request: rmv explain --request {model}"
        raise advised(error, advice) from error.__cause__


def _one_model(argument: str | None, option: str | None) -> str:
    """Return the model that is named, by `explain MODEL` or by `--model MODEL`."""
    if argument and option and argument != option:
        msg = f"two models are named: {argument} and {option}"
        raise typer.BadParameter(msg)
    model = argument or option
    if not model:
        msg = "name the model: rmv explain MODEL"
        raise typer.BadParameter(msg)
    return model


def _told(token: str) -> str:
    """Return a token; `-` is standard input, which no list of processes shows."""
    return sys.stdin.readline().strip() if token == "-" else token  # noqa: S105 -- no secret


def _refuse_both(*others: object) -> None:
    if any(others):
        msg = "--token says who calls: leave out --tenant, --subject, --app, --scope and --claim"
        raise ConfigError(msg)


def _refuse_described(*others: object) -> None:
    if any(others):
        msg = "--request is one that came: leave out what says who calls, and for what"
        raise ConfigError(msg)


async def _note_health(store: Store, policy: Policy, supposed: frozenset[str]) -> None:
    """Say what live sidecars find not ready, which is not taken into account here."""
    living = await store.fleet(policy.model)
    for version in policy.versions:
        where = [one for one in living if version in one.unready.get(policy.model, ())]
        if where and version not in supposed:
            output.note(
                f"note: {version} has no healthy endpoint at {len(where)} of {len(living)} "
                f"sidecars; --not-ready {version} takes that into account"
            )


def _is_drawn(policy: Policy) -> bool:
    keys = [rule.split.key for rule in policy.rules if rule.split is not None]
    keys += [shadow.key for shadow in policy.shadows if 0 < shadow.percent < 100]  # noqa: PLR2004
    return "request" in keys


def _print(identity: Identity, decision: Decision, shadows: Sequence[Shadow]) -> None:
    code = decision.refusal
    refused = "" if code is None else f"{code.status} {code.slug}: {decision.detail}"
    output.facts(
        [
            ("model", decision.model),
            ("tenant", identity.tenant),
            ("version", decision.version),
            ("refused", refused),
            ("reason", decision.reason),
            ("revision", str(decision.revision)),
            ("rejected", ", ".join(f"{o.version} ({o.cause.value})" for o in decision.rejected)),
            ("shadows", ", ".join(shadow.version for shadow in shadows)),
        ]
    )


def _as_json(
    identity: Identity, decision: Decision, shadows: Sequence[Shadow]
) -> dict[str, object]:
    code = decision.refusal
    return {
        "model": decision.model,
        "tenant": identity.tenant,
        "version": decision.version or None,
        "reason": decision.reason,
        "revision": decision.revision,
        "rejected": msgspec.to_builtins(decision.rejected),
        "shadows": [shadow.version for shadow in shadows],
        "refusal": None
        if code is None
        else {"code": code.slug, "status": code.status, "detail": decision.detail},
    }
