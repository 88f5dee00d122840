"""`rmv import mlflow` and `rmv sync mlflow`: lineages and labels from an MLflow server."""

from __future__ import annotations

import os
import sys
from enum import Enum
from typing import Annotated, NamedTuple

import msgspec
import typer

from sidecar.cli import output
from sidecar.cli.committing import commit
from sidecar.cli.lookup import NotFoundError, stored_of, version_named
from sidecar.cli.options import Actor, Comment, SigningKey, commands, one_of, user
from sidecar.cli.review import as_json, show
from sidecar.cli.session import Session, with_store
from sidecar.cli.signing import expect_believed, sign_with
from sidecar.cli.targets import split
from sidecar.errors import RegistryError
from sidecar.model.policy import Lineage, Name, Policy, Signature
from sidecar.policy import document
from sidecar.policy.diff import diff
from sidecar.policy.lineage import digest
from sidecar.policy.problem import PolicyError
from sidecar.policy.validate import validate
from sidecar.registry.mapping import Mapped, lineage_of, signature_of
from sidecar.registry.mlflow import Mlflow, ModelVersion
from sidecar.store.base import StoredPolicy

app = commands()


class Registry(Enum):
    """What can be read."""

    MLFLOW = "mlflow"


From = Annotated[
    Registry, typer.Argument(metavar="mlflow", help="What is read.", parser=one_of(Registry))
]
TrackingUri = Annotated[
    str,
    typer.Option(
        envvar="MLFLOW_TRACKING_URI",
        show_envvar=False,
        help="Its server, http or https (MLFLOW_TRACKING_URI).",
        metavar="URL",
    ),
]
Registered = Annotated[
    str, typer.Option("--model", help="The registered model, as it is called there.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")
]


class Outcome(Enum):
    """What becomes of an alias."""

    SET = "set"
    MOVED = "moved"
    ALREADY = "already"
    NO_VERSION = "no such version"
    TAKEN = "a version is called so"
    NO_NAME = "no name for a label"


class Aliased(NamedTuple):
    """An alias, the version it means there and here, and what becomes of it as a label."""

    alias: str
    registered: str
    version: str
    before: str
    outcome: Outcome


@app.command("import")
@with_store
async def import_(
    session: Session,
    *,
    registry: From,
    tracking_uri: TrackingUri,
    registered: Registered,
    version: Annotated[str, typer.Option(help="Its version there.", metavar="NUMBER")] = "",
    alias: Annotated[str, typer.Option(help="Or an alias of it there.")] = "",
    as_: Annotated[
        str,
        typer.Option(
            "--as",
            help="Which it is here; default: the model of that name, and its version that was read"
            " from there before, or is called 3 or v3.",
            metavar="[MODEL@]VERSION",
        ),
    ] = "",
    dry_run: DryRun = False,
    comment: Comment = "",
    actor: Actor = None,
    key: SigningKey = None,
) -> None:
    """Take the lineage of a version from an MLflow server.

    The policy has the version already, with its endpoints; its lineage is replaced, in one commit.
    """
    if bool(version) == bool(alias):
        msg = "name what to read: --version or --alias, one of both"
        raise typer.BadParameter(msg)
    model, wanted = _target(as_, registered)
    sign_with(session, key)
    stored = await stored_of(session.store, model)
    await expect_believed(session, stored.policy, f"what is stored of {model}")
    async with _server(tracking_uri) as server:
        if alias:
            found = await server.version_of_alias(registered, alias)
        else:
            found = await server.version(registered, version)
        name = _named(stored.policy, wanted, server.page(found), found)
        mapped = await _read(server, found)
    for one in mapped.notes:
        output.note(f"note: {one}")
    changed = _with_lineage(stored.policy, name, mapped.lineage)
    said = comment or f"lineage of {name} from MLflow: {registered} version {found.version}"
    now = await _commit(session, stored, changed, said, actor, dry_run=dry_run)
    changes = diff(stored.policy, changed)
    if session.as_json:
        told = {"model": model, "version": name, "digest": digest(changed.versions[name])}
        output.emit({**told, "revision": now, "changes": as_json(changes), "notes": mapped.notes})
        return
    was = "" if changes else " already"
    output.say(
        f"{model}@{name}: lineage {digest(changed.versions[name])}{was} ({_at(now, dry_run)})"
    )
    show(changes, sys.stdout)


@app.command("sync")
@with_store
async def sync(
    session: Session,
    *,
    registry: From,
    tracking_uri: TrackingUri,
    registered: Registered,
    as_: Annotated[
        str,
        typer.Option("--as", help="The model here; default: of the same name.", metavar="MODEL"),
    ] = "",
    dry_run: DryRun = False,
    comment: Comment = "",
    actor: Actor = None,
    key: SigningKey = None,
) -> None:
    """Move labels to where aliases of an MLflow server are.

    In one commit. Aliases of versions that the policy does not have are told and left out; labels
    that are no alias there stay where they are.
    """
    model = as_ or registered
    sign_with(session, key)
    stored = await stored_of(session.store, model)
    await expect_believed(session, stored.policy, f"what is stored of {model}")
    async with _server(tracking_uri) as server:
        aliases = await server.aliases(registered)
        pages = {
            number: server.page(ModelVersion(registered, number)) for number in aliases.values()
        }
    found = [
        _aliased(stored.policy, alias, number, pages[number]) for alias, number in aliases.items()
    ]
    moves = {one.alias: one.version for one in found if one.outcome in _CHANGING}
    changed = msgspec.structs.replace(stored.policy, labels={**stored.policy.labels, **moves})
    told = ", ".join(f"{label} is {version}" for label, version in moves.items())
    now = await _commit(
        session, stored, changed, comment or f"aliases of MLflow: {told}", actor, dry_run=dry_run
    )
    left = sorted(stored.policy.labels.keys() - aliases.keys())
    if session.as_json:
        rows = [{**one._asdict(), "outcome": one.outcome.value} for one in found]
        output.emit({"model": model, "revision": now, "aliases": rows, "left": left})
        return
    _tell(model, found, f"{len(moves)} changed ({_at(now, dry_run)})")
    if left:
        output.note(f"note: no alias there, and left as they are: {', '.join(left)}")


_CHANGING = frozenset({Outcome.SET, Outcome.MOVED})


def _server(tracking_uri: str) -> Mlflow:
    server = Mlflow(tracking_uri, os.environ)
    if server.sends_secrets_in_clear:
        output.warn(f"{server.uri} is asked without TLS: the password or token can be read")
    return server


def _target(as_: str, registered: str) -> tuple[str, str]:
    """Return model and version of `--as`; an empty version is to be found out."""
    if "@" in as_ or ":" in as_:
        return split(as_)
    return registered, as_


def _named(policy: Policy, wanted: str, page: str, found: ModelVersion) -> str:
    """Return which version of a policy is meant; raises NotFoundError."""
    if wanted:
        return version_named(policy, wanted)
    name = _same(policy, page, found.version)
    if name is None:
        known = ", ".join(policy.versions)
        msg = (
            f"the policy of {policy.model} has no version {found.version} or v{found.version}, and "
            f"none that was read from there; it has {known}: name one of them with --as, or add it "
            "with its endpoints first"
        )
        raise NotFoundError(msg)
    return name


def _same(policy: Policy, page: str, number: str) -> str | None:
    """Return the version of a policy that a registered version is, by its lineage or its name."""
    names = (number, f"v{number}")
    read = [
        name
        for name, version in policy.versions.items()
        if version.lineage is not None and version.lineage.registry == page
    ]
    if read:
        return next((name for name in names if name in read), read[0])
    return next((name for name in names if _may_be(policy, name, page)), None)


def _may_be(policy: Policy, name: str, page: str) -> bool:
    """Return whether a policy has a version of this name, and it is not known to be another one."""
    version = policy.versions.get(name)
    if version is None:
        return False
    known = "" if version.lineage is None else version.lineage.registry
    return not known or _model_page(known) != _model_page(page)


def _model_page(page: str) -> str:
    return page.rpartition("/")[0]


async def _read(server: Mlflow, found: ModelVersion) -> Mapped:
    run = await server.run(found.run_id) if found.run_id else None
    signature, why_not = _signature(await server.description(found))
    mapped = lineage_of(found, run, signature, server.page(found))
    notes = mapped.notes
    if run is None:
        notes += ("MLflow knows no run of it: neither data nor parameters can be told",)
    if why_not:
        notes += (why_not,)
    return Mapped(mapped.lineage, notes)


def _signature(described: bytes | None) -> tuple[Signature | None, str]:
    """Return the signature in a file `MLmodel`, or why there is none."""
    if described is None:
        return None, "the server does not hand out MLmodel: the signature is not told"
    try:
        plain = document.read(described.decode("utf-8", "replace"), "MLmodel")
        found = signature_of(plain)
    except (PolicyError, RegistryError) as error:
        return None, f"the signature is not told: {error}"
    return found, "" if found else "MLmodel tells no signature"


def _with_lineage(policy: Policy, name: str, lineage: Lineage) -> Policy:
    version = msgspec.structs.replace(policy.versions[name], lineage=lineage)
    changed = msgspec.structs.replace(policy, versions={**policy.versions, name: version})
    problems = validate(changed, "MLflow")
    if problems:
        raise PolicyError(problems)
    return changed


async def _commit(
    session: Session,
    stored: StoredPolicy,
    changed: Policy,
    comment: str,
    actor: str | None,
    *,
    dry_run: bool,
) -> int:
    """Commit a policy if it says something else than what is stored; return its revision."""
    if dry_run or changed == stored.policy:
        return stored.policy.revision
    return await commit(session.store, changed, stored.raw, actor or user(), comment)


def _aliased(policy: Policy, alias: str, number: str, page: str) -> Aliased:
    version, before = _same(policy, page, number) or "", policy.labels.get(alias, "")
    if not version:
        outcome = Outcome.NO_VERSION
    elif alias in policy.versions:
        outcome = Outcome.TAKEN
    elif not _is_name(alias):
        outcome = Outcome.NO_NAME
    elif before == version:
        outcome = Outcome.ALREADY
    else:
        outcome = Outcome.MOVED if before else Outcome.SET
    return Aliased(alias, number, version, before, outcome)


def _is_name(alias: str) -> bool:
    try:
        msgspec.convert(alias, Name)
    except msgspec.ValidationError:
        return False
    return True


def _at(revision: int, dry_run: bool) -> str:
    return "dry run" if dry_run else f"revision {revision}"


def _tell(model: str, found: list[Aliased], summary: str) -> None:
    rows = [
        (one.alias, one.registered, one.version, one.before, one.outcome.value) for one in found
    ]
    if rows:
        output.table(("ALIAS", "THERE", "HERE", "WAS", "OUTCOME"), rows)
    output.say(f"{model}: {summary if rows else 'it has no alias there'}")
