"""How the listener speaks TLS."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class TlsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The files of a TLS server, PEM, and what it asks of clients."""

    cert_file: str  # with the chain
    key_file: str
    client_ca_file: str | None = None
    client_certs: Literal["off", "optional", "required"] = "off"
    min_version: Literal["1.2", "1.3"] = "1.2"
