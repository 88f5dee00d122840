"""The Kubernetes sample is safe by default, and its settings are ones that a sidecar takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import yaml

from sidecar import config
from sidecar.admin.api import SETTLE_S
from sidecar.admin.server import STOP_S
from sidecar.model.limits import Timeouts
from sidecar.runtime.processes import KILL_GRACE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = Path(__file__).parents[2] / "deploy" / "kubernetes.yaml"


class Context(msgspec.Struct, rename="camel"):
    """What a container, or all of a pod, may do."""

    run_as_non_root: bool = False
    run_as_user: int = 0
    allow_privilege_escalation: bool = True
    read_only_root_filesystem: bool = False
    capabilities: dict[str, list[str]] = {}


class Container(msgspec.Struct, rename="camel"):
    """What the tests look at in one container."""

    name: str
    security_context: Context
    volume_mounts: list[dict[str, object]] = []


class Pod(msgspec.Struct, rename="camel"):
    """What the tests look at in a pod."""

    containers: list[Container]
    security_context: Context
    termination_grace_period_seconds: float
    automount_service_account_token: bool = True


@pytest.fixture(scope="module")
def objects() -> Mapping[str, dict[str, object]]:
    found: list[dict[str, object]] = list(yaml.safe_load_all(FILE.read_text()))
    return {str(one["kind"]): one for one in found}


@pytest.fixture(scope="module")
def pod(objects: Mapping[str, dict[str, object]]) -> Pod:
    spec = msgspec.convert(objects["Deployment"]["spec"], dict[str, object])
    template = msgspec.convert(spec["template"], dict[str, object])
    return msgspec.convert(template["spec"], Pod)


def test_the_settings_are_taken_and_leave_writes_to_nobody(
    objects: Mapping[str, dict[str, object]], tmp_path: Path
) -> None:
    data = msgspec.convert(objects["ConfigMap"]["data"], dict[str, str])
    (tmp_path / "rmv.toml").write_text(data["rmv.toml"])

    settings = config.load(tmp_path / "rmv.toml", {}, {})

    assert (settings.listen, settings.admin) == (":8080", ":8081")
    assert settings.believed
    assert not settings.admin_tokens


def test_no_container_can_write_its_root_or_become_root(pod: Pod) -> None:
    assert pod.security_context.run_as_non_root
    assert pod.security_context.run_as_user == 65532
    assert not pod.automount_service_account_token
    for one in pod.containers:
        assert one.security_context.read_only_root_filesystem
        assert not one.security_context.allow_privilege_escalation
        assert one.security_context.capabilities == {"drop": ["ALL"]}


def test_the_state_directory_of_the_image_can_be_written(pod: Pod) -> None:
    sidecar = next(one for one in pod.containers if one.name == "sidecar")

    assert {"name": "state", "mountPath": "/var/lib/rmv"} in sidecar.volume_mounts


def test_a_pod_has_the_time_to_drain(pod: Pod) -> None:
    timeouts = Timeouts()
    longest_s = max(timeouts.drain_s, timeouts.drain_tunnel_s) + KILL_GRACE_S + STOP_S + SETTLE_S

    assert pod.termination_grace_period_seconds > longest_s
