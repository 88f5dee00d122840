"""What operators ask of one value; `policy.match` knows where values come from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sidecar.policy import network, regex, semver

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model.identity import JSON
    from sidecar.model.policy import Operators, Scalar

    Check = Callable[[JSON], bool]
    Number = int | float  # float alone would make mypyc round integers

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")  # RFC 8259 section 6
_NUMBER = re.compile(_INTEGER.pattern + r"(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MAX_DIGITS = 400  # of an exact integer: a longer one is beyond every bound, and slow to read


def as_text(value: Scalar) -> str:
    """Spell a scalar as JSON does, a string without quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def one_of(options: tuple[Scalar, ...], *, is_text: bool) -> Check:
    """Return the check that a value equals an option: as text, or by its JSON type."""
    if is_text:
        texts = frozenset(map(as_text, options))
        return lambda value: value in texts
    # In Python True == 1; in JSON they differ.
    keys = frozenset((isinstance(option, bool), option) for option in options)
    return lambda value: (
        isinstance(value, (str, int, float)) and (isinstance(value, bool), value) in keys
    )


def positive_checks(condition: Operators, *, is_text: bool) -> tuple[Check, ...]:
    """Return what one value has to pass, all of it.

    Raises:
        ValueError: a bad regex, range or network.
    """
    of = condition
    made = (
        None if of.in_ is None else one_of(of.in_, is_text=is_text),
        None if of.prefix is None else _starts(of.prefix),
        None if of.suffix is None else _ends(of.suffix),
        None if of.regex is None else _of_text(regex.pattern(of.regex).fits),
        None if of.gte is None else _at_least(of.gte),
        None if of.lte is None else _at_most(of.lte),
        None if of.semver is None else _of_text(semver.within(of.semver)),
        None if of.cidr is None else _of_text(network.within(of.cidr)),
    )
    return tuple([check for check in made if check is not None])


def _starts(prefix: str) -> Check:
    return lambda value: isinstance(value, str) and value.startswith(prefix)


def _ends(suffix: str) -> Check:
    return lambda value: isinstance(value, str) and value.endswith(suffix)


def _at_least(bound: Number) -> Check:
    def check(value: JSON) -> bool:
        number = _number(value)
        return number is not None and number >= bound

    return check


def _at_most(bound: Number) -> Check:
    def check(value: JSON) -> bool:
        number = _number(value)
        return number is not None and number <= bound

    return check


def _number(value: JSON) -> Number | None:
    """Return a number, also one that a text spells as JSON does; None for anything else."""
    if isinstance(value, str):
        if len(value) <= _MAX_DIGITS and _INTEGER.fullmatch(value):
            return int(value)  # exact: a float has 53 bits
        return float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value


def _of_text(test: Callable[[str], bool]) -> Check:
    return lambda value: isinstance(value, str) and test(value)
