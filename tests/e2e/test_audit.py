"""The real `rmv serve` with audit: its processes, their ends, and what an auditor finds."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.audit.entry import Entry, decode
from sidecar.audit.files import files_in
from sidecar.runtime.ed25519 import generate, load_private
from sidecar.store.connect import open_store
from sidecar.store.embedded import embedded_url
from tests.audit.chains import lines_in, verified
from tests.e2e.test_keys import ISSUER, Pair, believing, guarded
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import eventually, scripted_upstream
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = """
[audit]
dir = "audit"
stream = true
"""


def _entries(folder: Path) -> list[Entry]:
    return [decode(line) for line in lines_in(folder)] if folder.exists() else []


async def test_a_killed_worker_leaves_a_chain_and_its_successor_begins_another() -> None:
    async with (
        scripted_upstream() as upstream,
        sidecar(*flags(v1=upstream.url), settings=SETTINGS) as running,
    ):
        folder = running.folder / "audit"
        store = open_store(embedded_url(str(running.state_dir)))

        async def is_streamed() -> bool:
            return any([decode(line).kind == "denied" async for _, line in store.audit()])

        denied = await running.ask(X_Model_Version="v9")
        await eventually(lambda: any(one.kind == "denied" for one in _entries(folder)))
        await running.until(is_streamed, "entry in the stream")
        (worker,) = running.workers()
        os.kill(worker, signal.SIGKILL)
        await running.says("worker died")

        def begun() -> list[Entry]:
            begins = [one for one in _entries(folder) if one.kind == "begin"]
            return [one for one in begins if one.writer.startswith("worker-")]

        await eventually(lambda: len(begun()) == 2)
        streamed = [line async for _, line in store.audit()]
        await store.close()
        lines = lines_in(folder)

    faults, chains, unreadable = verified(lines, key=None)
    assert denied.status == 404
    assert not faults
    assert not unreadable
    assert not any(chain.is_ended for chain in chains if chain.writer.startswith("worker-"))
    assert not verified(streamed, key=None, is_whole=False).faults
    assert "commit" in {decode(line).kind for line in streamed}  # of the flags


async def test_a_sidecar_that_stops_ends_its_chains_and_signs_them(tmp_path: Path) -> None:
    generate(tmp_path, "ann")
    settings = f'{SETTINGS}key_file = "{tmp_path / "ann.key"}"\n'
    async with (
        scripted_upstream() as upstream,
        sidecar(*flags(v1=upstream.url), settings=settings) as running,
    ):
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
        shutil.copytree(running.folder / "audit", tmp_path / "audit")

    key = load_private(tmp_path / "ann.key")
    faults, chains, _ = verified(lines_in(tmp_path / "audit"), key=key)
    assert not faults
    assert all(chain.is_ended and not chain.notes for chain in chains)
    assert all(chain.signed_seq == chain.seq for chain in chains)
    assert {chain.writer.partition("-")[0] for chain in chains} == {"control", "worker"}


async def test_an_edit_past_rmv_is_told_when_it_is_adopted() -> None:
    async with (
        scripted_upstream() as upstream,
        sidecar(*flags(v1=upstream.url), settings=SETTINGS) as running,
        running.editor() as editor,
    ):
        document = await editor.document()
        await editor.put({**document, "audit": "decisions"})
        folder = running.folder / "audit"
        await eventually(lambda: any(one.kind == "adopt" for one in _entries(folder)))

        adopted = next(one for one in _entries(folder) if one.kind == "adopt")

    assert (adopted.actor, adopted.model, adopted.revision) == ("direct", "m", 2)


async def test_requests_are_refused_while_the_folder_cannot_be_written() -> None:
    settings = '[audit]\ndir = "audit"\non_failure = "fail-closed"\n'
    async with (
        scripted_upstream() as upstream,
        sidecar(*flags(v1=upstream.url), settings=settings) as running,
    ):
        folder = running.folder / "audit"
        before = await running.ask()
        shutil.rmtree(folder)
        folder.touch()
        await running.ask(X_Model_Version="v9")  # something to write
        await running.says("audit cannot be written")
        refused = await running.ask()
        unready = await running.asked_admin("/readyz")
        folder.unlink()
        await running.says("audit is written again")
        after = await running.ask()

    assert (before.status, refused.status, after.status) == (200, 503, 200)
    assert b"audit-unavailable" in refused.body
    assert unready[0] == 503
    assert "audit cannot be written" in unready[1]


@contextmanager
def _no_room(pid: int, size: int) -> Iterator[None]:
    """Have the kernel refuse a process to write past `size` bytes of a file, as a full disk."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


ON_FAILURE = pytest.mark.parametrize(
    ("on_failure", "status"), [("fail-open", 200), ("fail-closed", 503)]
)


@ON_FAILURE
async def test_a_full_disk_refuses_requests_only_where_that_is_said_and_leaves_no_half_line(
    on_failure: str, status: int
) -> None:
    settings = f'[audit]\ndir = "audit"\non_failure = "{on_failure}"\n'
    async with (
        scripted_upstream() as upstream,
        sidecar(*flags(v1=upstream.url), settings=settings) as running,
    ):
        folder = running.folder / "audit"
        (worker,) = running.workers()
        await eventually(lambda: len(_entries(folder)) > 2)
        (file,) = files_in(folder)
        with _no_room(worker, file.stat().st_size + 100):  # of the next line a part
            denied = [await running.ask(X_Model_Version="v9")]
            await running.says("audit cannot be written")
            meanwhile = await running.ask()
            denied.append(await running.ask(X_Model_Version="v9"))
        await running.says("audit is written again")
        after = await running.ask()
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
        lines = lines_in(folder)

    faults, chains, unreadable = verified(lines, key=None)
    assert [one.status for one in denied] == [404, 404 if status == 200 else 503]
    assert (meanwhile.status, after.status) == (status, 200)
    assert not faults
    assert not unreadable
    assert all(chain.is_ended and not chain.notes for chain in chains)
    told = [decode(line).status for line in lines if decode(line).kind == "denied"]
    assert told == [404, 404] if status == 200 else 404 in told


@ON_FAILURE
async def test_a_server_that_is_gone_refuses_requests_only_where_that_is_said_and_costs_no_entry(
    on_failure: str, status: int
) -> None:
    settings = f'[audit]\nstream = true\non_failure = "{on_failure}"\n'
    async with running_valkey() as valkey, scripted_upstream() as upstream:
        arguments = (*flags(v1=upstream.url), "--redis", valkey.url)
        async with sidecar(*arguments, settings=settings) as running:
            before = await running.ask(X_Model_Version="v8")
            await valkey.kill()
            at_once = await running.ask(X_Model_Version="v9")
            await running.says("audit cannot be written")
            meanwhile = await running.ask()
            await valkey.start()
            await running.says("audit is written again")
            after = await running.ask()
        store = open_store(valkey.url)
        lines = [line async for _, line in store.audit()]
        await store.close()

    entries = [decode(line) for line in lines]
    asked = {one.inputs.asked_version for one in entries if one.inputs is not None}
    assert (before.status, at_once.status) == (404, 404)
    assert (meanwhile.status, after.status) == (status, 200)
    assert {"v8", "v9"} <= asked
    assert not verified(lines, key=None, is_whole=False).faults


async def test_other_keys_and_bad_tokens_are_told(tmp_path: Path) -> None:
    former, renewed = Pair(tmp_path / "former"), Pair(tmp_path / "renewed")
    file = tmp_path / "jwks.json"
    file.write_bytes(former.jwks)
    settings = f'{believing(jwks_file=str(file))}\n[audit]\ndir = "audit"\n'
    async with guarded(settings) as running:
        folder = running.folder / "audit"
        token = former.bearer().replace(".", ".e30", 1)
        refused = await running.ask(Authorization=token)
        file.write_bytes(renewed.jwks)
        await eventually(lambda: sum(one.kind == "keys" for one in _entries(folder)) == 2)
        await eventually(lambda: any(one.kind == "denied" for one in _entries(folder)))
        entries = _entries(folder)
        raw = b"".join(lines_in(folder))

    first, second = (one.facts for one in entries if one.kind == "keys")
    denied = next(one for one in entries if one.kind == "denied")
    assert first["issuer"] == second["issuer"] == ISSUER
    assert first["keys"] != second["keys"]
    assert (refused.status, denied.status, denied.code) == (401, 401, "token-invalid")
    assert token.removeprefix("Bearer ").encode() not in raw


async def test_of_many_strangers_a_sum_is_told_and_of_a_known_caller_each_denial(
    tmp_path: Path,
) -> None:
    pair = Pair(tmp_path / "pair")
    file = tmp_path / "jwks.json"
    file.write_bytes(pair.jwks)
    settings = believing(jwks_file=str(file))
    settings += '\n[audit]\ndir = "audit"\nstrangers_per_minute = 2\n'
    async with guarded(settings, "--workers", "1") as running:
        strangers = [await running.ask() for _ in range(6)]
        known = [
            await running.ask(Authorization=pair.bearer(), X_Model_Version="v9") for _ in range(4)
        ]
        summed = await running.counted("rmv_audit_denials_summed_total", code="token-missing")
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
        lines = lines_in(running.folder / "audit")

    denied = [one for one in map(decode, lines) if one.kind == "denied"]
    told = Counter(one.code for one in denied)
    (counted,) = (one.facts for one in denied if not one.request_id)
    assert {answer.status for answer in strangers} == {401}
    assert {answer.status for answer in known} == {404}
    assert told == {"token-missing": 2, "no-such-version": 4, "": 1}
    assert counted["requests"] == summed == 4
    assert counted["codes"] == {"token-missing": 4}
    assert not verified(lines, key=None).faults


async def test_without_auth_all_callers_are_strangers_whatever_tenant_they_name() -> None:
    settings = '[audit]\ndir = "audit"\nstrangers_per_minute = 2\n'
    async with (
        scripted_upstream() as upstream,
        sidecar(*flags(v1=upstream.url), settings=settings) as running,
    ):
        for _ in range(5):
            assert (await running.ask("acme", X_Model_Version="v9")).status == 404
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
        denied = [one for one in _entries(running.folder / "audit") if one.kind == "denied"]

    assert [one.tenant for one in denied] == ["acme", "acme", ""]
    assert denied[-1].facts["codes"] == {"no-such-version": 3}
