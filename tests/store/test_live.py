"""What the live policies promise, whoever feeds them."""

from __future__ import annotations

import logging
from collections import deque

import pytest

from sidecar.model.decision import Cause
from sidecar.policy.address import AllowList
from sidecar.store.document import MAX_YAML_CHARS
from sidecar.store.keys import KillKey, PinKey, PolicyKey
from sidecar.store.live import MAX_VALUE_BYTES, Contents, LivePolicies
from tests.store.documents import default_of, document, pin_of

BROKEN = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"model":"fraud"}',
    document(default="v9"),
    document(model="other"),
    document().replace(b"default", b"defautl"),
]


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def live(changes: list[str]) -> LivePolicies:
    live = LivePolicies(on_change=changes.append)
    assert live.put_policy("fraud", document())
    changes.clear()
    return live


@pytest.mark.parametrize("raw", BROKEN)
def test_a_broken_document_is_refused_and_the_last_good_one_serves(
    live: LivePolicies, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "sidecar.store"):
        accepted = live.put_policy("fraud", raw)

    assert not accepted
    assert default_of(live) == "v1"
    assert live.faults["fraud"].startswith("rmv:policy:fraud")
    assert [vars(record)["model"] for record in caplog.records] == ["fraud"]


def test_yaml_is_taken_up_to_its_bound_and_json_past_it(live: LivePolicies) -> None:
    yaml = document(default="v2").replace(b"{", b"{ # of YAML\n", 1)
    blanks = MAX_YAML_CHARS - len(yaml)
    assert live.put_policy("fraud", yaml + blanks * b" ")

    assert not live.put_policy("fraud", yaml + (blanks + 1) * b" ")
    assert "not JSON" in live.faults["fraud"]
    assert not live.put_policy("fraud", b"model: fraud\n" + MAX_YAML_CHARS * b"\n")
    assert "too large for YAML" in live.faults["fraud"]
    assert default_of(live) == "v2"
    assert live.put_policy("fraud", document() + MAX_YAML_CHARS * b" ")


def test_a_fault_names_the_path_and_is_mended_by_the_next_good_document(live: LivePolicies) -> None:
    live.put_policy("fraud", document(default="v9"))
    assert "default" in live.faults["fraud"]

    assert live.put_policy("fraud", document(default="v2"))

    assert live.faults == {}
    assert default_of(live) == "v2"


def test_a_fault_touches_no_other_model(live: LivePolicies) -> None:
    live.put_policy("tumor", document("tumor"))
    before = live.snapshots["tumor"]

    live.put_policy("fraud", b"{")

    assert live.snapshots["tumor"] is before
    assert set(live.faults) == {"fraud"}


def test_the_same_document_again_compiles_and_reports_nothing(
    live: LivePolicies, changes: list[str]
) -> None:
    before = live.snapshots["fraud"]

    assert live.put_policy("fraud", document())
    live.put_policy("tumor", b"{")
    assert not live.put_policy("tumor", b"{")

    assert live.snapshots["fraud"] is before
    assert changes == ["tumor"]


def test_a_pin_changes_in_place_without_a_new_snapshot(
    live: LivePolicies, changes: list[str]
) -> None:
    before = live.snapshots["fraud"]

    live.put_pin("fraud", "acme", "v2")

    assert live.snapshots["fraud"] is before
    assert pin_of(live, "acme") == "v2"
    assert changes == []


def test_a_pin_and_a_kill_may_come_before_their_policy() -> None:
    live = LivePolicies()
    live.put_pin("fraud", "acme", "v2")
    live.put_kill("fraud", "v1", "bad")

    live.put_policy("fraud", document())

    assert pin_of(live, "acme") == "v2"
    assert live.snapshots["fraud"].kills == {"v1": "bad"}


def test_readiness_makes_a_new_snapshot_and_is_no_change_of_the_policy(
    live: LivePolicies, changes: list[str]
) -> None:
    before = live.snapshots["fraud"]

    live.set_unready("fraud", frozenset({"v1"}))
    unready = live.snapshots["fraud"]
    live.set_unready("fraud", frozenset({"v1"}))
    again = live.snapshots["fraud"]
    live.set_unready("fraud", frozenset())

    assert unready is not before
    assert unready.unready == {"v1"}
    assert again is unready
    assert live.snapshots["fraud"].unready == frozenset()
    assert changes == []


def test_readiness_outlives_a_change_of_the_policy_and_may_come_before_it() -> None:
    live = LivePolicies()
    live.set_unready("fraud", frozenset({"v1", "gone"}))

    for default in ("v1", "v2"):
        live.put_policy("fraud", document(default=default))
        assert live.snapshots["fraud"].versions["v1"].out is Cause.NOT_READY
        assert live.snapshots["fraud"].versions["v2"].out is None


def test_a_kill_makes_a_new_snapshot_once(live: LivePolicies, changes: list[str]) -> None:
    live.put_kill("fraud", "v1", "")
    live.put_kill("fraud", "v1", "")
    assert live.snapshots["fraud"].kills == {"v1": ""}

    live.put_kill("fraud", "v1", None)

    assert live.snapshots["fraud"].kills == {}
    assert changes == ["fraud", "fraud"]


def test_a_removed_policy_is_gone_and_its_pins_wait_for_the_next(
    live: LivePolicies, changes: list[str]
) -> None:
    live.put_pin("fraud", "acme", "v2")

    live.put_policy("fraud", None)
    live.put_policy("never-there", None)
    assert live.snapshots == {}
    assert changes == ["fraud"]

    live.put_policy("fraud", document())
    assert pin_of(live, "acme") == "v2"


def test_replace_adds_changes_and_removes(live: LivePolicies) -> None:
    live.put_policy("gone", document("gone"))
    live.put_pin("fraud", "stays", "v1")
    live.put_pin("fraud", "goes", "v1")
    live.put_kill("fraud", "v2", "old")

    live.replace(
        Contents(
            policies={"fraud": document(default="v2"), "new": document("new")},
            pins={"fraud": {"stays": "v2", "comes": "v1"}},
            kills={"new": {"": "off"}},
        )
    )

    assert set(live.snapshots) == {"fraud", "new"}
    assert default_of(live) == "v2"
    assert live.snapshots["fraud"].pins == {"stays": "v2", "comes": "v1"}
    assert live.snapshots["fraud"].kills == {}
    assert live.snapshots["new"].kills == {"": "off"}


def test_replace_by_the_same_changes_no_snapshot(live: LivePolicies, changes: list[str]) -> None:
    live.put_pin("fraud", "acme", "v2")
    before = live.snapshots["fraud"]

    live.replace(Contents(policies={"fraud": document()}, pins={"fraud": {"acme": "v2"}}))

    assert live.snapshots["fraud"] is before
    assert changes == []


def test_replacing_touches_no_pin_and_yields_between_portions_of_many(live: LivePolicies) -> None:
    many = {f"t{n}": "v1" for n in range(5_000)}
    for tenant, version in many.items():
        live.put_pin("fraud", tenant, version)

    steps = sum(1 for _ in live.replacing(Contents({"fraud": document()})))

    assert steps >= 5
    assert live.snapshots["fraud"].pins == many


def test_a_change_between_the_steps_of_a_replacement_stands(live: LivePolicies) -> None:
    contents = Contents(policies={"fraud": document()}, kills={"new": {"": "off"}})
    steps = live.replacing(contents)
    next(steps)

    live.put(PinKey("fraud", "acme"), b"v2")
    for key, value in (
        (PolicyKey("fraud"), document(default="v2")),
        (PolicyKey("tumor"), document("tumor")),
    ):
        contents.put(key, value)
        live.put(key, value)
    deque(steps, maxlen=0)

    assert default_of(live) == "v2"
    assert default_of(live, "tumor") == "v1"
    assert pin_of(live, "acme") == "v2"


def test_pins_are_told_in_portions_and_share_the_text_of_a_version(live: LivePolicies) -> None:
    for n in range(2_500):
        live.put(PinKey("fraud", f"t{n}"), b"v1")
    live.put(PinKey("tumor", "acme"), b"v2")

    portions = list(live.pinned(1_000))

    assert max(map(len, portions)) <= 1_000
    told = [pin for portion in portions for pin in portion]
    assert len(told) == len(set(told)) == 2_501
    assert all(map(live.has_pin, told))
    assert not live.has_pin(PinKey("tumor", "t1"))
    assert len(set(map(id, live.snapshots["fraud"].pins.values()))) == 1


def test_a_document_that_points_outside_of_the_allow_list_never_serves() -> None:
    live = LivePolicies(allowed=AllowList(["127.0.0.1:9001", "127.0.0.1:9002"]))
    outside = document().replace(b"127.0.0.1:9002", b"203.0.113.7:9002")

    assert live.put_policy("fraud", document())
    assert not live.put_policy("fraud", outside)

    assert "203.0.113.7:9002" in live.faults["fraud"]
    assert "endpoints.allow" in live.faults["fraud"]
    endpoints = live.snapshots["fraud"].policy.versions["v2"].endpoints
    assert endpoints == ("http://127.0.0.1:9002",)


def test_kills_and_readiness_compile_no_document(live: LivePolicies) -> None:
    compiled = live.snapshots["fraud"].compiled

    live.put_kill("fraud", "v1", "why")
    live.set_unready("fraud", frozenset({"v2"}))

    assert live.snapshots["fraud"].compiled is compiled
    assert live.snapshots["fraud"].versions["v1"].out is Cause.KILLED
    assert live.snapshots["fraud"].versions["v2"].out is Cause.NOT_READY


def test_of_an_endless_value_no_more_is_kept_than_anybody_reads(live: LivePolicies) -> None:
    endless = b"\xff" * 1_000_000

    live.put(PinKey("fraud", "acme"), endless)
    live.put(KillKey("fraud", "v2"), endless)

    snapshot = live.snapshots["fraud"]
    assert len(snapshot.pins.get("acme") or "") <= MAX_VALUE_BYTES
    assert all(len(reason) <= MAX_VALUE_BYTES for reason in snapshot.kills.values())
