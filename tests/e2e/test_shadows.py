"""A fleet's counts of shadow tests are exact, and what they say of the shadows is true."""

from __future__ import annotations

import json
import random
import signal
import time
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from sidecar.shadow.sequence import difference, proportion
from sidecar.store.redis import RedisStore
from tests.support.load import steady_load
from tests.support.sidecar import is_running, sidecar
from tests.support.upstream import eventually, scripted_upstream
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from sidecar.model.shadow import Ledger, Tally
    from tests.support.upstream import Received
    from tests.support.valkey import Valkey

ROUNDS = 250
PLANTED = 10  # one request of so many
NOISE = 0.2
ALPHA = 0.001
SETTINGS = """
no_auth = true
model = "m"
workers = 2
[timeouts]
drain_idle_s = 0.05
[limits]
compare_cpu_share = 1.0
"""


def is_planted(request: Received) -> bool:
    """Whether the shadow is to say something else."""
    return crc32(request.get(b"X-Request-Id") or b"") % PLANTED == 0


def scoring(
    seed: int, *, is_wrong: Callable[[Received], bool] = lambda _: False
) -> Callable[[Received, asyncio.StreamWriter], Awaitable[None]]:
    """Return a model that scores, and breaks ties by chance."""
    chance = random.Random(seed)  # noqa: S311 -- no secret

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        score = 0.9 if is_wrong(request) else 0.5
        body = json.dumps({"score": score, "tie": chance.random() < NOISE}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await writer.drain()

    return answer


def is_exact(ledger: Ledger) -> bool:
    """Whether every request and every copy is counted once, and none is under way."""
    skipped, failed = sum(ledger.skipped.values()), sum(ledger.failed.values())
    ends = ledger.compared + failed + sum(ledger.uncompared.values())
    return (ledger.eligible, ledger.mirrored) == (
        ledger.sampled_out + ledger.mirrored + skipped,
        ends,
    )


async def test_counts_of_a_fleet_are_exact_and_find_what_was_planted() -> None:
    async with (
        running_valkey() as valkey,
        scripted_upstream(scoring(1)) as primary,
        scripted_upstream(scoring(2, is_wrong=is_planted)) as wrong,
        scripted_upstream(scoring(3)) as noisy,
        scripted_upstream(scoring(4)) as again,
    ):
        urls = {"v1": primary.url, "v2": wrong.url, "v3": noisy.url, "v1b": again.url}
        document = {
            "model": "m",
            "versions": {name: {"endpoints": [url]} for name, url in urls.items()},
            "default": "v1",
            "shadows": [
                {"version": "v2", "compare": {"ignore": ["/tie"], "keep": {"pairs": 100}}},
                {"version": "v3", "compare": {"control": "v1b"}},
            ],
        }
        await valkey.client.set("rmv:policy:m", msgspec.json.encode(document))
        async with sidecar("--redis", valkey.url, settings=SETTINGS) as running:
            former = running.workers()
            async with steady_load(running.listen, "acme") as load:
                await load.more(ROUNDS)
                running.signal(signal.SIGHUP)
                await running.says("workers replaced")
                await load.more(ROUNDS)
                await eventually(lambda: not any(map(is_running, former)))
            running.signal(signal.SIGTERM)
            assert await running.ended() == 0
        served = len(primary.received)
        tests = await tallies(valkey)

    for tally in tests.values():
        assert tally.ledger.eligible == served
        assert is_exact(tally.ledger)
        assert tally.ledger.tenants["acme"].number == served
        assert 2 <= tally.workers <= 4  # which of them clients get is the kernel's choice
        assert tally.pairs["v1"].number == tally.ledger.compared > ROUNDS
    pairs = tests["v2"].pairs["v1"]
    seen = proportion(pairs.number - pairs.agreed, pairs.number, ALPHA)
    assert seen.low <= 1 / PLANTED <= seen.high
    assert pairs.fields.keys() == {"/score"}
    assert 0 < pairs.number - pairs.agreed <= sum(map(is_planted, primary.received))
    control = tests["v3"].pairs["v1"].control
    net = difference(control.control_only, control.shadow_only, control.number, ALPHA)
    assert net.low <= 0 <= net.high
    assert proportion(control.shadow, control.number, ALPHA).low > 0.1  # there is noise


async def test_a_cap_stops_copies_and_a_reset_begins_anew() -> None:
    async with (
        running_valkey() as valkey,
        scripted_upstream() as primary,
        scripted_upstream() as tried,
        scripted_upstream() as dear,
    ):
        document = {
            "model": "m",
            "versions": {
                "v1": {"endpoints": [primary.url]},
                "v2": {"endpoints": [tried.url]},
                "v3": {"endpoints": [dear.url], "price": {"per_request": 1.0}},
            },
            "default": "v1",
            "shadows": [{"version": "v2", "compare": {}}, {"version": "v3", "cost_per_day": 5}],
        }
        await valkey.client.set("rmv:policy:m", msgspec.json.encode(document))
        store = RedisStore(valkey.url)

        async def told(version: str) -> Tally | None:
            found = (await store.tallies("m")).tallies
            return next((one for one in found if one.version == version), None)

        async def is_capped() -> bool:
            return await running.counted("rmv_shadow_capped", model="m", version="v3") == 1

        async def is_begun_anew() -> bool:
            one = await told("v2")
            return one is not None and one.since_s > reset_s

        one_worker = SETTINGS.replace("workers = 2", "workers = 1")
        async with sidecar("--redis", valkey.url, settings=one_worker) as running:
            async with steady_load(running.listen, "acme") as load:
                await running.until(is_capped, "cap")
                copies = len(dear.received)
                await load.more(50)
                assert len(dear.received) <= copies + 4  # those on their way when it was told

                assert await store.reset_shadow("m", "v2") == 1
                reset_s = time.time()  # noqa: TID251 -- the sidecar's own
                await running.until(is_begun_anew, "reset")
                await load.more(50)
            running.signal(signal.SIGTERM)
            assert await running.ended() == 0
        [v2, v3] = [await told("v2"), await told("v3")]
        await store.close()

    assert v2 is not None
    assert v3 is not None
    assert is_exact(v2.ledger)
    assert is_exact(v3.ledger)
    assert 50 <= v2.ledger.eligible < v3.ledger.eligible == len(primary.received)
    assert v2.pairs["v1"].number == v2.pairs["v1"].agreed == v2.ledger.compared > 0
    assert v3.ledger.skipped["cost"] > 50
    assert sum(v3.cost.price.values()) == v3.ledger.mirrored == len(dear.received)


async def tallies(valkey: Valkey) -> dict[str, Tally]:
    """Return what is stored, by version; workers that ended are one."""
    store = RedisStore(valkey.url)
    told = await store.tallies("m")
    kept = [one async for one in store.evidence("m", "v2")]
    await store.close()
    assert told.faults == ()
    assert len(told.tallies) == 2
    assert kept
    assert {one.fields for one in kept if one is not None} == {("/score",)}
    return {one.version: one for one in told.tallies}
