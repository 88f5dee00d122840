"""By what a rule can be found: values of an attribute without which it concerns no request."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from sidecar.model.policy import Operators
from sidecar.policy.check import as_text
from sidecar.policy.match import options_of

if TYPE_CHECKING:
    from sidecar.model.policy import Condition, Matcher, Scalar
    from sidecar.policy.match import Memberships

    Value = Scalar | tuple[bool, Scalar]

SAMPLE = 50  # values of a list by which its share is estimated
MAX_SHARE = 16  # rules of one tenant: as many are asked faster than looked up again and again


class Key:
    """Values of an attribute, or prefixes of them, without which a rule concerns no request.

    `is_whole` says that with one of them the condition holds.
    """

    __slots__ = ("attribute", "is_prefix", "is_whole", "options")

    def __init__(
        self,
        attribute: str,
        options: tuple[Scalar, ...],
        *,
        is_prefix: bool = False,
        is_whole: bool = False,
    ) -> None:
        self.attribute = attribute
        self.options = options
        self.is_prefix = is_prefix
        self.is_whole = is_whole

    @property
    def is_of_tenant(self) -> bool:
        """Whether the tenant alone tells which rules it finds."""
        return self.attribute in {"tenant", "segment"}

    def names(self) -> frozenset[str]:
        """Return the options as texts."""
        return frozenset(map(as_text, self.options))


def keys_of(when: Matcher, segments: Memberships) -> list[Key]:
    """Return the look-ups that can find what a matcher holds for; none when only asking tells."""
    keys: list[Key] = []
    for attribute, condition in when.items():
        options = _options(condition)
        if options is None:
            prefix = condition.prefix if isinstance(condition, Operators) else None
            if prefix is not None and attribute != "segment":
                keys.append(Key(attribute, (prefix,), is_prefix=True))
        elif attribute == "segment":
            if all(segments[as_text(name)].tenants is not None for name in options):
                keys.append(Key(attribute, options))
        else:
            is_whole = not isinstance(condition, Operators)
            keys.append(Key(attribute, options, is_whole=is_whole))
    return keys


class Shares:
    """How many rules have a value in common, as far as the first values of their lists tell."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[str, dict[Value, int]] = {}

    def note(self, key: Key) -> None:
        """Count a rule for the values of one of its keys."""
        counts = self.counts.setdefault(key.attribute, {})
        for value in _sample(key):
            counts[value] = counts.get(value, 0) + 1

    def most_selective(self, keys: tuple[Key, ...]) -> Key | None:
        """Return the key with which a rule is found among the fewest others, the first of equals.

        One of the tenant is preferred, for what it finds is kept, unless it finds many.
        """
        if not keys:
            return None
        first = keys[0]
        if len(keys) == 1 or (first.is_of_tenant and self._of(first) <= MAX_SHARE):
            return first
        return min(keys, key=self._of)

    def _of(self, key: Key) -> int:
        counts = self.counts[key.attribute]
        return max([counts[value] for value in _sample(key)], default=0)


def value_of(option: Scalar, attribute: str) -> Value:
    """Return what equal values of an attribute have in common: a text, or also their JSON type."""
    if isinstance(option, str):
        return option
    # In Python True == 1; in JSON they differ.
    is_text = not attribute.startswith("claim.")
    return as_text(option) if is_text else (isinstance(option, bool), option)


def _sample(key: Key) -> list[Value]:
    return [value_of(one, key.attribute) for one in islice(key.options, SAMPLE)]


def _options(condition: Condition) -> tuple[Scalar, ...] | None:
    """Return the values without one of which a condition does not hold; None: there are none."""
    return condition.in_ if isinstance(condition, Operators) else options_of(condition)
