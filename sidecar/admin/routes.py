"""Every route of the admin API: which role it takes, and what it does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.admin import reads, writes
from sidecar.admin.bodies import (
    CutoffBody,
    ExplainBody,
    KillBody,
    PinBody,
    RevokeBody,
    RollbackBody,
    decode,
)
from sidecar.admin.problems import Refusal, RefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sidecar.admin.reads import Told
    from sidecar.model.admin import Role
    from sidecar.policy.address import AllowList
    from sidecar.store.base import Store

_REVISION: Final = re.compile(r"[1-9][0-9]{0,17}")
_LIMIT: Final = re.compile(r"[1-9][0-9]{0,4}")


class Call(NamedTuple):
    """One request to a route, its caller known and its body read.

    `named` are the parts of its path, `store` tells audit that `actor` did what it changes.
    """

    store: Store
    actor: str
    named: Mapping[str, str]
    query: Mapping[str, str]
    expected: writes.Expected
    raw: bytes
    allowed: AllowList
    now_s: float

    @property
    def model(self) -> str:
        """The model of the path."""
        return self.named["model"]

    @property
    def version(self) -> str:
        """The version of the path; empty for the whole model."""
        return self.named.get("version", "")

    @property
    def author(self) -> writes.Author:
        """As whom a policy is committed."""
        return writes.Author(self.store, self.actor, self.allowed)

    def limit(self, default: int) -> int:
        """Return `?limit=`; raises RefusedError."""
        text = self.query.get("limit", str(default))
        if not _LIMIT.fullmatch(text) or int(text) > reads.MAX_LISTED:
            detail = f"limit is a number from 1 to {reads.MAX_LISTED}"
            raise RefusedError(Refusal.INVALID, detail)
        return int(text)

    def revision(self) -> int:
        """Return the revision of the path; raises RefusedError."""
        text = self.named["revision"]
        if not _REVISION.fullmatch(text):
            raise RefusedError(Refusal.INVALID, "a revision is a number from 1 on")
        return int(text)


class Route(NamedTuple):
    """A method and a path; `queries` are what may follow `?`, `has_body` that it takes JSON."""

    method: str
    path: str
    role: Role
    does: Callable[[Call], Awaitable[Told]]
    queries: tuple[str, ...] = ()
    has_body: bool = False


async def _policy(call: Call) -> Told:
    stored = await reads.stored(call.store, call.model)
    return {"revision": stored.policy.revision, "policy": stored.policy}


async def _revision(call: Call) -> Told:
    return (await reads.revision(call.store, call.model, call.revision()))[1]


async def _put_policy(call: Call) -> Told:
    comment = call.query.get("comment", "")
    return await writes.put_policy(call.author, call.model, call.raw, call.expected, comment)


async def _roll_back(call: Call) -> Told:
    body = decode(call.raw, RollbackBody)
    return await writes.roll_back(call.author, call.model, body, call.expected)


async def _explain(call: Call) -> Told:
    body = decode(call.raw, ExplainBody)
    return await reads.explain(call.store, call.model, body, call.now_s)


async def _set_pin(call: Call) -> Told:
    body = decode(call.raw, PinBody)
    return await writes.set_pin(call.store, call.model, call.named["tenant"], body)


async def _set_kill(call: Call) -> Told:
    body = decode(call.raw, KillBody)
    return await writes.set_kill(call.store, call.model, call.version, body)


async def _revoke_tenant(call: Call) -> Told:
    body = decode(call.raw, CutoffBody)
    return await writes.revoke_tenant(call.store, call.named["tenant"], body, call.now_s)


async def _revoke_token(call: Call) -> Told:
    return await writes.revoke_token(call.store, call.named["jti"], decode(call.raw, RevokeBody))


_ROOT: Final = "/api/v1"
_MODEL: Final = f"{_ROOT}/policies/{{model}}"
_PIN: Final = f"{_MODEL}/pins/{{tenant}}"
_KILL: Final = f"{_MODEL}/kill"
_KILL_VERSION: Final = f"{_MODEL}/kills/{{version}}"
_TOKEN: Final = f"{_ROOT}/revocations/tokens/{{jti}}"
_TENANT: Final = f"{_ROOT}/revocations/tenants/{{tenant}}"

ROUTES: Final = (
    Route("GET", f"{_ROOT}/status", "viewer", lambda call: reads.status(call.store)),
    Route("GET", f"{_ROOT}/fleet", "viewer", lambda call: reads.fleet(call.store)),
    Route("GET", f"{_ROOT}/policies", "viewer", lambda call: reads.policies(call.store)),
    Route("GET", _MODEL, "viewer", _policy),
    Route("PUT", _MODEL, "admin", _put_policy, ("comment",), has_body=True),
    Route(
        "GET",
        f"{_MODEL}/history",
        "viewer",
        lambda call: reads.history(call.store, call.model, call.limit(20)),
        ("limit",),
    ),
    Route("GET", f"{_MODEL}/history/{{revision}}", "viewer", _revision),
    Route("POST", f"{_MODEL}/rollback", "admin", _roll_back, has_body=True),
    Route("POST", f"{_MODEL}/explain", "viewer", _explain, has_body=True),
    Route(
        "GET",
        f"{_MODEL}/pins",
        "viewer",
        lambda call: reads.pins(call.store, call.model, call.limit(1000)),
        ("limit",),
    ),
    Route(
        "GET",
        _PIN,
        "viewer",
        lambda call: reads.pin(call.store, call.model, call.named["tenant"]),
    ),
    Route("PUT", _PIN, "operator", _set_pin, has_body=True),
    Route(
        "DELETE",
        _PIN,
        "operator",
        lambda call: writes.delete_pin(call.store, call.model, call.named["tenant"]),
    ),
    Route("GET", f"{_MODEL}/kills", "viewer", lambda call: reads.kills(call.store, call.model)),
    Route("PUT", _KILL, "operator", _set_kill, has_body=True),
    Route("DELETE", _KILL, "operator", lambda call: writes.delete_kill(call.store, call.model, "")),
    Route("PUT", _KILL_VERSION, "operator", _set_kill, has_body=True),
    Route(
        "DELETE",
        _KILL_VERSION,
        "operator",
        lambda call: writes.delete_kill(call.store, call.model, call.version),
    ),
    Route(
        "GET",
        f"{_ROOT}/revocations",
        "viewer",
        lambda call: reads.revocations(call.store, call.limit(1000)),
        ("limit",),
    ),
    Route("PUT", _TOKEN, "admin", _revoke_token, has_body=True),
    Route(
        "DELETE",
        _TOKEN,
        "admin",
        lambda call: writes.believe_token(call.store, call.named["jti"]),
    ),
    Route("PUT", _TENANT, "admin", _revoke_tenant, has_body=True),
    Route(
        "DELETE",
        _TENANT,
        "admin",
        lambda call: writes.believe_tenant(call.store, call.named["tenant"]),
    ),
)
