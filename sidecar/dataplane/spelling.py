"""How a request is spelled for one version, and the lines that the sidecar adds to it."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from sidecar.model.policy import State
from sidecar.policy.moment import seconds
from sidecar.policy.rewrite import compile_rewrite

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model.policy import Policy, Version

MAX_TENANTS: Final = 16_384  # remembered lines


class Spelling:
    """How requests read that are sent to one version.

    `lines` are whole header lines to add, in the place of the client's of the lower-case names
    `replaced`; `rewrite` takes the target and what follows the model in its path.
    """

    def __init__(self, policy: Policy, version: str) -> None:
        """Render for a version of `policy`; raises KeyError when it has no such version."""
        rewrite = policy.versions[version].rewrite
        lines = f"X-Model-Version: {version}\r\n"
        self.replaced: frozenset[bytes] = frozenset()
        self.rewrite: Callable[[bytes, bytes], bytes] | None = None
        if rewrite is not None:
            self.rewrite = compile_rewrite(rewrite, policy.model, version)
            self.replaced = frozenset(name.lower().encode() for name in rewrite.headers)
            lines += "".join(f"{name}: {value}\r\n" for name, value in rewrite.headers.items())
        self.lines = lines.encode("latin-1")


def deprecation_lines(version: Version) -> bytes:
    """Return the header lines that tell callers of a draining version to move on.

    Deprecation is RFC 9745's, Sunset RFC 8594's; both have a link relation for what to read.
    """
    told = version.deprecation
    if told is None or version.state is not State.DRAINING:
        return b""
    lines = b""
    if told.since is not None:
        lines += b"Deprecation: @%d\r\n" % seconds(told.since)
    if told.sunset is not None:
        date = formatdate(seconds(told.sunset), usegmt=True)
        lines += b"Sunset: %b\r\n" % date.encode()
    if told.link is not None:
        relation = "deprecation" if told.sunset is None else "sunset"
        lines += f'Link: <{told.link}>; rel="{relation}"\r\n'.encode("latin-1")
    return lines


class TenantLines(dict[str, bytes]):
    """`X-Tenant` lines by tenant; bounded."""

    def __missing__(self, tenant: str) -> bytes:
        line = b"X-Tenant: %b\r\n" % tenant.encode("latin-1") if tenant else b""
        if len(self) < MAX_TENANTS:
            self[tenant] = line
        return line
