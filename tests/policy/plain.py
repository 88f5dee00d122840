"""The policy read plainly, sentence by sentence: what the resolver's short cuts must equal."""

from __future__ import annotations

import re
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import unquote

from msgspec.structs import replace

from sidecar.errors import Code
from sidecar.model.decision import Cause, Decision, Rejected
from sidecar.model.policy import DefaultAccess, OnUnavailable, Operators, State
from sidecar.policy import bucket, semver
from sidecar.policy.lineage import digest

if TYPE_CHECKING:
    from sidecar.model.identity import JSON, Identity
    from sidecar.model.policy import Condition, Matcher, Policy, Rule, Scalar, Segment, Split
    from sidecar.model.request import RequestHead

    Segments = dict[str, Segment]


def values(attribute: str, identity: Identity, head: RequestHead) -> list[JSON]:
    if attribute == "scope":
        return list(identity.scopes)
    if attribute.startswith("header."):
        found = head.header(attribute.removeprefix("header.").encode())
        return [] if found is None else [found.decode()]
    if attribute.startswith("claim."):
        value: JSON = identity.claims
        for name in attribute.split(".")[1:]:
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return []
        return value if isinstance(value, list) else [value]
    text = {
        "tenant": identity.tenant,
        "app": identity.app,
        "subject": identity.subject,
        "method": head.method.decode(),
        "path": unquote(head.target.decode().partition("?")[0]),
    }[attribute]
    return [text] if text else []


def equals(value: JSON, wanted: Scalar, *, is_text: bool) -> bool:
    if is_text:
        spelled = {"True": "true", "False": "false"}.get(str(wanted), str(wanted))
        return value == spelled
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, (int, float)) and isinstance(wanted, (int, float)):
        return value == wanted
    return isinstance(value, str) and value == wanted


def number(value: JSON) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and not re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?(e\d+)?", value):
        return None
    return float(value)


def is_in_network(text: str, networks: tuple[str, ...]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return any(address in ip_network(one) for one in networks)


def passes(value: JSON, condition: Operators, *, is_text: bool) -> bool:
    text = value if isinstance(value, str) else None
    size = number(value)
    tests = [
        condition.in_ is None or is_one_of(value, condition.in_, is_text=is_text),
        condition.prefix is None or (text is not None and text.startswith(condition.prefix)),
        condition.suffix is None or (text is not None and text.endswith(condition.suffix)),
        condition.regex is None or (text is not None and bool(re.fullmatch(condition.regex, text))),
        condition.gte is None or (size is not None and size >= condition.gte),
        condition.lte is None or (size is not None and size <= condition.lte),
        condition.semver is None or (text is not None and semver.within(condition.semver)(text)),
        condition.cidr is None or (text is not None and is_in_network(text, condition.cidr)),
    ]
    return all(tests)


def is_one_of(value: JSON, options: tuple[Scalar, ...], *, is_text: bool) -> bool:
    return any(equals(value, option, is_text=is_text) for option in options)


def holds(
    attribute: str,
    condition: Condition,
    identity: Identity,
    head: RequestHead,
    segments: Segments,
) -> bool:
    if attribute == "time":
        assert isinstance(condition, Operators)
        return is_in_window(head.at_s, condition)
    if attribute == "segment":
        found: list[JSON] = [
            name
            for name in asked_of(condition, segments)
            if is_member(segments[name], identity, head, segments)
        ]
    else:
        found = values(attribute, identity, head)
    is_text = not attribute.startswith("claim.")
    if not isinstance(condition, Operators):
        options = condition if isinstance(condition, tuple) else (condition,)
        return any(is_one_of(value, options, is_text=is_text) for value in found)
    if condition.exists is not None and condition.exists != bool(found):
        return False
    not_in = condition.not_in
    if not_in is not None and any(is_one_of(one, not_in, is_text=is_text) for one in found):
        return False
    rest = replace(condition, exists=None, not_in=None)
    return rest == Operators() or any(passes(one, rest, is_text=is_text) for one in found)


def asked_of(condition: Condition, segments: Segments) -> list[str]:
    """Return the segments to look at; looking at all of them might not end."""
    if not isinstance(condition, Operators):
        return [str(one) for one in (condition if isinstance(condition, tuple) else (condition,))]
    if condition.exists is not None:
        return list(segments)
    return [str(one) for one in (*(condition.in_ or ()), *(condition.not_in or ()))]


def is_in_window(at_s: float, condition: Operators) -> bool:
    start, end = condition.from_, condition.until
    is_begun = start is None or datetime.fromisoformat(start).timestamp() <= at_s
    return is_begun and (end is None or at_s < datetime.fromisoformat(end).timestamp())


def is_member(segment: Segment, identity: Identity, head: RequestHead, segments: Segments) -> bool:
    if identity.tenant and identity.tenant in segment.include:
        return True
    if identity.tenant and identity.tenant in segment.exclude:
        return False
    return any(matches(one, identity, head, segments) for one in segment.when)


def matches(
    matcher: Matcher, identity: Identity, head: RequestHead, segments: Segments | None = None
) -> bool:
    known = segments or {}
    return all(holds(name, asked, identity, head, known) for name, asked in matcher.items())


class PlainReading:
    """One request read against one document."""

    def __init__(
        self,
        policy: Policy,
        pins: dict[str, str],
        kills: dict[str, str],
        unready: frozenset[str] = frozenset(),
    ) -> None:
        self.policy = policy
        self.pins = pins
        self.kills = kills
        self.unready = unready

    def name(self, ref: str) -> str:
        """Return the version that a name or label means."""
        return ref if ref in self.policy.versions else self.policy.labels.get(ref, ref)

    def fits(self, matchers: tuple[Matcher, ...], identity: Identity, head: RequestHead) -> bool:
        return any(matches(one, identity, head, self.policy.segments) for one in matchers)

    def is_granted(self, version: str, identity: Identity) -> bool:
        if identity.grants is None:
            return True
        for text in identity.grants.get(self.policy.model, identity.grants.get("*", ())):
            if text in {"*", version}:
                return True
            if text.startswith("label:"):
                if self.policy.labels.get(text.removeprefix("label:")) == version:
                    return True
            elif not text[0].isalnum() and text != "*" and semver.within(text)(version):
                return True
        return False

    def cause(
        self, name: str, identity: Identity, head: RequestHead, *, by_name: bool
    ) -> Cause | None:
        if name not in self.policy.versions:
            return Cause.UNKNOWN
        version, state = self.policy.versions[name], self.policy.versions[name].state
        policy = self.policy
        is_denied = self.fits((*policy.deny, *version.deny), identity, head)
        allows = [one.allow for one in (policy, version) if one.allow is not None]
        is_allowed = all(self.fits(one, identity, head) for one in allows)
        if not allows and policy.default_access is DefaultAccess.DENY:
            is_allowed = False
        is_accepted = version.accepts is None or self.fits(version.accepts, identity, head)
        causes = {
            Cause.NOT_ENTITLED: is_denied or not is_allowed or not self.is_granted(name, identity),
            Cause.KILLED: name in {self.name(ref) for ref in self.kills},
            Cause.NOT_ACTIVE: state in {State.REGISTERED, State.WARMING},
            Cause.RETIRED: state is State.RETIRED,
            Cause.DRAINING: state is State.DRAINING and not by_name,
            Cause.NOT_READY: name in self.unready,
            Cause.INCOMPATIBLE: not is_accepted,
        }
        return next((cause for cause, is_so in causes.items() if is_so), None)

    def decide(self, identity: Identity, head: RequestHead) -> Decision:
        if "" in self.kills:
            return self.answer("", "KILLED", refusal=Code.NO_ELIGIBLE_VERSION)
        if head.asked_version is not None:
            return self.one(head.asked_version.decode(errors="replace"), "EXPLICIT", identity, head)
        if identity.tenant in self.pins:
            return self.one(self.pins[identity.tenant], "PINNED", identity, head)
        rejected: list[Rejected] = []
        for rule in self.policy.rules:
            if self.fits((rule.when,), identity, head):
                decision = self.apply(rule, identity, head, rejected)
                if decision is not None:
                    return decision
        default = self.policy.default
        if default is not None and self.accept(default, identity, head, rejected):
            return self.answer(self.name(default), "DEFAULT", rejected)
        return self.fallback(tuple(rejected), identity, head, rejected) or self.nothing(
            identity, head, rejected
        )

    def one(self, ref: str, reason: str, identity: Identity, head: RequestHead) -> Decision:
        version = self.name(ref)
        cause = self.cause(version, identity, head, by_name=True)
        if cause is None:
            return self.answer(version, reason)
        if cause is Cause.UNKNOWN and reason == "EXPLICIT":
            return self.answer("", "DENIED:unknown", refusal=Code.NO_SUCH_VERSION)
        failed = Rejected(version, cause)
        may_fall = self.policy.on_unavailable is OnUnavailable.FALLBACK
        if reason == "PINNED" and may_fall and cause is not Cause.UNKNOWN:
            decision = self.fallback((failed,), identity, head, [failed])
            if decision is not None:
                return decision
        is_forbidden = cause is Cause.NOT_ENTITLED
        refusal = Code.VERSION_FORBIDDEN if is_forbidden else Code.VERSION_UNAVAILABLE
        return self.answer("", f"DENIED:{cause.value}", [failed], refusal)

    def fallback(
        self,
        failed: tuple[Rejected, ...],
        identity: Identity,
        head: RequestHead,
        rejected: list[Rejected],
    ) -> Decision | None:
        for one in failed:
            seen, ref = {one.version}, self.policy.versions[one.version].fallback
            while ref is not None and self.name(ref) not in seen:
                if self.accept(ref, identity, head, rejected):
                    return self.answer(self.name(ref), f"FALLBACK:{one.cause.value}", rejected)
                seen.add(self.name(ref))
                ref = self.policy.versions[self.name(ref)].fallback
        return None

    def apply(
        self, rule: Rule, identity: Identity, head: RequestHead, rejected: list[Rejected]
    ) -> Decision | None:
        if rule.deny is not None:
            return self.answer("", "DENIED:rule", rejected, Code.TENANT_DENIED)
        served = rule.serve
        if rule.split is not None:
            unit = self.unit(rule.split, identity, head)
            if unit:
                live = {
                    name: weight
                    for name, weight in self.arms(rule.split)
                    if weight and self.accept(name, identity, head, rejected)
                }
                if not live:
                    return None
                arm = bucket.choose(live, f"{self.policy.model}/{rule.id}", unit)
                return self.answer(arm, f"SPLIT:{rule.id}", rejected)
            served = rule.split.otherwise
        if served is None or not self.accept(served, identity, head, rejected):
            return None
        return self.answer(self.name(served), f"RULE:{rule.id}", rejected)

    def arms(self, split: Split) -> list[tuple[str, int]]:
        return sorted((self.name(ref), weight) for ref, weight in split.arms.items())

    def unit(self, split: Split, identity: Identity, head: RequestHead) -> bytes:
        if split.key == "request":
            return head.request_id
        found = values(split.key, identity, head)
        return str(found[0]).encode() if found else b""

    def accept(
        self, ref: str, identity: Identity, head: RequestHead, rejected: list[Rejected]
    ) -> bool:
        version = self.name(ref)
        cause = self.cause(version, identity, head, by_name=False)
        if cause is not None and Rejected(version, cause) not in rejected:
            rejected.append(Rejected(version, cause))
        return cause is None

    def nothing(self, identity: Identity, head: RequestHead, rejected: list[Rejected]) -> Decision:
        for one in rejected:
            if one.cause is not Cause.NOT_ENTITLED:
                reason = f"DENIED:{one.cause.value}"
                return self.answer("", reason, rejected, Code.NO_ELIGIBLE_VERSION)
        causes = [self.cause(name, identity, head, by_name=True) for name in self.policy.versions]
        if rejected or all(cause is Cause.NOT_ENTITLED for cause in causes):
            return self.answer("", "DENIED:not-entitled", rejected, Code.TENANT_DENIED)
        return self.answer("", "DENIED:no-default", rejected, Code.NO_ELIGIBLE_VERSION)

    def answer(
        self,
        version: str,
        reason: str,
        rejected: list[Rejected] | None = None,
        refusal: Code | None = None,
    ) -> Decision:
        """Return the decision without its words, which are not compared."""
        policy, over = self.policy, tuple(rejected or ())
        lineage = digest(policy.versions[version]) if version else ""
        return Decision(
            policy.model, version, reason, policy.revision, over, refusal, lineage=lineage
        )
