"""Who calls, as the flags of `rmv explain` and `rmv token` tell it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from sidecar.config import Config
from sidecar.errors import ConfigError
from sidecar.identity.claims import ClaimNames
from sidecar.identity.keys import load_jwks
from sidecar.identity.tokens import Verifier
from sidecar.model.identity import JSON, Identity


def read_claims(pairs: Iterable[str]) -> dict[str, JSON]:
    """Read `name=value` and `path.to.name=value`; a value is JSON if it can be read as that.

    Raises ConfigError for a pair without `=`.
    """
    claims: dict[str, JSON] = {}
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not path or not equals:
            msg = f"--claim {pair}: write NAME=VALUE"
            raise ConfigError(msg)
        put_claim(claims, path, _value(text))
    return claims


def put_claim(claims: dict[str, JSON], path: str, value: JSON) -> None:
    """Set the claim at a path (`org.tenant`: member `tenant` of claim `org`)."""
    *parents, name = path.split(".")
    for parent in parents:
        inner = claims.setdefault(parent, {})
        if not isinstance(inner, dict):
            msg = f"--claim {path}: `{parent}` is not an object"
            raise ConfigError(msg)
        claims = inner
    claims[name] = value


def verified(config: Config, token: str, now_s: float) -> Identity:
    """Return the caller of a token by the identity settings; raises TokenRefused or ConfigError."""
    settings = config.identity
    if settings is None:
        msg = "--token needs the settings of [identity]: name the sidecar's file with --config"
        raise ConfigError(msg)
    path = Path(settings.jwks_file)
    try:
        keys = load_jwks(path.read_bytes(), settings.algorithms)
    except OSError as error:
        msg = f"identity.jwks_file: {path}: {error.strerror}"
        raise ConfigError(msg) from error
    names = ClaimNames(
        settings.tenant_claim, settings.subject_claim, settings.app_claim, settings.scope_claim
    )
    verifier = Verifier(keys, settings.issuer, settings.audience, names, settings.leeway_s)
    return verifier.verify(token.encode(), now_s)


def _value(text: str) -> JSON:
    try:
        value: JSON = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value
