"""A plan made from what a running sidecar has served says what the change then does."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from sidecar.policy.bucket import choose
from sidecar.policy.plan import Plan
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from tests.support.sidecar import Sidecar

TENANTS = [f"tenant-{n}" for n in range(24)]
BEFORE, AFTER = {"v1": 90, "v2": 10}, {"v1": 50, "v2": 50}
ALL = "[contexts]\nper_second = 10000\n"  # so that every request is told of


def document(url: str, arms: dict[str, int]) -> dict[str, object]:
    return {
        "model": "m",
        "versions": {"v1": {"endpoints": [url]}, "v2": {"endpoints": [url]}},
        "rules": [{"id": "canary", "split": {"arms": arms}}],
        "default": "v1",
    }


async def rmv(running: Sidecar, *arguments: str) -> bytes:
    """Run a command on the store of a sidecar; return what it prints."""
    command = [sys.executable, "-P", "-m", "sidecar", *arguments]
    made = await asyncio.create_subprocess_exec(
        *command,
        "--state-dir",
        str(running.state_dir),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await made.communicate()
    assert made.returncode == 0
    return printed


async def planned(running: Sidecar, wanted: dict[str, object]) -> Plan:
    file = running.folder / "wanted.json"
    file.write_bytes(msgspec.json.encode(wanted))
    printed = await rmv(running, "plan", "-f", str(file), "--json")
    [told] = msgspec.json.decode(printed, type=list[Plan])
    return told


def arm(arms: dict[str, int], tenant: str) -> str:
    return choose(arms, "m/canary", tenant.encode())


async def test_a_plan_agrees_with_what_the_split_says_and_with_what_then_happens() -> None:
    async with (
        scripted_upstream() as up,
        sidecar("--workers", "2", *flags(v1=up.url, v2=up.url), settings=ALL) as running,
        running.editor() as editor,
    ):
        await editor.put(document(up.url, BEFORE))

        async def is_split() -> bool:
            answers = await running.ask_workers(2, "probe")
            return all(a.get(b"X-Model-Decision") == b"SPLIT:canary" for a in answers)

        await running.until(is_split, "split")
        sent = Counter({tenant: n % 3 + 1 for n, tenant in enumerate(TENANTS)})
        answers = [await running.ask(tenant) for tenant in sent.elements()]

        async def is_kept() -> bool:
            kept = await running.counted("rmv_contexts_total", outcome="kept")
            return kept == await running.counted("rmv_requests_total")

        await running.until(is_kept, "context of every request")
        request_id = (answers[-1].get(b"X-Request-Id") or b"").decode()
        explained = msgspec.json.decode(await rmv(running, "explain", request_id, "--json"))
        assert explained["request"]["tenant"] == TENANTS[-1]
        assert explained["again"]["is_same"] is True

        told = await planned(running, document(up.url, AFTER))

        drawn = {tenant: (arm(BEFORE, tenant), arm(AFTER, tenant)) for tenant in TENANTS}
        expected = {
            (tenant, *arms, sent[tenant]) for tenant, arms in drawn.items() if arms[0] != arms[1]
        }
        assert expected
        assert {
            (move.tenant, move.before, move.after, move.requests)
            for move in told.moves
            if move.tenant != "probe"
        } == expected

        await editor.put(document(up.url, AFTER))

        async def is_changed() -> bool:
            answers = await running.ask_workers(2, next(iter(expected))[0])
            return all(a.get(b"X-Model-Version") == b"v2" for a in answers)

        await running.until(is_changed, "change")
        for tenant, arms in drawn.items():
            answer = await running.ask(tenant)
            assert (answer.get(b"X-Model-Version") or b"").decode() == arms[1]
