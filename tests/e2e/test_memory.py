"""What a worker holds of a body does not grow with it; `make integration` has the long form."""

from __future__ import annotations

import pytest

from tests.support.memory import MIB, BigBody, passage

GROWTH_AT_MOST = 4 * MIB
SIZE = 64 * MIB
STOPS = 3


@pytest.mark.parametrize("shadow_hangs", [False, True], ids=["alone", "beside a hanging shadow"])
async def test_a_worker_does_not_grow_with_the_bodies_that_pass(shadow_hangs: bool) -> None:
    async with passage(shadow_hangs=shadow_hangs) as way:
        up, down, unread = BigBody(SIZE, STOPS), BigBody(SIZE, STOPS), BigBody(SIZE)

        assert await way.upload(up) < GROWTH_AT_MOST
        assert await way.download(down) < GROWTH_AT_MOST
        assert await way.leave_unread(unread, for_s=0) < GROWTH_AT_MOST

    assert up.held_back
    assert down.held_back
    assert unread.held_back
