"""`rmv get`, `rmv history`: policies as they are stored, and as they were."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Annotated

import msgspec
import typer
import yaml

from sidecar.cli import durations, output
from sidecar.cli.failure import in_words
from sidecar.cli.lookup import NO_POLICY, document_of, expect_model, revision_of
from sidecar.cli.marks import spell
from sidecar.cli.names import Model, complete_model
from sidecar.cli.options import commands, one_of
from sidecar.cli.session import Session, with_store
from sidecar.errors import SidecarError
from sidecar.model.policy import Policy
from sidecar.policy import codec
from sidecar.policy.problem import PolicyError
from sidecar.store.base import HistoryEntry, Store
from sidecar.store.committed import expect_committed, fault_of

app = commands()


class Form(Enum):
    """How documents are spelled."""

    YAML = "yaml"
    JSON = "json"


@app.command("get")
@with_store
async def get(
    session: Session,
    model: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL", help="Which models; default: all.", autocompletion=complete_model
        ),
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--output",
            "-o",
            parser=one_of(Form),
            help="Print whole documents.",
            metavar="yaml|json",
            autocompletion=lambda: [one.value for one in Form],
        ),
    ] = None,
    revision: Annotated[
        int | None, typer.Option(min=1, help="As it was; of one model.", metavar="REVISION")
    ] = None,
) -> None:
    """List the policies, or print the documents of some.

    Models that are named, and with --output all, are printed as documents that `rmv apply` takes.
    """
    if session.as_json:
        form = Form.JSON
    elif form is None and model:
        form = Form.YAML
    if form is Form.YAML and model and revision is None:
        await _print_named(session.store, model)
        return
    broken: list[str] = []
    if revision is not None:
        policies = [await _as_it_was(session, model or (), revision)]
    else:
        policies, broken = await _all(session, model)
    match form:
        case Form.YAML:
            print("---\n".join(map(_as_yaml, policies)), end="")
        case Form.JSON:
            output.emit(policies[0] if model and len(model) == 1 else policies)
        case None:
            _list(policies, broken)


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
        output.emit(
            [
                {name: getattr(one, name) for name in fields} | {"fault": fault_of(one, model)}
                for one in entries
            ]
        )
        return
    rows = [_row(one, model) for one in entries]
    output.table(("REVISION", "AT", "ACTOR", "DIGEST", "COMMENT"), rows)


def _row(entry: HistoryEntry, model: str) -> tuple[str, ...]:
    said = spell(entry.comment, fault_of(entry, model))
    at = durations.clock(entry.at_s)
    return str(entry.revision), at, entry.actor, entry.digest[:12], said


async def _as_it_was(session: Session, models: Sequence[str], revision: int) -> Policy:
    if len(models) != 1:
        msg = "--revision is of one model: rmv get MODEL --revision 1"
        raise typer.BadParameter(msg)
    entry = await revision_of(session.store, models[0], revision)
    expect_committed(entry, models[0])
    return codec.decode(entry.document, source=f"revision {revision} of {models[0]}")


async def _print_named(store: Store, models: Sequence[str]) -> None:
    """Print documents as YAML; one that is not valid as it is stored, for what is wrong is told."""
    wrong: list[PolicyError] = []
    for number, model in enumerate(dict.fromkeys(models)):
        try:
            text = _as_yaml(await document_of(store, model))
        except PolicyError as error:
            wrong.append(error)
            raw = await store.get_document(model) or b""
            text = output.plain_lines(raw.decode("utf-8", "surrogateescape")).rstrip("\n") + "\n"
        print("---\n" if number else "", text, sep="", end="")
    if len(wrong) > 1:
        raise SidecarError("\n".join(map(in_words, wrong)))
    if wrong:
        raise wrong[0]


async def _all(session: Session, models: Sequence[str] | None) -> tuple[list[Policy], list[str]]:
    """Return policies, and the models whose documents are not valid; of those named, all are."""
    policies: list[Policy] = []
    broken: list[str] = []
    for model in dict.fromkeys(models or await session.store.models()):
        try:
            policies.append(await document_of(session.store, model))
        except PolicyError:
            if models:
                raise
            broken.append(model)
            output.warn(f"{model}: the stored document is not valid: see `rmv status`")
    return policies, broken


def _list(policies: Sequence[Policy], broken: Sequence[str]) -> None:
    if not policies and not broken:
        output.note(NO_POLICY)
        return
    rows = [
        (one.model, str(one.revision), ", ".join(one.versions), one.default or "", one.actor)
        for one in policies
    ]
    rows += [(model, "invalid", "", "", "") for model in broken]
    output.table(("MODEL", "REVISION", "VERSIONS", "DEFAULT", "ACTOR"), sorted(rows))


def _as_yaml(policy: Policy) -> str:
    document = msgspec.to_builtins(policy)
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    if output.is_plain(text):
        return text
    return yaml.safe_dump(document, sort_keys=False)  # the same, with every odd character escaped
