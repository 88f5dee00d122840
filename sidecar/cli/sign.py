"""`rmv sign`: everything of a store signed anew, by another key or for the first time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sidecar.cli import output
from sidecar.cli.committing import commit
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError
from sidecar.cli.names import MaybeModel
from sidecar.cli.options import Actor, SigningKey, commands, user
from sidecar.cli.review import is_behind
from sidecar.cli.session import Session, with_store
from sidecar.cli.signing import UnbelievedError, sign_with, trusted
from sidecar.errors import ConfigError
from sidecar.policy.diff import content
from sidecar.policy.problem import PolicyError
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.ed25519 import load_public
from sidecar.store import seal
from sidecar.store.keys import KillKey, PinKey
from sidecar.store.seal import Cause, Keyring, Signer

LEFT = 1
COMMENT = "signed anew"

app = commands()


class Outcome(msgspec.Struct, frozen=True):
    """What became of one thing: `signed`, `kept` (it is of this key already), or why it is left."""

    model: str
    kind: str
    name: str
    outcome: str

    @property
    def is_left(self) -> bool:
        """Whether it is still not signed by the key."""
        return self.outcome not in {"signed", "kept"}


class Resigner:
    """Signs what it may: what is believed, and with `takes_unsigned` what nobody has signed."""

    def __init__(
        self, session: Session, signer: Signer, believed: Keyring, *, takes_unsigned: bool
    ) -> None:
        self._store = session.store
        self._own = Keyring([signer.public])
        self._believed = believed
        self._takes_unsigned = takes_unsigned

    async def sign(self, model: str, actor: str) -> AsyncIterator[Outcome]:
        """Sign the policy, the kills and the pins of a model, but what is not to be signed.

        Pins and kills may be left of a model that has no policy any more.
        """
        if policy := await self._policy(model, actor):
            yield policy
        async for key, text, ttl_s in self._store.marks(model):
            yield await self._mark(key, text, ttl_s)

    async def _policy(self, model: str, actor: str) -> Outcome | None:
        try:
            stored = await self._store.get_policy(model)
        except PolicyError:
            return Outcome(model, "policy", model, "invalid")
        if stored is None:
            return None
        if self._own.fault_of_policy(stored.policy) is None:
            return Outcome(model, "policy", model, "kept")
        cause = self._believed.fault_of_policy(stored.policy)
        if cause is None and await is_behind(self._store, stored.policy):
            cause = Cause.OLDER  # a signed copy of before would be the newest, once signed anew
        if cause is None or (cause is Cause.UNSIGNED and self._takes_unsigned):
            said = msgspec.structs.replace(content(stored.policy), applied=stored.policy.applied)
            await commit(self._store, said, stored.raw, actor, COMMENT)
            return Outcome(model, "policy", model, "signed")
        return Outcome(model, "policy", model, cause.value)

    async def _mark(self, key: PinKey | KillKey, text: str, ttl_s: float | None) -> Outcome:
        kind, name = ("pin", key.tenant) if isinstance(key, PinKey) else ("kill", key.version)
        mark = seal.read(text)
        if self._own.fault_of_mark(key, mark) is None:
            return Outcome(key.model, kind, name, "kept")
        cause = self._believed.fault_of_mark(key, mark)
        if mark.seal is not None:  # what was signed, whatever its TTL has become
            until_ms = mark.seal.until_ms
            ttl_s = until_ms / 1000 - SystemClock().now_s() if until_ms else None
        if cause is None and ttl_s is not None and ttl_s <= 0:
            cause = Cause.EXPIRED
        if cause is not None and not (cause is Cause.UNSIGNED and self._takes_unsigned):
            return Outcome(key.model, kind, name, cause.value)
        await self._write(key, mark.in_force, ttl_s)
        return Outcome(key.model, kind, name, "signed")

    async def _write(self, key: PinKey | KillKey, value: str | None, ttl_s: float | None) -> None:
        """Sign a pin or kill, or its end: what went before it is still of the former key."""
        store = self._store
        if isinstance(key, KillKey):
            if value is None:
                await store.delete_kill(key.model, key.version)
            else:
                await store.set_kill(key.model, key.version, value, ttl_s)
        elif value is None:
            await store.delete_pin(key.model, key.tenant)
        else:
            await store.set_pin(key.model, key.tenant, value, ttl_s)


@app.command("sign")
@with_store
async def sign(
    session: Session,
    model: MaybeModel = "",
    *,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Also what nobody has signed: look at it first.")
    ] = False,
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            help="A public key, in the place of signing.trusted; may be repeated.", metavar="FILE"
        ),
    ] = None,
    actor: Actor = None,
    key: SigningKey = None,
) -> None:
    """Sign all policies, pins and kills anew.

    Those that are believed now, that is: nothing that was tampered with. Exit status: 0 all are
    signed by this key now, 1 some are left as they are.
    """
    sign_with(session, key)
    signer = session.store.signer
    if signer is None:
        msg = "--key FILE has to name the key to sign with"
        raise ConfigError(msg)
    keys = [load_public(path) for path in trust or ()] or [*trusted(session.config).values()]
    await _expect_newest(session)
    resigner = Resigner(session, signer, Keyring(keys), takes_unsigned=unsigned)
    models = [model] if model else await session.store.named_models()
    found = [one for name in models async for one in resigner.sign(name, actor or user())]
    if model and not found:
        raise advised(NotFoundError(f"the store has nothing of `{model}`"), "`rmv get` lists all.")
    if session.as_json:
        output.emit(found)
    else:
        rows = [(one.model, one.kind, one.name, one.outcome) for one in found]
        colours: list[output.Colour | None] = ["red" if one.is_left else None for one in found]
        output.table(("MODEL", "KIND", "NAME", "OUTCOME"), rows, colours)
    if any(one.is_left for one in found):
        raise typer.Exit(LEFT)


async def _expect_newest(session: Session) -> None:
    """Raise UnbelievedError while sidecars know newer texts of something: those go on with a copy.

    Which pin or kill that is only they know, and signed anew the copy would be the newest.
    """
    living = await session.store.fleet()
    if any(one.refused.get(Cause.OLDER.value) for one in living):
        msg = "sidecars refuse some of what is stored as older than what was signed before"
        advice = (
            "Their logs name it (`key cannot be followed`, `policy refused`): write it anew with "
            "--key, and then sign the rest."
        )
        raise advised(UnbelievedError(msg), advice)
