"""Addresses of servers."""

from __future__ import annotations

import pytest

from sidecar.upstream.endpoint import parse_endpoint


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://127.0.0.1:9001", "127.0.0.1", 9001),
        ("http://model.svc", "model.svc", 80),
        ("http://[::1]:9001", "::1", 9001),
        ("https://model.svc", "model.svc", 443),
    ],
)
def test_an_address_has_host_and_port(url: str, host: str, port: int) -> None:
    endpoint = parse_endpoint(url)

    assert (endpoint.url, endpoint.host, endpoint.port) == (url, host, port)


def test_a_socket_has_a_path_and_is_spoken_to_as_localhost() -> None:
    endpoint = parse_endpoint("unix:/run/models/fraud.sock")

    assert endpoint.path == "/run/models/fraud.sock"
    assert endpoint.authority == b"localhost"


@pytest.mark.parametrize("url", ["", "127.0.0.1:9001", "unix:h", "ftp://h", "http://"])
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=":"):
        parse_endpoint(url)
