"""A sidecar that trusts keys, over HTTP, beside a store that somebody else can write to."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar.model.policy import Policy, Version
from sidecar.policy import codec
from sidecar.runtime.ed25519 import generate, load_private
from sidecar.store.redis import RedisStore
from sidecar.store.seal import Signer
from tests.support.sidecar import PATIENCE_S, editor, flags, sidecar
from tests.support.upstream import scripted_upstream
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.sidecar import Editor, Sidecar

WORKERS = 2
SETTINGS = 'no_auth = true\nmodel = "m"\n[signing]\ntrusted = ["{}"]\n'
Served = set[tuple[int, bytes | None]]
V1: Served = {(200, b"v1")}
V2: Served = {(200, b"v2")}


class Scene:
    """A sidecar, its store as the owner of the key writes to it, and as anybody does."""

    def __init__(self, running: Sidecar, owner: RedisStore, anybody: Editor) -> None:
        self.running = running
        self.owner = owner
        self.anybody = anybody

    async def commit(self, default: str) -> None:
        """Commit a signed policy with this default, and wait until it serves."""
        stored = await self.owner.get_policy("m")
        assert stored is not None
        made = Policy("m", stored.policy.versions, default=default)
        await self.owner.commit(made, expected=stored.raw, actor="ann", comment="")
        await self.until(V1 if default == "v1" else V2)

    async def served(self, tenant: str = "") -> Served:
        """Return what the workers, each asked, answer with."""
        answers = await self.running.ask_workers(WORKERS, tenant)
        return {(one.status, one.get(b"X-Model-Version")) for one in answers}

    async def until(self, wanted: Served, tenant: str = "") -> None:
        """Wait until all workers answer so."""

        async def is_so() -> bool:
            return await self.served(tenant) == wanted

        await self.running.until(is_so, f"{wanted} for {tenant or 'everybody'}")

    async def until_refused(self, cause: str, number: int) -> None:
        """Wait until the metrics tell of so many refusals."""

        async def is_so() -> bool:
            counted = await self.running.counted("rmv_signature_refused", cause=f"{cause}")
            return counted == number

        await self.running.until(is_so, f"{number} refused as {cause}")


@asynccontextmanager
async def scene(folder: Path, more: str = "") -> AsyncIterator[Scene]:
    """Serve v1 of model `m`, signed, by two workers; `more` are settings of `[signing]`."""
    generate(folder, "ann")
    signer = Signer(load_private(folder / "ann.key"))
    settings = SETTINGS.format(folder / "ann.pub") + more
    async with running_valkey() as valkey, scripted_upstream() as up, editor(valkey.url) as anybody:
        owner = RedisStore(valkey.url)
        owner.sign_with(signer)
        versions = {name: Version((up.url,)) for name in ("v1", "v2")}
        made = Policy("m", versions, default="v1")
        await owner.commit(made, expected=None, actor="ann", comment="")
        arguments = ("--workers", str(WORKERS), "--redis", valkey.url)
        async with sidecar(*arguments, settings=settings) as running:
            made_scene = Scene(running, owner, anybody)
            await made_scene.until(V1)
            yield made_scene
        await owner.close()


@pytest.mark.timeout(4 * PATIENCE_S)
async def test_write_access_to_the_store_alone_moves_no_traffic(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        first = await at.owner.get_document("m")
        assert first is not None
        await at.owner.set_pin("m", "acme", "v2")
        await at.until(V2, "acme")

        # Another default; a pin; a kill; the pin deleted; everything deleted.
        forged = first.replace(b'"default":"v1"', b'"default":"v2"')
        await at.anybody.set("policy:m", forged)
        await at.anybody.set("pin:m:globex", "v2")
        await at.anybody.set("kill:m", "attack")
        await at.until_refused("unsigned", 2)
        await at.until_refused("forged", 1)
        await at.anybody.delete("pin:m:acme")
        await at.anybody.delete("policy:m")
        await at.until_refused("deleted", 2)

        assert await at.served() == V1
        assert await at.served("globex") == V1
        assert await at.served("acme") == V2

        # The owner is believed all the while, and what they replaced does not come back.
        await at.owner.delete_kill("m")
        await at.owner.commit(
            codec.decode(forged, source=""), expected=None, actor="ann", comment=""
        )
        await at.until(V2)
        await at.anybody.set("policy:m", first)
        await at.until_refused("older", 1)
        assert await at.served() == V2


@pytest.mark.timeout(4 * PATIENCE_S)
async def test_kills_that_are_exempt_switch_off_unsigned_and_nothing_else_does(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, "exempt_kills = true\n") as at:
        await at.anybody.set("pin:m:acme", "v2")
        await at.until_refused("unsigned", 1)
        assert await at.served("acme") == V1

        await at.anybody.set("kill:m", "it leaks")
        await at.until({(503, None)})
        await at.anybody.delete("kill:m")
        await at.until(V1)

        await at.owner.set_kill("m", "", "it leaks")
        await at.until({(503, None)})
        await at.anybody.delete("kill:m")
        await at.until_refused("deleted", 1)
        assert await at.served() == {(503, None)}


@pytest.mark.timeout(4 * PATIENCE_S)
async def test_a_restart_forgets_nothing_that_was_signed(tmp_path: Path) -> None:
    async with scene(tmp_path) as at:
        first = await at.owner.get_document("m")
        assert first is not None
        await at.commit("v2")
        await at.owner.set_pin("m", "acme", "v1")
        await at.until(V1, "acme")

        await at.running.end()
        await at.anybody.set("policy:m", first)
        await at.anybody.delete("pin:m:acme")
        await at.running.start()
        await at.running.ready()

        assert await at.served() == V2
        assert await at.served("acme") == V1
        await at.until_refused("older", 1)
        await at.until_refused("deleted", 1)

        # A memory that cannot be read is no empty one: nothing is served that may be old.
        await at.running.end()
        (at.running.state_dir / "signed-rmv.db").write_bytes(b"spoilt" * 1000)
        await at.running.start()
        assert await at.running.ended() == 1
        assert "signed-rmv.db: file is not a database" in at.running.said()


async def test_flags_that_nobody_signs_are_refused_at_the_start(tmp_path: Path) -> None:
    generate(tmp_path, "ann")
    settings = f'[signing]\ntrusted = ["{tmp_path / "ann.pub"}"]\n'
    async with sidecar(*flags(v1="http://127.0.0.1:9"), settings=settings, waits=False) as running:
        assert await running.ended() == 1
        assert "a policy that nobody signs" in running.said()
