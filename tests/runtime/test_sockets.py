"""Who may have a port, and who is kept out."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from sidecar.runtime.sockets import HeldPort, address_of, bind


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
