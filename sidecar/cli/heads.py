"""The request that is asked about, as the flags of `rmv explain` and `rmv try` tell it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from sidecar.errors import ConfigError
from sidecar.model.request import RequestHead
from sidecar.model.route import AMBIGUOUS
from sidecar.policy.route import RouteTable
from sidecar.policy.snapshot import Snapshot

ASKED = "--asked-version"
_OPTIONS = {"x-model-version": ASKED, "x-model": "MODEL", "x-tenant": "--tenant"}
"""Headers that no rule sees: what they say is an option here."""


def request_head(
    method: str, target: str, headers: Sequence[str], asked_version: str
) -> RequestHead:
    """Return the head of a request as it is told by flags; ConfigError for a header without `:`."""
    fields: list[bytes] = []
    for text in headers:
        name, colon, value = text.partition(":")
        if not name.strip() or not colon:
            msg = f"--header {text}: write 'NAME: VALUE'"
            raise ConfigError(msg)
        option = _OPTIONS.get(name.strip().lower())
        if option == ASKED:
            asked_version = _asked(value.strip(), asked_version)
            continue
        if option is not None:
            msg = f"--header {text}: say it by {option}"
            raise ConfigError(msg)
        fields.append(f"{name.strip()}: {value.strip()}\r\n".encode())
    return RequestHead(
        method.encode(),
        target.encode(),
        fields,
        request_id=secrets.token_hex(16).encode(),
        asked_version=asked_version.encode() or None,
    )


def _asked(by_header: str, asked_version: str) -> str:
    """Return the version that is asked for, by the header or as an option."""
    if asked_version not in {"", by_header}:
        msg = f"two versions are asked for: {asked_version} and {by_header}"
        raise ConfigError(msg)
    return by_header


def ask_by_path(head: RequestHead, snapshot: Snapshot) -> None:
    """Make a version or label that the path names the one that is asked for.

    Raises ConfigError when the head asks for another one already: the sidecar answers 400.
    """
    route = RouteTable((), snapshot.model).find(head)
    if route is AMBIGUOUS:
        raise ConfigError("--path names another model or version once it is decoded and resolved")
    if route.model != snapshot.model or (route.version is None and route.label is None):
        return
    named = route.version or snapshot.policy.labels.get(route.label or "", "")
    asked = head.asked_version
    if asked is not None:
        other = snapshot.named(asked.decode("utf-8", "replace"))
        if asked != named.encode() and (other is None or other is not snapshot.named(named)):
            msg = (
                f"--path names version {route.version or route.label}, --asked-version another one"
            )
            raise ConfigError(msg)
    head.asked_version = named.encode()
