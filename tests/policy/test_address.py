"""An endpoint is spelled one way, and is no address of the host's own secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.address import AllowList, canonical, fault, reach_fault


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:9001",
        "http://10.0.0.7",
        "http://model",
        "http://model.",
        "http://fraud-v2.models.svc.cluster.local:8080",
        "http://under_score:80",
        "http://[::1]:9001",
        "http://[fd00::7]",
        "http://[fd20:ce::253]",
        "http://[64:ff9b::a00:7]",
        "http://[64:ff9b:1::a00:7]",
        "http://[64:ff9b:1:a00:0:700::]",
        "http://100.100.100.201",
        "http://240.0.0.1",
        "http://1.model:65535",
        "http://xn--bcher-kva.example:1",
        "https://model",
        "https://model:8443",
        "https://[::1]",
        "unix:/run/models/fraud.sock",
        "unix:/fraud_v2-a",
        "unix:/run/..hidden",
        "unix:/" + "a" * 106,
    ],
)
def test_plain_endpoints_are_accepted(endpoint: str) -> None:
    assert fault(endpoint) is None


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("", "an endpoint is http://"),
        ("127.0.0.1:9001", "an endpoint is http://"),
        ("model:9001", "an endpoint is http://"),
        ("http:/model", "an endpoint is http://"),
        ("https:/model", "an endpoint is http://"),
        ("https://", "host is missing"),
        ("https://model/", "give https://host:port"),
        ("https://169.254.169.254", "metadata"),
        ("HTTPS://model", "scheme HTTPS"),
        ("unix:", "absolute path"),
        ("unix:run/model.sock", "absolute path"),
        ("unix://run/model.sock", "absolute path"),
        ("unix:///run/model.sock", "absolute path"),
        ("UNIX:/run/model.sock", "an endpoint is http://"),
        ("unix:/", "empty part"),
        ("unix:/run/", "empty part"),
        ("unix:/run//model.sock", "empty part"),
        ("unix:/run/./model.sock", "`..`"),
        ("unix:/run/models/../docker.sock", "`..`"),
        ("unix:/run/..", "`..`"),
        ("unix:/run/%2e%2e/docker.sock", "letters, digits"),
        ("unix:/run/a b", "letters, digits"),
        ("unix:/run/a\n", "letters, digits"),
        ("unix:/run/a\0", "letters, digits"),
        ("unix:/" + "a" * 107, "at most 107"),
        ("ftp://model", "scheme ftp"),
        ("HTTP://model", "scheme HTTP"),
        ("http://model/", "no path"),
        ("http://model/v2", "no path"),
        ("http://model?x", "no query"),
        ("http://model#x", "no fragment"),
        ("http://user:password@model", "no user or password"),
        ("http://", "host is missing"),
        ("http://:80", "host is missing"),
        ("http://model:", "port"),
        ("http://model:0", "port"),
        ("http://model:65536", "port"),
        ("http://model:080", "port"),
        ("http://model:+80", "port"),
        ("http://model:8 0", "port"),
        ("http://model:٨٠", "port"),
        ("http://model:80:81", "port"),
        ("http://2130706433", "no other form"),
        ("http://0x7f.1", "no other form"),
        ("http://0x7f000001", "no other form"),
        ("http://127.1", "no other form"),
        ("http://0177.0.0.1", "no other form"),
        ("http://127.0.0.1.", "no other form"),
        ("http://127.0.0.256", "no other form"),
        ("http://model.0x", "no other form"),
        ("http://169.254.169.254", "metadata"),
        ("http://169.254.0.1:80", "metadata"),
        ("http://[fe80::1]", "link-local"),
        ("http://[fe80::1%eth0]", "link-local"),
        ("http://[::ffff:169.254.169.254]", "metadata"),
        ("http://[::ffff:127.0.0.1]", "written as such: 127.0.0.1"),
        ("http://[64:ff9b::a9fe:a9fe]", "metadata"),
        ("http://[2002:a9fe:a9fe::]", "metadata"),
        ("http://[fd00:ec2::254]", "metadata"),
        ("http://100.100.100.200", "metadata"),
        ("http://192.0.0.192", "metadata"),
        ("http://168.63.129.16", "metadata"),
        ("http://[fd20:ce::254]", "metadata"),
        ("http://[fd00:ec2::23]", "metadata"),
        ("http://[fd00:c1::a9fe:a9fe]", "metadata"),
        ("http://[fd00:42::42]", "metadata"),
        ("http://[fd00:a9fe:a9fe::1]", "metadata"),
        ("http://[fd00:100::100:200]", "metadata"),
        ("http://[::169.254.169.254]", "metadata"),
        ("http://[::168.63.129.16]", "metadata"),
        ("http://[::ffff:0:169.254.169.254]", "metadata"),
        ("http://[64:ff9b:1::a9fe:a9fe]", "metadata"),
        ("http://[64:ff9b:1:a9fe:a9:fe00::]", "metadata"),
        ("http://[64:ff9b:1:a9:fe:a9fe::]", "metadata"),
        ("http://[64:ff9b:1:0:a9:fea9:fe00:0]", "metadata"),
        ("http://[2001:0:a9fe:a9fe::5601:5601]", "metadata"),
        ("http://[2001:0:a00:1::5601:5601]", "metadata"),
        ("http://255.255.255.255", "no single host"),
        ("http://0.1.2.3", "no single host"),
        ("http://[ff02::1]", "no single host"),
        ("http://[::2]", "no single host"),
        ("http://0.0.0.0:80", "no single host"),
        ("http://[::]", "no single host"),
        ("http://224.0.0.1", "no single host"),
        ("http://::1", "port"),
        ("http://[::1", "brackets"),
        ("http://[::1]x", "brackets"),
        ("http://[model]", "not an IPv6"),
        ("http://mo del", "neither a name"),
        ("http://model\r\nX", "neither a name"),
        ("http://-model", "neither a name"),
        ("http://a..b", "neither a name"),
        ("http://bücher.example", "neither a name"),
        ("http://" + "a" * 64, "neither a name"),
        ("http://" + "a." * 127 + "a", "neither a name"),
    ],
)
def test_everything_else_is_refused_in_words(endpoint: str, words: str) -> None:
    reason = fault(endpoint)

    assert reason is not None
    assert words in reason


@given(st.sampled_from(["http://", "https://", "unix:/"]), st.text(max_size=30))
def test_what_is_accepted_is_plain_visible_ascii(start: str, text: str) -> None:
    endpoint = start + text
    if fault(endpoint) is None:
        assert endpoint.isascii()
        assert all("!" <= char <= "~" for char in endpoint)


@pytest.mark.parametrize(
    ("address", "is_fine"),
    [
        ("10.0.0.7", True),
        ("fd00::7", True),
        ("169.254.169.254", False),
        ("fe80::1%2", False),
        ("::ffff:169.254.169.254", False),
        ("224.0.0.1", False),
    ],
)
def test_what_a_name_resolves_to_is_held_to_the_same(address: str, is_fine: bool) -> None:
    assert (reach_fault(address) is None) == is_fine


@pytest.mark.parametrize(
    ("entries", "endpoint"),
    [
        ((), "http://anywhere:1"),
        (("model",), "http://model:9001"),
        (("model",), "http://MODEL.:9001"),
        (("Model.",), "http://model"),
        (("model:9001",), "http://model:9001"),
        (("model:80",), "http://model"),
        (("model:443",), "https://model"),
        (("*.svc",), "http://a.b.svc:1"),
        (("*.svc:80",), "http://a.svc"),
        (("*",), "http://model:1"),
        (("10.0.0.0/8",), "http://10.1.2.3:1"),
        (("10.0.0.0/8:9001",), "http://10.1.2.3:9001"),
        (("10.1.2.3",), "http://10.1.2.3:1"),
        (("::1",), "http://[::1]:1"),
        (("fd00::/8",), "http://[fd00::7]"),
        (("[fd00::/8]:80",), "http://[fd00::7]"),
        (("::ffff:10.0.0.0/104",), "http://10.1.2.3"),
        (("a", "b"), "http://b"),
        (("model",), "unix:/run/model.sock"),
    ],
)
def test_an_endpoint_that_an_entry_means_is_allowed(
    entries: tuple[str, ...], endpoint: str
) -> None:
    assert fault(endpoint) is None
    assert AllowList(entries).fault(endpoint) is None


@pytest.mark.parametrize(
    ("entries", "endpoint"),
    [
        (("model",), "http://other"),
        (("model",), "http://model.evil"),
        (("model",), "http://a.model"),
        (("model:9001",), "http://model:9002"),
        (("model:9001",), "http://model"),
        (("*.svc",), "http://svc"),
        (("*.svc",), "http://evilsvc"),
        (("*.svc",), "http://a.svc.evil"),
        (("*",), "http://10.1.2.3"),
        (("10.0.0.0/8",), "http://11.1.2.3"),
        (("10.0.0.0/8",), "http://model"),
        (("10.0.0.0/8:9001",), "http://10.1.2.3:9002"),
        (("fd00::/8",), "http://10.1.2.3"),
        (("::/0",), "http://10.1.2.3"),
    ],
)
def test_any_other_endpoint_is_not_allowed(entries: tuple[str, ...], endpoint: str) -> None:
    assert fault(endpoint) is None
    assert AllowList(entries).fault(endpoint) == (
        "not one of the hosts and networks of the setting endpoints.allow"
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("", "neither a host"),
        ("a b", "neither a host"),
        ("http://model", "port"),
        ("model:0", "port"),
        ("model:http", "port"),
        ("[::1", "neither a host"),
        ("[::1]9001", "neither a host"),
        ("[::1]x9001", "neither a host"),
        ("*model", "neither a host"),
        ("a.*.svc", "neither a host"),
        ("*.", "neither a host"),
        ("10.0.0.1/8", "host bits"),
        ("10.0.0.0/33", "not a network"),
        ("model/8", "not a network"),
        ("10.1", "neither a host"),
        ("0x7f.1", "neither a host"),
        ("::1:80", r"\[::1\]:80 for a port, or \[::1:80\] for an address"),
    ],
)
def test_an_entry_that_means_nothing_is_refused(entry: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AllowList([entry])


@pytest.mark.parametrize(
    ("entries", "address", "port", "is_fine"),
    [
        ((), "10.0.0.7", 80, True),
        (("model",), "10.0.0.7", 80, True),
        (("model", "10.0.0.0/8"), "10.0.0.7", 80, True),
        (("model", "10.0.0.0/8"), "::ffff:10.0.0.7", 80, True),
        (("model", "10.0.0.0/8"), "11.0.0.7", 80, False),
        (("model", "10.0.0.0/8"), "fd00::7", 80, False),
        (("model", "10.0.0.0/8:81"), "10.0.0.7", 80, False),
        ((), "168.63.129.16", 80, False),
        ((), "fd20:ce::254", 80, False),
        ((), "::ffff:100.100.100.200", 80, False),
        ((), "64:ff9b:1::a9fe:a9fe", 80, False),
        ((), "2001:0:a9fe:a9fe::5601:5601", 80, False),
        ((), "255.255.255.255", 80, False),
        ((), "0.1.2.3", 80, False),
        ((), "::1", 80, True),
        (("[fd00::1:80]",), "fd00::1:80", 443, True),
        (("*", "0.0.0.0/0", "::/0"), "169.254.169.254", 80, False),
        (("*", "fe80::/10"), "fe80::1%eth0", 80, False),
    ],
)
def test_what_a_name_resolves_to_is_held_to_the_networks(
    entries: tuple[str, ...], address: str, port: int, *, is_fine: bool
) -> None:
    assert (AllowList(entries).reach_fault(address, port) is None) == is_fine


@pytest.mark.parametrize(
    ("endpoint", "spelling"),
    [
        ("http://127.0.0.1", "http://127.0.0.1:80"),
        ("http://LocalHost.", "http://localhost:80"),
        ("https://localhost:443", "https://localhost:443"),
        ("http://[0:0:0:0:0:0:0:1]:81", "http://[::1]:81"),
        ("https://[FD00::7]", "https://[fd00::7]:443"),
        ("unix:/run/Model.sock", "unix:/run/Model.sock"),
    ],
)
def test_endpoints_that_mean_the_same_have_one_canonical_spelling(
    endpoint: str, spelling: str
) -> None:
    assert canonical(endpoint) == spelling
    assert canonical(spelling) == spelling


@given(st.text(max_size=20))
def test_any_text_is_an_entry_or_none(text: str) -> None:
    try:
        allowed = AllowList([text])
    except ValueError as error:
        assert str(error)  # noqa: PT017  # either outcome is right
    else:
        assert isinstance(allowed.fault("http://model:1"), str | None)
