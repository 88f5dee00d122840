"""`rmv get`, `rmv history`: policies as they are stored, and as they were."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
import yaml

from sidecar.cli import output
from sidecar.cli.lookup import expect_model, policy_of
from sidecar.cli.options import Model, commands
from sidecar.cli.session import Session, with_store
from sidecar.model.policy import Policy
from sidecar.policy.problem import PolicyError

app = commands()


@app.command("get")
@with_store
async def get(
    session: Session,
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="The model.")] = None,
) -> None:
    """Print one policy as YAML that `rmv apply` takes, or list all."""
    if model is not None:
        _print_document(await policy_of(session.store, model), as_json=session.as_json)
        return
    policies: list[Policy] = []
    for name in await session.store.models():
        try:
            policies.append(await policy_of(session.store, name))
        except PolicyError:
            output.warn(f"{name}: the stored document is not valid: see `rmv status`")
    if session.as_json:
        output.emit(policies)
        return
    rows = [
        (one.model, str(one.revision), ", ".join(one.versions), one.default or "", one.actor)
        for one in policies
    ]
    output.table(("MODEL", "REVISION", "VERSIONS", "DEFAULT", "ACTOR"), rows)


@app.command("history")
@with_store
async def history(
    session: Session,
    model: Model,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many revisions.")] = 20,
) -> None:
    """List the revisions of a policy, newest first."""
    entries = await session.store.history(model, limit)
    if not entries:  # a model that was removed keeps its history
        await expect_model(session.store, model)
    if session.as_json:
        fields = ("revision", "actor", "comment", "at_s", "digest")
        output.emit([{name: getattr(one, name) for name in fields} for one in entries])
        return
    rows = [
        (str(one.revision), _spell(one.at_s), one.actor, one.digest[:12], one.comment)
        for one in entries
    ]
    output.table(("REVISION", "AT", "ACTOR", "DIGEST", "COMMENT"), rows)


def _print_document(policy: Policy, *, as_json: bool) -> None:
    if as_json:
        output.emit(policy)
        return
    document = msgspec.to_builtins(policy)
    print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), end="")


def _spell(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
