"""Whose signatures a sidecar believes."""

from __future__ import annotations

from msgspec import Struct


class SigningSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Files of the public keys that policies, pins and kills have to be signed by.

    Without any of them nothing has to be signed. With `exempt_kills` kills need no signature.
    """

    trusted: tuple[str, ...] = ()
    exempt_kills: bool = False
