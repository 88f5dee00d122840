"""A store in a cluster: what every store promises, and a primary that goes."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import StoreUnavailableError
from sidecar.model.context import Context, ContextSettings
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.base import Kill, Pin
from sidecar.store.live import LivePolicies
from sidecar.store.pulse import Member, Pulse
from sidecar.store.redis import RedisStore
from tests.store.documents import default_of, document, eventually, pin_of, policy, watching
from tests.support.certificates import server_tls
from tests.support.link import link_of_both
from tests.support.servers import cluster, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.servers import Server

MODELS = [f"model-{number}" for number in range(12)]  # some on every primary


async def test_a_cluster_keeps_what_a_store_promises_and_outlives_a_primary() -> None:
    async with cluster(replicas=1) as nodes:
        store = RedisStore(f"redis+cluster://127.0.0.1:{nodes[1].port},127.0.0.1:{nodes[0].port}")
        live = LivePolicies(on_change=lambda model: pulse.notice(model))  # noqa: PLW0108 -- not there yet
        pulse = Pulse(Member("host-1", "a"), live)
        beating = spawn(store.beat(pulse), name="heartbeat under test")
        for model in MODELS:
            await store.commit(policy(model), expected=None, actor="ann", comment="")
        async with watching(store, live):
            assert live.snapshots.keys() == set(MODELS)
            await _edits_flow(store, live)
            await _everything_is_read(store)

            # A primary that dies is replaced by its replica, and followed.
            await nodes[0].client.wait(1, 5_000)
            nodes[0].signal(signal.SIGKILL)
            await eventually(lambda: live.is_stale)
            assert live.snapshots.keys() == set(MODELS)
            await eventually(lambda: not live.is_stale)
            for model in MODELS:
                await store.set_pin(model, "after", "v2")
            await eventually(lambda: all(pin_of(live, "after", model) for model in MODELS))
            assert live.lost == frozenset()

            # One that loses its data has lost them: of the other shards nothing changes.
            emptied = nodes[3]
            gone = {
                key.decode().rpartition(":")[2]
                async for key in emptied.client.scan_iter("rmv:policy:*")
            }
            assert gone
            await emptied.client.flushall()
            await eventually(lambda: bool(live.lost))
            assert live.snapshots.keys() == set(MODELS)
            assert live.lost <= gone
        await stop(beating)
        await store.close()


async def test_every_node_of_a_cluster_is_spoken_to_over_tls_also_a_replica_promoted(
    tmp_path: Path,
) -> None:
    tls, certificate = server_tls(tmp_path)
    async with cluster(replicas=1) as nodes, AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(link_of_both(one.port, tls)) for one in nodes]
        for one, end in zip(nodes, ends, strict=True):
            await one.client.config_set("cluster-announce-port", end.port)
        announced = {end.port for end in ends}
        await until(lambda: _all_announce(nodes, announced))
        address = f"rediss+cluster://127.0.0.1:{ends[1].port}"
        store = RedisStore(f"{address}?ssl_ca_certs={certificate}")
        for model in MODELS:
            await store.commit(policy(model), expected=None, actor="ann", comment="")
        assert await store.models() == sorted(MODELS)
        async with watching(store) as live:
            assert live.snapshots.keys() == set(MODELS)
            assert all(end.over_tls for end in ends[:3])
            await nodes[0].client.wait(1, 5_000)
            nodes[0].signal(signal.SIGKILL)
            await eventually(lambda: live.is_stale)
            await eventually(lambda: not live.is_stale)
            for model in MODELS:
                await store.set_pin(model, "acme", "v2")
            await eventually(lambda: all(pin_of(live, "acme", model) for model in MODELS))
        assert ends[3].over_tls
        await store.close()

        strict = RedisStore(address)  # of the system's authorities none vouches for them
        with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
            await strict.models()
        await strict.close()


async def _all_announce(nodes: list[Server], ports: set[int]) -> bool:
    """Return whether every node names all nodes by these ports."""
    for node in nodes:
        told = await node.call("CLUSTER", "SLOTS")
        assert isinstance(told, list)
        if {one[1] for _, _, *shard in told for one in shard} != ports:
            return False
    return True


async def test_a_primary_that_comes_back_without_its_data_has_lost_them() -> None:
    async with cluster() as nodes:
        store = RedisStore(f"redis+cluster://127.0.0.1:{nodes[1].port}")
        for model in MODELS:
            await store.commit(policy(model), expected=None, actor="ann", comment="")
        async with watching(store) as live:
            had = {
                key.decode().rpartition(":")[2]
                async for key in nodes[0].client.scan_iter("rmv:policy:*")
            }
            await nodes[0].kill()
            await eventually(lambda: live.is_stale)
            await nodes[0].start()

            await eventually(lambda: live.lost == had)
            assert live.snapshots.keys() == set(MODELS)
        await store.close()


async def _edits_flow(store: RedisStore, live: LivePolicies) -> None:
    for model in MODELS:
        await store.set_pin(model, "acme", "v2")
        await store.set_kill(model, "v1", "leaks", ttl_s=500)
    await eventually(lambda: all(pin_of(live, "acme", model) == "v2" for model in MODELS))
    await eventually(lambda: all(live.snapshots[model].kills for model in MODELS))
    raw = await store.get_document(MODELS[0])
    changed = await store.commit(policy(MODELS[0], "v2"), expected=raw, actor="bob", comment="")
    await eventually(lambda: default_of(live, MODELS[0]) == "v2")
    assert changed.revision == 2

    async def is_told() -> bool:
        return [one.revisions.get(MODELS[0]) for one in await store.fleet()] == [2]

    await until(is_told)
    await store.delete_policy(MODELS[1])
    await eventually(lambda: MODELS[1] not in live.snapshots)
    await store.commit(policy(MODELS[1]), expected=None, actor="ann", comment="")
    await eventually(lambda: MODELS[1] in live.snapshots)


async def _everything_is_read(store: RedisStore) -> None:
    assert await store.models() == sorted(MODELS)
    assert await store.named_models() == sorted(MODELS)
    assert [pin async for pin in store.pins(MODELS[2])] == [Pin("acme", "v2")]
    assert await store.pins_of(MODELS[2], ["acme", "other"]) == {"acme": "v2"}
    (kill,) = await store.kills(MODELS[2])
    assert kill == Kill("v1", "leaks", kill.ttl_s)
    assert [entry.revision for entry in await store.history(MODELS[0])] == [2, 1]
    assert document(MODELS[3], revision=1) != await store.get_document(MODELS[3])  # its actor
    for model in MODELS:
        sample = Context("r-1", 1795438800.0, model, "acme", "v2", "PINNED", 1, 0.1, "host-1")
        await store.add_contexts(model, (sample,), ContextSettings())
        assert [one async for one in store.contexts(model)] == [sample]
