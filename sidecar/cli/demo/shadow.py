"""What the demo's shadow test found, and what the models themselves say of the same rows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import fsum, isclose
from typing import NamedTuple

from sidecar.cli.demo.checkout import Trained
from sidecar.cli.demo.screen import table
from sidecar.cli.demo.tally import MALIGNANT_FROM, TOLERANCE
from sidecar.cli.shadowed import shadow_test_named
from sidecar.shadow.report import Report, make_report
from sidecar.shadow.rows import Against
from sidecar.shadow.spelling import between, percent
from sidecar.store.base import Store

BENIGN, MALIGNANT = "benign", "malignant"  # as the policy's `labels` are
TOLD_S = 15.0  # for a worker to tell its counts, which it does every two seconds
_POLL_S = 0.05
_ERROR = "probability_error"


class Found(NamedTuple):
    """What pairs of answers come to; `confusion` is by the client's label and the shadow's."""

    pairs: int
    agreed: int
    confusion: Mapping[tuple[str, str], int]
    mean_error: float | None


async def read_report(store: Store, model: str, version: str, copies: int) -> Report:
    """Return the report of a shadow once all of so many copies are accounted for.

    Where that takes too long it is the report as it is by then.

    Raises:
        NotFoundError: the policy has no such shadow.
        StoreUnavailableError: the store did not answer.
    """
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + TOLD_S
    while True:
        test = await shadow_test_named(store, model, version, None)
        report = make_report(test.tally, test.shadow, test.currency)
        is_whole = report.account.ledger.eligible >= copies and not report.account.under_way
        if is_whole or clock() > deadline_s:
            return report
        await asyncio.sleep(_POLL_S)


def compute(rows: Sequence[int], primary: Trained, shadow: Trained) -> Found:
    """Return what the answers to rows come to: of both models, without any request."""
    pairs = [(primary.expected[row], shadow.expected[row]) for row in rows]
    confusion = Counter((_label(mine), _label(theirs)) for mine, theirs in pairs)
    return Found(
        pairs=len(pairs),
        agreed=confusion[BENIGN, BENIGN] + confusion[MALIGNANT, MALIGNANT],
        confusion=confusion,
        mean_error=fsum(abs(mine - theirs) for mine, theirs in pairs) / len(pairs),
    )


def found(one: Against) -> Found:
    """Return what a report says of the pairs with one serving version."""
    cells = one.labels.confusion if one.labels is not None else {}
    means = {measure.name: measure.mean.estimate for measure in one.measures}
    return Found(
        pairs=one.agreement.number,
        agreed=one.agreement.agreed,
        confusion={
            (mine, theirs): number for mine, row in cells.items() for theirs, number in row.items()
        },
        mean_error=means.get(_ERROR),
    )


def find_gaps(report: Report, copies: int) -> Iterator[str]:
    """Yield how the ledger does not add up to so many copies, all of them compared."""
    ledger = report.account.ledger
    if not report.account.is_exact or report.account.under_way:
        yield "its sums do not add up"
    if ledger.eligible != copies:
        yield f"{ledger.eligible} requests were eligible, and {copies} were served"
    if ledger.compared != copies:
        yield (
            f"{ledger.compared} of {copies} were compared; {ledger.skipped} were skipped, "
            f"{ledger.failed} failed, {ledger.uncompared} were not compared"
        )


def find_faults(report: Report, expected: Mapping[str, Found]) -> Iterator[str]:
    """Yield in what the report is not what was computed, by serving version."""
    seen = {one.primary: found(one) for one in report.against}
    for version in sorted({*seen, *expected}):
        mine, theirs = seen.get(version), expected.get(version)
        if mine is None or theirs is None:
            yield f"{version}: {'no pairs' if mine is None else 'pairs'} in the report"
        elif not _is_same(mine, theirs):
            yield f"{version}: {_spell(theirs)} computed"
            yield f"{' ' * len(version)}  {_spell(mine)} in the report"


def show(report: Report) -> list[str]:
    """Return the ledger, what agrees and differs by serving version, and the verdict."""
    ledger = report.account.ledger
    skipped, failed = sum(ledger.skipped.values()), sum(ledger.failed.values())
    uncompared = sum(ledger.uncompared.values())
    shadow = report.version.upper()
    return [
        f"{ledger.eligible} eligible = {ledger.sampled_out} sampled out + "
        f"{ledger.mirrored} copied + {skipped} skipped",
        f"{ledger.mirrored} copied = {ledger.compared} compared + {failed} failed + "
        f"{uncompared} uncompared + {report.account.under_way} under way",
        "",
        *table(
            "AGAINST|>PAIRS|>SAME LABEL|WITHIN|>MEAN SHIFT|VERDICT",
            [_row(one) for one in report.against],
        ),
        "",
        *table(
            f"CLIENTS GOT|>{shadow}: {BENIGN}|>{shadow}: {MALIGNANT}",
            [row for one in report.against for row in _label_rows(one)],
        ),
        "WITHIN: where the share is, with the policy's confidence, however often one looks; that",
        "takes requests to be independent, and here tenants send the same rows.",
        "MEAN SHIFT: how far apart both sides' probabilities are.",
        f"Verdict: {report.outcome.value}. {report.why}",
    ]


def _row(one: Against) -> tuple[str, ...]:
    seen, mean_error = one.agreement, found(one).mean_error
    within = next((check.interval for check in one.verdict.checks), seen.raw.interval)
    return (
        one.primary,
        str(seen.number),
        percent(seen.agreed / seen.number) if seen.number else "-",
        between(within, percent),
        "-" if mean_error is None else f"{mean_error:.4f}",
        one.verdict.outcome.value,
    )


def _label_rows(one: Against) -> Iterator[tuple[str, ...]]:
    confusion = found(one).confusion
    for mine in (BENIGN, MALIGNANT):
        numbers = (confusion.get((mine, theirs), 0) for theirs in (BENIGN, MALIGNANT))
        yield f"{one.primary}: {mine}", *map(str, numbers)


def _label(probability: float) -> str:
    return MALIGNANT if probability >= MALIGNANT_FROM else BENIGN


def _is_same(one: Found, other: Found) -> bool:
    if one.mean_error is None or other.mean_error is None:
        return False
    is_close = isclose(one.mean_error, other.mean_error, rel_tol=0, abs_tol=TOLERANCE)
    return is_close and one[:-1] == other[:-1]


def _spell(one: Found) -> str:
    cells = ", ".join(f"{mine}/{theirs} {n}" for (mine, theirs), n in sorted(one.confusion.items()))
    return f"{one.agreed} of {one.pairs} agree ({cells}), mean shift {one.mean_error}"
