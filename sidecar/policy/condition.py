"""What a matcher may not mean: attributes, the operators that fit them, and their operands."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from sidecar.model.policy import Operators
from sidecar.policy import moment, network, regex, semver
from sidecar.policy.shape import suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from sidecar.model.policy import Condition, Matcher, Scalar
    from sidecar.policy.problem import Finding, Findings, Path

ATTRIBUTES = ("tenant", "segment", "subject", "app", "scope", "method", "path", "time")

# The proxy writes these itself, or they frame the message (RFC 9110 sections 7.2, 7.6.1, 8.6).
RESERVED_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-model",
        "x-model-decision",
        "x-model-version",
        "x-request-id",
        "x-shadow",
        "x-tenant",
    }
)

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2

_OF_TIME = frozenset({"from", "until"})
_OF_SEGMENT = frozenset({"in", "not_in", "exists"})


def matcher_faults(matcher: Matcher, at: Path, segments: Collection[str]) -> Findings:
    """Yield everything that is wrong with a matcher of a policy with these segments."""
    for attribute, condition in matcher.items():
        here: Path = (*at, attribute)
        yield from _attribute(attribute, here)
        if isinstance(condition, Operators):
            yield from _operators(condition, attribute, here)
        elif attribute == "time":
            yield here, "a time is matched by from and until: {from: 2026-11-23T13:00:00Z}"
        elif condition == ():
            yield here, "an empty list matches nobody"
        if attribute == "segment":
            yield from _references(condition, here, segments)
        options = condition if isinstance(condition, tuple) else (condition,)
        if attribute in {"tenant", "subject", "app"} and "" in options:
            yield here, "an empty text matches nobody; for callers without one, use exists: false"


def header_faults(name: str, at: Path) -> Iterator[Finding]:
    """Yield why rules and keys cannot read a header of this name."""
    if not TOKEN.fullmatch(name):
        yield at, f'"{name[:80]}" is not a header name'
    elif name.lower() in RESERVED_HEADERS and name.lower() != "host":
        yield at, f'the header "{name}" is of the connection or the sidecar; no rule can see it'


def values_of(condition: Condition) -> Iterator[tuple[Path, Scalar]]:
    """Yield the values that a condition compares with, each with its path below it."""
    if isinstance(condition, Operators):
        for operator, options in (("in", condition.in_), ("not_in", condition.not_in)):
            for n, option in enumerate(options or ()):
                yield (operator, n), option
    elif isinstance(condition, tuple):
        for n, option in enumerate(condition):
            yield (n,), option
    else:
        yield (), condition


def _references(condition: Condition, at: Path, segments: Collection[str]) -> Iterator[Finding]:
    for below, name in values_of(condition):
        if not isinstance(name, str):
            yield (*at, *below), "a segment is named by text"
        elif name not in segments:
            yield (*at, *below), f'unknown segment "{name[:80]}"' + suggestion(name, segments)


def _attribute(attribute: str, at: Path) -> Iterator[Finding]:
    if attribute.startswith("header."):
        yield from header_faults(attribute.removeprefix("header."), at)
    elif attribute.startswith("claim."):
        if not all(attribute.split(".")):
            yield at, "a claim is named by claim.<name>, members of it by further dots"
    elif attribute not in ATTRIBUTES:
        known = ", ".join(ATTRIBUTES)
        wrong = f'unknown attribute "{attribute[:80]}": one of {known}, claim.<path>, header.<name>'
        yield at, wrong + suggestion(attribute, ATTRIBUTES)


def _operators(condition: Operators, attribute: str, at: Path) -> Findings:
    given = _given(condition)
    if not given:
        yield at, "no operator is given"
    for operator in given:
        fault = _misplaced(operator, attribute)
        if fault:
            yield (*at, operator), fault
    for name, options in (("in", condition.in_), ("not_in", condition.not_in)):
        if options is not None and not options:
            yield (*at, name), "the list is empty"
    for name, text in (("prefix", condition.prefix), ("suffix", condition.suffix)):
        if text is not None and not text:
            yield (*at, name), f"an empty {name} matches everything; to demand a value, use exists"
    yield from _operands(condition, at)


def _given(condition: Operators) -> list[str]:
    """Return the operators that a document gives, as it spells them."""
    values = {
        "in": condition.in_,
        "not_in": condition.not_in,
        "prefix": condition.prefix,
        "suffix": condition.suffix,
        "regex": condition.regex,
        "exists": condition.exists,
        "gte": condition.gte,
        "lte": condition.lte,
        "semver": condition.semver,
        "cidr": condition.cidr,
        "from": condition.from_,
        "until": condition.until,
    }
    return [name for name, value in values.items() if value is not None]


def _misplaced(operator: str, attribute: str) -> str:
    """Return why an operator does not fit an attribute, or nothing."""
    if attribute == "time":
        return "" if operator in _OF_TIME else "a time is matched by from and until alone"
    if operator in _OF_TIME:
        return f"{operator} is for the attribute time alone"
    if attribute == "segment" and operator not in _OF_SEGMENT:
        return "a segment is matched by its name, a list of names, in, not_in or exists"
    return ""


def _operands(condition: Operators, at: Path) -> Findings:
    if condition.regex is not None:
        yield from _unreadable(regex.pattern, condition.regex, (*at, "regex"))
        yield None
    yield from _numbers(condition.gte, condition.lte, at)
    if condition.semver is not None:
        yield from _unreadable(semver.within, condition.semver, (*at, "semver"))
    if condition.cidr is not None and not condition.cidr:
        yield (*at, "cidr"), "the list is empty"
    for n, text in enumerate(condition.cidr or ()):
        yield from _unreadable(network.parse, text, (*at, "cidr", n))
        if n % network.PORTION == network.PORTION - 1:
            yield None
    yield from period_faults(condition.from_, condition.until, at, ("from", "until"))


def period_faults(
    start: str | None, end: str | None, at: Path, names: tuple[str, str]
) -> Iterator[Finding]:
    """Yield what is wrong with two moments, the first of which has to be before the second."""
    faults = [
        fault
        for name, text in zip(names, (start, end), strict=True)
        if text is not None
        for fault in _unreadable(moment.seconds, text, (*at, name))
    ]
    yield from faults
    if start is None or end is None or faults:
        return
    if moment.seconds(start) >= moment.seconds(end):
        yield (*at, names[1]), f"is not after {names[0]}, {start}"


def _numbers(low: float | None, high: float | None, at: Path) -> Iterator[Finding]:
    for name, bound in (("gte", low), ("lte", high)):
        if bound is not None and not math.isfinite(bound):
            yield (*at, name), "a bound is a finite number"
    if low is not None and high is not None and low > high:
        yield (*at, "lte"), f"no number is at least {low} and at most {high}"


def _unreadable(read: Callable[[str], object], text: str, at: Path) -> Iterator[Finding]:
    """Yield why the function that reads an operand refuses it."""
    try:
        read(text)
    except ValueError as error:
        yield at, str(error)[:200]
