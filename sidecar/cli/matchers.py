"""Matchers and grants in words: `tenant is acme or globex, and scope begins with "models:"`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sidecar.model.policy import Condition, Matcher, Operators, Scalar
from sidecar.policy.check import as_text

MAX_SHOWN = 5  # values of one list, and matchers; the document has all of them

NOBODY = "nobody"
EVERYBODY = "everybody"


def any_of(matchers: Sequence[Matcher]) -> str:
    """Say whom one of these fits."""
    if not matchers:
        return NOBODY
    return " | ".join(_few([in_words(one) for one in matchers], "matchers"))


def in_words(matcher: Matcher) -> str:
    """Say whom a matcher fits."""
    told = [f"{attribute} {_condition(condition)}" for attribute, condition in matcher.items()]
    return " and ".join(told) or EVERYBODY


def grants_in_words(grants: Mapping[str, Sequence[str]] | None) -> str:
    """Say what a token grants, by model; nothing of one without grants."""
    if grants is None:
        return ""
    told = (f"{model}: {', '.join(texts) or '-'}" for model, texts in grants.items())
    return "; ".join(told) or "none"


def _condition(condition: Condition) -> str:
    if isinstance(condition, Operators):
        return ", ".join(_operators(condition))
    return f"is {_list(condition if isinstance(condition, tuple) else (condition,), 'or')}"


def _operators(of: Operators) -> Iterable[str]:
    if of.exists is not None:
        yield "is there" if of.exists else "is absent"
    if of.in_ is not None:
        yield f"is {_list(of.in_, 'or')}"
    if of.not_in is not None:
        yield f"is not {_list(of.not_in, 'nor')}"
    plain = {
        "begins with": of.prefix,
        "ends with": of.suffix,
        "matches": of.regex,
        "is in the range": of.semver,
        "is at least": of.gte,
        "is at most": of.lte,
        "is from": of.from_,
        "is before": of.until,
    }
    yield from (f"{words} {_value(value)}" for words, value in plain.items() if value is not None)
    if of.cidr is not None:
        yield f"is in {_list(of.cidr, 'or')}"


def _list(values: Sequence[Scalar], joint: str) -> str:
    return f" {joint} ".join(_few([_value(one) for one in values[: MAX_SHOWN + 1]], "", values))


def _few(told: list[str], what: str, of: Sequence[object] = ()) -> list[str]:
    left = max(len(told), len(of)) - MAX_SHOWN
    if left <= 0:
        return told
    return [*told[:MAX_SHOWN], f"{left} more {what}".rstrip()]


def _value(value: Scalar) -> str:
    text = as_text(value)
    is_odd = not text or " " in text or (isinstance(value, str) and text in {"true", "false"})
    return f'"{text}"' if is_odd else text
