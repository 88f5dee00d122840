"""`rmv pin`, `rmv unpin`, `rmv pins`: one tenant held to one version."""

from __future__ import annotations

import typer

from sidecar.cli import durations, output
from sidecar.cli.lookup import NotFoundError, expect_model, expect_version, versions_of
from sidecar.cli.marks import marked_pins, spell
from sidecar.cli.names import Model, Version
from sidecar.cli.options import Force, Tenant, Ttl, commands
from sidecar.cli.session import Session, with_store
from sidecar.model.identity import MAX_TENANT_CHARS, is_tenant

app = commands()


@app.command("pin")
@with_store
async def pin(
    session: Session,
    model: Model,
    tenant: Tenant,
    version: Version,
    ttl: Ttl = None,
    force: Force = False,
) -> None:
    """Hold a tenant to a version, whatever the rules say."""
    if not is_tenant(tenant):
        msg = (
            f"no token can have the tenant `{tenant}`: it is printable ASCII, without blanks"
            f" around it, at most {MAX_TENANT_CHARS} characters"
        )
        raise typer.BadParameter(msg)
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
    versions = await versions_of(session.store, model)
    marked = marked_pins(session.store, model, versions)
    found = sorted([one async for one in marked], key=lambda one: one.tenant)
    if not found:
        await expect_model(session.store, model)
    if session.as_json:
        output.emit(found)
        return
    rows = [
        (
            one.tenant,
            spell(one.version, one.fault),
            durations.spell(one.ttl_s) if one.ttl_s else "",
        )
        for one in found
    ]
    output.table(("TENANT", "VERSION", "ENDS IN"), rows)
