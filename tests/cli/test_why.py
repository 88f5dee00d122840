"""`rmv why` decides again what audit has, and says where that comes out otherwise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import pytest
from msgspec import structs

from sidecar.audit.chain import Chain
from sidecar.audit.entry import encode
from sidecar.audit.files import FileSink
from sidecar.model.audit import AuditSettings
from sidecar.policy import codec
from sidecar.policy.resolver import resolve
from sidecar.policy.snapshot import compile_snapshot
from sidecar.runtime.clock import SystemClock
from tests.audit.requests import told
from tests.cli.conftest import key
from tests.policy.examples import caller, make_head

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis
    from redis.typing import EncodableT, FieldT

    from sidecar.audit.entry import Event
    from tests.cli.conftest import Rmv

POLICY = """\
model: tumor
audit: decisions
versions:
  v1: {endpoints: ["http://127.0.0.1:9001"]}
  v2: {endpoints: ["http://127.0.0.1:9002"], fallback: v1}
rules:
  - id: beta
    when: {header.x-beta: "yes"}
    serve: v2
default: v1
"""


@pytest.fixture
def tumor(store: Rmv, tmp_path: Path) -> Rmv:
    """Run the command on a store that holds the policy of `tumor`, of which all is audited."""
    file = tmp_path / "tumor.yaml"
    file.write_text(POLICY)
    assert store("apply", "-f", file).code == 0
    return store


def request(
    rmv: Rmv,
    request_id: str = "r1",
    kills: dict[str, str] | None = None,
    *,
    is_beta: bool = True,
    grants: dict[str, tuple[str, ...]] | None = None,
) -> Event:
    """Return what a worker tells of a request by the stored policy."""
    policy = codec.decode(rmv("get", "tumor", "--json").out.encode(), source="")
    snapshot = compile_snapshot(policy, {}, kills or {})
    headers = ((b"X-Beta", b"yes"),) if is_beta else ()
    head = make_head(request_id=request_id.encode(), headers=headers)
    identity = structs.replace(caller(), grants=grants)
    head.at_s = 1763902800.25
    return told(snapshot, identity, head, resolve(snapshot, identity, head))


def kept(folder: Path, *events: Event) -> Path:
    """Write events to files as a worker does; return their folder."""
    chain = Chain("worker-1")
    sink = FileSink(AuditSettings(dir=str(folder / "audit"), fsync="never"), SystemClock())
    sink.write([chain.link(encode(one)) for one in events])
    return folder / "audit"


def test_a_decision_that_comes_out_the_same_is_told_with_its_steps(
    tumor: Rmv, tmp_path: Path
) -> None:
    audit = kept(tmp_path, request(tumor))

    ran = tumor("why", "r1", "--file", audit)

    assert ran.code == 0, ran.err
    assert "decided again by revision 1: v2 (RULE:beta), the same\n" in ran.out
    facts = [line.split(maxsplit=1) for line in ran.out.splitlines()]
    assert ["at", "2025-11-23T13:00:00.250Z"] in facts
    assert ["audited", "by     worker-1, entry 1"] in facts
    assert "rule beta  serves v2" in ran.out


def test_what_the_token_was_for_is_told(tumor: Rmv, tmp_path: Path) -> None:
    audit = kept(tmp_path, request(tumor, grants={"tumor": ("v1",)}))

    ran = tumor("why", "r1", "--file", audit)

    assert ran.code == 0, ran.err
    assert ["grants", "tumor: v1"] in [line.split(maxsplit=1) for line in ran.out.splitlines()]
    assert "not-entitled" in ran.out


def test_programs_get_the_entry_and_the_decision(tumor: Rmv, tmp_path: Path) -> None:
    audit = kept(tmp_path, request(tumor))

    (one,) = json.loads(tumor("why", "r1", "--file", audit, "--json").out)

    assert one["is_same"] is True
    assert one["is_intact"] is True
    assert one["entry"]["version"] == one["again"]["decision"]["version"] == "v2"
    assert one["again"]["differences"] == []


def test_kills_of_then_count_and_not_those_of_now(tumor: Rmv, tmp_path: Path) -> None:
    audit = kept(tmp_path, request(tumor, kills={"v2": "leaks"}), request(tumor, "r2"))
    tumor("kill", "tumor:v1", "--reason", "later")

    then = tumor("why", "r1", "--file", audit)
    other = tumor("why", "r2", "--file", audit)

    assert "decided again by revision 1: v1 (DEFAULT), the same\n" in then.out
    assert ["killed", "v2"] in [line.split() for line in then.out.splitlines()]
    assert "decided again by revision 1: v2 (RULE:beta), the same\n" in other.out


def test_a_later_revision_changes_nothing(tumor: Rmv, tmp_path: Path) -> None:
    audit = kept(tmp_path, request(tumor))
    file = tmp_path / "tumor.yaml"
    file.write_text(POLICY.replace("serve: v2", "serve: v1"))
    assert tumor("apply", "-f", file).code == 0

    assert "by revision 1: v2 (RULE:beta), the same" in tumor("why", "r1", "--file", audit).out


def test_an_entry_that_was_changed_is_told_with_where_ways_part(tumor: Rmv, tmp_path: Path) -> None:
    audit = kept(tmp_path, request(tumor))
    (file,) = audit.glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"version":"v2"', b'"version":"v1"'))

    ran = tumor("why", "r1", "--file", audit)

    assert ran.code == 1
    assert "it was changed (`rmv audit verify`)\n" in ran.out
    assert "v2 (RULE:beta), NOT the same\n  version: audit has v1, now it is v2\n" in ran.out
    assert "they part at rule beta, which now comes to: serves v2" in ran.out


def rewrite(redis: Redis, *, with_digest: bool) -> None:
    """Make revision 1 of the history another one, as whoever can write to the store may."""
    history = key("history", "tumor")
    ((_, fields),) = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange(history))
    redis.delete(history)
    other = fields[b"document"].replace(b'"serve":"v2"', b'"serve":"v1"')
    assert other != fields[b"document"]
    digest = codec.digest(other).encode() if with_digest else fields[b"digest"]
    made = {**fields, b"document": other, b"digest": digest}
    redis.xadd(history, cast("dict[FieldT, EncodableT]", made), id="1-0")


def test_a_history_that_was_changed_is_told(tumor: Rmv, redis: Redis, tmp_path: Path) -> None:
    audit = kept(tmp_path, request(tumor))
    rewrite(redis, with_digest=False)

    ran = tumor("why", "r1", "--file", audit)

    assert ran.code == 1
    assert "cannot be decided again: revision 1 of tumor is not what was committed" in ran.out


def test_a_history_that_was_made_up_is_seen_by_what_audit_saw_committed(
    tumor: Rmv, redis: Redis, tmp_path: Path
) -> None:
    commit = json.loads(tumor("history", "tumor", "--json").out)[0]
    event = request(tumor)
    of_commit = type(event)(
        at_s=1.0, kind="commit", model="tumor", revision=1, facts={"digest": commit["digest"]}
    )
    audit = kept(tmp_path, of_commit, event)
    same = tumor("why", "r1", "--file", audit)
    rewrite(redis, with_digest=True)

    ran = tumor("why", "r1", "--file", audit)

    assert same.code == 0
    assert ran.code == 1
    assert "in the history is not the one that audit saw committed" in ran.out


def test_a_revision_that_is_gone_cannot_be_decided_by(
    tumor: Rmv, redis: Redis, tmp_path: Path
) -> None:
    audit = kept(tmp_path, request(tumor))
    redis.delete(key("history", "tumor"))

    ran = tumor("why", "r1", "--file", audit, "--json")

    (one,) = json.loads(ran.out)
    assert (ran.code, one["is_same"]) == (1, None)
    assert one["fault"].endswith("revision 1 of tumor is not in the history")


def test_a_request_that_no_policy_was_asked_for_is_told_as_such(tumor: Rmv, tmp_path: Path) -> None:
    event = type(request(tumor))(
        at_s=1.0, kind="denied", request_id="r9", reason="DENIED:rule", status=401,
        code="token-invalid",
    )  # fmt: skip

    ran = tumor("why", "r9", "--file", kept(tmp_path, event))

    assert ran.code == 0
    assert "no policy was asked: it was refused with token-invalid before\n" in ran.out


def test_all_requests_of_one_id_are_told(tumor: Rmv, tmp_path: Path) -> None:
    other = request(tumor, is_beta=False)
    audit = kept(tmp_path, request(tumor), other)

    told_all = json.loads(tumor("why", "r1", "--file", audit, "--json").out)

    assert sorted(one["entry"]["version"] for one in told_all) == ["v1", "v2"]
    assert all(one["is_same"] for one in told_all)


def test_what_audit_does_not_have_is_told(tumor: Rmv, tmp_path: Path) -> None:
    audit = kept(tmp_path, request(tumor))

    ran = tumor("why", "r2", "--file", audit)

    assert ran.code == 1
    assert "nothing of a request r2" in ran.err
    assert "`audit: decisions`" in ran.err
    assert tumor("why", "r2").code == 1  # no audit at all
