"""What a worker holds of a body does not grow with it; `make integration` has the long form."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.memory import MIB, BigBody, passage, resident_bytes
from tests.support.messages import read_answer
from tests.support.proxy import policy
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import eventually, never, scripted_upstream

if TYPE_CHECKING:
    from tests.support.sidecar import Sidecar

PIECE = b"2\r\nxx\r\n"
PIECES = 400_000
PIECES_GROWTH_AT_MOST = 20 * MIB  # of two copies of 800 kB: 8 measured; 46 with an object a piece
GROWTH_AT_MOST = 4 * MIB
CAP = 8 * MIB
# One is under way, so that the others wait in the worker and not in buffers of the kernel.
BOUNDED = f"workers = 1\n[limits]\nmirror_connections = 1\nmirror_memory_bytes = {CAP}\n"
BODY = bytes(256 * 1024)
COPIES = 200  # 50 MiB
SIZE = 64 * MIB
STOPS = 3


@pytest.mark.parametrize("shadow_hangs", [False, True], ids=["alone", "beside a hanging shadow"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "by length"])
async def test_a_worker_does_not_grow_with_the_bodies_that_pass(
    shadow_hangs: bool, chunked: bool
) -> None:
    async with passage(shadow_hangs=shadow_hangs) as way:
        up, down = (BigBody(SIZE, STOPS, chunked=chunked) for _ in range(2))
        unread = BigBody(SIZE, chunked=chunked)

        assert await way.upload(up) < GROWTH_AT_MOST
        assert await way.download(down) < GROWTH_AT_MOST
        assert await way.leave_unread(unread, for_s=0) < GROWTH_AT_MOST

    assert up.held_back
    assert down.held_back
    assert unread.held_back


async def test_copies_of_requests_in_small_pieces_take_no_more_than_their_bytes() -> None:
    taken = 0
    clients: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        while data := await reader.read(MIB):
            taken += len(data)

    def is_taken() -> bool:
        return taken > len(clients) * PIECES * len(PIECE)

    async with (
        scripted_upstream(conversation=take) as primary,
        scripted_upstream() as shadow,
        sidecar(
            *flags(v1=primary.url, v2=shadow.url), "--shadow", "v2", "--workers", "1"
        ) as running,
    ):
        (worker,) = running.workers()
        before = resident_bytes(worker)
        for _ in range(2):
            _, writer = await asyncio.open_connection(*running.listen)
            clients.append(writer)
            writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(PIECE * PIECES)
            await eventually(is_taken)
        growth = resident_bytes(worker) - before
        for writer in clients:
            writer.transport.abort()
        await running.until(lambda: is_copied(running, 2), "copies that ended")

    assert growth < PIECES_GROWTH_AT_MOST


async def test_copies_for_a_shadow_that_hangs_take_no_more_than_their_cap() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(BODY)

    async with (
        scripted_upstream() as primary,
        scripted_upstream(never) as shadow,
        sidecar(
            *flags(v1=primary.url),
            settings=BOUNDED,
        ) as running,
        running.editor() as editor,
    ):
        await editor.set(
            "policy:m",
            policy(
                {"v1": primary.url, "v2": shadow.url},
                shadows=[{"version": "v2", "methods": ["POST"]}],
            ),
        )
        (worker,) = running.workers()
        reader, writer = await asyncio.open_connection(*running.listen)
        before = 0

        async def ask() -> None:
            writer.write(head + BODY)
            assert (await read_answer(reader)).status == 200

        async def is_mirroring() -> bool:
            nonlocal before
            before = resident_bytes(worker)
            await ask()
            return await running.counted("rmv_mirrors_total", outcome="mirrored") > 0

        await running.until(is_mirroring, "copy")
        for _ in range(COPIES):
            await ask()
        growth = resident_bytes(worker) - before
        writer.close()
        left_out = await running.counted("rmv_mirrors_total", outcome="skipped-memory")

    assert left_out > COPIES // 2
    assert CAP // 2 < growth < CAP + GROWTH_AT_MOST


async def is_copied(running: Sidecar, copies: int) -> bool:
    return await running.counted("rmv_mirrors_total", outcome="skipped-aborted") == copies
