"""Which fields pass, which end here, and that names cost bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecar.wire import fields as wire
from sidecar.wire.fields import REQUEST_FIELDS, RESPONSE_FIELDS, FieldKinds, drop_nominated

NAMES = [b"X-A", b"x-a", b"X-B", b"Host", b"Content-Length", b"Authorization", b"TE"]


def quadruples(*names: bytes) -> list[bytes]:
    """Fields as heads hold them; the value of each is its place."""
    return [part for n, name in enumerate(names) for part in (name, b": ", b"%d" % n, b"\r\n")]


def names_of(fields: list[bytes]) -> list[bytes]:
    return fields[::4]


@pytest.mark.parametrize("table", [REQUEST_FIELDS, RESPONSE_FIELDS])
def test_a_field_has_its_kind_however_it_is_spelled(table: dict[bytes, int]) -> None:
    kinds = FieldKinds(table)

    for name, kind in table.items():
        assert kinds.of(name) == kinds.of(name.upper()) == kinds.of(name.title()) == kind


@given(name=st.binary(min_size=1, max_size=20))
def test_an_unknown_field_is_passed_on(name: bytes) -> None:
    kinds = FieldKinds(REQUEST_FIELDS)

    assume(b"_" not in name)
    assert kinds.of(name) == REQUEST_FIELDS.get(name.lower(), wire.PASS)


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
    fields = quadruples(b"X-A", b"x-a", b"X-B", b"Host")

    drop_nominated(fields, connection)

    assert names_of(fields) == left


@given(
    names=st.lists(st.sampled_from(NAMES)),
    tokens=st.lists(st.sampled_from([b"x-a", b"X-B", b"host", b"CONTENT-LENGTH", b"close", b""])),
)
def test_what_is_left_keeps_its_order_and_its_value(
    names: list[bytes], tokens: list[bytes]
) -> None:
    fields = quadruples(*names)
    gone = {token.lower() for token in tokens} - wire.UNNOMINABLE
    expected = [
        part
        for at in range(0, len(fields), 4)
        if fields[at].lower() not in gone
        for part in fields[at : at + 4]
    ]

    drop_nominated(fields, b", ".join(tokens))

    assert fields == expected
