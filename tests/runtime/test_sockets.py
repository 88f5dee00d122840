"""Who may have a port, and who is kept out."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from sidecar.runtime.sockets import address_of, bind, bind_first


def test_the_first_keeps_a_stranger_out_even_while_nobody_listens() -> None:
    with closing(bind_first("127.0.0.1:0")) as first:
        address = address_of(first)

        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            bind_first(address)


def test_workers_share_the_port_of_the_first() -> None:
    with closing(bind_first("127.0.0.1:0")) as first:
        address = address_of(first)

        one, other = bind(address, shares_port=True), bind(address, shares_port=True)
        with closing(one), closing(other):
            one.listen()
            other.listen()

            assert address_of(one) == address_of(other) == address


def test_a_port_is_free_again_while_past_connections_linger() -> None:
    with closing(bind_first("127.0.0.1:0")) as first:
        address = address_of(first)
        with closing(bind(address, shares_port=True)) as worker:
            worker.settimeout(5)
            worker.listen()
            with closing(socket.create_connection(first.getsockname())) as client:
                served, _ = worker.accept()
                served.close()  # the side that closes first is left in TIME_WAIT
                assert client.recv(1) == b""

    bind_first(address).close()


def test_an_ipv6_address_is_spelled_as_it_is_read() -> None:
    try:
        listening = bind("[::1]:0")
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with closing(listening):
        assert address_of(listening).startswith("[::1]:")
