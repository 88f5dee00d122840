"""Pins are a mapping like any other, whatever their number."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.pins import MAX_WHOLE, Pins

CHANGES = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.none() | st.sampled_from(["v1", "v2"]))
)


@given(CHANGES, st.booleans())
def test_pins_are_what_a_dict_would_be(
    changes: list[tuple[str, str | None]],
    is_large: bool,
) -> None:
    pins = Pins()
    plain: dict[str, str] = {}
    if is_large:
        plain = {f"tenant-{n}": "v0" for n in range(MAX_WHOLE + 10)}
        for tenant, version in plain.items():
            pins.put(tenant, version)

    for tenant, changed in changes:
        pins.put(tenant, changed)
        plain.pop(tenant, None)
        if changed is not None:
            plain[tenant] = changed

    assert dict(pins) == plain
    assert len(pins) == len(plain)
    for tenant in "abcdefgh":
        assert pins.get(tenant) == plain.get(tenant)
        assert (tenant in pins) == (tenant in plain)
        assert pins.get(tenant, "none") == plain.get(tenant, "none")


def test_every_tenant_comes_once_in_portions_while_others_come_and_go() -> None:
    pins = Pins()
    names = [f"tenant-{n}" for n in range(3 * MAX_WHOLE)]
    for name in names:
        pins.put(name, "v1")

    told = []
    for n, portion in enumerate(pins.portions(100)):
        assert len(portion) <= 100
        told.append(portion)
        pins.put(f"new-{n}", "v1")
        pins.put(names[-1], None)
        pins.put(names[-1], "v2")

    assert sorted(one for one in chain(*told) if not one.startswith("new")) == sorted(names)


def test_pins_that_grow_are_divided_and_none_is_lost() -> None:
    pins = Pins()

    for n in range(MAX_WHOLE * 4):
        pins.put(f"tenant-{n}", "v1")
        assert pins.get(f"tenant-{n}") == "v1"

    assert len(pins) == MAX_WHOLE * 4
