"""`rmv apply` knows what files last said, what the store says, and what the files say now."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from msgspec import structs
from redis import Redis

from sidecar.cli.apply import EditedError, apply_policy, carry_out
from sidecar.cli.review import review
from sidecar.errors import StoreConflictError
from sidecar.policy import codec
from sidecar.store.memory import MemoryStore
from tests.cli.conftest import POLICY, key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv

TUMOR = codec.decode(POLICY.encode(), source="")
TO_V2 = POLICY.replace("default: v1", "default: v2")
FRAUD = POLICY.replace("model: tumor", "model: fraud")
BETA_TO_V1 = POLICY.replace("serve: v2", "serve: v1")


def edit(url: str, text: str, model: str = "tumor") -> None:
    """Write a document as redis-cli does, past every command."""
    with Redis.from_url(url) as client:
        client.set(f"{os.environ['RMV_PREFIX']}:policy:{model}", text)


def write(tmp_path: Path, **documents: str) -> Path:
    """Write a folder of documents in the place of what was in it."""
    made = tmp_path / "policies"
    made.mkdir(exist_ok=True)
    for old in made.iterdir():
        old.unlink()
    for name, text in documents.items():
        (made / f"{name}.yaml").write_text(text)
    return made


def test_a_direct_edit_that_the_files_lack_is_not_overwritten(
    tumor: Rmv, valkey_url: str, tmp_path: Path
) -> None:
    edit(valkey_url, TO_V2)

    refused = tumor("apply", "-f", write(tmp_path, fraud=FRAUD, tumor=POLICY))

    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(
        "error: tumor was edited since it was last applied: a direct edit\n"
        '  ~ default: "v1" -> "v2"\n'
    )
    assert "--force" in refused.err
    assert "default: v2" in tumor("get", "tumor").out
    assert tumor("get", "fraud").code == 1  # nor was anything else applied


def test_force_overwrites_an_edit_and_names_it(tumor: Rmv, valkey_url: str, tmp_path: Path) -> None:
    edit(valkey_url, TO_V2)

    forced = tumor("apply", "-f", write(tmp_path, tumor=POLICY), "--force")

    assert forced.out == "tumor configured (revision 2, replaces a direct edit)\n"
    assert "default: v1" in tumor("get", "tumor").out


def test_an_edit_that_the_files_do_not_touch_is_lost_all_the_same_and_so_refused(
    tumor: Rmv, valkey_url: str, tmp_path: Path
) -> None:
    edit(valkey_url, TO_V2)

    refused = tumor("apply", "-f", write(tmp_path, tumor=BETA_TO_V1), "--json")

    (told,) = json.loads(refused.out)
    assert refused.code == 1
    assert told["outcome"] == "refused"
    assert told["replaced"] == "a direct edit"
    assert told["edits"] == [{"path": "default", "before": "v1", "after": "v2"}]
    assert [one["path"] for one in told["changes"]] == ["rules[beta].serve", "default"]


def test_an_edit_that_the_files_contain_is_no_obstacle(
    tumor: Rmv, valkey_url: str, tmp_path: Path
) -> None:
    edit(valkey_url, TO_V2)

    merged = TO_V2.replace("serve: v2", "serve: v1")
    ran = tumor("apply", "-f", write(tmp_path, tumor=merged))

    assert ran.out == "tumor configured (revision 2)\n"


def test_what_a_store_went_back_to_is_confirmed_as_newer_than_sidecars_have(
    tumor: Rmv, valkey_url: str, tmp_path: Path
) -> None:
    prefix = os.environ["RMV_PREFIX"]
    with Redis.from_url(valkey_url) as client:
        client.hset(f"{prefix}:fleet:host:1", mapping={"sidecar": "host", "revision:tumor": "9"})
        client.pexpire(f"{prefix}:fleet:host:1", 60_000)
        client.zadd(f"{prefix}:fleet", {"host:1": 1})

    confirmed = tumor("apply", "-f", write(tmp_path, tumor=POLICY))
    again = tumor("apply", "-f", write(tmp_path, tumor=POLICY))

    assert confirmed.out == "tumor confirmed (revision 10)\n"
    assert again.out == "tumor unchanged (revision 10)\n"


def test_files_that_say_what_an_edit_said_take_it_over(
    tumor: Rmv, valkey_url: str, tmp_path: Path
) -> None:
    edit(valkey_url, TO_V2)

    taken = tumor("apply", "-f", write(tmp_path, tumor=TO_V2))
    again = tumor("apply", "-f", write(tmp_path, tumor=TO_V2))
    back = tumor("apply", "-f", write(tmp_path, tumor=POLICY))

    assert taken.out == "tumor taken over (revision 2)\n"
    assert again.out == "tumor unchanged (revision 2)\n"
    assert back.out == "tumor configured (revision 3)\n"


def test_an_old_document_put_back_by_hand_is_an_edit(
    tumor: Rmv, valkey_url: str, tmp_path: Path
) -> None:
    old = tumor("get", "tumor").out  # marked as applied, as it once was
    tumor("apply", "-f", write(tmp_path, tumor=TO_V2))
    edit(valkey_url, old)

    refused = tumor("apply", "-f", write(tmp_path, tumor=TO_V2))

    assert refused.code == 1
    assert "a direct edit" in refused.err


def test_edits_can_be_left_alone(tumor: Rmv, valkey_url: str, tmp_path: Path) -> None:
    edit(valkey_url, TO_V2)

    ran = tumor("apply", "-f", write(tmp_path, fraud=FRAUD, tumor=POLICY), "--keep-edits")
    both = tumor("apply", "-f", write(tmp_path, tumor=POLICY), "--keep-edits", "--force")

    assert ran.code == 0
    assert ran.out == "fraud created (revision 1)\ntumor kept (revision 0)\n"
    assert "a direct edit" in ran.err
    assert both.code == 2


async def test_a_document_that_files_never_said_is_an_edit_as_a_whole() -> None:
    store = MemoryStore()
    await store.edit("tumor", TO_V2.encode())

    with pytest.raises(EditedError, match="tumor was never applied: revision 1 by direct"):
        await apply_policy(store, TUMOR, "ann", "")


async def test_an_adopted_edit_is_told_by_its_revision_and_so_is_a_commit() -> None:
    store = MemoryStore()
    await apply_policy(store, TUMOR, "ann", "")
    await store.edit("tumor", TO_V2.encode())
    stored = await store.get_policy("tumor")
    assert stored is not None
    changed = structs.replace(stored.policy, default=None)
    await store.commit(changed, expected=stored.raw, actor="bob", comment="no default")

    found = await review(store, "tumor", TUMOR)

    assert found.editors == ("revision 3 by bob (no default)", "revision 2 by direct")
    assert [one.spell() for one in found.undone] == ["default"]


async def test_an_apply_by_anybody_is_what_files_last_said() -> None:
    store = MemoryStore()
    await apply_policy(store, TUMOR, "ann", "")
    await apply_policy(store, structs.replace(TUMOR, default="v2"), "bob", "")

    outcome = await apply_policy(store, TUMOR, "ann", "")

    assert (outcome.outcome, outcome.revision, outcome.replaced) == ("configured", 3, "")


def test_a_dry_run_tells_what_would_change_and_changes_nothing(tumor: Rmv, tmp_path: Path) -> None:
    made = write(tmp_path, fraud=FRAUD, tumor=TO_V2)

    ran = tumor("apply", "-f", made, "--dry-run")

    assert ran.code == 0
    assert ran.out.splitlines()[0] == "fraud created (dry run)"
    assert '  + default: "v1"' in ran.out
    assert ran.out.endswith('tumor configured (dry run)\n  ~ default: "v1" -> "v2"\n')
    assert [one["revision"] for one in json.loads(tumor("get", "--json").out)] == [1]


def test_pruning_deletes_what_the_folder_lacks(tumor: Rmv, tmp_path: Path) -> None:
    tumor("apply", "-f", write(tmp_path, fraud=FRAUD))
    without = tumor("get", "tumor")

    planned = tumor("apply", "-f", tmp_path / "policies", "--prune", "--dry-run")
    pruned = tumor("apply", "-f", tmp_path / "policies", "--prune")

    assert without.code == 0
    assert "tumor deleted (dry run)\n  - versions.v1: " in planned.out
    assert pruned.out == "fraud unchanged (revision 1)\ntumor deleted (revision 1)\n"
    assert tumor("get", "tumor").code == 1
    assert tumor("history", "tumor").code == 0


def test_pruning_needs_a_folder_and_spares_edits(
    tumor: Rmv, valkey_url: str, tmp_path: Path
) -> None:
    made = write(tmp_path, fraud=FRAUD)
    edit(valkey_url, TO_V2)

    a_file = tumor("apply", "-f", made / "fraud.yaml", "--prune")
    edited = tumor("apply", "-f", made, "--prune")

    assert (a_file.code, edited.code) == (2, 1)
    assert "tumor was edited" in edited.err
    assert tumor("get", "tumor").code == 0


def test_pruning_spares_a_document_that_is_not_valid(
    tumor: Rmv, valkey_url: str, tmp_path: Path
) -> None:
    made = write(tmp_path, fraud=FRAUD, tumor=POLICY)
    tumor("apply", "-f", made)
    edit(valkey_url, "model: [", model="churn")

    shown = tumor("diff", "-f", made, "--prune")
    pruned = tumor("apply", "-f", made, "--prune")
    kept = tumor("apply", "-f", made, "--prune", "--keep-edits")
    forced = tumor("apply", "-f", made, "--prune", "--force")

    lost = "churn holds a document that is not valid, which deleting it would lose"
    assert (shown.code, shown.out) == (1, "churn (a document that is not valid)\n")
    assert shown.err == f"warning: {lost}\n"
    assert (pruned.code, pruned.out) == (1, "")
    assert pruned.err.startswith(f"error: {lost}\n")
    assert "churn kept" in kept.out
    assert "churn deleted" in forced.out


def test_pruning_tells_of_keys_that_no_model_can_have_and_leaves_them(
    tumor: Rmv, valkey_url: str, tmp_path: Path
) -> None:
    made = write(tmp_path, tumor=POLICY)
    edit(valkey_url, "mine", model="old copy")

    applied = tumor("apply", "-f", made, "--prune")
    shown = tumor("diff", "-f", made, "--prune")
    without = tumor("apply", "-f", made)

    key = f"{os.environ['RMV_PREFIX']}:policy:old copy"
    warning = f"warning: {key} is left alone: no model can have this name, so it is no policy\n"
    assert (applied.code, applied.err, shown.code, shown.err) == (0, warning, 0, warning)
    assert without.err == ""
    with Redis.from_url(valkey_url) as client:
        assert client.get(key) == b"mine"


def test_a_diff_tells_what_pruning_would_delete(tumor: Rmv, tmp_path: Path) -> None:
    made = write(tmp_path, fraud=FRAUD)
    tumor("apply", "-f", made)

    without = tumor("diff", "-f", made)
    pruning = tumor("diff", "-f", made, "--prune")
    a_file = tumor("diff", "-f", made / "fraud.yaml", "--prune")

    assert without.code == 0
    assert pruning.code == 1
    assert pruning.out.startswith("tumor (revision 1)\n  - versions.v1: ")
    assert a_file.code == 2


def test_a_model_is_deleted_and_brought_back(tumor: Rmv, valkey_url: str) -> None:
    deleted = tumor("delete", "tumor")
    again = tumor("delete", "tumor")
    back = tumor("rollback", "tumor")
    edit(valkey_url, "model: [", model="churn")
    refused = tumor("delete", "churn")
    forced = tumor("delete", "churn", "--force", "--json")

    assert (deleted.code, deleted.out) == (0, "tumor deleted (revision 1)\n")
    assert again.code == 1
    assert "the store has no policy of `tumor`" in again.err
    assert back.code == 0
    assert (refused.code, refused.out) == (1, "")
    assert "--force deletes it" in refused.err
    assert json.loads(forced.out)["outcome"] == "deleted"
    assert tumor("get", "tumor").code == 0


class EditedOnTheWay(MemoryStore):
    """A store in which somebody edits a document after it was looked at for the first time."""

    is_edited = False

    async def get_document(self, model: str) -> bytes | None:
        raw = await super().get_document(model)
        if not self.is_edited:
            self.is_edited = True
            await self.edit(model, TO_V2.encode())
        return raw


async def test_pruning_does_not_delete_what_was_edited_on_the_way() -> None:
    store = EditedOnTheWay()
    await store.edit("tumor", POLICY.encode())

    with pytest.raises(StoreConflictError, match="somebody else changed it just now"):
        await carry_out(store, await review(store, "tumor", None), "ann", "")

    assert await store.models() == ["tumor"]


def test_a_document_that_is_not_valid_is_told_apart_from_a_new_one(
    tumor: Rmv, valkey_url: str, tmp_path: Path
) -> None:
    edit(valkey_url, "{")

    ran = tumor("diff", "-f", write(tmp_path, tumor=POLICY))

    assert ran.out.startswith("tumor (in the place of a document that is not valid; compared with ")


def test_a_diff_exits_as_diff_does(tumor: Rmv, tmp_path: Path) -> None:
    same = tumor("diff", "-f", write(tmp_path, tumor=POLICY))
    different = tumor("diff", "-f", write(tmp_path, fraud=FRAUD, tumor=TO_V2))
    wrong = tumor("diff", "-f", tmp_path / "none.yaml")
    unreachable = tumor("diff", "-f", tmp_path / "policies", "--redis", f"unix://{tmp_path}/none")

    assert same == (0, "", "")
    assert different.code == 1
    assert different.out.startswith("fraud (new)\n  + versions.v1: ")
    assert different.out.endswith('tumor (revision 1)\n  ~ default: "v1" -> "v2"\n')
    assert (wrong.code, unreachable.code) == (2, 2)
    assert "cannot be reached" in unreachable.err


def test_a_diff_tells_of_an_edit_that_would_be_lost(
    tumor: Rmv, valkey_url: str, tmp_path: Path
) -> None:
    edit(valkey_url, TO_V2)

    ran = tumor("diff", "-f", write(tmp_path, tumor=POLICY))

    assert ran.out == 'tumor (revision 0)\n  ~ default: "v2" -> "v1"\n'
    assert ran.err.startswith("warning: tumor was edited since it was last applied: a direct edit")


def test_it_waits_until_every_sidecar_decides_by_what_the_files_say(
    tumor: Rmv, redis: Redis, tmp_path: Path
) -> None:
    folder = write(tmp_path, tumor=TO_V2, fraud=FRAUD)
    alone = tumor("apply", "-f", folder, "--wait")
    told = {"sidecar": "host", "revision:tumor": "2", "revision:fraud": "1"}
    redis.hset(key("fleet", "host:1"), mapping=told)  # type: ignore[arg-type]  # stub
    redis.expire(key("fleet", "host:1"), 600)
    redis.zadd(key("fleet"), {"host:1": 1})

    there = tumor("apply", "-f", folder, "--wait")
    write(tmp_path, tumor=TO_V2, fraud=FRAUD.replace("serve: v2", "serve: v1"))
    behind = tumor("apply", "-f", folder, "--wait", "--timeout", "1s")
    as_json = tumor("apply", "-f", folder, "--wait", "--timeout", "1s", "--json")
    pointless = tumor("apply", "-f", folder, "--wait", "--dry-run")

    assert alone.out.splitlines()[-1] == "no sidecar is live: nobody had to be waited for"
    assert there.out.splitlines()[-1].startswith("1 sidecar decides by them, after ")
    assert (there.code, behind.code, as_json.code, pointless.code) == (0, 1, 1, 2)
    assert "fraud: revision 2 is committed, but 1 of 1 sidecars do not decide by it" in behind.err
    assert [one["outcome"] for one in json.loads(as_json.out)] == ["unchanged", "unchanged"]
