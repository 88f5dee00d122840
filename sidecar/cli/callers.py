"""Who calls, as the flags of `rmv explain`, `rmv access` and `rmv token` tell it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from sidecar.errors import ConfigError
from sidecar.model.identity import JSON, Identity
from sidecar.policy import grant


class Told(NamedTuple):
    """Who calls, option by option; true if any is given."""

    tenant: str
    subject: str
    app: str
    scopes: Sequence[str] | None
    segments: Sequence[str] | None
    grants: Sequence[str] | None
    claims: Sequence[str] | None

    def __bool__(self) -> bool:
        return any(self)

    def identity(self) -> Identity:
        """Return the caller; raises ConfigError for a claim or grant that cannot be read."""
        return Identity(
            self.tenant,
            self.subject,
            self.app,
            tuple(self.scopes or ()),
            read_claims(self.claims or ()),
            segments=tuple(self.segments or ()),
            grants=granted(self.grants),
        )


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


def granted(texts: Iterable[str] | None) -> dict[str, tuple[str, ...]] | None:
    """Return grants of every model by flags, None without any; ConfigError for one of no use."""
    if not texts:
        return None
    words = tuple(texts)
    try:
        grant.read(words)
    except ValueError as error:
        raise ConfigError(f"--grant: {error}") from error
    return {grant.ANY: words}


def _value(text: str) -> JSON:
    try:
        value: JSON = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return value
