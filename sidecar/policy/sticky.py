"""Splits compiled: the unit of a request, and the arm it falls to among those that may serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.policy.bucket import Rendezvous
from sidecar.policy.match import Needs, needs_of_attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.model.identity import Identity
    from sidecar.model.policy import Split
    from sidecar.model.request import RequestHead
    from sidecar.policy.candidate import Access

    Unit = Callable[[Identity, RequestHead], bytes]

MAX_UNITS = 16_384
MAX_UNIT_BYTES = 128  # a longer unit is hashed each time: memory stays under 4 MiB a split
MAX_CHOOSERS = 256  # sets of arms that may serve some caller; 20 arms have a million

_UNITS: dict[str, Unit] = {
    "tenant": lambda identity, _head: identity.tenant.encode("utf-8", "surrogatepass"),
    "subject": lambda identity, _head: identity.subject.encode("utf-8", "surrogatepass"),
    "app": lambda identity, _head: identity.app.encode("utf-8", "surrogatepass"),
    "request": lambda _identity, head: head.request_id,
}


def compile_unit(key: str) -> Unit:
    """Return the reader of a split's or shadow's key; what it reads is empty when absent."""
    if key in _UNITS:
        return _UNITS[key]
    name = key.removeprefix("header.").lower().encode()
    if name == b"host":
        return lambda _identity, head: head.host.lower()
    return lambda _identity, head: head.header(name) or b""


class CompiledSplit:
    """One split, its arms the versions themselves. `needs` says what its choice depends on."""

    __slots__ = (
        "_choosers",
        "_id",
        "_is_drawn",
        "_units",
        "_weights",
        "_whole",
        "arms",
        "is_open",
        "needs",
        "unit",
    )

    def __init__(
        self,
        split: Split,
        split_id: str,
        names: Mapping[str, str],
        accesses: Mapping[str, Access],
    ) -> None:
        self._id = split_id
        weights = {names[arm]: weight for arm, weight in split.arms.items()}
        if len(weights) < len(split.arms):
            raise ValueError(f"split {split_id}: two arms are the same version")
        self._weights = {name: weight for name, weight in sorted(weights.items()) if weight}
        self.arms = tuple(self._weights)
        self.unit = compile_unit(split.key)
        self.is_open = all(accesses[name].is_open for name in self.arms)
        """Whether every arm is for everybody and everything."""
        # Every request has its own id: remembering would only fill memory.
        self._is_drawn = split.key == "request"
        key_needs = Needs.REQUEST if self._is_drawn else needs_of_attribute(split.key)
        self.needs = max(key_needs, *(accesses[name].needs for name in self.arms))
        self._whole = Rendezvous(self._weights, split_id)
        self._choosers: dict[tuple[str, ...], Rendezvous] = {}
        self._units: dict[tuple[bytes, tuple[str, ...]], str] = {}

    def choose(self, unit: bytes, eligible: tuple[str, ...]) -> str:
        """Return the arm of `unit` among the eligible ones: a missing arm's units spread out."""
        if self._is_drawn or len(unit) > MAX_UNIT_BYTES:
            return self._chooser(eligible).choose(unit)
        key = unit, eligible
        chosen = self._units.get(key)
        if chosen is None:
            chosen = self._chooser(eligible).choose(unit)
            if len(self._units) >= MAX_UNITS:
                self._units.clear()
            self._units[key] = chosen
        return chosen

    def _chooser(self, eligible: tuple[str, ...]) -> Rendezvous:
        if len(eligible) == len(self.arms):
            return self._whole
        chooser = self._choosers.get(eligible)
        if chooser is None:
            if len(self._choosers) >= MAX_CHOOSERS:
                self._choosers.clear()
            weights = {name: self._weights[name] for name in eligible}
            chooser = self._choosers[eligible] = Rendezvous(weights, self._id)
        return chooser
