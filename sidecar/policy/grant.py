"""What a token says which versions it is for: its grants, and the versions that they mean.

A grant is the name of a version, `label:` and a label of it, a range such as `>=2 <4` over the
names that are versions (see `semver`), or `*`, any version. What is spelled as a name is one and
never a range: `2.1` grants the version of that name alone, `=2.1` each 2.1.x.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.policy import semver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.model.policy import Policy

LABEL: Final = "label:"
ANY: Final = "*"
"""Any version; in the place of a model, each one that is not named itself."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REMEMBERED: Final = 256  # lists; tokens of one kind have the same


class Grants(NamedTuple):
    """One list of grants, told apart; `is_in_range` tells names that are in one of its ranges."""

    is_any: bool
    names: frozenset[str]
    labels: frozenset[str]
    is_in_range: Callable[[str], bool] | None


def of_model(grants: Mapping[str, tuple[str, ...]], model: str) -> tuple[str, ...]:
    """Return what is granted of a model: what it is named for, else what all others are."""
    own = grants.get(model)
    return grants.get(ANY, ()) if own is None else own


@lru_cache(maxsize=_REMEMBERED)
def read(texts: tuple[str, ...]) -> Grants:
    """Tell grants apart.

    Raises:
        ValueError: one is no name, label or range, or all ranges together are longer than one may
            be: each of them is compared with each version.
    """
    names, labels, ranges = set[str](), set[str](), list[str]()
    for text in texts:
        label = text.removeprefix(LABEL)
        if _NAME.fullmatch(label):
            (names if label == text else labels).add(label)
        elif text != text.strip():  # a name that is misspelled, and a far wider range
            raise ValueError("a grant neither begins nor ends with a blank")
        elif text != ANY:
            ranges.append(text)
    # Alternatives of one range, so its bound on characters is that of all of them.
    is_in_range = semver.within("||".join(ranges)) if ranges else None
    return Grants(ANY in texts, frozenset(names), frozenset(labels), is_in_range)


def granted(texts: tuple[str, ...], policy: Policy) -> frozenset[str]:
    """Return the versions of a policy that grants mean; none if these cannot be read."""
    try:
        found = read(texts)
    except ValueError:
        return frozenset()  # nobody gets more by what nobody understands
    if found.is_any:
        return frozenset(policy.versions)
    means = set(found.names)
    means.update(policy.labels[label] for label in found.labels & policy.labels.keys())
    within = found.is_in_range
    return frozenset(
        name for name in policy.versions if name in means or (within is not None and within(name))
    )
