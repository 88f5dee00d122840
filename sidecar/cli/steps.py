"""A trace in words: the versions as a request finds them, and what each step made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from sidecar.cli import output
from sidecar.model.decision import Cause, Rejected
from sidecar.model.identity import JSON, Identity
from sidecar.policy.trace import Asked, Checked, Draw, Outcome, Standing, Step, Trace

MAX_UNMATCHED = 100  # rules
MAX_SHOWN = 60  # characters of a condition's value; --json has all of it

Row = tuple[tuple[str, str, str], output.Colour | None]

_COLOURS: dict[Outcome, output.Colour] = {
    Outcome.SERVES: "green",
    Outcome.PASSED_OVER: "yellow",
    Outcome.REFUSES: "red",
}


def tell(found: Trace, identity: Identity, killed: str) -> None:
    """Print a trace; `killed` is why the whole model is switched off, if it is."""
    print()
    versions = [
        (one.version, one.state.value, ", ".join(one.labels), _standing(one))
        for one in found.versions
    ]
    output.table(("VERSION", "STATE", "LABELS", "FOR THIS REQUEST"), versions)
    print()
    steps = list(_rows(found, identity, killed))
    output.table(("STEP", "OUTCOME", "WHY"), [row for row, _ in steps], [c for _, c in steps])


def told(one: Step, identity: Identity, killed: str) -> tuple[str, str, str]:
    """Return a step, what came of it, and why, as `tell` prints them."""
    return _name(one), _outcome(one), _why(one, identity, killed)


def _rows(found: Trace, identity: Identity, killed: str) -> Iterator[Row]:
    """Yield the steps; rules that do not match are counted from the hundredth on."""
    unmatched = 0
    for one in found.steps:
        if _is_unmatched(one):
            unmatched += 1
            if unmatched == MAX_UNMATCHED + 1:
                left = sum(map(_is_unmatched, found.steps)) - MAX_UNMATCHED
                yield (_rules(left), "no", "--json tells why"), None
            if unmatched > MAX_UNMATCHED:
                continue
        yield told(one, identity, killed), _COLOURS.get(one.outcome)
    if found.unreached:
        yield (_rules(found.unreached), "not asked", ""), None


def _is_unmatched(step: Step) -> bool:
    return step.asked is Asked.RULE and step.outcome is Outcome.NO


def _rules(count: int) -> str:
    return f"{count} more {'rule' if count == 1 else 'rules'}"


def _standing(one: Standing) -> str:
    if one.by_rule is None:
        return "may serve"
    if one.by_name is None:
        return f"may serve by pin or request only ({one.by_rule.value})"
    barrier = "" if one.barrier is None else f": {one.barrier.in_words()}"
    return f"may not serve ({one.by_name.value}{barrier})"


def _name(step: Step) -> str:
    return f"rule {step.of}" if step.asked is Asked.RULE else step.asked.value


def _outcome(step: Step) -> str:
    served = f" {step.version}" if step.outcome is Outcome.SERVES else ""
    return step.outcome.value + served


def _why(step: Step, identity: Identity, killed: str) -> str:
    match step.asked:
        case Asked.KILL:
            return killed or "the model is on"
        case Asked.EXPLICIT:
            return _by_name(step, "asked for") or "no version is asked for"
        case Asked.PIN:
            who = f"{identity.tenant} is pinned to" if identity.tenant else ""
            return _by_name(step, who) or _not_pinned(identity)
        case Asked.RULE:
            return _rule(step)
        case Asked.DEFAULT:
            return _by_name(step, "the default is") or "there is none"
        case Asked.FALLBACK:
            return f"for {step.of}: {step.version}{_rejections(step.rejected)}"


def _by_name(step: Step, words: str) -> str:
    """Say which version was named, under which label, and why it may not serve."""
    if not step.of:
        return ""
    label = f", the label of {step.version}" if step.version not in {"", step.of} else ""
    unknown = "" if step.version else " (unknown)"
    return f"{words} {step.of}{label}{_rejections(step.rejected) or unknown}"


def _not_pinned(identity: Identity) -> str:
    return f"{identity.tenant} is not pinned" if identity.tenant else "no tenant"


def _rule(step: Step) -> str:
    failed = [one for one in step.conditions if not one.holds]
    if failed:
        return "; ".join(f"{_seen(one)}, wanted {_short(one.wanted)}" for one in failed)
    parts = [_seen(one) for one in step.conditions] or ["it is for everybody"]
    if step.draw is not None:
        parts.append(_draw(step.draw))
    return "; ".join(parts) + _rejections(step.rejected)


def _seen(one: Checked) -> str:
    if not one.seen:
        return _in_no_segment(one) if one.attribute == "segment" else f"no {one.attribute}"
    values: JSON = one.seen[0] if len(one.seen) == 1 else one.seen
    return f"{one.attribute} is {_short(values)}"


def _in_no_segment(one: Checked) -> str:
    told = f" (the tenant is in the exclude list of {', '.join(one.excluded)})"
    return f"in none of these segments{told if one.excluded else ''}"


def _draw(draw: Draw) -> str:
    if draw.unit is None:
        return f"no {draw.key} to draw by"
    arms = ", ".join(f"{name} {weight}" for name, weight in draw.arms.items())
    if draw.drawn is None:
        return "no arm may serve"
    return f"drawn by {draw.key} {_short(draw.unit)} from {arms}"


def _rejections(rejected: Iterable[Rejected]) -> str:
    told = ", ".join(map(_rejection, rejected))
    return f"; {told}" if told else ""


def _rejection(one: Rejected) -> str:
    if one.cause is Cause.NOT_ENTITLED:
        return f"the caller is not entitled to {one.version}"
    return f"{one.version} is {_cause(one.cause)}"


def _cause(cause: Cause) -> str:
    return cause.value.replace("-", " ")


def _short(value: JSON) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
