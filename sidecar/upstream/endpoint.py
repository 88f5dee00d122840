"""The address of one server of a version."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from sidecar.policy.address import fault

if TYPE_CHECKING:
    from collections.abc import Iterable

_PORTS = {"http": 80, "https": 443}


class Endpoint(Struct, frozen=True):
    """Where to connect: `host` and `port`, or the `path` of a unix socket.

    `url` is as the policy spells it, for logs and pool keys; `authority` is what a Host header
    says that has to be made up.
    """

    url: str
    host: str = ""
    port: int = 0
    path: str = ""
    is_tls: bool = False
    authority: bytes = b"localhost"


def spelled(versions: Iterable[tuple[str, str]]) -> str:
    """Return versions, each by model and name, as the log tells whose an endpoint is."""
    return ",".join(sorted(f"{model}:{version}" for model, version in versions))


def parse_endpoint(url: str) -> Endpoint:
    """Read an endpoint as `policy.address` has it; raises ValueError with what is wrong."""
    if (wrong := fault(url)) is not None:
        msg = f"{url!r}: {wrong}"
        raise ValueError(msg)
    scheme, _, rest = url.partition(":")
    if scheme == "unix":
        return Endpoint(url, path=rest)
    parts = urlsplit(url)
    return Endpoint(
        url,
        parts.hostname or "",
        parts.port or _PORTS[scheme],
        is_tls=scheme == "https",
        authority=parts.netloc.encode("ascii"),
    )
