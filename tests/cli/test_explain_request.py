"""`rmv explain --request` tells how a sampled request was decided, and decides it again."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sidecar.model.context import Context, ContextSettings
from sidecar.store.connect import open_store

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv

ID = "0123456789abcdef0123456789abcdef"
BETA = Context(
    request_id=ID,
    at_s=1795438800.25,
    model="tumor",
    tenant="acme",
    version="v2",
    reason="RULE:beta",
    revision=1,
    duration_s=0.0125,
    instance="here",
    attributes={"header.x-beta": ("yes",)},
)


def add(*contexts: Context) -> None:
    async def put() -> None:
        store = open_store(os.environ["RMV_REDIS"], os.environ["RMV_PREFIX"])
        await store.add_contexts("tumor", contexts, ContextSettings())
        await store.close()

    asyncio.run(put())


def test_a_request_is_found_by_its_id_and_decided_again(tumor: Rmv) -> None:
    add(BETA)

    ran = tumor("explain", ID)

    assert ran.code == 0
    facts, verdict, *steps = ran.out.split("\n\n")
    told = {line[:13].strip(): line[13:].strip() for line in facts.splitlines()}
    assert told == {
        "request": ID,
        "at": "2026-11-23T13:00:00.250Z",
        "model": "tumor",
        "tenant": "acme",
        "header.x-beta": "yes",
        "version": "v2",
        "reason": "RULE:beta",
        "revision": "1",
        "took": "12.5 ms",
    }
    assert verdict == "decided again by revision 1: the same"
    assert any("rule beta" in step for step in steps)
    assert tumor("explain", ID, "--brief").out == f"{facts}\n\n{verdict}\n"
    assert tumor("explain", "--request", ID).out == ran.out
    assert tumor("explain", "tumor", "--request", ID).out == ran.out


def test_the_revision_of_its_time_decides_and_not_the_newest(tumor: Rmv, tmp_path: Path) -> None:
    add(BETA)
    file = tmp_path / "newer.yaml"
    file.write_text(
        'model: tumor\nversions:\n  v1: {endpoints: ["http://127.0.0.1:9001"]}\ndefault: v1\n'
    )
    assert tumor("apply", "-f", file).code == 0

    told = json.loads(tumor("explain", "--request", ID, "--json").out)

    assert told["request"]["version"] == "v2"
    assert told["again"]["is_same"] is True
    assert told["again"]["trace"]["decision"]["revision"] == 1


def test_what_is_brief_has_no_steps_for_programs_either(tumor: Rmv) -> None:
    add(BETA)

    told = json.loads(tumor("explain", "--request", ID, "--brief", "--json").out)

    assert list(told["again"]["trace"]) == ["decision"]


def test_two_models_are_not_guessed_between(tumor: Rmv) -> None:
    add(BETA)

    ran = tumor("explain", "tumor", "--model", "other", "--request", ID)

    assert ran.code == 2
    assert "two models are named: tumor and other" in ran.err


def test_a_pin_that_came_since_makes_a_difference(tumor: Rmv) -> None:
    add(BETA)
    tumor("pin", "tumor", "acme", "v1")

    ran = tumor("explain", ID)

    assert "decided again by revision 1: v1 (PINNED), for pins, kills" in ran.out


def test_a_version_that_was_not_ready_is_not_ready_again(tumor: Rmv) -> None:
    add(replace(BETA, version="v1", reason="DEFAULT", rejected={"v2": "not-ready"}))

    told = json.loads(tumor("explain", "--request", ID, "--json").out)

    assert told["again"]["is_same"] is True


def test_what_its_context_does_not_tell_is_not_guessed(tumor: Rmv) -> None:
    add(replace(BETA, attributes={}))

    told = json.loads(tumor("explain", "--request", ID, "--json").out)

    assert told["again"]["is_same"] is None
    assert told["again"]["missing"] == ["header.x-beta"]


def test_a_revision_that_is_gone_leaves_the_decision(tumor: Rmv) -> None:
    add(replace(BETA, revision=7))

    ran = tumor("explain", ID)

    assert "reason         RULE:beta" in ran.out
    assert "revision 7 is not in the history" in ran.out


def test_a_request_that_was_not_sampled_is_said_so(tumor: Rmv) -> None:
    ran = tumor("explain", "--request", "nobody")

    assert ran.code == 1
    assert "no request nobody was sampled" in ran.err


def test_what_describes_another_request_is_refused_beside_it(tumor: Rmv) -> None:
    add(BETA)

    for option in (("--tenant", "acme"), ("--path", "/x"), ("--not-ready", "v2")):
        ran = tumor("explain", "--request", ID, *option)

        assert ran.code == 2
        assert "--request is one that came" in ran.err
