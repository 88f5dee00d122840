"""The exchange log: a line for each exchange, and nobody waits for it."""

from __future__ import annotations

import fcntl
import logging
import os
from typing import TYPE_CHECKING

import msgspec
import pytest

from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recorder import BATCH, MAX_BACKLOG_BYTES, Recorder
from tests.telemetry.records import record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sidecar.model.identity import JSON


class Pipe:
    """A pipe that holds a page."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.reading, False)

    def drain(self) -> bytes:
        """Read what is there."""
        try:
            return os.read(self.reading, 1_000_000)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def lines(data: bytes) -> list[dict[str, JSON]]:
    assert data.endswith(b"\n")
    return [msgspec.json.decode(line) for line in data.splitlines()]


def lost(metrics: Metrics) -> int:
    return metrics.events["rmv_log_lines_lost_total",]


def test_an_exchange_is_a_line_of_json_with_all_that_is_known(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR)
    recorder = Recorder(Metrics(), fd)

    recorder.add(record(code="upstream-failed", status=502, shadows=("v2",)))
    recorder.flush()
    os.close(fd)

    (line,) = lines((tmp_path / "log").read_bytes())
    assert line == {
        "at_s": 1_800_000_000.5,
        "request_id": "id-1",
        "method": "POST",
        "target": "/infer?a=\xff",
        "tenant": "acme",
        "subject": "ada",
        "app": "console",
        "decision": {
            "model": "m",
            "version": "v1",
            "reason": "SPLIT:canary",
            "revision": 3,
        },
        "status": 502,
        "code": "upstream-failed",
        "endpoint": "http://127.0.0.1:9001",
        "first_byte_s": 0.002,
        "duration_s": 0.003,
        "request_bytes": 10,
        "response_bytes": 20,
        "shadows": ["v2"],
    }


@pytest.mark.parametrize(
    ("target", "logged"),
    [
        ("/infer?access_token=s3cret", "/infer?access_token=***"),
        ("/infer?a=1&access_token=s3cret&b=2", "/infer?a=1&access_token=***"),
        ("/infer?access_token=a&access_token=s3cret", "/infer?access_token=***"),
        ("http://h/infer?access_token=s3%22cret", "http://h/infer?access_token=***"),
        ("/infer?access_token", "/infer?access_token"),
        ("/access_token?a=1", "/access_token?a=1"),
    ],
)
def test_a_token_in_a_query_is_in_no_line(tmp_path: Path, target: str, logged: str) -> None:
    fd = os.open(tmp_path / "log", os.O_CREAT | os.O_RDWR)
    recorder = Recorder(Metrics(), fd)

    recorder.add(record(target=target))
    recorder.add(record(target="/plain?a=1"))
    recorder.flush()
    os.close(fd)

    written = (tmp_path / "log").read_bytes()
    assert b"s3" not in written
    assert [line["target"] for line in lines(written)] == [logged, "/plain?a=1"]


def test_lines_wait_for_a_flush_or_a_full_batch(pipe: Pipe) -> None:
    recorder = Recorder(Metrics(), pipe.writing)

    recorder.add(record())
    assert pipe.drain() == b""
    recorder.flush()
    assert len(lines(pipe.drain())) == 1
    for _ in range(BATCH):
        recorder.add(record())
    assert pipe.drain()


def test_exchanges_are_counted_when_nothing_is_logged() -> None:
    metrics = Metrics()
    recorder = Recorder(metrics, None)

    recorder.add(record())
    recorder.flush()

    assert 'status="200"' in metrics.exposition()


def test_a_full_pipe_blocks_nobody_and_loses_nothing_within_the_backlog(pipe: Pipe) -> None:
    metrics = Metrics()
    recorder = Recorder(metrics, pipe.writing)
    number = 100  # some 40 KB, into a pipe of 4

    for n in range(number):
        recorder.add(record(request_id=f"id-{n}"))
    recorder.flush()
    assert metrics.events["rmv_log_writes_deferred_total",] > 0
    read = b""
    while piece := pipe.drain():
        assert piece.endswith(b"\n"), "a pipe is given whole lines"
        read += piece
        recorder.flush()

    assert [one["request_id"] for one in lines(read)] == [f"id-{n}" for n in range(number)]
    assert lost(metrics) == 0


def test_lines_past_the_backlog_are_counted_as_lost(pipe: Pipe) -> None:
    metrics = Metrics()
    recorder = Recorder(metrics, pipe.writing)
    number, target = 60, "/" + 100_000 * "x"

    for n in range(number):
        recorder.add(record(request_id=f"id-{n}", target=target))
        recorder.flush()
    read = b""
    while piece := pipe.drain():
        read += piece
        recorder.flush()

    written = len(lines(read))
    assert len(read) <= MAX_BACKLOG_BYTES + 8192  # and what the pipe held
    assert 0 < written < number
    assert written + lost(metrics) == number
    recorder.add(record(request_id="later"))
    recorder.flush()
    assert lines(pipe.drain())[0]["request_id"] == "later"


def test_a_log_that_cannot_be_written_is_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    full = os.open("/dev/full", os.O_WRONLY)
    recorder = Recorder(metrics, full)

    with caplog.at_level(logging.ERROR, "sidecar.exchange_log"):
        for _ in range(3):
            recorder.add(record())
            recorder.flush()
    os.close(full)

    assert [one.message for one in caplog.records] == ["exchange log cannot be written"]
    assert metrics.events["rmv_log_write_errors_total",] == 3
