"""Many sidecars' watches and heartbeats in one process: `python -m tests.bench.watchers URL 25 a`.

Prints `ready` when all have loaded, and at the end of its input, for each revision of the model
`m`, when the last of them had it in force (seconds of the monotonic clock), as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from sidecar.runtime.tasks import spawn, stop
from sidecar.store.live import LivePolicies
from sidecar.store.pulse import Member, Pulse
from sidecar.store.redis import RedisStore


class Watch:
    """One sidecar, as far as its store knows."""

    def __init__(self, url: str, name: str, seen: dict[int, list[float]]) -> None:
        self.live = LivePolicies(on_change=self._changed)
        self._pulse = Pulse(Member(name, "a"), self.live)
        self._seen = seen
        store = RedisStore(url)
        self.tasks = [
            spawn(store.watch(self.live), name="watch"),
            spawn(store.beat(self._pulse), name="beat"),
        ]

    def _changed(self, model: str) -> None:
        self._pulse.notice(model)
        revision = self.live.snapshots[model].revision
        self._seen.setdefault(revision, []).append(time.monotonic())


async def main(url: str, number: int, name: str) -> None:
    seen: dict[int, list[float]] = {}
    watches = [Watch(url, f"{name}-{n}", seen) for n in range(number)]
    while not all(watch.live.is_loaded for watch in watches):  # noqa: ASYNC110 -- once
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    last = {revision: max(at) for revision, at in seen.items() if len(at) >= number}
    print(json.dumps(last), flush=True)
    await stop(*(task for watch in watches for task in watch.tasks))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
