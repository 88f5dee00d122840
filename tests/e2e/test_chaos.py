"""`make chaos` fails if a fault cost more than it may, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos import __main__ as chaos
from tests.chaos.faults import Fault

if TYPE_CHECKING:
    from tests.chaos.faults import Stage


async def loss(on: Stage) -> None:
    on.seen.failures["lost"] += 2
    await on.seen.more(1)


@pytest.mark.parametrize(
    ("allowed", "act", "status", "said"),
    [(2, loss, 0, "yes  (2 lost)"), (1, loss, 1, "NO  (2 lost)")],
)
def test_its_exit_status_says_whether_every_row_held(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    allowed: int,
    act: type,
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(chaos, "FAULTS", (Fault("made up", allowed, act),))

    assert chaos.main(["made up"]) == status
    assert capsys.readouterr().out.rstrip().endswith(said)


def test_a_row_that_does_not_exist_does_not_hold() -> None:
    assert chaos.main(["no such fault"]) == 1
