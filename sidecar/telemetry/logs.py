"""The operator's log: one event a line on standard error, as `key=value` pairs (logfmt)."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final

MAX_VALUE_CHARS: Final = 8 * 1024  # all that is wrong with most documents; not a key of a megabyte
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogfmtFormatter(logging.Formatter):
    """Renders time, level, logger, message, and whatever `extra` holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; an exception's trace follows on lines of its own."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        pairs = [
            ("at", at.replace("+00:00", "Z")),
            ("level", record.levelname.lower()),
            ("logger", record.name),
            ("msg", record.getMessage()),
        ]
        pairs += [(k, str(v)) for k, v in vars(record).items() if k not in _STANDARD]
        line = " ".join(f"{key}={_quote(value)}" for key, value in pairs)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _quote(value: str) -> str:
    if len(value) > MAX_VALUE_CHARS:
        value = f"{value[:MAX_VALUE_CHARS]}... ({len(value)} characters)"
    if value and value.isprintable() and not set(value) & set(' "='):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    # A line end would begin another event, a control character could move the terminal.
    return f'"{"".join(map(_visible, escaped))}"'


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def configure(level: int = logging.INFO) -> None:
    """Send every logger of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
