"""Commands that sign what they write, and what they may go by then."""

from __future__ import annotations

from sidecar.cli import output
from sidecar.cli.failure import advised
from sidecar.cli.review import is_behind
from sidecar.cli.session import Session
from sidecar.config import Config
from sidecar.errors import SidecarError
from sidecar.model.policy import Policy
from sidecar.runtime.ed25519 import PublicKey, load_private, load_public
from sidecar.store.seal import WORDS, Keyring, Signer


class UnbelievedError(SidecarError):
    """What is stored is not signed by anybody who is trusted, so nothing may be made from it."""


def sign_with(session: Session, key: str | None) -> None:
    """Have everything that a command writes signed, if it is given a file with a key.

    Raises:
        KeyFileError: the file holds no private key.
    """
    if not key and session.config.signing.trusted:
        output.warn("this is not signed, so no sidecar of these settings believes it: --key signs")
    if key:
        session.store.sign_with(Signer(load_private(key)))


def trusted(config: Config) -> dict[str, PublicKey]:
    """Return the keys of `signing.trusted` by file; raises KeyFileError."""
    return {file: load_public(file) for file in config.signing.trusted}


def doubt_of(session: Session, policy: Policy) -> str:
    """Return why a command that signs may not go by a stored policy, or nothing.

    Whoever can write to the store would have it signed by the very command that changes a part.
    """
    signer = session.store.signer
    if signer is None:
        return ""
    keys = [*trusted(session.config).values(), signer.public]
    cause = Keyring(keys).fault_of_policy(policy)
    return WORDS[cause] if cause else ""


async def doubt_of_stored(session: Session, policy: Policy) -> str:
    """Return what `doubt_of` does of what is stored now, which may be a signed copy of before."""
    doubt = doubt_of(session, policy)
    if not doubt and session.store.signer is not None and await is_behind(session.store, policy):
        doubt = "sidecars decide by a newer revision"
    return doubt


async def expect_believed(session: Session, policy: Policy, what: str) -> None:
    """Raise UnbelievedError where a command that signs goes by a policy which nobody signed."""
    if doubt := await doubt_of_stored(session, policy):
        error = UnbelievedError(f"{what} is not to be signed anew: {doubt}")
        raise advised(error, "`rmv apply --key` of your own files takes its place.")
