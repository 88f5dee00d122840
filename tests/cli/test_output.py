"""Results are plain where programs read, coloured where people do."""

import json
from io import StringIO

import pytest

from sidecar.cli.output import (
    MAX_CELL_CHARS,
    complain,
    emit,
    facts,
    note,
    paint,
    say,
    table,
    warn,
)


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)

    assert paint("no", "red", StringIO()) == "no"
    assert paint("no", "red", Terminal()) == "\033[31mno\033[0m"


def test_no_color_is_obeyed_on_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    assert paint("no", "red", Terminal()) == "no"


def test_a_table_is_aligned_and_shows_empty_cells(capsys: pytest.CaptureFixture[str]) -> None:
    table(("MODEL", "REVISION"), [("fraud", "1"), ("tumor-detection", "")])

    assert capsys.readouterr().out == (
        "MODEL            REVISION\nfraud            1\ntumor-detection  -\n"
    )


def test_rows_of_a_table_are_coloured_on_terminals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)

    table(("A", "B"), [("1", "2"), ("3", "4")], ["red", None])
    piped = capsys.readouterr().out
    shown = Terminal()
    monkeypatch.setattr("sys.stdout", shown)
    table(("A", "B"), [("1", "2"), ("3", "4")], ["red", None])

    assert piped == "A  B\n1  2\n3  4\n"
    assert shown.getvalue() == "\033[1mA  B\033[0m\n\033[31m1  2\033[0m\n3  4\n"


def test_facts_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    facts([("model", "fraud"), ("refused", ""), ("revision", "3")])

    assert capsys.readouterr().out == "model     fraud\nrevision  3\n"


# Escape sequences (one by a C1 control), text that runs backwards, a line end, half a character.
NASTY = "\033[2J\x9b2J\u202e\r\n\udcff"
SPELLED = r"\x1b[2J\x9b2J\u202e\x0d\x0a\udcff"


def test_nothing_that_is_told_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table(("A",), [(NASTY,)])
    facts([("name", NASTY)])
    in_cells = capsys.readouterr().out
    for speak in (say, complain, warn, note):
        speak(NASTY)
    in_lines = "".join(capsys.readouterr())

    assert in_cells == f"A\n{SPELLED}\nname  {SPELLED}\n"
    assert in_lines.count(SPELLED.replace(r"\x0a", "\n") + "\n") == 4


def test_json_has_the_same_value_without_such_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = {"a": "\033\x7f\x9b\u202eé\n"}

    emit(value)

    text = capsys.readouterr().out
    assert json.loads(text) == value
    assert text == '{\n  "a": "\\u001b\\u007f\\u009b\\u202eé\\n"\n}\n'


def test_one_endless_cell_does_not_widen_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("acme", "v" * 1_000_000, "a"), *[("b", "v1", "c")] * 10]

    table(("TENANT", "VERSION", "FAULT"), rows)

    assert len(capsys.readouterr().out) < 20 * MAX_CELL_CHARS
