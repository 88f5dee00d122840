"""What is valid and never happens: conditions that no request fulfils, or hardly any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sidecar.model.identity import is_tenant
from sidecar.model.policy import Operators
from sidecar.policy import moment, reach
from sidecar.policy.check import as_text
from sidecar.policy.condition import values_of
from sidecar.policy.match import listed_tenants
from sidecar.policy.problem import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sidecar.model.comparison import Comparison
    from sidecar.model.policy import Matcher, Policy, Price, Scalar, Shadow
    from sidecar.policy.problem import Finding, Path

_ONLY_SAFE = (
    "only GET, HEAD and OPTIONS are copied, and inference is mostly asked by POST: give methods, "
    "or say that the version is idempotent"
)

_UNKNOWN_TOKENS = (
    "never reached: the price is by tokens, and those of answers that are not compared are not "
    "known: give compare, or a price per_request"
)
_SERVES_ITSELF = (
    "serves by default: it gets copies only of requests that are pinned to another version or ask "
    "for one"
)
_NEVER_PROVEN = "can be violated and not be held: no number of pairs proves it"

METHODS = frozenset(  # RFC 9110 section 9.1 and RFC 5789
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)


def oddities(policy: Policy, now_s: float) -> Iterator[Finding]:
    """Yield what in a policy never happens, at a time in epoch seconds."""
    for at, matcher in _matchers(policy):
        for attribute, condition in matcher.items():
            here: Path = (*at, attribute)
            for below, value in values_of(condition):
                odd = _ODD.get(attribute, _not_odd)(as_text(value))
                if odd:
                    yield (*here, *below), odd
            if isinstance(condition, Operators):
                yield from _operators(condition, attribute, here, now_s)
    yield from _shut_out(policy)
    for n, shadow in enumerate(policy.shadows):
        yield from _shadow(shadow, policy, ("shadows", n))


def _matchers(policy: Policy) -> Iterator[tuple[Path, Matcher]]:
    yield from _placed(policy.allow, ("allow",))
    yield from _placed(policy.deny, ("deny",))
    for name, version in policy.versions.items():
        lists = {"allow": version.allow, "deny": version.deny, "accepts": version.accepts}
        for member, matchers in lists.items():
            yield from _placed(matchers, ("versions", name, member))
    for name, segment in policy.segments.items():
        yield from _placed(segment.when, ("segments", name, "when"))
    for n, rule in enumerate(policy.rules):
        yield ("rules", n, "when"), rule.when
    for n, shadow in enumerate(policy.shadows):
        yield from _placed(shadow.when, ("shadows", n, "when"))


def _shadow(shadow: Shadow, policy: Policy, at: Path) -> Iterator[Finding]:
    if shadow.percent == 0:
        yield (*at, "percent"), "nothing is copied"
    name = reach.named(policy, shadow.version)
    if shadow.cost_per_day is not None:
        price = policy.versions[name].price if name is not None else None
        yield from _cap(shadow, price, (*at, "cost_per_day"))
    default = None if policy.default is None else reach.named(policy, policy.default)
    if name is not None and name == default and not policy.rules:
        yield (*at, "version"), _SERVES_ITSELF
    is_idempotent = name is not None and policy.versions[name].idempotent
    if not shadow.methods and not is_idempotent:
        yield at, _ONLY_SAFE
    for n, method in enumerate(shadow.methods):
        odd = _odd_method(method)
        if odd:
            yield (*at, "methods", n), odd
    if shadow.compare is not None:
        yield from _compare(shadow.compare, (*at, "compare"))


def _cap(shadow: Shadow, price: Price | None, at: Path) -> Iterator[Finding]:
    if shadow.cost_per_day == 0:
        yield at, "nothing is copied: it may cost nothing"
    elif price is not None and not price.per_request:
        if not price.per_1k_input_tokens and not price.per_1k_output_tokens:
            yield at, "never reached: all of the version's price is 0"
        elif shadow.compare is None:
            yield at, _UNKNOWN_TOKENS


def _compare(compare: Comparison, at: Path) -> Iterator[Finding]:
    asked = compare.thresholds
    if compare.control is not None and compare.control_percent == 0:
        yield (*at, "control_percent"), "the control gets no copy"
    if asked.agreement == 1:
        yield (*at, "thresholds", "agreement"), _NEVER_PROVEN
    if asked.error_increase == 0:
        yield (*at, "thresholds", "error_increase"), _NEVER_PROVEN


def _placed(matchers: Sequence[Matcher] | None, at: Path) -> Iterator[tuple[Path, Matcher]]:
    for n, matcher in enumerate(matchers or ()):
        yield (*at, n), matcher


def _shut_out(policy: Policy) -> Iterator[Finding]:
    """Yield the matchers of an `allow` that let nobody in, as a `deny` keeps all of them out."""
    of_model = list(_placed(policy.deny, ("deny",)))
    yield from _covered(policy.allow, ("allow",), of_model)
    for name, version in policy.versions.items():
        own = _placed(version.deny, ("versions", name, "deny"))
        yield from _covered(version.allow, ("versions", name, "allow"), [*of_model, *own])


def _covered(
    allow: Sequence[Matcher] | None, at: Path, deny: Sequence[tuple[Path, Matcher]]
) -> Iterator[Finding]:
    if not allow or not deny:
        return
    by_conditions = {_conditions(matcher): place for place, matcher in deny}
    by_tenant = {
        tenant: place
        for place, matcher in deny
        for tenant in (listed_tenants(matcher) or () if len(matcher) == 1 else ())
    }
    for n, matcher in enumerate(allow):
        conditions = _conditions(matcher)
        parts = (conditions, frozenset[object](), *(frozenset({one}) for one in conditions))
        place = next((by_conditions[one] for one in parts if one in by_conditions), None)
        tenants = listed_tenants(matcher)
        if place is None and tenants and tenants <= by_tenant.keys():
            place = by_tenant[min(tenants)]
        if place is not None:
            yield (*at, n), f"lets nobody in: {render(place)} keeps all of them out"


def _conditions(matcher: Matcher) -> frozenset[object]:
    """Return what is equal for matchers of the same conditions; in Python `True == 1`."""
    return frozenset((name, msgspec.json.encode(asked)) for name, asked in matcher.items())


def _odd_tenant(text: str) -> str:
    if not text:
        return _odd_caller(text)
    return (
        ""
        if is_tenant(text)
        else "no caller can be of this tenant: it is printable ASCII without outer blanks"
    )


def _odd_caller(text: str) -> str:
    return "" if text else "an empty text matches nobody; for callers without one, use exists"


def _odd_scope(text: str) -> str:
    return "" if text and " " not in text else "no scope is empty or has a blank: list them"


def _odd_method(text: str) -> str:
    is_odd = text not in METHODS and text.upper() in METHODS
    return f"methods are matched as sent, and that is {text.upper()}" if is_odd else ""


def _odd_path(text: str) -> str:
    if text != "*" and not text.startswith("/"):
        return 'a path starts with "/"'
    if "?" in text:
        return "a path is matched without its query"
    return "a path is matched percent-decoded" if "%" in text else ""


def _not_odd(_text: str) -> str:
    return ""


_ODD: dict[str, Callable[[str], str]] = {
    "tenant": _odd_tenant,
    "subject": _odd_caller,
    "app": _odd_caller,
    "scope": _odd_scope,
    "method": _odd_method,
    "path": _odd_path,
}


def _operators(condition: Operators, attribute: str, at: Path, now_s: float) -> Iterator[Finding]:
    left_out = set(map(_keyed, condition.not_in or ()))
    if condition.in_ and left_out.issuperset(map(_keyed, condition.in_)):
        yield (*at, "in"), "matches nobody: all of it is in not_in"
    if condition.exists is False and _asks_for_value(condition):
        yield (*at, "exists"), "matches nobody: the other operators need a value"
    if attribute == "path" and condition.prefix is not None:
        odd = _odd_path(condition.prefix)
        if odd:
            yield (*at, "prefix"), odd
    if condition.until is not None and _is_past(condition.until, now_s):
        yield (*at, "until"), "matches nobody any more: it is past"


def _is_past(text: str, now_s: float) -> bool:
    try:
        return moment.seconds(text) <= now_s
    except ValueError:
        return False  # which is no oddity but a fault


def _keyed(option: Scalar) -> tuple[bool, Scalar]:
    return isinstance(option, bool), option  # in Python True == 1


def _asks_for_value(condition: Operators) -> bool:
    asked = (
        condition.in_,
        condition.prefix,
        condition.suffix,
        condition.regex,
        condition.gte,
        condition.lte,
        condition.semver,
        condition.cidr,
    )
    return any(one is not None for one in asked)
