"""`rmv validate` and `rmv apply` take documents as files, all or none."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from sidecar.cli.apply import apply_policy
from sidecar.errors import StoreConflictError
from sidecar.policy import codec
from sidecar.store.memory import MemoryStore
from tests.cli.conftest import POLICY
from tests.docs.markdown import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv

BAD = POLICY.replace("default: v1", "default: v9").replace("model: tumor", "model: fraud")


def folder(tmp_path: Path, **documents: str) -> Path:
    """Write a folder of documents."""
    made = tmp_path / "policies"
    made.mkdir(exist_ok=True)
    for name, text in documents.items():
        (made / f"{name}.yaml").write_text(text)
    (made / "README.md").write_text("no policy")
    return made


def test_valid_documents_are_told_by_model(rmv: Rmv, tmp_path: Path) -> None:
    made = folder(tmp_path, tumor=POLICY)

    ran = rmv("validate", "-f", made)

    assert ran == (0, f"{made}/tumor.yaml: policy of tumor is valid\n", "")


def test_every_problem_is_told_with_its_line(rmv: Rmv, tmp_path: Path) -> None:
    made = folder(tmp_path, bad=BAD.replace("serve: v2", "serve: v8"), broken="model: [")

    ran = rmv("validate", "-f", made)

    assert ran.code == 1
    lines = ran.out.splitlines()
    assert [line for line in lines if line.startswith(f"{made}/bad.yaml:8:") and "v8" in line]
    assert [line for line in lines if line.startswith(f"{made}/bad.yaml:9:") and "v9" in line]
    assert [line for line in lines if line.startswith(f"{made}/broken.yaml:")]


def test_problems_are_told_to_programs_as_json(rmv: Rmv, tmp_path: Path) -> None:
    ran = rmv("validate", "--json", "-f", folder(tmp_path, bad=BAD))

    told = json.loads(ran.out)
    assert ran.code == 1
    assert told["valid"] is False
    assert told["problems"][0]["path"] == "default"
    assert told["problems"][0]["line"] == 9


def test_two_documents_for_one_model_are_a_problem(rmv: Rmv, tmp_path: Path) -> None:
    made = folder(tmp_path, a=POLICY, b=POLICY)

    ran = rmv("validate", "-f", made)

    assert ran.code == 1
    assert ran.out == f"{made}/b.yaml: model: `tumor` is described in {made}/a.yaml, too\n"


def test_a_path_without_documents_is_a_problem(rmv: Rmv, tmp_path: Path) -> None:
    made = folder(tmp_path)

    ran = rmv("validate", "-f", made, "-f", tmp_path / "none.yaml")

    assert ran.code == 1
    assert ran.out == (
        f"{made}: holds no .json or .yaml or .yml file\n"
        f"{tmp_path}/none.yaml: cannot be read: No such file or directory\n"
    )


def test_folders_below_a_folder_are_read_and_hidden_ones_are_not(
    store: Rmv, tmp_path: Path
) -> None:
    made = folder(tmp_path, tumor=POLICY)
    for name in ("team", "..2026_11_23"):
        (made / name).mkdir()
        (made / name / "fraud.yaml").write_text(POLICY.replace("model: tumor", "model: fraud"))

    applied = store("apply", "-f", made)
    pruned = store("apply", "-f", made, "--prune")

    assert applied.out == "fraud created (revision 1)\ntumor created (revision 1)\n"
    assert pruned.out == "fraud unchanged (revision 1)\ntumor unchanged (revision 1)\n"


def test_folders_that_links_lead_to_again_are_read_once(rmv: Rmv, tmp_path: Path) -> None:
    made = folder(tmp_path, tumor=POLICY)
    for name in ("around", "again"):  # each level of the one has both below it
        (made / name).symlink_to(".")

    assert rmv("validate", "-f", made).out == f"{made}/tumor.yaml: policy of tumor is valid\n"


def test_what_is_no_regular_file_in_a_folder_is_not_waited_for(rmv: Rmv, tmp_path: Path) -> None:
    made = folder(tmp_path, tumor=POLICY)
    os.mkfifo(made / "pipe.yaml")

    ran = rmv("validate", "-f", made)

    assert ran.code == 1
    assert "pipe.yaml: cannot be read: not a regular file" in ran.out + ran.err


def test_a_suffix_in_capitals_is_one_too(store: Rmv, tmp_path: Path) -> None:
    made = folder(tmp_path)
    (made / "TUMOR.YAML").write_text(POLICY)

    assert store("apply", "-f", made).code == 0
    assert "unchanged" in store("apply", "--prune", "-f", made).out


def test_a_document_may_come_from_standard_input(rmv: Rmv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BAD.encode())))

    ran = rmv("validate", "-f", "-")

    assert ran.code == 1
    assert ran.out.startswith("stdin:9:")


def test_an_apply_creates_then_leaves_then_configures(store: Rmv, tmp_path: Path) -> None:
    made = folder(tmp_path, tumor=POLICY)

    created = store("apply", "-f", made, "--comment", "first", "--actor", "ann")
    unchanged = store("apply", "-f", made)
    folder(tmp_path, tumor=POLICY.replace("default: v1", "default: v2"))
    configured = store("apply", "-f", made, "--json")

    assert created == (0, "tumor created (revision 1)\n", "")
    assert unchanged == (0, "tumor unchanged (revision 1)\n", "")
    assert json.loads(configured.out) == [
        {
            "model": "tumor",
            "outcome": "configured",
            "revision": 2,
            "replaced": "",
            "changes": [{"path": "default", "before": "v1", "after": "v2"}],
            "edits": [],
            "compared_with": None,
        }
    ]


def test_one_invalid_document_keeps_all_from_being_applied(store: Rmv, tmp_path: Path) -> None:
    made = folder(tmp_path, bad=BAD, tumor=POLICY)

    ran = store("apply", "-f", made)

    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.startswith(f"error: {made}/bad.yaml:9:")
    assert json.loads(store("get", "--json").out) == []


class RacedStore(MemoryStore):
    """A store whose document changes right after it was read."""

    async def get_document(self, model: str) -> bytes | None:
        raw = await super().get_document(model)
        policy = codec.decode(POLICY.replace("default: v1", "default: v2").encode(), source="")
        await self.commit(policy, expected=raw, actor="bob", comment="")
        return raw


async def test_a_change_made_meanwhile_is_not_overwritten() -> None:
    store = RacedStore()
    policy = codec.decode(POLICY.encode(), source="")

    with pytest.raises(StoreConflictError, match="tumor: somebody else changed it just now"):
        await apply_policy(store, policy, "ann", "")

    (last,) = await store.history("tumor")
    assert last.actor == "bob"


def test_what_get_prints_can_be_applied_again(tumor: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "printed.yaml"
    file.write_text(tumor("get", "tumor").out)

    assert tumor("apply", "-f", file).out == "tumor unchanged (revision 1)\n"


def test_policies_are_listed_and_their_history_kept(tumor: Rmv) -> None:
    listed = tumor("get").out.splitlines()
    history = json.loads(tumor("history", "tumor", "--json").out)

    assert listed[1].startswith("tumor  1         v1, v2    v1")
    assert [entry["revision"] for entry in history] == [1]


def test_an_unknown_model_is_answered_with_a_similar_one(tumor: Rmv) -> None:
    ran = tumor("get", "tumour")

    assert ran == (
        1,
        "",
        "error: the store has no policy of `tumour`; did you mean `tumor`?\n",
    )


def test_a_policy_that_leaves_callers_without_a_version_is_warned_of(
    store: Rmv, tmp_path: Path
) -> None:
    file = tmp_path / "tumor.yaml"
    file.write_text(POLICY.replace("default: v1\n", ""))

    validated = store("validate", "-f", file)
    as_json = json.loads(store("validate", "-f", file, "--json").out)
    applied = store("apply", "-f", file)

    warning = f"warning: {file}:1:1: no default, and no rule answers everybody: "
    assert (validated.code, applied.code) == (0, 0)
    assert validated.err.startswith(warning)
    assert applied.err.startswith(warning)
    assert as_json["valid"] is True
    assert len(as_json["warnings"]) == 1


def test_a_good_document_from_standard_input_is_named_as_such(
    rmv: Rmv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(POLICY.encode())))

    assert rmv("validate", "-f", "-").out == "stdin: policy of tumor is valid\n"


def test_documents_are_printed_as_yaml_or_json(tumor: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "fraud.yaml"
    file.write_text(POLICY.replace("model: tumor", "model: fraud"))
    tumor("apply", "-f", file)

    one = json.loads(tumor("get", "tumor", "-o", "json").out)
    two = json.loads(tumor("get", "tumor", "fraud", "-o", "json").out)
    all_of_them = tumor("get", "-o", "yaml").out

    assert one["model"] == "tumor"
    assert [each["model"] for each in two] == ["tumor", "fraud"]
    assert [each["model"] for each in yaml.safe_load_all(all_of_them)] == ["fraud", "tumor"]
    assert tumor("get", "tumor", "-o", "xml").code == 2


def test_a_window_that_is_past_is_warned_of_by_the_clock(rmv: Rmv, tmp_path: Path) -> None:
    when = 'rules: [{id: past, when: {time: {until: "2001-01-01T00:00:00Z"}}, serve: v1}]'
    file = tmp_path / "m.yaml"
    file.write_text(f"model: m\nversions: {{v1: {{endpoints: [http://h]}}}}\ndefault: v1\n{when}\n")

    ran = rmv("validate", "-f", file)

    assert ran.code == 0
    assert "rules[0].when.time.until: matches nobody any more: it is past" in ran.err


def test_warnings_are_told_apart_from_problems_and_fail_nothing(rmv: Rmv, tmp_path: Path) -> None:
    draining = POLICY.replace(
        '"http://127.0.0.1:9002"]', '"http://127.0.0.1:9002"], state: draining'
    )
    made = folder(tmp_path, tumor=draining)

    ran = rmv("validate", "--json", "-f", made)

    assert ran.code == 0
    assert json.loads(ran.out) == {
        "valid": True,
        "problems": [],
        "warnings": [
            {
                "source": f"{made}/tumor.yaml",
                "path": "rules[0].serve",
                "reason": "serves nobody now: v2 is draining",
                "line": 8,
                "column": 12,
            }
        ],
    }


def test_a_validate_that_is_not_understood_ends_with_2(rmv: Rmv, tmp_path: Path) -> None:
    bad = tmp_path / "rmv.toml"
    bad.write_text('[endpoints]\nallow = ["10.0.0.1/8"]\n')

    assert rmv("validate").code == 2
    assert rmv("validate", "-f", tmp_path, "--config", bad).code == 2
    assert rmv("validate", "-f", tmp_path, "--config", tmp_path / "none.toml").code == 2


def test_endpoints_are_held_to_the_sidecars_own_list(store: Rmv, tmp_path: Path) -> None:
    config = tmp_path / "rmv.toml"
    config.write_text('[endpoints]\nallow = ["127.0.0.0/8:9001"]\n')
    made = folder(tmp_path, tumor=POLICY)

    before = store("validate", "-f", made)
    validated = store("validate", "-f", made, "--config", config)
    applied = store("apply", "-f", made, "--config", config)

    line = (
        f'{made}/tumor.yaml:4:20: versions.v2.endpoints[0]: "http://127.0.0.1:9002": '
        "not one of the hosts and networks of the setting endpoints.allow"
    )
    assert before.code == 0
    assert validated == (1, f"{line}\n", "")
    assert applied == (1, "", f"error: {line}\n")


def test_a_file_over_the_limit_is_refused_with_the_place_where_it_ends(
    rmv: Rmv, tmp_path: Path
) -> None:
    file = tmp_path / "large.yaml"
    file.write_bytes(b"model: m\n" + b"#" * 1024 * 1024)

    ran = rmv("validate", "-f", file)

    assert ran.code == 1
    assert ran.out == f"{file}:2:1048568: too large: a document has at most 1048576 bytes\n"


def test_the_schema_is_printed_for_editors(rmv: Rmv) -> None:
    ran = rmv("schema")

    assert ran.code == 0
    assert ran.out == (ROOT / "docs" / "policy.schema.json").read_text()
    assert rmv("schema", "--json") == rmv("--json", "schema") == ran


def test_a_json_file_that_is_no_json_is_warned_of(rmv: Rmv, tmp_path: Path) -> None:
    file = tmp_path / "tumor.json"
    file.write_text('{"model": "tumor", "versions": {"v1": {"endpoints": ["http://h:1"]}},}')

    ran = rmv("validate", "-f", file)

    assert ran.code == 0
    assert f"warning: {file}: no JSON, so it is read as YAML: " in ran.err
