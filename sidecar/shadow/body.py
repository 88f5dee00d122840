"""What a body is: its content coding undone, its charset, and what it is to be compared as."""

from __future__ import annotations

import codecs
import re
import zlib
from typing import TYPE_CHECKING, NamedTuple

from sidecar.model.shadow import Uncompared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model.shadow import Answer

_DIGITS = re.compile("[0-9]{1,9}")

EVENTS = "text/event-stream"
MAX_CODINGS = 2
MAX_VALUES = 500_000  # that are made at once: nothing else runs meanwhile, be it in a thread
MAX_TEXT_BYTES = 1024 * 1024  # the same, of a text
_HOLDER = 4  # values that an array or object counts: it takes as much time and memory
MAX_MEMBERS = 16  # of one gzip body (RFC 1952 section 2.2): each costs a copy of what follows

_GZIP, _ZLIB, _RAW = 31, 15, -15  # the window bits by which zlib tells these apart

_CHARSETS = frozenset(
    codecs.lookup(name).name
    for name in (
        *("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "ascii"),
        *("latin-1", "iso8859-2", "iso8859-15", "cp1250", "cp1251", "cp1252"),
        *("shift_jis", "euc_jp", "gbk", "gb18030", "big5", "euc_kr", "koi8-r"),
    )
)
"""What is read. Python has codecs that are no charsets, and some that take quadratic time."""


class UnreadableError(Exception):
    """A body cannot be read as what it says that it is; `cause` is what that is counted as."""

    def __init__(self, cause: Uncompared) -> None:
        super().__init__(cause.value)
        self.cause = cause


class Body(NamedTuple):
    """A body without content coding; `media` is its media type in lower case, "" if unsaid.

    `json_bytes` is how much of it is the JSON of an answer with binary tensors, `coding` how it was
    sent.
    """

    data: bytes
    media: str
    charset: str
    json_bytes: int | None = None
    coding: str = ""

    def text(self) -> str:
        """Return it as text; bytes that are none in its charset stay apart as escapes.

        Raises:
            UnreadableError: its charset is not known here; it is too long.
        """
        if len(self.data) > MAX_TEXT_BYTES:
            raise UnreadableError(Uncompared.SIZE)
        try:
            name = codecs.lookup(self.charset or "utf-8").name
        except (LookupError, ValueError):  # ValueError: a null character in its name
            name = ""
        if name not in _CHARSETS:
            raise UnreadableError(Uncompared.ENCODING)
        return self.data.decode(name, "backslashreplace").removeprefix("\ufeff")


CONTENT_FIELDS = frozenset(("content-type", "content-encoding", "inference-header-content-length"))
"""The header fields that say what a body is."""


def fields_of(answer: Answer, names: frozenset[str]) -> dict[str, str]:
    """Return the fields with these names, the values of repeated ones joined by commas.

    RFC 9110 section 5.3: that does not change what they mean.
    """
    found: dict[str, str] = {}
    for name, value in answer.fields:
        if name in names:
            found[name] = f"{found[name]}, {value.strip()}" if name in found else value.strip()
    return found


def read(data: bytes, fields: Mapping[str, str], max_bytes: int) -> Body:
    """Return a body of which `fields` say what it is.

    Raises:
        UnreadableError: it is longer than `max_bytes`, with or without its content coding; the
            coding is unknown here, or is not what it says.
    """
    if len(data) > max_bytes:
        raise UnreadableError(Uncompared.SIZE)
    media, charset = media_type(fields.get("content-type", ""))
    header = fields.get("inference-header-content-length", "")
    length = int(header) if _DIGITS.fullmatch(header) else None
    coding = fields.get("content-encoding", "")
    if coding and data:  # an empty body has no coding: of HEAD, 204, 304
        data = undo(data, coding, max_bytes)
    return Body(data, media, charset, length, coding)


def bound_values(data: bytes | str) -> None:
    """See to it that a JSON text has no more values than may be read at once.

    They are counted by what stands before them, which may stand in texts as well.

    Raises:
        UnreadableError: it has more.
    """
    if len(data) * _HOLDER <= MAX_VALUES:
        return
    if isinstance(data, str):
        items, holders = data.count(","), data.count("[") + data.count("{")
    else:
        items, holders = data.count(b","), data.count(b"[") + data.count(b"{")
    if items + _HOLDER * holders > MAX_VALUES:
        raise UnreadableError(Uncompared.SIZE)


def media_type(value: str) -> tuple[str, str]:
    """Return a content type's media type and charset in lower case, "" if unsaid.

    JSON and event streams are UTF-8, be it said or not (RFC 8259 section 8.1; WHATWG HTML, 9.2.5).
    """
    media, *parameters = value.lower().split(";")
    media, charset = media.strip(), ""
    for parameter in parameters:
        name, _, said = parameter.partition("=")
        if name.strip() == "charset":
            charset = said.strip().strip('"')
            break
    if charset == "utf-8" and (media == EVENTS or is_json(media)):
        charset = ""
    return media, charset


def undo(data: bytes, codings: str, max_bytes: int) -> bytes:
    """Return `data` without its content codings, the last of which was done last.

    RFC 9110 section 8.4.1. A bomb is given up at `max_bytes`.

    Raises:
        UnreadableError: unknown coding, too long, or not what it says.
    """
    names = [name.strip().lower() for name in codings.split(",")]
    names = [name for name in names if name not in {"", "identity"}]
    if len(names) > MAX_CODINGS:
        raise UnreadableError(Uncompared.ENCODING)
    for name in reversed(names):
        window_bits = _window_bits(name, data)
        if window_bits is None:
            raise UnreadableError(Uncompared.ENCODING)
        data = _inflate(data, window_bits, max_bytes)
    return data


def undo_marks(
    data: bytes, coding: str, marks: tuple[tuple[int, float], ...]
) -> tuple[tuple[int, float], ...]:
    """Return when so many bytes of a body could be read that was sent as `data`.

    It has been read within its bound before. Nothing is known of several codings.
    """
    if coding.lower() in {"", "identity"}:
        return marks
    window_bits = _window_bits(coding.lower(), data)
    if window_bits is None:
        return ()
    stream = zlib.decompressobj(window_bits)
    found: list[tuple[int, float]] = []
    start = read = 0
    for end, at_s in marks:
        read += len(stream.decompress(data[start:end]))
        start = end
        found.append((read, at_s))
    return tuple(found)


def _window_bits(name: str, data: bytes) -> int | None:
    """Return by what zlib undoes a coding, if it can."""
    if name in {"gzip", "x-gzip"}:
        return _GZIP
    if name != "deflate":
        return None
    # RFC 9110 section 8.4.1.2: the zlib format, which some leave out.
    return _ZLIB if _is_zlib(data) else _RAW


def _is_zlib(data: bytes) -> bool:
    """Return whether it begins with a header of RFC 1950 section 2.2."""
    return len(data) > 1 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0  # noqa: PLR2004


def _inflate(data: bytes, window_bits: int, max_bytes: int) -> bytes:
    found = b""
    for _ in range(MAX_MEMBERS):
        stream = zlib.decompressobj(window_bits)
        try:
            found += stream.decompress(data, max_bytes + 1 - len(found))
        except zlib.error as error:
            raise UnreadableError(Uncompared.MALFORMED) from error
        if len(found) > max_bytes:
            raise UnreadableError(Uncompared.SIZE)
        if not stream.eof:
            raise UnreadableError(Uncompared.MALFORMED)
        data = stream.unused_data
        if not data or window_bits != _GZIP:
            return found
    raise UnreadableError(Uncompared.ENCODING)


def is_json(media: str) -> bool:
    """Return whether a media type is JSON (RFC 6839 section 3.1)."""
    return media in {"application/json", "text/json"} or media.endswith("+json")


def is_lines(media: str) -> bool:
    """Return whether a media type is a JSON document a line."""
    return media in _LINES


def is_text(media: str) -> bool:
    """Return whether a media type is text."""
    return media.startswith("text/") or media in _TEXTS or media.endswith("+xml")


def looks_like_json(data: bytes) -> bool:
    """Return whether a body of unknown type begins as an object or array does."""
    return data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"{", b"["}


_LINES = frozenset(("application/x-ndjson", "application/ndjson", "application/jsonl"))
_TEXTS = frozenset(("application/xml", "application/yaml", "application/javascript"))
