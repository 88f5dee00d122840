"""Whom rules answer is noted at a cost by their own length, however many there are."""

from __future__ import annotations

from sidecar.policy.reach import Answered

RULES = 200


class Counted(str):
    """A tenant that counts how often any is looked up."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        """Return the hash of the text."""
        Counted.looks += 1
        return super().__hash__()


def test_a_rule_is_noted_without_a_look_at_the_tenants_of_all_before_it() -> None:
    answered = Answered()
    rules = [frozenset({Counted(f"t{n}")}) for n in range(RULES)]
    Counted.looks = 0

    for n, tenants in enumerate(rules):
        answered.add(f"r{n}", [n], tenants)

    assert Counted.looks <= 5 * RULES
    told = answered.covers(["other"], frozenset({"t0", "t7"}))
    assert told == 'all of its tenants are answered before, by rule "r0", "r7"'
