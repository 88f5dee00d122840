"""What the demo's models say of its rows, computed without a sidecar, and the report it keeps."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import msgspec
from msgspec import Struct

from deploy.demo.model_server import load, probability

DEMO = Path(__file__).parents[2] / "deploy" / "demo"


class Decided(Struct):
    """What the sidecar's own log says of a decision."""

    version: str


class Exchange(Struct):
    """A line of the sidecar's own log."""

    tenant: str
    status: int
    decision: Decided


class Mean(Struct):
    estimate: float


class Measure(Struct):
    name: str
    mean: Mean


class Agreement(Struct):
    number: int
    agreed: int


class Labels(Struct):
    confusion: dict[str, dict[str, int]]


class Tenth(Struct):
    least: float
    number: int
    primary: float
    shadow: float


class Against(Struct):
    primary: str
    agreement: Agreement
    labels: Labels
    measures: list[Measure]
    calibration: list[Tenth]


class Ledger(Struct):
    eligible: int
    mirrored: int
    compared: int


class Account(Struct):
    ledger: Ledger


class KeptReport(Struct):
    """What is read here of the report that the demo keeps."""

    account: Account
    against: list[Against]


def offline_pairs(log: Path) -> dict[str, list[tuple[float, float]]]:
    """Compute what every answered row gets, by the version that the log says has answered it.

    Each tenant sends every row once, one after another, before anything else.
    """
    rows: list[list[float]] = json.loads((DEMO / "rows.json").read_text())["rows"]
    models = {name: load(DEMO / "models" / f"{name}.json") for name in ("v1", "v2", "v3")}
    served: dict[str, list[str]] = defaultdict(list)
    for line in log.read_bytes().splitlines():
        one = msgspec.json.decode(line, type=Exchange)
        if one.status == 200:
            served[one.tenant].append(one.decision.version)
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for versions in served.values():
        for row, version in zip(rows, versions, strict=False):  # what came later was no row's turn
            pair = probability(models[version], row), probability(models["v3"], row)
            found[version].append(pair)
    return dict(found)


def label(chance: float) -> str:
    """Return what a probability makes of a row."""
    return "malignant" if chance >= 0.5 else "benign"
