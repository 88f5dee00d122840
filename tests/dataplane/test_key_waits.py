"""A request whose token names a key that is only about to come waits for it, for a moment."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from sidecar.dataplane import waits
from sidecar.identity.cache import IdentityCache
from sidecar.identity.holding import Holding
from sidecar.identity.issuers import Issuers
from sidecar.model.issuer import IdentitySettings
from tests.identity.minting import AUDIENCE, ISSUER, NOW_S, Signer, good_claims, jwks
from tests.support.clock import HandClock
from tests.support.messages import Feed
from tests.support.proxy import policy, proxy
from tests.support.upstream import eventually, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sidecar.model.identity import JSON
    from sidecar.model.limits import Limits
    from tests.support.messages import Answer
    from tests.support.proxy import Client, Proxy
    from tests.support.upstream import ScriptedUpstream


def signer(kid: str) -> Signer:
    private = ed25519.Ed25519PrivateKey.generate()
    jwk: dict[str, JSON] = OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return Signer("EdDSA", kid, private.sign, {**jwk, "kid": kid})


OLD, NEW = signer("old"), signer("new")
GET = b"GET / HTTP/1.1\r\nHost: h\r\n"


class Clock(HandClock):
    """The epoch stands still, as tokens want it; what passes is what passes."""

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


class Rotating:
    """A data plane that knows OLD and not NEW."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        settings = [IdentitySettings(ISSUER, AUDIENCE, discovery=True)]
        self.issuers = Issuers(settings, self.asked.append, lambda: 0.0)
        self.cache = IdentityCache(self.issuers, 100, 8_192)
        self.upstream: ScriptedUpstream
        self.shadow: ScriptedUpstream
        self.proxy: Proxy
        self._settled = 0
        self.learn(OLD)
        self.asked.clear()

    def learn(self, *signers: Signer) -> list[str]:
        """Take keys as a worker does, but for what waits; return whose were looked for."""
        self._settled += 1
        keys = jwks(*(one.jwk for one in signers)).decode()
        changed, settled = self.issuers.take([Holding(ISSUER, keys, settled=self._settled)])
        if changed:
            self.cache.renew(self.issuers)
        return settled

    def settle(self, *signers: Signer) -> None:
        """Tell those who wait of the keys that there are now."""
        self.proxy.listener.plane.key_waits.settle(self.learn(*signers))

    async def waited(self, number: int = 1) -> None:
        """Wait until so many requests wait."""
        waiting = self.proxy.listener.plane.key_waits
        await eventually(lambda: len(waiting) == number)

    def counted(self, outcome: str) -> int:
        return self.proxy.counted("rmv_key_waits_total", outcome=outcome)


@asynccontextmanager
async def rotating(
    log: Path, limits: Limits | None = None, **members: JSON
) -> AsyncIterator[Rotating]:
    made = Rotating()
    async with (
        scripted_upstream() as upstream,
        scripted_upstream() as shadow,
        proxy(
            policy({"v1": upstream.url, "v2": shadow.url}, **members),
            log,
            identities=made.cache,
            clock=Clock(NOW_S),
            limits=limits,
        ) as running,
    ):
        made.upstream, made.proxy, made.shadow = upstream, running, shadow
        yield made


def bearing(by: Signer, head: bytes = GET, body: bytes = b"") -> bytes:
    """Return a request whose token is signed by this key."""
    return head + b"Authorization: Bearer %b\r\n\r\n" % by.mint(good_claims()) + body


async def test_a_new_key_is_waited_for_and_others_are_served_meanwhile(log: Path) -> None:
    async with rotating(log) as made, made.proxy.client() as client:
        await client.send(bearing(NEW))
        await made.waited()
        assert made.asked == [ISSUER]
        assert (await made.proxy.ask(bearing(OLD))).status == 200

        made.settle(OLD, NEW)

        assert (await client.answer()).status == 200
        assert (await client.ask(bearing(NEW))).status == 200
        assert made.counted("settled") == 1
        assert [record["tenant"] for record in await made.proxy.recorded(3)] == ["acme"] * 3


CHUNKED = GET.replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n"
SIZED = GET.replace(b"GET", b"POST") + b"Content-Length: 10\r\n"
BODIES = {
    "sized": (SIZED, b"0123456789"),
    "chunked": (CHUNKED, b"3\r\n012\r\n7\r\n3456789\r\n0\r\n\r\n"),
    "chunked with a trailer": (CHUNKED, b"a\r\n0123456789\r\n0\r\nX-After: 1\r\n\r\n"),
}


@pytest.mark.parametrize("how", Feed)
@pytest.mark.parametrize("spelled", BODIES)
@pytest.mark.parametrize("early", [0, 4, -1, None])
async def test_the_body_that_comes_meanwhile_arrives_whole_at_version_and_shadow(
    log: Path, spelled: str, how: Feed, early: int | None
) -> None:
    head, body = BODIES[spelled]
    shadows: JSON = [{"version": "v2", "methods": ["POST"]}]
    async with rotating(log, shadows=shadows) as made, made.proxy.client() as client:
        if how is Feed.TRAILED:
            request = bearing(NEW, head, body)
            trail = bearing(NEW)
            await client.send(request + trail)
            await made.waited()
            made.settle(OLD, NEW)
        else:
            await client.send(bearing(NEW, head, body[:early]), how)
            await made.waited()
            made.settle(OLD, NEW)
            await client.send(b"" if early is None else body[early:], how)

        assert (await client.answer(b"POST")).status == 200
        if how is Feed.TRAILED:
            assert (await client.answer()).status == 200
        await made.shadow.until(1)
        for end in (made.upstream, made.shadow):
            assert end.received[0].body == b"0123456789"


async def test_a_large_body_is_held_back_until_there_is_somewhere_to_send_it(log: Path) -> None:
    size = 8 * 1024 * 1024
    head = GET.replace(b"GET", b"POST") + b"Content-Length: %d\r\n" % size
    async with rotating(log) as made, made.proxy.client() as client:
        client.writer.write(bearing(NEW, head, bytes(size)))
        await made.waited()
        await eventually(lambda: client.writer.transport.get_write_buffer_size() > 0)

        made.settle(OLD, NEW)

        assert (await client.answer(b"POST")).status == 200
        assert made.upstream.received[0].body == bytes(size)


async def test_a_key_that_does_not_come_is_no_key(log: Path) -> None:
    async with rotating(log) as made, made.proxy.client() as client:
        await client.send(bearing(NEW))
        await made.waited()

        made.settle(OLD)

        answer = await client.answer()
        assert (answer.status, answer.code) == (401, "token-invalid")
        assert made.upstream.received == []
        assert (await client.ask(bearing(OLD))).status == 200


async def test_nobody_waits_longer_than_a_fetch_may_take(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert waits.KEY_WAIT_S == 2.0
    monkeypatch.setattr(waits, "KEY_WAIT_S", 0.05)
    async with rotating(log) as made, made.proxy.client() as client:
        answer = await client.ask(bearing(NEW))

        assert (answer.status, answer.code) == (401, "token-invalid")
        assert (made.counted("late"), made.asked) == (1, [ISSUER])


async def test_no_more_wait_than_there_is_room_for(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "MAX_WAITING", 1)
    async with rotating(log) as made, made.proxy.client() as client:
        await client.send(bearing(NEW))
        await made.waited()

        assert (await made.proxy.ask(bearing(NEW))).status == 401
        assert made.counted("refused") == 1

        made.settle(OLD, NEW)
        assert (await client.answer()).status == 200


async def test_many_who_wait_all_go_on(log: Path) -> None:
    number = 3 * waits.AT_A_TIME + 1
    async with rotating(log) as made:

        async def ask(client: Client) -> Answer:
            return await client.ask(bearing(NEW))

        async def served() -> int:
            async with made.proxy.client() as client:
                return (await ask(client)).status

        asking = [asyncio.ensure_future(served()) for _ in range(number)]
        await made.waited(number)
        made.settle(OLD, NEW)

        assert await asyncio.gather(*asking) == [200] * number
        await made.waited(0)


async def test_who_leaves_waits_no_more(log: Path) -> None:
    async with rotating(log) as made:
        async with made.proxy.client() as client:
            await client.send(bearing(NEW))
            await made.waited()
        await made.waited(0)

        (record,) = await made.proxy.recorded()
        assert (record["status"], record["code"], made.counted("left")) == (499, "client-gone", 1)
        made.settle(OLD, NEW)
        assert made.upstream.received == []


async def test_a_body_over_the_limit_of_its_version_is_refused_after_the_wait(log: Path) -> None:
    async with rotating(log) as made, made.proxy.client() as client:
        await client.send(bearing(NEW, CHUNKED, b"a\r\n0123456789\r\n"))
        await made.waited()
        document = policy({"v1": {"endpoints": [made.upstream.url], "max_body_bytes": 5}})
        made.proxy.live.put_policy("m", document)
        assert not made.proxy.live.faults

        made.settle(OLD, NEW)

        assert (await client.answer(b"POST")).status == 413
