"""Where finished exchanges go: counted and logged in batches, outside the exchange itself."""

from __future__ import annotations

import logging
import os
import select
import stat
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from sidecar.runtime import faults

if TYPE_CHECKING:
    from sidecar.model.record import ExchangeRecord
    from sidecar.telemetry.metrics import Metrics

BATCH: Final = 256  # records; a batch costs one write
MAX_BACKLOG_BYTES: Final = 4 * 1024 * 1024  # of lines that a full pipe did not take
PARAMETER: Final = "access_token="  # RFC 6750 section 2.3: a query may have a token, a log may not

_log = logging.getLogger("sidecar.exchange_log")


def hide_token(target: str) -> str:
    """Return a target that says no token: what follows its parameter's name is `***`.

    All of it, and not the value alone: so a target of nothing but such parameters takes no longer.
    """
    at = target.find(PARAMETER)
    return target if at < 0 else f"{target[: at + len(PARAMETER)]}***"


def without_token(record: ExchangeRecord) -> ExchangeRecord:
    """Return a record whose target says no token."""
    target = record.target
    return replace(record, target=hide_token(target)) if PARAMETER in target else record


class Recorder:
    """Takes exchange records; `flush` counts them and writes their lines.

    The log is JSON, one object a line. Writing never blocks: what a full pipe or disk does not
    take waits in a bounded backlog, and what does not fit there is counted as lost.
    """

    def __init__(self, metrics: Metrics, fd: int | None) -> None:
        """Write to the descriptor `fd`, which becomes non-blocking; None logs nothing."""
        self._metrics = metrics
        self._fd = fd
        self._encode = msgspec.json.Encoder().encode_lines
        self._records: list[ExchangeRecord] = []
        self._backlog = bytearray()
        self._is_shared = fd is not None and not stat.S_ISREG(os.fstat(fd).st_mode)
        self._is_failing = False
        if fd is not None:
            os.set_blocking(fd, False)

    def add(self, record: ExchangeRecord) -> None:
        """Take the record of an exchange that has ended."""
        self._records.append(record)
        if len(self._records) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Count and write what has come since; called often enough that nobody waits for it."""
        records, self._records = self._records, []
        try:
            self._metrics.observe(records)
        except Exception as error:  # noqa: BLE001 -- they are logged all the same
            faults.note("record", error)
        if self._fd is None:
            return
        if records:
            self._keep(records)
        if self._backlog:
            self._write(self._fd)

    def _keep(self, records: list[ExchangeRecord]) -> None:
        try:
            lines = self._encode([without_token(one) for one in records])
        except Exception as error:  # noqa: BLE001 -- what comes later is to be written all the same
            faults.note("record", error)
            lines = b""
        if lines and len(self._backlog) + len(lines) <= MAX_BACKLOG_BYTES:
            self._backlog += lines
        else:
            self._metrics.events["rmv_log_lines_lost_total",] += len(records)

    def _write(self, fd: int) -> None:
        try:
            while self._backlog:
                del self._backlog[: os.write(fd, self._piece())]
        except BlockingIOError:
            self._metrics.count("rmv_log_writes_deferred_total")
        except OSError as error:
            if not self._is_failing:  # once: a full disk would repeat it at every flush
                _log.error("exchange log cannot be written", extra={"reason": str(error)})
            self._is_failing = True
            self._metrics.count("rmv_log_write_errors_total")
        else:
            self._is_failing = False

    def _piece(self) -> bytearray:
        """Return what one write may take: to a pipe whole lines that it takes whole or not at all.

        Else a full pipe would take half a line, and then a line of another worker. A line that is
        longer than what pipes keep together is written all the same.
        """
        backlog = self._backlog
        if not self._is_shared or len(backlog) <= select.PIPE_BUF:
            return backlog
        end = backlog.rfind(b"\n", 0, select.PIPE_BUF) + 1 or backlog.find(b"\n") + 1
        return backlog[:end] if end else backlog
