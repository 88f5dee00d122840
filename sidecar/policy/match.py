"""Conditions on a caller and a request head, compiled once to closures.

Attributes and the values they have (none at all when absent):

    tenant subject app   the caller's; absent when empty
    segment              the names of the segments that the caller is in
    scope                every scope of the caller
    claim.<path>         the claim of that very name, else member by member along the dots;
                         the items of a list; absent when null
    method               as sent
    path                 without the query, percent-decoded, so that %61 does not evade a rule
    header.<name>        repeats joined; absent when not sent
    time                 when the request arrived; takes `from` and `until` alone

A condition holds when one value passes all its positive tests and no value is in `not_in`; so
`not_in` alone holds for an absent attribute: add `exists: true` to demand one. Claims compare by
JSON type (1 equals 1.0, and neither `true` nor "1"); all other attributes are text, against
which a number or boolean counts as its JSON spelling.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from sidecar.model.policy import Operators
from sidecar.policy import moment, target
from sidecar.policy.check import as_text, one_of, positive_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence, Set

    from sidecar.model.identity import JSON, Identity
    from sidecar.model.policy import Condition, Matcher, Scalar
    from sidecar.model.request import RequestHead
    from sidecar.policy.check import Check
    from sidecar.policy.steps import Steps

    Test = Callable[[Identity, RequestHead], bool]
    Values = Callable[[Identity, RequestHead], Sequence[JSON]]
    Memberships = Mapping[str, "Membership"]

MAX_REMEMBERED = 4096  # callers, by each test that remembers
PORTION = 2_000  # tenants between two pauses


class Needs(IntEnum):
    """What must be known before a matcher can be decided; the greater includes the lesser."""

    NOTHING = 0
    TENANT = 1
    IDENTITY = 2
    REQUEST = 3


class Membership:
    """A segment, compiled. `tenants` are all who are in it, where only lists decide.

    `tests` are those that `test` is made of.
    """

    __slots__ = ("needs", "tenants", "test", "tests")

    def __init__(
        self,
        test: Test,
        needed: Needs,
        tenants: Set[str] | None,
        tests: tuple[Test, ...] = (),
    ) -> None:
        self.tests = tests
        self.test = test
        self.needs = needed
        self.tenants = tenants


NO_SEGMENTS: dict[str, Membership] = {}


def always(_identity: Identity, _head: RequestHead) -> bool:
    """Hold for everyone: the matcher without conditions."""
    return True


def compile_matcher(matcher: Matcher, segments: Memberships = NO_SEGMENTS) -> Test:
    """Return the test that all conditions hold.

    Raises:
        KeyError: an unknown segment.
        ValueError: an unknown attribute or a bad operand; `validate` finds these first.
    """
    # Cheapest first: a caller's own attributes are at hand, a header has to be searched.
    attributes = sorted(matcher, key=lambda name: needs_of(name, matcher[name], segments))
    tests = tuple(_compile(attribute, matcher[attribute], segments) for attribute in attributes)
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


def compiling_matchers(
    matchers: Iterable[Matcher], segments: Memberships
) -> Steps[tuple[tuple[Test, ...], Needs]]:
    """Compile matchers in steps, for a list may have tens of thousands; tell what they need."""
    tests: list[Test] = []
    needed = Needs.NOTHING
    for matcher in matchers:
        tests.append(compile_matcher(matcher, segments))
        needed = max(needed, needs((matcher,), segments))
        yield
    return tuple(tests), needed


def any_of(tests: tuple[Test, ...]) -> Test:
    """Return the test that one of `tests` holds."""
    return lambda identity, head: any(test(identity, head) for test in tests)


def needs(matchers: Iterable[Matcher], segments: Memberships = NO_SEGMENTS) -> Needs:
    """Return what must be known to decide all of `matchers`."""
    found = (needs_of(*entry, segments) for matcher in matchers for entry in matcher.items())
    return max(found, default=Needs.NOTHING)


def needs_of(attribute: str, condition: Condition, segments: Memberships = NO_SEGMENTS) -> Needs:
    """Return what must be known to decide one condition."""
    if attribute != "segment":
        return needs_of_attribute(attribute)
    if isinstance(condition, Operators) and condition.exists is not None:
        return max((one.needs for one in segments.values()), default=Needs.NOTHING)
    named = segments_named(condition, segments)
    return max((segments[name].needs for name in named), default=Needs.NOTHING)


def needs_of_attribute(attribute: str) -> Needs:
    """Return what must be known to read an attribute of the caller or the request."""
    if attribute == "tenant":
        return Needs.TENANT
    if attribute in {"subject", "app", "scope"} or attribute.startswith("claim."):
        return Needs.IDENTITY
    return Needs.REQUEST


def segments_named(condition: Condition, known: Iterable[str]) -> frozenset[str]:
    """Return the segments that a condition on `segment` asks for; `exists` asks for all."""
    if not isinstance(condition, Operators):
        return frozenset(map(as_text, options_of(condition)))
    if condition.exists is not None:
        return frozenset(known)
    return frozenset(map(as_text, (*(condition.in_ or ()), *(condition.not_in or ()))))


def options_of(condition: Scalar | tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    """Return what a condition without operators lists."""
    return condition if isinstance(condition, tuple) else (condition,)


def listed(condition: Condition) -> tuple[Scalar, ...] | None:
    """Return the values any of which a condition wants; None when it wants something else."""
    if not isinstance(condition, Operators):
        return options_of(condition)
    return condition.in_ if condition == Operators(in_=condition.in_) else None


def listed_tenants(when: Matcher) -> frozenset[str] | None:
    """Return the tenants, one of which a caller has to be of; None where no list says so."""
    options = listed(when["tenant"]) if "tenant" in when else None
    return None if options is None else tenants_of(options)


def tenants_of(options: tuple[Scalar, ...]) -> frozenset[str]:
    """Return the tenants that a list names; the empty text is none, for it means no tenant."""
    # No call for each: there may be tens of thousands.
    texts = [one if isinstance(one, str) else as_text(one) for one in options if one != ""]
    return frozenset(texts)


def gathering(tenants: tuple[str, ...]) -> Steps[set[str]]:
    """Return the tenants of a segment's list as a set, in steps; the empty text is none."""
    texts: set[str] = set()
    for start in range(0, len(tenants), PORTION):
        texts.update(tenants[start : start + PORTION])
        yield
    texts.discard("")
    return texts


def remembering(test: Test, needed: Needs) -> Test:
    """Remember the answers of a test by what it needs, unless the request has a say in them."""
    if needed is Needs.REQUEST:
        return test
    return _by_identity(test) if needed is Needs.IDENTITY else _by_tenant(test)


def _by_tenant(test: Test) -> Test:
    answers: dict[str, bool] = {}

    def remembered(identity: Identity, head: RequestHead) -> bool:
        known = answers.get(identity.tenant)
        if known is not None:
            return known
        answer = test(identity, head)
        if len(answers) >= MAX_REMEMBERED:
            answers.clear()
        answers[identity.tenant] = answer
        return answer

    return remembered


def _by_identity(test: Test) -> Test:
    """Remember the answers for identities, which are kept per token and so come again.

    The entry holds the identity: while it is there, no other object can have its id.
    """
    answers: dict[int, tuple[Identity, bool]] = {}

    def remembered(identity: Identity, head: RequestHead) -> bool:
        entry = answers.get(id(identity))
        if entry is not None:
            return entry[1]
        answer = test(identity, head)
        if len(answers) >= MAX_REMEMBERED:
            answers.clear()
        answers[id(identity)] = identity, answer
        return answer

    return remembered


def asking_once(test: Test) -> Test:
    """Remember the answer for one request, and no longer.

    Segments that name segments would else be asked again and again, at each level more often.
    """

    def asked(identity: Identity, head: RequestHead) -> bool:
        answers = head.memberships
        if answers is None:
            answers = head.memberships = {}
        entry = answers.get(test)
        if entry is not None and entry[0] is identity:
            return entry[1]
        answer = test(identity, head)
        answers[test] = identity, answer
        return answer

    return asked


def header_text(value: bytes) -> str:
    """Decode a header or path for comparison; bytes that are no UTF-8 equal only themselves."""
    return value.decode("utf-8", "surrogateescape")


def _compile(attribute: str, condition: Condition, segments: Memberships) -> Test:
    if attribute == "segment":
        return _in_segments(condition, segments)
    if attribute == "time":
        return _in_window(condition)
    is_text = not attribute.startswith("claim.")
    values = reader(attribute)
    if not isinstance(condition, Operators):
        options = options_of(condition)
        if attribute == "tenant":
            return _tenant_in(tenants_of(options))
        is_any = one_of(options, is_text=is_text)
        return lambda identity, head: any(map(is_any, values(identity, head)))
    if condition.from_ is not None or condition.until is not None:
        raise ValueError(f'from and until are for "time", not for "{attribute}"')
    return _by_operators(condition, values, is_text=is_text)


def _by_operators(condition: Operators, values: Values, *, is_text: bool) -> Test:
    positive: tuple[Check, ...] = positive_checks(condition, is_text=is_text)
    negative = None if condition.not_in is None else one_of(condition.not_in, is_text=is_text)
    must_exist = condition.exists
    if negative is None and must_exist is None and len(positive) == 1:
        check = positive[0]
        return lambda identity, head: any(map(check, values(identity, head)))

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


def _in_segments(condition: Condition, segments: Memberships) -> Test:
    """Ask for membership by name, so that no segment is looked at that is not named."""
    if not isinstance(condition, Operators):
        return _in_any(options_of(condition), segments)
    allowed = Operators(in_=condition.in_, not_in=condition.not_in, exists=condition.exists)
    if condition != allowed:
        raise ValueError("a segment takes in, not_in and exists alone")
    wanted = None if condition.in_ is None else _in_any(condition.in_, segments)
    barred = None if condition.not_in is None else _in_any(condition.not_in, segments)
    must_exist = condition.exists

    def in_some(identity: Identity, head: RequestHead) -> bool:
        # Not by their names, as many as there are segments, for each such condition.
        return any(one.test(identity, head) for one in segments.values())

    def holds(identity: Identity, head: RequestHead) -> bool:
        if must_exist is not None and must_exist is not in_some(identity, head):
            return False
        if barred is not None and barred(identity, head):
            return False
        return wanted is None or wanted(identity, head)

    return holds


def _in_any(names: tuple[Scalar, ...], segments: Memberships) -> Test:
    tests = tuple(segments[as_text(name)].test for name in names)
    if len(tests) == 1:
        return tests[0]
    return lambda identity, head: any(test(identity, head) for test in tests)


def _in_window(condition: Condition) -> Test:
    """Test a half-open interval: the moment `until` is outside it."""
    if not isinstance(condition, Operators) or condition != Operators(
        from_=condition.from_, until=condition.until
    ):
        raise ValueError("time takes from and until alone")
    start = float("-inf") if condition.from_ is None else moment.seconds(condition.from_)
    end = float("inf") if condition.until is None else moment.seconds(condition.until)
    return lambda _identity, head: start <= head.at_s < end


def reader(attribute: str) -> Values:
    """Return what reads the values of an attribute of the caller or the request.

    Raises:
        ValueError: there is no such attribute.
    """
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
    if not head.path_text:
        head.path_text = header_text(unquote_to_bytes(target.path(head.target)))
    return (head.path_text,)


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
