"""A gibibyte through one worker, and a minute of a reader that takes nothing of one."""

from __future__ import annotations

import sys

import pytest

from tests.support.memory import MIB, BigBody, passage

GROWTH_AT_MOST = 4 * MIB
SIZE = 1024 * MIB
STOPS = 16
FIRST = 64 * MIB  # as in `make test`: held back as well, so what that takes is no growth
UNREAD_S = 60.0


@pytest.mark.parametrize("shadow_hangs", [False, True], ids=["alone", "beside a hanging shadow"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "by length"])
async def test_a_worker_does_not_grow_with_a_gibibyte(shadow_hangs: bool, chunked: bool) -> None:
    async with passage(shadow_hangs=shadow_hangs) as way:
        await way.upload(BigBody(FIRST, 3, chunked=chunked))
        await way.download(BigBody(FIRST, 3, chunked=chunked))
        up, down = (BigBody(SIZE, STOPS, chunked=chunked) for _ in range(2))
        unread = BigBody(SIZE, chunked=chunked)

        grown = {
            "upload": await way.upload(up),
            "download": await way.download(down),
            "unread": await way.leave_unread(unread, for_s=UNREAD_S),
        }

    for name, size in grown.items():
        sys.stdout.write(f"{name}: {size / MIB:.2f} MiB\n")
    assert max(grown.values()) < GROWTH_AT_MOST
    assert up.held_back
    assert down.held_back
    assert unread.held_back
