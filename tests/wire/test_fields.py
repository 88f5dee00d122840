"""Which fields pass, which end here, and that names cost bounded memory."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecar.wire import fields as wire
from sidecar.wire.fields import REQUEST_FIELDS, RESPONSE_FIELDS, FieldKinds, drop_nominated

NAMES = [b"X-A", b"x-a", b"X-B", b"Host", b"Content-Length", b"Authorization", b"TE"]


def lines(*names: bytes) -> list[bytes]:
    """Fields as heads hold them; the value of each is its place."""
    return [b"%b: %d\r\n" % (name, n) for n, name in enumerate(names)]


def names_of(fields: list[bytes]) -> list[bytes]:
    return [wire.name_of(line) for line in fields]


@pytest.mark.parametrize("table", [REQUEST_FIELDS, RESPONSE_FIELDS])
def test_a_field_has_its_kind_however_it_is_spelled(table: dict[bytes, int]) -> None:
    kinds = FieldKinds(table)

    for name, kind in table.items():
        assert kinds.of(name) == kinds.of(name.upper()) == kinds.of(name.title()) == kind


@given(name=st.binary(min_size=1, max_size=20))
def test_an_unknown_field_is_passed_on_if_its_name_is_one(name: bytes) -> None:
    kinds = FieldKinds(REQUEST_FIELDS)
    is_name = re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) is not None

    assume(
        re.sub(rb"[^0-9a-z]", b"-", name.lower()) not in REQUEST_FIELDS
        or name.lower() in REQUEST_FIELDS
    )
    known = REQUEST_FIELDS.get(name.lower(), wire.PASS)
    assert kinds.of(name) == (known if is_name else wire.INVALID)


@pytest.mark.parametrize("table", [REQUEST_FIELDS, RESPONSE_FIELDS])
@pytest.mark.parametrize("mark", [bytes([byte]) for byte in b"!#$%&'*+.^_`|~"])
def test_a_name_with_another_mark_is_a_known_one_to_cgi(
    table: dict[bytes, int], mark: bytes
) -> None:
    kinds = FieldKinds(table)

    for name, kind in table.items():
        if b"-" in name:
            expected = wire.SECRET if kind == wire.SECRET else wire.DROP
            assert kinds.of(name.replace(b"-", mark).title()) == expected


def test_made_up_names_are_remembered_within_bounds() -> None:
    kinds = FieldKinds(REQUEST_FIELDS)

    for n in range(3 * wire.MAX_SPELLINGS):
        assert kinds.of(b"X-%d" % n) == wire.PASS

    assert len(kinds) <= wire.MAX_SPELLINGS
    assert kinds.of(b"cOnNeCtIoN") == wire.CONNECTION


@pytest.mark.parametrize(
    ("connection", "left"),
    [
        (b"close", [b"X-A", b"x-a", b"X-B", b"Host"]),
        (b"Keep-Alive", [b"X-A", b"x-a", b"X-B", b"Host"]),
        (b"X-A", [b"X-B", b"Host"]),
        (b" close ,\tx-A , ", [b"X-B", b"Host"]),
        (b"X-B,X-a", [b"Host"]),
        (b"host", [b"X-A", b"x-a", b"X-B", b"Host"]),
        (b",,", [b"X-A", b"x-a", b"X-B", b"Host"]),
    ],
)
def test_what_connection_names_is_removed(connection: bytes, left: list[bytes]) -> None:
    fields = lines(b"X-A", b"x-a", b"X-B", b"Host")

    drop_nominated(fields, connection)

    assert names_of(fields) == left


@given(
    names=st.lists(st.sampled_from(NAMES)),
    tokens=st.lists(st.sampled_from([b"x-a", b"X-B", b"host", b"CONTENT-LENGTH", b"close", b""])),
)
def test_what_is_left_keeps_its_order_and_its_value(
    names: list[bytes], tokens: list[bytes]
) -> None:
    fields = lines(*names)
    gone = {token.lower() for token in tokens} - wire.UNNOMINABLE
    expected = [line for line in fields if wire.name_of(line).lower() not in gone]

    drop_nominated(fields, b", ".join(tokens))

    assert fields == expected
