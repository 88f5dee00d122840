"""Lineages and labels from a real MLflow server, which a team's own client told of a model."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.integration.processes import HOST, environment, fetch, free_port, running, status
from tests.integration.sidecar import RMV, Sidecar, sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

SHA = f"sha256:{'a' * 64}"
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
START_S = 240.0  # MLflow migrates a new database, and imports pandas and scikit-learn

pytestmark = pytest.mark.timeout(3 * START_S)


class Registry(NamedTuple):
    """An MLflow server, what its client said it made, and a sidecar with the policy of `credit`."""

    url: str
    made: dict[str, object]
    sidecar: Sidecar
    config: Path

    def rmv(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the sidecar's store, with MLflow's address in the environment."""
        command = [RMV, *arguments, "--config", str(self.config)]
        variables = os.environ | {"MLFLOW_TRACKING_URI": self.url}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=variables
        )

    def told(self, *arguments: str) -> dict[str, object]:
        """Return what a command that has to succeed prints as JSON."""
        ran = self.rmv(*arguments, "--json")
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    programs = environment("mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    url = f"http://{HOST}:{port}"
    argv = [str(programs / "mlflow"), "server", "--host", HOST, "--port", str(port)]
    argv += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    argv += ["--artifacts-destination", str(folder / "artifacts")]
    with running(argv, folder, QUIET | {"PATH": f"{programs}:{os.environ['PATH']}"}) as server:
        server.until("ready", lambda: status(f"{url}/health") == 200, START_S)
        register = Path(__file__).with_name("register.py")
        subprocess.run(
            [str(programs / "python"), str(register), url, str(folder)],
            check=True,
            timeout=START_S,
            env=os.environ | QUIET,
        )
        made = json.loads((folder / "made.json").read_text())
        home = tmp_path_factory.mktemp("sidecar")
        version = {"endpoints": [url]}
        policy = {"model": "credit", "versions": {"v1": version, "v2": version}, "default": "v1"}
        with sidecar(home, policy, "/health") as proxy:
            yield Registry(url, made, proxy, home / "rmv.toml")


def test_a_version_gets_the_lineage_that_its_team_registered(registry: Registry) -> None:
    ran = registry.told("import", "mlflow", "--model", "credit", "--version", "1")

    told = registry.told("lineage", "credit@v1")
    assert told["digest"] == ran["digest"]
    config = hashlib.sha256(b'{"C":"1.0","solver":"lbfgs"}').hexdigest()
    created = datetime.fromtimestamp(registry.made["created_ms"] / 1000, UTC)
    assert told["lineage"] == {
        "registry": f"{registry.url}/#/models/credit/versions/1",
        "run": registry.made["run"],
        "git": "8d5ac0d24c0f1d3a6d2f0f9a3f3d0c0e5f7a9b1c",
        "training_data": [{"name": "loans", "digest": f"mlflow:{registry.made['digest']}"}],
        "config": f"sha256:{config}",
        "image": SHA,
        "signature": {
            "inputs": [{"type": "double", "name": "income"}, {"type": "double", "name": "age"}],
            "outputs": [{"type": "int64", "shape": [-1]}],
        },
        "owner": told["lineage"]["owner"],
        "created": created.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z",
    }


def test_an_alias_leads_to_the_same_version(registry: Registry) -> None:
    one = registry.told("import", "mlflow", "--model", "credit", "--version", "1")
    other = registry.told("import", "mlflow", "--model", "credit", "--alias", "champion")

    assert (other["version"], other["digest"], other["changes"]) == ("v1", one["digest"], [])


def test_an_alias_becomes_a_label_that_callers_can_ask_for(registry: Registry) -> None:
    registry.told("import", "mlflow", "--model", "credit", "--version", "1")

    rows = registry.told("sync", "mlflow", "--model", "credit")["aliases"]

    assert [(row["alias"], row["version"]) for row in rows] == [("champion", "v1")]
    asked = {"X-Model-Version": "champion"}
    url = f"{registry.sidecar.url}/health"
    registry.sidecar.server.until(
        "deciding by the label", lambda: status(url, headers=asked) == 200
    )
    assert fetch(url, headers=asked)[1]["x-model-version"] == "v1"


def test_an_alias_that_is_moved_there_is_moved_here(registry: Registry) -> None:
    registry.told("sync", "mlflow", "--model", "credit")
    before = registry.told("get", "credit")["labels"]
    alias = json.dumps({"name": "credit", "alias": "next", "version": "1"}).encode()
    api = f"{registry.url}/api/2.0/mlflow/registered-models/alias"
    assert fetch(api, alias, {"Content-Type": "application/json"})[0] == 200

    registry.told("sync", "mlflow", "--model", "credit")

    assert registry.told("get", "credit")["labels"] == {**before, "next": "v1"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ("--model", "nope", "--version", "1", "--as", "credit@v1"),
            "name=nope, version=1) not found",
        ),
        (("--model", "credit", "--version", "9"), "not found"),
        (("--model", "credit", "--alias", "nobody"), "nobody not found"),
    ],
)
def test_what_is_not_registered_is_told_in_mlflows_words(
    registry: Registry, arguments: tuple[str, ...], reason: str
) -> None:
    ran = registry.rmv("import", "mlflow", *arguments)

    assert (ran.returncode, ran.stdout) == (1, "")
    assert reason in ran.stderr
