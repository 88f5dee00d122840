"""What a policy may not mean: every problem at once, each with its path."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sidecar.model.policy import Operators
from sidecar.policy import address
from sidecar.policy.problem import Path, Problem, gather
from sidecar.policy.rewrite import PLACEHOLDERS
from sidecar.policy.shape import NAME_RULE, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.model.policy import (
        Condition,
        Health,
        Matcher,
        Policy,
        Rewrite,
        Rule,
        Split,
        Version,
    )

    Finding = tuple[Path, str]

FIRST_FINAL_STATUS = 200  # RFC 9110 section 15: 1xx are interim
LAST_STATUS = 599
MAX_REGEX_CHARS = 1000  # a longer one is a list in disguise, and slow for every request

ATTRIBUTES = ("tenant", "subject", "app", "scope", "method", "path")
KEYS = ("tenant", "subject", "app", "request")

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
        "x-tenant",
    }
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_NOT_IN_VALUE = re.compile(r"[^\t -~]")  # RFC 9110 section 5.5; other bytes have no agreed meaning
_TEMPLATE_PART = re.compile(r"\{[^{}]*\}|[{}]")
_NOT_IN_TARGET = re.compile(r"[^!-~]")  # RFC 9112 section 3.2: a target is visible ASCII


def validate(policy: Policy, source: str = "") -> tuple[Problem, ...]:
    """Return everything that keeps a policy from being used; empty when it is good."""
    return gather(_findings(policy), source)


def warnings(policy: Policy, source: str = "") -> tuple[Problem, ...]:
    """Return what a good policy may hardly mean."""
    return gather(_oddities(policy), source)


def _oddities(policy: Policy) -> Iterator[Finding]:
    if policy.default is None and not any(_answers_everyone(rule, policy) for rule in policy.rules):
        yield (
            (),
            "no default, and no rule answers everybody: callers whom no rule serves get 503",
        )


def _findings(policy: Policy) -> Iterator[Finding]:
    yield from _name(policy.model, ("model",))
    if not policy.versions:
        yield ("versions",), "a policy needs at least one version"
    for name, version in policy.versions.items():
        at: Path = ("versions", name)
        yield from _name(name, at)
        yield from _deployment(version, at)
    yield from _rules(policy)
    if policy.default is not None:
        yield from _version(policy.default, policy, ("default",))
    yield from _shadows(policy)


def _name(name: str, at: Path) -> Iterator[Finding]:
    if not _NAME.fullmatch(name):
        yield at, f'"{name[:80]}" is not a name: {NAME_RULE}'


def _deployment(version: Version, at: Path) -> Iterator[Finding]:
    yield from _endpoints(version.endpoints, (*at, "endpoints"))
    if version.allow is not None and not version.allow:
        yield (*at, "allow"), "an empty list lets nobody in; leave it out to let everybody in"
    for member, matchers in (("allow", version.allow or ()), ("deny", version.deny)):
        for n, matcher in enumerate(matchers):
            yield from _matcher(matcher, (*at, member, n))
    if version.rewrite is not None:
        yield from _rewrite(version.rewrite, (*at, "rewrite"))
    if version.health is not None:
        yield from _health(version.health, (*at, "health"))


def _health(health: Health, at: Path) -> Iterator[Finding]:
    path = health.path
    if not path.startswith("/"):
        yield (*at, "path"), 'a path starts with "/"'
    elif _NOT_IN_TARGET.search(path) or "#" in path:
        yield (*at, "path"), "a path is visible ASCII, without blanks; percent-encode the rest"
    for n, status in enumerate(health.status):
        if not FIRST_FINAL_STATUS <= status <= LAST_STATUS:
            yield (
                (*at, "status", n),
                f"{status} is no final status: {FIRST_FINAL_STATUS} to {LAST_STATUS}",
            )


def _version(name: str, policy: Policy, at: Path) -> Iterator[Finding]:
    if name not in policy.versions:
        yield at, f'unknown version "{name}"' + suggestion(name, policy.versions)


def _endpoints(endpoints: tuple[str, ...], at: Path) -> Iterator[Finding]:
    if not endpoints:
        yield at, "a version needs at least one endpoint"
    for n, endpoint in enumerate(endpoints):
        fault = address.fault(endpoint)
        if fault is not None:
            yield (*at, n), f'"{endpoint[:200]}": {fault}'
        elif endpoint in endpoints[:n]:
            yield (*at, n), f'the endpoint "{endpoint}" is given twice'


def _rules(policy: Policy) -> Iterator[Finding]:
    seen: set[str] = set()
    catch_all: str | None = None
    for n, rule in enumerate(policy.rules):
        at: Path = ("rules", n)
        yield from _name(rule.id, (*at, "id"))
        if rule.id in seen:
            yield (*at, "id"), f'the rule id "{rule.id}" is given twice'
        seen.add(rule.id)
        if catch_all is not None:
            yield at, f'never reached: rule "{catch_all}" before it answers every caller'
        yield from _matcher(rule.when, (*at, "when"))
        yield from _outcome(rule, policy, at)
        if catch_all is None and _answers_everyone(rule, policy):
            catch_all = rule.id


def _outcome(rule: Rule, policy: Policy, at: Path) -> Iterator[Finding]:
    given = [name for name in ("serve", "split", "deny") if getattr(rule, name) is not None]
    if len(given) != 1:
        count = f"has {' and '.join(given)}" if given else "has none of them"
        yield at, f"a rule has exactly one of serve, split and deny; this one {count}"
    if rule.serve is not None:
        yield from _version(rule.serve, policy, (*at, "serve"))
    if rule.deny is not None and not rule.deny.strip():
        yield (*at, "deny"), "deny needs words: they are what the caller reads"
    if rule.split is not None:
        yield from _split(rule.split, policy, (*at, "split"))


def _split(split: Split, policy: Policy, at: Path) -> Iterator[Finding]:
    if not split.arms:
        yield (*at, "arms"), "a split needs at least one arm"
    elif not any(split.arms.values()):
        yield (*at, "arms"), "the weights sum to zero"
    for name in split.arms:
        yield from _version(name, policy, (*at, "arms", name))
    yield from _key(split.key, (*at, "key"))
    if split.otherwise is not None:
        yield from _version(split.otherwise, policy, (*at, "otherwise"))


def _answers_everyone(rule: Rule, policy: Policy) -> bool:
    """Return whether no caller gets past a rule, kills aside."""
    if rule.when:
        return False
    if rule.split is None:
        return rule.deny is not None or (rule.serve is not None and _is_open(rule.serve, policy))
    if rule.split.key != "request" and rule.split.otherwise is None:
        return False
    served = [name for name, weight in rule.split.arms.items() if weight]
    if rule.split.otherwise is not None:
        served.append(rule.split.otherwise)
    return all(_is_open(name, policy) for name in served)


def _is_open(name: str, policy: Policy) -> bool:
    version = policy.versions.get(name)
    return version is not None and version.allow is None and not version.deny


def _shadows(policy: Policy) -> Iterator[Finding]:
    seen: set[str] = set()
    for n, shadow in enumerate(policy.shadows):
        at: Path = ("shadows", n)
        yield from _version(shadow.version, policy, (*at, "version"))
        if shadow.version in seen:
            yield (*at, "version"), f'"{shadow.version}" is shadowed twice'
        seen.add(shadow.version)
        if not 0 <= shadow.percent <= 100:  # noqa: PLR2004  # percent
            yield (*at, "percent"), "a percentage is from 0 to 100"
        yield from _key(shadow.key, (*at, "key"))


def _key(key: str, at: Path) -> Iterator[Finding]:
    if key.startswith("header."):
        yield from _header_attribute(key.removeprefix("header."), at)
    elif key not in KEYS:
        known = ", ".join(KEYS)
        yield at, f'unknown key "{key}": one of {known}, header.<name>' + suggestion(key, KEYS)


def _matcher(matcher: Matcher, at: Path) -> Iterator[Finding]:
    for attribute, condition in matcher.items():
        here: Path = (*at, attribute)
        yield from _attribute(attribute, here)
        yield from _condition(condition, here)
        options = condition if isinstance(condition, tuple) else (condition,)
        if attribute in {"tenant", "subject", "app"} and "" in options:
            yield here, "an empty text matches nobody; for callers without one, use exists: false"


def _attribute(attribute: str, at: Path) -> Iterator[Finding]:
    if attribute.startswith("header."):
        yield from _header_attribute(attribute.removeprefix("header."), at)
    elif attribute.startswith("claim."):
        if not all(attribute.split(".")):
            yield at, "a claim is named by claim.<name>, members of it by further dots"
    elif attribute not in ATTRIBUTES:
        known = ", ".join(ATTRIBUTES)
        reason = f'unknown attribute "{attribute}": one of {known}, claim.<path>, header.<name>'
        yield at, reason + suggestion(attribute, ATTRIBUTES)


def _header_attribute(name: str, at: Path) -> Iterator[Finding]:
    if not _TOKEN.fullmatch(name):
        yield at, f'"{name}" is not a header name'
    elif name.lower() in RESERVED_HEADERS and name.lower() != "host":
        yield at, f'the header "{name}" is of the connection or the sidecar; no rule can see it'


def _condition(condition: Condition, at: Path) -> Iterator[Finding]:
    if isinstance(condition, Operators):
        yield from _operators(condition, at)
    elif condition == ():
        yield at, "an empty list matches nobody"


def _operators(condition: Operators, at: Path) -> Iterator[Finding]:
    if condition == Operators():
        yield at, "no operator is given"
    for name, options in (("in", condition.in_), ("not_in", condition.not_in)):
        if options is not None and not options:
            yield (*at, name), "the list is empty"
    for name, text in (("prefix", condition.prefix), ("suffix", condition.suffix)):
        if text is not None and not text:
            yield (*at, name), f"an empty {name} matches everything; to demand a value, use exists"
    if condition.regex is not None:
        yield from _regex(condition.regex, (*at, "regex"))


def _regex(regex: str, at: Path) -> Iterator[Finding]:
    if len(regex) > MAX_REGEX_CHARS:
        yield at, f"longer than {MAX_REGEX_CHARS} characters"
        return
    try:
        re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        yield at, f"bad regex: {error}"


def _rewrite(rewrite: Rewrite, at: Path) -> Iterator[Finding]:
    yield from ((((*at, "path"), reason)) for reason in _template_faults(rewrite.path))
    lowered: set[str] = set()
    for name, value in rewrite.headers.items():
        here: Path = (*at, "headers", name)
        if not _TOKEN.fullmatch(name):
            yield here, f'"{name}" is not a header name'
        elif name.lower() in RESERVED_HEADERS:
            yield here, f'the header "{name}" is written by the sidecar itself'
        elif name.lower() in lowered:
            yield here, f'the header "{name}" is given twice'
        lowered.add(name.lower())
        if _NOT_IN_VALUE.search(value):
            yield here, "a header value is visible ASCII, without control characters"
        elif value != value.strip(" \t"):
            yield here, "a header value neither starts nor ends with blanks"


def _template_faults(template: str) -> Iterable[str]:
    for part in _TEMPLATE_PART.findall(template):
        if part not in PLACEHOLDERS:
            known = ", ".join(PLACEHOLDERS)
            yield f'unknown placeholder "{part}": one of {known}'
    literal = _TEMPLATE_PART.sub("", template)
    if _NOT_IN_TARGET.search(literal):
        yield "a path is visible ASCII, without blanks; percent-encode the rest"
    if "?" in literal or "#" in literal:
        yield "a path holds no query or fragment; the query of the request is kept"
    if not template.startswith(("/", "{path}")):
        yield 'a path starts with "/" or {path}'
