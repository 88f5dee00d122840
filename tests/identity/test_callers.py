"""Without a token a caller is whom its certificate or a trusted network names, else nobody."""

from __future__ import annotations

import pytest

from sidecar.errors import Code
from sidecar.identity.callers import (
    MAX_CLAIMED,
    UNIX,
    Callers,
    ClaimedCaller,
    is_bearer,
    pattern_fault,
)
from sidecar.identity.refusal import TokenRefused
from sidecar.model.caller import CallerSettings
from sidecar.model.identity import Identity
from sidecar.model.request import RequestHead

NOW_S = 1_800_000_000.0
ENDS = "Jan 15 08:00:00 2027 GMT"  # a moment before NOW_S is over: 1_800_000_000
SPIFFE = r"spiffe://mesh\.test/ns/(?P<tenant>[a-z0-9-]+)/sa/(?P<app>[a-z0-9-]+)"


def certificate(cn: str = "", *names: tuple[str, str], ends: str = ENDS) -> dict[str, object]:
    """Return a certificate as `ssl` tells it."""
    subject = ((("organizationName", "Acme"),), (("commonName", cn),)) if cn else ()
    return {"subject": subject, "subjectAltName": names, "notAfter": ends}


def head(tenant: bytes | None = None, *fields: bytes) -> RequestHead:
    return RequestHead(b"GET", b"/", list(fields), claimed_tenant=tenant)


def called(
    settings: CallerSettings, cert: object, *addresses: str, now_s: float = NOW_S - 1
) -> Identity | None:
    caller = Callers(settings).of(cert, addresses)
    return None if caller is None else caller.identify(head(b"claimed"), now_s)


def test_by_default_nobody_is_believed() -> None:
    cert = certificate("acme", ("URI", "spiffe://mesh.test/ns/acme/sa/web"), ("DNS", "acme"))

    assert not CallerSettings().are_believed
    assert called(CallerSettings(), cert, "127.0.0.1") is None
    assert called(CallerSettings(), cert, UNIX) is None


# --- certificates -----------------------------------------------------------------------------


def test_a_common_name_is_the_tenant_unless_a_pattern_says_otherwise() -> None:
    identity = called(CallerSettings("cn"), certificate("acme"))

    assert identity is not None
    assert (identity.tenant, identity.subject, identity.app) == ("acme", "acme", "")
    assert identity.expires_at_s == NOW_S


@pytest.mark.parametrize("kind", ["san_uri", "san_dns"])
def test_a_pattern_reads_tenant_and_app_out_of_a_name(kind: str) -> None:
    name = "spiffe://mesh.test/ns/acme/sa/web"
    others = [("DNS", "other"), ("URI", "https://other.test")]
    named = ("URI" if kind == "san_uri" else "DNS", name)
    settings = CallerSettings("san_uri" if kind == "san_uri" else "san_dns", SPIFFE)

    identity = called(settings, certificate("cn", *others, named))

    assert identity is not None
    assert (identity.tenant, identity.subject, identity.app) == ("acme", name, "web")


@pytest.mark.parametrize(
    "cert",
    [
        None,
        {},
        "acme",
        certificate(),
        certificate("", ("URI", "spiffe://mesh.test/ns/acme/sa/web/more")),
        certificate("", ("URI", "https://evil.test/?spiffe://mesh.test/ns/acme/sa/web")),
        certificate("", ("URI", "spiffe://mesh-test/ns/acme/sa/web")),
        certificate("", ("DNS", "spiffe://mesh.test/ns/acme/sa/web")),
        certificate("spiffe://mesh.test/ns/acme/sa/web"),
        certificate(
            "",
            ("URI", "spiffe://mesh.test/ns/acme/sa/web"),
            ("URI", "spiffe://mesh.test/ns/globex/sa/web"),
        ),
        certificate("", ("URI", "spiffe://mesh.test/ns/" + "a" * 129 + "/sa/web")),
    ],
)
def test_a_certificate_of_nobody_or_of_more_than_one_names_nobody(cert: object) -> None:
    assert called(CallerSettings("san_uri", SPIFFE), cert) is None


@pytest.mark.parametrize("cn", [" acme", "ac\nme", "acme\x00.evil", "café", "a" * 600])
def test_a_name_that_no_tenant_can_have_names_nobody(cn: str) -> None:
    assert called(CallerSettings("cn", "(?s:(?P<tenant>.*))"), certificate(cn)) is None


def test_a_certificate_that_ends_ends_the_caller_on_a_connection_that_goes_on() -> None:
    caller = Callers(CallerSettings("cn")).of(certificate("acme"), ())

    assert caller is not None
    assert caller.identify(head(), NOW_S - 0.001) is not None
    assert caller.identify(head(), NOW_S) is None


def test_a_certificate_comes_before_headers() -> None:
    settings = CallerSettings("cn", trusted_networks=("10.0.0.0/8",))

    named = called(settings, certificate("acme"), "10.0.0.1")
    unnamed = called(settings, None, "10.0.0.1")

    assert named is not None
    assert unnamed is not None
    assert (named.tenant, unnamed.tenant) == ("acme", "claimed")


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "regular expression"),
        (".*", "tenant"),
        ("(?P<tenant>.*)-(?P<scope>.*)", "scope"),
        (SPIFFE, ""),
    ],
)
def test_a_pattern_has_to_name_a_tenant(pattern: str, why: str) -> None:
    assert why in pattern_fault(pattern)
    assert bool(pattern_fault(pattern)) == bool(why)


# --- trusted networks -------------------------------------------------------------------------

NETWORKS = CallerSettings(trusted_networks=("10.1.0.0/16", "fd00::/8", "127.0.0.1"))


@pytest.mark.parametrize(
    ("addresses", "is_trusted"),
    [
        (("10.1.2.3",), True),
        (("::ffff:10.1.2.3",), True),
        (("fd00::1",), True),
        (("127.0.0.1",), True),
        (("10.2.0.1",), False),
        (("127.0.0.2",), False),
        (("fe80::1%eth0",), False),
        ((UNIX,), False),
        (("unknown",), False),
        (("",), False),
        ((), False),
        (("10.1.0.1", "10.1.2.3"), True),
        (("10.1.0.1", "203.0.113.9"), False),  # a balancer within, that names a client without
        (("203.0.113.9", "10.1.2.3"), False),  # a client without, that names one within
    ],
)
def test_headers_are_believed_from_trusted_networks_alone(
    addresses: tuple[str, ...], is_trusted: bool
) -> None:
    assert (called(NETWORKS, None, *addresses) is not None) == is_trusted


def test_a_unix_socket_is_trusted_only_if_that_is_said() -> None:
    assert called(CallerSettings(trust_unix=True), None, UNIX) is not None
    assert called(CallerSettings(trust_unix=True), None, "127.0.0.1") is None
    assert called(CallerSettings(trust_unix=True), None, UNIX, "203.0.113.9") is None


def test_headers_tell_tenant_subject_and_app() -> None:
    caller = ClaimedCaller()
    fields = [b"x-SUBJECT:  ada lovelace \r\n", b"Accept: */*\r\n", b"X-App: console\r\n"]

    identity = caller.identify(head(b" acme ", *fields), NOW_S)

    assert identity == Identity("acme", "ada lovelace", "console")
    assert caller.identify(head(b" acme ", *fields), NOW_S) is identity


def test_without_a_tenant_headers_tell_nobody() -> None:
    assert ClaimedCaller().identify(head(None, b"X-Subject: ada\r\n"), NOW_S) is None


@pytest.mark.parametrize(
    "fields",
    [
        (b"X-Subject: ada\r\n", b"X-Subject: bob\r\n"),
        (b"X-Subject: ada\r\n", b"x-subject: ada\r\n"),
        (b"X-App: a\r\n", b"X-APP:\r\n"),
        (b"X-Subject: \xff\r\n",),
        (b"X-Subject: a\tb\r\n",),
        (b"X-App: " + b"a" * 513 + b"\r\n",),
    ],
)
def test_a_header_that_is_repeated_or_unfit_is_refused(fields: tuple[bytes, ...]) -> None:
    with pytest.raises(TokenRefused) as refused:
        ClaimedCaller().identify(head(b"acme", *fields), NOW_S)

    assert refused.value.code is Code.MALFORMED_REQUEST


@pytest.mark.parametrize(
    "field", [b"X_Subject: eve\r\n", b"X-Subject-Id: eve\r\n", b"XX-Subject: eve\r\n"]
)
def test_a_header_of_a_similar_name_is_another(field: bytes) -> None:
    identity = ClaimedCaller().identify(head(b"acme", field), NOW_S)

    assert identity == Identity("acme")


@pytest.mark.parametrize("tenant", [b"", b" ", b"a\tb", b"caf\xc3\xa9", b"a" * 129])
def test_a_tenant_that_no_token_can_have_is_refused(tenant: bytes) -> None:
    with pytest.raises(TokenRefused) as refused:
        ClaimedCaller().identify(head(tenant), NOW_S)

    assert refused.value.code is Code.TENANT_DENIED
    assert "X-Tenant is empty, or not printable ASCII of at most 128" in refused.value.detail


def test_no_number_of_claimed_callers_takes_more_memory() -> None:
    caller = ClaimedCaller()
    for n in range(MAX_CLAIMED + 10):
        assert caller.identify(head(b"t-%d" % n), NOW_S) == Identity(f"t-{n}")

    first, last = (head(b"t-0"), head(b"t-%d" % (MAX_CLAIMED + 1)))
    assert caller.identify(first, NOW_S) is caller.identify(first, NOW_S)
    assert caller.identify(last, NOW_S) is not caller.identify(last, NOW_S)


@pytest.mark.parametrize(
    ("field", "is_one"),
    [
        (None, False),
        (b"", False),
        (b"Basic YTpi", False),
        (b"Bearerx y", False),
        (b"Bearer", True),
        (b"bEARER x", True),
        (b"Bearer  ", True),
    ],
)
def test_a_bearer_token_is_told_by_its_scheme(field: bytes | None, is_one: bool) -> None:
    assert is_bearer(field) is is_one
