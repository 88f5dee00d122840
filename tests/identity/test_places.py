"""Keys come over TLS, or from this very host, and from nowhere that a URL only seems to name."""

from __future__ import annotations

import pytest

from sidecar.identity.places import discovery_url, is_plain, url_fault


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.test/keys",
        "https://issuer.test:8443/keys?set=1",
        "https://10.0.0.1/keys",
        "https://[fd00::1]/keys",
        "HTTPS://ISSUER.TEST/keys",
    ],
)
def test_any_host_may_be_asked_over_tls(url: str) -> None:
    assert url_fault(url) == url_fault(url, is_plain_allowed=False) == ""
    assert not is_plain(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/keys",
        "http://127.0.0.1:8080/keys",
        "http://127.255.0.3/",
        "http://[::1]/",
        "http://localhost:8080/keys",
        "http://LOCALHOST/",
    ],
)
def test_this_host_may_be_asked_without_it_if_that_is_meant(url: str) -> None:
    assert url_fault(url) == ""
    assert "loopback only" in url_fault(url, is_plain_allowed=False)
    assert is_plain(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://issuer.test/keys", "loopback only"),
        ("http://0.0.0.0/", "loopback only"),
        ("http://10.0.0.1/", "loopback only"),
        ("http://127.0.0.1.issuer.test/", "loopback only"),
        ("http://127.1/", "loopback only"),
        ("http://2130706433/", "loopback only"),
        ("http://[::ffff:10.0.0.1]/", "loopback only"),
        ("http://localhost.issuer.test/", "loopback only"),
        ("http://127.0.0.1@issuer.test/", "credentials"),
        ("https://user:secret@issuer.test/", "credentials"),
        ("https://issuer.test/keys#here", "fragment"),
        ("ftp://127.0.0.1/keys", "https://"),
        ("file:///etc/keys.json", "not an absolute URL"),
        ("/keys", "not an absolute URL"),
        ("", "not an absolute URL"),
        ("https://", "not an absolute URL"),
        ("https://issuer.test:0/", "not an absolute URL"),
        ("https://issuer.test:70000/", "no URL"),
        ("https://[::1/", "no URL"),
        ("https://issuer..test/", "no URL"),
        ("https://issuer.test/a b", "not an absolute URL"),
        ("https://issuer.test/\n", "not an absolute URL"),
        ("https://issuer.test/\x00", "not an absolute URL"),
        ("https://\u0130ssuer.test/", "not an absolute URL"),
    ],
)
def test_anything_else_is_told_what_is_wrong_with_it(url: str, why: str) -> None:
    assert why in url_fault(url)


def test_an_issuer_describes_itself_below_its_own_name() -> None:
    well_known = "/.well-known/openid-configuration"

    assert discovery_url("https://a.test") == f"https://a.test{well_known}"
    assert discovery_url("https://a.test/") == f"https://a.test{well_known}"
    assert discovery_url("https://a.test/realms/b") == f"https://a.test/realms/b{well_known}"
