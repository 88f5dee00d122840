"""`rmv try`: simulated callers, and the shares of versions that they get."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sidecar.cli import documents, output
from sidecar.cli.callers import read_claims
from sidecar.cli.heads import ask_by_path, request_head
from sidecar.cli.lookup import NotFoundError, policy_of
from sidecar.cli.names import MaybeModel
from sidecar.cli.options import AppName, At, Claims, Headers, Method, Scopes, Target, commands
from sidecar.cli.session import Session, with_store
from sidecar.config import allow_list
from sidecar.errors import ConfigError
from sidecar.model.identity import Identity, is_tenant
from sidecar.model.policy import Policy
from sidecar.model.request import RequestHead
from sidecar.policy.problem import PolicyError
from sidecar.policy.trial import Share, shares
from sidecar.runtime.clock import SystemClock
from sidecar.store.snapshots import snapshot_of

MAX_REQUESTS = 100_000

app = commands()


@app.command("try")
@with_store
async def try_(
    session: Session,
    *,
    model: MaybeModel = "",
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=MAX_REQUESTS, help="How many requests.")
    ] = 1000,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", help="Documents that are not applied yet.", metavar="PATH"),
    ] = None,
    tenants: Annotated[
        Path | None,
        typer.Option(help="Tenants to take in turn, one a line; -: stdin.", metavar="FILE"),
    ] = None,
    app_name: AppName = "",
    scope: Scopes = None,
    claim: Claims = None,
    header: Headers = None,
    method: Method = "POST",
    path: Target = "/",
    at_s: At = None,
) -> None:
    """Decide simulated requests, and tell who would serve them.

    The shares are compared with those that are to be expected. Each is of another tenant and
    subject, unless --tenants names some. Pins and kills count as they are in the store, and every
    version counts as healthy.
    """
    policy = await _policy(session, model, file)
    named = None if tenants is None else _tenants(tenants)
    snapshot = await snapshot_of(session.store, policy, frozenset(named or ()))
    caller = Identity("", "", app_name, tuple(scope or ()), read_claims(claim or ()))
    head = request_head(method, path, header or (), "")
    head.at_s = SystemClock().now_s() if at_s is None else at_s
    ask_by_path(head, snapshot)
    found = shares(snapshot, _requests(count, named, caller, head))
    if session.as_json:
        output.emit(found)
        return
    output.table(
        ("VERSION", "REASON", "REQUESTS", "EXPECTED", "OBSERVED", "3 SIGMA"), map(_row, found)
    )
    for one in found:
        if one.is_odd:
            output.warn(
                f"{one.version or 'refused'} ({one.reason}): {_percent(one.observed)} is outside "
                "of 3 sigma, which chance explains once in 370 times; are the tenants alike?"
            )


async def _policy(session: Session, model: str, file: Sequence[Path] | None) -> Policy:
    if not file:
        if not model:
            msg = "name the model: rmv try MODEL"
            raise typer.BadParameter(msg)
        return await policy_of(session.store, model)
    found = documents.read(file, allow_list(session.config))
    if found.problems:
        raise PolicyError(found.problems)
    for policy in found.policies.values():
        if policy.model == model or (not model and len(found.policies) == 1):
            return policy
    if not model:
        named = ", ".join(policy.model for policy in found.policies.values())
        msg = f"name the model: the documents have {named}"
        raise typer.BadParameter(msg)
    msg = f"the documents have no policy of `{model}`"
    raise NotFoundError(msg)


def _tenants(file: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"--tenants {file}: {error}"
        raise ConfigError(msg) from error
    found = [line.strip() for line in text.splitlines() if line.strip()]
    for n, tenant in enumerate(found, start=1):
        if not is_tenant(tenant):
            msg = f"--tenants {file}: no token can have the tenant number {n}, `{tenant[:80]}`"
            raise ConfigError(msg)
    if not found:
        msg = f"--tenants {file}: names no tenant"
        raise ConfigError(msg)
    return found


def _requests(
    count: int, tenants: Sequence[str] | None, caller: Identity, head: RequestHead
) -> Iterator[tuple[Identity, RequestHead]]:
    """Yield requests that differ in tenant, subject and id: the same ones each time."""
    for n in range(1, count + 1):
        tenant = tenants[(n - 1) % len(tenants)] if tenants else f"tenant-{n}"
        head.request_id = b"request-%d" % n
        yield msgspec.structs.replace(caller, tenant=tenant, subject=f"subject-{n}"), head


def _row(one: Share) -> tuple[str, ...]:
    interval = f"{one.low * 100:.1f} to {_percent(one.high)}" if one.low < one.high else "exact"
    return (
        one.version,
        one.reason,
        str(one.requests),
        _percent(one.expected),
        _percent(one.observed),
        interval,
    )


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
