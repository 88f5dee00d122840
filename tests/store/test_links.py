"""A watch over a link that is slow, silent or deaf, and what it reads at most."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.errors import StoreUnavailableError
from sidecar.policy.codec import MAX_DOCUMENT_BYTES
from sidecar.store.keys import Keys
from sidecar.store.link import open_link
from sidecar.store.redis import RedisStore
from sidecar.store.watch import WatchTiming
from tests.store.documents import GIVE_UP_S, default_of, document, eventually, pin_of, watching
from tests.support.certificates import server_tls
from tests.support.link import link_to
from tests.support.servers import server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sidecar.store.live import LivePolicies
    from tests.support.link import Link
    from tests.support.servers import Server

QUICK = WatchTiming(ping_every_s=0.05, ping_timeout_s=0.5)


@asynccontextmanager
async def linked(
    timing: WatchTiming = QUICK,
) -> AsyncIterator[tuple[Server, Link, LivePolicies]]:
    """Watch a server over a link; model `fraud` is in force."""
    async with server() as one, link_to(one.port) as link:
        await one.client.set("rmv:policy:fraud", document())
        store = RedisStore(link.url, timing=timing)
        async with watching(store) as live:
            yield one, link, live
            link.is_silent = False
        await store.close()


def test_a_link_that_is_half_open_or_deaf_is_noticed_within_five_seconds() -> None:
    timing = WatchTiming()

    assert timing.ping_every_s + timing.ping_timeout_s <= 5


async def test_a_wait_that_is_cut_short_loses_no_change() -> None:
    async with server() as one:
        link = open_link(f"redis://127.0.0.1:{one.port}")
        tracking = link.track(Keys())
        await tracking.open()
        wanted = {b"rmv:pin:fraud:%d" % n for n in range(100)}
        found: set[bytes] = set()
        for key in sorted(wanted):
            waiting = asyncio.ensure_future(tracking.heard(20.0))
            await one.client.set(key, "v1")  # the report comes while it is being cancelled
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        while found != wanted:
            assert await tracking.heard(20.0)
            found.update((await tracking.take())[0])
        await tracking.close()
        await link.close()


async def test_a_silent_link_is_stale_and_heals_when_it_speaks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with linked() as (one, link, live):
        link.is_silent = True
        await one.client.set("rmv:pin:fraud:acme", "v2")
        await eventually(lambda: live.is_stale)
        assert default_of(live) == "v1"
        lost = next(one for one in caplog.records if one.message == "policy watch lost")
        assert vars(lost)["reason"] == "it did not answer in time"

        link.is_silent = False

        await eventually(lambda: not live.is_stale)
        assert pin_of(live, "acme") == "v2"


async def test_a_link_that_answers_but_loses_reports_is_noticed() -> None:
    async with linked() as (one, link, live):
        link.is_deaf = True
        await one.client.set("rmv:pin:fraud:acme", "v2")
        await eventually(lambda: live.is_stale)

        await eventually(lambda: pin_of(live, "acme") == "v2")  # each new session reads everything
        link.is_deaf = False
        await eventually(lambda: not live.is_stale)


async def test_a_link_that_reports_but_answers_no_more_is_noticed() -> None:
    async with linked(WatchTiming(ping_every_s=60)) as (one, link, live):
        link.is_mute = True
        async with asyncio.timeout(GIVE_UP_S):
            while not live.is_stale:  # reports go on, so that something always comes
                await one.client.set("rmv:pin:fraud:acme", "v1")
                await asyncio.sleep(0.05)

        link.is_mute = False
        await one.client.set("rmv:pin:fraud:acme", "v2")

        await eventually(lambda: pin_of(live, "acme") == "v2")
        await eventually(lambda: not live.is_stale)


async def test_a_slow_link_is_followed_and_not_stale() -> None:
    async with linked(WatchTiming(ping_every_s=0.05)) as (one, link, live):
        link.delay_s = 0.1
        await one.client.set("rmv:pin:fraud:acme", "v2")

        await eventually(lambda: pin_of(live, "acme") == "v2")
        await asyncio.sleep(0.5)  # several pings
        assert not live.is_stale


async def test_tls_is_spoken_with_who_is_trusted_and_nobody_else(tmp_path: Path) -> None:
    tls, certificate = server_tls(tmp_path)
    async with server() as one, link_to(one.port, tls) as link:
        await one.client.set("rmv:policy:fraud", document())
        trusting = RedisStore(f"{link.url}?ssl_ca_certs={certificate}")
        async with watching(trusting) as live:
            await one.client.set("rmv:pin:fraud:acme", "v2")
            await eventually(lambda: pin_of(live, "acme") == "v2")
        await trusting.close()

        strict = RedisStore(link.url)
        with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
            await strict.models()
        await strict.close()


async def test_to_let_go_of_a_server_that_is_silent_is_no_error(tmp_path: Path) -> None:
    tls, certificate = server_tls(tmp_path)
    async with server() as one, link_to(one.port, tls) as end, link_to(end.port) as link:
        store = RedisStore(f"rediss://127.0.0.1:{link.port}?ssl_ca_certs={certificate}")
        assert await store.models() == []
        link.is_silent = True

        await store.close()  # TLS says goodbye, and waits for the answer
        link.is_silent = False


async def test_all_connections_killed_is_healed() -> None:
    async with linked() as (one, _, live):
        await one.client.client_kill_filter(_type="normal", skipme=True)
        await one.client.set("rmv:pin:fraud:acme", "v2")

        await eventually(lambda: pin_of(live, "acme") == "v2")
        await eventually(lambda: not live.is_stale)


async def test_of_a_huge_document_no_more_is_read_than_tells_that_it_is_too_large() -> None:
    async with linked() as (one, link, live):
        before = link.received_bytes
        await one.client.set("rmv:policy:huge", b"x" * 10_000_000)
        await one.client.hset("rmv:policy:odd", "no", "string")
        await one.client.set("rmv:policy:empty", b"")
        await one.client.set("rmv:policy:fraud", document(default="v2"))

        await eventually(lambda: default_of(live) == "v2")
        await eventually(lambda: live.faults.keys() == {"huge", "odd", "empty"})

        assert "too large" in live.faults["huge"]
        assert link.received_bytes - before < 2 * MAX_DOCUMENT_BYTES
        assert not live.is_stale

        await one.client.delete("rmv:policy:huge", "rmv:policy:odd", "rmv:policy:empty")
        await eventually(lambda: live.faults == {})
