"""Which attributes of requests a policy looks at; taking them from a request, and giving them back.

A context has the attributes that its policy names in matchers and as keys, and no others: what no
rule asks for is nobody's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from sidecar.model.identity import Identity
from sidecar.model.request import RequestHead
from sidecar.policy import grant
from sidecar.policy.match import reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.model.context import Context, Values
    from sidecar.model.identity import JSON
    from sidecar.model.policy import Matcher, Policy, Scalar

MAX_CHARS: Final = 256  # of one attribute: a longer value is left out, and so not known
MAX_VERSION_CHARS: Final = 65  # one more than a version has: what is cut is none either way

_ALWAYS: Final = frozenset({"tenant", "segment", "time", "request"})
"""Told by every context, or made of what is told."""

CLAIMED: Final = "claimed"
"""The segments that a token lists; no matcher names it, but segments that are `claimed` ask."""

GRANTED: Final = "granted"
"""What a token grants of the model; no matcher names it, and without it nothing is held back."""

SECRETS: Final = frozenset(
    {"header.authorization", "header.proxy-authorization", "header.cookie", "header.x-api-key"}
)


def attributes_of(policy: Policy) -> frozenset[str]:
    """Return the attributes that decisions by `policy` can depend on, but for those always told."""
    named = {spelled(attribute) for matcher in matchers_of(policy) for attribute in matcher}
    named |= {spelled(rule.split.key) for rule in policy.rules if rule.split is not None}
    if any(segment.claimed for segment in policy.segments.values()):
        named.add(CLAIMED)
    return frozenset(named) - _ALWAYS


def spelled(attribute: str) -> str:
    """Spell an attribute in one way: the names of headers know no case."""
    return attribute.lower() if attribute.startswith("header.") else attribute


def matchers_of(policy: Policy) -> Iterator[Matcher]:
    """Yield every matcher of a policy that decisions go through."""
    yield from policy.allow or ()
    yield from policy.deny
    for version in policy.versions.values():
        yield from version.allow or ()
        yield from version.deny
        yield from version.accepts or ()
    for segment in policy.segments.values():
        yield from segment.when
    for rule in policy.rules:
        yield rule.when


def every_matcher_of(policy: Policy) -> Iterator[Matcher]:
    """Yield every matcher of a policy, also those that only copies go through."""
    yield from matchers_of(policy)
    for shadow in policy.shadows:
        yield from shadow.when


def take(attributes: Iterable[str], identity: Identity, head: RequestHead) -> dict[str, Values]:
    """Return what a request has of `attributes`.

    Left out are secrets, and values that are too long or of a kind that no matcher compares.
    """
    taken: dict[str, Values] = {}
    for attribute in attributes:
        if attribute in SECRETS:
            continue
        is_claimed = attribute == CLAIMED
        values = _plain(identity.segments if is_claimed else reader(attribute)(identity, head))
        if values is not None:
            taken[attribute] = values
    return taken


def take_grants(identity: Identity, model: str) -> dict[str, Values]:
    """Return what a caller's token grants of a model, as an attribute of its requests, if it does.

    It is never cut, for who has no grants is held back by none: tokens have a length.
    """
    return {} if identity.grants is None else {GRANTED: grant.of_model(identity.grants, model)}


def identity_of(context: Context) -> Identity:
    """Return the caller of a request, as far as its context tells."""
    given = context.attributes
    claims: dict[str, JSON] = {}
    for attribute, values in given.items():
        if attribute.startswith("claim.") and values:
            # A claim of that whole name comes before a path, so it needs no objects around it.
            claims[attribute.removeprefix("claim.")] = list(values)
    granted = given.get(GRANTED)
    return Identity(
        context.tenant,
        _text(given, "subject"),
        _text(given, "app"),
        tuple(map(str, given.get("scope", ()))),
        claims,
        segments=tuple(map(str, given.get(CLAIMED, ()))),
        grants=None if granted is None else {context.model: tuple(map(str, granted))},
    )


def head_of(context: Context) -> RequestHead:
    """Return the head of a request, as far as its context tells."""
    given = context.attributes
    fields = [
        f"{attribute.removeprefix('header.')}: {values[0]}\r\n".encode()
        for attribute, values in given.items()
        if attribute.startswith("header.") and attribute != "header.host" and values
    ]
    asked = context.asked_version
    head = RequestHead(
        _text(given, "method").encode(),
        quote(_text(given, "path")).encode(),
        fields,
        host=_text(given, "header.host").encode(),
        request_id=context.request_id.encode(),
        asked_version=None if asked is None else asked.encode(),
    )
    head.at_s = context.at_s
    return head


def _text(given: dict[str, Values], attribute: str) -> str:
    values = given.get(attribute)
    return str(values[0]) if values else ""


def _plain(values: Iterable[JSON]) -> Values | None:
    plain: list[Scalar] = []
    room = MAX_CHARS
    for value in values:
        if not isinstance(value, (str, int, float)):
            return None
        if isinstance(value, str) and not _is_unicode(value):
            return None
        room -= len(value) if isinstance(value, str) else 1
        plain.append(value)
    return tuple(plain) if room >= 0 else None


def _is_unicode(text: str) -> bool:
    """Return whether `text` can be written as JSON: a header may hold any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
