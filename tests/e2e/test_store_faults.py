"""Each fault of a store is done to a real sidecar under load: no request fails, and it heals."""

from __future__ import annotations

import pytest

from tests.chaos.store import (
    STORE_FAULTS,
    StoreFault,
    corrupt,
    flush,
    kill,
    promote_an_older_replica,
    store_stage,
)
from tests.support.load import steady_load

HERE = {kill, flush, promote_an_older_replica, corrupt}  # the others take long: `make chaos`
FAULTS = [one for one in STORE_FAULTS if one.act in HERE]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_no_request_fails_and_it_heals(fault: StoreFault) -> None:
    async with store_stage() as on, steady_load(on.running.listen) as load:
        await load.more(20)

        await fault.act(on, load)

        await load.more(20)
    assert load.unserved() == []
