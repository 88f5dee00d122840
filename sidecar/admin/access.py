"""Who asks on the admin listener, and whether that one may."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sidecar.admin.failures import Failures
from sidecar.admin.problems import Refusal, RefusedError
from sidecar.model.admin import RANKS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sidecar.model.admin import AdminCertificate, AdminSettings, AdminToken, Role
    from sidecar.model.identity import JSON
    from sidecar.telemetry.metrics import Metrics

MAX_SEEN: Final = 1024  # credentials by peer whose first use is remembered
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]{1,512}=*)")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")

Certificate = dict[str, object]
"""What `ssl` tells of a client's certificate that it has verified."""


class Note(Protocol):
    """Takes what is audited."""

    def __call__(self, kind: str, **facts: JSON) -> None:
        """Do as `AuditLog.note` does."""
        ...


class Caller(NamedTuple):
    """Who asks: `by` is `token`, `certificate`, or `loopback` for whom nothing vouches."""

    name: str
    role: Role
    by: str

    @property
    def actor(self) -> str:
        """As whom histories and audit have it."""
        return f"admin:{self.name}"


class Asked(NamedTuple):
    """What a request shows of who sends it."""

    peer: str
    host: str
    authorizations: Sequence[str]
    headers: Mapping[str, str]
    certificate: Certificate | None = None


LOCAL: Final = Caller("loopback", "viewer", "loopback")


class Access:
    """Tells callers by tokens and certificates.

    While neither has ever been configured, peers on loopback may read, and nobody may write.
    """

    def __init__(
        self,
        settings: AdminSettings,
        tokens: Sequence[AdminToken],
        certificates: Sequence[AdminCertificate],
        *,
        monotonic_s: Callable[[], float],
        note: Note,
        metrics: Metrics,
    ) -> None:
        self._metrics_for = settings.metrics
        self._hosts = {host.lower().rstrip(".") for host in settings.hosts} | {"localhost"}
        self.is_configured = False
        """Whether anybody has a credential, or had one: who takes the last away lets nobody in."""
        self.renew(tokens, certificates)
        self._failures = Failures(settings.failures, monotonic_s)
        self._seen: dict[tuple[str, Caller, bytes], None] = {}  # the one used longest ago first
        self._note = note
        self._metrics = metrics

    def renew(self, tokens: Sequence[AdminToken], certificates: Sequence[AdminCertificate]) -> None:
        """Believe these from the next call on, and no others."""
        self._tokens = [
            (bytes.fromhex(one.sha256), Caller(one.name, one.role, "token")) for one in tokens
        ]
        self._certificates = [
            (one, Caller(one.name, one.role, "certificate")) for one in certificates
        ]
        self.is_configured |= bool(tokens or certificates)

    def expect(self, asked: Asked, role: Role) -> Caller:
        """Return who asks for something that takes a role; raises RefusedError."""
        self._expect_address(asked)
        caller = self._caller(asked)
        if not self.is_configured and role != "viewer":
            raise RefusedError(
                Refusal.WRITES_OFF,
                "no token and no certificate is configured: see `rmv admin token`",
            )
        if RANKS[caller.role] < RANKS[role]:
            self._count(Refusal.ROLE_TOO_LOW)
            if not self._failures.note(asked.peer):
                facts: dict[str, JSON] = {"peer": asked.peer, "wanted": role}
                self._note("login", actor=caller.actor, reason="role-too-low", **facts)
            raise RefusedError(
                Refusal.ROLE_TOO_LOW, f"{caller.name} is {caller.role}: this takes {role}"
            )
        return caller

    def expect_metrics(self, asked: Asked) -> None:
        """Let metrics be read by whom `admin_api.metrics` names; raises RefusedError."""
        if self._metrics_for == "open":
            expect_direct(asked)
        elif self._metrics_for == "viewer":
            self.expect(asked, "viewer")
        else:
            self._expect_address(asked)
            if not is_loopback(asked.peer):
                raise RefusedError(Refusal.CREDENTIAL_MISSING, "metrics are for loopback alone")

    def _expect_address(self, asked: Asked) -> None:
        """Refuse what a page in somebody's browser can send, and what comes through a sidecar.

        A page that has its own name resolve to this address (DNS rebinding) shows that name as
        Host. What a page sends across sites says so (Fetch Metadata, RFC 6454 section 7).
        """
        expect_direct(asked)
        found = _HOST.fullmatch(asked.host)
        name = found[1].lower().rstrip(".") if found else ""
        if not found or not (name in self._hosts or _is_address(name)):
            self._count(Refusal.HOST_REFUSED)
            detail = "Host names neither an address, localhost nor one of admin_api.hosts"
            raise RefusedError(Refusal.HOST_REFUSED, detail)
        site = asked.headers.get("Sec-Fetch-Site", "none")
        if "Origin" in asked.headers or site not in {"none", "same-origin"}:
            self._count(Refusal.BROWSER_REFUSED)
            raise RefusedError(Refusal.BROWSER_REFUSED, "this is no surface for pages of browsers")

    def _caller(self, asked: Asked) -> Caller:
        if not asked.authorizations and asked.certificate is not None:
            return self._by_certificate(asked, asked.certificate)
        if not asked.authorizations:
            if not self.is_configured and is_loopback(asked.peer):
                return LOCAL
            raise RefusedError(Refusal.CREDENTIAL_MISSING, self._way_in())
        shown = _BEARER.fullmatch(asked.authorizations[0])
        if len(asked.authorizations) > 1 or shown is None:
            raise self._failure(asked, "Authorization is not `Bearer` and one token")
        digest = hashlib.sha256(shown[1].encode()).digest()
        caller = self._by_digest(digest)
        # A peer past its failures learns nothing of what it tries; who was right before goes on.
        if caller is not None and (asked.peer, caller, digest) in self._seen:
            return self._welcome(asked, caller, digest)
        self._expect_patience(asked)
        if caller is None:
            raise self._failure(asked, "nobody has this token")
        return self._welcome(asked, caller, digest)

    def _by_digest(self, digest: bytes) -> Caller | None:
        """Return whose token it is; all are compared, each in constant time."""
        found = None
        for known, caller in self._tokens:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def _by_certificate(self, asked: Asked, certificate: Certificate) -> Caller:
        names = {f"{kind}:{value}" for kind, value in _pairs(certificate.get("subjectAltName"))}
        commons = _common_names(certificate)
        for one, caller in self._certificates:
            if (one.san and one.san in names) or (one.cn and commons == [one.cn]):
                return self._welcome(asked, caller, b"")
        self._expect_patience(asked)
        raise self._failure(asked, "nobody has this certificate")

    def _welcome(self, asked: Asked, caller: Caller, digest: bytes) -> Caller:
        key = asked.peer, caller, digest
        if key not in self._seen:
            facts: dict[str, JSON] = {"peer": asked.peer, "by": caller.by}
            self._note("login", actor=caller.actor, reason="first-use", **facts)
        self._seen.pop(key, None)
        self._seen[key] = None
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return caller

    def _expect_patience(self, asked: Asked) -> None:
        if wait_s := self._failures.wait_s(asked.peer):
            raise self._too_many(wait_s)

    def _failure(self, asked: Asked, detail: str) -> RefusedError:
        if wait_s := self._failures.note(asked.peer):
            return self._too_many(wait_s)
        self._count(Refusal.CREDENTIAL_INVALID)
        self._note("login", reason="credential-invalid", peer=asked.peer, detail=detail)
        return RefusedError(Refusal.CREDENTIAL_INVALID, detail)

    def _too_many(self, wait_s: float) -> RefusedError:
        self._count(Refusal.TOO_MANY_FAILURES)
        detail = "too many credentials were wrong: wait"
        return RefusedError(Refusal.TOO_MANY_FAILURES, detail, retry_after_s=wait_s)

    def _way_in(self) -> str:
        if self.is_configured:
            return "send Authorization: Bearer, or a client certificate"
        return "no credential is configured: only peers on loopback may read"

    def _count(self, refusal: Refusal) -> None:
        self._metrics.count("rmv_admin_refusals_total", "code", refusal.slug)


def expect_direct(asked: Asked) -> None:
    """Raise RefusedError for what a sidecar passed on, whose endpoint leads here.

    Every request to an endpoint has the version that it was decided to go to.
    """
    if "X-Model-Version" in asked.headers:
        raise RefusedError(Refusal.PROXIED, "an endpoint of a policy is this admin listener")


def is_loopback(peer: str) -> bool:
    """Return whether a peer is on this host."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _common_names(certificate: Certificate) -> list[str]:
    subject = certificate.get("subject")
    parts = subject if isinstance(subject, tuple) else ()
    return [value for part in parts for kind, value in _pairs(part) if kind == "commonName"]


def _pairs(value: object) -> list[tuple[str, str]]:
    """Return the names of a certificate, as `ssl` tells them: pairs of kind and value."""
    found = value if isinstance(value, tuple) else ()
    pairs = (one for one in found if isinstance(one, tuple) and len(one) == len(("kind", "value")))
    return [(str(kind), str(name)) for kind, name in pairs]
