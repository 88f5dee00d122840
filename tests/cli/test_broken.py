"""While a stored document is not valid, every command says what serves and how to get out."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from sidecar.cli.broken import what_serves
from sidecar.store.base import Instance
from tests.cli.conftest import POLICY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv

WRONG = POLICY.replace("default: v1", "default: v9\t# no such version")
WAY_OUT = "`rmv get tumor` prints it, `rmv rollback tumor` commits revision 1 anew"


@pytest.fixture
def broken(tumor: Rmv, valkey_url: str) -> Rmv:
    """Run the command on a store whose document was overwritten by one that is not valid."""
    with Redis.from_url(valkey_url) as client:
        client.set(f"{os.environ['RMV_PREFIX']}:policy:tumor", WRONG)
    return tumor


@pytest.mark.parametrize(
    "command",
    [("explain", "tumor"), ("try", "tumor"), ("status",), ("plan", "-f", "tumor.yaml")],
)
def test_what_serves_and_the_way_out_are_told(
    broken: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)

    ran = broken(*command)

    assert 'unknown version "v9"' in ran.err
    assert "sidecars go on with the last good one that they have seen" in ran.err
    assert WAY_OUT in ran.err


def test_the_text_is_printed_that_the_position_refers_to(broken: Rmv) -> None:
    ran = broken("get", "tumor")

    assert ran.code == 1
    assert ran.out == WRONG
    assert "tumor:9:10: default" in ran.err


def test_the_list_has_the_model_all_the_same(broken: Rmv) -> None:
    assert "tumor  invalid   -" in broken("get").out


def test_the_way_out_leads_out(broken: Rmv) -> None:
    assert broken("rollback", "tumor").code == 0
    assert broken("explain", "tumor").code == 0


def test_a_model_that_never_had_a_good_document_has_nothing_to_go_back_to(
    store: Rmv, valkey_url: str
) -> None:
    with Redis.from_url(valkey_url) as client:
        client.set(f"{os.environ['RMV_PREFIX']}:policy:tumor", WRONG)

    assert "its history has nothing to go back to" in store("status").err


def test_what_serves_is_what_live_sidecars_tell() -> None:
    good, none = Instance("a", {"tumor": 3}), Instance("b", {})

    assert what_serves("tumor", [good]) == "the last good one serves, revision 3"
    assert "at 1 of 2 sidecars; the others have none" in what_serves("tumor", [good, none])
    assert "nothing serves it" in what_serves("tumor", [none])


def test_files_that_replace_what_nobody_can_read_say_so(
    tumor: Rmv, tmp_path: Path, valkey_url: str
) -> None:
    file = tmp_path / "tumor.yaml"
    with Redis.from_url(valkey_url) as client:
        client.set(f"{os.environ['RMV_PREFIX']}:policy:tumor", "{")

    differs = tumor("diff", "-f", file)
    tried = tumor("apply", "-f", file, "--dry-run")
    done = tumor("apply", "-f", file)

    against = "; compared with revision 1, the last good one)\n"
    assert differs.code == 1
    assert differs.out == f"tumor (in the place of a document that is not valid{against}"
    assert tried.out == (
        f"tumor configured (dry run, replaces a document that is not valid{against}"
    )
    assert done.out.startswith(
        "tumor configured (revision 2, replaces a document that is not valid)\n"
    )


def test_what_would_change_is_told_by_what_serves_while_nobody_can_read_what_is_stored(
    tumor: Rmv, tmp_path: Path, valkey_url: str
) -> None:
    file = tmp_path / "tumor.yaml"
    file.write_text(file.read_text().replace("default: v1", "default: v2"))
    assert tumor("apply", "-f", file).code == 0
    with Redis.from_url(valkey_url) as client:
        client.set(f"{os.environ['RMV_PREFIX']}:policy:tumor", "{")
    file.write_text(file.read_text().replace("default: v2", "default: v1"))
    change = '  ~ default: "v2" -> "v1"\n'

    differs = tumor("diff", "-f", file)
    tried = tumor("rollback", "tumor", "1", "--dry-run")
    as_json = json.loads(tumor("rollback", "tumor", "1", "--dry-run", "--json").out)
    newest = tumor("rollback", "tumor", "--dry-run")

    not_valid = "a document that is not valid; compared with revision 2, the last good one"
    assert differs.out == f"tumor (in the place of {not_valid})\n{change}"
    assert tried.out == f"tumor rolled back to revision 1 (dry run, replaces {not_valid})\n{change}"
    assert as_json["compared_with"] == 2
    assert len(as_json["changes"]) == 1
    assert newest.out == f"tumor rolled back to revision 2 (dry run, replaces {not_valid})\n"


def test_what_can_be_read_and_is_not_valid_is_deleted_by_force_alone(broken: Rmv) -> None:
    refused = broken("delete", "tumor")
    forced = broken("delete", "tumor", "--force")

    assert refused.code == 1
    assert "holds a document that is not valid and in no history" in refused.err
    assert forced.code == 0


@pytest.mark.parametrize("command", [("apply", "-f", "tumor.yaml"), ("rollback", "tumor")])
def test_a_document_that_names_another_model_is_replaced_though_it_says_the_same(
    tumor: Rmv,
    valkey_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    with Redis.from_url(valkey_url) as client:
        key = f"{os.environ['RMV_PREFIX']}:policy:tumor"
        stored = client.get(key)
        assert isinstance(stored, bytes)
        client.set(key, stored.replace(b'"tumor"', b'"tumour"'))

    done = tumor(*command)

    assert done.code == 0
    assert "(revision 2" in done.out
    assert tumor("explain", "tumor").code == 0


def test_an_edit_that_is_not_valid_is_not_overwritten_unasked(broken: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "tumor.yaml"

    differs = broken("diff", "-f", file)
    refused = broken("apply", "-f", file)
    forced = broken("apply", "-f", file, "--force")

    assert differs.out.startswith("tumor (in the place of a document that is not valid)\n")
    assert '~ default: "v9" -> "v1"' in differs.out
    assert refused.code == 1
    assert forced.out == "tumor configured (revision 2, replaces a direct edit)\n"
