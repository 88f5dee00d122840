"""Chains in the stream of a real Valkey, and what becomes of them when somebody edits it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sidecar.audit.entry import decode
from sidecar.audit.stream import StreamSink
from sidecar.errors import AuditUnwritableError
from sidecar.model.audit import AuditSettings
from sidecar.store.redis import RedisStore
from tests.audit.chains import log_of, verified
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.valkey import Valkey

    Tamper = Callable[[list[bytes]], list[bytes]]

SETTINGS = AuditSettings(stream=True, checkpoint_entries=10)


@pytest.fixture
async def valkey() -> AsyncIterator[Valkey]:
    async with running_valkey() as server:
        yield server


@pytest.fixture
async def store(valkey: Valkey) -> AsyncIterator[RedisStore]:
    redis = RedisStore(valkey.url)
    yield redis
    await redis.close()


async def _write(store: RedisStore, entries: int, keep: int = 100_000) -> None:
    log = log_of(SETTINGS, sinks=[StreamSink(store, keep)])
    for number in range(entries):
        log.note("denied", request_id=str(number), tenant="acme")
    await log.close()


async def _lines(store: RedisStore) -> list[bytes]:
    return [line async for _, line in store.audit()]


@pytest.mark.parametrize(
    ("tamper", "place", "words"),
    [
        (lambda lines: [*lines[:16], lines[16].replace(b"acme", b"evil"), *lines[17:]],
         "log:17", "changed"),
        (lambda lines: [*lines[:16], *lines[17:]], "log:17", "entry 17 is missing"),
        (lambda lines: [*lines[:16], lines[17], lines[16], *lines[18:]], "log:17", "order"),
        (lambda lines: [*lines[:12], *lines[40:]], "log:13", "missing before it"),
    ],
    ids=["flip", "delete", "reorder", "splice"],
)  # fmt: skip
async def test_whoever_edits_the_stream_is_found(
    valkey: Valkey, store: RedisStore, tamper: Tamper, place: str, words: str
) -> None:
    await _write(store, 25)
    await _write(store, 25)
    lines = await _lines(store)
    assert not verified(lines).faults
    await valkey.client.delete("rmv:audit")
    for line in tamper(lines):
        await valkey.client.xadd("rmv:audit", {"entry": line})

    faults = verified(await _lines(store)).faults

    assert faults[0].place == place
    assert words in faults[0].what


async def test_an_end_that_is_cut_off_is_told(valkey: Valkey, store: RedisStore) -> None:
    await _write(store, 25)
    lines = await _lines(store)
    ids = [at async for at, _ in store.audit()]
    await valkey.client.xdel("rmv:audit", ids[-1])

    faults, (chain,), _ = verified(await _lines(store))

    assert not faults
    assert decode(lines[-1]).last
    assert not chain.is_ended
    assert any("its end was cut off" in note for note in chain.notes)


async def test_the_stream_is_trimmed_beyond_its_bound_and_never_below(
    valkey: Valkey, store: RedisStore
) -> None:
    await _write(store, 2000, keep=500)

    lines = await _lines(store)

    assert 500 <= len(lines) < 1000
    assert not verified(lines, is_whole=False).faults


async def test_a_key_of_another_type_is_told_and_not_written_to(
    valkey: Valkey, store: RedisStore
) -> None:
    await valkey.client.set("rmv:audit", "mine")

    with pytest.raises(AuditUnwritableError, match="another type"):
        await StreamSink(store, 10).append([b"{}"])

    assert await valkey.client.get("rmv:audit") == b"mine"
