"""What the demo makes of answers, counters and terminals."""

from __future__ import annotations

import io

import msgspec
import pytest

from sidecar.cli.demo.checkout import Trained
from sidecar.cli.demo.client import Answer
from sidecar.cli.demo.counters import Mirrors, read_mirrors
from sidecar.cli.demo.failure import DemoError
from sidecar.cli.demo.screen import Claims, Screen, table
from sidecar.cli.demo.tally import Tally, find_fault, show

TRAINED = {"v1": Trained("logistic", 0.98, expected=(0.25, 0.75))}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def answer(
    data: list[float], *, version: str = "v1", said: str = "v1", status: int = 200
) -> Answer:
    outputs = [{"name": "probability", "data": data}]
    body = {"model_name": "tumor", "model_version": said, "outputs": outputs}
    return Answer(status, version, "DEFAULT", msgspec.json.encode(body), took_s=0.002)


def test_the_answer_of_the_version_it_names_has_no_fault() -> None:
    assert find_fault(answer([0.75]), 1, TRAINED) == ""


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (answer([0.75], status=502), "status 502: "),
        (answer([0.75], version=""), "X-Model-Version is ``"),
        (answer([0.75], said="v2"), "headers say v1, the body tumor v2"),
        (answer([1.5]), "not one probability: (1.5,)"),
        (answer([0.75, 0.75]), "not one probability"),
        (answer([]), "not one probability"),
        (answer([0.7501]), "v1 answers 0.75, not 0.7501"),
    ],
)
def test_an_answer_that_is_not_what_it_must_be_has_a_fault(wrong: Answer, fault: str) -> None:
    assert find_fault(wrong, 1, TRAINED).startswith(fault)


def test_an_answer_that_is_no_json_is_a_failure() -> None:
    with pytest.raises(DemoError, match="an answer of status 200 cannot be read"):
        find_fault(Answer(200, "v1", "DEFAULT", b"<html>", 0.0), 0, TRAINED)


def test_a_tally_shows_shares_latency_and_what_was_right() -> None:
    tally = Tally("acme")
    tally.add(answer([0.25]), 0, 0, TRAINED)
    tally.add(answer([0.75]), 1, 0, TRAINED)

    shown = show([tally, Tally("globex")], {"v3": Mirrors(2, 1, 0)})

    assert shown == [
        "TENANT  VERSION   WHY      REQUESTS  P50 ms  P95 ms  RIGHT",
        "acme    v1 100 %  DEFAULT         2     2.0     2.0    1/2",
        "globex  -         -               0       -       -    0/0",
        "",
        "VERSION  ANSWERS  P50 ms  P95 ms  COPIES ANSWERED  DROPPED  FAILED",
        "v1             2     2.0     2.0                -        -       -",
        "v3             0       -       -                2        1       0",
    ]


def test_copies_are_counted_by_version_and_by_what_became_of_them() -> None:
    exposition = """\
# TYPE rmv_mirrors_total counter
rmv_mirrors_total{model="tumor",version="v3",outcome="compared"} 290
rmv_mirrors_total{model="tumor",version="v3",outcome="eligible"} 301
rmv_mirrors_total{model="tumor",version="v3",outcome="mirrored"} 298
rmv_mirrors_total{model="tumor",version="v3",outcome="sampled-out"} 0
rmv_mirrors_total{model="tumor",version="v3",outcome="skipped-queue"} 1
rmv_mirrors_total{model="tumor",version="v3",outcome="skipped-size"} 2
rmv_mirrors_total{model="tumor",version="v3",outcome="uncompared-off"} 8
rmv_mirrors_total{model="tumor",version="v4",outcome="failed-connect"} 3
rmv_mirror_responses_total{model="tumor",version="v3",class="2xx"} 298
"""

    assert read_mirrors(exposition) == {"v3": Mirrors(298, 3, 0), "v4": Mirrors(0, 0, 3)}


def test_an_outcome_that_is_not_known_is_a_failure() -> None:
    with pytest.raises(DemoError, match="unknown outcome: lost"):
        read_mirrors('rmv_mirrors_total{version="v3",outcome="lost"} 1')


def test_a_terminal_is_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    screen = Screen(terminal)

    screen.draw(["one", "two"], is_final=False)
    screen.draw(["three"], is_final=True)
    screen.draw(["four"], is_final=True)

    assert terminal.getvalue() == "  one\n  two\n\033[2A\033[J  three\n  four\n"


def test_a_line_is_cut_where_a_terminal_would_wrap_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "10")
    terminal = Terminal()

    Screen(terminal).draw(["0123456789"], is_final=False)

    assert terminal.getvalue() == "  0123456\n"


def test_without_a_terminal_only_the_final_table_is_written() -> None:
    stream = io.StringIO()
    screen = Screen(stream)

    screen.draw(["one"], is_final=False)
    screen.draw(["two"], is_final=True)

    assert stream.getvalue() == "  two\n"


def test_a_claim_holds_when_nothing_speaks_against_it() -> None:
    stream = io.StringIO()
    claims = Claims(Screen(stream))

    claims.check("all is well", "", "")
    claims.check("and this", "", "but that")

    assert (claims.held, claims.failed) == (1, 1)
    assert stream.getvalue() == "  ok      all is well\n  FAILED  and this\n          but that\n"


def test_columns_are_aligned_to_the_side_that_their_name_says() -> None:
    assert table("A|>B", [("one", "1"), ("three", "100")]) == [
        "A        B",
        "one      1",
        "three  100",
    ]
