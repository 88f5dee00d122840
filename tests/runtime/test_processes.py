"""When a worker is taken to hang."""

from __future__ import annotations

import asyncio
import sys

from sidecar.runtime.processes import Worker
from sidecar.runtime.questions import Line


async def test_silence_lasts_from_the_first_question_without_an_answer() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    worker = Worker(process, Line("worker"))

    assert worker.silence_s(answers=True, now_s=0.0) == 0
    # Nobody has asked for an hour: that says nothing of the worker.
    assert worker.silence_s(answers=False, now_s=3600.0) == 0
    assert worker.silence_s(answers=False, now_s=3603.0) == 3
    assert worker.silence_s(answers=True, now_s=3604.0) == 0
    assert worker.silence_s(answers=False, now_s=3605.0) == 0
    await process.wait()
