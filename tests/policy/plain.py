"""The policy read plainly, sentence by sentence: what the resolver's short cuts must equal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sidecar.errors import Code
from sidecar.model.decision import Cause, Decision, Rejected
from sidecar.model.policy import Operators
from sidecar.policy import bucket

if TYPE_CHECKING:
    from sidecar.model.identity import JSON, Identity
    from sidecar.model.policy import Condition, Matcher, Policy, Rule, Scalar, Split
    from sidecar.model.request import RequestHead


def values(attribute: str, identity: Identity, head: RequestHead) -> list[JSON]:
    if attribute == "scope":
        return list(identity.scopes)
    if attribute == "method":
        return [head.method.decode()]
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
    text = {"tenant": identity.tenant, "app": identity.app, "subject": identity.subject}[attribute]
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


def holds(attribute: str, condition: Condition, identity: Identity, head: RequestHead) -> bool:
    found = values(attribute, identity, head)
    is_text = not attribute.startswith("claim.")

    def is_one_of(value: JSON, options: tuple[Scalar, ...]) -> bool:
        return any(equals(value, option, is_text=is_text) for option in options)

    if not isinstance(condition, Operators):
        options = condition if isinstance(condition, tuple) else (condition,)
        return any(is_one_of(value, options) for value in found)
    if condition.exists is not None and condition.exists != bool(found):
        return False
    if condition.not_in is not None and any(is_one_of(one, condition.not_in) for one in found):
        return False

    def passes(value: JSON) -> bool:
        text = value if isinstance(value, str) else None
        tests = [
            condition.in_ is None or is_one_of(value, condition.in_),
            condition.prefix is None or (text is not None and text.startswith(condition.prefix)),
            condition.suffix is None or (text is not None and text.endswith(condition.suffix)),
            condition.regex is None
            or (text is not None and bool(re.fullmatch(condition.regex, text))),
        ]
        return all(tests)

    positive = (condition.in_, condition.prefix, condition.suffix, condition.regex)
    return all(test is None for test in positive) or any(passes(value) for value in found)


def matches(matcher: Matcher, identity: Identity, head: RequestHead) -> bool:
    return all(holds(name, condition, identity, head) for name, condition in matcher.items())


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

    def cause(self, version: str, identity: Identity, head: RequestHead) -> Cause | None:
        if version not in self.policy.versions:
            return Cause.UNKNOWN
        access = self.policy.versions[version]
        is_denied = any(matches(one, identity, head) for one in access.deny)
        is_allowed = access.allow is None or any(
            matches(one, identity, head) for one in access.allow
        )
        if is_denied or not is_allowed:
            return Cause.NOT_ENTITLED
        if version in self.kills:
            return Cause.KILLED
        return Cause.NOT_READY if version in self.unready else None

    def decide(self, identity: Identity, head: RequestHead) -> Decision:
        if "" in self.kills:
            return self.answer("", "KILLED", refusal=Code.NO_ELIGIBLE_VERSION)
        if head.asked_version is not None:
            return self.one(head.asked_version.decode(errors="replace"), "EXPLICIT", identity, head)
        if identity.tenant in self.pins:
            return self.one(self.pins[identity.tenant], "PINNED", identity, head)
        rejected: list[Rejected] = []
        for rule in self.policy.rules:
            if matches(rule.when, identity, head):
                decision = self.apply(rule, identity, head, rejected)
                if decision is not None:
                    return decision
        default = self.policy.default
        if default is not None and self.accept(default, identity, head, rejected):
            return self.answer(default, "DEFAULT", rejected)
        return self.nothing(identity, head, rejected)

    def one(self, version: str, reason: str, identity: Identity, head: RequestHead) -> Decision:
        cause = self.cause(version, identity, head)
        if cause is None:
            return self.answer(version, reason)
        if cause is Cause.UNKNOWN and reason == "EXPLICIT":
            return self.answer("", "DENIED:unknown", refusal=Code.NO_SUCH_VERSION)
        is_forbidden = cause is Cause.NOT_ENTITLED
        refusal = Code.VERSION_FORBIDDEN if is_forbidden else Code.VERSION_UNAVAILABLE
        return self.answer("", f"DENIED:{cause.value}", [Rejected(version, cause)], refusal)

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
                    for name, weight in sorted(rule.split.arms.items())
                    if weight and self.accept(name, identity, head, rejected)
                }
                if not live:
                    return None
                arm = bucket.choose(live, f"{self.policy.model}/{rule.id}", unit)
                return self.answer(arm, f"SPLIT:{rule.id}", rejected)
            served = rule.split.otherwise
        if served is None or not self.accept(served, identity, head, rejected):
            return None
        return self.answer(served, f"RULE:{rule.id}", rejected)

    def unit(self, split: Split, identity: Identity, head: RequestHead) -> bytes:
        if split.key == "request":
            return head.request_id
        found = values(split.key, identity, head)
        return str(found[0]).encode() if found else b""

    def accept(
        self, version: str, identity: Identity, head: RequestHead, rejected: list[Rejected]
    ) -> bool:
        cause = self.cause(version, identity, head)
        if cause is not None and Rejected(version, cause) not in rejected:
            rejected.append(Rejected(version, cause))
        return cause is None

    def nothing(self, identity: Identity, head: RequestHead, rejected: list[Rejected]) -> Decision:
        causes: list[Cause | None] = [one.cause for one in rejected] or [
            self.cause(name, identity, head) for name in self.policy.versions
        ]
        if all(cause is Cause.NOT_ENTITLED for cause in causes):
            return self.answer("", "DENIED:not-entitled", rejected, Code.TENANT_DENIED)
        reason = "DENIED:not-ready" if rejected else "DENIED:no-default"
        if Cause.KILLED in causes and rejected:
            reason = "DENIED:killed"
        return self.answer("", reason, rejected, Code.NO_ELIGIBLE_VERSION)

    def answer(
        self,
        version: str,
        reason: str,
        rejected: list[Rejected] | None = None,
        refusal: Code | None = None,
    ) -> Decision:
        """Return the decision without its words, which are not compared."""
        revision = self.policy.revision
        return Decision(
            self.policy.model, version, reason, revision, tuple(rejected or ()), refusal
        )
