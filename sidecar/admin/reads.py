"""What the admin API tells of a store; it changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import msgspec

from sidecar.admin.problems import Refusal, RefusedError
from sidecar.model.identity import Identity
from sidecar.model.request import RequestHead
from sidecar.model.route import AMBIGUOUS
from sidecar.policy import codec
from sidecar.policy.answer import answer
from sidecar.policy.problem import PolicyError
from sidecar.policy.route import RouteTable
from sidecar.store.committed import fault_of, find_revision
from sidecar.store.keys import BadNameError
from sidecar.store.snapshots import snapshot_of

if TYPE_CHECKING:
    from sidecar.admin.bodies import ExplainBody
    from sidecar.model.identity import JSON
    from sidecar.model.policy import Policy
    from sidecar.policy.snapshot import Snapshot
    from sidecar.store.base import HistoryEntry, Pin, RevokedToken, Store, StoredPolicy

Told = dict[str, object]
"""What is encoded as the JSON of an answer."""

MAX_LISTED: Final = 10_000
DERIVED: Final = frozenset(("x-model", "x-model-version", "x-tenant"))
"""Headers that no rule sees: members of their own say them."""


async def policies(store: Store) -> Told:
    """Return every model: revision and versions, or what is wrong with its document."""
    return {"policies": [await _summary(store, model) for model in await store.models()]}


async def _summary(store: Store, model: str) -> Told:
    try:
        stored = await store.get_policy(model)
    except (PolicyError, BadNameError) as error:
        return {"model": model, "revision": None, "versions": [], "fault": str(error)}
    if stored is None:
        return {
            "model": model,
            "revision": None,
            "versions": [],
            "fault": "it was deleted just now",
        }
    policy = stored.policy
    versions = list(policy.versions)
    told: Told = {"model": model, "revision": policy.revision, "versions": versions, "fault": ""}
    return told | {"actor": policy.actor, "default": policy.default, "deleted": policy.deleted}


async def stored(store: Store, model: str) -> StoredPolicy:
    """Return a model's policy; raises RefusedError where there is none, or none that is valid."""
    found = await maybe_stored(store, model)
    if found is None:
        raise RefusedError(Refusal.NOT_FOUND, f"the store has no policy of {model}")
    return found


async def maybe_stored(store: Store, model: str) -> StoredPolicy | None:
    """Return what `stored` does, None where there is none, or a signed end of one."""
    try:
        found = await store.get_policy(model)
    except PolicyError as error:
        problems = tuple(map(str, error.problems))
        detail = f"the stored document of {model} is not valid"
        raise RefusedError(Refusal.STORED_INVALID, detail, problems=problems) from error
    return None if found is None or found.policy.deleted else found


async def history(store: Store, model: str, limit: int) -> Told:
    """Return the newest revisions, without their documents."""
    entries = await store.history(model, limit)
    if not entries:
        await stored(store, model)
    return {"model": model, "revisions": [_entry(one, model) for one in entries]}


async def revision(store: Store, model: str, number: int) -> tuple[HistoryEntry, Told]:
    """Return one revision with its document."""
    entry = await find_revision(store, model, number)
    if entry is None:
        raise RefusedError(Refusal.NOT_FOUND, f"the history of {model} has no revision {number}")
    told = _entry(entry, model)
    try:
        policy = codec.decode(entry.document, source=f"revision {number} of {model}")
    except PolicyError as error:
        return entry, told | {"document": None, "fault": str(error)}
    return entry, told | {"document": policy}


async def pins(store: Store, model: str, limit: int) -> Told:
    """Return pins of a model, in no order; `more` says that there are others."""
    found: list[Pin] = []
    async for one in store.pins(model):
        if len(found) == limit:
            return {"model": model, "pins": found, "more": True}
        found.append(one)
    return {"model": model, "pins": found, "more": False}


async def pin(store: Store, model: str, tenant: str) -> Told:
    """Return what a tenant is held to."""
    version = (await store.pins_of(model, [tenant])).get(tenant)
    if version is None:
        raise RefusedError(Refusal.NOT_FOUND, f"{model}: {tenant} is not pinned")
    return {"model": model, "tenant": tenant, "version": version}


async def kills(store: Store, model: str) -> Told:
    """Return what of a model is switched off."""
    return {"model": model, "kills": await store.kills(model)}


async def revocations(store: Store, limit: int) -> Told:
    """Return what is revoked; `more` says that there are other tokens."""
    tokens: list[RevokedToken] = []
    more = False
    async for one in store.revoked():
        if len(tokens) == limit:
            more = True
            break
        tokens.append(one)
    return {"tenants": await store.cutoffs(), "tokens": tokens, "more": more}


async def status(store: Store) -> Told:
    """Return every model with its kills, and the live sidecars."""
    found = []
    for model in await store.named_models():
        one = await _summary(store, model)
        try:
            one["kills"] = await store.kills(model)
        except BadNameError:
            one["kills"] = []
        found.append(one)
    return {"models": found, "sidecars": await store.fleet()}


async def fleet(store: Store) -> Told:
    """Return the live sidecars."""
    return {"sidecars": await store.fleet()}


async def explain(store: Store, model: str, asked: ExplainBody, now_s: float) -> Told:
    """Return the decision that a described request would get, as `rmv explain --json` does."""
    policy = (await stored(store, model)).policy
    unready = frozenset(version_named(policy, name) for name in asked.not_ready)
    now = await snapshot_of(store, policy, frozenset({asked.tenant}))
    snapshot = now.with_health(now.kills, unready)
    head = _head(asked, snapshot)
    head.at_s = now_s if asked.at_s is None else asked.at_s
    identity = Identity(
        asked.tenant,
        asked.subject,
        asked.app,
        asked.scopes,
        cast("dict[str, JSON]", asked.claims),  # it was decoded from JSON
        segments=asked.segments,
        grants=asked.grants,
    )
    return answer(snapshot, identity, head).as_json(is_brief=False)


def version_named(policy: Policy, name: str) -> str:
    """Return the version of a name or label; raises RefusedError."""
    version = policy.labels.get(name, name)
    if version not in policy.versions:
        raise RefusedError(Refusal.INVALID, f"the policy of {policy.model} has no version `{name}`")
    return version


def _head(asked: ExplainBody, snapshot: Snapshot) -> RequestHead:
    for name in asked.headers:
        if name.lower() in DERIVED:
            detail = f"headers: {name}: say it by tenant, asked_version or the model of the path"
            raise RefusedError(Refusal.INVALID, detail)
    fields = [f"{name}: {value}\r\n".encode() for name, value in asked.headers.items()]
    version = (asked.asked_version or "").encode() or None
    head = RequestHead(asked.method.encode(), asked.path.encode(), fields, asked_version=version)
    route = RouteTable((), snapshot.model).find(head)
    if route is AMBIGUOUS:
        detail = "path: names another model or version once it is decoded and resolved"
        raise RefusedError(Refusal.INVALID, detail)
    named = route.version or snapshot.policy.labels.get(route.label or "")
    if route.model == snapshot.model and named:
        if version not in {None, named.encode()}:
            detail = "path: names another version than asked_version"
            raise RefusedError(Refusal.INVALID, detail)
        head.asked_version = named.encode()
    return head


def _entry(entry: HistoryEntry, model: str) -> Told:
    told = msgspec.structs.asdict(entry)
    del told["document"]
    return told | {"fault": fault_of(entry, model)}
