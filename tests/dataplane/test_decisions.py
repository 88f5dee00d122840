"""Who is served by which version, seen from outside; `tests/policy` holds the rules themselves."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.proxy import policy, proxy
from tests.support.upstream import answering, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sidecar.model.identity import JSON
    from tests.support.messages import Answer
    from tests.support.proxy import Proxy
    from tests.support.upstream import ScriptedUpstream


def request(path: bytes = b"/", **fields: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n" + lines.encode() + b"\r\n"


def named(name: bytes) -> bytes:
    """A response whose body is the version's name."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(name) + name


@asynccontextmanager
async def two_versions(
    log: Path, v2: dict[str, JSON] | None = None, **members: JSON
) -> AsyncIterator[tuple[Proxy, ScriptedUpstream]]:
    """Run versions v1, the default, and v2, with more members of v2; yield v2's upstream."""
    async with (
        scripted_upstream(answering(named(b"v1"))) as first,
        scripted_upstream(answering(named(b"v2"))) as second,
    ):
        version: dict[str, JSON] = {"endpoints": [second.url], **(v2 or {})}
        document = policy({"v1": first.url, "v2": version}, **members)
        async with proxy(document, log) as running:
            yield running, second


def decided(answer: Answer) -> tuple[int, bytes | None, bytes | None]:
    return answer.status, answer.get(b"X-Model-Version"), answer.get(b"X-Model-Decision")


async def test_a_version_is_served_when_it_is_asked_for(log: Path) -> None:
    async with two_versions(log) as (proxy, _):
        default = await proxy.ask(request())
        by_header = await proxy.ask(request(X_Model_Version="v2"))
        by_path = await proxy.ask(request(b"/v2/models/m/versions/v2/infer"))

    assert (decided(default), default.body) == ((200, b"v1", b"DEFAULT"), b"v1")
    assert (decided(by_header), by_header.body) == ((200, b"v2", b"EXPLICIT"), b"v2")
    assert (decided(by_path), by_path.body) == ((200, b"v2", b"EXPLICIT"), b"v2")


async def test_a_version_that_does_not_exist_is_refused(log: Path) -> None:
    async with two_versions(log) as (proxy, _):
        answer = await proxy.ask(request(X_Model_Version="v9"))

    assert decided(answer) == (404, None, b"DENIED:unknown")
    assert answer.code == "no-such-version"


async def test_a_label_asks_for_the_version_that_it_names(log: Path) -> None:
    async with two_versions(log, labels={"canary": "v2"}) as (proxy, _):
        by_path = await proxy.ask(request(b"/v1/models/m/labels/canary:predict"))
        by_header = await proxy.ask(request(X_Model_Version="canary"))
        unknown = await proxy.ask(request(b"/v1/models/m/labels/gone:predict"))

    assert (decided(by_path), by_path.body) == ((200, b"v2", b"EXPLICIT"), b"v2")
    assert (decided(by_header), by_header.body) == ((200, b"v2", b"EXPLICIT"), b"v2")
    assert (unknown.status, unknown.code) == (404, "no-such-version")


async def test_a_draining_version_serves_who_asks_for_it_alone(log: Path) -> None:
    rules: list[JSON] = [{"id": "a", "when": {"tenant": "acme"}, "serve": "v2"}]
    async with two_versions(log, v2={"state": "draining"}, rules=rules) as (proxy, _):
        asked = await proxy.ask(request(X_Model_Version="v2", X_Tenant="acme"))
        by_rule = await proxy.ask(request(X_Tenant="acme"))

    assert decided(asked) == (200, b"v2", b"EXPLICIT")
    assert decided(by_rule) == (200, b"v1", b"DEFAULT")


async def test_a_killed_default_is_followed_by_its_fallback(log: Path) -> None:
    async with two_versions(log, v2={"fallback": "v1"}, default="v2") as (proxy, _):
        proxy.live.put_kill("m", "v2", "wrong scores")
        fallen = await proxy.ask(request())
        asked = await proxy.ask(request(X_Model_Version="v2"))

    assert (decided(fallen), fallen.body) == ((200, b"v1", b"FALLBACK:killed"), b"v1")
    assert (asked.status, asked.code) == (409, "version-unavailable")


async def test_a_request_that_a_version_does_not_accept_is_not_its(log: Path) -> None:
    accepts: dict[str, JSON] = {"accepts": [{"header.x-schema": {"gte": 2}}]}
    rules: list[JSON] = [{"id": "all", "serve": "v2"}]
    async with two_versions(log, v2=accepts, rules=rules) as (proxy, _):
        old = await proxy.ask(request(X_Schema="1"))
        new = await proxy.ask(request(X_Schema="2"))
        asked = await proxy.ask(request(X_Schema="1", X_Model_Version="v2"))

    assert decided(old) == (200, b"v1", b"DEFAULT")
    assert decided(new) == (200, b"v2", b"RULE:all")
    assert decided(asked) == (409, None, b"DENIED:incompatible")


async def test_a_window_of_time_is_held_to_the_clock(log: Path) -> None:
    turn = "2001-01-01T00:00:00Z"
    rules: list[JSON] = [
        {"id": "past", "when": {"time": {"until": turn}}, "serve": "v2"},
        {"id": "since", "when": {"time": {"from": turn}}, "serve": "v2"},
    ]
    async with two_versions(log, rules=rules) as (proxy, _):
        answer = await proxy.ask(request())

    assert decided(answer) == (200, b"v2", b"RULE:since")


async def test_path_and_header_must_not_name_different_versions(log: Path) -> None:
    async with two_versions(log) as (proxy, _):
        answer = await proxy.ask(request(b"/v2/models/m/versions/v2/infer", X_Model_Version="v1"))

    assert (answer.status, answer.code) == (400, "malformed-request")


async def test_a_model_that_does_not_exist_is_refused(log: Path) -> None:
    async with two_versions(log) as (proxy, _):
        answer = await proxy.ask(request(X_Model="other"))

    assert (answer.status, answer.code) == (404, "no-such-model")


async def test_models_that_clients_make_up_are_not_counted_apart(log: Path) -> None:
    async with two_versions(log) as (proxy, _), proxy.client() as client:
        for n in range(20):
            await client.ask(request(X_Model=f"made-up-{n}"))
        await proxy.recorded(20)

        lines = proxy.metrics.exposition().splitlines()
        assert len([one for one in lines if one.startswith("rmv_requests_total{")]) == 1


async def test_before_policies_are_loaded_the_answer_is_not_ready(log: Path) -> None:
    async with two_versions(log) as (proxy, _):
        proxy.live.put_policy("m", None)
        proxy.live.is_loaded = False
        answer = await proxy.ask(request(X_Model="m"))

    assert (answer.status, answer.code) == (503, "not-ready")
    assert answer.get(b"Retry-After") == b"1"


async def test_a_version_is_for_those_who_are_entitled(log: Path) -> None:
    async with two_versions(log, v2={"allow": [{"tenant": "acme"}]}) as (proxy, _):
        entitled = await proxy.ask(request(X_Model_Version="v2", X_Tenant="acme"))
        barred = await proxy.ask(request(X_Model_Version="v2", X_Tenant="globex"))

    assert decided(entitled) == (200, b"v2", b"EXPLICIT")
    assert decided(barred) == (403, None, b"DENIED:not-entitled")
    assert barred.code == "version-forbidden"


async def test_a_killed_version_serves_no_more_from_the_next_request_on(log: Path) -> None:
    async with two_versions(log) as (proxy, upstream), proxy.client() as client:
        before = await client.ask(request(X_Model_Version="v2"))
        proxy.live.put_kill("m", "v2", "it is on fire")
        during = await client.ask(request(X_Model_Version="v2"))
        proxy.live.put_kill("m", "v2", None)
        after = await client.ask(request(X_Model_Version="v2"))

        assert decided(before) == (200, b"v2", b"EXPLICIT")
        assert (during.status, during.code) == (409, "version-unavailable")
        assert decided(after) == (200, b"v2", b"EXPLICIT")
        assert len(upstream.received) == 2


async def test_a_killed_model_serves_nothing(log: Path) -> None:
    async with two_versions(log) as (proxy, _):
        proxy.live.put_kill("m", "", "all of it")
        answer = await proxy.ask(request())

    assert (answer.status, answer.code) == (503, "no-eligible-version")
    assert answer.get(b"X-Model-Decision") == b"KILLED"


async def test_a_pin_holds_its_tenant_alone(log: Path) -> None:
    async with two_versions(log) as (proxy, _), proxy.client() as client:
        proxy.live.put_pin("m", "acme", "v2")
        pinned = await client.ask(request(X_Tenant="acme"))
        other = await client.ask(request(X_Tenant="globex"))
        proxy.live.put_pin("m", "acme", None)
        released = await client.ask(request(X_Tenant="acme"))

    assert decided(pinned) == (200, b"v2", b"PINNED")
    assert decided(other) == (200, b"v1", b"DEFAULT")
    assert decided(released) == (200, b"v1", b"DEFAULT")


async def test_a_split_is_sticky_by_tenant_and_reaches_every_arm(log: Path) -> None:
    split: JSON = [{"id": "canary", "split": {"arms": {"v1": 1, "v2": 1}, "key": "tenant"}}]
    async with two_versions(log, rules=split) as (proxy, _), proxy.client() as client:
        rounds = [
            [(await client.ask(request(X_Tenant=f"t{n}"))).body for n in range(40)]
            for _ in range(2)
        ]
        answer = await client.ask(request(X_Tenant="t0"))

    assert rounds[0] == rounds[1]
    assert set(rounds[0]) == {b"v1", b"v2"}
    assert answer.get(b"X-Model-Decision") == b"SPLIT:canary"


async def test_a_rule_serves_or_denies_those_it_matches(log: Path) -> None:
    rules: JSON = [
        {"id": "beta", "when": {"header.x-beta": "yes"}, "serve": "v2"},
        {"id": "barred", "when": {"tenant": "evil"}, "deny": "not you"},
    ]
    async with two_versions(log, rules=rules) as (proxy, _):
        beta = await proxy.ask(request(X_Beta="yes"))
        denied = await proxy.ask(request(X_Tenant="evil"))

    assert decided(beta) == (200, b"v2", b"RULE:beta")
    assert (denied.status, denied.code) == (403, "tenant-denied")
    assert denied.problem["detail"] == "not you"


async def test_a_new_policy_serves_the_next_request_on_an_open_connection(log: Path) -> None:
    async with (
        two_versions(log) as (proxy, second),
        scripted_upstream(answering(named(b"v3"))) as third,
        proxy.client() as client,
    ):
        assert (await client.ask(request())).body == b"v1"
        proxy.live.put_policy("m", policy({"v3": third.url, "v2": second.url}))
        answer = await client.ask(request())

    assert decided(answer) == (200, b"v3", b"DEFAULT")


async def test_a_rewrite_spells_target_and_headers_for_its_version(log: Path) -> None:
    v2: dict[str, JSON] = {
        "rewrite": {"path": "/serve/{model}/{version}{rest}", "headers": {"X-Backend": "two"}}
    }
    async with two_versions(log, v2=v2) as (proxy, upstream):
        await proxy.ask(request(b"/v2/models/m/versions/v2/infer?a=%20", X_Backend="mine"))

        assert upstream.received[0].target == b"/serve/m/v2/infer?a=%20"
        assert upstream.received[0].get(b"X-Backend") == b"two"


@pytest.mark.parametrize("tenant", ["a\tb", "x" * 129, "\x7f"])
async def test_a_tenant_that_cannot_be_named_is_denied(log: Path, tenant: str) -> None:
    async with two_versions(log) as (proxy, _):
        answer = await proxy.ask(request(X_Tenant=tenant))

    assert answer.status in {400, 403}


async def test_a_refused_request_with_a_body_leaves_the_connection_to_the_next(log: Path) -> None:
    refused = b"POST / HTTP/1.1\r\nHost: h\r\nX-Model-Version: v9\r\n"
    by_length = refused + b"Content-Length: 20000\r\n\r\n" + b"GET /smuggled HTTP/1" * 1000
    chunked = refused + b"Transfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n0\r\n\r\n"
    async with two_versions(log) as (proxy, _), proxy.client() as client:
        for one in (by_length, chunked):
            answer = await client.ask(one)
            assert (answer.code, answer.get(b"Connection")) == ("no-such-version", None)
        served = await client.ask(request())

    assert served.body == b"v1"


async def test_a_refused_request_whose_body_is_still_coming_ends_the_connection(log: Path) -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nX-Model-Version: v9\r\nContent-Length: 9\r\n\r\n"
    async with two_versions(log) as (proxy, _), proxy.client() as client:
        answer = await client.ask(head)
        await client.send(b"GET / HTT")

        assert (answer.code, answer.get(b"Connection")) == ("no-such-version", b"close")
        assert await client.rest() == b""
