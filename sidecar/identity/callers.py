"""Callers without a token: by their TLS certificate, or by headers from a trusted network.

Whether a connection's requests can have such a caller is settled when it is made. A bearer token
comes before either: who shows one is who it says, or nobody.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Final, Protocol, cast

from sidecar.errors import Code
from sidecar.identity.refusal import TokenRefused
from sidecar.model.identity import NO_TENANT_CLAIMED, Identity, is_tenant
from sidecar.policy.network import within

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sidecar.model.caller import CallerSettings
    from sidecar.model.request import RequestHead

UNIX: Final = "unix"
"""What stands for the address of who connects to a unix socket."""

MAX_NAME_CHARS: Final = 512  # of a certificate's name, a subject or an app
MAX_CLAIMED: Final = 10_000  # identities by headers that are remembered, as of X-Tenant
GROUPS: Final = ("tenant", "subject", "app")
_SAN_KINDS: Final = {"san_uri": "URI", "san_dns": "DNS"}

Names = tuple[tuple[str, str], ...]


class Caller(Protocol):
    """Who calls over one connection, unless a token says so."""

    def identify(self, head: RequestHead, now_s: float) -> Identity | None:
        """Return the caller of a request, None for nobody; raises TokenRefused."""
        ...


class Callers:
    """Tells from a connection who may call without a token over it."""

    def __init__(self, settings: CallerSettings) -> None:
        """Follow settings without `faults`."""
        self._kind = settings.certificate
        self._pattern = re.compile(settings.certificate_pattern)
        self._is_trusted = within(settings.trusted_networks)
        self._trusts_unix = settings.trust_unix
        self._claimed = ClaimedCaller()

    def of(self, certificate: object, addresses: Sequence[str]) -> Caller | None:
        """Return who calls over a connection, None for nobody without a token.

        `certificate` is the client's, verified, as `ssl` tells it. `addresses` are all that is
        known of where it comes from: a peer, and whom that names by the PROXY protocol.
        """
        if self._kind != "off" and isinstance(certificate, dict):
            identity = self._certified(cast("Mapping[str, object]", certificate))
            if identity is not None:
                return CertifiedCaller(identity)
        # All of them: anybody can name a trusted address who is not at one.
        if addresses and all(self._trusts(address) for address in addresses):
            return self._claimed
        return None

    def _trusts(self, address: str) -> bool:
        return self._trusts_unix if address == UNIX else self._is_trusted(address)

    def _certified(self, certificate: Mapping[str, object]) -> Identity | None:
        """Return whom a certificate names: nobody if it is nobody, or more than one."""
        names = [name for name in _names(certificate, self._kind) if len(name) <= MAX_NAME_CHARS]
        found = [(name, match) for name in names if (match := self._pattern.fullmatch(name))]
        if len(found) != 1:
            return None
        name, match = found[0]
        said = {group: text for group, text in match.groupdict().items() if text is not None}
        tenant = said.get("tenant", "")
        if not is_tenant(tenant):
            return None
        return Identity(
            tenant,
            said.get("subject", name),
            said.get("app", ""),
            expires_at_s=_ends_at(certificate),
        )


class CertifiedCaller:
    """Whom the certificate of a connection names, until it ends."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def identify(self, _head: RequestHead, now_s: float) -> Identity | None:
        """Return the caller of a request; nobody once the certificate has ended."""
        return self._identity if now_s < self._identity.expires_at_s else None


class ClaimedCaller:
    """Whom headers name, over a connection that is trusted to say so."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes, bytes], Identity] = {}

    def identify(self, head: RequestHead, _now_s: float) -> Identity | None:
        """Return the caller of a request, nobody without X-Tenant; raises TokenRefused."""
        tenant = head.claimed_tenant
        if tenant is None:
            return None
        said = tenant, _only(head, b"x-subject"), _only(head, b"x-app")
        known = self._known.get(said)
        if known is not None:
            return known
        name = tenant.decode("latin-1").strip()
        if not is_tenant(name):
            raise TokenRefused(Code.TENANT_DENIED, NO_TENANT_CLAIMED)
        identity = Identity(name, _text(said[1], "X-Subject"), _text(said[2], "X-App"))
        if len(self._known) < MAX_CLAIMED:
            self._known[said] = identity
        return identity


def without_token(caller: Caller, head: RequestHead, now_s: float) -> Identity | None:
    """Return who calls without a bearer token, None for nobody; raises TokenRefused."""
    return None if is_bearer(head.authorization) else caller.identify(head, now_s)


def is_bearer(authorization: bytes | None) -> bool:
    """Return whether an `Authorization` field is of the scheme Bearer (RFC 6750 section 2.1)."""
    return authorization is not None and authorization.partition(b" ")[0].lower() == b"bearer"


def pattern_fault(pattern: str) -> str:
    """Return why `certificate_pattern` cannot be used, or an empty text."""
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        return f"is no regular expression: {error}"
    if "tenant" not in groups:
        return "has no group (?P<tenant>...): a caller is of a tenant"
    odd = sorted(groups.keys() - set(GROUPS))
    return f"has a group `{odd[0]}`: there are {', '.join(GROUPS)}" if odd else ""


def _names(certificate: Mapping[str, object], kind: str) -> list[str]:
    if kind == "cn":
        subject = cast("tuple[Names, ...]", certificate.get("subject", ()))
        return [value for relative in subject for name, value in relative if name == "commonName"]
    others = cast("Names", certificate.get("subjectAltName", ()))
    return [value for name, value in others if name == _SAN_KINDS[kind]]


def _ends_at(certificate: Mapping[str, object]) -> float:
    return float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))


def _only(head: RequestHead, name: bytes) -> bytes:
    """Return the value of a field, empty if it is not there.

    Raises TokenRefused where it is repeated: one may be the gateway's, and one its client's.
    """
    end = len(name)
    lines = [one for one in head.fields if one[end : end + 1] == b":" and one[:end].lower() == name]
    if len(lines) > 1:
        detail = f"{name.decode().title()} is repeated"
        raise TokenRefused(Code.MALFORMED_REQUEST, detail)
    return lines[0][end + 1 :].strip() if lines else b""


def _text(value: bytes, name: str) -> str:
    text = value.decode("utf-8", "replace")
    if len(text) > MAX_NAME_CHARS or not text.isprintable() or "\ufffd" in text:
        detail = f"{name} is not printable UTF-8 of at most {MAX_NAME_CHARS} characters"
        raise TokenRefused(Code.MALFORMED_REQUEST, detail)
    return text
