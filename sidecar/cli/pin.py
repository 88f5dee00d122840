"""`rmv pin`, `rmv unpin`, `rmv pins`: one tenant held to one version."""

from __future__ import annotations

import typer

from sidecar.cli import durations, output
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError, expect_model, expect_version, versions_of
from sidecar.cli.marks import marked_pins, spell
from sidecar.cli.names import MaybeModel, Model, Version
from sidecar.cli.options import Force, SigningKey, Tenant, Ttl, commands
from sidecar.cli.session import Session, with_store
from sidecar.cli.signing import sign_with
from sidecar.model.decision import Reason
from sidecar.model.identity import MAX_TENANT_CHARS, Identity, is_tenant
from sidecar.model.policy import Policy
from sidecar.model.request import RequestHead
from sidecar.policy.resolver import resolve
from sidecar.runtime.clock import SystemClock
from sidecar.store.base import Pin, Store
from sidecar.store.keys import BadNameError
from sidecar.store.snapshots import snapshot_of

app = commands()


@app.command("pin")
@with_store
async def pin(
    session: Session,
    *,
    model: Model,
    tenant: Tenant,
    version: Version,
    ttl: Ttl = None,
    force: Force = False,
    key: SigningKey = None,
) -> None:
    """Hold a tenant to a version, whatever the rules say."""
    if not is_tenant(tenant):
        msg = (
            f"no token can have the tenant `{tenant}`: it is printable ASCII, without blanks"
            f" around it, at most {MAX_TENANT_CHARS} characters"
        )
        raise typer.BadParameter(msg)
    sign_with(session, key)
    policy = await expect_version(session.store, model, version, is_forced=force)
    before = (await session.store.pins_of(model, [tenant])).get(tenant)
    await session.store.set_pin(model, tenant, version, ttl_s=ttl)
    if policy is not None:
        await _warn(session.store, policy, tenant)
    if session.as_json:
        told = {"model": model, "tenant": tenant, "version": version, "before": before}
        output.emit({**told, "ttl_s": ttl})
        return
    term = f" for {durations.spell(ttl)}" if ttl else ""
    was = f", was {before}" if before not in {None, version} else ""
    output.say(f"{model}: {tenant} is pinned to {version}{term}{was}")


async def _warn(store: Store, policy: Policy, tenant: str) -> None:
    """Say so if the pin does not bring the tenant, of whom nothing else is known, its version."""
    snapshot = await snapshot_of(store, policy, frozenset({tenant}))
    head = RequestHead(b"POST", b"/", [])
    head.at_s = SystemClock().now_s()
    decision = resolve(snapshot, Identity(tenant), head)
    if decision.refusal is not None:
        detail = f" ({decision.detail})" if decision.detail else ""
        output.warn(f"{tenant} is refused now: {decision.reason}{detail}")
    elif decision.reason != Reason.PINNED.value:
        output.warn(f"{tenant} gets {decision.version} now: {decision.reason}")


@app.command("unpin")
@with_store
async def unpin(session: Session, model: Model, tenant: Tenant, key: SigningKey = None) -> None:
    """Let a tenant go where the rules send it."""
    sign_with(session, key)
    if not await session.store.delete_pin(model, tenant):
        error = NotFoundError(f"{model}: {tenant} is not pinned")
        raise advised(error, f"`rmv pins {model}` lists who is.")
    if session.as_json:
        output.emit({"model": model, "tenant": tenant, "version": None})
        return
    output.say(f"{model}: {tenant} is no longer pinned")


@app.command("pins")
@with_store
async def pins(session: Session, model: MaybeModel = "") -> None:
    """List the pinned tenants of a model, or of all."""
    if not model:
        await _all_pins(session)
        return
    found = await _pins(session.store, model)
    if not found:
        await expect_model(session.store, model)
    if session.as_json:
        output.emit(found)
        return
    output.table(("TENANT", "VERSION", "ENDS IN"), map(_row, found))


async def _all_pins(session: Session) -> None:
    store = session.store
    found = {model: await _pins(store, model) for model in await store.named_models()}
    if session.as_json:
        output.emit({model: listed for model, listed in found.items() if listed})
        return
    rows = [(model, *_row(one)) for model, listed in found.items() for one in listed]
    output.table(("MODEL", "TENANT", "VERSION", "ENDS IN"), rows)


async def _pins(store: Store, model: str) -> list[Pin]:
    """Return the pins of a model by tenant; of a name that none can have, none."""
    try:
        versions = await versions_of(store, model)
    except BadNameError:
        return []
    marked = marked_pins(store, model, versions)
    return sorted([one async for one in marked], key=lambda one: one.tenant)


def _row(one: Pin) -> tuple[str, str, str]:
    ends_in = durations.spell(one.ttl_s) if one.ttl_s else ""
    return one.tenant, spell(one.version, one.fault), ends_in
