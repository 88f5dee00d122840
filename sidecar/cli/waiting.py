"""Waits until every live sidecar decides by a revision."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from sidecar.cli import output
from sidecar.cli.failure import advised
from sidecar.cli.session import Session
from sidecar.errors import SidecarError
from sidecar.runtime.clock import Clock, SystemClock
from sidecar.store.base import Fleet, Instance

POLL_S = 0.005  # a look costs the server far less; propagation takes a few milliseconds
WAIT_S = 30.0
MAX_NAMED = 5


class NotAcknowledgedError(SidecarError):
    """Some sidecar still decides by an older revision."""


class Acknowledged(msgspec.Struct, frozen=True):
    """How many sidecars decide by the revision, and how long it took."""

    instances: int
    seconds: float


async def acknowledged(
    fleet: Fleet, model: str, revision: int, *, began_s: float, timeout_s: float, clock: Clock
) -> Acknowledged:
    """Return when every live sidecar decides by `revision` of a model, or by a later one.

    A sidecar that stops meanwhile is waited for no longer than its heartbeat lives.

    Raises:
        NotAcknowledgedError: some did not within `timeout_s`; the text names them.
        StoreUnavailableError: the store did not answer.
    """
    while True:
        living = await fleet.fleet(model)
        behind = [one for one in living if one.revisions.get(model, 0) < revision]
        took_s = clock.monotonic_s() - began_s
        if not behind:
            return Acknowledged(len(living), round(took_s, 6))
        if took_s >= timeout_s:
            late = _late(behind, len(living), model, revision, timeout_s)
            raise advised(NotAcknowledgedError(late), "`rmv status` shows them.")
        await asyncio.sleep(POLL_S)


async def wait_for(
    session: Session, revisions: Mapping[str, int], began_s: float, timeout_s: float | None
) -> Acknowledged:
    """Wait as `acknowledged` does for a revision of each model; tell people how long it took."""
    clock, ends_s = SystemClock(), timeout_s or WAIT_S
    reached = Acknowledged(0, 0.0)
    for model, revision in revisions.items():
        last = await acknowledged(
            session.store, model, revision, began_s=began_s, timeout_s=ends_s, clock=clock
        )
        reached = Acknowledged(max(reached.instances, last.instances), last.seconds)
    if not session.as_json:
        them = "it" if len(revisions) == 1 else "them"
        output.say(
            f"{_decide(reached.instances)} by {them}, after {reached.seconds * 1000:.0f} ms"
            if reached.instances
            else "no sidecar is live: nobody had to be waited for"
        )
    return reached


def _late(behind: list[Instance], count: int, model: str, revision: int, timeout_s: float) -> str:
    named = ", ".join(f"{one.name} ({_why(one, model)})" for one in behind[:MAX_NAMED])
    more = f" and {len(behind) - MAX_NAMED} more" if len(behind) > MAX_NAMED else ""
    return (
        f"{model}: revision {revision} is committed, but {len(behind)} of {count} sidecars do not "
        f"decide by it after {timeout_s:g} s: {named}{more}"
    )


def _why(one: Instance, model: str) -> str:
    if fault := one.faults.get(model):
        return output.inner(fault)
    if one.is_stale:
        return "it has lost the store"
    revision = one.revisions.get(model)
    return "it knows no such model" if revision is None else f"at revision {revision}"


def _decide(sidecars: int) -> str:
    return "1 sidecar decides" if sidecars == 1 else f"{sidecars} sidecars decide"
