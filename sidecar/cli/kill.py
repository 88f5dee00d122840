"""`rmv kill`, `rmv unkill`: a version, or a whole model, switched off now."""

from __future__ import annotations

from typing import Annotated

import typer

from sidecar.cli import durations, output
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError, expect_version
from sidecar.cli.names import complete_target, complete_version
from sidecar.cli.options import Force, SigningKey, Ttl, commands
from sidecar.cli.session import Session, with_store
from sidecar.cli.signing import doubt_of_stored, sign_with
from sidecar.model.policy import Policy
from sidecar.policy.problem import PolicyError
from sidecar.store.base import Store
from sidecar.store.live import MAX_VALUE_BYTES
from sidecar.store.seal import MAX_SEAL_CHARS

Target = Annotated[
    str,
    typer.Argument(
        metavar="MODEL[:VERSION]",
        help="The model, or one version of it.",
        autocompletion=complete_target,
    ),
]
Version = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="The version, if not named before.",
        autocompletion=complete_version,
    ),
]

MAX_NAMED = 5
MAX_SIGNED_BYTES = MAX_VALUE_BYTES - MAX_SEAL_CHARS

app = commands()


@app.command("kill")
@with_store
async def kill(
    session: Session,
    *,
    target: Target,
    reason: Annotated[str, typer.Option(help="Why; everybody who looks is told.")],
    version: Version = "",
    ttl: Ttl = None,
    force: Force = False,
    key: SigningKey = None,
) -> None:
    """Switch a version off at once; without one, the whole model."""
    model, version = split(target, version)
    if not reason.strip():
        msg = "--reason needs words: they are what everybody reads who looks"
        raise typer.BadParameter(msg)
    sign_with(session, key)
    if session.store.signer is not None and len(reason.encode()) > MAX_SIGNED_BYTES:
        msg = f"--reason is too long to be signed: {MAX_SIGNED_BYTES} bytes are the most"
        raise typer.BadParameter(msg)
    policy = await expect_version(session.store, model, version, is_forced=force)
    if policy is not None and (doubt := await doubt_of_stored(session, policy)):
        output.warn(f"labels of {model} are taken for versions: its document is {doubt}")
        policy = None
    if policy is not None:  # a label may move on to a good version, which the kill must not follow
        version = policy.labels.get(version, version)
    await session.store.set_kill(model, version, reason, ttl_s=ttl)
    if version and policy is not None:
        await _warn_if_none_is_left(session.store, policy)
    if session.as_json:
        output.emit({"model": model, "version": version, "reason": reason, "ttl_s": ttl})
        return
    term = f" for {durations.spell(ttl)}" if ttl else ""
    output.say(f"{_named(model, version)} is switched off{term}: {reason}")


@app.command("unkill")
@with_store
async def unkill(
    session: Session, target: Target, version: Version = "", key: SigningKey = None
) -> None:
    """Switch a version, or the whole model, on again."""
    sign_with(session, key)
    model, named = split(target, version)
    if session.store.signer is not None:  # then it always can be ended
        named = await _killed(session, model, named)
    version, was_killed = named, await session.store.delete_kill(model, named)
    if not was_killed and (meant := await _meant(session, model, named)) != named:
        version, was_killed = meant, await session.store.delete_kill(model, meant)
    if not was_killed:
        raise await _not_killed(session, model, named)
    if session.as_json:
        output.emit({"model": model, "version": version, "reason": None})
        return
    output.say(f"{_named(model, version)} is on again")


def split(target: str, version: str) -> tuple[str, str]:
    """Return model and version of `MODEL`, `MODEL:VERSION` or `MODEL VERSION`."""
    model, colon, named = target.partition(":")
    if colon and not named:
        msg = f"`{target}` names no version: without one, the whole model is meant"
        raise typer.BadParameter(msg)
    if named and version:
        msg = f"two versions are named: {named} and {version}"
        raise typer.BadParameter(msg)
    return model, named or version


async def _killed(session: Session, model: str, name: str) -> str:
    """Return the version that is switched off of those that a name may mean, else the name."""
    killed = {one.version for one in await session.store.kills(model)}
    meant = name if name in killed else await _meant(session, model, name)
    return meant if meant in killed else name


async def _not_killed(session: Session, model: str, version: str) -> NotFoundError:
    """Return what to say of a version that is on: what is off, which a label may have meant."""
    off = [_target(model, one.version) for one in await session.store.kills(model)]
    told = f"{', '.join(off[:MAX_NAMED])} is" if off else "nothing of this model is"
    meant = await _meant(session, model, version)
    is_label = f" (the label of {meant} now)" if meant != version else ""
    error = NotFoundError(f"{_named(model, version)}{is_label} is not switched off; {told}")
    ways = " or ".join(f"`rmv unkill {one}`" for one in off[:MAX_NAMED])
    return advised(error, f"{ways} switches it on.") if off else error


async def _meant(session: Session, model: str, name: str) -> str:
    """Return the version that a label means; any other name is its own.

    So is each where a command that signs may not go by what is stored.
    """
    try:
        stored = await session.store.get_policy(model)
    except PolicyError:
        return name
    if stored is None or name not in stored.policy.labels:
        return name
    if doubt := await doubt_of_stored(session, stored.policy):
        output.warn(f"{name} is taken for a version: the document of {model} is {doubt}")
        return name
    return stored.policy.labels[name]


async def _warn_if_none_is_left(store: Store, policy: Policy) -> None:
    killed = {one.version for one in await store.kills(policy.model) if not one.fault}
    if killed.issuperset(policy.versions):
        output.warn(
            f"every version of {policy.model} is switched off: its callers get 503 or 409 now"
        )


def _target(model: str, version: str) -> str:
    return f"{model}:{version}" if version else model


def _named(model: str, version: str) -> str:
    return f"{model}:{version}" if version else f"{model} (the whole model)"
