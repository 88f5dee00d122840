"""Messages read and sent the plain way, so that a test sees every byte."""

from __future__ import annotations

import asyncio
import re
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

PATIENCE_S = 20.0  # for what should come at once: longer than any machine is slow
NEXT_REQUEST = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
_BODILESS = {204, 304}
MALFORMED_CHUNKS = {
    "a chunk size that is no number": b"xyz\r\nabc\r\n0\r\n\r\n",
    "a signed chunk size": b"+3\r\nabc\r\n0\r\n\r\n",
    "a negative chunk size": b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk size in 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with an underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "a chunk size past 64 bits": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "no chunk size": b"\r\nabc\r\n0\r\n\r\n",
    "space before a chunk size": b" 3\r\nabc\r\n0\r\n\r\n",
    "space after a chunk size": b"3 \r\nabc\r\n0\r\n\r\n",
    "NUL after a chunk size": b"3\0\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than it says": b"2\r\nabc\r\n0\r\n\r\n",
    "a chunk shorter than it says": b"4\r\nabc\r\n0\r\n\r\n",
    "a chunk without an end": b"3\r\nabc0\r\n\r\n",
    "a bare LF after a chunk size": b"3\nabc\r\n0\r\n\r\n",
    "a bare CR after a chunk size": b"3\rabc\r\n0\r\n\r\n",
    "a bare LF after a chunk": b"3\r\nabc\n0\r\n\r\n",
    "a bare CR after a chunk": b"3\r\nabc\r0\r\n\r\n",
    "a bare CR in a chunk extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "a bare LF in a chunk extension": b"3;a\nabc\r\n0\r\n\r\n",
    "NUL in a chunk extension": b"3;a\0\r\nabc\r\n0\r\n\r\n",
    "a bare LF after the last chunk": b"3\r\nabc\r\n0\n\r\n",
    "a bare LF at the end of the chunks": b"3\r\nabc\r\n0\r\n\n",
    "a bare CR at the end of the chunks": b"3\r\nabc\r\n0\r\n\rX: 1\r\n\r\n",
    "a folded trailer": b"3\r\nabc\r\n0\r\nX-A: 1\r\n 2\r\n\r\n",
    "a trailer without a colon": b"3\r\nabc\r\n0\r\nX-A\r\n\r\n",
    "space before a trailer's colon": b"3\r\nabc\r\n0\r\nX-A : 1\r\n\r\n",
    "NUL in a trailer": b"3\r\nabc\r\n0\r\nX-A: \0\r\n\r\n",
    "a bare LF after a trailer": b"3\r\nabc\r\n0\r\nX-A: 1\nX-B: 2\r\n\r\n",
}
"""What no chunked body may be, of a request or a response; each ends with the fault, or goes on."""


class Feed(Enum):
    """How the bytes of a message come in."""

    WHOLE = "whole"
    BYTE_BY_BYTE = "byte by byte"
    TRAILED = "with bytes trailing"


async def feed(writer: asyncio.StreamWriter, data: bytes, how: Feed, trail: bytes) -> None:
    """Send `data` as `how` says; `trail` is what trails it."""
    if how is Feed.BYTE_BY_BYTE:
        for byte in data:
            if writer.is_closing():  # the other end has heard enough
                return
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)  # the other end is in this loop, and reads it before it goes on
    else:
        writer.write(data + (trail if how is Feed.TRAILED else b""))
    await writer.drain()


class Fields(list[tuple[bytes, bytes]]):
    """Header lines in the order they came."""

    @classmethod
    def parse(cls, head: bytes) -> Fields:
        """Read the lines after the first of a head."""
        lines = head.split(b"\r\n")[1:]
        split = (line.partition(b":") for line in lines)
        return cls((name, value.strip(b" \t")) for name, _, value in split)

    def get(self, name: bytes) -> bytes | None:
        """Return the value of a field that must not repeat, or None."""
        found = [value for key, value in self if key.lower() == name.lower()]
        assert len(found) < 2, f"{name!r} came {len(found)} times"
        return found[0] if found else None


class Answer(NamedTuple):
    """One response as a client saw it."""

    line: bytes
    fields: Fields
    body: bytes
    raw_body: bytes  # with its chunk framing

    @property
    def status(self) -> int:
        return int(self.line.split(b" ")[1])

    def get(self, name: bytes) -> bytes | None:
        """Return the value of a field that must not repeat, or None."""
        return self.fields.get(name)

    @property
    def problem(self) -> dict[str, JSON]:
        """The members of an error's body, which must be a problem of RFC 9457."""
        assert self.get(b"Content-Type") == b"application/problem+json", self.line
        members: dict[str, JSON] = msgspec.json.decode(self.body)
        return members

    @property
    def code(self) -> JSON:
        """The code of a problem."""
        return self.problem["code"]


async def read_answer(reader: asyncio.StreamReader, method: bytes = b"GET") -> Answer:
    """Read one response to `method`, interim ones included; raises IncompleteReadError."""
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
        line, fields = head.split(b"\r\n", 1)[0], Fields.parse(head)
        status = int(line.split(b" ")[1])
        if method == b"HEAD" or status < 200 or status in _BODILESS:
            return Answer(line, fields, b"", b"")
        if fields.get(b"Transfer-Encoding") is None and fields.get(b"Content-Length") is None:
            body = await reader.read()
            return Answer(line, fields, body, body)
        body, raw = await read_body(head, reader)
        return Answer(line, fields, body, raw)


async def read_body(head: bytes, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read a body that its head delimits; return it without and with its framing and trailers."""
    if re.search(rb"(?im)^transfer-encoding: *chunked\r?$", head):
        body: list[bytes] = []
        raw: list[bytes] = []
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line, 16)
            data = await (reader.readexactly(size + 2) if size else reader.readuntil(b"\r\n"))
            raw += (line, data)
            assert data.endswith(b"\r\n")
            if not size:
                while raw[-1] != b"\r\n":  # trailers
                    raw.append(await reader.readuntil(b"\r\n"))
                return b"".join(body), b"".join(raw)
            body.append(data[:-2])
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    whole = await reader.readexactly(int(length[1])) if length else b""
    return whole, whole
