"""`make chaos`: a real sidecar under load, one fault after another, and what each one cost.

Names of faults as arguments run those alone. Exit status 1 if one cost more than it may.
"""

from __future__ import annotations

import asyncio
import sys

from tests.chaos.faults import FAULTS, Fault, stage

ROW = "{:28} {:>8} {:>17} {:>14}  {}\n"


async def _holds(fault: Fault) -> bool:
    """Do one fault, print its row, and return whether it cost no more than it may."""
    async with stage() as on:
        await fault.act(on)
    seen = on.seen.failures.total()
    held = seen <= fault.allowed
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(on.seen.failures.items()))
    verdict = ("yes" if held else "NO") + (f"  ({kinds})" if kinds else "")
    sys.stdout.write(ROW.format(fault.name, on.seen.ended, fault.allowed, seen, verdict))
    sys.stdout.flush()
    return held


def main(words: list[str]) -> int:
    """Run the faults whose names have one of `words` in them, or all; return the exit status."""
    chosen = [one for one in FAULTS if not words or any(word in one.name for word in words)]
    sys.stdout.write(ROW.format("fault", "requests", "failures allowed", "failures seen", "held"))
    held = [asyncio.run(_holds(fault)) for fault in chosen]
    return 0 if chosen and all(held) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
