"""Settings of the admin listener that contradict each other are told with their place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from sidecar import config
from sidecar.errors import ConfigError
from sidecar.model.admin import AdminSettings
from tests.admin.desk import WITH_TOKENS, desk
from tests.support.certificates import write_certificate
from tests.support.upstream import eventually

if TYPE_CHECKING:
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
