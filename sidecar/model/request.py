"""The head of one request, as far as decisions need it."""

from __future__ import annotations

from msgspec import Struct


class RequestHead(Struct, gc=False):
    """What the parser learnt of one request head; bytes are as sent unless a field says otherwise.

    `fields` holds the end-to-end header lines in the order they came, flattened to quadruples
    `name, b": ", value, b"\\r\\n"`, so that one join writes them and nothing is built that only
    some policies read. Hop-by-hop fields and those that the sidecar derives are not in it.
    """

    method: bytes
    target: bytes
    fields: list[bytes]
    host: bytes = b""
    authorization: bytes | None = None
    request_id: bytes = b""
    asked_model: bytes | None = None  # X-Model
    asked_version: bytes | None = None  # X-Model-Version
    claimed_tenant: bytes | None = None  # X-Tenant: believed only when auth is off

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a field by its lower-case name, repeats joined (RFC 9110 5.3)."""
        fields = self.fields
        found = [fields[n + 2] for n in range(0, len(fields), 4) if fields[n].lower() == name]
        return b", ".join(found) if found else None
