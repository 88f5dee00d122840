"""What a version may not mean, taken by itself: its endpoints, who it is for, how it is asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sidecar.model.policy import Deprecation
from sidecar.policy import address, lineage
from sidecar.policy.condition import RESERVED_HEADERS, TOKEN, matcher_faults, period_faults
from sidecar.policy.rewrite import PLACEHOLDERS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sidecar.model.policy import Health, Matcher, Policy, Rewrite, Version
    from sidecar.policy.address import AllowList
    from sidecar.policy.problem import Finding, Findings, Path

FIRST_FINAL_STATUS = 200  # RFC 9110 section 15: 1xx are interim
LAST_STATUS = 599
MAX_LINK_CHARS = 2000  # it stands in the head of every answer

_NOT_IN_VALUE = re.compile(r"[^\t -~]")  # RFC 9110 section 5.5; other bytes have no agreed meaning
_TEMPLATE_PART = re.compile(r"\{[^{}]*\}|[{}]")
_NOT_IN_TARGET = re.compile(r"[^!-~]")  # RFC 9112 section 3.2: a target is visible ASCII
_LINK = re.compile(r"https?://[!-=?-~]+")  # RFC 8288 section 3: it ends at the first `>`


def version_faults(
    version: Version, at: Path, segments: Collection[str], allowed: AllowList
) -> Findings:
    """Yield everything that is wrong with a version but for what it has to do with others."""
    yield from _endpoints(version.endpoints, (*at, "endpoints"), allowed)
    yield from access_faults(version, at, segments)
    if version.accepts is not None and not version.accepts:
        yield (*at, "accepts"), "an empty list fits no request; leave it out to fit every one"
    yield from _list_faults(version.accepts, (*at, "accepts"), segments)
    if version.rewrite is not None:
        yield from _rewrite(version.rewrite, (*at, "rewrite"))
    if version.health is not None:
        yield from _health(version.health, (*at, "health"))
    if version.deprecation is not None:
        yield from _deprecation(version.deprecation, (*at, "deprecation"))
    yield from lineage.faults(version.lineage, (*at, "lineage"))


def access_faults(of: Version | Policy, at: Path, segments: Collection[str]) -> Findings:
    """Yield everything that is wrong with `allow` and `deny` of a version, or of a whole model."""
    if of.allow is not None and not of.allow:
        yield (*at, "allow"), "an empty list lets nobody in; leave it out to let everybody in"
    yield from _list_faults(of.allow, (*at, "allow"), segments)
    yield from _list_faults(of.deny, (*at, "deny"), segments)


def _list_faults(
    matchers: tuple[Matcher, ...] | None, at: Path, segments: Collection[str]
) -> Findings:
    for n, matcher in enumerate(matchers or ()):
        yield from matcher_faults(matcher, (*at, n), segments)
        yield None


def _endpoints(endpoints: tuple[str, ...], at: Path, allowed: AllowList) -> Iterator[Finding]:
    if not endpoints:
        yield at, "a version needs at least one endpoint"
    seen: dict[str, int] = {}
    for n, endpoint in enumerate(endpoints):
        fault = address.fault(endpoint) or allowed.fault(endpoint)
        if fault is not None:
            yield (*at, n), f'"{endpoint[:200]}": {fault}'
            continue
        first = seen.setdefault(address.canonical(endpoint), n)
        if first != n:
            also = "" if endpoints[first] == endpoint else f': "{endpoints[first]}" is the same'
            yield (*at, n), f'the endpoint "{endpoint}" is given twice{also}'


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


def _deprecation(deprecation: Deprecation, at: Path) -> Iterator[Finding]:
    if deprecation == Deprecation():
        yield at, "it says nothing: give since, sunset or link"
    # RFC 9745 section 4: the sunset is not before the deprecation.
    yield from period_faults(deprecation.since, deprecation.sunset, at, ("since", "sunset"))
    link = deprecation.link
    if link is not None and (not _LINK.fullmatch(link) or len(link) > MAX_LINK_CHARS):
        yield (
            (*at, "link"),
            "a link is http:// or https:// and visible ASCII without `>`, "
            f"at most {MAX_LINK_CHARS} characters",
        )


def _rewrite(rewrite: Rewrite, at: Path) -> Iterator[Finding]:
    yield from (((*at, "path"), reason) for reason in _template_faults(rewrite.path))
    yield from set_headers_faults(rewrite.headers, (*at, "headers"))


def set_headers_faults(headers: dict[str, str], at: Path) -> Iterator[Finding]:
    """Yield everything that is wrong with headers that a policy sets on requests."""
    lowered: set[str] = set()
    for name, value in headers.items():
        here: Path = (*at, name)
        if not TOKEN.fullmatch(name):
            yield here, f'"{name[:80]}" is not a header name'
        elif name.lower() in RESERVED_HEADERS:
            yield here, f'the header "{name}" is written by the sidecar itself'
        elif name.lower() in lowered:
            yield here, f'the header "{name[:80]}" is given twice'
        lowered.add(name.lower())
        if _NOT_IN_VALUE.search(value):
            yield here, "a header value is visible ASCII, without control characters"
        elif value != value.strip(" \t"):
            yield here, "a header value neither starts nor ends with blanks"


def _template_faults(template: str) -> Iterable[str]:
    for part in _TEMPLATE_PART.findall(template):
        if part not in PLACEHOLDERS:
            known = ", ".join(PLACEHOLDERS)
            yield f'unknown placeholder "{part[:80]}": one of {known}'
    literal = _TEMPLATE_PART.sub("", template)
    if _NOT_IN_TARGET.search(literal):
        yield "a path is visible ASCII, without blanks; percent-encode the rest"
    if "?" in literal or "#" in literal:
        yield "a path holds no query or fragment; the query of the request is kept"
    if not template.startswith(("/", "{path}")):
        yield 'a path starts with "/" or {path}'
