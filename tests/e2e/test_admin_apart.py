"""The admin listener and the proxy are two worlds: no request of one comes to the other."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.messages import PATIENCE_S, read_answer
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import eventually, scripted_upstream

if TYPE_CHECKING:
    from tests.support.messages import Answer
    from tests.support.sidecar import Sidecar

TOKEN = "rmv_of-these-tests"  # noqa: S105 -- of nothing
SETTINGS = f"""\
[[admin_tokens]]
name = "ada"
role = "admin"
sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"
"""
ADMIN_PATHS = ("/api/v1/status", "/metrics", "/readyz", "/healthz", "/livez")
KILL = '{"reason":"x"}'


async def send(address: tuple[str, int], data: str) -> Answer:
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(data.encode())
        answer = await read_answer(reader)
        writer.close()
        return answer


def spellings(running: Sidecar, path: str) -> list[str]:
    """Return requests to the proxy that mean the admin listener in some way."""
    host, port = running.admin
    bearer = f"Authorization: Bearer {TOKEN}\r\n"
    own = f"Host: test\r\n{bearer}"
    return [
        f"GET {path} HTTP/1.1\r\n{own}\r\n",
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{bearer}\r\n",
        f"GET http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\n{bearer}\r\n",
        f"GET //{host}:{port}{path} HTTP/1.1\r\n{own}\r\n",
        f"GET /..{path} HTTP/1.1\r\n{own}\r\n",
        f"GET /%2e%2e{path} HTTP/1.1\r\n{own}\r\n",
        f"GET {path.replace('/', '/%2f')} HTTP/1.1\r\n{own}\r\n",
        f"GET {path} HTTP/1.1\r\n{own}X-Forwarded-Host: {host}:{port}\r\n\r\n",
        f"GET {path} HTTP/1.1\r\n{own}X-Original-URL: {path}\r\nX-Rewrite-URL: {path}\r\n\r\n",
    ]


async def test_no_request_to_the_proxy_is_answered_by_the_admin_listener() -> None:
    async with scripted_upstream() as up, sidecar(*flags(v1=up.url), settings=SETTINGS) as running:
        for path in ADMIN_PATHS:
            for request in spellings(running, path):
                before = len(up.received)
                answer = await send(running.listen, request)
                assert answer.status in {200, 400}, request
                # 200 is the model's own answer, else the sidecar refused it unseen.
                assert (len(up.received) - before == 1) is (answer.status == 200), request
                assert b"rmv_requests_total" not in answer.body
                assert b'"sidecars"' not in answer.body
        connect = f"CONNECT {running.admin[0]}:{running.admin[1]} HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await send(running.listen, connect)).status >= 400
        kill = (
            f"PUT /api/v1/policies/m/kill HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {TOKEN}"
            f"\r\nContent-Type: application/json\r\nContent-Length: {len(KILL)}\r\n\r\n{KILL}"
        )
        await send(running.listen, kill)
        assert (await running.ask()).status == 200
        kill = kill.replace("Host: test", "Host: localhost")
        assert (await send(running.admin, kill)).status == 200
        assert await running.counted("rmv_admin_writes_total", actor="ada") == 1


async def test_no_request_to_the_admin_listener_is_passed_on_to_a_model() -> None:
    async with scripted_upstream() as up, sidecar(*flags(v1=up.url), settings=SETTINGS) as running:
        host, port = running.listen
        for target in ("/infer", "/v2/models/m/infer", f"http://{host}:{port}/infer"):
            request = f"POST {target} HTTP/1.1\r\nHost: {host}:{port}\r\nX-Model: m\r\n"
            answer = await send(running.admin, f"{request}Content-Length: 0\r\n\r\n")
            assert answer.status == 404
        assert up.received == []


async def test_a_policy_that_leads_back_to_the_sidecar_gets_its_callers_an_error() -> None:
    async with scripted_upstream() as up, sidecar(*flags(v1=up.url), settings=SETTINGS) as running:
        async with running.editor() as editor:
            document = await editor.document()
            for address in (running.admin, running.listen):
                url = f"http://{address[0]}:{address[1]}"
                await editor.put({**document, "versions": {"v1": {"endpoints": [url]}}})

                async def is_refused() -> bool:
                    return (await running.ask(path="/metrics")).status >= 500

                await running.until(is_refused, "refusal")
                answer = await running.ask(path="/metrics")
                assert b"rmv_" not in answer.body
        await eventually(lambda: "it leads to a listener of this sidecar" in running.said())


async def test_what_a_sidecar_passed_on_to_another_ones_admin_listener_is_refused() -> None:
    async with scripted_upstream() as up, sidecar(*flags(v1=up.url)) as behind:
        url = f"http://{behind.admin[0]}:{behind.admin[1]}"
        async with sidecar(*flags(v1=url)) as front:
            for path in ("/metrics", "/api/v1/status"):
                answer = await front.ask(path=path)
                assert answer.status == 403
                assert b'"code":"proxied"' in answer.body


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_workers_are_not_told_what_operators_may_do() -> None:
    settings = f'{SETTINGS}[admin_api]\nredis = "redis://ops:pa55@127.0.0.1:9"\n'
    async with scripted_upstream() as up, sidecar(*flags(v1=up.url), settings=settings) as running:
        [worker] = running.workers()
        told = environment_of(worker)
        assert b"RMV_SPEC=" in told
        assert b"pa55" not in told
        assert b"sha256" not in told
