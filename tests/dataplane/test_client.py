"""The set of all client connections: counted, limited, and looked after in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.dataplane.client import PARTS, Clients
from sidecar.dataplane.connection import ClientConnection
from tests.support.proxy import chain

if TYPE_CHECKING:
    from pathlib import Path


async def test_clients_are_in_equal_parts_whoever_comes_and_leaves(log: Path) -> None:
    clients = Clients(limit=100)
    async with chain(log) as (proxy, _):
        plane = proxy.listener.plane
        came = [ClientConnection(plane, clients) for _ in range(3 * PARTS)]
        assert all(clients.admit(client) for client in came)
        assert [len(part) for part in clients.parts] == [3] * PARTS
        assert set(clients) == set(came)

        for client in tuple(clients.parts[1]):
            clients.leave(client)
        for _ in range(3):
            clients.admit(ClientConnection(plane, clients))

    assert [len(part) for part in clients.parts] == [3] * PARTS
    assert len(clients) == len(set(clients)) == 3 * PARTS


async def test_who_is_turned_away_is_counted_and_takes_nobodys_place(log: Path) -> None:
    clients = Clients(limit=1)
    async with chain(log) as (proxy, _):
        first, second, third = (ClientConnection(proxy.listener.plane, clients) for _ in range(3))
        assert [clients.admit(first), clients.admit(second)] == [True, False]
        clients.leave(first)

        assert clients.admit(third)
        assert len(clients) == 2

        clients.leave(second)
        assert not clients.emptied.is_set()
        clients.leave(third)
        assert clients.emptied.is_set()
