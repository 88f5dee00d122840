"""Files that several processes write into, rotate, and may die in."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import resource
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.audit import files
from sidecar.audit.entry import decode
from sidecar.audit.files import FileReader, FileSink, files_in
from sidecar.errors import AuditUnwritableError
from sidecar.runtime.clock import SystemClock
from tests.audit.chains import lines_in, log_of, settings_for, verified, write
from tests.support.clock import HandClock
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WRITER = """
import asyncio, json, sys
from sidecar.audit.files import FileSink
from sidecar.audit.log import AuditLog
from sidecar.model.audit import AuditSettings
from sidecar.runtime.clock import SystemClock
from sidecar.telemetry.metrics import Metrics

async def main():
    settings, clock = AuditSettings(**json.loads(sys.argv[1])), SystemClock()
    sink = FileSink(settings, clock)
    log = AuditLog([sink], settings, role="worker", clock=clock, metrics=Metrics())
    await log.start()
    left = int(sys.argv[2])
    while left:
        for _ in range(min(left, 100)):
            log.note("denied", model="fraud", tenant="acme")
            left -= 1
        await asyncio.sleep(0)
    await log.close()

asyncio.run(main())
"""


async def _writer(folder: Path, entries: int, **settings: int) -> asyncio.subprocess.Process:
    given = json.dumps({"dir": str(folder), "file_bytes": 64 * 1024, "files": 100, **settings})
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, given, str(entries), cwd=os.getcwd()
    )


async def test_who_may_read_the_files_cannot_hold_up_who_writes_them(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    await write(folder, 1)

    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "audit-000001.jsonl": 0o640,
        "lock": 0o600,
    }


async def test_processes_share_files_and_rotate_them_once(tmp_path: Path) -> None:
    writers = [await _writer(tmp_path, 1000) for _ in range(3)]
    for writer in writers:
        assert await writer.wait() == 0

    faults, chains, unreadable = verified(lines_in(tmp_path), key=None)

    assert not faults
    assert not unreadable
    assert [chain.entries for chain in chains] == [1002] * 3
    assert all(chain.is_ended for chain in chains)
    names = [path.name for path in files_in(tmp_path)]
    assert names == [f"audit-{number:06}.jsonl" for number in range(1, len(names) + 1)]
    assert len(names) > 3
    assert max(path.stat().st_size for path in files_in(tmp_path)) < 64 * 1024 + 256 * 400


async def test_a_writer_that_is_killed_leaves_a_chain_that_holds(tmp_path: Path) -> None:
    writer = await _writer(tmp_path, 10_000_000, buffer_entries=10_000_000)
    await eventually(lambda: len(lines_in(tmp_path)) > 2000 if tmp_path.exists() else False)
    os.kill(writer.pid, signal.SIGKILL)
    await writer.wait()
    await write(tmp_path, 10)

    faults, chains, _ = verified(lines_in(tmp_path), key=None)

    assert not faults
    assert [chain.is_ended for chain in chains] == [False, True]
    assert "its writer was killed" in chains[0].notes[-1]


async def test_half_a_line_of_a_writer_that_died_is_no_beginning_of_anothers(
    tmp_path: Path,
) -> None:
    await write(tmp_path, 2)
    newest = files_in(tmp_path)[-1]
    lines = newest.read_bytes().splitlines()
    newest.write_bytes(b"\n".join(lines[:-1]) + b"\n" + lines[-1][:90])

    await write(tmp_path, 2)

    faults, (torn, whole), unreadable = verified(lines_in(tmp_path))
    assert not faults
    assert not unreadable
    assert any("is torn" in note for note in torn.notes)
    assert whole.is_ended


async def test_the_oldest_of_too_many_files_are_deleted(tmp_path: Path) -> None:
    log = log_of(settings_for(tmp_path, files=3))
    for number in range(60):
        log.note("denied", request_id=str(number), model="fraud")
    await log.close()
    log = log_of(settings_for(tmp_path, files=3))
    for number in range(60):
        log.note("denied", request_id=str(number), model="fraud")
        await log.start() if not number else None
        await asyncio.sleep(0)
    await log.close()

    numbers = [int(path.stem.removeprefix("audit-")) for path in files_in(tmp_path)]
    assert numbers == list(range(numbers[-1] - 2, numbers[-1] + 1))
    assert numbers[0] > 1
    assert not verified(lines_in(tmp_path), is_whole=False).faults


async def test_files_that_are_moved_away_are_not_written_to(tmp_path: Path) -> None:
    log = log_of(settings_for(tmp_path))
    await log.start()
    (file,) = files_in(tmp_path)
    file.rename(tmp_path / "shipped")

    log.note("kill", model="fraud")
    await log.close()

    (file,) = files_in(tmp_path)
    assert [decode(line).kind for line in file.read_bytes().splitlines()] == ["kill", "end"]


async def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sink = FileSink(settings_for(tmp_path / "file" / "audit"), SystemClock())

    with pytest.raises(AuditUnwritableError, match="Not a directory"):
        await sink.append([b"{}"])


@contextmanager
def _no_file_longer_than(size: int) -> Iterator[None]:
    """Have the kernel refuse to write past `size` bytes of any file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_of_a_batch_that_does_not_fit_nothing_is_left(tmp_path: Path) -> None:
    """The kernel writes what it has room for, and says so at the next try only."""
    sink = FileSink(settings_for(tmp_path, file_bytes=1 << 30), SystemClock())
    long = [b"x" * 10_000] * 256
    await sink.append([b"one"])

    with _no_file_longer_than(1 << 20):
        for _ in range(2):
            with pytest.raises(AuditUnwritableError, match="File too large"):
                await sink.append(long)
        left = lines_in(tmp_path)

    await sink.append(long)
    assert left == [b"one"]
    assert lines_in(tmp_path) == [b"one", *long]
    await sink.close()


async def test_a_lock_that_is_not_let_go_of_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_TRIES", 3)
    sink = FileSink(settings_for(tmp_path), SystemClock())
    with (tmp_path / "lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(AuditUnwritableError, match="lock: another process has held this lock"):
            await asyncio.wait_for(sink.append([b"{}"]), 20)

    await sink.append([b"{}"])
    assert lines_in(tmp_path) == [b"{}"]
    await sink.close()


async def test_a_reader_goes_on_over_rotation(tmp_path: Path) -> None:
    await write(tmp_path, 5)
    reader = FileReader(tmp_path)
    first = [line for _, page in reader.pages() for _, line in page]
    await write(tmp_path, 30)

    second = [line for _, page in reader.pages() for _, line in page]

    assert [*first, *second] == lines_in(tmp_path)
    assert not [page for _, page in reader.pages() if page]


async def test_a_reader_leaves_a_line_that_is_being_written(tmp_path: Path) -> None:
    (tmp_path / "audit-000001.jsonl").write_bytes(b"one\ntw")
    reader = FileReader(tmp_path)

    begun = [page for _, page in reader.pages(takes_torn=False)]
    with (tmp_path / "audit-000001.jsonl").open("ab") as file:
        file.write(b"o\n")
    done = [page for _, page in reader.pages(takes_torn=False)]

    assert begun == [[(1, b"one")]]
    assert done == [[(2, b"two")]]


@pytest.mark.parametrize(("fsync", "expected"), [("batch", 4), ("second", 3), ("never", 0)])
async def test_files_reach_the_disk_as_often_as_the_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: str, expected: int
) -> None:
    synced: list[int] = []
    synchronise = os.fsync

    def counted(fd: int) -> None:
        synced.append(fd)
        synchronise(fd)

    monkeypatch.setattr(os, "fsync", counted)
    clock = HandClock()
    sink = FileSink(settings_for(tmp_path, fsync=fsync), clock)

    await sink.append([b"one"])
    await sink.append([b"two"])
    await sink.settle()
    clock.advance(1.5)
    await sink.settle()
    await sink.settle()  # nothing is left to do
    await sink.append([b"three"])
    await sink.close()

    assert len(synced) == expected  # one of them of the folder, which has a new file
    assert lines_in(tmp_path) == [b"one", b"two", b"three"]
