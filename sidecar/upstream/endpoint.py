"""The address of one server of a version."""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec import Struct


class Endpoint(Struct, frozen=True):
    """Where to connect. `url` is as the policy spells it, for logs and pool keys."""

    url: str
    host: str
    port: int


def parse_endpoint(url: str) -> Endpoint:
    """Read `http://host[:port]`; raises ValueError. `policy.validate` has refused anything odd."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        msg = f"{url!r} is not http://host[:port]"
        raise ValueError(msg)
    return Endpoint(url, parts.hostname, parts.port or 80)
