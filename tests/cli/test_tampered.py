"""What somebody wrote into a history, or into its place, is told and never committed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from sidecar.policy import codec
from tests.cli.conftest import POLICY, key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis.typing import EncodableT, FieldT

    from tests.cli.conftest import Rmv

OTHERS = POLICY.replace("tumor", "victim")
TAMPERED = POLICY.replace("9001", "6666")


@pytest.fixture
def client(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url, decode_responses=True) as client:
        yield client


def forge(client: Redis, document: str, digest: str) -> None:
    fields: dict[FieldT, EncodableT] = {
        "document": document,
        "actor": "x",
        "comment": "y",
        "at": "1",
        "digest": digest,
    }
    client.xadd(key("history", "tumor"), fields, id="2-0")


@pytest.mark.parametrize("digest", ["z", codec.digest(OTHERS.encode())])
@pytest.mark.parametrize("is_deleted", [True, False])
def test_a_rollback_writes_no_other_model(
    tumor: Rmv, client: Redis, digest: str, *, is_deleted: bool
) -> None:
    forge(client, OTHERS, digest)
    if is_deleted:
        client.delete(key("policy", "tumor"))

    named, unnamed = tumor("rollback", "tumor", "2"), tumor("rollback", "tumor")

    assert (named.code, unnamed.code) == (1, 1)
    assert "error: revision 2 of tumor is not what was committed: its d" in named.err
    assert client.exists(key("policy", "victim"), key("history", "victim")) == 0
    assert client.exists(key("policy", "tumor")) == (not is_deleted)


def test_an_entry_that_does_not_fit_its_digest_is_refused_and_marked(
    tumor: Rmv, client: Redis
) -> None:
    forge(client, TAMPERED, codec.digest(POLICY.encode()))
    before = client.get(key("policy", "tumor"))

    rolled = tumor("rollback", "tumor", "2")
    shown = tumor("get", "tumor", "--revision", "2")
    listed = tumor("history", "tumor")
    told = json.loads(tumor("history", "tumor", "--json").out)

    fault = "its digest does not fit its document"
    assert (rolled.code, shown.code, shown.out) == (1, 1, "")
    assert fault in rolled.err
    assert fault in shown.err
    assert client.get(key("policy", "tumor")) == before
    assert [line.endswith(f"y - {fault}") for line in listed.out.splitlines()[1:]] == [True, False]
    assert [one["fault"] for one in told] == [fault, ""]


def test_an_entry_of_another_model_is_told_as_that(tumor: Rmv, client: Redis) -> None:
    forge(client, OTHERS, codec.digest(OTHERS.encode()))

    assert "its document is of the model `victim`" in tumor("history", "tumor").out
    assert "its document is of the model `victim`" in tumor("get", "tumor", "--revision", "2").err


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("history", ("history", "tumor")),
        ("history", ("rollback", "tumor", "1")),
        ("contexts", ("plan", "-f", "tumor.yaml")),
        ("fleet", ("rollback", "tumor", "1", "--wait")),
    ],
)
def test_a_key_of_another_type_is_named_and_the_store_not_blamed(
    tumor: Rmv, client: Redis, kind: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    odd = key(kind) if kind == "fleet" else key(kind, "tumor")
    client.delete(odd)
    client.set(odd, "mine")

    ran = tumor(*(str(tmp_path / one) if one == "tumor.yaml" else one for one in command))

    assert ran.code != 0
    assert f"error: {odd} holds another type of value" in ran.err
    assert f"`TYPE {odd}`" in ran.err
    assert "cannot be reached" not in ran.err
    assert client.get(odd) == "mine"


def test_a_store_that_refuses_a_user_is_not_called_away(tumor: Rmv, client: Redis) -> None:
    client.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], categories=["+@read"])
    url = client.connection_pool.connection_kwargs["path"]

    denied = tumor("pin", "tumor", "acme", "v2", "--redis", f"unix://reader:pw@{url}")
    unknown = tumor("status", "--redis", f"unix://reader:wrong@{url}")

    for ran in (denied, unknown):
        assert ran.code == 1
        assert f"error: the store `unix://reader:***@{url}` refuses it: Redis: " in ran.err
        assert "docs/redis.md lists the rights" in ran.err


def test_a_fleet_of_another_type_hides_no_model_from_status(tumor: Rmv, client: Redis) -> None:
    client.set(key("fleet"), "mine")

    ran = tumor("status")

    assert ran.code == 0
    assert "tumor  1 " in ran.out
    assert f"which sidecars are live is not known: {key('fleet')} holds another type" in ran.err


def test_a_history_that_no_revision_can_follow_refuses_commits_and_keeps_the_document(
    tumor: Rmv, client: Redis, tmp_path: Path
) -> None:
    client.xadd(key("history", "tumor"), {"x": "y"}, id=f"{2**64 - 1}-0")
    before = client.get(key("policy", "tumor"))
    (tmp_path / "next.yaml").write_text(TAMPERED)

    ran = tumor("apply", "-f", tmp_path / "next.yaml", "--force")

    assert ran.code == 1
    assert f"{key('history', 'tumor')}: no revision can follow its last id" in ran.err
    assert f"RENAME {key('history', 'tumor')}" in ran.err
    assert client.get(key("policy", "tumor")) == before
    assert str(2**64 - 1) in tumor("history", "tumor").out
