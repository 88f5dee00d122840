"""Who may have a port, and who is kept out."""

from __future__ import annotations

import socket
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from sidecar.runtime.sockets import HeldPort, address_of, bind

if TYPE_CHECKING:
    from pathlib import Path


def test_a_held_port_keeps_a_stranger_out_even_while_nobody_listens() -> None:
    with (
        closing(HeldPort("127.0.0.1:0")) as held,
        pytest.raises(OSError, match=f"cannot listen on {held.address}"),
    ):
        HeldPort(held.address)


def test_a_port_that_somebody_listens_on_is_refused() -> None:
    with closing(bind("127.0.0.1:0")) as taken:
        taken.listen()

        with pytest.raises(OSError, match="Address already in use"):
            HeldPort(address_of(taken))


def test_workers_share_a_held_port() -> None:
    with closing(HeldPort("127.0.0.1:0")) as held:
        one, other = (bind(held.address, shares_port=True) for _ in range(2))
        with closing(one), closing(other):
            one.listen()
            other.listen()

            assert address_of(one) == address_of(other) == held.address


def test_a_port_can_be_held_while_past_connections_of_others_linger() -> None:
    with closing(bind("127.0.0.1:0")) as former:  # another server, that shared with nobody
        former.settimeout(5)
        former.listen()
        address = address_of(former)
        with closing(socket.create_connection(former.getsockname())) as client:
            served, _ = former.accept()
            served.close()  # the side that closes first is left in TIME_WAIT
            assert client.recv(1) == b""

    HeldPort(address).close()


def test_an_ipv6_address_is_spelled_as_it_is_read() -> None:
    try:
        listening = bind("[::1]:0")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with closing(listening):
        assert address_of(listening).startswith("[::1]:")


def test_a_socket_file_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rmv.sock"
    bind(address).close()

    with closing(bind(address)) as listening:
        assert address_of(listening) == address
        assert stat.S_IMODE((tmp_path / "rmv.sock").stat().st_mode) == 0o660


def test_a_socket_file_in_use_is_left_alone(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/rmv.sock"
    with closing(bind(address)) as taken:
        taken.listen()

        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            bind(address)


def test_a_file_that_is_no_socket_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")

    with pytest.raises(OSError, match="Address already in use"):
        bind(f"unix:{tmp_path}/data")
    assert (tmp_path / "data").read_text() == "mine"


def test_a_held_socket_file_keeps_a_stranger_out_and_is_removed_at_the_end(tmp_path: Path) -> None:
    held = HeldPort(f"unix:{tmp_path}/rmv.sock")
    with closing(bind(held.address)), pytest.raises(OSError, match="another sidecar has it"):
        HeldPort(held.address)
    held.close()

    assert not (tmp_path / "rmv.sock").exists()
