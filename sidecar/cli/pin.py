"""`rmv pin`, `rmv unpin`, `rmv pins`: one tenant held to one version."""

from __future__ import annotations

from typing import Annotated

import typer

from sidecar.cli import durations, output
from sidecar.cli.lookup import NotFoundError, expect_version
from sidecar.cli.options import Force, Model, Tenant, Ttl, commands
from sidecar.cli.session import Session, with_store

app = commands()


@app.command("pin")
@with_store
async def pin(
    session: Session,
    model: Model,
    tenant: Tenant,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version.")],
    ttl: Ttl = None,
    force: Force = False,
) -> None:
    """Hold a tenant to a version, whatever the rules say."""
    await expect_version(session.store, model, version, is_forced=force)
    await session.store.set_pin(model, tenant, version, ttl_s=ttl)
    if session.as_json:
        output.emit({"model": model, "tenant": tenant, "version": version, "ttl_s": ttl})
        return
    term = f" for {durations.spell(ttl)}" if ttl else ""
    print(f"{model}: {tenant} is pinned to {version}{term}")


@app.command("unpin")
@with_store
async def unpin(session: Session, model: Model, tenant: Tenant) -> None:
    """Let a tenant go where the rules send it."""
    if not await session.store.delete_pin(model, tenant):
        msg = f"{model}: {tenant} is not pinned; `rmv pins {model}` lists who is"
        raise NotFoundError(msg)
    if session.as_json:
        output.emit({"model": model, "tenant": tenant, "version": None})
        return
    print(f"{model}: {tenant} is no longer pinned")


@app.command("pins")
@with_store
async def pins(session: Session, model: Model) -> None:
    """List the pinned tenants of a model."""
    found = sorted([one async for one in session.store.pins(model)], key=lambda one: one.tenant)
    if session.as_json:
        output.emit(found)
        return
    rows = [
        (one.tenant, one.version, durations.spell(one.ttl_s) if one.ttl_s else "") for one in found
    ]
    output.table(("TENANT", "VERSION", "ENDS IN"), rows)
