"""The demo's private folder: settings, keys, tokens, logs, and the store's socket."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from sidecar.cli.token import AUDIENCE, ISSUER
from sidecar.errors import ConfigError
from sidecar.identity.compact import decode_base64url, decode_object, encode_base64url
from sidecar.identity.issuer import JWKS_FILE, create_keys, issue
from sidecar.runtime.clock import SystemClock
from sidecar.store.embedded import embedded_url

LIFETIME_S = 24 * 3_600.0  # the demo may stay up for a day
_INNER = "rmv-12345678"  # the folder of sockets that the sidecar makes in this one
_LONG_AGO_S = 2 * 3_600.0
_SETTINGS = """\
# Made by `rmv demo`.
listen = "{listen}"
admin = "{admin}"
redis = "embedded"
state_dir = "."
exchange_log = "exchanges.jsonl"

[timeouts]
drain_s = 2

[limits]
compare_cpu_share = 0.5  # enough for every pair on a slow machine, too

[identity]
jwks_file = "keys/{jwks}"
issuer = "{issuer}"
audience = "{audience}"
"""


class Folder:
    """Paths in the folder, and what is written there."""

    def __init__(self, path: Path) -> None:
        """Make the issuer's keys in `path`, which is empty."""
        self.path = path
        self.settings = path / "rmv.toml"
        self.row = path / "row.json"
        self.socket = path / "valkey.sock"  # where the embedded store of this state_dir listens
        self.store_url = embedded_url(str(path))
        self._keys = path / "keys"
        create_keys(self._keys)

    def log(self, name: str) -> Path:
        """Return where a process writes what it has to say."""
        return self.path / f"{name}.log"

    def shadow_file(self, version: str) -> Path:
        """Return where the report of a shadow is kept, as JSON."""
        return self.path / f"shadow-{version}.json"

    def write_settings(self, listen: str, admin: str) -> None:
        """Write the sidecar's configuration: the addresses, a store of its own, tokens needed."""
        text = _SETTINGS.format(
            listen=listen, admin=admin, jwks=JWKS_FILE, issuer=ISSUER, audience=AUDIENCE
        )
        self.settings.write_text(text, encoding="utf-8")

    def write_headers(self, tenant: str, token: str) -> Path:
        """Write a request's headers as `curl -H @FILE` reads them; return the file."""
        file = self.path / tenant
        file.touch(mode=0o600)
        file.write_text(f"Authorization: Bearer {token}\nContent-Type: application/json\n")
        return file

    def token(self, tenant: str) -> str:
        """Return a token that is good for a day."""
        return self._issue(tenant, age_s=0.0)

    def expired_token(self, tenant: str) -> str:
        """Return a token that was good until an hour ago."""
        return self._issue(tenant, age_s=_LONG_AGO_S, lifetime_s=_LONG_AGO_S / 2)

    def forged_token(self, tenant: str, *, of: str) -> str:
        """Return the token of one tenant whose claims now name another: the seal does not fit."""
        head, body, seal = self.token(of).split(".")
        claims = {**decode_object(decode_base64url(body.encode())), "tenant": tenant}
        return f"{head}.{encode_base64url(msgspec.json.encode(claims)).decode()}.{seal}"

    def _issue(self, tenant: str, *, age_s: float, lifetime_s: float = LIFETIME_S) -> str:
        return issue(
            self._keys,
            tenant=tenant,
            subject=f"demo@{tenant}",
            issuer=ISSUER,
            audience=AUDIENCE,
            lifetime_s=lifetime_s,
            now_s=SystemClock().now_s() - age_s,
        )


@contextmanager
def opened(keep: Path | None) -> Iterator[Folder]:
    """Make the folder, and remove it at the end unless it is `keep`, which must be new or empty.

    Raises:
        ConfigError: `keep` cannot be used.
    """
    if keep is not None:
        yield Folder(_made(keep.absolute()))
        return
    with tempfile.TemporaryDirectory(
        prefix="rmv-", dir=_short_base(), ignore_cleanup_errors=True
    ) as path:
        yield Folder(Path(path))


def _made(keep: Path) -> Path:
    embedded_url(str(keep / _INNER))  # raises ConfigError when it is too long
    try:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = next(keep.iterdir(), None)
    except OSError as error:
        msg = f"--keep {keep}: {error.strerror}"
        raise ConfigError(msg) from error
    if taken is not None:
        msg = f"--keep {keep}: is not empty: it holds {taken.name}"
        raise ConfigError(msg)
    return keep


def _short_base() -> str:
    """Return a folder for temporary ones whose path leaves room for that of a socket."""
    usual = tempfile.gettempdir()
    for base in (usual, "/tmp"):  # noqa: S108 -- what is made in it is private
        try:
            embedded_url(str(Path(base, "rmv-12345678", _INNER)))
        except ConfigError:
            continue
        return base
    return usual
