"""What the store holds of one model, or a failure that helps to find the right one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from sidecar.cli import output
from sidecar.cli.broken import explained, what_serves
from sidecar.cli.failure import advised
from sidecar.errors import SidecarError
from sidecar.model.policy import Policy
from sidecar.policy.problem import PolicyError
from sidecar.store.base import HistoryEntry, Store, StoredPolicy
from sidecar.store.committed import MAX_REVISIONS, find_revision

NO_POLICY = (
    "the store has no policy yet; `rmv init` writes one, `rmv apply -f policies/` commits it"
)


class NotFoundError(SidecarError):
    """The store has no such model, or its policy no such version."""


async def stored_of(store: Store, model: str) -> StoredPolicy:
    """Return a model's policy, and the bytes that a commit compares.

    Raises:
        NotFoundError: the store has none, and the text names those it has; or it is deleted.
        BrokenError: the stored document is not valid.
    """
    stored = await _stored_of(store, model)
    if stored.policy.deleted:
        error = NotFoundError(f"{model} is deleted (revision {stored.policy.revision})")
        raise advised(error, f"`rmv rollback {model}` brings back what its history has.")
    return stored


async def _stored_of(store: Store, model: str) -> StoredPolicy:
    stored = await maybe_stored(store, model)
    if stored is None:
        raise await _no_policy(store, model)
    return stored


async def maybe_stored(store: Store, model: str) -> StoredPolicy | None:
    """Return what `stored_of` does, or None where the store has no policy of the model."""
    try:
        stored = await store.get_policy(model)
    except PolicyError as error:
        raise await explained(store, model, error) from error
    if stored is not None and (doubt := store.doubt_of(stored.policy)):
        serves = what_serves(model, await store.fleet(model))
        output.warn(f"{model}: no sidecar believes the stored document, {doubt}; {serves}")
    return stored


async def policy_of(store: Store, model: str) -> Policy:
    """Return a model's policy; raises as `stored_of`."""
    return (await stored_of(store, model)).policy


async def document_of(store: Store, model: str) -> Policy:
    """Return a model's policy, or the document that says that it is deleted."""
    return (await _stored_of(store, model)).policy


async def expect_version(
    store: Store, model: str, version: str, *, is_forced: bool
) -> Policy | None:
    """Raise NotFoundError when the policy lacks the version; with `is_forced` only warn of it.

    Returns the policy, None when there is none to go by. One that is invalid only makes a
    warning: the last good one may well serve, and what was asked for may not wait until it is
    mended.
    """
    policy: Policy | None = None
    try:
        policy = await policy_of(store, model)
        lacking = _lacking(policy, version)
    except NotFoundError as error:
        lacking = str(error)
    except PolicyError as error:
        named = f"{model}:{version}" if version else model
        output.warn(f"{named} is not checked: the stored document is invalid: {error.problems[0]}")
        return None
    if lacking and not is_forced:
        raise advised(NotFoundError(lacking), "With --force it is done all the same.")
    if lacking:
        output.warn(lacking)
    return policy


async def revision_of(store: Store, model: str, revision: int) -> HistoryEntry:
    """Return a revision of the history; raises NotFoundError."""
    if entry := await find_revision(store, model, revision):
        return entry
    newest = await store.history(model, limit=1)
    if not newest:
        await expect_model(store, model)
    is_far = bool(newest) and newest[0].revision - revision >= MAX_REVISIONS
    among = f" among its newest {MAX_REVISIONS:,}" if is_far else ""
    raise no_revision(model, f"no revision {revision}{among}")


def no_revision(model: str, which: str) -> NotFoundError:
    """Return what to say when a history lacks a revision."""
    error = NotFoundError(f"the history of {model} has {which}")
    return advised(error, f"`rmv history {model}` lists what it has.")


def version_named(policy: Policy, name: str) -> str:
    """Return the version of a name or label; raises NotFoundError."""
    if lacking := _lacking(policy, name):
        raise NotFoundError(lacking)
    return policy.labels.get(name, name)


async def versions_of(store: Store, model: str) -> Collection[str] | None:
    """Return the versions and labels of a model: none without a policy.

    None when its document is invalid or not believed: it tells nothing of what serves.
    """
    try:
        stored = await store.get_policy(model)
    except PolicyError:
        return None
    if stored is not None and store.doubt_of(stored.policy):
        return None
    return () if stored is None else (*stored.policy.versions, *stored.policy.labels)


async def expect_model(store: Store, model: str) -> None:
    """Raise NotFoundError when the store has no document of the model, valid or not."""
    if await store.get_document(model) is None:
        raise await _no_policy(store, model)


async def _no_policy(store: Store, model: str) -> NotFoundError:
    what = f"the store has no policy of `{model}`"
    return NotFoundError(_unknown(what, model, await store.models()))


def _lacking(policy: Policy, version: str) -> str:
    if not version or version in policy.versions or version in policy.labels:
        return ""
    what = f"the policy of {policy.model} has no version `{version}`"
    return _unknown(what, version, (*policy.versions, *policy.labels))


def _unknown(what: str, wanted: str, known: Iterable[str]) -> str:
    known = list(known)
    if similar := get_close_matches(wanted, known, n=1):
        return f"{what}; did you mean `{similar[0]}`?"
    return f"{what}; it has {', '.join(known[:20]) or 'none'}"
