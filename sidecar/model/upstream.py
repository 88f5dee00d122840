"""How endpoints are reached, as the configuration says it."""

from __future__ import annotations

from msgspec import Struct


class UpstreamSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Which unix sockets a policy may name: those below one of the folders of `sockets`."""

    sockets: tuple[str, ...] = ()


class EndpointSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the endpoints of policies may be: hosts and networks; none at all allows every one.

    How an entry is spelled, and what it means: `policy.address.AllowList`.
    """

    allow: tuple[str, ...] = ()


class UpstreamTls(Struct, frozen=True, forbid_unknown_fields=True):
    """What `https` endpoints are believed by, and what they are shown. Empty: not set."""

    ca_file: str = ""  # empty: what the system trusts
    cert_file: str = ""
    key_file: str = ""
    verify: bool = True
