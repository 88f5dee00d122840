"""What a real sidecar tells of itself: from its start to its end, a commit at once."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from sidecar import __version__
from sidecar.store.connect import open_store
from tests.support.servers import until
from tests.support.sidecar import editor, flags, sidecar
from tests.support.upstream import scripted_upstream
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    from sidecar.store.base import Instance, Store


async def the_sidecar(store: Store) -> Instance | None:
    """Return the one that lives, if one does."""
    living = await store.fleet()
    assert len(living) <= 1
    return living[0] if living else None


async def test_two_workers_are_one_sidecar_that_acknowledges_counts_and_takes_leave() -> None:
    async with running_valkey() as valkey, scripted_upstream() as up:
        store = open_store(valkey.url)
        arguments = ("--workers", "2", "--redis", valkey.url, *flags(v1=up.url, v2=up.url))
        async with sidecar(*arguments) as running:

            async def decides_by(revision: int) -> bool:
                one = await the_sidecar(store)
                return one is not None and one.workers == 2 and one.revisions == {"m": revision}

            async def has_counted() -> bool:
                one = await the_sidecar(store)
                return one is not None and one.counters == {"requests": 1, "errors": 0}

            await until(lambda: decides_by(1))
            await running.ask()
            async with editor(valkey.url) as plain:
                document = await plain.document()
                await plain.put({**document, "default": "v2"})
            await until(lambda: decides_by(2))
            await until(has_counted)
            one = await the_sidecar(store)
            assert one is not None
            assert one.name.endswith(f"-{running.pid}")
            assert (one.program, one.is_stale, one.faults) == (__version__, False, {})

            running.signal(signal.SIGTERM)
            await running.ended()

            assert await the_sidecar(store) is None
        await store.close()
