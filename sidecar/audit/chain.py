"""How entries hang together: each has the hash of the one before it, and its own.

An entry is a line of JSON. Its canonical bytes are the line without the member `hash`, which is the
last: `hash` is their SHA-256, and `prev` among them is the hash of the entry before. A checkpoint
has before that a member `signature`: Ed25519 over `CONTEXT` and the line without either.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

GENESIS: Final = "0" * 64  # `prev` of a chain's first entry
CONTEXT: Final = b"rmv audit checkpoint\n"  # no other kind of message that is signed begins so
HASH_TAIL: Final = len(',"hash":""}') + 64
SIGNATURE_TAIL: Final = len(',"signature":""}') + 88  # Base64 of 64 bytes


class Chain:
    """The chain of one writer, whose name nobody else ever has."""

    def __init__(self, writer: str) -> None:
        self.writer = writer
        self.seq = 0
        """Of the newest entry; they count from 1."""
        self.head = GENESIS.encode()
        """The hash of the newest entry, as its line has it."""
        self._form = b'{"writer":"%b","seq":%%d,"prev":"%%b",%%b' % writer.encode()

    def link(
        self,
        event: bytes,
        sign: Callable[[bytes], bytes] | None = None,
        *,
        is_last: bool = False,
    ) -> bytes:
        """Return the line, without its end, of an event that is encoded as a JSON object."""
        seq = self.seq + 1
        line = self._form % (seq, self.head, event[1:])
        if is_last:
            line = b'%b,"last":true}' % line[:-1]
        if sign is not None:
            signature = base64.b64encode(sign(CONTEXT + line))
            line = b'%b,"signature":"%b"}' % (line[:-1], signature)
        self.seq = seq
        self.head = head = hashlib.sha256(line).hexdigest().encode()
        return b'%b,"hash":"%b"}' % (line[:-1], head)
