"""`rmv verify`: who signed what a store holds, and whether it is still what they signed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sidecar.cli import documents, output
from sidecar.cli.names import MaybeModel
from sidecar.cli.options import commands
from sidecar.cli.review import decoded
from sidecar.cli.session import Session, failing_with, with_store
from sidecar.cli.signing import trusted
from sidecar.errors import ConfigError
from sidecar.model.policy import Policy
from sidecar.policy.problem import PolicyError
from sidecar.runtime.clock import SystemClock
from sidecar.runtime.ed25519 import PublicKey, load_public
from sidecar.store import seal
from sidecar.store.base import HistoryEntry, Store
from sidecar.store.committed import MAX_REVISIONS, fault_of
from sidecar.store.keys import KillKey, PinKey
from sidecar.store.seal import Cause, Keyring

UNSIGNED = 1
TROUBLE = 2

_GOOD = "signed"
_EXEMPT = "exempt"

app = commands()


class Checked(msgspec.Struct, frozen=True):
    """One thing of a model, and what its signature says.

    `kind` is `policy`, `pin`, `kill`, `revision` (of the history) or `file`; `name` the tenant,
    version, number or path. `state` is `signed`, `exempt` (a kill without a signature, which
    `signing.exempt_kills` allows), or why it is not believed; `key` the id of the key
    that it says it is signed by, and `file` that of the public key, if that is trusted. `detail`
    says what it is: a version, a reason, `ended`.
    """

    model: str
    kind: str
    name: str
    state: str
    key: str = ""
    file: str = ""
    detail: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether it would not be believed, or of what is past, whether it was tampered with."""
        is_past = self.kind == "revision" and self.state != Cause.FORGED.value
        return self.state not in {_GOOD, _EXEMPT} and not is_past


class Verifier:
    """Checks against some keys, by the file that each is from."""

    def __init__(self, keys: Mapping[str, PublicKey], *, exempts_kills: bool = False) -> None:
        self._exempts_kills = exempts_kills
        self._ring = Keyring(keys.values())
        self._files = {key.id: file for file, key in keys.items()}

    def policy(self, policy: Policy, kind: str, name: str, detail: str = "") -> Checked:
        """Check a policy, wherever it is from."""
        cause = self._ring.fault_of_policy(policy)
        state = cause.value if cause else _GOOD
        return self._checked(policy.model, kind, name, state, seal.signer_of(policy), detail)

    def mark(self, key: PinKey | KillKey, text: str, now_s: float) -> Checked:
        """Check a pin or kill."""
        mark = seal.read(text)
        cause = self._ring.fault_of_mark(key, mark)
        until_ms = mark.seal.until_ms if mark.seal else 0
        if cause is None and until_ms and until_ms <= now_s * 1000:
            cause = Cause.EXPIRED
        kind, name = ("pin", key.tenant) if isinstance(key, PinKey) else ("kill", key.version)
        state = cause.value if cause else _GOOD
        if cause is Cause.UNSIGNED and self._exempts_kills and isinstance(key, KillKey):
            state = _EXEMPT
        detail = "ended" if mark.in_force is None else mark.value
        return self._checked(
            key.model, kind, name, state, mark.seal.key_id if mark.seal else "", detail
        )

    def _checked(
        self, model: str, kind: str, name: str, state: str, key: str, detail: str
    ) -> Checked:
        return Checked(model, kind, name, state, key, self._files.get(key, ""), detail)


@app.command("verify")
@failing_with(TROUBLE)
@with_store
async def verify(
    session: Session,
    model: MaybeModel = "",
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", help="Look at these documents and at no store.", metavar="PATH"
        ),
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            help="A public key, in the place of signing.trusted; may be repeated.", metavar="FILE"
        ),
    ] = None,
) -> None:
    """Tell what is signed, and by which key.

    Each document, pin, kill and revision is looked at. Exit status: 0 all are signed by keys that
    are trusted, 1 some are not, 2 trouble. Revisions count only if they were tampered with: those
    of the past may be of no key, or of one that is no longer trusted.
    """
    keys = {str(path): load_public(path) for path in trust or ()} or trusted(session.config)
    if not keys:
        msg = "--trust FILE, or signing.trusted of the settings, has to name whom to believe"
        raise ConfigError(msg)
    verifier = Verifier(keys, exempts_kills=session.config.signing.exempt_kills)
    if file:
        found = _of_files(file, verifier)
    else:
        models = [model] if model else await session.store.named_models()
        found = [one for name in models async for one in _of_model(session.store, name, verifier)]
    _tell(found, session)
    if any(one.is_wrong for one in found):
        raise typer.Exit(UNSIGNED)


def _tell(found: Iterable[Checked], session: Session) -> None:
    if session.as_json:
        output.emit(found)
        return
    rows, colours = [], list[output.Colour | None]()
    for one in found:
        by = one.file or one.key
        rows.append((one.model, one.kind, one.name, one.state, by, one.detail))
        colours.append("red" if one.is_wrong else None)
    output.table(("MODEL", "KIND", "NAME", "STATE", "KEY", "SAYS"), rows, colours)


def _of_files(files: Iterable[Path], verifier: Verifier) -> list[Checked]:
    found = documents.read(files)
    if found.problems:
        raise PolicyError(found.problems)
    return [
        verifier.policy(policy, "file", source, f"revision {policy.revision}")
        for source, policy in found.policies.items()
    ]


async def _of_model(store: Store, model: str, verifier: Verifier) -> AsyncIterator[Checked]:
    past = [_of_entry(one, model, verifier) for one in await store.history(model, MAX_REVISIONS)]
    signed = [int(one.name) for one in past if one.state == _GOOD]
    told = [one.revisions.get(model, 0) for one in await store.fleet(model)]
    stored = await _of_policy(store, model, verifier, max([0, *signed, *told]))
    if stored is not None:
        yield stored
    now_s = SystemClock().now_s()
    async for key, text, _ in store.marks(model):
        yield verifier.mark(key, text, now_s)
    for one in past:
        yield one


async def _of_policy(store: Store, model: str, verifier: Verifier, newest: int) -> Checked | None:
    """Check the document of a model, of which revision `newest` is known."""
    try:
        raw = await store.get_document(model)
        policy = None if raw is None else decoded(raw)
    except PolicyError:
        raw, policy = b"", None
    if raw is None:
        return None
    if policy is None or policy.model != model:
        said = "no policy of this model"
        return Checked(model, "policy", model, Cause.FORGED.value, detail=said)
    detail = "deleted" if policy.deleted else f"revision {policy.revision}"
    found = verifier.policy(policy, "policy", model, detail)
    if found.state == _GOOD and policy.revision < newest:
        detail = f"{detail}, after {newest} was in force"
        return msgspec.structs.replace(found, state=Cause.OLDER.value, detail=detail)
    return found


def _of_entry(entry: HistoryEntry, model: str, verifier: Verifier) -> Checked:
    policy, number = decoded(entry.document), str(entry.revision)
    if policy is None or fault_of(entry, model) or policy.revision != entry.revision:
        detail = fault_of(entry, model) or "not what was committed as this revision"
        return Checked(model, "revision", number, Cause.FORGED.value, detail=detail)
    return verifier.policy(policy, "revision", number, entry.comment)
