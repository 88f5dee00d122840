"""The policies in `policies/` are what an operator would copy: all of them must work as told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sidecar.policy.codec import decode, encode, load
from sidecar.policy.moment import seconds
from sidecar.policy.resolver import resolve
from sidecar.policy.snapshot import compile_snapshot
from sidecar.policy.validate import warnings
from tests.policy.examples import caller, due, make_head

if TYPE_CHECKING:
    from sidecar.model.identity import Identity
    from sidecar.model.policy import Policy
    from sidecar.model.request import RequestHead

SAMPLES = sorted((Path(__file__).parents[2] / "policies").glob("*.yaml"))
ACME, INITECH = caller("acme"), caller("initech")
BEFORE, AFTER = "2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z"


def sample(name: str) -> Policy:
    path = next(path for path in SAMPLES if path.stem == name)
    return load(path.read_bytes(), source=path.name)


def head(schema: str = "", at: str = AFTER, asked: str = "", method: str = "POST") -> RequestHead:
    made = make_head(
        method=method.encode(),
        asked_version=asked.encode() or None,
        headers=((b"X-Schema", schema.encode()),) if schema else (),
    )
    made.at_s = seconds(at)
    return made


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_is_valid_and_compiles(path: Path) -> None:
    policy = load(path.read_bytes(), source=path.name)

    assert decode(encode(policy), source=path.name) == policy
    assert compile_snapshot(policy, {}, {}).model == policy.model
    assert not warnings(policy)


@pytest.mark.parametrize(
    ("name", "identity", "request_head", "outcome"),
    [
        ("ab", caller("hooli", subject="s"), head(), "control DEFAULT"),
        ("ab", caller("acme"), head(), "control RULE:autumn-test"),
        ("canary", caller("", scopes=("models:beta",)), head(), "v1 RULE:canary"),
        ("pinning", ACME, head(), "v2 DEFAULT"),
        ("entitlement", caller("sandbox-1"), head(), " DENIED:not-entitled"),
        ("entitlement", caller("acme", claims={"plan": "gold"}), head(), "preview RULE:preview"),
        ("entitlement", caller("acme", app="batch"), head(), " DENIED:rule"),
        ("entitlement", caller("acme", app="batch"), head(method="GET"), "certified DEFAULT"),
        ("segments", caller("globex"), head(), "v2 RULE:pilots"),
        ("segments", caller("acme", claims={"plan": "gold"}), head(), "v2 RULE:pilots"),
        ("segments", caller("umbrella", claims={"plan": "gold"}), head(), "v1 DEFAULT"),
        ("segments", caller("initech", claims={"plan": "gold"}), head(), "v1 DEFAULT"),
        ("compatibility", ACME, head("2.1", BEFORE), " DENIED:incompatible"),
        ("compatibility", ACME, head("2.1"), "v2 RULE:moved"),
        ("compatibility", ACME, head("1.4"), "v1 DEFAULT"),
        ("compatibility", ACME, head(), "v1 DEFAULT"),
        ("compatibility", ACME, head("3.0"), " DENIED:incompatible"),
        ("retirement", ACME, head(), "v3 DEFAULT"),
        ("retirement", ACME, head(asked="v2"), "v2 EXPLICIT"),
        ("retirement", ACME, head(asked="v1"), " DENIED:retired"),
        ("retirement", ACME, head(asked="v4"), " DENIED:not-active"),
        ("labels", caller(""), head(), "v1 DEFAULT"),
        ("labels", ACME, head(asked="canary"), "v2 EXPLICIT"),
        ("tumor", caller("globex"), head(), "v2 RULE:globex"),
        ("tumor", INITECH, head(), "v1 SPLIT:canary"),
        ("tumor", caller(""), head(), "v1 DEFAULT"),
    ],
)
def test_a_sample_serves_each_caller_as_it_says(
    name: str, identity: Identity, request_head: RequestHead, outcome: str
) -> None:
    decision = resolve(compile_snapshot(sample(name), {}, {}), identity, request_head)

    assert f"{decision.version} {decision.reason}" == outcome


@pytest.mark.parametrize(
    ("name", "pin", "request_head", "outcome"),
    [
        ("pinning", "v1", head(), "v1 PINNED"),
        ("compatibility", "v2", head("1.4"), "v1 FALLBACK:incompatible"),
        ("retirement", "v2", head(), "v2 PINNED"),
        ("retirement", "v1", head(), "v3 FALLBACK:retired"),
        ("labels", "canary", head(), "v2 PINNED"),
    ],
)
def test_a_sample_treats_pinned_tenants_as_it_says(
    name: str, pin: str, request_head: RequestHead, outcome: str
) -> None:
    snapshot = compile_snapshot(sample(name), {"acme": pin}, {})

    decision = resolve(snapshot, ACME, request_head)

    assert f"{decision.version} {decision.reason}" == outcome


def test_a_label_that_loses_its_endpoints_falls_back_to_the_stable_one() -> None:
    snapshot = compile_snapshot(sample("labels"), {}, {}, frozenset({"v2"}))

    assert resolve(snapshot, ACME, head()).version == "v1"


@pytest.mark.parametrize(("name", "version"), [("shadow", "v2"), ("tumor", "v3")])
def test_a_sample_copies_to_its_shadow(name: str, version: str) -> None:
    policy = sample(name)
    snapshot = compile_snapshot(policy, {}, {})

    copied = 0
    for n in range(400):
        request_head = make_head(request_id=b"r-%d" % n)
        decision = resolve(snapshot, ACME, request_head)
        copied += len(due(snapshot, ACME, request_head, decision))

    (shadow,) = policy.shadows
    assert shadow.version == version
    assert copied == pytest.approx(4 * shadow.percent, abs=20)
