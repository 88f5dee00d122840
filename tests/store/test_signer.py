"""Each store signs what it writes, and tells what its reader does not believe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.runtime.clock import SystemClock
from sidecar.store.keys import KillKey, PinKey
from sidecar.store.live import LivePolicies
from sidecar.store.seal import WORDS, Cause, Keyring, Reader, read
from tests.store.documents import default_of, eventually, pin_of, policy, watching
from tests.support.signing import signer, trust_in

if TYPE_CHECKING:
    from sidecar.store.base import Store

ANN, EVE = signer(), signer()
RING = Keyring([ANN.public])


async def test_a_store_with_a_signer_signs_what_it_writes_and_what_it_ends(store: Store) -> None:
    store.sign_with(ANN)
    committed = await store.commit(policy(), expected=None, actor="ann", comment="")
    await store.set_pin("fraud", "acme", "v2", ttl_s=600)
    await store.set_pin("fraud", "acme", "v1")
    await store.set_kill("fraud", "v2", "wrong scores")
    assert await store.delete_pin("fraud", "globex")  # whom sidecars may still hold on to

    marks = {key: read(text) async for key, text, _ in store.marks("fraud")}
    assert RING.fault_of_policy(committed) is None
    assert {key: mark.in_force for key, mark in marks.items()} == {
        PinKey("fraud", "acme"): "v1",
        PinKey("fraud", "globex"): None,
        KillKey("fraud", "v2"): "wrong scores",
    }
    assert [RING.fault_of_mark(key, mark) for key, mark in marks.items()] == [None] * 3
    assert [one.tenant async for one in store.pins("fraud")] == ["acme"]


async def test_what_a_signer_writes_is_in_force_where_it_is_trusted(store: Store) -> None:
    store.sign_with(ANN)
    live = LivePolicies(trust=trust_in(ANN, clock=SystemClock()))
    async with watching(store, live):
        await store.commit(policy(default="v2"), expected=None, actor="ann", comment="")
        await store.set_pin("fraud", "acme", "v2")
        await store.set_pin("fraud", "acme", "v1")
        await eventually(lambda: default_of(live) == "v2" and pin_of(live, "acme") == "v1")

        await store.delete_pin("fraud", "acme")
        await eventually(lambda: pin_of(live, "acme") is None)

        store.sign_with(EVE)
        await store.set_kill("fraud", "v2", "attack")
        await eventually(lambda: live.trust is not None and bool(live.trust.refused()))
        assert live.snapshots["fraud"].kills == {}


async def test_a_reader_marks_and_leaves_out_what_it_does_not_believe(store: Store) -> None:
    await store.set_pin("fraud", "plain", "v2")
    await store.set_kill("fraud", "v1", "by anybody")
    store.sign_with(ANN)
    await store.set_pin("fraud", "acme", "v2")
    unsigned = WORDS[Cause.UNSIGNED]

    store.believe(Reader(RING))
    assert {one.tenant: one.fault async for one in store.pins("fraud")} == {
        "plain": unsigned,
        "acme": "",
    }
    assert await store.pins_of("fraud", ["plain", "acme"]) == {"acme": "v2"}
    assert [one.fault for one in await store.kills("fraud")] == [unsigned]
    assert store.doubt_of(policy(revision=1)) == unsigned
    assert store.doubt_of(ANN.policy(policy(revision=1))) == ""

    store.believe(Reader(RING, exempts_kills=True))
    assert [one.fault for one in await store.kills("fraud")] == [""]
