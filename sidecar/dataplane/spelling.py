"""How a request is spelled for one version, and the lines that the sidecar adds to it."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from sidecar.model.policy import State
from sidecar.policy.moment import seconds
from sidecar.policy.rewrite import compile_rewrite
from sidecar.wire.fields import without
from sidecar.wire.framing import CHUNKED

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model.policy import Policy, Version
    from sidecar.model.request import RequestHead
    from sidecar.wire.pieces import Pieces

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

    def head(
        self, head: RequestHead, rest: bytes, authority: bytes, lines: tuple[bytes, bytes]
    ) -> Pieces:
        """Return the head that the version gets, in pieces.

        `authority` is of the endpoint, for HTTP/1.0 knows no host; `lines` are X-Forwarded-* up to
        the value of X-Forwarded-Host, and X-Tenant.
        """
        forwarded, tenant = lines
        target = head.target if self.rewrite is None else self.rewrite(head.target, rest)
        out: Pieces = [head.method, b" ", target, b" HTTP/1.1\r\n"]
        out += without(head.fields, self.replaced) if self.replaced else head.fields
        if not head.host:  # an HTTP/1.1 request has one (RFC 9112 section 3.2)
            out.append(b"Host: %b\r\n" % authority)
        if head.framing == CHUNKED or head.upgrade or head.takes_trailers:
            out += _hop_lines(head)
        out += (forwarded, head.host, b"\r\nX-Request-Id: ", head.request_id, b"\r\n")
        out += (self.lines, tenant, b"\r\n")
        return out


def _hop_lines(head: RequestHead) -> list[bytes]:
    """Return the lines that hold for one hop and that the next hop needs as well."""
    lines = []
    if head.framing == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked\r\n")
        if head.trailer:
            lines.append(b"Trailer: %b\r\n" % head.trailer)
    if head.upgrade:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n" % head.upgrade)
    elif head.takes_trailers:
        lines.append(b"Connection: TE\r\nTE: trailers\r\n")
    return lines


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
