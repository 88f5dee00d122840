"""Conditions on a caller and a request head, compiled once to closures.

Attributes and the values they have (none at all when absent):

    tenant subject app   the caller's; absent when empty
    scope                every scope of the caller
    claim.<path>         the claim of that very name, else member by member along the dots;
                         the items of a list; absent when null
    method               as sent
    path                 without the query, percent-decoded, so that %61 does not evade a rule
    header.<name>        repeats joined; absent when not sent

A condition holds when one value passes all its positive tests and no value is in `not_in`; so
`not_in` alone holds for an absent attribute: add `exists: true` to demand one. Claims compare by
JSON type (1 equals 1.0, and neither `true` nor "1"); all other attributes are text, against
which a number or boolean counts as its JSON spelling.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from sidecar.model.policy import Operators
from sidecar.policy import target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sidecar.model.identity import JSON, Identity
    from sidecar.model.policy import Condition, Matcher, Scalar
    from sidecar.model.request import RequestHead

    Test = Callable[[Identity, RequestHead], bool]
    Values = Callable[[Identity, RequestHead], Sequence[JSON]]
    Check = Callable[[JSON], bool]


class Needs(IntEnum):
    """What must be known before a matcher can be decided; the greater includes the lesser."""

    NOTHING = 0
    TENANT = 1
    IDENTITY = 2
    REQUEST = 3


def always(_identity: Identity, _head: RequestHead) -> bool:
    """Hold for everyone: the matcher without conditions."""
    return True


def compile_matcher(matcher: Matcher) -> Test:
    """Return the test that all conditions hold.

    Raises:
        ValueError: an unknown attribute or a bad regex; `validate` finds these first.
    """
    # Cheapest first: a caller's own attributes are at hand, a header has to be searched.
    attributes = sorted(matcher, key=needs_of_attribute)
    tests = tuple(_compile(attribute, matcher[attribute]) for attribute in attributes)
    if not tests:
        return always
    if len(tests) == 1:
        return tests[0]

    def every(identity: Identity, head: RequestHead) -> bool:
        for test in tests:  # noqa: SIM110  # half the time of all() with a generator
            if not test(identity, head):
                return False
        return True

    return every


def needs(matchers: Iterable[Matcher]) -> Needs:
    """Return what must be known to decide all of `matchers`."""
    found = (needs_of_attribute(attribute) for matcher in matchers for attribute in matcher)
    return max(found, default=Needs.NOTHING)


def needs_of_attribute(attribute: str) -> Needs:
    """Return what must be known to read an attribute."""
    if attribute == "tenant":
        return Needs.TENANT
    if attribute in {"subject", "app", "scope"} or attribute.startswith("claim."):
        return Needs.IDENTITY
    return Needs.REQUEST


def as_text(value: Scalar) -> str:
    """Spell a scalar as JSON does, a string without quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def tenants_of(options: tuple[Scalar, ...]) -> frozenset[str]:
    """Return the tenants that a list names; the empty text is none, for it means no tenant."""
    return frozenset(map(as_text, options)) - {""}


def header_text(value: bytes) -> str:
    """Decode a header or path for comparison; bytes that are no UTF-8 equal only themselves."""
    return value.decode("utf-8", "surrogateescape")


def _compile(attribute: str, condition: Condition) -> Test:
    is_text = not attribute.startswith("claim.")
    values = _reader(attribute)
    if not isinstance(condition, Operators):
        options = condition if isinstance(condition, tuple) else (condition,)
        if attribute == "tenant":
            return _tenant_in(tenants_of(options))
        is_any = _one_of(options, is_text=is_text)
        return lambda identity, head: any(map(is_any, values(identity, head)))
    positive = _positive_checks(condition, is_text=is_text)
    negative = None if condition.not_in is None else _one_of(condition.not_in, is_text=is_text)
    must_exist = condition.exists

    def holds(identity: Identity, head: RequestHead) -> bool:
        found = values(identity, head)
        if must_exist is not None and must_exist is not bool(found):
            return False
        if negative is not None and any(map(negative, found)):
            return False
        return not positive or any(all(check(one) for check in positive) for one in found)

    return holds


def _tenant_in(tenants: frozenset[str]) -> Test:
    return lambda identity, _head: identity.tenant in tenants


def _positive_checks(condition: Operators, *, is_text: bool) -> tuple[Check, ...]:
    checks: list[Check] = []
    if condition.in_ is not None:
        checks.append(_one_of(condition.in_, is_text=is_text))
    if condition.prefix is not None:
        checks.append(_starts(condition.prefix))
    if condition.suffix is not None:
        checks.append(_ends(condition.suffix))
    if condition.regex is not None:
        checks.append(_fits(condition.regex))
    return tuple(checks)


def _starts(prefix: str) -> Check:
    return lambda value: isinstance(value, str) and value.startswith(prefix)


def _ends(suffix: str) -> Check:
    return lambda value: isinstance(value, str) and value.endswith(suffix)


def _fits(regex: str) -> Check:
    try:
        fullmatch = re.compile(regex).fullmatch
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"bad regex: {error}") from error
    return lambda value: isinstance(value, str) and fullmatch(value) is not None


def _one_of(options: tuple[Scalar, ...], *, is_text: bool) -> Check:
    if is_text:
        texts = frozenset(map(as_text, options))
        return lambda value: value in texts
    # In Python True == 1; in JSON they differ.
    keys = frozenset((isinstance(option, bool), option) for option in options)
    return lambda value: (
        isinstance(value, (str, int, float)) and (isinstance(value, bool), value) in keys
    )


def _reader(attribute: str) -> Values:
    kind, _, name = attribute.partition(".")
    match kind:
        case "tenant" | "subject" | "app" | "scope" | "method" | "path" if not name:
            return _READERS[kind]
        case "claim" if name:
            return _claim_reader(name)
        case "header" if name:
            return _header_reader(name)
        case _:
            raise ValueError(f'unknown attribute "{attribute}"')


def _path(_identity: Identity, head: RequestHead) -> tuple[str]:
    return (header_text(unquote_to_bytes(target.path(head.target))),)


_READERS: dict[str, Values] = {
    "tenant": lambda identity, _head: (identity.tenant,) if identity.tenant else (),
    "subject": lambda identity, _head: (identity.subject,) if identity.subject else (),
    "app": lambda identity, _head: (identity.app,) if identity.app else (),
    "scope": lambda identity, _head: identity.scopes,
    "method": lambda _identity, head: (header_text(head.method),),
    "path": _path,
}


def _claim_reader(path: str) -> Values:
    names = path.split(".")

    def read(identity: Identity, _head: RequestHead) -> Sequence[JSON]:
        claims: JSON = identity.claims
        found = identity.claims.get(path)
        if found is None:
            found = claims
            for name in names:
                found = found.get(name) if isinstance(found, dict) else None
        if found is None:
            return ()
        return found if isinstance(found, list) else (found,)

    return read


def _header_reader(name: str) -> Values:
    key = name.lower().encode()
    if key == b"host":  # the parser keeps it apart from the other fields
        return lambda _identity, head: (header_text(head.host),) if head.host else ()

    def read(_identity: Identity, head: RequestHead) -> Sequence[JSON]:
        value = head.header(key)
        return () if value is None else (header_text(value),)

    return read
