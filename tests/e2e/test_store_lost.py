"""Nothing that happens to Redis fails a request of a sidecar that has its policies."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.support.load import steady_load
from tests.support.sidecar import editor, flags, sidecar
from tests.support.upstream import scripted_upstream
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    from tests.support.sidecar import Sidecar


async def is_pinned(running: Sidecar) -> bool:
    return (await running.ask("acme")).get(b"X-Model-Version") == b"v2"


async def is_fresh(running: Sidecar) -> bool:
    return await running.counted("rmv_policies_stale") == 0


async def test_an_embedded_server_that_is_killed_comes_back_and_no_request_fails() -> None:
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url, v2=up.url)) as running,
        steady_load(running.listen) as load,
    ):
        await load.more(20)
        killed = running.valkey()
        assert killed is not None

        os.kill(killed, signal.SIGKILL)
        await running.says("embedded server restarted")
        async with running.editor() as plain:
            await plain.set("pin:m:acme", "v2")
        await running.until(lambda: is_pinned(running), "effect of an edit")

        await load.more(20)
        assert load.unserved() == []
        assert running.valkey() not in {None, killed}
        assert await is_fresh(running)


async def test_while_an_external_server_is_gone_the_last_policies_serve_marked_stale() -> None:
    async with (
        running_valkey() as valkey,
        scripted_upstream() as up,
        sidecar("--redis", valkey.url, *flags(v1=up.url, v2=up.url)) as running,
        steady_load(running.listen) as load,
    ):
        await load.more(20)
        assert not any(one.get("is_stale") for one in running.records())

        await valkey.kill()
        await running.until(lambda: is_stale(running), "stale mark")
        await load.more(100)
        assert running.records()[-1]["is_stale"] is True
        assert await running.asked_admin("/readyz") == (200, "ready\n")

        await valkey.start()
        async with editor(valkey.url) as plain:
            await plain.set("pin:m:acme", "v2")
        await running.until(lambda: is_pinned(running), "effect of an edit")
        await running.until(lambda: is_fresh(running), "end of the stale mark")
        await load.more(20)
        assert load.unserved() == []
        assert "policy watch lost" in running.said()
        assert "policy watch resumed" in running.said()


async def test_after_a_flush_a_new_apply_ends_the_pins_and_kills_that_were_lost() -> None:
    async with (
        running_valkey() as valkey,
        scripted_upstream() as up,
        sidecar("--redis", valkey.url, *flags(v1=up.url, v2=up.url)) as running,
        editor(valkey.url) as plain,
    ):
        document = await plain.document()
        await plain.set("pin:m:acme", "v2")
        await running.until(lambda: is_pinned(running), "effect of a pin")
        await plain.set("kill:m:v2", "bad")
        await running.until(lambda: is_refused(running, "acme"), "effect of a kill")

        await valkey.client.flushall()
        await running.says("store lost policies")
        assert await is_refused(running, "acme"), "what was lost holds"
        await plain.set("pin:m:globex", "v1")
        await plain.set("kill:m:v1", "slow")
        await running.until(lambda: is_refused(running, "globex"), "effect of a new kill")
        await plain.put({**document, "default": "v2"})

        await running.until(lambda: is_served(running, "acme"), "end of the lost pin and kill")
        assert await is_refused(running, "globex"), "what was written since holds"
        assert "store has its policies again" in running.said()


async def is_refused(running: Sidecar, tenant: str) -> bool:
    return (await running.ask(tenant)).status == 409


async def is_served(running: Sidecar, tenant: str) -> bool:
    return (await running.ask(tenant)).status == 200


async def is_stale(running: Sidecar) -> bool:
    return any(one.get("is_stale") for one in running.records())
