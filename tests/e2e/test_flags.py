"""`rmv serve` by flags alone: one command from nothing to served requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tests.support.sidecar import flags, sidecar
from tests.support.upstream import scripted_upstream
from tests.support.valkey import Valkey

if TYPE_CHECKING:
    from tests.support.messages import Answer
    from tests.support.sidecar import Sidecar


def served(answer: Answer) -> tuple[int, bytes | None, bytes | None]:
    return answer.status, answer.get(b"X-Model-Version"), answer.get(b"X-Model-Decision")


async def history(running: Sidecar) -> list[tuple[str, str]]:
    async with running.editor() as editor:
        return [(one.actor, one.comment) for one in await editor.history()]


async def test_flags_alone_serve_and_say_loudly_that_auth_is_off() -> None:
    async with (
        scripted_upstream() as v1,
        scripted_upstream() as v2,
        sidecar(*flags(v1=v1.url, v2=v2.url)) as running,
    ):
        answer = await running.ask("acme", path="/v2/models/m/infer")

        assert served(answer) == (200, b"v1", b"DEFAULT")
        assert v1.received[0].get(b"X-Tenant") == b"acme"
        assert v2.received == []
        [record] = await running.recorded(1)
        assert record["tenant"] == "acme"
        assert "level=warning" in running.said().split("AUTH IS OFF")[0]


async def test_a_restart_keeps_pins_and_commits_nothing_but_changed_flags() -> None:
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url, v2=up.url)) as running,
    ):
        async with running.editor() as editor:
            await editor.set("pin:m:acme", "v2")

        await restart(running)
        assert served(await running.ask("acme")) == (200, b"v2", b"PINNED")
        assert served(await running.ask()) == (200, b"v1", b"DEFAULT")
        assert await history(running) == [("flags", "first start")]

        await restart(running, "--version", f"v3={up.url}", "--default", "v3")
        assert served(await running.ask("acme")) == (200, b"v2", b"PINNED")
        assert served(await running.ask()) == (200, b"v3", b"DEFAULT")
        assert await history(running) == [("flags", "flags changed"), ("flags", "first start")]


async def restart(running: Sidecar, *more: str) -> None:
    """Start it again, with more flags."""
    await running.end()
    running.arguments += more
    await running.start()
    await running.ready()


async def test_a_policy_edited_since_is_kept_and_the_flags_are_said_to_be_ignored() -> None:
    async with (
        scripted_upstream() as up,
        sidecar(*flags(v1=up.url, v2=up.url)) as running,
        running.editor() as editor,
    ):
        # As an editor of the stored document would: its actor and revision stay in it.
        document = await editor.document()
        document["default"] = "v2"
        await running.end()
        await edit_without_a_sidecar(running, msgspec.json.encode(document))
        await running.start()
        await running.ready()

        assert served(await running.ask()) == (200, b"v2", b"DEFAULT")
        assert "flags ignored" in running.said()


async def edit_without_a_sidecar(running: Sidecar, document: bytes) -> None:
    server = Valkey(str(running.state_dir))
    await server.start()
    await server.client.set("rmv:policy:m", document)
    await server.client.aclose()
    await server.stop()
