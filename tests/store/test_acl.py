"""The users of deploy/redis/users.acl: each does its work, and nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from sidecar.app.auditing import record, telling
from sidecar.errors import AuditUnwritableError, StoreUnavailableError
from sidecar.model.audit import AuditSettings
from sidecar.model.context import Context, ContextSettings
from sidecar.runtime.tasks import spawn, stop
from sidecar.store.live import LivePolicies
from sidecar.store.pulse import Member, Pulse
from sidecar.store.redis import RedisStore
from sidecar.store.watch import WatchTiming
from tests.store.documents import default_of, document, eventually, pin_of, policy, watching
from tests.support.servers import server, until

if TYPE_CHECKING:
    from tests.support.valkey import Valkey

USERS = Path(__file__).parents[2] / "deploy" / "redis" / "users.acl"
SAMPLE = Context("id", 1.0, "fraud", "acme", "v1", "default", 1, 0.1, "host-1")
QUICK = WatchTiming(ping_every_s=0.05, reload_every_s=0.05)


def url_of(valkey: Valkey, user: str) -> str:
    return valkey.url.replace("unix://", f"unix://{user}:secret@")


async def test_a_sidecar_watches_adopts_tells_and_samples(valkey: Valkey) -> None:
    await load_users(valkey)
    store = RedisStore(url_of(valkey, "rmv-sidecar"), timing=QUICK)
    live = LivePolicies(on_change=lambda model: pulse.notice(model))  # noqa: PLW0108 -- not there yet
    pulse = Pulse(Member("host-1", "a"), live)
    beating = spawn(store.beat(pulse), name="heartbeat under test")
    async with watching(store, live):
        await valkey.client.set("rmv:policy:fraud", document())
        await valkey.client.set("rmv:pin:fraud:acme", "v2")
        await valkey.client.hset("rmv:pin:fraud:odd", "no", "string")
        await eventually(lambda: default_of(live) == "v1")
        await eventually(lambda: live.snapshots["fraud"].revision == 1)
        await eventually(lambda: pin_of(live, "acme") == "v2")
        await valkey.client.set("rmv:revoked:t-1", "stolen")
        await valkey.client.set("rmv:revoked-before:acme", "1000")
        await eventually(lambda: len(live.revocations) == 2)
        await store.add_contexts("fraud", [SAMPLE], ContextSettings())

        async def is_told() -> bool:
            return [one.revisions for one in await store.fleet("fraud")] == [{"fraud": 1}]

        await until(is_told)
        await valkey.client.flushall()
        await eventually(lambda: live.lost == {"fraud"})
        raw = await store.get_document("fraud")
        await store.commit(policy(), expected=raw, actor="flags", comment="")  # as flags do
        await eventually(lambda: not live.is_stale)
    await stop(beating)
    assert await _denied(valkey) == []
    await store.close()


async def test_an_operator_does_what_the_commands_do(valkey: Valkey) -> None:
    await load_users(valkey)
    store = RedisStore(url_of(valkey, "rmv-operator"))
    await store.commit(policy(), expected=None, actor="ann", comment="")
    await store.set_pin("fraud", "acme", "v2", ttl_s=60)
    await store.set_kill("fraud", "v1", "leaks")
    await store.set_revoked("t-1", "stolen", ttl_s=60)
    await store.set_cutoff("acme", 1000)

    assert await store.models() == await store.named_models() == ["fraud"]
    assert [pin.tenant async for pin in store.pins("fraud")] == ["acme"]
    assert len(await store.kills("fraud")) == len(await store.history("fraud")) == 1
    assert await store.fleet() == []
    assert [one async for one in store.contexts("fraud")] == []
    assert [one.jti async for one in store.revoked()] == ["t-1"]
    assert [one.tenant for one in await store.cutoffs()] == ["acme"]
    assert await store.delete_revoked("t-1")
    assert await store.delete_cutoff("acme")
    assert await store.delete_pin("fraud", "acme")
    assert await store.delete_policy("fraud")
    assert await _denied(valkey) == []
    await store.close()


async def test_a_server_takes_the_file_and_lets_nobody_in_without_a_password() -> None:
    async with server("--save", "", "--aclfile", str(USERS)) as one:
        for name in ("rmv-sidecar", "rmv-operator"):
            assert await one.call("ACL", "GETUSER", name)
            for password in ("", "any"):
                with pytest.raises(AuthenticationError):
                    await one.client.auth(password, name)


@pytest.mark.parametrize("user", ["rmv-sidecar", "rmv-operator"])
async def test_neither_touches_anything_else(valkey: Valkey, user: str) -> None:
    await load_users(valkey)
    client = Redis.from_url(url_of(valkey, user))

    for words in (
        ("GET", "session:1"),
        ("SET", "session:1", "x"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("KEYS", "*"),
        ("ACL", "LIST"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("EVAL", "return redis.call('GET', 'session:1')", 0),
    ):
        with pytest.raises(NoPermissionError if words[0] != "EVAL" else Exception):
            await client.execute_command(*words)  # type: ignore[no-untyped-call]
    await client.aclose()


def test_the_page_shows_the_file() -> None:
    users = USERS.read_text().splitlines()

    page = (USERS.parents[2] / "docs" / "redis.md").read_text().splitlines()

    assert [line for line in page if line.startswith("user ")] == users


async def test_a_sidecar_adds_to_audit_and_no_more(valkey: Valkey) -> None:
    await load_users(valkey)
    sidecar = RedisStore(url_of(valkey, "rmv-sidecar"))
    operator = RedisStore(url_of(valkey, "rmv-operator"))
    await sidecar.add_audit([b"one"], keep=1000)
    await operator.add_audit([b"two"], keep=1000)

    assert await operator.is_audited()
    assert [line async for _, line in operator.audit()] == [b"one", b"two"]
    with pytest.raises(StoreUnavailableError, match="permission"):
        [line async for _, line in sidecar.audit()]
    for user in ("rmv-sidecar", "rmv-operator"):
        client = Redis.from_url(url_of(valkey, user))
        for command in ("DEL", "XTRIM", "EXPIRE"):
            with pytest.raises(NoPermissionError):
                await client.execute_command(command, "rmv:audit", "MAXLEN", "0")  # type: ignore[no-untyped-call]
        await client.aclose()
    await sidecar.close()
    await operator.close()


async def test_an_operator_with_rights_from_before_audit_is_not_held_up(valkey: Valkey) -> None:
    await load_users(valkey)
    await valkey.client.execute_command("ACL", "SETUSER", "rmv-operator", "clearselectors")  # type: ignore[no-untyped-call]
    store = RedisStore(url_of(valkey, "rmv-operator"))
    unaware = telling(store, partial(record, AuditSettings(), store, "ann"))
    aware = telling(store, partial(record, AuditSettings(stream=True), store, "ann"))

    await unaware.set_pin("fraud", "acme", "v1")
    with pytest.raises(AuditUnwritableError, match="it is done"):
        await aware.set_pin("fraud", "acme", "v2")

    assert await store.pins_of("fraud", ["acme"]) == {"acme": "v2"}
    await store.close()


async def test_a_sidecar_pins_and_kills_nobody(valkey: Valkey) -> None:
    await load_users(valkey)
    store = RedisStore(url_of(valkey, "rmv-sidecar"))

    with pytest.raises(StoreUnavailableError, match="permission"):
        await store.set_pin("fraud", "acme", "v2")
    with pytest.raises(StoreUnavailableError, match="permission"):
        await store.set_kill("fraud", "v1", "leaks")
    with pytest.raises(StoreUnavailableError, match="permission"):
        await store.set_revoked("t-1", "stolen")
    with pytest.raises(StoreUnavailableError, match="permission"):
        await store.delete_cutoff("acme")
    await store.close()


async def load_users(valkey: Valkey) -> None:
    for line in USERS.read_text().splitlines():
        words = line.split()[1:]
        await valkey.client.execute_command("ACL", "SETUSER", *words, ">secret")  # type: ignore[no-untyped-call]


async def _denied(valkey: Valkey) -> list[object]:
    """Return what the server has denied."""
    told: object = await valkey.client.execute_command("ACL", "LOG")  # type: ignore[no-untyped-call]
    assert isinstance(told, list)
    return told
