"""A judge that takes note of pairs, and finds whatever was whole to be the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sidecar.dataplane.trial import Captured, Trial
    from sidecar.model.shadow import Answer


class Judged(NamedTuple):
    """What there was of both sides when a trial came."""

    trial: Trial
    primary: Answer
    shadow: Answer
    control: Answer | None
    request_body: bytes


class NotingJudge:
    """Takes trials, counts each as its answers allow, and lets go of them."""

    def __init__(self) -> None:
        self.judged: list[Judged] = []
        self.failed: list[tuple[str, int]] = []
        """Of copies without a whole answer: why, and the client's status."""

    def take(self, trial: Trial) -> None:
        """Take a trial whose sides have all ended."""
        shadow, primary = trial.shadow, trial.primary
        if not shadow.is_whole:
            self.failed.append((shadow.failure, primary.status))
        elif not primary.is_whole:
            trial.book.pass_over("primary")
        elif primary.failure or shadow.failure:
            trial.book.pass_over(primary.failure or shadow.failure)
        else:
            self.judged.append(_judged(trial))
            trial.book.compare()
        trial.release()


def _judged(trial: Trial) -> Judged:
    control: Captured | None = trial.control
    return Judged(
        trial,
        trial.primary.answer(),
        trial.shadow.answer(),
        None if control is None else control.answer(),
        trial.request_body,
    )
