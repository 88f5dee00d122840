"""`rmv import mlflow` and `rmv sync mlflow` make revisions of what an MLflow server says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.mlflow import COMMIT, SHA, running_mlflow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Ran, Rmv
    from tests.support.mlflow import Mlflow

CREDIT = """\
model: credit
versions:
  v3: {endpoints: ["http://127.0.0.1:9003"]}
  v4: {endpoints: ["http://127.0.0.1:9004"]}
labels: {old: v3}
default: v3
"""


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    for name in ("TRACKING_URI", "TRACKING_TOKEN", "TRACKING_USERNAME", "TRACKING_PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    with running_mlflow() as server:
        server.has_version()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        yield server


@pytest.fixture
def credit(store: Rmv, tmp_path: Path) -> Rmv:
    """Run the command on a store that holds the policy of `credit`."""
    file = tmp_path / "credit.yaml"
    file.write_text(CREDIT)
    assert store("apply", "-f", file).code == 0
    return store


def imported(rmv: Rmv, *more: str) -> Ran:
    return rmv("import", "mlflow", "--model", "credit", "--version", "3", *more)


def lineage(rmv: Rmv, version: str = "v3") -> dict[str, object]:
    told: dict[str, object] = json.loads(rmv("lineage", f"credit@{version}", "--json").out)
    return told


def newest(rmv: Rmv) -> dict[str, object]:
    told: list[dict[str, object]] = json.loads(rmv("history", "credit", "--json").out)
    return told[0]


def test_a_version_gets_the_lineage_that_mlflow_knows(credit: Rmv, mlflow: Mlflow) -> None:
    ran = imported(credit)

    assert ran.code == 0, ran.err
    told = lineage(credit)
    assert ran.out.startswith(f"credit@v3: lineage {told['digest']} (revision 2)\n")
    assert "note: the data set holdout is for eval: no training data\n" in ran.err
    found = told["lineage"]
    assert isinstance(found, dict)
    assert found.pop("config").startswith("sha256:")
    assert found == {
        "registry": f"{mlflow.url}/#/models/credit/versions/3",
        "run": "r1",
        "git": COMMIT,
        "training_data": [{"name": "loans", "digest": "mlflow:1a2b3c4d"}],
        "signature": {
            "inputs": [{"type": "double", "name": "income"}],
            "outputs": [{"type": "int64", "shape": [-1]}],
        },
        "owner": "ada",
        "created": "2025-11-23T13:00:00.123Z",
    }


def test_an_import_is_a_revision_with_its_actor_and_why(credit: Rmv, mlflow: Mlflow) -> None:
    imported(credit, "--actor", "ci", "--comment", "released")
    one = newest(credit)
    mlflow.has_version(user_id="grace")
    imported(credit)
    other = newest(credit)

    assert (one["revision"], one["actor"], one["comment"]) == (2, "ci", "released")
    assert (other["revision"], other["comment"]) == (
        3,
        "lineage of v3 from MLflow: credit version 3",
    )


def test_what_is_there_already_is_no_new_revision(credit: Rmv, mlflow: Mlflow) -> None:
    imported(credit)

    ran = imported(credit)

    assert " already (revision 2)\n" in ran.out
    assert newest(credit)["revision"] == 2


def test_an_alias_leads_to_the_version(credit: Rmv, mlflow: Mlflow) -> None:
    ran = credit("import", "mlflow", "--model", "credit", "--alias", "champion", "--json")

    told = json.loads(ran.out)
    assert (told["model"], told["version"], told["revision"]) == ("credit", "v3", 2)
    assert [one["path"] for one in told["changes"]]


def test_a_dry_run_tells_and_changes_nothing(credit: Rmv, mlflow: Mlflow) -> None:
    ran = imported(credit, "--dry-run")

    assert "(dry run)" in ran.out
    assert newest(credit)["revision"] == 1
    assert lineage(credit)["lineage"] is None


def test_the_version_here_may_be_called_otherwise(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_version("7")

    ran = imported(credit, "--as", "credit@v4")

    assert ran.code == 0, ran.err
    assert lineage(credit, "v4")["lineage"]


def test_a_version_that_was_read_before_is_known_again(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_version("7")
    imported(credit, "--as", "v4")
    mlflow.has_version("7", user_id="grace")

    ran = imported(credit)

    assert ran.out.startswith("credit@v4: lineage ")


def test_of_two_that_were_read_from_one_the_one_called_so_is_it(
    credit: Rmv, mlflow: Mlflow, tmp_path: Path
) -> None:
    (tmp_path / "credit.yaml").write_text(
        CREDIT.replace("  v3: {", "  blue: {\n  v3: {", 1).replace(
            "blue: {\n", 'blue: {endpoints: ["http://127.0.0.1:9005"]}\n'
        )
    )
    assert credit("apply", "-f", tmp_path / "credit.yaml").code == 0
    imported(credit)
    imported(credit, "--as", "credit@blue")

    assert imported(credit).out.startswith("credit@v3: ")


def test_a_version_that_the_policy_lacks_is_told(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_version("7")

    ran = imported(credit)

    assert ran.code == 1
    assert "the policy of credit has no version 7 or v7" in ran.err
    assert newest(credit)["revision"] == 1


def test_a_name_that_is_known_to_be_another_version_is_not_taken(
    credit: Rmv, mlflow: Mlflow
) -> None:
    mlflow.has_version("7")
    imported(credit, "--as", "v3")
    mlflow.has_version("3")

    assert "has no version 3 or v3, and none that was read from there" in imported(credit).err


@pytest.mark.parametrize(
    "more", [[], ["--version", "3", "--alias", "champion"], ["--version", "3", "--as", "credit@"]]
)
def test_what_is_not_clear_is_refused(credit: Rmv, mlflow: Mlflow, more: list[str]) -> None:
    assert credit("import", "mlflow", "--model", "credit", *more).code == 2
    assert mlflow.asked == []


def test_another_registry_is_refused_by_name(credit: Rmv, mlflow: Mlflow) -> None:
    ran = credit("import", "wandb", "--model", "credit", "--version", "3")

    assert ran.code == 2
    assert "none of mlflow" in ran.err


def test_a_wrong_tag_changes_nothing(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_version(tags=[{"key": "rmv.image", "value": "latest"}])

    ran = imported(credit)

    assert (ran.code, ran.out) == (1, "")
    assert "the tag rmv.image is no digest" in ran.err
    assert newest(credit)["revision"] == 1


def test_what_no_lineage_may_say_changes_nothing(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_version(run_id="a\x1b[2J")

    ran = imported(credit)

    assert ran.code == 1
    assert "versions.v3.lineage.run: is no printable text" in ran.err
    assert newest(credit)["revision"] == 1


def test_a_file_that_is_not_handed_out_is_a_note(credit: Rmv, mlflow: Mlflow) -> None:
    del mlflow.answers["/model-versions/get-artifact"]

    ran = imported(credit)

    assert ran.code == 0
    assert "the signature is not told" in ran.err


@pytest.mark.parametrize("body", [b"\x00", b"signature: {inputs: '['}", b"a: 1\na: 2"])
def test_a_file_that_cannot_be_read_is_a_note(credit: Rmv, mlflow: Mlflow, body: bytes) -> None:
    mlflow.says("/model-versions/get-artifact", body)

    ran = imported(credit)

    assert ran.code == 0
    assert "the signature is not told: " in ran.err


def test_a_server_that_has_no_such_thing_is_told(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.answers.clear()

    ran = imported(credit, "--json")

    assert ran.code == 1
    assert "there is no such thing" in json.loads(ran.err)["error"]


def test_digests_of_tags_are_taken(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_version(tags=[{"key": "rmv.image", "value": SHA}])
    imported(credit)

    assert lineage(credit)["lineage"]["image"] == SHA  # type: ignore[index]  # a mapping


def synced(rmv: Rmv, *more: str) -> Ran:
    return rmv("sync", "mlflow", "--model", "credit", *more)


def test_aliases_become_labels_in_one_commit(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_aliases(champion="3", challenger="4")

    ran = synced(credit)

    assert ran.out.splitlines() == [
        "ALIAS       THERE  HERE  WAS  OUTCOME",
        "challenger  4      v4    -    set",
        "champion    3      v3    -    set",
        "credit: 2 changed (revision 2)",
    ]
    assert ran.err == "note: no alias there, and left as they are: old\n"
    labels = json.loads(credit("get", "credit", "--json").out)["labels"]
    assert labels == {"old": "v3", "challenger": "v4", "champion": "v3"}
    assert newest(credit)["comment"] == "aliases of MLflow: challenger is v4, champion is v3"


def test_an_alias_that_moved_moves_its_label(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_aliases(old="4")

    (row,) = json.loads(synced(credit, "--json").out)["aliases"]

    assert row == {
        "alias": "old",
        "registered": "4",
        "version": "v4",
        "before": "v3",
        "outcome": "moved",
    }


def test_what_cannot_be_a_label_is_told_and_left_out(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_aliases(**{"old": "9", "v4": "3", "the one": "3", "champion": "3"})

    told = json.loads(synced(credit, "--json").out)

    assert {one["alias"]: one["outcome"] for one in told["aliases"]} == {
        "champion": "set",
        "old": "no such version",
        "the one": "no name for a label",
        "v4": "a version is called so",
    }
    assert json.loads(credit("get", "credit", "--json").out)["labels"] == {
        "champion": "v3",
        "old": "v3",
    }


def test_labels_that_are_right_are_no_new_revision(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_aliases(old="3")

    assert synced(credit).out.endswith("credit: 0 changed (revision 1)\n")


def test_a_dry_run_moves_no_label(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_aliases(old="4")

    assert synced(credit, "--dry-run").out.endswith("credit: 1 changed (dry run)\n")
    assert newest(credit)["revision"] == 1


def test_a_model_without_aliases_changes_nothing(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_aliases()

    assert synced(credit).out == "credit: it has no alias there\n"


def test_a_model_may_be_called_otherwise_there(credit: Rmv, mlflow: Mlflow) -> None:
    mlflow.has_aliases(champion="3")

    ran = credit("sync", "mlflow", "--model", "prod.credit", "--as", "credit")

    assert "champion  3      v3    -    set" in ran.out
    assert mlflow.asked[0].query == {"name": "prod.credit"}


def test_what_is_read_is_signed_like_any_commit(
    credit: Rmv, mlflow: Mlflow, tmp_path: Path
) -> None:
    assert credit("keygen", "ann", "--dir", tmp_path).code == 0
    key = tmp_path / "ann.key"
    unsigned = imported(credit, "--key", str(key))
    assert credit("apply", "-f", tmp_path / "credit.yaml", "--key", key).code == 0
    mlflow.has_aliases(champion="3")

    ran = [imported(credit, "--key", str(key)), synced(credit, "--key", str(key))]

    assert unsigned.code == 1
    assert "what is stored of credit is not to be signed anew" in unsigned.err
    assert [one.code for one in ran] == [0, 0], ran
    assert credit("verify", "--trust", tmp_path / "ann.pub").code == 0
