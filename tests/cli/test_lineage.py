"""`rmv lineage` tells what versions were made from, and the digest that others may check."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sidecar.model.policy import DataSet, Lineage, Version
from sidecar.policy.lineage import digest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv

SHA = f"sha256:{'a' * 64}"
CREDIT = f"""\
model: credit
versions:
  v1:
    endpoints: ["http://127.0.0.1:9001"]
    lineage:
      run: r1
      training_data: [{{name: loans, digest: "{SHA}"}}]
      feature_set: {{service: applicants, digest: "{SHA}"}}
      signature:
        inputs: [{{type: double, name: income}}, {{type: float32, name: x, shape: [-1, 3]}}]
        params: [{{type: double, name: alpha, optional: true}}]
  v2: {{endpoints: ["http://127.0.0.1:9002"]}}
labels: {{stable: v1}}
default: stable
"""


def applied(rmv: Rmv, tmp_path: Path, text: str = CREDIT) -> None:
    file = tmp_path / "credit.yaml"
    file.write_text(text)
    assert rmv("apply", "-f", file).code == 0


def test_a_version_tells_all_that_it_was_made_from(store: Rmv, tmp_path: Path) -> None:
    applied(store, tmp_path)

    ran = store("lineage", "credit@v1")

    assert ran.code == 0
    facts = dict(line.split("  ", 1) for line in ran.out.splitlines())
    assert {name.strip(): value.strip() for name, value in facts.items()} == {
        "version": "credit@v1",
        "revision": "1",
        "digest": json.loads(store("lineage", "credit@v1", "--json").out)["digest"],
        "run": "r1",
        "training data": f"loans {SHA}",
        "feature set": f"applicants {SHA}",
        "takes": "income: double, x: float32[-1,3]",
        "may be set": "alpha?: double",
    }


def test_programs_get_the_digest_of_the_documents_lineage(store: Rmv, tmp_path: Path) -> None:
    text = CREDIT.partition("      feature_set")[0] + "default: v1\n"
    applied(store, tmp_path, text)

    told = json.loads(store("lineage", "credit:v1", "--json").out)

    expected = Lineage(run="r1", training_data=(DataSet("loans", SHA),))
    assert told["digest"] == digest(Version(endpoints=("http://h",), lineage=expected))
    assert told["lineage"] == {"run": "r1", "training_data": [{"name": "loans", "digest": SHA}]}


def test_a_label_leads_to_its_version(store: Rmv, tmp_path: Path) -> None:
    applied(store, tmp_path)

    assert json.loads(store("lineage", "credit@stable", "--json").out)["version"] == "v1"


def test_a_version_without_lineage_says_so(store: Rmv, tmp_path: Path) -> None:
    applied(store, tmp_path)

    ran = store("lineage", "credit@v2")

    assert (ran.code, ran.out) == (
        0,
        "credit@v2: what it was made from is not told (revision 1)\n",
    )
    told = json.loads(store("lineage", "credit@v2", "--json").out)
    assert (told["digest"], told["lineage"]) == (None, None)


def test_a_model_lists_all_of_its_versions(store: Rmv, tmp_path: Path) -> None:
    applied(store, tmp_path)

    rows = [line.split() for line in store("lineage", "credit").out.splitlines()]

    assert [row[0] for row in rows] == ["VERSION", "v1", "v2"]
    assert rows[1][1].startswith("sha256:")
    assert rows[2][1:] == ["-"] * 5


def test_an_earlier_revision_tells_what_was_said_then(store: Rmv, tmp_path: Path) -> None:
    applied(store, tmp_path)
    applied(store, tmp_path, CREDIT.replace("run: r1", "run: r2"))

    then = json.loads(store("lineage", "credit@v1", "--revision", "1", "--json").out)
    now = json.loads(store("lineage", "credit@v1", "--json").out)

    assert (then["lineage"]["run"], now["lineage"]["run"]) == ("r1", "r2")
    assert then["digest"] != now["digest"]


def test_what_is_not_there_is_told(store: Rmv, tmp_path: Path) -> None:
    applied(store, tmp_path)

    assert "did you mean `v1`" in store("lineage", "credit@v11").err
    assert "no policy of `debit`" in store("lineage", "debit@v1").err
    assert store("lineage", "credit@").code == 2
    assert "no revision 9" in store("lineage", "credit@v1", "--revision", "9").err
