"""Two scikit-learn versions in one MLServer, one `rewrite` each, used with Triton's client."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.integration.processes import HOST, environment, fetch, free_port, running, status
from tests.integration.sidecar import Sidecar, sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

numpy = pytest.importorskip("numpy", reason="tritonclient[http] is not installed")
triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
errors = pytest.importorskip("tritonclient.utils", reason="tritonclient[http] is not installed")

INFER = "/v2/models/tumor/infer"
READY = "/v2/models/tumor/ready"
SCORES = "predict_proba"
CALLERS = {"globex": "1", "beta": "2", "pinned": "2"}  # by default, by rule, by pin


class Deployment(NamedTuple):
    """A sidecar before an MLServer; `rows`, and each version's own scores of them."""

    sidecar: Sidecar
    mlserver: str
    rows: numpy.ndarray
    answers: dict[str, numpy.ndarray]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    programs = environment("mlserver")
    models = tmp_path_factory.mktemp("mlserver")
    port, grpc_port = free_port(), free_port()
    train = [str(programs / "python"), str(Path(__file__).with_name("train.py")), str(models)]
    subprocess.run([*train, str(port), str(grpc_port)], check=True, timeout=120)
    expected = json.loads((models / "expected.json").read_text())
    url = f"http://{HOST}:{port}"
    with ExitStack() as stack:
        server = stack.enter_context(running([str(programs / "mlserver"), "start", "."], models))
        server.until("ready", lambda: status(f"{url}/v2/health/ready") == 200)
        folder = tmp_path_factory.mktemp("sidecar")
        proxy = stack.enter_context(sidecar(folder, policy(url), READY))
        proxy.store.set("rmv:pin:tumor:pinned", "2")
        proxy.server.until("following the pin", lambda: proxy.version_for(READY, "pinned") == "2")
        answers = {version: numpy.array(own) for version, own in expected["answers"].items()}
        yield Deployment(proxy, url, numpy.array(expected["rows"]), answers)


def policy(url: str) -> dict[str, object]:
    rewrite = {"path": "/v2/models/tumor/versions/{version}{rest}"}
    version = {"endpoints": [url], "rewrite": rewrite}
    return {
        "model": "tumor",
        "versions": {"1": version, "2": version},
        "rules": [{"id": "early-access", "when": {"tenant": ["beta"]}, "serve": "2"}],
        "default": "1",
    }


@pytest.fixture
def client(deployment: Deployment) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(deployment.sidecar.address, concurrency=8) as client:
        yield client


def tensor(rows: numpy.ndarray) -> list[triton.InferInput]:
    tensor = triton.InferInput("rows", list(rows.shape), "FP64")
    return [tensor.set_data_from_numpy(rows, binary_data=False)]


def scores_only() -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(SCORES, binary_data=False)]


def refusal(error: pytest.ExceptionInfo[errors.InferenceServerException]) -> str:
    return str(error.value.status())


def test_the_server_is_live_and_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "mlserver"


def test_model_and_versions_are_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready("tumor")
    assert client.is_model_ready("tumor", "1")
    assert client.is_model_ready("tumor", "2")
    assert not client.is_model_ready("tumor", "3")


def test_the_two_versions_disagree(deployment: Deployment) -> None:
    assert not numpy.array_equal(deployment.answers["1"], deployment.answers["2"])


@pytest.mark.parametrize(("tenant", "version"), CALLERS.items())
def test_a_tenant_gets_its_versions_own_answers(
    deployment: Deployment, client: triton.InferenceServerClient, tenant: str, version: str
) -> None:
    result = client.infer(
        "tumor", tensor(deployment.rows), outputs=scores_only(), headers={"X-Tenant": tenant}
    )

    assert result.get_response()["model_version"] == version
    assert numpy.array_equal(result.as_numpy(SCORES), deployment.answers[version])


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_version_named_by_header_serves(
    deployment: Deployment, client: triton.InferenceServerClient, version: str
) -> None:
    headers = {"X-Model-Version": version}

    result = client.infer("tumor", tensor(deployment.rows), outputs=scores_only(), headers=headers)

    assert numpy.array_equal(result.as_numpy(SCORES), deployment.answers[version])


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_version_named_in_the_path_beats_the_pin(
    deployment: Deployment, client: triton.InferenceServerClient, version: str
) -> None:
    result = client.infer(
        "tumor",
        tensor(deployment.rows),
        model_version=version,
        outputs=scores_only(),
        headers={"X-Tenant": "pinned"},
    )

    assert numpy.array_equal(result.as_numpy(SCORES), deployment.answers[version])


def test_an_unknown_version_is_refused_by_the_sidecar(
    deployment: Deployment, client: triton.InferenceServerClient
) -> None:
    with pytest.raises(errors.InferenceServerException) as refused:
        client.infer("tumor", tensor(deployment.rows), model_version="3")

    assert "404" in refusal(refused)


def test_killing_a_version_in_redis_stops_it_and_unkilling_brings_it_back(
    deployment: Deployment, client: triton.InferenceServerClient
) -> None:
    sidecar = deployment.sidecar

    sidecar.store.set("rmv:kill:tumor:2", "bad outputs")
    sidecar.server.until("the kill holds", lambda: not client.is_model_ready("tumor", "2"))
    sidecar.store.delete("rmv:kill:tumor:2")
    sidecar.server.until("it is back", lambda: client.is_model_ready("tumor", "2"))

    result = client.infer("tumor", tensor(deployment.rows), model_version="2")
    assert result.get_response()["model_version"] == "2"


def test_concurrent_callers_each_get_their_own_version(
    deployment: Deployment, client: triton.InferenceServerClient
) -> None:
    callers = [(tenant, n) for n in range(20) for tenant in CALLERS]
    pending = [
        client.async_infer(
            "tumor",
            tensor(deployment.rows[n : n + 1]),
            outputs=scores_only(),
            headers={"X-Tenant": tenant},
        )
        for tenant, n in callers
    ]

    scores = [one.get_result().as_numpy(SCORES) for one in pending]

    own = [deployment.answers[CALLERS[tenant]][n : n + 1] for tenant, n in callers]
    assert numpy.array_equal(scores, own)


def test_a_servers_own_error_passes_unchanged(deployment: Deployment) -> None:
    headers = {"Content-Type": "application/json"}
    body = b'{"inputs": [{"name": "rows", "shape": [1, 30], "datatype": "FP64"}]}'

    direct = fetch(deployment.mlserver + INFER, body, headers)
    through = fetch(deployment.sidecar.url + INFER, body, headers)

    assert direct[0] == 422
    assert through[0] == direct[0]
    assert through[2] == direct[2]
    assert through[1]["content-type"] == direct[1]["content-type"]
