"""What the admin API tells and changes."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest
from msgspec.structs import replace

from sidecar.admin.problems import Refusal
from sidecar.admin.routes import ROUTES
from sidecar.model.admin import AdminSettings
from sidecar.model.audit import OnFailure
from sidecar.model.policy import Version
from sidecar.model.signing import SigningSettings
from sidecar.model.upstream import EndpointSettings
from sidecar.runtime.ed25519 import generate
from tests.admin.desk import POLICY, TOKENS, WITH_TOKENS, desk, token_of
from tests.docs.markdown import coded, page, table
from tests.store.test_acl import USERS, url_of

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from sidecar.model.policy import Policy
    from tests.support.valkey import Valkey

FRAUD = "/api/v1/policies/fraud"
V3 = replace(POLICY, versions={**POLICY.versions, "v3": Version(("http://127.0.0.1:9003",))})


def test_every_route_and_code_stands_in_the_page() -> None:
    text = page("admin.md")

    routes = {(coded(row[0])[0], row[1]) for row in table(text, "route")}
    assert routes == {(f"{one.method} {one.path}", one.role) for one in ROUTES}
    codes = {(coded(row[0])[0], row[1]) for row in table(text, "code")}
    assert codes == {(one.slug, str(one.status)) for one in Refusal}


async def test_a_policy_is_read_with_its_revision_and_committed_against_it(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with desk(valkey, tmp_path) as at:
        found = await at.call("GET", FRAUD, role="viewer")
        assert found.answer.get(b"ETag") == b'"1"'
        match = ('If-Match: "1"',)
        path = f"{FRAUD}?comment=a+third"
        first = await at.call("PUT", path, V3, role="admin", headers=match)
        again = await at.call("PUT", path, POLICY, role="admin", headers=match)
        stored = await at.store.get_policy("fraud")
        newest = (await at.store.history("fraud"))[0]

    assert (first.status, first.body["revision"], first.body["committed"]) == (200, 2, True)
    assert first.answer.get(b"ETag") == b'"2"'
    assert (again.status, again.code) == (412, "revision-mismatch")
    assert stored is not None
    assert set(stored.policy.versions) == {"v1", "v2", "v3"}
    assert (newest.actor, newest.comment) == ("admin:admin", "a third")
    commits = [one for one in at.audited() if one.kind == "commit"]
    assert [(one.actor, one.model, one.revision) for one in commits] == [
        ("admin:admin", "fraud", 2)
    ]


async def test_of_two_commits_at_once_one_wins(valkey: Valkey, tmp_path: Path) -> None:
    async with desk(valkey, tmp_path) as at:
        match = ("If-Match: *",)
        documents: list[Policy] = [V3, replace(V3, default="v2"), replace(V3, default="v3")]
        calls = [at.call("PUT", FRAUD, one, role="admin", headers=match) for one in documents]
        told = await asyncio.gather(*calls)
        revisions = [one.revision for one in await at.store.history("fraud")]

    won = [one for one in told if one.status == 200]
    assert {one.code for one in told if one.status != 200} <= {"conflict"}
    assert won
    assert revisions == list(range(len(won) + 1, 0, -1))


async def test_a_commit_has_to_say_what_it_replaces(valkey: Valkey, tmp_path: Path) -> None:
    async with desk(valkey, tmp_path) as at:
        bare = await at.call("PUT", FRAUD, V3, role="admin")
        new = ("If-None-Match: *",)
        taken = await at.call("PUT", FRAUD, V3, role="admin", headers=new)
        churn = replace(POLICY, model="churn")
        path = "/api/v1/policies/churn"
        missing = await at.call("PUT", path, churn, role="admin", headers=('If-Match: "1"',))
        made = await at.call("PUT", path, churn, role="admin", headers=new)
        same = await at.call("PUT", path, churn, role="admin", headers=("If-Match: *",))
        other = await at.call("PUT", path, POLICY, role="admin", headers=("If-Match: *",))

    assert (bare.status, bare.code) == (428, "revision-required")
    assert taken.code == missing.code == "revision-mismatch"
    assert (made.status, made.body["revision"]) == (200, 1)
    assert (same.body["revision"], same.body["committed"]) == (1, False)
    assert (other.status, other.code) == (422, "invalid")


async def test_what_is_not_valid_is_refused_with_its_places_and_changes_nothing(
    valkey: Valkey, tmp_path: Path
) -> None:
    config = replace(WITH_TOKENS, endpoints=EndpointSettings(("127.0.0.1",)))
    bad = {"model": "fraud", "versions": {"v1": {"endpoints": ["ftp://x"]}}, "default": "v7"}
    far = {"model": "fraud", "versions": {"v1": {"endpoints": ["http://10.0.0.1"]}}}
    match = ('If-Match: "1"',)
    async with desk(valkey, tmp_path, config) as at:
        before = await at.store.get_document("fraud")
        documents: tuple[object, ...] = (bad, far, [], {"model": "fraud", "odd": 1})
        for document in documents:
            told = await at.call("PUT", FRAUD, document, role="admin", headers=match)
            assert (told.status, told.code) == (422, "invalid")
            assert told.body["problems"]
        assert await at.store.get_document("fraud") == before


async def test_a_document_that_is_not_valid_is_told_and_can_be_replaced(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with desk(valkey, tmp_path) as at:
        await valkey.client.set("rmv:policy:fraud", '{"model": "fraud", "versions": 7}')
        told = await at.call("GET", FRAUD, role="viewer")
        listed = await at.call("GET", "/api/v1/status", role="viewer")
        kill = await at.call("PUT", f"{FRAUD}/kills/v2", {"reason": "bad"}, role="operator")
        by_number = await at.call("PUT", FRAUD, V3, role="admin", headers=('If-Match: "1"',))
        mended = await at.call("PUT", FRAUD, V3, role="admin", headers=("If-Match: *",))

    assert (told.status, told.code) == (409, "stored-invalid")
    assert b"versions" in listed.answer.body
    assert kill.status == 200
    assert by_number.code == "revision-mismatch"
    assert (mended.status, mended.body["committed"]) == (200, True)


async def test_a_rollback_commits_anew_what_a_revision_said(valkey: Valkey, tmp_path: Path) -> None:
    async with desk(valkey, tmp_path) as at:
        await at.call("PUT", FRAUD, V3, role="admin", headers=('If-Match: "1"',))
        path = f"{FRAUD}/rollback"
        stale = await at.call(
            "POST", path, {"revision": 1}, role="admin", headers=('If-Match: "1"',)
        )
        done = await at.call("POST", path, {"revision": 1, "comment": "NaN"}, role="admin")
        none = await at.call("POST", path, {"revision": 9}, role="admin")
        stored = await at.store.get_policy("fraud")

    assert stale.code == "revision-mismatch"
    assert (done.status, done.body["revision"], done.body["rolled_back_to"]) == (200, 3, 1)
    assert none.code == "not-found"
    assert stored is not None
    assert set(stored.policy.versions) == {"v1", "v2"}
    assert stored.policy.comment == "NaN (rollback to revision 1)"


async def test_pins_and_kills_are_set_listed_and_ended_and_each_is_audited(
    valkey: Valkey, tmp_path: Path
) -> None:
    pin, kill = f"{FRAUD}/pins/a%2Fb", f"{FRAUD}/kills/v2"
    async with desk(valkey, tmp_path) as at:
        version = {"version": "v2", "ttl_s": 60}
        assert (await at.call("PUT", pin, version, role="operator")).status == 200
        assert (await at.call("GET", pin, role="viewer")).body["tenant"] == "a/b"
        assert b'"a/b"' in (await at.call("GET", f"{FRAUD}/pins", role="viewer")).answer.body
        for n in range(3):
            await at.store.set_pin("fraud", f"t{n}", "v1")
        some = await at.call("GET", f"{FRAUD}/pins?limit=2", role="viewer")
        unknown = await at.call("PUT", pin, {"version": "v9"}, role="operator")
        assert (await at.call("DELETE", pin, role="operator")).status == 200
        assert (await at.call("DELETE", pin, role="operator")).code == "not-found"
        reason = {"reason": "NaN"}
        assert (await at.call("PUT", kill, reason, role="operator")).status == 200
        assert b"NaN" in (await at.call("GET", f"{FRAUD}/kills", role="viewer")).answer.body
        asked = await at.call(
            "POST", f"{FRAUD}/explain", {"tenant": "a", "asked_version": "v2"}, role="viewer"
        )
        assert (await at.call("DELETE", kill, role="operator")).status == 200
        whole = await at.call("PUT", f"{FRAUD}/kill", reason, role="operator")
        assert (await at.call("DELETE", f"{FRAUD}/kill", role="operator")).status == 200

    assert (unknown.status, unknown.code) == (422, "invalid")
    assert len(msgspec.convert(some.body["pins"], list[object])) == 2
    assert some.body["more"] is True
    assert asked.body["reason"] == "DENIED:killed"
    assert whole.body["version"] is None
    told = [(one.kind, one.actor) for one in at.audited() if one.kind in {"pin", "unpin"}]
    assert told == [("pin", "admin:operator"), ("unpin", "admin:operator")]
    killed = [one.kind for one in at.audited() if one.kind in {"kill", "revive"}]
    assert killed == ["kill", "revive"] * 2


async def test_tokens_are_revoked_and_believed_again(valkey: Valkey, tmp_path: Path) -> None:
    one, tenant = "/api/v1/revocations/tokens/j1", "/api/v1/revocations/tenants/acme"
    async with desk(valkey, tmp_path) as at:
        assert (await at.call("PUT", one, {"reason": "stolen"}, role="admin")).status == 200
        assert (await at.call("PUT", tenant, {"before_s": 7}, role="admin")).status == 200
        listed = await at.call("GET", "/api/v1/revocations", role="viewer")
        assert (await at.call("DELETE", one, role="admin")).status == 200
        assert (await at.call("DELETE", tenant, role="admin")).status == 200
        assert (await at.call("DELETE", tenant, role="admin")).code == "not-found"

    assert b'"jti":"j1","reason":"stolen"' in listed.answer.body
    assert b'"tenant":"acme","before_s":7' in listed.answer.body


async def test_what_needs_a_signature_is_not_written_without_one(
    valkey: Valkey, tmp_path: Path
) -> None:
    generate(tmp_path, "alice")
    trusted = (str(tmp_path / "alice.pub"),)
    kill, body = f"{FRAUD}/kill", {"reason": "NaN"}
    async with desk(valkey, tmp_path) as at:  # commits the policy
        pass
    config = replace(WITH_TOKENS, signing=SigningSettings(trusted))
    async with desk(valkey, tmp_path, config) as at:
        pin = await at.call("PUT", f"{FRAUD}/pins/a", {"version": "v1"}, role="admin")
        put = await at.call("PUT", FRAUD, V3, role="admin", headers=("If-Match: *",))
        back = await at.call("POST", f"{FRAUD}/rollback", {"revision": 1}, role="admin")
        assert pin.code == put.code == back.code == "signature-required"
        assert (await at.call("PUT", kill, body, role="admin")).code == "signature-required"
    config = replace(config, signing=SigningSettings(trusted, exempt_kills=True))
    async with desk(valkey, tmp_path, config) as at:
        assert (await at.call("PUT", kill, body, role="admin")).status == 200


async def test_bodies_queries_and_names_are_held_to_what_they_may_be(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with desk(valkey, tmp_path) as at:
        big = {"reason": "x" * 1_100_000}
        tries = {
            "body-too-large": await at.call("PUT", f"{FRAUD}/kill", big, role="operator"),
            "invalid": await at.call("GET", f"{FRAUD}/pins?limit=0", role="viewer"),
            "malformed-request": await at.call("DELETE", f"{FRAUD}/kill", {}, role="operator"),
            "not-found": await at.call("GET", "/api/v1/policies/none", role="viewer"),
            "method-not-allowed": await at.call("PATCH", FRAUD, role="admin"),
        }
        for path in (f"{FRAUD}?limit=1", f"{FRAUD}/history/0", "/api/v1/policies/b%20d"):
            assert (await at.call("GET", path, role="viewer")).code == "invalid"
        for body in ({"version": "v1", "ttl_s": 0}, {"version": "v1", "odd": 1}, {}, "v1"):
            assert (await at.call("PUT", f"{FRAUD}/pins/a", body, role="admin")).code == "invalid"

    assert {name: told.code for name, told in tries.items()} == {name: name for name in tries}
    assert b"PUT" in (tries["method-not-allowed"].answer.get(b"Allow") or b"")


async def test_a_call_that_does_not_come_to_its_end_is_ended(
    valkey: Valkey, tmp_path: Path
) -> None:
    config = replace(WITH_TOKENS, admin_api=AdminSettings(timeout_s=0.3, connections=4))
    head = (
        f"PUT {FRAUD}/kill HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token_of('admin')}\r\nContent-Length: 9\r\n\r\n"
    )
    async with desk(valkey, tmp_path, config) as at:
        late = await at.send(head.encode())
        assert late.status == 408
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHo")  # and nothing else ever
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()
        held = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(4)]
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        async with asyncio.timeout(20):
            assert await reader.read() == b""  # one too many, or its time was over
        for _, one in [*held, (reader, writer)]:
            one.close()


async def test_a_store_out_of_reach_is_told_as_that(valkey: Valkey, tmp_path: Path) -> None:
    async with desk(valkey, tmp_path) as at:
        await valkey.stop()
        told = await at.call("GET", "/api/v1/status", role="viewer")
        health = await at.call("GET", "/healthz")
        await valkey.start()

    assert (told.status, told.code) == (503, "store-unavailable")
    assert told.answer.get(b"Retry-After") == b"1"
    assert health.status == 200


def test_no_token_stands_in_the_settings() -> None:
    for one in TOKENS:
        assert re.fullmatch(r"[0-9a-f]{64}", one.sha256)
        assert token_of(one.name) not in repr(one)


async def test_nothing_is_written_that_audit_could_not_tell_of(
    valkey: Valkey, tmp_path: Path
) -> None:
    async with desk(valkey, tmp_path, on_failure=OnFailure.CLOSED) as at:
        kill, body = f"{FRAUD}/kill", {"reason": "NaN"}
        assert (await at.call("PUT", kill, body, role="operator")).status == 200
        shutil.rmtree(at.audit_dir)
        at.audit_dir.touch()  # no folder can be made in its place
        async with asyncio.timeout(20):
            while True:
                told = await at.call("DELETE", kill, role="operator")
                if told.status != 200:
                    break
                await at.call("PUT", kill, body, role="operator")
        assert (told.status, told.code) == (503, "audit-unavailable")
        assert (await at.call("GET", f"{FRAUD}/kills", role="viewer")).status == 200
        at.audit_dir.unlink()


async def test_the_api_has_the_rights_of_operators_where_its_own_url_says_so(
    valkey: Valkey, tmp_path: Path
) -> None:
    kill, body = f"{FRAUD}/kill", {"reason": "NaN"}
    async with desk(valkey, tmp_path):  # commits the policy
        pass
    for line in USERS.read_text().splitlines():
        words = line.split()[1:]
        await valkey.client.execute_command("ACL", "SETUSER", *words, ">secret")  # type: ignore[no-untyped-call]
    as_sidecar = replace(WITH_TOKENS, admin_api=AdminSettings(url_of(valkey, "rmv-sidecar")))
    async with desk(valkey, tmp_path, as_sidecar) as at:
        refused = await at.call("PUT", kill, body, role="operator")
        assert (refused.status, refused.code) == (503, "store-unavailable")
        assert (await at.call("GET", "/api/v1/policies", role="viewer")).status == 200
    as_operator = replace(WITH_TOKENS, admin_api=AdminSettings(url_of(valkey, "rmv-operator")))
    async with desk(valkey, tmp_path, as_operator) as at:
        assert (await at.call("PUT", kill, body, role="operator")).status == 200
        assert (await at.call("GET", "/api/v1/status", role="viewer")).status == 200
        put = await at.call("PUT", FRAUD, V3, role="admin", headers=("If-Match: *",))
        assert (put.status, put.body["committed"]) == (200, True)
        revoked = "/api/v1/revocations/tokens/j1"
        assert (await at.call("PUT", revoked, {}, role="admin")).status == 200


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PUT", {"version": "v1"})])
async def test_a_fault_is_told_as_a_problem_and_ends_no_other_call(
    valkey: Valkey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counted_faults: Counter[str],
    method: str,
    body: object,
) -> None:
    async def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError

    async with desk(valkey, tmp_path) as at:
        with monkeypatch.context() as patched:
            for name in ("pins_of", "set_pin"):
                patched.setattr(f"sidecar.store.redis.RedisStore.{name}", broken)
            told = await at.call(method, f"{FRAUD}/pins/acme", body, role="operator")
        assert (told.status, told.code) == (500, "sidecar-fault")
        assert counted_faults == {"admin": 1}

        again = await at.call("PUT", f"{FRAUD}/pins/acme", {"version": "v1"}, role="operator")
        assert again.status == 200
