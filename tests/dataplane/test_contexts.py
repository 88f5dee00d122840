"""Requests leave contexts behind: what their policy asked for, and how they were decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.proxy import chain, policy

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.model.context import Context
    from sidecar.model.identity import JSON
    from tests.support.proxy import Proxy

BETA: dict[str, JSON] = {"id": "beta", "when": {"header.x-beta": "yes"}, "serve": "v1"}
CLOSED: dict[str, JSON] = {"id": "closed", "when": {"tenant": "hooli"}, "deny": "not you"}


def request(tenant: str, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"GET /x?secret=1 HTTP/1.1\r\nHost: h\r\nX-Tenant: {tenant}\r\n{lines}\r\n".encode()


def taken(running: Proxy) -> list[Context]:
    return running.listener.plane.sampler.drain()


async def test_a_served_request_leaves_what_its_policy_asked_for(log: Path) -> None:
    async with chain(log, rules=[CLOSED, BETA]) as (running, _):
        asked = request("acme", "X-Beta: yes", "X-Other: 1", "X-Request-Id: r-1", "Cookie: c")
        assert (await running.ask(asked)).status == 200
        [record] = await running.recorded()

        [context] = taken(running)

    assert context.attributes == {"header.x-beta": ("yes",)}
    assert (context.request_id, context.tenant, context.model) == ("r-1", "acme", "m")
    assert (context.version, context.reason, context.code) == ("v1", "RULE:beta", "")
    assert (context.at_s, context.duration_s) == (record["at_s"], record["duration_s"])
    assert context.stands_for == 1


async def test_a_refused_request_leaves_its_refusal(log: Path) -> None:
    async with chain(log, rules=[CLOSED]) as (running, _):
        assert (await running.ask(request("hooli"))).status == 403
        await running.recorded()

        [context] = taken(running)

    assert (context.tenant, context.version) == ("hooli", "")
    assert (context.reason, context.code) == ("DENIED:rule", "tenant-denied")


async def test_a_request_that_failed_at_its_version_leaves_that_version(log: Path) -> None:
    async with chain(log, b"garbage\r\n\r\n") as (running, _):
        assert (await running.ask(request("acme"))).status == 502
        await running.recorded()

        [context] = taken(running)

    assert (context.version, context.code) == ("v1", "")


async def test_a_request_of_no_model_leaves_nothing(log: Path) -> None:
    async with chain(log) as (running, _):
        assert (await running.ask(request("acme", "X-Model: other"))).status == 404
        assert (await running.ask(b"GET / HTTP/1.1\r\nHost: h h\r\n\r\n")).status == 400
        await running.recorded(2)

        assert taken(running) == []


async def test_a_changed_policy_is_asked_for_other_attributes(log: Path) -> None:
    async with chain(log, rules=[BETA]) as (running, upstream):
        await running.ask(request("acme"))
        changed: dict[str, JSON] = {"id": "get", "when": {"method": "GET"}, "serve": "v1"}
        running.live.put_policy("m", policy({"v1": upstream.url}, rules=[changed]))
        await running.ask(request("acme"))
        await running.recorded(2)

        before, after = taken(running)

    assert before.attributes == {"header.x-beta": ()}
    assert after.attributes == {"method": ("GET",)}


async def test_a_removed_model_is_sampled_no_more(log: Path) -> None:
    async with chain(log) as (running, _):
        running.live.put_policy("m", None)
        await running.ask(request("acme"))

        assert running.listener.plane.sampler.tally("m") is None
