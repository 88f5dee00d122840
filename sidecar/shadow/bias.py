"""What a shadow test is about: which requests it has seen, and which it was kept from seeing.

Requests that are not drawn leave a fair sample. Those that are drawn and then skipped do not: large
bodies, busy minutes and their tenants are missing, and the report is not about them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from sidecar.model.shadow import OTHER, Failure, Ledger, Share, Skip, Uncompared
from sidecar.shadow import spelling
from sidecar.shadow.sequence import proportion
from sidecar.shadow.tally import sum_share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_ALPHA: Final = 0.05
_TOLD_TENANTS: Final = 5

_CAUSES: Final = {
    Skip.METHOD.value: "for its method",
    Skip.SIZE.value: "for the size of its body",
    Skip.MEMORY.value: "as copies had all the memory that they may have",
    Skip.QUEUE.value: "as too many copies waited",
    Skip.QUEUE_TIMEOUT.value: "as it had waited too long",
    Skip.DISABLED.value: "as the shadow was switched off, killed or not ready",
    Skip.COST.value: "as the shadow had cost what it may cost in a day",
    Skip.DRAINING.value: "as the sidecar was about to end",
    Skip.ABORTED.value: "as the client left before its request was whole",
    Skip.POLICY.value: "as the policy had changed",
    Skip.FAULT.value: "for a fault of the sidecar, which its log tells of",
}
_FAILURES: Final = {
    Failure.CONNECT.value: "no connection",
    Failure.LOST.value: "connection lost",
    Failure.TIMEOUT.value: "no answer in time",
    Failure.SHUTDOWN.value: "the sidecar ended",
}
_UNCOMPARED: Final = {
    Uncompared.OFF.value: "not asked for",
    Uncompared.SIZE.value: "an answer was too large",
    Uncompared.MEMORY.value: "no memory left for answers",
    Uncompared.BUDGET.value: "no time left to compare",
    Uncompared.PRIMARY.value: "the client's answer was not whole",
    Uncompared.ENCODING.value: "a body's encoding cannot be undone",
    Uncompared.MALFORMED.value: "a body is not what its type, or the policy, says",
    Uncompared.FAULT.value: "a fault of the sidecar, which its log tells of",
    Uncompared.SHUTDOWN.value: "the sidecar ended",
}


class Size(Struct, frozen=True):
    """Requests with bodies of `least` to below `below` bytes: how many, and how many copied."""

    least: int
    below: int
    eligible: int
    mirrored: int


class Account(Struct, frozen=True):
    """What became of the eligible requests and in words what that means for the test.

    `drawn` are those that were not sampled out. `is_exact` says that no request is missing from the
    sums, or in them twice; `under_way` copies have not ended yet.
    """

    ledger: Ledger
    drawn: int
    under_way: int
    is_exact: bool
    sizes: tuple[Size, ...]
    words: tuple[str, ...]


def account(ledger: Ledger, key: str = "request") -> Account:
    """Tell what a ledger amounts to; `key` is what the shadow is sampled by."""
    ended = ledger.compared + sum(ledger.failed.values()) + sum(ledger.uncompared.values())
    drawn = ledger.eligible - ledger.sampled_out
    return Account(
        ledger=ledger,
        drawn=drawn,
        under_way=ledger.mirrored - ended,
        is_exact=ended <= ledger.mirrored == drawn - sum(ledger.skipped.values()),
        sizes=tuple(
            Size(1 << bits >> 1, 1 << bits, share.number, share.part)
            for bits, share in sorted(ledger.sizes.items())
        ),
        words=tuple(_words(ledger, drawn, key)),
    )


def hindrance(ledger: Ledger) -> str:
    """Return why of all that was drawn nothing was compared; empty if it was, or yet may be."""
    drawn = ledger.eligible - ledger.sampled_out
    if ledger.compared:
        return ""
    if not ledger.mirrored:
        cause, number = _commonest(ledger.skipped)
        why = f"{number:,} skipped {_CAUSES.get(cause, cause)}"
        return f"none of {drawn:,} requests was copied: {why}" if number else ""
    cause, number = _commonest(Counter(ledger.failed) + Counter(ledger.uncompared))
    words = _FAILURES | _UNCOMPARED
    why = f"{words.get(cause, cause)} ({number:,})"
    return f"none of {ledger.mirrored:,} copies was compared: {why}" if number else ""


def _commonest(counts: Mapping[str, int]) -> tuple[str, int]:
    return max(counts.items(), key=lambda one: one[1], default=("", 0))


def _words(ledger: Ledger, drawn: int, key: str) -> Iterator[str]:
    if not ledger.eligible:
        yield "No request was eligible yet."
        return
    yield (
        f"Of {ledger.eligible:,} eligible requests {drawn:,} were drawn and "
        f"{ledger.mirrored:,} copied ({spelling.part(ledger.mirrored, ledger.eligible)})."
    )
    if ledger.mirrored:
        yield (
            f"Of {ledger.mirrored:,} copies, {ledger.compared:,} were compared"
            f" ({spelling.part(ledger.compared, ledger.mirrored)})"
            f"{_causes('got no whole answer', ledger.failed, _FAILURES)}"
            f"{_causes('were not compared', ledger.uncompared, _UNCOMPARED)}."
        )
    if not any(ledger.skipped.values()):
        yield "Nothing that was drawn was skipped: the copies are a fair sample of all."
        return
    for cause, number in sorted(ledger.skipped.items(), key=lambda one: -one[1]):
        share = spelling.part(number, drawn)
        yield f"{number:,} of what was drawn ({share}) was skipped {_CAUSES.get(cause, cause)}."
    yield from _by_size(ledger, drawn)
    yield from _by_tenant(ledger, drawn, key)


def _causes(what: str, counts: Mapping[str, int], words: Mapping[str, str]) -> str:
    told = [f"{words.get(cause, cause)}: {number:,}" for cause, number in counts.items() if number]
    total = sum(counts.values())
    return f"; {total:,} {what} ({', '.join(told)})" if total else ""


def _by_size(ledger: Ledger, drawn: int) -> Iterator[str]:
    """Tell of the size that best parts copied from missing bodies, if it is no accident."""
    about = "" if drawn == ledger.eligible else "About "  # what was drawn is not counted by size
    rate = drawn / ledger.eligible
    cuts = [
        (_apart(below, above), bits, below, above)
        for bits in sorted(ledger.sizes)[1:]
        for below, above in [_split(ledger.sizes, bits)]
        if _is_less(above, below)
    ]
    if not cuts:
        return
    _, bits, below, above = max(cuts, key=lambda cut: cut[:2])
    missing, of_smaller = (spelling.part(1 - _copied(one, rate), 1) for one in (above, below))
    yield (
        f"{about}{missing} of the bodies of {spelling.size(1 << bits >> 1)} and more were not "
        f"copied, and {of_smaller} of the smaller ones: the former are "
        f"{spelling.part(above.number, ledger.eligible)} of what was eligible, and "
        f"{spelling.part(above.part, ledger.mirrored)} of the copies."
    )


def _split(sizes: Mapping[int, Share], bits: int) -> tuple[Share, Share]:
    """Return the sums below, and from, a size."""
    below, above = Share(), Share()
    for one, share in sizes.items():
        sum_share(below if one < bits else above, share)
    return below, above


def _apart(below: Share, above: Share) -> float:
    """Return how much of what is missing a cut explains: the variance between its two sides."""
    weight = below.number * above.number / (below.number + above.number)
    return weight * (below.part / below.number - above.part / above.number) ** 2


def _by_tenant(ledger: Ledger, drawn: int, key: str) -> Iterator[str]:
    """Tell of tenants of which much less was copied than of the others, if that is no accident.

    Where tenants are drawn, one with copies was drawn as a whole, and of another nothing is known.
    """
    whole = key == "tenant"
    rate = 1.0 if whole else drawn / ledger.eligible
    tenants = {
        name: share
        for name, share in ledger.tenants.items()
        if name != OTHER and (share.part or not whole)
    }
    total = _sum(tenants.values())
    lost = []
    for name, share in tenants.items():
        others = Share(total.number - share.number, total.part - share.part)
        if _is_less(share, others, len(tenants)):
            lost.append((1 - _copied(share, rate), name, share))
    lost.sort(key=lambda one: (-one[0], one[1]))
    for missing, name, share in lost[:_TOLD_TENANTS]:
        named = spelling.plain(name) or "(none)"
        yield (
            f"{spelling.part(missing, 1)} of what was drawn of tenant {named} was not copied "
            f"({share.part:,} copies of {share.number:,} eligible)."
        )
    if len(lost) > _TOLD_TENANTS:
        yield f"{len(lost) - _TOLD_TENANTS:,} more tenants have less than their part of the copies."


def _sum(shares: Iterable[Share]) -> Share:
    total = Share()
    for share in shares:
        sum_share(total, share)
    return total


def _copied(share: Share, rate: float) -> float:
    """Return about what part of what was drawn was copied, where `rate` of all was drawn."""
    return min(share.part / (share.number * rate), 1.0) if share.number * rate else 0.0


def _is_less(one: Share, other: Share, tests: int = 1) -> bool:
    """Return whether less of one was copied than of the other, and that is no accident."""
    alpha = _ALPHA / 2 / tests
    low = proportion(other.part, other.number, alpha).low
    return one.number > 0 and proportion(one.part, one.number, alpha).high < low
