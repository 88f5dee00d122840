"""Commands that sign: what they write is believed; nothing that was slipped in is signed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sidecar.policy import codec
from sidecar.runtime.ed25519 import load_private, load_public
from sidecar.store.keys import KillKey, PinKey
from sidecar.store.seal import Keyring, Signer, bare, read
from tests.cli.conftest import POLICY, key

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis

    from sidecar.model.policy import Policy
    from tests.cli.conftest import Ran, Rmv


@pytest.fixture
def ann(tmp_path: Path, store: Rmv) -> Path:
    """The private key of Ann, and a folder with her policy of `tumor`."""
    assert store("keygen", "ann", "--dir", tmp_path).code == 0
    assert store("keygen", "eve", "--dir", tmp_path).code == 0
    (tmp_path / "tumor.yaml").write_text(POLICY)
    return tmp_path / "ann.key"


@pytest.fixture
def signed(ann: Path, store: Rmv) -> Rmv:
    """Run the command on a store that holds the policy of `tumor`, signed."""
    assert store("apply", "-f", ann.parent / "tumor.yaml", "--key", ann).code == 0
    return store


def ring(ann: Path) -> Keyring:
    return Keyring([load_public(ann.with_suffix(".pub"))])


def stored(redis: Redis) -> Policy:
    raw = redis.get(key("policy", "tumor"))
    assert isinstance(raw, bytes)
    return codec.decode(raw, source="")


def text(redis: Redis, *parts: str) -> str:
    raw = redis.get(key(*parts))
    assert isinstance(raw, bytes)
    return raw.decode()


def verified(
    store: Rmv, ann: Path, *arguments: str | Path
) -> tuple[Ran, dict[tuple[str, str], str]]:
    ran = store("verify", "--trust", ann.with_suffix(".pub"), "--json", *arguments)
    return ran, {(one["kind"], one["name"]): one["state"] for one in json.loads(ran.out)}


# --- keygen --------------------------------------------------------------------------------------


def test_keygen_makes_a_pair_that_its_owner_alone_reads(rmv: Rmv, tmp_path: Path) -> None:
    ran = rmv("keygen", "ann", "--dir", tmp_path / "keys", "--json")

    told = json.loads(ran.out)
    assert told["key"] == load_private(told["private"]).id == load_public(told["public"]).id
    assert (tmp_path / "keys" / "ann.key").stat().st_mode & 0o777 == 0o600
    again = rmv("keygen", "ann", "--dir", tmp_path / "keys")
    assert (again.code, "a key is there already" in again.err) == (1, True)
    assert rmv("keygen", "../ann", "--dir", tmp_path).code == 2


def test_a_key_that_cannot_be_read_is_named_and_nothing_is_written(
    ann: Path, store: Rmv, redis: Redis
) -> None:
    for wrong in (ann.with_suffix(".pub"), ann.parent / "none", ann.parent / "tumor.yaml"):
        ran = store("apply", "-f", ann.parent / "tumor.yaml", "--key", wrong)
        assert (ran.code, str(wrong) in ran.err) == (1, True)
    assert not redis.exists(key("policy", "tumor"))


# --- what is written -----------------------------------------------------------------------------


def test_apply_signs_what_it_commits_and_an_unsigned_document_that_says_the_same(
    ann: Path, store: Rmv, redis: Redis
) -> None:
    file = ann.parent / "tumor.yaml"
    assert store("apply", "-f", file).out == "tumor created (revision 1)\n"
    assert stored(redis).signature == ""

    assert store("apply", "-f", file, "--key", ann).out == "tumor signed (revision 2)\n"
    assert ring(ann).fault_of_policy(stored(redis)) is None

    assert store("apply", "-f", file, "--key", ann).out == "tumor unchanged (revision 2)\n"
    eve = ann.with_name("eve.key")
    assert store("apply", "-f", file, "--key", eve).out == "tumor signed (revision 3)\n"


def test_a_commit_without_a_key_takes_the_signature_away(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    (ann.parent / "tumor.yaml").write_text(POLICY.replace("9001", "9003"))

    first = signed("apply", "-f", ann.parent / "tumor.yaml")
    second = signed("label", "tumor", "stable", "v1")

    assert "tumor was signed before, and revision 2 is not" in first.err
    assert (second.code, second.err) == (0, "")
    assert stored(redis).signature == ""


def test_the_variable_names_the_key_for_all_commands(
    ann: Path, store: Rmv, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMV_SIGNING_KEY", str(ann))

    assert store("apply", "-f", ann.parent / "tumor.yaml").code == 0
    assert store("pin", "tumor", "acme", "v2").code == 0

    assert ring(ann).fault_of_policy(stored(redis)) is None
    mark = read(text(redis, "pin", "tumor", "acme"))
    assert ring(ann).fault_of_mark(PinKey("tumor", "acme"), mark) is None


def test_pins_and_kills_are_signed_and_so_is_their_end(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    assert signed("pin", "tumor", "acme", "v2", "--ttl", "1h", "--key", ann).code == 0
    assert signed("kill", "tumor:v1", "--reason", "wrong scores", "--key", ann).code == 0

    seal = read(text(redis, "pin", "tumor", "acme")).seal
    assert seal is not None
    assert seal.until_ms - seal.issued_ms == 3_600_000
    mark = read(text(redis, "kill", "tumor", "v1"))
    assert mark.value == "wrong scores"
    assert ring(ann).fault_of_mark(KillKey("tumor", "v1"), mark) is None
    assert "acme    v2       " in signed("pins", "tumor").out
    assert "v1 (wrong scores)" in signed("status").out

    assert signed("unpin", "tumor", "acme", "--key", ann).code == 0
    assert signed("unkill", "tumor:v1", "--key", ann).code == 0

    assert bare(text(redis, "pin", "tumor", "acme")) is None
    assert redis.pttl(key("pin", "tumor", "acme")) == -1
    assert "acme" not in signed("pins", "tumor").out
    assert "wrong scores" not in signed("status").out


def test_a_pin_that_the_store_has_lost_can_be_ended(signed: Rmv, ann: Path, redis: Redis) -> None:
    assert signed("unpin", "tumor", "acme", "--key", ann).code == 0

    assert bare(text(redis, "pin", "tumor", "acme")) is None


def test_an_unkill_of_a_label_ends_the_kill_of_its_version(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    assert signed("label", "tumor", "stable", "v1", "--key", ann).code == 0
    assert signed("kill", "tumor:stable", "--reason", "x", "--key", ann).code == 0
    assert bare(text(redis, "kill", "tumor", "v1")) == "x"

    assert signed("unkill", "tumor:stable", "--key", ann).out == "tumor:v1 is on again\n"

    assert bare(text(redis, "kill", "tumor", "v1")) is None


def test_a_reason_that_would_not_be_read_whole_is_not_signed(signed: Rmv, ann: Path) -> None:
    ran = signed("kill", "tumor:v1", "--reason", "x" * 4000, "--key", ann)

    assert (ran.code, "too long to be signed" in ran.err) == (2, True)


def test_delete_commits_a_signed_end_and_apply_brings_the_model_back(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    assert signed("delete", "tumor", "--key", ann).out == "tumor deleted (revision 2)\n"

    end = stored(redis)
    assert (end.deleted, end.revision, dict(end.versions)) == (True, 2, {})
    assert ring(ann).fault_of_policy(end) is None
    assert "(deleted)" in signed("status").out
    assert signed("delete", "tumor", "--key", ann).code == 1

    back = signed("apply", "-f", ann.parent / "tumor.yaml", "--key", ann)
    assert back.out == "tumor configured (revision 3)\n"


def test_a_model_that_is_deleted_is_told_as_that(signed: Rmv, ann: Path) -> None:
    assert signed("delete", "tumor", "--key", ann).code == 0

    for command in (("explain", "tumor"), ("try", "tumor"), ("label", "tumor", "x", "v1")):
        ran = signed(*command)
        assert (ran.code, "tumor is deleted (revision 2)" in ran.err) == (1, True)
    assert "deleted: true" in signed("get", "tumor").out
    assert "tumor  2" in signed("get").out
    assert signed("rollback", "tumor", "--key", ann).code == 0
    assert "v1" in signed("explain", "tumor").out


def test_prune_deletes_by_a_signed_end_once(signed: Rmv, ann: Path, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "churn.yaml").write_text(POLICY.replace("tumor", "churn"))
    prune = ("apply", "-f", folder, "--prune", "--key", ann)

    assert "tumor deleted (revision 2)" in signed(*prune).out
    assert "tumor unchanged (revision 2)" in signed(*prune).out


def test_rollback_signs_what_was_signed(signed: Rmv, ann: Path, redis: Redis) -> None:
    assert signed("label", "tumor", "stable", "v1", "--key", ann).code == 0

    assert signed("rollback", "tumor", "--key", ann).code == 0

    now = stored(redis)
    assert (now.revision, dict(now.labels)) == (3, {})
    assert ring(ann).fault_of_policy(now) is None


# --- what is not signed --------------------------------------------------------------------------


def test_no_command_signs_a_document_that_somebody_slipped_in(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    raw = text(redis, "policy", "tumor").replace("9001", "6666")
    redis.set(key("policy", "tumor"), raw)

    ran = signed("label", "tumor", "stable", "v1", "--key", ann)

    assert (ran.code, "is not to be signed anew" in ran.err) == (1, True)
    assert text(redis, "policy", "tumor") == raw


def test_no_label_of_a_document_that_somebody_slipped_in_leads_a_kill_astray(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    assert signed("label", "tumor", "bad", "v2", "--key", ann).code == 0
    raw = text(redis, "policy", "tumor").replace('"bad":"v2"', '"bad":"v1"')
    redis.set(key("policy", "tumor"), raw)

    ran = signed("kill", "tumor:bad", "--reason", "x", "--key", ann)

    assert "are taken for versions" in ran.err
    assert not redis.exists(key("kill", "tumor", "v1"))
    assert bare(text(redis, "kill", "tumor", "bad")) == "x"


def test_no_label_of_a_document_that_somebody_slipped_in_ends_another_kill(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    assert signed("label", "tumor", "good", "v1", "--key", ann).code == 0
    assert signed("kill", "tumor:v2", "--reason", "bad", "--key", ann).code == 0
    raw = text(redis, "policy", "tumor").replace('"good":"v1"', '"good":"v2"')
    redis.set(key("policy", "tumor"), raw)

    ran = signed("unkill", "tumor:good", "--key", ann)

    assert "good is taken for a version" in ran.err
    assert bare(text(redis, "kill", "tumor", "v2")) == "bad"


def test_no_rollback_signs_a_revision_that_somebody_slipped_in(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    good = text(redis, "policy", "tumor")
    unsigned = codec.encode(codec.decode(POLICY.encode(), source=""))
    for number, document in ((7, unsigned), (8, good.encode())):
        fields = {"document": document, "digest": codec.digest(document), "at": "1"}
        redis.xadd(key("history", "tumor"), fields, id=f"{number}-0")  # type: ignore[arg-type]  # stub

    for named in ("7", "8"):
        ran = signed("rollback", "tumor", named, "--key", ann)
        assert (ran.code, "is not to be signed anew" in ran.err) == (1, True)

    assert text(redis, "policy", "tumor") == good


def test_a_rollback_takes_the_place_of_a_document_that_somebody_slipped_in(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    redis.set(key("policy", "tumor"), text(redis, "policy", "tumor").replace("9001", "6666"))

    assert signed("rollback", "tumor", "1", "--key", ann).code == 0

    assert "6666" not in text(redis, "policy", "tumor")
    assert ring(ann).fault_of_policy(stored(redis)) is None


# --- verify --------------------------------------------------------------------------------------


def test_verify_tells_of_everything_who_signed_it(signed: Rmv, ann: Path) -> None:
    assert signed("pin", "tumor", "acme", "v2", "--key", ann).code == 0
    assert signed("kill", "tumor:v1", "--reason", "wrong", "--key", ann).code == 0

    ran, found = verified(signed, ann)

    assert ran.code == 0
    assert found == {
        ("policy", "tumor"): "signed",
        ("kill", "v1"): "signed",
        ("pin", "acme"): "signed",
        ("revision", "1"): "signed",
    }
    ids = {one["key"] for one in json.loads(ran.out)}
    assert ids == {load_private(ann).id}
    assert str(ann.with_suffix(".pub")) in signed("verify", "--trust", ann.with_suffix(".pub")).out


def test_verify_tells_what_is_not_as_it_was_signed(signed: Rmv, ann: Path, redis: Redis) -> None:
    eve = Signer(load_private(ann.with_name("eve.key")))
    assert signed("pin", "tumor", "acme", "v2", "--key", ann).code == 0
    redis.set(key("pin", "tumor", "copied"), text(redis, "pin", "tumor", "acme"))
    redis.set(key("pin", "tumor", "plain"), "v2")
    redis.set(key("pin", "tumor", "eves"), eve.mark(PinKey("tumor", "eves"), "v2", 1))
    redis.set(key("kill", "tumor"), "attack")
    redis.set(key("policy", "tumor"), text(redis, "policy", "tumor").replace("9001", "6666"))
    redis.xadd(key("history", "tumor"), {"document": "{}", "digest": "x"}, id="5-0")

    ran, found = verified(signed, ann, "tumor")

    assert ran.code == 1
    assert found == {
        ("policy", "tumor"): "forged",
        ("kill", ""): "unsigned",
        ("pin", "acme"): "signed",
        ("pin", "copied"): "forged",
        ("pin", "plain"): "unsigned",
        ("pin", "eves"): "unknown-key",
        ("revision", "5"): "forged",
        ("revision", "1"): "signed",
    }


def test_verify_tells_a_signed_policy_of_before(signed: Rmv, ann: Path, redis: Redis) -> None:
    first = text(redis, "policy", "tumor")
    assert signed("label", "tumor", "stable", "v1", "--key", ann).code == 0
    redis.set(key("policy", "tumor"), first)

    ran, found = verified(signed, ann)

    assert (ran.code, found["policy", "tumor"]) == (1, "older")


def test_revisions_of_before_there_were_signatures_count_for_nothing(ann: Path, store: Rmv) -> None:
    file = ann.parent / "tumor.yaml"
    store("apply", "-f", file)
    store("apply", "-f", file, "--key", ann)

    ran, found = verified(store, ann)

    assert (ran.code, found["revision", "1"]) == (0, "unsigned")


def test_verify_looks_at_files_instead(signed: Rmv, ann: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    saved.write_text(signed("get", "tumor", "-o", "json").out)

    good = verified(signed, ann, "-f", saved)
    saved.write_text(saved.read_text().replace("9001", "6666"))
    bad = verified(signed, ann, "-f", saved)

    assert (good[0].code, good[1]) == (0, {("file", str(saved)): "signed"})
    assert (bad[0].code, bad[1]) == (1, {("file", str(saved)): "forged"})


def test_verify_trusts_whom_the_settings_name(signed: Rmv, ann: Path, tmp_path: Path) -> None:
    settings = tmp_path / "rmv.toml"
    settings.write_text('[signing]\ntrusted = ["ann.pub"]\n')

    assert signed("verify", "--config", settings).code == 0
    settings.write_text('[signing]\ntrusted = ["eve.pub"]\n')
    assert signed("verify", "--config", settings).code == 1


def test_verify_lets_kills_be_where_the_settings_do(
    signed: Rmv, ann: Path, tmp_path: Path, redis: Redis
) -> None:
    redis.set(key("kill", "tumor", "v2"), "by anybody")
    settings = tmp_path / "rmv.toml"
    settings.write_text('[signing]\ntrusted = ["ann.pub"]\nexempt_kills = true\n')

    ran = signed("verify", "--config", settings, "--json")

    assert ran.code == 0
    assert {one["state"] for one in json.loads(ran.out)} == {"signed", "exempt"}
    assert signed("verify", "--trust", ann.with_suffix(".pub")).code == 1


def test_verify_without_anybody_to_trust_is_trouble(signed: Rmv, ann: Path) -> None:
    nobody, unreadable = signed("verify"), signed("verify", "--trust", ann)

    assert (nobody.code, "--trust FILE" in nobody.err) == (2, True)
    assert (unreadable.code, "a private key" in unreadable.err) == (2, True)


def test_pins_and_status_mark_what_sidecars_do_not_believe(
    signed: Rmv, ann: Path, tmp_path: Path, redis: Redis
) -> None:
    settings = tmp_path / "rmv.toml"
    settings.write_text('[signing]\ntrusted = ["ann.pub"]\n')
    assert signed("pin", "tumor", "acme", "v2", "--key", ann).code == 0
    redis.set(key("pin", "tumor", "globex"), "v2")
    redis.set(key("kill", "tumor", "v1"), "attack")

    pins, status = signed("pins", "tumor", "-c", settings), signed("status", "-c", settings)
    assert "globex  v2 - not signed" in pins.out
    assert "acme    v2  " in pins.out
    assert "v1 (attack) - not signed" in status.out
    told = signed("explain", "tumor", "--tenant", "globex", "-c", settings).out
    assert ("DEFAULT" in told, "v1 " in told) == (True, True)

    redis.set(key("policy", "tumor"), text(redis, "policy", "tumor").replace("9001", "6666"))
    status = signed("status", "-c", settings)
    assert "the stored document is not believed, the signature does not fit" in status.err
    assert "no sidecar believes" in signed("explain", "tumor", "-c", settings).err


def test_who_does_not_sign_where_it_is_asked_for_is_told(
    signed: Rmv, ann: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "rmv.toml"
    settings.write_text('[signing]\ntrusted = ["ann.pub"]\n')

    assert "this is not signed" in signed("pin", "tumor", "acme", "v2", "-c", settings).err
    assert "not signed" not in signed("pin", "tumor", "a", "v2", "-c", settings, "--key", ann).err


# --- sign ----------------------------------------------------------------------------------------


def outcomes(ran: Ran) -> dict[tuple[str, str], str]:
    return {(one["kind"], one["name"]): one["outcome"] for one in json.loads(ran.out)}


def test_sign_moves_everything_that_is_believed_to_another_key(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    eve, trust = ann.with_name("eve.key"), ("--trust", ann.with_suffix(".pub"))
    assert signed("pin", "tumor", "acme", "v2", "--ttl", "1h", "--key", ann).code == 0
    assert signed("kill", "tumor:v1", "--reason", "wrong", "--key", ann).code == 0
    assert signed("pin", "tumor", "gone", "v2", "--key", ann).code == 0
    assert signed("unpin", "tumor", "gone", "--key", ann).code == 0
    redis.persist(key("pin", "tumor", "acme"))
    redis.set(key("pin", "tumor", "plain"), "v2")

    ran = signed("sign", "--key", eve, *trust, "--json")

    assert ran.code == 1
    assert outcomes(ran) == {
        ("policy", "tumor"): "signed",
        ("kill", "v1"): "signed",
        ("pin", "acme"): "signed",
        ("pin", "gone"): "signed",
        ("pin", "plain"): "unsigned",
    }
    assert bare(text(redis, "pin", "tumor", "gone")) is None
    assert ring(eve).fault_of_policy(stored(redis)) is None
    assert 0 < redis.pttl(key("pin", "tumor", "acme")) <= 3_600_000
    assert text(redis, "pin", "tumor", "plain") == "v2"
    again = signed("sign", "tumor", "--key", eve, *trust, "--json")
    assert set(outcomes(again).values()) == {"kept", "unsigned"}
    redis.delete(key("pin", "tumor", "plain"))
    assert verified(signed, eve)[0].code == 0


def test_sign_takes_what_nobody_has_signed_only_when_told_to(
    tumor: Rmv, tmp_path: Path, redis: Redis
) -> None:
    assert tumor("keygen", "ann", "--dir", tmp_path).code == 0
    ann = tmp_path / "ann.key"
    assert tumor("pin", "tumor", "acme", "v2", "--ttl", "1h").code == 0

    left = tumor("sign", "--key", ann, "--json")
    taken = tumor("sign", "--key", ann, "--unsigned", "--json")

    assert (left.code, set(outcomes(left).values())) == (1, {"unsigned"})
    assert (taken.code, set(outcomes(taken).values())) == (0, {"signed"})
    assert 0 < redis.pttl(key("pin", "tumor", "acme")) <= 3_600_000
    assert verified(tumor, ann)[0].code == 0


def test_sign_takes_what_is_left_of_a_model_without_a_policy(tumor: Rmv, ann: Path) -> None:
    assert tumor("pin", "tumor", "acme", "v1").code == 0
    assert tumor("delete", "tumor").code == 0
    unsigned = verified(tumor, ann)[0].code

    ran = tumor("sign", "--key", ann, "--unsigned", "--json")
    nothing = tumor("sign", "other", "--key", ann)

    assert (ran.code, outcomes(ran)) == (0, {("pin", "acme"): "signed"})
    assert (unsigned, verified(tumor, ann)[0].code) == (1, 0)
    assert nothing.code == 1
    assert "the store has nothing of `other`" in nothing.err


def test_sign_takes_nothing_that_was_changed_after_it_was_signed(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    tampered = text(redis, "policy", "tumor").replace("9001", "6666")
    redis.set(key("policy", "tumor"), tampered)

    ran = signed(
        "sign", "--key", ann.with_name("eve.key"), "--trust", ann.with_suffix(".pub"), "--unsigned"
    )

    assert (ran.code, "forged" in ran.out) == (1, True)
    assert text(redis, "policy", "tumor") == tampered
    assert signed("sign").code == 2


def tell_of(redis: Redis, fields: dict[str, str]) -> None:
    """Write the heartbeat of a sidecar."""
    told = {"sidecar": "host-1"} | fields
    redis.hset(key("fleet", "host-1:a"), mapping=told)  # type: ignore[arg-type]  # stub
    redis.expire(key("fleet", "host-1:a"), 60)
    redis.zadd(key("fleet"), {"host-1:a": 1})


def test_a_signed_copy_of_before_is_neither_signed_anew_nor_gone_by(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    eve, trust = ann.with_name("eve.key"), ("--trust", ann.with_suffix(".pub"))
    assert signed("label", "tumor", "bad", "v1", "--key", ann).code == 0
    before = text(redis, "policy", "tumor")
    assert signed("label", "tumor", "bad", "v2", "--key", ann).code == 0
    redis.set(key("policy", "tumor"), before)
    tell_of(redis, {"revision:tumor": "3"})

    ran = signed("sign", "--key", eve, *trust, "--json")
    killed = signed("kill", "tumor:bad", "--reason", "x", "--key", ann)

    assert (ran.code, outcomes(ran)) == (1, {("policy", "tumor"): "older"})
    assert text(redis, "policy", "tumor") == before
    assert "are taken for versions" in killed.err
    assert not redis.exists(key("kill", "tumor", "v1"))


def test_nothing_is_signed_anew_while_sidecars_know_what_is_newer(
    signed: Rmv, ann: Path, redis: Redis
) -> None:
    assert signed("pin", "tumor", "acme", "v1", "--key", ann).code == 0
    before = text(redis, "pin", "tumor", "acme")
    tell_of(redis, {"refused:older": "1"})

    ran = signed("sign", "--key", ann.with_name("eve.key"), "--trust", ann.with_suffix(".pub"))

    assert (ran.code, "as older than what was signed before" in ran.err) == (1, True)
    assert text(redis, "pin", "tumor", "acme") == before


# --- what others see of it -----------------------------------------------------------------------


def test_status_tells_what_each_sidecar_does_not_believe(signed: Rmv, redis: Redis) -> None:
    told = {"sidecar": "host-1", "refused:unsigned": "3", "refused:deleted": "1"}
    for name in ("a", "b"):
        redis.hset(key("fleet", f"host-1:{name}"), mapping=told)  # type: ignore[arg-type]  # stub
        redis.expire(key("fleet", f"host-1:{name}"), 7)
        redis.zadd(key("fleet"), {f"host-1:{name}": 1})

    people, programs = signed("status"), signed("status", "--json")

    assert "host-1 does not believe what is stored: 1 deleted, 3 unsigned" in people.err
    (sidecar,) = json.loads(programs.out)["sidecars"]
    assert sidecar["refused"] == {"unsigned": 3, "deleted": 1}


@pytest.fixture
def forged(signed: Rmv, tmp_path: Path, redis: Redis) -> Path:
    """Settings by which what is stored is not believed: it lacks v2, and a sidecar refuses it."""
    settings = tmp_path / "rmv.toml"
    settings.write_text('[signing]\ntrusted = ["ann.pub"]\n')
    redis.set(key("policy", "tumor"), text(redis, "policy", "tumor").replace('"v2"', '"v3"'))
    told = {"sidecar": "host-1", "revision:tumor": "1", "fault:tumor": "the signature does not fit"}
    redis.hset(key("fleet", "host-1:a"), mapping=told)  # type: ignore[arg-type]  # stub
    redis.expire(key("fleet", "host-1:a"), 60)
    redis.zadd(key("fleet"), {"host-1:a": 1})
    return settings


def test_status_does_not_say_that_sidecars_decide_by_a_forged_document(
    signed: Rmv, forged: Path
) -> None:
    told, untold = signed("status", "-c", forged).out, signed("status").out

    assert "tumor 1 of unbelieved" in told
    assert told.splitlines()[1].split()[:4] == ["tumor", "unbelieved", "-", "0"]
    assert "tumor 1 of 1 (refused)" in untold  # by settings that trust no key, the sidecar tells
    assert "what is stored" not in told + untold


def test_a_forged_deletion_is_told_as_no_deletion(signed: Rmv, forged: Path, redis: Redis) -> None:
    document = {"model": "tumor", "versions": {}, "deleted": True, "revision": 9}
    redis.set(key("policy", "tumor"), json.dumps(document))

    told = signed("status", "-c", forged).out

    assert "tumor 1 of unbelieved" in told
    assert "(deleted)" not in told


def test_pins_are_not_judged_by_a_forged_document(signed: Rmv, ann: Path, forged: Path) -> None:
    assert signed("pin", "tumor", "acme", "v2", "--key", ann, "--force").code == 0

    assert "no such version" not in signed("pins", "tumor", "-c", forged).out
    assert "faulty" not in signed("status", "-c", forged).out


def test_a_label_that_is_moved_with_a_signature_is_audited_as_that(
    signed: Rmv, ann: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMV_AUDIT__DIR", str(tmp_path / "audit"))

    assert signed("label", "tumor", "stable", "v1", "--key", ann).code == 0
    assert signed("delete", "tumor", "--key", ann).code == 0

    told = signed("audit", "tail", "--json").out.splitlines()
    assert [json.loads(line)["kind"] for line in told] == ["label", "delete"]
