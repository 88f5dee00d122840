"""`rmv lineage`: what versions were made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
import typer

from sidecar.cli import output
from sidecar.cli.lookup import policy_of, revision_of, version_named
from sidecar.cli.options import commands
from sidecar.cli.session import Session, with_store
from sidecar.cli.targets import Target, split
from sidecar.model.policy import Column, Lineage, Policy
from sidecar.policy import codec
from sidecar.policy.lineage import digest
from sidecar.store.base import Store
from sidecar.store.committed import expect_committed

app = commands()


@app.command("lineage")
@with_store
async def lineage(
    session: Session,
    *,
    target: Target,
    revision: Annotated[
        int | None, typer.Option(min=1, help="As it was in this revision.", metavar="N")
    ] = None,
) -> None:
    """Show what a version was made from, and the digest of it."""
    model, named = split(target)
    policy = await _policy(session.store, model, revision)
    names = [version_named(policy, named)] if named else list(policy.versions)
    if session.as_json:
        told = [_as_json(policy, name) for name in names]
        output.emit(told[0] if named else told)
    elif named:
        _tell(policy, names[0])
    else:
        _list(policy)


async def _policy(store: Store, model: str, revision: int | None) -> Policy:
    if revision is None:
        return await policy_of(store, model)
    entry = await revision_of(store, model, revision)
    expect_committed(entry, model)
    return codec.decode(entry.document, source=f"revision {revision} of {model}")


def _as_json(policy: Policy, name: str) -> dict[str, object]:
    version = policy.versions[name]
    return {
        "model": policy.model,
        "version": name,
        "revision": policy.revision,
        "digest": digest(version) or None,
        "lineage": msgspec.to_builtins(version.lineage),
    }


def _list(policy: Policy) -> None:
    rows = []
    for name, version in policy.versions.items():
        one = version.lineage or Lineage()
        rows.append((name, digest(version)[:19], one.run, one.git[:12], one.owner, one.registry))
    output.table(("VERSION", "DIGEST", "RUN", "GIT", "OWNER", "REGISTRY"), rows)


def _tell(policy: Policy, name: str) -> None:
    version = policy.versions[name]
    if version.lineage is None:
        output.say(
            f"{policy.model}@{name}: what it was made from is not told (revision {policy.revision})"
        )
        return
    output.facts(
        [
            ("version", f"{policy.model}@{name}"),
            ("revision", str(policy.revision)),
            ("digest", digest(version)),
            *_facts(version.lineage),
        ]
    )


def _facts(one: Lineage) -> Iterator[tuple[str, str]]:
    yield "registry", one.registry
    yield "run", one.run
    yield "git", one.git
    for data in one.training_data:
        yield "training data", f"{data.name} {data.digest}"
    if one.feature_set is not None:
        yield "feature set", f"{one.feature_set.service} {one.feature_set.digest}"
    yield "config", one.config or ""
    yield "image", one.image or ""
    if one.signature is not None:
        yield "takes", _columns(one.signature.inputs)
        yield "gives", _columns(one.signature.outputs)
        yield "may be set", _columns(one.signature.params)
    yield "owner", one.owner
    yield "created", one.created or ""


def _columns(columns: Iterable[Column]) -> str:
    return ", ".join(map(_column, columns))


def _column(one: Column) -> str:
    shape = "" if one.shape is None else f"[{','.join(map(str, one.shape))}]"
    name = f"{one.name}{'?' if one.optional else ''}: " if one.name else ""
    return f"{name}{one.type}{shape}"
