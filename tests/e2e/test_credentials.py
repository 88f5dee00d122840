"""Who may use the admin listener of a real sidecar is who its settings file names, as it is now."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from typing import TYPE_CHECKING

import msgspec

from sidecar.audit.entry import Entry
from tests.support.messages import PATIENCE_S, read_answer
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import eventually, scripted_upstream

if TYPE_CHECKING:
    from tests.support.messages import Answer
    from tests.support.sidecar import Sidecar

AUDIT = '[audit]\ndir = "audit"\n\n'
PATIENT = "[admin_api]\nfailures = 1000\n\n"  # these tests try again and again
KILL = b'{"reason":"x"}'


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def credential(name: str, role: str, token: str) -> str:
    return f'[[admin_tokens]]\nname = "{name}"\nrole = "{role}"\nsha256 = "{digest(token)}"\n\n'


ADA = credential("ada", "admin", "rmv_ada")
BOB = credential("bob", "viewer", "rmv_bob")


def write(running: Sidecar, text: str) -> None:
    """Replace the settings file, as editors and Kubernetes do."""
    new = running.folder / "new.toml"
    new.write_text(text)
    new.replace(running.folder / "rmv.toml")


async def call(running: Sidecar, token: str, path: str = "status", body: bytes = b"") -> Answer:
    """Read, or write a `body`; without a `token` as whoever is on loopback."""
    lines = [f"{'PUT' if body else 'GET'} /api/v1/{path} HTTP/1.1", "Host: localhost"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(*running.admin)
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        answer = await read_answer(reader)
        writer.close()
        return answer


async def gets(running: Sidecar, token: str, status: int) -> None:
    """Wait until a token gets this status."""

    async def is_so() -> bool:
        return (await call(running, token)).status == status

    await running.until(is_so, f"{status} for {token}")


def audited(running: Sidecar) -> list[Entry]:
    """Return what audit has of credentials."""
    lines = [
        line
        for file in sorted((running.folder / "audit").rglob("*.jsonl"))
        for line in file.read_bytes().splitlines()
    ]
    entries = [msgspec.json.decode(line, type=Entry) for line in lines]
    return [one for one in entries if one.kind == "credentials"]


async def test_credentials_hold_as_the_file_changes_and_every_change_is_audited() -> None:
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url), settings=AUDIT + PATIENT + ADA) as running,
    ):
        pids = running.workers()
        assert (await call(running, "rmv_bob")).status == 401
        write(running, AUDIT + PATIENT + ADA + BOB)
        await gets(running, "rmv_bob", 200)
        assert (await call(running, "rmv_bob", "policies/m/kill", KILL)).status == 403

        write(running, AUDIT + PATIENT + ADA + BOB.replace("viewer", "operator"))

        async def may_kill() -> bool:
            return (await call(running, "rmv_bob", "policies/m/kill", KILL)).status == 200

        await running.until(may_kill, "role")
        write(running, AUDIT + PATIENT + BOB.replace(digest("rmv_bob"), digest("rmv_bob2")))
        await gets(running, "rmv_ada", 401)
        assert (await call(running, "rmv_bob")).status == 401
        assert (await call(running, "rmv_bob2")).status == 200

        await eventually(lambda: len(audited(running)) == 3)
        facts = [one.facts for one in audited(running)]
        assert {one.actor for one in audited(running)} == {"file"}
        file = str(running.folder / "rmv.toml")
        assert facts == [
            {"file": file, "added": ["bob (viewer, token)"]},
            {"file": file, "changed": ["bob: viewer -> operator"]},
            {
                "file": file,
                "removed": ["ada (admin, token)"],
                "changed": ["bob: operator -> viewer, another token"],
            },
        ]
        told = running.said() + str(facts)
        assert not any(digest(f"rmv_{name}") in told for name in ("ada", "bob", "bob2"))
        assert await running.counted("rmv_admin_reloads_total", outcome="loaded") == 3
        assert running.workers() == pids


FAULTY = {
    'rmv.toml:6: admin_tokens[0].role: "viewer", "operator" or "admin" is expected': ADA.replace(
        '"admin"', '"root"'
    ),
    "rmv.toml:4: Expected ']]'": ADA.replace("]]", "]"),
}


async def test_a_faulty_file_is_told_with_its_place_and_leaves_the_former_ones_in_force() -> None:
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url), settings=AUDIT + ADA) as running,
    ):
        for told, text in FAULTY.items():
            write(running, AUDIT + text)
            await running.says(told.replace('"', '\\"'))
        (running.folder / "rmv.toml").unlink()
        await running.says("cannot be read")

        assert (await call(running, "rmv_ada")).status == 200
        write(running, AUDIT + BOB)
        await gets(running, "rmv_bob", 200)
        assert len(audited(running)) <= 1
        outcome = await running.counted("rmv_admin_reloads_total", outcome="refused")
        assert outcome == len(FAULTY) + 1
        assert (await running.ask()).status == 200


async def test_sighup_reads_the_file_although_it_looks_the_same() -> None:
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url), settings=PATIENT + ADA) as running,
    ):
        file = running.folder / "rmv.toml"
        await gets(running, "rmv_ada", 200)
        before = file.stat()
        other = PATIENT + ADA.replace(digest("rmv_ada"), digest("rmv_eve"))
        await asyncio.to_thread(file.write_text, other)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        running.signal(signal.SIGHUP)

        await gets(running, "rmv_eve", 200)
        assert (await call(running, "rmv_ada")).status == 401
        await running.says("workers replaced")


async def test_who_takes_the_last_credential_away_lets_nobody_in() -> None:
    text = "# nobody\n"
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url), settings=PATIENT + text) as running,
    ):
        assert (await call(running, "")).status == 200  # nobody has one: loopback reads
        write(running, PATIENT + ADA)
        await gets(running, "", 401)
        assert (await call(running, "rmv_ada")).status == 200
        write(running, PATIENT + text)
        await gets(running, "rmv_ada", 401)

        assert (await call(running, "")).status == 401
