"""`rmv audit` on real files and a real Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.audit.chain import Chain
from sidecar.audit.files import files_in
from sidecar.runtime.ed25519 import PrivateKey
from tests.audit.chains import write
from tests.cli.conftest import key
from tests.support.messages import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path

    from redis import Redis

    from tests.cli.conftest import Rmv


@pytest.fixture
def audited(tumor: Rmv, tmp_path: Path) -> Rmv:
    """Run the command with settings that have it audited, after some actions."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "audit.key").write_bytes(pem)
    (tmp_path / "audit.pub").write_text(PrivateKey(private).public.pem())
    os.environ["RMV_AUDIT__DIR"] = str(tmp_path / "audit")
    os.environ["RMV_AUDIT__STREAM"] = "true"
    os.environ["RMV_AUDIT__KEY_FILE"] = str(tmp_path / "audit.key")
    assert tumor("pin", "tumor", "acme", "v1").code == 0
    assert tumor("kill", "tumor:v2", "--reason", "wrong dose").code == 0
    assert tumor("label", "tumor", "stable", "v1").code == 0
    assert tumor("unkill", "tumor:v2").code == 0
    return tumor


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RMV_AUDIT__DIR", "RMV_AUDIT__STREAM", "RMV_AUDIT__KEY_FILE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def _first(redis: Redis) -> tuple[bytes, bytes]:
    """Return id and line of the oldest entry of the stream."""
    found = msgspec.convert(
        redis.xrange(key("audit"), count=1), list[tuple[bytes, dict[bytes, bytes]]]
    )
    return found[0][0], found[0][1][b"entry"]


def test_what_commands_did_is_found(audited: Rmv) -> None:
    all_of_it = audited("audit", "tail").out.splitlines()
    kills = audited("audit", "search", "--kind", "kill").out.splitlines()
    of_acme = json.loads(audited("audit", "search", "--tenant", "acme", "--json").out)
    none = audited("audit", "search", "--model", "other")

    assert [line.split()[1] for line in all_of_it] == ["pin", "kill", "label", "revive"]
    assert len(kills) == 1
    assert "tumor:v2" in kills[0]
    assert "wrong dose" in kills[0]
    assert (of_acme["kind"], of_acme["version"]) == ("pin", "v1")
    assert none == (0, "", "")


def test_checkpoints_are_told_where_they_are_asked_for(audited: Rmv, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    chain, kinds = Chain("w"), ("pin", "checkpoint", "kill", "checkpoint", "label")
    entries = [f'{{"at_s":{at},"kind":"{kind}"}}' for at, kind in enumerate(kinds, 1)]
    log.write_bytes(b"".join(chain.link(one.encode()) + b"\n" for one in entries))

    def told(*arguments: str) -> list[str]:
        ran = audited("audit", *arguments, "--file", log)
        assert ran.code == 0, ran.err
        return [line.split()[1] for line in ran.out.splitlines()]

    assert told("tail", "-n", "2") == ["kill", "label"]
    assert told("search") == ["pin", "kill", "label"]
    assert told("tail", "--kind", "checkpoint") == ["checkpoint"] * 2
    of_whom = audited("audit", "tail", "--kind", "checkpoint", "--file", log).out.split()
    assert of_whom[1:3] == ["checkpoint", "w"]
    assert told("search", "--kind", "kill", "--kind", "pin") == ["pin", "kill"]


def test_what_an_entry_tells_besides_is_text_or_json(audited: Rmv) -> None:
    (label,) = audited("audit", "search", "--kind", "label").out.splitlines()

    assert 'labels={"stable":"v1"}' in label
    assert "comment=" in label


TOLD: dict[tuple[str, ...], dict[str, str | int]] = {
    ("pin", "tumor", "acme", "v1"): {"kind": "pin", "tenant": "acme", "version": "v1"},
    ("unpin", "tumor", "acme"): {"kind": "unpin", "tenant": "acme"},
    ("kill", "tumor", "--reason", "bad"): {"kind": "kill", "reason": "bad"},
    ("unkill", "tumor"): {"kind": "revive"},
    ("revoke", "jti", "t-1"): {"kind": "revoke", "facts.jti": "t-1"},
    ("unrevoke", "jti", "t-1"): {"kind": "unrevoke", "facts.jti": "t-1"},
    ("revoke", "tenant", "acme"): {"kind": "revoke", "tenant": "acme"},
    ("unrevoke", "tenant", "acme"): {"kind": "unrevoke", "tenant": "acme"},
    ("label", "tumor", "stable", "v2"): {"kind": "label", "model": "tumor", "revision": 2},
    ("rollback", "tumor", "1"): {"kind": "label", "revision": 3},  # no more than that changes
    ("delete", "tumor"): {"kind": "delete", "model": "tumor"},
}


def test_each_thing_that_a_command_does_is_told_with_who_did_it(
    tumor: Rmv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMV_AUDIT__STREAM", "true")
    for command in TOLD:
        ran = tumor(*command)
        assert ran.code == 0, (command, ran.err)

    lines = tumor("audit", "search", "--json").out.splitlines()
    told = [json.loads(line) for line in lines]

    for entry, (command, wanted) in zip(told, TOLD.items(), strict=True):
        facts = {f"facts.{name}": value for name, value in entry.get("facts", {}).items()}
        assert {**entry, **facts}.items() >= wanted.items(), command
        assert "@" in entry["actor"], command


def test_a_command_without_settings_is_told_in_a_stream_that_a_fleet_has_begun(
    tumor: Rmv, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tumor("pin", "tumor", "acme", "v1").code == 0
    none = tumor("audit", "tail")
    monkeypatch.setenv("RMV_AUDIT__STREAM", "true")
    assert tumor("pin", "tumor", "globex", "v1").code == 0
    monkeypatch.delenv("RMV_AUDIT__STREAM")

    assert tumor("pin", "tumor", "initech", "v1").code == 0

    told = [json.loads(line) for line in tumor("audit", "search", "--json").out.splitlines()]
    assert "there is no audit here" in none.err
    assert [one["tenant"] for one in told] == ["globex", "initech"]


def test_a_time_is_given_as_such_or_as_how_long_ago(audited: Rmv) -> None:
    recent = audited("audit", "search", "--since", "1h").out.splitlines()
    long_ago = audited("audit", "search", "--until", "2020-01-01T00:00:00Z").out
    wrong = audited("audit", "search", "--since", "yesterday")

    assert len(recent) == 4
    assert long_ago == ""
    assert wrong.code == 2
    assert "`yesterday` is neither a time" in wrong.err


def test_chains_of_files_and_stream_are_verified(audited: Rmv, tmp_path: Path) -> None:
    ran = audited("audit", "verify", "--key", tmp_path / "audit.pub", "--strict")

    assert ran.code == 0
    assert ran.out.count("4 entries of 4 writers") == 2
    assert ran.out.count("no row was changed, dropped, moved or put in") == 2


def test_a_line_that_was_changed_is_named(audited: Rmv, tmp_path: Path) -> None:
    (file,) = files_in(tmp_path / "audit")
    file.write_bytes(file.read_bytes().replace(b"wrong dose", b"other dose"))

    ran = audited("audit", "verify", "--source", "files")
    as_json = audited("audit", "verify", "--source", "files", "--json")

    assert ran.code == 1
    assert "audit-000001.jsonl:2: entry 1 of command-" in ran.err
    assert "changed" in ran.err
    (result,) = json.loads(as_json.out)
    assert result["faults"][0]["place"] == "audit-000001.jsonl:2"


def test_an_entry_that_was_put_into_the_stream_is_named(audited: Rmv, redis: Redis) -> None:
    redis.xadd(key("audit"), {"entry": '{"writer":"x","seq":1,"hash":"'})
    _, line = _first(redis)
    redis.xadd(key("audit"), {"entry": line.replace(b"acme", b"evil")})

    ran = audited("audit", "verify", "--source", "stream")

    assert ran.code == 1
    assert "changed" in ran.err


def test_no_name_of_a_writer_reads_like_a_line_of_the_verdict(tumor: Rmv, tmp_path: Path) -> None:
    verdict = "no row was changed, dropped, moved or put in"
    forged = {"writer": f"w\n  {verdict}\n", "seq": 1, "prev": "", "at_s": 1, "kind": "x"}
    log = tmp_path / "audit.jsonl"
    log.write_text(json.dumps({**forged, "hash": "0" * 64}) + "\n")
    changed = tumor("audit", "verify", "--file", log)
    chain = Chain(f"w\\n  {verdict}\\n").link(b'{"at_s":1,"kind":"x"}')
    log.write_bytes(chain + b"\n")

    noted = tumor("audit", "verify", "--file", log)

    assert changed.code == 1
    assert f"  {verdict}" not in changed.err.splitlines()
    assert noted.out.splitlines().count(f"  {verdict}") == 1


def test_of_many_faults_the_first_are_told_and_the_others_counted(
    audited: Rmv, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_text('{"x":1}\n' * 30)

    ran = audited("audit", "verify", "--file", log)
    as_json = audited("audit", "verify", "--file", log, "--json")

    *told, rest = ran.err.splitlines()
    assert (ran.code, len(told)) == (1, 20)
    assert f"{log.name}:1: " in told[0]
    assert rest == f"error: 10 more in {log}: --json has all"
    assert len(json.loads(as_json.out)[0]["faults"]) == 30


def test_a_row_that_is_no_entry_is_named(audited: Rmv, redis: Redis) -> None:
    at = redis.xadd(key("audit"), {"entry": '{"x":1}'})

    ran = audited("audit", "verify", "--source", "stream")

    assert ran.code == 1
    assert isinstance(at, bytes)
    assert f":{at.decode()}: it is no entry, and no beginning of one: put in\n" in ran.err


def test_an_entry_that_was_deleted_is_missed_by_who_saw_it(
    audited: Rmv, redis: Redis, tmp_path: Path
) -> None:
    (tmp_path / "seen.json").write_text(audited("audit", "verify", "--json").out)
    at, _ = _first(redis)
    redis.xdel(key("audit"), at)

    unseen = audited("audit", "verify", "--source", "stream")
    against = "audit", "verify", "--against", tmp_path / "seen.json"
    seen = audited(*against)
    whole = audited(*against, "--whole", "--source", "stream")
    files = audited(*against, "--whole", "--source", "files")

    assert unseen.code == 0  # it was a chain of its own: nothing else tells of it
    assert seen.code == 0
    assert seen.out.count("was seen before: removed") == 1
    assert whole.code == 1
    assert whole.err.count("was seen before") == 1
    assert "error: entry " in whole.err  # without a place: its rows are nowhere
    assert files.code == 0


def test_a_beginning_that_is_cut_off_is_named_unless_files_were_rotated_away(
    tumor: Rmv, tmp_path: Path
) -> None:
    folder = tmp_path / "audit"
    asyncio.run(write(folder, 40))
    first, second, *_ = files_in(folder)
    verify = "audit", "verify", "--file", folder
    whole = tumor(*verify)

    first.write_bytes(first.read_bytes().partition(b"\n")[2])
    cut = tumor(*verify)
    first.unlink()
    rotated = tumor(*verify)
    claimed = tumor(*verify, "--whole")

    assert whole.code == 0
    assert cut.code == 1
    assert "audit-000001.jsonl:1: entry 2 of worker-" in cut.err
    assert "entry 1 of its chain is missing before it" in cut.err
    assert rotated.code == 0
    assert "the older ones are not here" in rotated.out
    assert claimed.code == 1
    assert f"{second.name}:1: entry " in claimed.err


@pytest.mark.parametrize(
    ("option", "value"), [("request-id", "r1"), ("subject", "ada"), ("version", "v2")]
)
def test_entries_are_found_by_all_that_names_a_request(
    tumor: Rmv, tmp_path: Path, option: str, value: str
) -> None:
    common = {"model": "fraud", "tenant": "acme"}
    one = {**common, "request_id": "r1", "subject": "ada", "version": "v2"}
    other = {**common, "request_id": "r2", "subject": "eve", "version": "v1"}
    chain = Chain("worker-x")
    told = [{"at_s": 1.0, "kind": "decision", **facts} for facts in (one, other)]
    log = tmp_path / "audit.jsonl"
    log.write_bytes(b"".join(chain.link(msgspec.json.encode(event)) + b"\n" for event in told))
    search = "audit", "search", "--file", log, "--json"

    found = tumor(*search, f"--{option}", value).out.splitlines()

    assert [json.loads(line)["request_id"] for line in found] == ["r1"]
    assert len(tumor(*search).out.splitlines()) == 2


def test_a_copy_is_verified_as_the_original(audited: Rmv, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    exported = audited("audit", "export", "-o", copy)
    again = audited("audit", "export", "-o", copy)
    to_stdout = audited("audit", "export").out
    verified = audited("audit", "verify", "--file", copy, "--key", tmp_path / "audit.pub")

    assert exported.code == 0
    assert "4 lines" in exported.err
    assert again.code == 1
    assert to_stdout == copy.read_text()
    assert verified.code == 0


def test_what_is_not_proved_is_told(audited: Rmv, tmp_path: Path) -> None:
    (file,) = files_in(tmp_path / "audit")
    file.write_bytes(file.read_bytes()[:-30])

    plain = audited("audit", "verify", "--source", "files")
    strict = audited("audit", "verify", "--source", "files", "--strict")

    assert plain.code == 0
    assert "half a line" in plain.out
    assert strict.code == 3


def test_without_audit_a_command_says_so(tumor: Rmv) -> None:
    ran = tumor("audit", "tail")

    assert ran.code == 1
    assert "there is no audit here" in ran.err


def test_a_key_that_is_none_is_refused(audited: Rmv, tmp_path: Path) -> None:
    ran = audited("audit", "verify", "--key", tmp_path / "audit.key")

    assert ran.code == 2
    assert "a private key, which has no place here" in ran.err


def test_all_files_that_are_named_are_searched(audited: Rmv, tmp_path: Path) -> None:
    (file,) = files_in(tmp_path / "audit")
    first, *others = file.read_bytes().splitlines(keepends=True)
    (tmp_path / "one.jsonl").write_bytes(first)
    (tmp_path / "two.jsonl").write_bytes(b"".join(others))
    named = "--file", tmp_path / "one.jsonl", "--file", tmp_path / "two.jsonl"

    found = audited("audit", "search", *named).out.splitlines()
    last = audited("audit", "tail", "-n", "4", *named).out.splitlines()
    verified = audited("audit", "verify", *named)

    assert len(found) == len(last) == 4
    assert verified.out.count("no row was changed") == 2


async def test_tail_follows_what_comes(tmp_path: Path) -> None:
    await write(tmp_path / "audit", 1)
    following = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "sidecar", "audit", "tail", "-n", "1", "-f",
        "--file", str(tmp_path / "audit"), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert following.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        shown = await following.stdout.readline()
        await write(tmp_path / "audit", 2)
        come = [await following.stdout.readline() for _ in range(4)]
    following.send_signal(signal.SIGINT)
    await following.wait()

    assert shown.split()[1] == b"end"
    assert [line.split()[1] for line in come] == [b"begin", b"denied", b"denied", b"end"]
