"""The exchange log: one JSON object a request, wherever it goes, and never in the way."""

from __future__ import annotations

import asyncio
import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

from sidecar.model.record import ExchangeRecord
from tests.support.sidecar import PATIENCE_S, flags, sidecar
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sidecar import Sidecar

PIPE_BYTES = 8192
LINES = 100  # of over 300 bytes each: several times what that pipe holds


def records(lines: list[bytes]) -> list[ExchangeRecord]:
    """Read lines strictly: a member that is missing or of another type is an error."""
    return [msgspec.json.decode(line, type=ExchangeRecord) for line in lines]


async def ask_often(running: Sidecar, number: int) -> list[str]:
    """Send requests one after the other; return their ids."""
    ids = []
    for _ in range(number):
        answer = await running.ask("acme")
        assert answer.status == 200
        ids.append((answer.get(b"X-Request-Id") or b"").decode())
    return ids


async def test_a_file_gets_a_whole_record_of_each_request(tmp_path: Path) -> None:
    log = tmp_path / "exchanges.log"
    async with (
        scripted_upstream() as up,
        sidecar("--exchange-log", str(log), *flags(v1=up.url)) as running,
    ):
        [asked] = await ask_often(running, 1)
        refused = await running.ask("acme", X_Model_Version="v9")
        await running.end()
        served, failed = records(log.read_bytes().splitlines())

    assert (served.request_id, served.method, served.target) == (asked, "GET", "/infer")
    assert (served.tenant, served.status, served.code) == ("acme", 200, "")
    assert (served.decision.model, served.decision.version) == ("m", "v1")
    assert (served.decision.reason, served.decision.revision) == ("DEFAULT", 1)
    assert (served.endpoint, served.response_bytes) == (up.url, 2)
    assert 0 < served.first_byte_s <= served.duration_s < PATIENCE_S
    assert (failed.status, failed.code, failed.endpoint) == (404, refused.code, "")
    assert failed.first_byte_s == -1


async def test_switched_off_nothing_is_written() -> None:
    async with (
        scripted_upstream() as up,
        sidecar("--exchange-log", "off", *flags(v1=up.url)) as running,
    ):
        await ask_often(running, 3)
        await running.end()

        assert running.exchange_log.read_bytes() == b""


async def test_a_reader_that_stops_reading_stops_no_request_and_gets_whole_lines() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    async with (
        scripted_upstream() as up,
        sidecar("--workers", "2", *flags(v1=up.url), waits=False, stdout=writing) as running,
    ):
        os.close(writing)
        await running.ready()

        asked = await ask_often(running, LINES)

        assert await running.counted("rmv_log_writes_deferred_total") > 0
        log = b""
        while log.count(b"\n") < LINES:
            log += await asyncio.to_thread(os.read, reading, PIPE_BYTES)

    os.close(reading)
    assert sorted(record.request_id for record in records(log.splitlines())) == sorted(asked)


async def test_a_reader_that_goes_away_stops_no_request() -> None:
    reading, writing = os.pipe()
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url), waits=False, stdout=writing) as running,
    ):
        os.close(writing)
        await running.ready()
        os.close(reading)

        await ask_often(running, 3)
        await running.says("exchange log cannot be written")
        await ask_often(running, 3)
