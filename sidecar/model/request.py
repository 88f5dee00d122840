"""The head of one request, as far as decisions need it."""

from __future__ import annotations


class RequestHead:
    """What the parser learnt of one request head; bytes are as sent unless a field says otherwise.

    `fields` holds the header lines that are passed on, in the order they came, flattened to
    quadruples `name, b": ", value, b"\\r\\n"`, so that one join writes them and nothing is built
    that only some policies read. Hop-by-hop fields and those that the sidecar derives are not
    in it.
    """

    __slots__ = (
        "asked_model",
        "asked_version",
        "authorization",
        "claimed_tenant",
        "fields",
        "host",
        "method",
        "request_id",
        "target",
    )

    method: bytes
    target: bytes
    fields: list[bytes]
    host: bytes
    authorization: bytes | None
    request_id: bytes
    asked_model: bytes | None  # X-Model
    asked_version: bytes | None  # X-Model-Version, or a version in the path
    claimed_tenant: bytes | None  # X-Tenant: believed only when auth is off

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
        self.claimed_tenant = claimed_tenant

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a field by its lower-case name, repeats joined (RFC 9110 5.3)."""
        fields = self.fields
        found = [fields[n + 2] for n in range(0, len(fields), 4) if fields[n].lower() == name]
        return b", ".join(found) if found else None
