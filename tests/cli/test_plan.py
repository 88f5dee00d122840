"""`rmv plan` tells who would move, from requests that were sampled before."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import msgspec
import pytest
from redis import Redis

from sidecar.model.context import Context, ContextSettings
from sidecar.store.connect import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sidecar.model.context import Values
    from tests.cli.conftest import Rmv

V1 = '  v1: {endpoints: ["http://127.0.0.1:9001"]}\n'


def sampled(
    tenant: str, number: int = 1, attributes: dict[str, Values] | None = None
) -> list[Context]:
    """Return contexts of requests that v1 served, by a policy that asks for X-Beta."""
    return [
        Context(
            request_id=f"{tenant}-{n}",
            at_s=1000.0 + n,
            model="tumor",
            tenant=tenant,
            version="v1",
            reason="DEFAULT",
            revision=1,
            duration_s=0.5,
            instance="here",
            attributes={"header.x-beta": ()} | (attributes or {}),
            stands_for=10,
        )
        for n in range(number)
    ]


def live(name: str, unready: str = "") -> None:
    """Tell of a live sidecar as its heartbeat does."""
    prefix = os.environ["RMV_PREFIX"]
    with Redis.from_url(os.environ["RMV_REDIS"]) as client:
        fields = {"sidecar": name, "revision:tumor": "1", "unready:tumor": unready}
        client.hset(f"{prefix}:fleet:{name}", mapping=fields)
        client.expire(f"{prefix}:fleet:{name}", 60)
        client.zadd(f"{prefix}:fleet", {name: 0})


def add(contexts: Iterable[Context]) -> None:
    async def put() -> None:
        store = open_store(os.environ["RMV_REDIS"], os.environ["RMV_PREFIX"])
        await store.add_contexts("tumor", tuple(contexts), ContextSettings())
        await store.close()

    asyncio.run(put())


@pytest.fixture
def wanted(tmp_path: Path) -> Path:
    """A document whose rules give v2 to globex and refuse hooli."""
    file = tmp_path / "wanted.yaml"
    file.write_text(
        f"model: tumor\nversions:\n{V1}"
        '  v2: {endpoints: ["http://127.0.0.1:9002"], max_concurrency: 1}\n'
        "rules:\n"
        "  - {id: globex, when: {tenant: globex}, serve: v2}\n"
        "  - {id: hooli, when: {tenant: hooli}, deny: not you}\n"
        '  - {id: beta, when: {tenant: initech, header.x-new: "yes"}, serve: v2}\n'
        "default: v1\n"
    )
    return file


def test_who_moves_is_printed_with_shares_loads_and_causes(tumor: Rmv, wanted: Path) -> None:
    add([*sampled("acme", 11), *sampled("globex", 11), *sampled("hooli", 2)])

    ran = tumor("plan", "-f", wanted)

    assert ran.code == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert "tumor: 24 sampled requests of about 240, at 1 sidecar, in 10s until" in ran.out
    assert ["v1", "100.0%", "->", "45.8%", "3", "->", "1", "12.0", "->", "5.5", "-"] in lines
    assert [
        "v2",
        "0.0%",
        "->",
        "45.8%",
        "0",
        "->",
        "1",
        "0.0",
        "->",
        "5.5",
        "-",
        "->",
        "1",
    ] in lines
    assert ["globex", "v1", "v2", "110", "(45.8%)", "RULE:globex"] in lines
    assert ["hooli", "v1", "refused", "20", "(8.3%)", "DENIED:rule"] in lines
    assert "54.2% of the requests move, of 2 tenants" in ran.out
    assert "v2 would have about 5.5 requests at a time, over its max_concurrency of 1" in ran.err
    assert "8.3% of the requests, of 1 tenant, would be refused" in ran.err


def test_the_same_is_told_to_programs(tumor: Rmv, wanted: Path) -> None:
    add([*sampled("acme"), *sampled("globex"), *sampled("hooli"), *sampled("initech", 2)])

    [told] = json.loads(tumor("plan", "-f", wanted, "--json").out)

    assert (told["model"], told["contexts"], told["requests"]) == ("tumor", 5, 50)
    assert [(one["tenant"], one["after"]) for one in told["moves"]] == [
        ("globex", "v2"),
        ("hooli", ""),
    ]
    assert told["refused"][0]["detail"] == "not you"
    assert told["over"] == ["v2"]
    assert told["unknown"] == [{"attribute": "header.x-new", "contexts": 2, "requests": 20}]


def test_what_cannot_be_told_is_named(tumor: Rmv, wanted: Path) -> None:
    add([*sampled("acme"), *sampled("initech"), *sampled("initech", 1, {"header.x-new": ("no",)})])

    ran = tumor("plan", "-f", wanted)

    assert "nobody moves, but 33.3% of the requests cannot be told" in ran.out
    assert "of the requests cannot be told: they hang on header.x-new" in ran.err


def test_pins_and_kills_of_the_store_count_on_both_sides(tumor: Rmv, wanted: Path) -> None:
    add([*sampled("globex"), *sampled("hooli"), *sampled("acme")])
    tumor("pin", "tumor", "globex", "v1")
    tumor("kill", "tumor:v2", "--reason", "wrong dose")

    [told] = json.loads(tumor("plan", "-f", wanted, "--json").out)

    assert [one["tenant"] for one in told["moves"]] == ["hooli"]


def test_a_plan_fails_only_for_what_it_is_told_to(tumor: Rmv, wanted: Path) -> None:
    add([*sampled("acme", 11), *sampled("globex", 11)])

    assert tumor("plan", "-f", wanted).code == 0
    assert tumor("plan", "-f", wanted, "--fail-on", "refused").code == 0
    assert tumor("plan", "-f", wanted, "--fail-on", "overload").code == 1

    add(sampled("hooli"))

    assert tumor("plan", "-f", wanted, "--fail-on", "refused").code == 1
    assert tumor("plan", "-f", wanted, "--fail-on", "refused", "--since", "1h").code == 0


def test_a_plan_can_fail_for_what_cannot_be_told(tumor: Rmv, wanted: Path) -> None:
    none_sampled = tumor("plan", "-f", wanted, "--fail-on", "unknown")
    add(sampled("initech"))
    nothing_told = [
        tumor("plan", "-f", wanted, *gates).code
        for gates in ((), ("--fail-on", "refused"), ("--fail-on", "overload"))
    ]
    add(sampled("acme"))

    assert none_sampled.code == 1
    assert nothing_told == [0, 1, 1]
    assert tumor("plan", "-f", wanted, "--fail-on", "refused").code == 0
    assert tumor("plan", "-f", wanted, "--fail-on", "unknown").code == 1


def test_what_a_plan_may_fail_on_is_told_with_the_error(tumor: Rmv, wanted: Path) -> None:
    ran = tumor("plan", "-f", wanted, "--fail-on", "nothing")

    assert ran.code == 2
    assert "'--fail-on': `nothing` is none of refused, overload, unknown" in ran.err
    assert "Value error" not in ran.err


def test_since_leaves_older_requests_out(tumor: Rmv, wanted: Path) -> None:
    add(sampled("globex"))

    ran = tumor("plan", "-f", wanted, "--since", "1h")

    assert ran.out == "tumor: no request was sampled, so nothing can be told\n"


def test_only_the_models_that_are_named_are_planned(tumor: Rmv, wanted: Path) -> None:
    other = wanted.with_name("other.yaml")
    other.write_text(f"model: other\nversions:\n{V1}default: v1\n")

    both = tumor("plan", "-f", wanted, "-f", other, "--json")
    one = tumor("plan", "-f", wanted, "-f", other, "--model", "other", "--json")
    none = tumor("plan", "-f", wanted, "--model", "tumour")

    assert [told["model"] for told in json.loads(both.out)] == ["tumor", "other"]
    assert [told["model"] for told in json.loads(one.out)] == ["other"]
    assert none.code == 2
    assert "no document is of tumour" in none.err


def test_a_document_that_is_not_valid_is_refused_with_its_place(tumor: Rmv, wanted: Path) -> None:
    wanted.write_text(wanted.read_text().replace("default: v1", "default: v9"))

    ran = tumor("plan", "-f", wanted)

    assert ran.code == 1
    assert "default" in ran.err


def test_a_plan_changes_nothing(tumor: Rmv, wanted: Path) -> None:
    add(sampled("globex"))
    before = tumor("get", "tumor", "--json").out

    tumor("plan", "-f", wanted)

    assert tumor("get", "tumor", "--json").out == before


def test_traffic_that_was_decided_otherwise_is_told(tumor: Rmv, wanted: Path) -> None:
    add(sampled("acme"))
    tumor("pin", "tumor", "acme", "v2")

    ran = tumor("plan", "-f", wanted)

    assert "100.0% of the requests got another version when they came" in ran.err


@pytest.mark.parametrize(
    "lie",
    [
        {"at_s": 1e15},
        {"at_s": -1.0},
        {"duration_s": 1e308},
        {"duration_s": -1.0},
        {"stands_for": -1000.0},
        {"stands_for": 1e300},
        {"model": "fraud"},
    ],
    ids=str,
)
def test_a_context_that_cannot_be_true_is_left_out_and_told(
    tumor: Rmv, wanted: Path, lie: dict[str, float | str]
) -> None:
    true = sampled("acme", 2)
    add(true)
    with Redis.from_url(os.environ["RMV_REDIS"]) as client:  # as anybody may
        told = json.dumps(msgspec.to_builtins(true[0]) | lie)
        client.xadd(f"{os.environ['RMV_PREFIX']}:contexts:tumor", {"context": told})

    ran = tumor("plan", "-f", wanted)

    assert ran.code == 0
    assert "tumor: 2 sampled requests" in ran.out
    assert "warning: 1 context of tumor left out" in ran.err


def test_what_is_no_context_is_counted(tumor: Rmv, wanted: Path) -> None:
    add(sampled("acme"))
    with Redis.from_url(os.environ["RMV_REDIS"]) as client:
        for text in ("{", '{"request_id": 3}'):
            client.xadd(f"{os.environ['RMV_PREFIX']}:contexts:tumor", {"context": text})

    ran = tumor("plan", "-f", wanted)
    [told] = json.loads(tumor("plan", "-f", wanted, "--json").out)

    assert "tumor: 1 sampled request of" in ran.out
    assert "warning: 2 contexts of tumor left out: not readable as such\n" in ran.err
    assert told["left_out"] == {"unreadable": 2, "impossible": 0}


def test_a_version_that_no_sidecar_finds_ready_gets_nobody(tumor: Rmv, wanted: Path) -> None:
    add([*sampled("globex"), *sampled("acme")])
    live("one", "v2")
    live("two", "v1 v2")

    ran = tumor("plan", "-f", wanted)
    [told] = json.loads(tumor("plan", "-f", wanted, "--json").out)

    assert told["moves"] == []  # the rule of globex is passed over
    assert told["readiness"] == {
        "sidecars": 2,
        "unready": ["v2"],
        "partly": {"v1": 1},
        "untold": [],
    }
    assert "v2 is not ready: it has no healthy endpoint at any of 2 sidecars\n" in ran.out
    assert "v1 is taken for ready, although it has no healthy endpoint at 1 of 2" in ran.out


def test_an_endpoint_that_nobody_has_looked_at_is_taken_for_ready(tumor: Rmv, wanted: Path) -> None:
    add([*sampled("globex"), *sampled("acme")])
    live("one", "v2")
    wanted.write_text(wanted.read_text().replace(":9002", ":9012"))

    ran = tumor("plan", "-f", wanted)

    assert "globex  v1    v2  10 (50.0%)" in ran.out
    assert "new or changed, and so taken for ready although nobody has looked: v2\n" in ran.out


def test_a_plan_says_that_readiness_is_not_known(tumor: Rmv, wanted: Path) -> None:
    add(sampled("acme"))

    assert "every version is taken for ready, as no live sidecar" in tumor("plan", "-f", wanted).out
