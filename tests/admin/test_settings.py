"""Settings of the admin listener that contradict each other are told with their place."""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from sidecar import config
from sidecar.errors import ConfigError
from sidecar.model.admin import AdminCertificate, AdminSettings, AdminToken, credential_changes
from tests.admin.desk import WITH_TOKENS, desk, token_of
from tests.support.certificates import write_certificate
from tests.support.messages import PATIENCE_S
from tests.support.upstream import eventually

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from tests.support.valkey import Valkey

HASH = "a" * 64
BEARER = '[[admin_tokens]]\nname = "{}"\nrole = "viewer"\nsha256 = "{}"\n'
CERTIFICATE = '[[admin_certificates]]\nname = "{}"\nrole = "admin"\n{}\n'
TLS = """\
[admin_tls]
cert_file = "own.pem"
key_file = "own.key"
client_ca_file = "own.pem"
client_certs = "optional"
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BEARER.format("a", HASH) + BEARER.format("a", "b" * 64), "`a` is somebody else, too"),
        (BEARER.format("a", HASH) + BEARER.format("b", HASH), "is another's, too"),
        (BEARER.format("a", "A" * 64), "admin_tokens[0].sha256"),
        (BEARER.format("a b", HASH), "admin_tokens[0].name"),
        (BEARER.format("a", HASH).replace("viewer", "root"), "viewer"),
        (BEARER.format("a", HASH) + 'token = "x"', "unknown setting `token`"),
        (CERTIFICATE.format("a", 'cn = "x"'), "admin_certificates: has no effect"),
        (TLS + CERTIFICATE.format("a", ""), "set one of cn and san"),
        (TLS + CERTIFICATE.format("a", 'cn = "x"\nsan = "DNS:x"'), "set one of cn and san"),
        (TLS + CERTIFICATE.format("a", 'san = "spiffe://x"'), "write URI:, DNS: or email:"),
        (
            TLS + CERTIFICATE.format("a", 'cn = "x"') + CERTIFICATE.format("b", 'cn = "x"'),
            "these certificates are somebody else's, too",
        ),
        (TLS.replace("own.key", "none.key"), "none.key: No such file"),
        (TLS.replace("optional", "off"), "admin_tls.client_ca_file: has no effect"),
        ('[admin_api]\nhosts = ["a:8081"]', "admin_api.hosts[0]"),
        ('[admin_api]\nmetrics = "closed"', "admin_api.metrics"),
        ('[audit]\non_failure = "closed"', '"fail-closed"'),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, told: str, tmp_path: Path) -> None:
    write_certificate(tmp_path, "own")
    file = tmp_path / "rmv.toml"
    file.write_text(f"no_auth = true\n{text}")

    with pytest.raises(ConfigError) as refused:
        config.load(file, {}, {})

    [line] = str(refused.value).splitlines()[:1]
    assert line.startswith(f"{file}:")
    assert told in str(refused.value)


def test_whom_nobody_can_ask_nobody_may_be_named() -> None:
    tokens = f'[{{"name": "a", "role": "viewer", "sha256": "{HASH}"}}]'

    with pytest.raises(ConfigError, match="is off, yet it is said who may use it"):
        config.load(None, {"RMV_ADMIN_TOKENS": tokens}, {"no_auth": True, "admin": "off"})


async def test_a_write_that_nobody_waits_for_any_more_is_done_and_audited(
    valkey: Valkey, tmp_path: Path
) -> None:
    settings = replace(WITH_TOKENS, admin_api=AdminSettings(timeout_s=0.3))
    kill = "/api/v1/policies/fraud/kill"
    async with desk(valkey, tmp_path, settings) as at:
        assert (await at.call("GET", "/api/v1/status", role="operator")).status == 200
        valkey.pause()
        try:
            late = await at.call("PUT", kill, {"reason": "NaN"}, role="operator")
        finally:
            valkey.resume()
        done = "rmv_admin_writes_total", "actor", "operator"
        await eventually(lambda: at.metrics.events[done] == 1)
        assert [one.reason for one in await at.store.kills("fraud")] == ["NaN"]
    assert (late.status, late.code) == (408, "request-timeout")
    assert [one.actor for one in at.audited() if one.kind == "kill"] == ["admin:operator"]


async def test_a_write_under_way_at_a_stop_is_done_and_audited(
    valkey: Valkey, tmp_path: Path
) -> None:
    settings = replace(WITH_TOKENS, admin_api=AdminSettings(timeout_s=0.3))
    revocation = "/api/v1/revocations/tokens/stolen"
    try:
        async with desk(valkey, tmp_path, settings) as at:
            assert (await at.call("GET", "/api/v1/status", role="admin")).status == 200
            valkey.pause()
            late = await at.call("PUT", revocation, {"reason": "lost"}, role="admin")
            asyncio.get_running_loop().call_later(0.3, valkey.resume)
    finally:
        valkey.resume()

    assert late.status == 408
    assert [one.kind for one in at.audited() if one.kind == "revoke"] == ["revoke"]


def test_what_became_of_credentials_is_told_by_name_and_without_what_proves_them() -> None:
    token = AdminToken("a", "viewer", "a" * 64)
    certificate = AdminCertificate("c", "admin", cn="c")
    changes = credential_changes(
        [token, certificate, AdminToken("gone", "admin", "b" * 64)],
        [
            AdminCertificate("a", "viewer", san="DNS:a"),
            AdminCertificate("c", "operator", cn="other"),
            AdminToken("new", "operator", "c" * 64),
        ],
    )

    assert changes == {
        "added": ["new (operator, token)"],
        "removed": ["gone (admin, token)"],
        "changed": ["a: another certificate", "c: admin -> operator, another certificate"],
    }
    assert credential_changes([token], [token]) == {}


ONE = BEARER.format("a", HASH)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ONE + BEARER.format("a", "b" * 64), "rmv.toml:6: admin_tokens[1].name: `a` is somebody"),
        (ONE.replace("admin_tokens", "admin_token"), "rmv.toml:1: admin_token: unknown setting"),
        (ONE + 'workers = "many"', "rmv.toml:1: admin_tokens[0]: unknown setting `workers`"),
        (CERTIFICATE.format("c", 'cn = "c"'), "rmv.toml:1: admin_certificates: has no effect"),
        ("workers = 0\n" + ONE, "rmv.toml:1: workers"),
    ],
)
def test_what_is_wrong_with_a_file_that_is_read_again_has_its_line(
    text: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "rmv.toml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=re.escape(told)):
        config.with_credentials(config.Config(), file, {})


def test_credentials_are_all_that_is_taken_over_from_a_file_that_is_read_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rmv.toml"
    file.write_text('listen = ":1"\nworkers = 7\n' + ONE + TLS)
    before = config.Config(workers=2, admin_tokens=(AdminToken("b", "admin", "b" * 64),))

    after = config.with_credentials(before, file, {})

    assert after == replace(before, admin_tokens=(AdminToken("a", "viewer", HASH),))
    by_environment = {"RMV_ADMIN_TOKENS": f'[{{"name":"e","role":"admin","sha256":"{HASH}"}}]'}
    after = config.with_credentials(before, file, by_environment)
    assert after.admin_tokens == (AdminToken("e", "admin", HASH),)


async def test_a_fault_while_credentials_are_read_is_followed_by_another_look(
    valkey: Valkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counted_faults: Counter[str],
) -> None:
    faults = 3

    def failing(given: config.Config, file: Path, environ: dict[str, str]) -> config.Config:
        nonlocal faults
        if faults:
            faults -= 1
            raise ZeroDivisionError
        return config.with_credentials(given, file, environ)

    monkeypatch.setattr("sidecar.app.credentials.with_credentials", failing)
    monkeypatch.setattr("sidecar.app.credentials.LOOK_S", 0.01)
    monkeypatch.setattr("sidecar.runtime.tasks.REST_S", 0.01)
    file = tmp_path / "rmv.toml"
    sha256 = hashlib.sha256(token_of("viewer").encode()).hexdigest()
    file.write_text(BEARER.format("viewer", sha256))
    async with desk(valkey, tmp_path, config.Config(), file=str(file)) as running:

        async def is_let_in() -> bool:
            return (await running.call("GET", "/api/v1/status", role="viewer")).status == 200

        async with asyncio.timeout(PATIENCE_S):
            while not await is_let_in():  # noqa: ASYNC110 -- nobody else tells of it
                await asyncio.sleep(0.01)

    assert counted_faults == {"admin": 3}
