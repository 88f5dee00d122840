"""The Compose file is safe by default, and agrees with the models, the policy and the settings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml
from msgspec import Struct

from sidecar import config
from sidecar.admin.api import SETTLE_S
from sidecar.admin.server import STOP_S
from sidecar.model.limits import Timeouts
from sidecar.runtime.processes import KILL_GRACE_S

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "compose.yaml"
MODELS = ("v1", "v2", "v3")


class Service(Struct):
    """What the tests look at in one service."""

    read_only: bool = False
    cap_drop: list[str] = []
    security_opt: list[str] = []
    command: list[str] = []
    environment: dict[str, str] = {}
    network_mode: str = ""
    networks: list[str] = []
    ports: list[str] = []
    stop_grace_period: str = ""
    healthcheck: dict[str, object] = {}


class Network(Struct):
    """What the tests look at in one network."""

    internal: bool = False


class Compose(Struct):
    """What the tests look at in the file."""

    services: dict[str, Service]
    networks: dict[str, Network]


class Version(Struct):
    """Where a policy says that a version is."""

    endpoints: list[str]


class Policy(Struct):
    """What the tests look at in a policy."""

    model: str
    versions: dict[str, Version]


@pytest.fixture(scope="module")
def compose() -> Compose:
    return msgspec.convert(yaml.safe_load(FILE.read_text()), Compose)


def flags(service: Service) -> dict[str, str]:
    return dict(zip(service.command[::2], service.command[1::2], strict=True))


def compose_tool() -> list[str]:
    """Return a Compose 2 (or newer) command, or skip with the reason."""
    here = Path(sys.executable).parent
    standalone = shutil.which("docker-compose", path=here) or shutil.which("docker-compose")
    docker = shutil.which("docker")
    tried = [[docker, "compose"]] if docker else []
    tried += [[standalone]] if standalone else []
    for command in tried:
        said = subprocess.run([*command, "version"], capture_output=True, text=True, check=False)
        if said.returncode == 0 and re.search(r"Docker Compose version v?[2-9]", said.stdout):
            return command
    pytest.skip("neither `docker compose` nor a docker-compose of version 2 is here")


def test_every_service_is_hardened(compose: Compose) -> None:
    for name, service in compose.services.items():
        assert service.read_only, name
        assert service.cap_drop == ["ALL"], name
        assert service.security_opt == ["no-new-privileges:true"], name


def test_ports_are_published_on_the_loopback_only(compose: Compose) -> None:
    published = {name: s.ports for name, s in compose.services.items() if s.ports}

    assert list(published) == ["sidecar"]
    assert all(port.startswith("127.0.0.1:") for port in published["sidecar"])


def test_the_store_is_on_an_internal_network_without_the_models(compose: Compose) -> None:
    on_it = {name for name, service in compose.services.items() if "store" in service.networks}

    assert compose.networks["store"].internal
    assert on_it == {"valkey", "apply", "sidecar"}
    assert compose.services["valkey"].networks == ["store"]


def test_models_listen_where_the_policy_says(compose: Compose) -> None:
    raw = yaml.safe_load((ROOT / "policies" / "tumor.yaml").read_text())
    policy = msgspec.convert(raw, Policy)

    assert set(policy.versions) == set(MODELS)
    for version, said in policy.versions.items():
        service = compose.services[version]
        assert service.network_mode == "service:sidecar"
        assert said.endpoints == [f"http://127.0.0.1:{flags(service)['--port']}"]
        assert flags(service)["--version"] == version
        assert flags(service).get("--name", "tumor") == policy.model


def test_models_name_files_that_are_there(compose: Compose) -> None:
    for version in MODELS:
        path = ROOT / "deploy" / "demo" / flags(compose.services[version])["--model"]
        assert path.is_file()


def test_everything_that_stays_up_is_watched(compose: Compose) -> None:
    in_the_image = {"sidecar"}
    one_shot = {"keys", "apply"}

    watched = {name for name, service in compose.services.items() if service.healthcheck}

    assert watched == set(compose.services) - in_the_image - one_shot


def test_the_environment_holds_known_settings_only(compose: Compose) -> None:
    settings = config.read(None, compose.services["sidecar"].environment, {})

    assert settings.identity is not None
    assert settings.identity.jwks_file == "/var/lib/rmv/keys/jwks.json"


def test_stopping_waits_until_a_worker_that_does_not_drain_is_killed(compose: Compose) -> None:
    grace = compose.services["sidecar"].stop_grace_period

    workers_s = Timeouts().drain_tunnel_s + KILL_GRACE_S
    assert int(grace.removesuffix("s")) > workers_s + STOP_S + SETTLE_S


def test_keys_are_made_once(compose: Compose, tmp_path: Path) -> None:
    keys = compose.services["keys"]
    code = keys.command[0].replace("/var/lib/rmv", str(tmp_path))

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    first = (tmp_path / "keys" / "jwks.json").read_text()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

    assert (tmp_path / "keys" / "jwks.json").read_text() == first


def test_compose_itself_accepts_the_file() -> None:
    command = [*compose_tool(), "-f", str(FILE), "config", "--quiet"]

    said = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (said.returncode, said.stderr) == (0, "")
