"""Tokens are taken back, listed and believed again by the commands an operator types."""

from __future__ import annotations

import io
import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import key
from tests.identity.minting import b64, encode

if TYPE_CHECKING:
    from redis import Redis

    from sidecar.model.identity import JSON
    from tests.cli.conftest import Rmv


def test_a_token_is_taken_back_by_the_key_that_the_contract_names(store: Rmv, redis: Redis) -> None:
    ran = store("revoke", "jti", "a:b", "--reason", "stolen", "--ttl", "1h")

    assert ran == (0, "the token a:b is revoked for 1h: stolen\n", "")
    assert redis.get(key("revoked", "a:b")) == b"stolen"
    assert 3_000 < int(str(redis.ttl(key("revoked", "a:b")))) <= 3_600


def minted(**claims: JSON) -> str:
    """Return a token of these claims, which nobody has signed."""
    return f"e30.{b64(encode(claims)).decode()}.AAAA"


def test_a_token_as_it_is_is_taken_back_for_as_long_as_it_lives(
    store: Rmv, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_s = int(time.time()) + 3_600  # noqa: TID251 -- the command reads the same clock
    token = minted(jti="t-1", exp=ends_s, tenant="acme")
    monkeypatch.setattr("sys.stdin", io.StringIO(token + "\n"))

    ran = store("revoke", "token", "-", "--reason", "stolen")

    assert re.fullmatch(r"the token t-1 is revoked for 1h\d+m: stolen\n", ran.out)
    assert redis.get(key("revoked", "t-1")) == b"stolen"
    assert 3_850 < int(str(redis.ttl(key("revoked", "t-1")))) <= 3_900
    store("revoke", "token", minted(jti="t-2", exp=2**53))
    assert redis.ttl(key("revoked", "t-2")) == -1
    assert store("unrevoke", "token", token).out == "the token t-1 is believed again\n"
    assert redis.get(key("revoked", "t-1")) is None


def test_a_token_that_cannot_be_named_or_has_expired_is_not_taken_back(
    store: Rmv, redis: Redis
) -> None:
    nameless, over = store("revoke", "token", minted(exp=1)), minted(jti="t-1", exp=1)
    expired = store("revoke", "token", over)

    assert (nameless.code, expired.code) == (1, 1)
    assert "rmv revoke tenant" in nameless.err
    assert "t-1 has expired" in expired.err
    assert over not in expired.err
    assert redis.get(key("revoked", "t-1")) is None


def test_a_tenant_is_cut_off_at_the_end_of_this_second(store: Rmv, redis: Redis) -> None:
    before_s = time.time()  # noqa: TID251 -- the command reads the same clock

    ran = store("revoke", "tenant", "acme")

    assert ran.code == 0
    stored = float(str(redis.get(key("revoked-before", "acme")), "ascii"))  # type: ignore[arg-type]
    assert stored == int(stored)
    assert before_s <= stored <= time.time() + 1  # noqa: TID251


def test_a_tenant_is_cut_off_at_how_long_ago_a_moment_was(store: Rmv) -> None:
    first_s = time.time() - 7200  # noqa: TID251 -- the command reads the same clock

    ran = store("revoke", "tenant", "acme", "--before", "2h", "--json")
    neither = store("revoke", "tenant", "acme", "--before", "yesterday")

    before_s = json.loads(ran.out)["before_s"]
    assert before_s == int(before_s)
    assert first_s <= before_s <= time.time() - 7200 + 1  # noqa: TID251
    assert neither.code == 2
    assert "`yesterday` is neither a time" in neither.err


def test_a_tenant_is_cut_off_at_a_moment(store: Rmv, redis: Redis) -> None:
    ran = store("revoke", "tenant", "acme", "--before", "2026-11-23T13:00:00Z")

    assert ran.out == "tokens of acme from before 2026-11-23T13:00:00Z are revoked\n"
    assert redis.get(key("revoked-before", "acme")) == b"1795438800.0"


def test_what_is_revoked_is_listed_and_believed_again(store: Rmv, redis: Redis) -> None:
    store("revoke", "tenant", "acme", "--before", "2026-11-23T13:00:00Z", "--ttl", "2d")
    store("revoke", "jti", "t-2")
    store("revoke", "jti", "t-1", "--reason", "stolen")
    redis.set(key("revoked-before", "globex"), "yesterday")

    listed = store("revocations").out.splitlines()
    as_json = json.loads(store("revocations", "--json").out)
    back = store("unrevoke", "jti", "t-1"), store("unrevoke", "tenant", "acme")
    left = json.loads(store("revocations", "--json").out)

    assert [line.split("  ")[0] for line in listed] == ["KIND", "tenant", "tenant", "jti", "jti"]
    assert "from before 2026-11-23T13:00:00Z" in listed[1]
    assert "not a time in epoch seconds" in listed[2]
    assert listed[3].split() == ["jti", "t-1", "stolen", "-"]
    assert as_json["tokens"][0] == {"jti": "t-1", "reason": "stolen", "ttl_s": None, "fault": ""}
    assert as_json["tenants"][0]["before_s"] == 1795438800
    assert [ran.code for ran in back] == [0, 0]
    assert [one["jti"] for one in left["tokens"]] == ["t-2"]
    assert [one["tenant"] for one in left["tenants"]] == ["globex"]


def test_what_is_done_is_told_to_programs(store: Rmv) -> None:
    revoked = json.loads(store("revoke", "jti", "t-1", "--json").out)
    cut = json.loads(
        store("revoke", "tenant", "acme", "--before", "1970-01-01T00:01:00Z", "--json").out
    )
    back = json.loads(store("unrevoke", "jti", "t-1", "--json").out)

    assert revoked == {"jti": "t-1", "reason": "", "ttl_s": None}
    assert cut == {"tenant": "acme", "before_s": 60, "ttl_s": None}
    assert back == {"jti": "t-1", "revoked": False}


@pytest.mark.parametrize("kind", ["jti", "tenant"])
def test_what_is_not_revoked_cannot_be_believed_again(store: Rmv, kind: str) -> None:
    ran = store("unrevoke", kind, "acme")

    assert ran.code == 1
    assert f"the {kind} acme is not revoked" in ran.err
    assert "rmv revocations" in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("all", "t-1"), "none of jti, token, tenant"),
        (("token", "t-1"), "no token"),
        (("token", "a.!.c"), "no token"),
        (("jti", "t-1", "--before", "2026-11-23T13:00:00Z"), "--before is for tenants"),
        (("tenant", "acme", "--reason", "x"), "--reason is for one token"),
        (("tenant", "acme", "--before", "yesterday"), "yesterday"),
    ],
)
def test_what_makes_no_sense_is_refused(
    store: Rmv, redis: Redis, arguments: tuple[str, ...], words: str
) -> None:
    ran = store("revoke", *arguments)

    assert ran.code == 2
    assert words in ran.err
    assert redis.get(key("revoked", "t-1")) is None
    assert redis.get(key("revoked-before", "acme")) is None


@pytest.mark.parametrize(("kind", "name"), [("jti", ""), ("jti", "x" * 513), ("tenant", " acme")])
def test_a_name_that_no_token_can_have_is_refused(store: Rmv, kind: str, name: str) -> None:
    assert store("revoke", kind, name).code == 1
