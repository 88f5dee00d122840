"""Who may do what on the admin listener, and what is held against those who may not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from sidecar.admin.failures import MAX_PEERS, Failures
from sidecar.admin.routes import ROUTES
from sidecar.config import Config
from sidecar.model.admin import RANKS, AdminCertificate, AdminSettings
from sidecar.model.tls import TlsSettings
from sidecar.runtime.tls import ServerTls
from tests.admin.desk import ROLES, WITH_TOKENS, desk, token_of
from tests.dataplane.test_tls_peers import trusting
from tests.support.certificates import write_certificate
from tests.support.clock import HandClock

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from tests.admin.desk import Desk, Told
    from tests.support.valkey import Valkey

STATUS = "/api/v1/status"


def filled(path: str) -> str:
    for name, value in {
        "model": "fraud",
        "version": "v1",
        "tenant": "acme",
        "revision": "1",
        "jti": "j",
    }.items():
        path = path.replace(f"{{{name}}}", value)
    return path


async def every_route(at: Desk, role: str) -> dict[str, Told]:
    """Call every route with a body of no use; what passes access is refused as that."""
    return {
        f"{route.method} {route.path}": await at.call(
            route.method, filled(route.path), [] if route.has_body else None, role=role
        )
        for route in ROUTES
    }


async def test_every_route_is_for_its_role_and_those_above_it(
    valkey: Valkey, tmp_path: Path
) -> None:
    for role in ROLES:
        async with desk(valkey, tmp_path) as at:
            told = await every_route(at, role)
        for route in ROUTES:
            answer = told[f"{route.method} {route.path}"]
            may = RANKS[role] >= RANKS[route.role]
            assert (answer.code == "role-too-low") is not may, (role, route)
            assert (answer.status == 403) is not may


async def test_without_any_credential_loopback_reads_and_nobody_writes(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with desk(valkey, tmp_path, Config()) as at:
        told = await every_route(at, "")
        assert (await at.call("GET", STATUS, role="admin")).code == "credential-invalid"

    for route in ROUTES:
        answer = told[f"{route.method} {route.path}"]
        assert (answer.code == "writes-off") is (route.role != "viewer"), route


async def test_with_credentials_loopback_is_nobody(valkey: Valkey, tmp_path: Path) -> None:
    async with desk(valkey, tmp_path) as at:
        for answer in (await every_route(at, "")).values():
            assert (answer.status, answer.code) == (401, "credential-missing")
            assert answer.answer.get(b"WWW-Authenticate") == b'Bearer realm="rmv-admin"'


async def test_health_is_open_and_metrics_are_as_the_settings_say(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with desk(valkey, tmp_path) as at:
        for path in ("/healthz", "/livez", "/readyz", "/metrics"):
            assert (await at.call("GET", path, host="any.example")).status == 200
    local = replace(WITH_TOKENS, admin_api=AdminSettings(metrics="loopback"))
    async with desk(valkey, tmp_path, local) as at:
        assert (await at.call("GET", "/metrics")).status == 200
        assert (await at.call("GET", "/metrics", host="any.example")).status == 403
    closed = replace(WITH_TOKENS, admin_api=AdminSettings(metrics="viewer"))
    async with desk(valkey, tmp_path, closed) as at:
        assert (await at.call("GET", "/metrics")).status == 401
        assert (await at.call("GET", "/metrics", role="viewer")).status == 200
        assert (await at.call("GET", "/readyz")).status == 200


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Bearer",
        "Authorization: Basic cm12OnJtdg==",
        "Authorization: Bearer rmv_nobody",
        f"Authorization: Bearer {token_of('admin')}x",
        f"Authorization: Bearer {token_of('admin')[:-1]}",
        f"Authorization: Bearer {token_of('admin').upper()}",
        f"Authorization: Bearer {token_of('admin')}, Bearer {token_of('admin')}",
        f"Authorization: Bearer {token_of('admin')}\r\nAuthorization: Bearer {token_of('admin')}",
        f"Authorization: {token_of('admin')}",
    ],
)
async def test_what_is_not_exactly_a_token_is_refused(
    header: str, valkey: Valkey, tmp_path: Path
) -> None:
    async with desk(valkey, tmp_path) as at:
        told = await at.call("GET", STATUS, headers=(header,))
        assert (told.status, told.code) == (401, "credential-invalid")
        assert (await at.call("GET", STATUS, role="admin")).status == 200


@pytest.mark.parametrize(
    ("host", "is_let_in"),
    [
        ("127.0.0.1:8081", True),
        ("[::1]", True),
        ("LOCALHOST", True),
        ("ops.example:8081", True),
        ("attacker.example", False),
        ("ops.example.attacker.example", False),
        ("127.0.0.1.attacker.example", False),
        ("localhost@attacker.example", False),
        ("", False),
    ],
)
async def test_a_page_that_resolves_its_name_to_the_listener_reads_nothing(
    host: str, is_let_in: bool, valkey: Valkey, tmp_path: Path
) -> None:
    settings = AdminSettings(hosts=("ops.example",))
    for config in (Config(admin_api=settings), replace(WITH_TOKENS, admin_api=settings)):
        role = "viewer" if config.admin_tokens else ""
        async with desk(valkey, tmp_path, config) as at:
            told = await at.call("GET", STATUS, role=role, host=host)
        assert told.status == (200 if is_let_in else 403)
        assert is_let_in or told.code == "host-refused"


@pytest.mark.parametrize(
    "header",
    ["Origin: https://attacker.example", "Origin: null", "Sec-Fetch-Site: cross-site"],
)
async def test_what_a_page_of_another_site_sends_is_refused(
    header: str, valkey: Valkey, tmp_path: Path
) -> None:
    async with desk(valkey, tmp_path) as at:
        kill = "/api/v1/policies/fraud/kill"
        told = await at.call("PUT", kill, {"reason": "x"}, role="admin", headers=(header,))
        assert (told.status, told.code) == (403, "browser-refused")
        assert await at.store.kills("fraud") == []


async def test_a_body_that_a_page_may_send_unasked_is_no_json(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with desk(valkey, tmp_path) as at:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            told = await at.call(
                "POST",
                "/api/v1/policies/fraud/rollback",
                role="admin",
                headers=(f"Content-Type: {kind}", "Content-Length: 0"),
            )
            assert (told.status, told.code) == (415, "not-json")


async def test_wrong_credentials_are_held_back_and_right_ones_of_others_are_not(
    valkey: Valkey, tmp_path: Path
) -> None:
    config = replace(WITH_TOKENS, admin_api=AdminSettings(failures=3))
    async with desk(valkey, tmp_path, config) as at:
        assert (await at.call("GET", STATUS, role="viewer")).status == 200
        wrong = [await at.call("GET", STATUS, role=f"guess{n}") for n in range(5)]
        assert [one.status for one in wrong] == [401, 401, 401, 429, 429]
        assert int(wrong[-1].answer.get(b"Retry-After") or 0) in range(1, 61)
        # The peer learns nothing of a token that it has never shown; who was in goes on.
        assert (await at.call("GET", STATUS, role="admin")).status == 429
        assert (await at.call("GET", STATUS, role="viewer")).status == 200
        assert (await at.call("GET", STATUS, role="admin", source="127.0.0.2")).status == 200
    logins = [one for one in at.audited() if one.kind == "login"]
    assert [one.reason for one in logins].count("credential-invalid") == 3
    assert {one.actor for one in logins if one.reason == "first-use"} == {
        "admin:viewer",
        "admin:admin",
    }


async def test_failures_of_all_peers_are_held_back_yet_no_right_token(
    valkey: Valkey, tmp_path: Path
) -> None:
    config = replace(WITH_TOKENS, admin_api=AdminSettings(failures=1))
    async with desk(valkey, tmp_path, config) as at:
        statuses = [
            (await at.call("GET", STATUS, role="guess", source=f"127.0.1.{n}")).status
            for n in range(1, 13)
        ]
        assert statuses == [401] * 10 + [429] * 2
        assert (await at.call("GET", STATUS, role="viewer", source="127.0.2.1")).status == 200


def test_failures_come_back_evenly_over_a_minute() -> None:
    clock = HandClock()
    failures = Failures(2, clock.monotonic_s)

    assert [failures.note("192.0.2.1") for _ in range(3)] == [0, 0, 30]
    clock.advance(30)
    assert failures.wait_s("192.0.2.1") == 0
    assert [failures.note("192.0.2.1") for _ in range(2)] == [0, 30]


def test_a_host_of_ipv6_has_one_place_whatever_addresses_it_takes() -> None:
    failures = Failures(1, HandClock().monotonic_s)

    assert failures.note("2001:db8::1") == 0
    assert failures.note("2001:db8::ffff:ffff:ffff:ffff") > 0
    assert failures.note("2001:db8:0:1::1") == 0
    assert failures.note("::ffff:192.0.2.1") == 0
    assert failures.note("192.0.2.1") > 0


def test_no_number_of_peers_takes_more_memory() -> None:
    failures = Failures(1000, HandClock().monotonic_s)

    for n in range(2 * MAX_PEERS):
        failures.note(f"10.0.{n // 256}.{n % 256}")

    assert len(failures) == MAX_PEERS


async def test_certificates_are_believed_by_their_names_and_renewed_without_a_restart(
    valkey: Valkey, tmp_path: Path
) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    ops, stranger = write_certificate(tmp_path, "ops"), write_certificate(tmp_path, "stranger")
    both = tmp_path / "both.pem"
    both.write_bytes(ops[0].read_bytes() + stranger[0].read_bytes())
    config = Config(
        admin_tls=TlsSettings(
            str(cert_file), str(key_file), client_certs="optional", client_ca_file=str(both)
        ),
        admin_certificates=(AdminCertificate("deploy", "operator", san="DNS:ops"),),
    )
    ask = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with desk(valkey, tmp_path, config) as at:
        context = trusting(cert_file)
        assert (await at.send(ask, context)).status == 401
        assert (await at.send(ask.replace(b"/api/v1/status", b"/readyz"), context)).status == 200
        context.load_cert_chain(*stranger)
        assert (await at.send(ask, context)).status == 401
        context = trusting(cert_file)
        context.load_cert_chain(*ops)
        assert (await at.send(ask, context)).status == 200

        both.write_bytes(stranger[0].read_bytes())  # nobody vouches for ops any more
        write_certificate(tmp_path)
        context = trusting(cert_file)
        context.load_cert_chain(*ops)
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await at.send(ask, context)
        assert (await at.send(ask, trusting(cert_file))).status == 401
    assert [one.facts["by"] for one in at.audited() if one.reason == "first-use"] == ["certificate"]


async def test_a_fault_as_certificates_are_looked_at_leaves_the_former_ones_in_force(
    valkey: Valkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counted_faults: Counter[str],
) -> None:
    def broken(_files: ServerTls) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(ServerTls, "reload", broken)
    cert_file, key_file = write_certificate(tmp_path)
    config = replace(WITH_TOKENS, admin_tls=TlsSettings(str(cert_file), str(key_file)))
    ask = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with desk(valkey, tmp_path, config) as at:
        assert (await at.send(ask, trusting(cert_file))).status == 200

    assert counted_faults == {"admin": 1}


async def test_a_common_name_counts_alone_and_gives_its_role_and_no_other(
    valkey: Valkey, tmp_path: Path
) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    ops, eve = write_certificate(tmp_path, "ops"), write_certificate(tmp_path, "eve", "ops")
    both = tmp_path / "both.pem"
    both.write_bytes(ops[0].read_bytes() + eve[0].read_bytes())
    config = Config(
        admin_tls=TlsSettings(
            str(cert_file), str(key_file), client_certs="optional", client_ca_file=str(both)
        ),
        admin_certificates=(AdminCertificate("reader", "viewer", cn="ops"),),
    )
    look = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    change = b"DELETE /api/v1/policies/fraud/kill HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with desk(valkey, tmp_path, config) as at:
        told = {}
        for name, files in (("ops", ops), ("eve", eve)):
            context = trusting(cert_file)
            context.load_cert_chain(*files)
            answers = [await at.send(request, context) for request in (look, change)]
            told[name] = [one.status for one in answers], answers[1].code

    assert told["ops"] == ([200, 403], "role-too-low")
    assert told["eve"] == ([401, 401], "credential-invalid")


async def test_nothing_of_a_request_can_forge_a_line_or_a_token_be_read_in_audit(
    valkey: Valkey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with desk(valkey, tmp_path) as at:
        await at.call("GET", STATUS, role="guess")
        reason = {"reason": 'x\n{"kind":"login","actor":"admin:root"}'}
        kill = "/api/v1/policies/fraud/kill"
        assert (await at.call("PUT", kill, reason, role="operator")).status == 422
        pin = "/api/v1/policies/fraud/pins/a%0d%0ab"
        assert (await at.call("PUT", pin, {"version": "v1"}, role="operator")).status == 422
        revoked = "/api/v1/revocations/tokens/j%0aactor=root"
        assert (await at.call("PUT", revoked, {}, role="admin")).status == 422
    text = "".join(file.read_text() for file in at.audit_dir.rglob("*.jsonl"))
    assert "root" not in text
    assert "rmv_" not in text + caplog.text
