"""Each threat that SECURITY.md names is shown to be met by tests that are there."""

from __future__ import annotations

import re

import pytest

from tests.docs.markdown import ROOT, coded, table

ROWS = table((ROOT / "SECURITY.md").read_text(), "threat")
NAMED = (
    "Spoofed tenant headers",
    "Smuggling",
    "Token confusion",
    "Policy poisoning",
    "SSRF by policy",
    "Mirror leaks",
    "Label cardinality",
    "Log injection",
    "Audit tampering",
    "The admin listener",
)


@pytest.mark.parametrize("row", ROWS, ids=[row[0].split("**")[1] for row in ROWS])
def test_every_threat_has_tests_that_are_there(row: list[str]) -> None:
    shown = coded(row[2])

    assert shown
    for one in shown:
        file, _, name = one.partition("::")
        source = (ROOT / file).read_text()
        assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), one


def test_no_threat_is_left_out() -> None:
    told = [row[0] for row in ROWS]

    for threat in NAMED:
        assert any(one.startswith(f"**{threat}") for one in told), threat
