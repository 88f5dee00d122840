"""How the whole suite runs: many processes at a time, on a machine of any speed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings

from sidecar.runtime import faults

if TYPE_CHECKING:
    from collections import Counter

# A machine that is busy for a moment is no failure; `timeout` in pyproject.toml bounds each test.
EXAMPLES = int(os.environ.get("RMV_EXAMPLES", "40"))  # of a property that names no number itself
settings.register_profile(
    "rmv",
    max_examples=EXAMPLES,
    deadline=None,
    # To explain is to trace every line, which on Python 3.11 takes minutes of what took a second.
    phases=[phase for phase in Phase if phase is not Phase.explain],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("rmv")


@pytest.fixture(autouse=True)
def counted_faults(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The faults that the sidecar has met in this process during one test, by part."""
    monkeypatch.setattr(faults, "PROCESS", faults.Faults())
    return faults.PROCESS.counted


def pytest_xdist_auto_num_workers() -> int:
    """Return two for each CPU: most tests wait for processes and sockets for much of their time."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole sidecars: no other file takes as long as one of these, or waits as much."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)
