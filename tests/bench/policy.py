"""Print what policies cost as a Markdown table: `python -m tests.bench.policy [PART]...`.

`make bench-policy` runs all parts, in the compiled form: see `PARTS`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

import uvloop

from sidecar import __version__, is_compiled
from tests.bench import decisions, loading, propagation, shapes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Row = tuple[str, str, str]
"""What was measured, the figure, and what it should be."""

GIVE_UP_S = 600.0


async def decision_rows() -> AsyncIterator[Row]:
    for row in decisions.rows():
        yield row


PARTS = {
    "decisions": decision_rows,
    "swaps": loading.swap_rows,
    "shapes": shapes.rows,
    "pins": loading.pin_rows,
    "models": loading.model_rows,
    "propagation": propagation.rows,
}


async def main(names: list[str]) -> None:
    unknown = set(names) - set(PARTS)
    if unknown:
        raise SystemExit(f"no such part: {', '.join(sorted(unknown))}; parts: {', '.join(PARTS)}")
    began_s = time.monotonic()
    form = "compiled" if is_compiled() else "interpreted"
    print(f"rmv {__version__} ({form}), load average {os.getloadavg()[0]:.1f} at the start\n")
    print("| measured | figure | to hold |\n| --- | --- | --- |")
    async with asyncio.timeout(GIVE_UP_S):
        for name in names or PARTS:
            async for what, figure, wanted in PARTS[name]():
                print(f"| {what} | {figure} | {wanted} |", flush=True)
            gc.collect()
    print(f"\nload average {os.getloadavg()[0]:.1f} at the end, {time.monotonic() - began_s:.0f} s")


if __name__ == "__main__":
    logging.disable()  # what the watches say of the connections that are cut here
    uvloop.run(main(sys.argv[1:]))
