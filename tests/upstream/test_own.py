"""No endpoint leads back to the sidecar that has it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from sidecar.model.upstream import UpstreamSettings
from sidecar.upstream.dial import Dialer, DialError
from sidecar.upstream.endpoint import parse_endpoint
from sidecar.upstream.own import OwnListeners
from tests.support.clock import HandClock
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("listener", "address", "is_own"),
    [
        ("127.0.0.1:8081", "127.0.0.1", True),
        ("127.0.0.1:8081", "127.0.0.2", False),
        ("127.0.0.1:8081", "::ffff:127.0.0.1", True),
        ("0.0.0.0:8081", "127.0.0.1", True),
        ("0.0.0.0:8081", "127.8.9.10", True),
        ("0.0.0.0:8081", "::1", True),
        ("0.0.0.0:8081", "192.0.2.1", False),
        ("[::]:8081", "127.0.0.1", True),
        ("[::1]:8081", "::1", True),
        ("[::1]:8081", "127.0.0.1", False),
        ("127.0.0.1:8080", "127.0.0.1", False),
    ],
)
def test_a_listener_has_the_addresses_that_lead_to_it(
    listener: str, address: str, is_own: bool
) -> None:
    assert OwnListeners([listener]).has(address, 8081) is is_own


def test_on_every_interface_each_address_of_the_host_is_its() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the interface
        except OSError:
            pytest.skip("this host has no way out, so it has no address of its own")
        address = str(probe.getsockname()[0])

    assert OwnListeners(["0.0.0.0:8081"]).has(address, 8081)


@pytest.mark.parametrize("host", ["127.0.0.1", "model.example"])
async def test_an_endpoint_that_leads_to_an_own_listener_is_not_connected_to(host: str) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    async with scripted_upstream() as up:
        port = int(up.url.rpartition(":")[2])
        endpoint = parse_endpoint(f"http://{host}:{port}")
        clock = HandClock()
        other = Dialer(resolve=resolve).open(endpoint, clock.monotonic_s)
        made = await other.connect(asyncio.Protocol, 5.0)
        assert isinstance(made, asyncio.Protocol)
        own = Dialer(resolve=resolve, own=OwnListeners([f"127.0.0.1:{port}"]))
        with pytest.raises(DialError, match="cannot connect"):
            await own.open(endpoint, clock.monotonic_s).connect(asyncio.Protocol, 5.0)


async def test_an_own_socket_is_not_connected_to_by_any_name(tmp_path: Path) -> None:
    link = tmp_path / "model.sock"
    link.symlink_to(tmp_path / "rmv.sock")
    settings = UpstreamSettings((str(tmp_path),))
    dialer = Dialer(settings, own=OwnListeners([f"unix:{tmp_path}/rmv.sock"]))
    server = await asyncio.start_unix_server(lambda _r, w: w.close(), tmp_path / "rmv.sock")
    async with server:
        for path in (link, tmp_path / "rmv.sock"):
            endpoint = parse_endpoint(f"unix:{path}")
            with pytest.raises(DialError, match="cannot connect"):
                await dialer.open(endpoint, HandClock().monotonic_s).connect(asyncio.Protocol, 5.0)
