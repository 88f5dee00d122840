"""The policies in `policies/` are what an operator would copy: all of them must work."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.policy.codec import decode, encode, load
from sidecar.policy.resolver import resolve, shadows_for
from sidecar.policy.snapshot import compile_snapshot
from tests.policy.examples import caller, make_head

SAMPLES = sorted((Path(__file__).parents[2] / "policies").glob("*.yaml"))
TUMOR = next(path for path in SAMPLES if path.name == "tumor.yaml")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_is_valid_and_compiles(path: Path) -> None:
    policy = load(path.read_bytes(), source=path.name)

    assert decode(encode(policy), source=path.name) == policy
    assert compile_snapshot(policy, {}, {}).model == policy.model


@pytest.mark.parametrize(
    ("tenant", "version", "reason"),
    [("globex", "v2", "RULE:globex"), ("initech", "v1", "SPLIT:canary"), ("", "v1", "DEFAULT")],
)
def test_the_demo_policy_serves_each_tenant_as_it_says(
    tenant: str, version: str, reason: str
) -> None:
    policy = load(TUMOR.read_bytes(), source="tumor.yaml")
    snapshot = compile_snapshot(policy, {}, {})

    decision = resolve(snapshot, caller(tenant), make_head())

    assert (decision.version, decision.reason) == (version, reason)
    assert shadows_for(snapshot, caller(tenant), make_head(), decision) == policy.shadows
