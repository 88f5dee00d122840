"""Who compares is loaded when there is something to compare, and loses nothing meanwhile."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from sidecar.app.shadowing import MAX_WAITING, Shadowing
from sidecar.model.limits import Limits
from tests.controller.pairs import MEMORY, Bench
from tests.support.upstream import eventually

if TYPE_CHECKING:
    import pytest


def shadowing(bench: Bench) -> Shadowing:
    made = Shadowing(Limits(compare_cpu_share=1.0), bench.clock, bench.metrics)
    made._accounts = bench.accounts  # noqa: SLF001 -- to look into them
    return made


async def test_pairs_that_come_while_it_is_loaded_are_compared() -> None:
    bench = Bench()
    judge = shadowing(bench)
    for _ in range(10):
        judge.take(bench.trial([1], [1]))
    assert bench.book.compared == 0
    await eventually(lambda: bench.book.compared == 10)

    judge.take(bench.trial([1], [2]))
    await eventually(lambda: bench.book.compared == 11)

    assert (bench.pairs.number, bench.pairs.agreed) == (11, 10)
    await judge.close()
    assert bench.memory.free == MEMORY


async def test_a_worker_that_ends_meanwhile_counts_them_all() -> None:
    bench = Bench()
    judge = shadowing(bench)
    for _ in range(MAX_WAITING + 10):
        judge.take(bench.trial([1], [1]))

    await judge.close()

    assert bench.book.uncompared.keys() == {"shutdown", "budget"}
    assert bench.book.under_way == 0
    assert bench.memory.free == MEMORY


async def test_pairs_are_counted_where_who_compares_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "sidecar.controller.comparing", None)  # as if it were gone
    bench = Bench()
    judge = shadowing(bench)
    for _ in range(2):
        judge.take(bench.trial([1], [1]))
    await eventually(lambda: bench.book.under_way == 0)
    judge.take(bench.trial([1], [1]))
    await judge.close()

    assert bench.book.uncompared == {"fault": 3}
    assert [one.message for one in caplog.records] == ["a fault of the sidecar"]
    assert bench.memory.free == MEMORY


async def test_one_without_pairs_ends_as_well() -> None:
    await shadowing(Bench()).close()


def test_without_pairs_nothing_is_loaded() -> None:
    code = "import sys, sidecar.app.worker; print('sidecar.shadow.compare' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert said.stdout == "False\n"
