"""Keys that look as if they worked are told once, with the reason."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from sidecar.identity.claims import ClaimNames, read_identity
from sidecar.identity.refusal import TokenRefused
from sidecar.model.decision import Cause
from sidecar.model.identity import is_tenant
from sidecar.policy import codec
from sidecar.store.doubts import MAX_DOUBTS
from sidecar.store.live import Contents, LivePolicies
from sidecar.store.redis import RedisStore
from sidecar.store.watch import WatchTiming
from tests.store.documents import document, eventually, pin_of, policy, watching

if TYPE_CHECKING:
    from tests.support.valkey import Valkey

Told = list[tuple[str, str, str]]


@pytest.fixture(autouse=True)
def _hear(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "sidecar.store")


def told(caplog: pytest.LogCaptureFixture) -> Told:
    """Return key, model and reason of every key that was told of."""
    records = [vars(one) for one in caplog.records if one.message == "key cannot be followed"]
    return [(one["key"], one["model"], one["reason"]) for one in records]


def loaded(**kills: str) -> LivePolicies:
    live = LivePolicies()
    live.replace(Contents({"fraud": document()}, kills={"fraud": kills} if kills else {}))
    return live


def test_a_pin_or_kill_by_a_label_has_its_effect(caplog: pytest.LogCaptureFixture) -> None:
    labelled = codec.encode(structs.replace(policy(), labels={"stable": "v1"}))
    contents = Contents({"fraud": labelled}, {"fraud": {"acme": "stable"}})
    live = LivePolicies()

    live.replace(contents)
    live.put_pin("fraud", "globex", "stable")
    live.put_kill("fraud", "stable", "oops")

    assert told(caplog) == []
    assert live.snapshots["fraud"].versions["v1"].out is Cause.KILLED


def test_a_pin_or_kill_of_a_version_that_is_not_there_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = loaded()

    for _ in range(2):
        live.put_pin("fraud", "acme", "v22")
        live.put_kill("fraud", "v2 ", "oops")
    contents = Contents(
        {"fraud": document()}, {"fraud": {"acme": "v22"}}, {"fraud": {"v2 ": "oops"}}
    )
    live.replace(contents)

    assert told(caplog) == [
        ("rmv:pin:fraud:acme", "fraud", "no such version: the tenant is refused"),
        ("rmv:kill:fraud:v2 ", "fraud", "no such version"),
    ]


def test_good_pins_and_kills_are_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    live = loaded(v1="bad")

    live.put_pin("fraud", "acme", "v2")
    live.put_kill("fraud", "", "recall")

    assert told(caplog) == []


def test_a_model_that_is_not_there_and_a_tenant_that_nobody_has_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = loaded()

    live.put_pin("fraudd", "acme", "v1")
    live.put_kill("fraudd", "", "oops")
    live.put_pin("fraud", " acme", "v1")

    assert told(caplog) == [
        ("rmv:pin:fraudd:acme", "fraudd", "no such model"),
        ("rmv:kill:fraudd", "fraudd", "no such model"),
        ("rmv:pin:fraud: acme", "fraud", "no caller can have this tenant"),
    ]


def test_nothing_is_told_before_everything_is_read(caplog: pytest.LogCaptureFixture) -> None:
    live = LivePolicies()

    live.put_pin("fraud", "acme", "v1")
    live.put_kill("fraud", "v2", "bad")
    live.replace(
        Contents({"fraud": document()}, {"fraud": {"acme": "v1"}}, {"fraud": {"v2": "bad"}})
    )

    assert told(caplog) == []


def test_nothing_is_told_of_versions_while_no_document_is_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = LivePolicies()

    live.replace(Contents({"fraud": b"{"}, kills={"fraud": {"v9": "bad"}}))

    assert told(caplog) == []


def test_a_key_that_was_set_anew_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    live = loaded()

    for version in ("v22", None, "v22", "v2", "v22"):
        live.put_pin("fraud", "acme", version)

    assert len(told(caplog)) == 3


def test_a_policy_that_loses_a_version_makes_its_kill_and_pin_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = loaded(v2="bad")
    live.put_pin("fraud", "acme", "v2")

    lost = document().replace(b'"v2"', b'"v3"')
    live.put_policy("fraud", lost)
    assert [key for key, _, _ in told(caplog)] == ["rmv:kill:fraud:v2"]
    live.replace(Contents({"fraud": lost}, {"fraud": {"acme": "v2"}}, {"fraud": {"v2": "bad"}}))

    assert [key for key, _, _ in told(caplog)] == ["rmv:kill:fraud:v2", "rmv:pin:fraud:acme"]


def test_one_mistake_repeated_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    pins = {f"t{n}": "v9" for n in range(10 * MAX_DOUBTS)}

    LivePolicies().replace(Contents({"fraud": document()}, {"fraud": pins}))

    assert len(told(caplog)) == MAX_DOUBTS + 1
    assert "more such keys" in told(caplog)[-1][2]


async def test_keys_of_another_type_or_spelling_are_told_once_as_text(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisStore(valkey.url, timing=WatchTiming(reload_every_s=0.02))
    await valkey.client.set("rmv:policy:fraud", document())
    await valkey.client.sadd("rmv:kill:fraud:v1", "bad")
    async with watching(store) as live:
        await valkey.client.hset("rmv:pin:fraud:acme", "version", "v2")
        await valkey.client.set("rmv:policy:fr\u00e4ud", document())
        await valkey.client.set("rmv:pin:fraud:last", "v1")
        await eventually(lambda: len(told(caplog)) >= 3)
        await eventually(lambda: pin_of(live, "last") == "v1")
    await store.close()

    assert sorted(told(caplog)) == [
        ("rmv:kill:fraud:v1", "fraud", "not a string"),
        ("rmv:pin:fraud:acme", "fraud", "not a string"),
        ("rmv:policy:fr\u00e4ud", "", "no such spelling"),
    ]


async def test_an_acl_without_the_commands_that_look_at_types_is_enough(
    valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    await valkey.client.set("rmv:policy:fraud", document())
    await valkey.client.acl_setuser("default", enabled=True, commands=["-exists", "-type"])
    store = RedisStore(valkey.url)
    async with watching(store) as live:
        await valkey.client.set("rmv:pin:fraud:acme", "v2")
        await eventually(lambda: pin_of(live, "acme") == "v2")
        await valkey.client.delete("rmv:pin:fraud:acme")
        await eventually(lambda: pin_of(live, "acme") is None)
    await store.close()

    assert caplog.records == []


@pytest.mark.parametrize(
    "tenant", ["acme", "a b", "a:b", "x" * 128, "", " a", "a ", "\u00e4", "a\n", "x" * 129]
)
def test_a_tenant_is_what_a_token_can_name(tenant: str) -> None:
    try:
        believed = read_identity({"tenant": tenant}, ClaimNames(), 0).tenant == tenant
    except TokenRefused:
        believed = False

    assert is_tenant(tenant) is believed


def test_a_version_that_comes_and_goes_makes_its_pin_told_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = loaded()
    lacking, pins = document().replace(b'"v2"', b'"v3"'), {"fraud": {"acme": "v2"}}

    for raw in (lacking, document(), lacking):
        live.replace(Contents({"fraud": raw}, pins, {"fraud": {"v2": "bad"}}))

    assert [key for key, _, _ in told(caplog)] == 2 * ["rmv:kill:fraud:v2", "rmv:pin:fraud:acme"]
