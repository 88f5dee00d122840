"""What the admin API changes in a store: by the same checks and compare-and-set as `rmv`.

Each function takes a store that tells audit who did it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sidecar.admin import reads
from sidecar.admin.bodies import expect_line, expect_tenant
from sidecar.admin.problems import Refusal, RefusedError
from sidecar.errors import StoreConflictError
from sidecar.policy import codec
from sidecar.policy.diff import diff
from sidecar.policy.problem import PolicyError
from sidecar.runtime.slices import in_slices
from sidecar.store.committed import BrokenEntryError, expect_committed
from sidecar.store.document import without_lines

if TYPE_CHECKING:
    from sidecar.admin.bodies import CutoffBody, KillBody, PinBody, RevokeBody, RollbackBody
    from sidecar.admin.reads import Told
    from sidecar.model.policy import Policy
    from sidecar.policy.address import AllowList
    from sidecar.store.base import Store

ANY = "*"


class Author(NamedTuple):
    """Who commits: into `store`, which tells audit, as `actor`, endpoints `allowed` by settings."""

    store: Store
    actor: str
    allowed: AllowList


class Expected(NamedTuple):
    """What a client wants the stored revision to be (RFC 9110 section 13.1).

    `match` is If-Match: a revision in quotes, or `*`, any document, valid or not; `is_new` is
    If-None-Match: `*`, none.
    """

    match: str | None = None
    is_new: bool = False


async def put_policy(
    author: Author, model: str, raw: bytes, expected: Expected, comment: str
) -> Told:
    """Commit a document, if the stored one is what is expected."""
    if expected.match is None and not expected.is_new:
        detail = 'send If-Match: "REVISION" of what is replaced, or If-None-Match: * for a new one'
        raise RefusedError(Refusal.REVISION_REQUIRED, detail)
    try:
        wanted = await in_slices(codec.loading(raw, source="body", allowed=author.allowed))
    except PolicyError as error:
        problems = tuple(map(str, error.problems))
        raise RefusedError(Refusal.INVALID, "not a valid policy", problems=problems) from error
    if wanted.model != model or wanted.deleted:
        what = "says that its model is deleted" if wanted.deleted else f"is of {wanted.model}"
        raise RefusedError(Refusal.INVALID, f"the path names {model}, the document {what}")
    expect_line(comment, "comment")
    before = await _before(author.store, model, expected)
    return await _commit(author, before, wanted, comment)


async def roll_back(author: Author, model: str, body: RollbackBody, expected: Expected) -> Told:
    """Commit again what an earlier revision said."""
    entry, _ = await reads.revision(author.store, model, body.revision)
    source = f"revision {body.revision} of {model}"
    try:
        expect_committed(entry, model)
        loading = codec.loading(entry.document, source=source, allowed=author.allowed)
        said = await in_slices(loading)
    except BrokenEntryError as error:
        raise RefusedError(Refusal.INVALID, str(error)) from error
    except PolicyError as error:
        problems = tuple(map(str, without_lines(error, entry.document).problems))
        raise RefusedError(Refusal.INVALID, f"{source} is not valid", problems=problems) from error
    match = ANY if expected.match is None else expected.match
    before = await _before(author.store, model, Expected(match))
    mark = f"rollback to revision {body.revision}"
    comment = expect_line(body.comment, "comment")
    why = f"{comment} ({mark})" if comment else mark
    told = await _commit(author, before, said, why)
    return told | {"rolled_back_to": body.revision}


async def set_pin(store: Store, model: str, tenant: str, body: PinBody) -> Told:
    """Hold a tenant to a version."""
    expect_tenant(tenant)
    policy = (await reads.stored(store, model)).policy
    reads.version_named(policy, body.version)
    before = (await store.pins_of(model, [tenant])).get(tenant)
    await store.set_pin(model, tenant, body.version, ttl_s=body.ttl_s)
    told: Told = {"model": model, "tenant": tenant, "version": body.version}
    return told | {"before": before, "ttl_s": body.ttl_s}


async def delete_pin(store: Store, model: str, tenant: str) -> Told:
    """Let a tenant go."""
    if not await store.delete_pin(model, tenant):
        raise RefusedError(Refusal.NOT_FOUND, f"{model}: {tenant} is not pinned")
    return {"model": model, "tenant": tenant, "version": None}


async def set_kill(store: Store, model: str, version: str, body: KillBody) -> Told:
    """Switch a version, or with an empty name the whole model, off.

    A document that is not valid keeps nobody from that: the last good one may well serve.
    """
    reason = expect_line(body.reason, "reason")
    named = version
    try:
        policy = (await reads.stored(store, model)).policy
    except RefusedError as error:
        if error.refusal is not Refusal.STORED_INVALID:
            raise
    else:
        named = reads.version_named(policy, version) if version else ""
    await store.set_kill(model, named, reason, ttl_s=body.ttl_s)
    return {"model": model, "version": named or None, "reason": reason, "ttl_s": body.ttl_s}


async def delete_kill(store: Store, model: str, version: str) -> Told:
    """Switch it on again."""
    if not await store.delete_kill(model, version):
        what = f"{model}:{version}" if version else f"{model} (the whole model)"
        raise RefusedError(Refusal.NOT_FOUND, f"{what} is not switched off")
    return {"model": model, "version": version or None, "reason": None}


async def revoke_token(store: Store, jti: str, body: RevokeBody) -> Told:
    """Take a token back."""
    reason = expect_line(body.reason, "reason")
    await store.set_revoked(expect_line(jti, "jti"), reason, ttl_s=body.ttl_s)
    return {"jti": jti, "reason": reason, "ttl_s": body.ttl_s}


async def believe_token(store: Store, jti: str) -> Told:
    """Believe a token again."""
    if not await store.delete_revoked(jti):
        raise RefusedError(Refusal.NOT_FOUND, "no token of this jti is revoked")
    return {"jti": jti, "revoked": False}


async def revoke_tenant(store: Store, tenant: str, body: CutoffBody, now_s: float) -> Told:
    """Take back what a tenant was given before a moment."""
    expect_tenant(tenant)
    # Up to the next second: `iat` has whole ones, and a token of this one may be the thief's.
    before_s = float(math.ceil(now_s)) if body.before_s is None else body.before_s
    await store.set_cutoff(tenant, before_s, ttl_s=body.ttl_s)
    return {"tenant": tenant, "before_s": before_s, "ttl_s": body.ttl_s}


async def believe_tenant(store: Store, tenant: str) -> Told:
    """Believe a tenant's older tokens again."""
    if not await store.delete_cutoff(tenant):
        raise RefusedError(Refusal.NOT_FOUND, "the tokens of this tenant are not revoked")
    return {"tenant": tenant, "revoked": False}


class _Before(NamedTuple):
    """What a commit replaces: bytes, and the policy if they are a valid one."""

    raw: bytes | None
    policy: Policy | None


async def _before(store: Store, model: str, expected: Expected) -> _Before:
    """Return what is stored, if it is what is expected; raises RefusedError."""
    try:
        raw = await store.get_document(model)
    except PolicyError as error:
        detail = f"the key of {model} holds no string: delete it"
        raise RefusedError(Refusal.STORED_INVALID, detail) from error
    policy = _decoded(raw, model)
    is_there = raw is not None and not (policy is not None and policy.deleted)
    if expected.is_new and is_there:
        raise RefusedError(Refusal.REVISION_MISMATCH, f"{model} has a policy already")
    if expected.match is None:
        return _Before(raw, policy)
    if not is_there:
        raise RefusedError(Refusal.REVISION_MISMATCH, f"{model} has no policy")
    if expected.match != ANY:
        now = "is not valid" if policy is None else f'is of revision "{policy.revision}"'
        if policy is None or expected.match != f'"{policy.revision}"':
            raise RefusedError(Refusal.REVISION_MISMATCH, f"what is stored {now}")
    return _Before(raw, policy)


def _decoded(raw: bytes | None, model: str) -> Policy | None:
    if raw is None:
        return None
    try:
        return codec.load(raw, source=model)
    except PolicyError:
        return None


async def _commit(author: Author, replaced: _Before, wanted: Policy, comment: str) -> Told:
    """Commit a policy unless it says what is stored; `rmv apply` will take it for an edit."""
    raw, before = replaced
    changes = [
        {"path": one.spell(), "before": one.before, "after": one.after}
        for one in diff(before, wanted)
    ]
    told: Told = {"model": wanted.model, "changes": changes}
    if before is not None and not changes:
        return told | {"revision": before.revision, "committed": False}
    applied = "" if before is None else before.applied
    wanted = msgspec.structs.replace(wanted, applied=applied, signature="")
    try:
        done = await author.store.commit(wanted, expected=raw, actor=author.actor, comment=comment)
    except StoreConflictError as error:
        detail = f"{wanted.model} was changed meanwhile: look, and try again"
        raise RefusedError(Refusal.CONFLICT, detail) from error
    except PolicyError as error:
        problems = tuple(map(str, error.problems))
        raise RefusedError(Refusal.INVALID, "not a valid policy", problems=problems) from error
    return told | {"revision": done.revision, "committed": True}
