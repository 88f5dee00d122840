"""`rmv label`: a label moved to another version, in one commit."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
import typer

from sidecar.cli import output
from sidecar.cli.committing import commit
from sidecar.cli.lookup import NotFoundError, stored_of, version_named
from sidecar.cli.names import Model, complete_label, complete_version
from sidecar.cli.options import Actor, Comment, SigningKey, Timeout, Wait, commands, user
from sidecar.cli.session import Session, with_store
from sidecar.cli.signing import expect_believed, sign_with
from sidecar.cli.waiting import wait_for
from sidecar.errors import SidecarError
from sidecar.model.policy import Policy
from sidecar.policy.problem import PolicyError
from sidecar.runtime.clock import SystemClock

_RULE = re.compile(r"rules\[(\d+)\]")

app = commands()


class LabelInUseError(SidecarError):
    """A label cannot be taken away, as the policy uses it; the text says where."""


@app.command("label")
@with_store
async def label(
    session: Session,
    *,
    model: Model,
    name: Annotated[
        str,
        typer.Argument(metavar="LABEL", help="The label.", autocompletion=complete_label),
    ],
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION",
            help="The version, or a label of it.",
            autocompletion=complete_version,
            show_default=False,
        ),
    ] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Take the label away.")] = False,
    comment: Comment = "",
    actor: Actor = None,
    wait: Wait = False,
    timeout_s: Timeout = None,
    key: SigningKey = None,
) -> None:
    """Move a label to a version.

    What names the label means that version from now on.
    """
    if bool(version) == remove:
        msg = "name the version that the label moves to, or --remove it: one of both"
        raise typer.BadParameter(msg)
    sign_with(session, key)
    stored = await stored_of(session.store, model)
    await expect_believed(session, stored.policy, f"what is stored of {model}")
    policy, before = stored.policy, stored.policy.labels.get(name)
    if remove and before is None:
        msg = f"{model} has no label `{name}`; it has {', '.join(policy.labels) or 'none'}"
        raise NotFoundError(msg)
    after = None if remove else version_named(policy, version)
    began_s, now = SystemClock().monotonic_s(), policy.revision
    if after != before:
        wanted = _moved(policy, name, after)
        said = comment or _said(name, after)
        try:
            now = await commit(session.store, wanted, stored.raw, actor or user(), said)
        except PolicyError as error:
            if after is not None:
                raise
            raise _in_use(policy, name, error) from error
    if not session.as_json:
        was = " already" if after == before else f", was {before}" if before else ""
        output.say(f"{model}: {_said(name, after)}{was} (revision {now})")
    waited = await wait_for(session, {model: now}, began_s, timeout_s) if wait else None
    if session.as_json:
        told = {"model": model, "label": name, "version": after, "before": before}
        output.emit({**told, "revision": now, "waited": waited})


def _in_use(policy: Policy, name: str, error: PolicyError) -> LabelInUseError:
    """Return who would name a version that is not there, were a label taken away."""
    places = (_RULE.match(one.path) for one in error.problems)
    users = [
        f"rule {policy.rules[int(rule[1])].id}" if rule else one.path
        for one, rule in zip(error.problems, places, strict=True)
    ]
    told = ", ".join(dict.fromkeys(users))
    return LabelInUseError(f"{policy.model}: label {name} is used by {told}")


def _moved(policy: Policy, name: str, version: str | None) -> Policy:
    labels = {one: of for one, of in policy.labels.items() if one != name}
    if version is not None:
        labels[name] = version
    return msgspec.structs.replace(policy, labels=labels)


def _said(name: str, version: str | None) -> str:
    return f"label {name} removed" if version is None else f"{name} is {version}"
