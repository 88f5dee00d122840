"""Who calls, as a token says it: read from a file, verified, and refused if it was taken back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sidecar.cli.failure import advised
from sidecar.cli.session import Session
from sidecar.config import Config
from sidecar.errors import Code, ConfigError
from sidecar.identity.issuers import issuer_of, verifier_of
from sidecar.identity.keys import KeySet, KeySetError
from sidecar.identity.refusal import TokenRefused
from sidecar.identity.sources import source_of
from sidecar.model.identity import Identity
from sidecar.model.issuer import IdentitySettings
from sidecar.store.base import Store

TokenFile = Annotated[
    str,
    typer.Option(
        "--token", help="A file with the caller's token; - reads it from stdin.", metavar="FILE"
    ),
]


async def caller_of(session: Session, file: str, now_s: float) -> Identity:
    """Return the caller whose token is in a file, `-` being standard input.

    It is verified by the identity settings of the session, and held against what its store has
    revoked. Raises ConfigError where that cannot be done, TokenRefused for a token that sidecars
    refuse.
    """
    identity = await _verified(session.config, _read(file), now_s)
    await _expect_believed(session.store, identity)
    return identity


def _read(file: str) -> str:
    if file == "-":
        return sys.stdin.readline().strip()
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        msg = f"--token: {_shown(file)}: {reason}"
        raise advised(ConfigError(msg), "--token names a file; - reads from stdin.") from error


def _shown(file: str) -> str:
    """Return a name of a file; a token that stands in its place by mistake is not repeated."""
    return "what looks like a token itself" if file.count(".") == 2 and len(file) > 80 else file  # noqa: PLR2004


async def _verified(config: Config, token: str, now_s: float) -> Identity:
    if not config.believed:
        msg = "--token needs the settings of [identity]: name the sidecar's file with --config"
        raise ConfigError(msg)
    issuer = issuer_of(token.encode())
    named = next((one for one in config.believed if one.issuer == issuer), config.believed[0])
    keys = await _keys(named)
    return verifier_of(named, keys).verify(token.encode(), now_s)


async def _keys(settings: IdentitySettings) -> KeySet:
    try:
        keys = await source_of(settings).read()
    except KeySetError as error:
        raise ConfigError(f"the keys of {settings.issuer}: {error}") from error
    return keys or KeySet(())


async def _expect_believed(store: Store, identity: Identity) -> None:
    for one in await store.cutoffs():
        if one.tenant == identity.tenant and identity.issued_s < (one.before_s or 0.0):
            raise TokenRefused(Code.TOKEN_INVALID, "the token has been revoked, with its tenant's")
    async for revoked in store.revoked():
        if identity.jti and revoked.jti == identity.jti and not revoked.fault:
            raise TokenRefused(Code.TOKEN_INVALID, "the token has been revoked")
