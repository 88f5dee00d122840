"""What no worker can have counted: a tally in a store may have been written by anybody."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from sidecar.model.shadow import OTHER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sidecar.model.shadow import FieldTally, Ledger, Pairs, Share, Tally


def fault(tally: Tally) -> str:
    """Return the first count that is more than what it is a part of; nothing of a true tally.

    Without one `make_report` has no objection, and sums of such tallies have none.
    """
    return next(chain(_in_ledger(tally.ledger), *map(_in_pairs, tally.pairs.values())), "")


def _in_ledger(ledger: Ledger) -> Iterator[str]:
    yield from _more("sampled_out", ledger.sampled_out, ledger.eligible)
    yield from _in_shares("ledger.sizes", ledger.sizes)
    yield from _in_shares("ledger.tenants", ledger.tenants)


def _in_pairs(pairs: Pairs) -> Iterator[str]:
    errors = pairs.primary_errors + pairs.shadow_errors + pairs.both_errors
    seen = pairs.control
    yield from _more("agreed", pairs.agreed, pairs.number)
    yield from _more("errors", errors, pairs.answers)
    yield from _more("control", max(seen.shadow, seen.control), seen.number)
    yield from _more("control.one", seen.shadow_only + seen.control_only, seen.number)
    yield from _in_shares("tenants", pairs.tenants)
    yield from _in_shares("segments", pairs.segments)
    yield from _in_shares("timeline", pairs.timeline)
    for name, field in pairs.fields.items():
        if name == OTHER:  # where sums were cut, it has pairs more than once
            continue
        yield from _in_field(f"fields.{name}", field, pairs)


def _in_field(name: str, field: FieldTally, pairs: Pairs) -> Iterator[str]:
    either = field.paired_raw + field.noise - field.both
    yield from _more(f"{name}.raw", field.raw, pairs.number)
    yield from _more(f"{name}.both", field.both, min(field.paired_raw, field.noise))
    yield from _more(name, either, pairs.control.number)


def _in_shares(name: str, shares: Mapping[str, Share] | Mapping[int, Share]) -> Iterator[str]:
    for key, share in shares.items():
        yield from _more(f"{name}.{key}", share.part, share.number)


def _more(name: str, part: int, number: int) -> Iterator[str]:
    if part > number:
        yield f"{name} has {part} of {number}"
