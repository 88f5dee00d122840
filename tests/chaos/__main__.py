"""`make chaos`: a real sidecar under load, one fault after another, and what each one cost.

Names of faults as arguments run those alone. Exit status 1 if one cost more than it may.
"""

from __future__ import annotations

import asyncio
import sys

from tests.chaos.faults import FAULTS, Fault, stage
from tests.chaos.load import Load, load
from tests.chaos.store import STORE_FAULTS, StoreFault, store_stage

ROW = "{:28} {:>8} {:>17} {:>14}  {}\n"


async def _holds(fault: Fault | StoreFault) -> bool:
    """Do one fault, print its row, and return whether it cost no more than it may."""
    allowed = fault.allowed if isinstance(fault, Fault) else 0
    load_seen = await _done(fault)
    seen = load_seen.failures.total()
    held = seen <= allowed
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(load_seen.failures.items()))
    verdict = ("yes" if held else "NO") + (f"  ({kinds})" if kinds else "")
    sys.stdout.write(ROW.format(fault.name, load_seen.ended, allowed, seen, verdict))
    sys.stdout.flush()
    return held


async def _done(fault: Fault | StoreFault) -> Load:
    """Do one fault under load; return what became of the requests."""
    if isinstance(fault, Fault):
        async with stage() as on:
            await fault.act(on)
        return on.seen
    async with store_stage() as at, load(at.running.listen) as traffic:
        await fault.act(at, traffic)
    return traffic


def main(words: list[str]) -> int:
    """Run the faults whose names have one of `words` in them, or all; return the exit status."""
    chosen = [
        one
        for one in (*FAULTS, *STORE_FAULTS)
        if not words or any(word in one.name for word in words)
    ]
    sys.stdout.write(ROW.format("fault", "requests", "failures allowed", "failures seen", "held"))
    held = [asyncio.run(_holds(fault)) for fault in chosen]
    return 0 if chosen and all(held) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
