"""The head of one request, as far as decisions need it."""

from __future__ import annotations


class RequestHead:
    """What the parser learnt of one request head; bytes are as sent unless a field says otherwise.

    `fields` holds the header lines that are passed on, whole and in the order they came, so that
    one join writes them and nothing is built that only some policies read. Hop-by-hop fields and
    those that the sidecar derives are not in it. It is left alone once `header` has been asked,
    which remembers its answers: many rules may ask for one header.
    """

    __slots__ = (
        "_headers",
        "asked_model",
        "asked_version",
        "at_s",
        "authorization",
        "claimed_tenant",
        "fields",
        "framing",
        "host",
        "is_http10",
        "keeps_alive",
        "memberships",
        "method",
        "path_text",
        "request_id",
        "takes_trailers",
        "target",
        "trailer",
        "upgrade",
        "withheld",
    )

    method: bytes
    target: bytes
    fields: list[bytes]
    host: bytes
    authorization: bytes | None
    request_id: bytes
    asked_model: bytes | None  # X-Model
    asked_version: bytes | None  # X-Model-Version, or a version in the path
    at_s: float  # when it arrived, epoch seconds: the one time that all rules see
    claimed_tenant: bytes | None  # X-Tenant: believed only when auth is off
    framing: int  # of its body: bytes, or wire.framing.CHUNKED
    is_http10: bool
    memberships: dict[object, tuple[object, bool]] | None  # by segment: of whom, and whether
    path_text: str  # the path as rules see it, once one has asked; empty before
    keeps_alive: bool  # whether the client wants its connection kept
    takes_trailers: bool  # TE: trailers
    trailer: bytes  # what Trailer announces
    upgrade: bytes  # the protocols that the client would rather speak
    withheld: tuple[bytes, ...]  # of `fields`: credentials and Expect, which are for no copy

    def __init__(  # noqa: PLR0913, PLR0917 -- a record; a parser fills it field by field
        self,
        method: bytes,
        target: bytes,
        fields: list[bytes],
        host: bytes = b"",
        authorization: bytes | None = None,
        request_id: bytes = b"",
        asked_model: bytes | None = None,
        asked_version: bytes | None = None,
        claimed_tenant: bytes | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.host = host
        self.authorization = authorization
        self.request_id = request_id
        self.asked_model = asked_model
        self.asked_version = asked_version
        self.at_s = 0.0
        self.claimed_tenant = claimed_tenant
        self.memberships = None
        self.path_text = ""
        self._headers: dict[bytes, bytes | None] | None = None
        self.framing = 0
        self.is_http10 = False
        self.keeps_alive = True
        self.takes_trailers = False
        self.trailer = b""
        self.upgrade = b""
        self.withheld = ()

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a field by its lower-case name, repeats joined (RFC 9110 5.3)."""
        known = self._headers
        if known is None:
            known = self._headers = {}
        elif name in known:
            return known[name]
        end = len(name)
        # Most names are told apart by their length alone.
        found = [
            line[end + 1 :].strip()
            for line in self.fields
            if line[end : end + 1] == b":" and line[:end].lower() == name
        ]
        value = known[name] = b", ".join(found) if found else None
        return value
