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
    from hashlib import _Hash as Hash

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
        self.head = GENESIS
        """The hash of the newest entry."""

    def link(
        self,
        event: bytes,
        sign: Callable[[bytes], bytes] | None = None,
        *,
        is_last: bool = False,
    ) -> bytes:
        """Return the line, without its end, of an event that is encoded as a JSON object."""
        self.seq += 1
        line = b'{"writer":"%b","seq":%d,"prev":"%b",%b' % (
            self.writer.encode(),
            self.seq,
            self.head.encode(),
            event[1:],
        )
        if is_last:
            line = _with(line, b"last", b"true")
        if sign is not None:
            line = _with(line, b"signature", b'"%b"' % base64.b64encode(sign(CONTEXT + line)))
        digest = hashlib.sha256(line)
        self.head = digest.hexdigest()
        return line[:-1] + hash_member(digest)


def hash_member(digest: Hash) -> bytes:
    """Return how a line of this digest ends."""
    return b',"hash":"%b"}' % digest.hexdigest().encode()


def _with(line: bytes, name: bytes, value: bytes) -> bytes:
    """Return an object with one more member at its end."""
    return b'%b,"%b":%b}' % (line[:-1], name, value)
