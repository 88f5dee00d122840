"""The operator's log is one logfmt line an event."""

from __future__ import annotations

import logging

import pytest

from sidecar.telemetry.logs import MAX_VALUE_CHARS, LogfmtFormatter


def line(message: str, **extra: object) -> str:
    made = logging.LogRecord("sidecar.x", logging.WARNING, __file__, 1, message, None, None)
    made.created = 1_800_000_000.25
    vars(made).update(extra)
    return LogfmtFormatter().format(made)


def test_an_event_has_time_level_logger_message_and_what_it_was_given() -> None:
    assert line("drained", cut=3, why="late") == (
        "at=2027-01-15T08:00:00.250Z level=warning logger=sidecar.x msg=drained cut=3 why=late"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("a\nlevel=error", '"a\\nlevel=error"'),
        ("back\\slash and space", '"back\\\\slash and space"'),
    ],
)
def test_a_value_cannot_be_taken_for_something_else(value: str, written: str) -> None:
    assert line("m", key=value).endswith(f" msg=m key={written}")
    assert "\n" not in line("m", key=value)


@pytest.mark.parametrize("value", ["a\rb", "a\x1b[31mb", "a\u2028b", "a\x00b"])
def test_a_value_cannot_move_the_terminal_or_end_the_line(value: str) -> None:
    written = line("m", key=value)

    assert written.isprintable()


def test_a_value_that_somebody_made_endless_is_cut() -> None:
    written = line("m", key="\x01" * 1_000_000)

    assert len(written) < 5 * MAX_VALUE_CHARS
    assert written.endswith('... (1000000 characters)"')


def test_an_exception_follows_its_line() -> None:
    error = RuntimeError("lost")
    made = logging.LogRecord(
        "x", logging.ERROR, __file__, 1, "m", None, (RuntimeError, error, error.__traceback__)
    )

    first, *trace = LogfmtFormatter().format(made).split("\n")

    assert first.endswith("msg=m")
    assert trace[-1] == "RuntimeError: lost"
