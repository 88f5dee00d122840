"""How bodies are delimited (RFC 9112 6 and 7)."""

from __future__ import annotations

from typing import Final

LAST_CHUNK: Final = b"0\r\n"  # trailers and an empty line follow

# What delimits a message's body, beside a length >= 0.
NO_BODY: Final = 0
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

FIRST_FINAL_STATUS: Final = 200
NO_CONTENT: Final = 204


def is_chunked_alone(transfer_encoding: bytes) -> bool:
    """Return whether the only coding is `chunked`: no other survives re-framing."""
    return transfer_encoding.strip().lower() == b"chunked"


def is_lengthless(status: int) -> bool:
    """Return whether a response must not tell a length (RFC 9110 section 8.6)."""
    return status < FIRST_FINAL_STATUS or status == NO_CONTENT


def is_bodiless(method: bytes, status: int) -> bool:
    """Return whether a response to `method` has no body whatever its head says (RFC 9112 6.3)."""
    return method == b"HEAD" or status in {NO_CONTENT, 304}
