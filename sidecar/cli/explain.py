"""`rmv explain`: the decision that a request would get, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from sidecar.cli import output
from sidecar.cli.answer import tell
from sidecar.cli.bearer import TokenFile, caller_of
from sidecar.cli.callers import Told
from sidecar.cli.failure import advised
from sidecar.cli.heads import ask_by_path, request_head
from sidecar.cli.lookup import NotFoundError, policy_of, version_named
from sidecar.cli.names import complete_model, complete_version
from sidecar.cli.options import (
    AppName,
    At,
    Claims,
    Grants,
    Headers,
    Method,
    Scopes,
    Segments,
    Subject,
    Target,
    commands,
)
from sidecar.cli.request import looks_like_a_request, tell_sampled
from sidecar.cli.session import Session, with_store
from sidecar.errors import ConfigError
from sidecar.model.identity import Identity
from sidecar.model.policy import Policy
from sidecar.model.request import RequestHead
from sidecar.policy.answer import answer
from sidecar.runtime.clock import SystemClock
from sidecar.store.base import Store
from sidecar.store.snapshots import snapshot_of

POST, ROOT = "POST", "/"

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", help="The same, as an option.", metavar="MODEL", autocompletion=complete_model
    ),
]
AskedVersion = Annotated[
    str,
    typer.Option(
        help="What X-Model-Version asks for.", metavar="VERSION", autocompletion=complete_version
    ),
]
NotReady = Annotated[
    list[str] | None,
    typer.Option(
        help="As if it had no healthy endpoint; may be repeated.",
        metavar="VERSION",
        autocompletion=complete_version,
    ),
]

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
    model_option: ModelOption = None,
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
    asked_version: AskedVersion = "",
    at_s: At = None,
    not_ready: NotReady = None,
    brief: Annotated[
        bool, typer.Option("--brief", help="Only what is decided, not each step to it.")
    ] = False,
    request: Annotated[
        str, typer.Option(help="A request that was sampled, by its X-Request-Id.", metavar="ID")
    ] = "",
) -> None:
    """Show which version a request would get, and each step to it.

    As the store stands now; every version counts as healthy that --not-ready does not name. With
    --request, or an id in the place of MODEL: how that request was decided, and would be again.
    """
    if model and not request and looks_like_a_request(model):
        request, model = model, model_option
    told = Told(tenant, subject, app_name, scope, segment, grant, claim)
    if request:
        is_default = (at_s, method, path) == (None, POST, ROOT)
        _refuse_described(told, token, header, asked_version, not_ready, not is_default)
        named = _one_model(model, model_option) if model or model_option else None
        await tell_sampled(session, request, named, is_brief=brief)
        return
    model = _one_model(model, model_option)
    now_s = SystemClock().now_s()
    if token:
        _refuse_both(told)
        identity = await caller_of(session, token, now_s)
    else:
        identity = told.identity()
    head = request_head(method, path, header or (), asked_version)
    head.at_s = now_s if at_s is None else at_s
    await _explain(session, model, (identity, head), not_ready or (), is_brief=brief)


async def _explain(
    session: Session,
    model: str,
    asked: tuple[Identity, RequestHead],
    not_ready: Sequence[str],
    *,
    is_brief: bool,
) -> None:
    """Decide a request by what the store holds, and tell of it."""
    identity, head = asked
    policy = await _policy(session.store, model)
    unready = frozenset(version_named(policy, name) for name in not_ready)
    now = await snapshot_of(session.store, policy, frozenset({identity.tenant}))
    snapshot = now.with_health(now.kills, unready)
    ask_by_path(head, snapshot)
    found = answer(snapshot, identity, head)
    if session.as_json:
        output.emit(found.as_json(is_brief=is_brief))
        return
    tell(found, is_brief=is_brief)
    await _note_health(session.store, policy, unready)
    if drawn := _drawn(policy):
        output.note(f"note: drawn anew for each request, so another may differ: {', '.join(drawn)}")


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


def _refuse_both(told: Told) -> None:
    if told:
        msg = "--token says who calls: leave out what else does"
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


def _drawn(policy: Policy) -> list[str]:
    """Return what in a policy goes by chance from one request of a caller to the next."""
    rules = [rule.id for rule in policy.rules if rule.split and rule.split.key == "request"]
    shadows = [
        shadow.version
        for shadow in policy.shadows
        if shadow.key == "request" and 0 < shadow.percent < 100  # noqa: PLR2004
    ]
    return [*(f"rule {name}" for name in rules), *(f"shadow {name}" for name in shadows)]
