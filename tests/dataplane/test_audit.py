"""What the data plane tells audit of requests, over real sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sidecar.audit.decisions import Decisions
from sidecar.audit.entry import Entry, decode
from tests.audit.chains import lines_in, log_of, settings_for, verified
from tests.support.proxy import Proxy, policy, proxy
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sidecar.model.identity import JSON

RULES: JSON = [
    {"id": "beta", "when": {"header.x-beta": "yes"}, "serve": "v2"},
    {"id": "no", "when": {"tenant": "evil"}, "deny": "not you"},
]
LINEAGE: JSON = {"git": "0123456789abcdef0123456789abcdef01234567"}


@asynccontextmanager
async def audited(tmp_path: Path, **members: JSON) -> AsyncIterator[tuple[Proxy, Path]]:
    """Run a proxy of two versions that is audited into a folder."""
    folder = tmp_path / "audit"
    log = log_of(settings_for(folder))
    async with scripted_upstream() as upstream:
        versions: dict[str, JSON] = {
            "v1": {"endpoints": [upstream.url]},
            "v2": {"endpoints": [upstream.url], "lineage": LINEAGE},
        }
        document = policy(versions, rules=RULES, **members)
        async with proxy(document, tmp_path / "log") as running:
            running.listener.plane.audit = Decisions(log)
            log.on_refusing = running.listener.plane.on_refusing
            yield running, folder
    await log.close()


def _entries(folder: Path) -> list[Entry]:
    lines = lines_in(folder)
    assert not verified(lines).faults
    return [one for one in map(decode, lines) if one.kind in {"denied", "decision"}]


def _get(*lines: str) -> bytes:
    return "\r\n".join(("GET /infer HTTP/1.1", "Host: m", *lines, "", "")).encode()


async def test_denials_are_told_without_being_asked_for(tmp_path: Path) -> None:
    async with audited(tmp_path) as (running, folder):
        served = await running.ask(_get("X-Tenant: acme"))
        denied = await running.ask(_get("X-Tenant: evil"))
        unknown = await running.ask(_get("X-Model-Version: v9"))

    assert (served.status, denied.status, unknown.status) == (200, 403, 404)
    first, second = _entries(folder)
    assert (first.kind, first.tenant, first.model) == ("denied", "evil", "m")
    assert (first.reason, first.status, first.code) == ("DENIED:rule", 403, "tenant-denied")
    assert first.request_id == (denied.get(b"X-Request-Id") or b"").decode()
    assert first.version == ""
    assert second.inputs is not None
    assert second.inputs.asked_version == "v9"


async def test_decisions_are_told_with_what_they_were_made_from(tmp_path: Path) -> None:
    async with audited(tmp_path, audit="decisions", default="v1") as (running, folder):
        await running.ask(_get("X-Tenant: acme", "X-Beta: yes", "Authorization: Bearer secret"))
        running.live.put_pin("m", "acme", "v2")
        running.live.put_kill("m", "v1", "leaks")
        await running.ask(_get("X-Tenant: acme"))

    first, second = _entries(folder)
    assert (first.kind, first.version, first.reason, first.rule) == (
        "decision", "v2", "RULE:beta", "beta",
    )  # fmt: skip
    assert first.lineage.startswith("sha256:")
    assert first.status == 200
    assert first.duration_s > 0
    assert first.inputs is not None
    assert first.inputs.attributes == {"header.x-beta": ("yes",)}
    assert first.inputs.pin is None
    assert second.reason == "PINNED"
    assert second.inputs is not None
    assert second.inputs.pin == "v2"
    assert second.inputs.kills == {"v1": "leaks"}
    assert b"secret" not in b"".join(lines_in(folder))


async def test_a_request_that_is_no_http_is_no_decision(tmp_path: Path) -> None:
    async with audited(tmp_path, audit="decisions") as (running, folder):
        answer = await running.ask(b"GET /infer HTTP/1.1\r\nHost: m\r\nBad Header: x\r\n\r\n")

    assert answer.status == 400
    assert not _entries(folder)


async def test_requests_are_refused_while_audit_says_so(tmp_path: Path) -> None:
    async with audited(tmp_path, audit="decisions") as (running, folder):
        running.listener.plane.on_refusing(True)  # noqa: FBT003 -- as audit calls it
        refused = await running.ask(_get("X-Tenant: acme"))
        running.listener.plane.on_refusing(False)  # noqa: FBT003
        served = await running.ask(_get("X-Tenant: acme"))

    assert refused.status == 503
    assert b'"code":"audit-unavailable"' in refused.body
    assert refused.get(b"Retry-After") == b"1"
    assert served.status == 200
    assert len(_entries(folder)) == 1
