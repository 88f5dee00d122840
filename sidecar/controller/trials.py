"""What the data plane hands over: the book of a shadow test, and pairs of answers to compare.

`sidecar.dataplane.trial` has them; floors of equal rank do not import each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.model.comparison import Comparison
    from sidecar.model.identity import Identity
    from sidecar.model.request import RequestHead
    from sidecar.model.shadow import Answer, Histogram, Ledger
    from sidecar.policy.snapshot import Snapshot

CAPPED: Final = "rmv_shadow_capped"  # here, as the control process needs it and nothing else


class Times(Protocol):
    """Times that were counted."""

    def histogram(self) -> Histogram:
        """Return them."""
        ...


class Book(Protocol):
    """What this worker counts of one shadow test."""

    @property
    def model(self) -> str:
        """The model."""
        ...

    @property
    def version(self) -> str:
        """The version that shadows."""
        ...

    @property
    def test(self) -> str:
        """Which of the ways to shadow with it that there have been."""
        ...

    @property
    def since_s(self) -> float:
        """When it began, epoch seconds."""
        ...

    @property
    def is_old(self) -> bool:
        """Whether the policy has no such test any more."""
        ...

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is left that would still be counted."""
        ...

    @property
    def is_changed(self) -> bool:
        """Whether anything was counted since `note_published`."""
        ...

    @property
    def copies(self) -> dict[int, dict[str, int]]:
        """Copies by day since the epoch and tenant, where the version has a price."""
        ...

    @property
    def copy_s(self) -> float:
        """CPU seconds of the copies that were timed."""
        ...

    @property
    def copies_timed(self) -> int:
        """How many these are."""
        ...

    @property
    def copied_latency(self) -> Times:
        """Times of clients whose requests were copied."""
        ...

    @property
    def spared_latency(self) -> Times:
        """Times of clients whose requests were sampled out."""
        ...

    def ledger(self) -> Ledger:
        """Return what has been counted."""
        ...

    def note_published(self) -> None:
        """Remember that what is counted so far has been told."""
        ...

    def compare(self) -> None:
        """Count a copy whose answer was compared."""
        ...

    def pass_over(self, cause: str) -> None:
        """Count a copy whose answer is not compared."""
        ...


class Captured(Protocol):
    """One side's answer. `failure` is why there is none to compare, be it whole or not."""

    @property
    def status(self) -> int:
        """The status, 0 without one."""
        ...

    @property
    def head(self) -> bytes:
        """Status line and fields, whole lines."""
        ...

    @property
    def failure(self) -> str:
        """Why it is of no use."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether it came to its end."""
        ...

    @property
    def size(self) -> int:
        """Bytes of its body."""
        ...

    def answer(self) -> Answer:
        """Return it as what is compared."""
        ...


class Trial(Protocol):
    """One copy, and the answers to it and to the request that it is of."""

    @property
    def book(self) -> Book:
        """Where it is counted."""
        ...

    @property
    def comparison(self) -> Comparison:
        """How to compare."""
        ...

    @property
    def primary(self) -> Captured:
        """What the client got."""
        ...

    @property
    def shadow(self) -> Captured:
        """What the shadow said; unless it is whole, that is counted as a failure already."""
        ...

    @property
    def control(self) -> Captured | None:
        """What the control said, if it gave a whole answer."""
        ...

    @property
    def serving(self) -> str:
        """The version that the client's answer is of."""
        ...

    @property
    def head(self) -> RequestHead:
        """The request."""
        ...

    @property
    def identity(self) -> Identity:
        """Who called."""
        ...

    @property
    def snapshot(self) -> Snapshot | None:
        """What the request was decided by."""
        ...

    @property
    def at_s(self) -> float:
        """When the request came, epoch seconds."""
        ...

    @property
    def request_body(self) -> bytes:
        """The request's body, where evidence needs it."""
        ...

    def release(self) -> None:
        """Give the memory of all answers back."""
        ...


B = TypeVar("B", bound=Book)


class Copies(Protocol[B]):
    """The mirror, as far as it is told what to do."""

    @property
    def books(self) -> Mapping[tuple[str, str, str], B]:
        """The books of all tests, old ones too, by model, version and test."""
        ...

    @property
    def capped(self) -> set[tuple[str, str]]:
        """Models and versions that get no copies for what they have cost."""
        ...

    def forget(self, book: B) -> None:
        """Let go of a book; what is counted from now on is counted in a new one."""
        ...
