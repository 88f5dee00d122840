"""Head fields: which are passed on, which end here, and which the sidecar reads or derives.

A field's kind is looked up by its name exactly as sent, one dict access: lower-casing each name
of each head would cost a fifth of the parser's time, and clients spell names in few ways.
"""

from __future__ import annotations

from typing import Final

MAX_SPELLING_BYTES: Final = 64  # longer names are nobody's habit, and would fill memory
MAX_SPELLINGS = 4096  # remembered per table; names past that are looked up in lower case each time

# Kinds. PASS is 0, so that the common case is the cheapest test. Up to LAST_PASSED fields are
# passed on, but those from AUTHORIZATION to LAST_WITHHELD to no copy.
INVALID: Final = -1  # not a name at all: a fold, a space before the colon, bytes outside of token
PASS: Final = 0
HOST: Final = 1
CONTENT_LENGTH: Final = 2
AUTHORIZATION: Final = 3
SECRET: Final = 4  # for the version that serves, never for a shadow
EXPECT: Final = 5
LAST_WITHHELD: Final = 5
ASKED_MODEL: Final = 6
LAST_PASSED: Final = 6
DROP: Final = 7  # hop-by-hop (RFC 9110 section 7.6.1) or derived by the sidecar
REQUEST_ID: Final = 8
ASKED_VERSION: Final = 9
CLAIMED_TENANT: Final = 10
DECISION: Final = 11
CONNECTION: Final = 12
TRANSFER_ENCODING: Final = 13
UPGRADE: Final = 14
TRAILER: Final = 15
TE: Final = 16

SPACE: Final = 32
COLON: Final = 58
_MARKS: Final = b"!#$%&'*+-.^_`|~"
_TOKEN: Final = _MARKS + bytes((*range(48, 58), *range(65, 91), *range(97, 123)))
_AS_CGI: Final = bytes.maketrans(_MARKS, b"-" * len(_MARKS))


class FieldKinds:
    """Kinds by spelling; unknown names are PASS. What it remembers is bounded.

    A name with `_` for `-` is no other field to servers that keep fields as CGI does (RFC 3875
    section 4.1.18), and to some of them any other mark is none, either (PHP: `.`): where a name
    reads so like one that the sidecar treats, it is left out.
    """

    def __init__(self, known: dict[bytes, int]) -> None:
        """Take kinds by lower-case name."""
        self._known = known
        self._spellings = dict(known)

    def __len__(self) -> int:
        return len(self._spellings)

    def of(self, name: bytes) -> int:
        """Return the kind of a field by its name as sent."""
        # Not a dict with __missing__: compiled, `get` on a plain one takes a third of the time.
        kind = self._spellings.get(name)
        return self._learn(name) if kind is None else kind

    def _learn(self, name: bytes) -> int:
        if not is_token(name):
            return INVALID
        plain = name.lower()
        kind = self._known.get(plain.translate(_AS_CGI), PASS)
        if plain not in self._known and kind not in {PASS, SECRET}:
            kind = DROP
        if len(name) <= MAX_SPELLING_BYTES:
            if len(self._spellings) >= MAX_SPELLINGS:
                self._spellings = dict(self._known)  # somebody makes them up
            self._spellings[name] = kind
        return kind


def is_token(text: bytes) -> bool:
    """Return whether `text` may be a method or a field's name (RFC 9110 section 5.6.2)."""
    return bool(text) and not text.translate(None, _TOKEN)


REQUEST_FIELDS: Final = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"te": TE,
    b"trailer": TRAILER,
    b"upgrade": UPGRADE,
    b"http2-settings": DROP,
    b"expect": EXPECT,
    b"authorization": AUTHORIZATION,
    b"proxy-authorization": DROP,
    b"cookie": SECRET,
    b"x-api-key": SECRET,
    b"x-request-id": REQUEST_ID,
    b"x-model": ASKED_MODEL,
    b"x-model-version": ASKED_VERSION,
    b"x-tenant": CLAIMED_TENANT,
    b"x-model-decision": DROP,
    b"x-shadow": DROP,
    b"x-forwarded-for": DROP,
    b"x-forwarded-proto": DROP,
    b"x-forwarded-host": DROP,
}
"""Request fields that are not simply passed on."""

RESPONSE_FIELDS: Final = {
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"te": DROP,
    b"trailer": TRAILER,
    b"upgrade": UPGRADE,
    b"x-request-id": REQUEST_ID,
    b"x-model-version": DECISION,
    b"x-model-decision": DECISION,
}
"""Response fields that are not simply passed on."""

UNNOMINABLE: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"authorization"))
"""What `Connection` cannot take out of a message: framing, routing and identity depend on it."""


NOT_IN_TRAILERS: Final = frozenset(
    b"accept age authorization cache-control content-encoding content-length content-location"
    b" content-range content-type date expect expires host if-match if-modified-since"
    b" if-none-match if-range if-unmodified-since keep-alive location max-forwards pragma"
    b" proxy-authenticate proxy-authorization range retry-after set-cookie vary warning"
    b" www-authenticate".split()
)
"""What no trailer may say: framing, routing, identity, modifiers, format (RFC 9110 6.5.1)."""

_PLAIN: Final = {
    b"": frozenset[bytes](),
    b"keep-alive": frozenset((b"keep-alive",)),
    b"Keep-Alive": frozenset((b"keep-alive",)),
    b"close": frozenset((b"close",)),
    b"Close": frozenset((b"close",)),
}
"""What `Connection` says nearly always: it names no field."""


def colon_of(line: bytes) -> int:
    """Return where the first colon of a header line is, -1 where it has none.

    Names are short: compiled, to look at their bytes takes a quarter of what calling `find` takes.
    """
    for at in range(min(len(line), MAX_SPELLING_BYTES)):
        if line[at] == COLON:
            return at
    return line.find(COLON, MAX_SPELLING_BYTES)


def name_of(line: bytes) -> bytes:
    """Return the name of a header line, as sent."""
    return line[: colon_of(line)]


def value_of(line: bytes) -> bytes:
    """Return the value of a header line, without the space around it."""
    return value_at(line, colon_of(line))


def value_at(line: bytes, at: int) -> bytes:
    """Return the value of a whole header line whose colon is at `at`, as `value_of` does."""
    end = len(line) - 2
    # Compiled, a slice that ends before it begins raises SystemError.
    value = line[at + 2 : end] if end > at + 2 else b""
    # Nearly always it stands between one space and the CRLF: to strip it would be a copy more.
    if value and line[at + 1] == SPACE and value[0] > SPACE and value[-1] > SPACE:
        return value
    return line[at + 1 :].strip()


def tokens(value: bytes) -> frozenset[bytes]:
    """Return the members of a comma-separated list, in lower case."""
    return frozenset([token.strip().lower() for token in value.split(b",")])


def options(connection: bytes) -> frozenset[bytes]:
    """Return the members of a `Connection` value, in lower case."""
    plain = _PLAIN.get(connection)
    return tokens(connection) if plain is None else plain


def drop_nominated(fields: list[bytes], connection: bytes) -> None:
    """Remove from `fields` (header lines) those that a `Connection` value names.

    RFC 9110 section 7.6.1. What framing, routing and identity depend on stays.
    """
    if connection not in _PLAIN:
        fields[:] = without(fields, tokens(connection) - UNNOMINABLE)


def without(fields: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    """Return `fields` (header lines) less those of the lower-case `names`."""
    return [line for line in fields if name_of(line).lower() not in names]


def passable_trailers(lines: list[bytes], announced: bytes, kinds: FieldKinds) -> list[bytes]:
    """Return the trailer lines that are passed on: announced ones that decide nothing.

    `announced` is the value of `Trailer`. A name that `kinds` knows is the sidecar's business, or
    framing, and has no place after a body (RFC 9110 section 6.5.1).
    """
    names = tokens(announced) - NOT_IN_TRAILERS
    return [
        line
        for line in lines
        if (name := name_of(line)).lower() in names and kinds.of(name) == PASS
    ]
