"""`rmv plan`: who would move if policy documents were applied, told from the requests of late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Annotated, NamedTuple

import msgspec
import typer

from sidecar.cli import documents, durations, output
from sidecar.cli.lookup import maybe_stored
from sidecar.cli.names import complete_model
from sidecar.cli.options import Since, commands, one_of
from sidecar.cli.readiness import Readiness, readiness
from sidecar.cli.session import Session, with_store
from sidecar.cli.validate import Files
from sidecar.config import allow_list
from sidecar.model.context import Context
from sidecar.model.policy import Policy
from sidecar.policy.plan import Change, Move, Plan, plan
from sidecar.policy.problem import PolicyError
from sidecar.runtime.clock import SystemClock
from sidecar.store.base import Store
from sidecar.store.snapshots import snapshot_of

MAX_SHOWN = 20  # moves; the rest is in --json

MAX_AT_S = 4_102_444_800.0  # the year 2100
MAX_DURATION_S = 7 * 86_400.0  # no request lasts a week
MAX_STANDS_FOR = 1e9  # requests of one worker between two samples

app = commands()


class FailOn(Enum):
    """What makes a plan fail: requests refused, versions over their limit, what cannot be told.

    One that can tell nothing of the requests that were sampled fails by each of these.
    """

    REFUSED = "refused"
    OVERLOAD = "overload"
    UNKNOWN = "unknown"


class LeftOut(msgspec.Struct, frozen=True):
    """How many contexts tell nothing: no contexts at all, or such as cannot be true."""

    unreadable: int = 0
    impossible: int = 0


class Planned(NamedTuple):
    """A plan of one model, the readiness that it goes by, and what it could not use."""

    plan: Plan
    readiness: Readiness
    left_out: LeftOut

    def as_json(self) -> dict[str, object]:
        """Return all of it, for programs."""
        return {
            **msgspec.to_builtins(self.plan),
            "refused": msgspec.to_builtins(self.plan.refused),
            "over": [one.version for one in self.plan.over],
            "readiness": msgspec.to_builtins(self.readiness),
            "left_out": msgspec.to_builtins(self.left_out),
        }

    def tell(self) -> None:
        """Print all of it, for people."""
        _print(self.plan)
        if self.plan.contexts:
            for line in self.readiness.in_words():
                output.say(line)
        unreadable, impossible = self.left_out.unreadable, self.left_out.impossible
        of = f"of {self.plan.model} left out:"
        if unreadable:
            output.warn(f"{output.counted(unreadable, 'context')} {of} not readable as such")
        if impossible:
            output.warn(
                f"{output.counted(impossible, 'context')} {of} of another model, or with a time, a "
                "duration or a weight that cannot be"
            )


@app.command("plan")
@with_store
async def plan_command(
    session: Session,
    file: Files,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this model; may be repeated.",
            metavar="MODEL",
            autocompletion=complete_model,
        ),
    ] = None,
    since: Since = None,
    fail_on: Annotated[
        list[FailOn] | None,
        typer.Option(
            parser=one_of(FailOn),
            help="Exit with 1 if this would be; may be repeated.",
            metavar="refused|overload|unknown",
            autocompletion=lambda: [one.value for one in FailOn],
        ),
    ] = None,
) -> None:
    """Tell who would get another version if documents were applied.

    It changes nothing. Requests that the sidecars have sampled are decided once by what the store
    holds now, and once with the documents in its place.
    """
    found = documents.read(file, allow_list(session.config))
    if found.problems:
        raise PolicyError(found.problems)
    wanted = [one for one in found.policies.values() if not model or one.model in model]
    _expect(model or (), wanted)
    from_s = 0.0 if since is None else SystemClock().now_s() - since
    plans = [await _planned(session.store, policy, from_s) for policy in wanted]
    if session.as_json:
        output.emit([one.as_json() for one in plans])
    else:
        for number, one in enumerate(plans):
            print("\n" if number else "", end="")
            one.tell()
    if any(_fails(one.plan, fail_on or ()) for one in plans):
        raise typer.Exit(1)


async def _planned(store: Store, wanted: Policy, from_s: float) -> Planned:
    stored = await maybe_stored(store, wanted.model)
    if stored is None:
        nobody = await snapshot_of(store, wanted, frozenset())
        return Planned(plan(wanted.model, (), nobody, nobody), Readiness(0), LeftOut())
    contexts, left_out = await _usable(store, wanted.model, from_s)
    tenants = frozenset(one.tenant for one in contexts)
    found = await readiness(store, stored.policy, wanted)
    before = await snapshot_of(store, stored.policy, tenants)
    after = await snapshot_of(store, wanted, tenants)
    unready = frozenset(found.unready)
    planned = plan(
        wanted.model,
        contexts,
        before.with_health(before.kills, unready),
        after.with_health(after.kills, unready - set(found.untold)),
    )
    return Planned(planned, found, left_out)


async def _usable(store: Store, model: str, from_s: float) -> tuple[list[Context], LeftOut]:
    """Return the contexts since `from_s` that can be true: anybody may have added them."""
    contexts: list[Context] = []
    unreadable = impossible = 0
    async for one in store.contexts(model):
        if one is None:
            unreadable += 1
        elif not _is_possible(one, model):
            impossible += 1
        elif one.at_s >= from_s:
            contexts.append(one)
    return contexts, LeftOut(unreadable, impossible)


def _is_possible(one: Context, model: str) -> bool:
    return (
        one.model == model
        and 0 <= one.at_s < MAX_AT_S
        and 0 <= one.duration_s < MAX_DURATION_S
        and 0 < one.stands_for < MAX_STANDS_FOR
    )


def _expect(models: Sequence[str], wanted: Sequence[Policy]) -> None:
    missing = set(models) - {one.model for one in wanted}
    if missing:
        msg = f"no document is of {', '.join(sorted(missing))}"
        raise typer.BadParameter(msg)


def _fails(found: Plan, causes: Sequence[FailOn]) -> bool:
    tells_nothing = found.unknown_contexts == found.contexts
    holds = {
        FailOn.REFUSED: bool(found.refused),
        FailOn.OVERLOAD: bool(found.over),
        FailOn.UNKNOWN: bool(found.unknown_contexts) or tells_nothing,
    }
    if causes and found.contexts and tells_nothing:
        return True
    return any(holds[cause] for cause in causes)


def _print(found: Plan) -> None:
    if not found.contexts:
        output.say(f"{found.model}: no request was sampled, so nothing can be told")
        return
    span = durations.spell(found.until_s - found.from_s)
    output.say(
        f"{found.model}: {output.counted(found.contexts, 'sampled request')} of about "
        f"{found.requests:,.0f}, at {output.counted(found.instances, 'sidecar')}, "
        f"in {span} until {durations.clock(found.until_s)}"
    )
    rows = [_row(one) for one in found.versions]
    output.table(("VERSION", "SHARE", "TENANTS", "AT A TIME", "LIMIT"), rows)
    if found.moves:
        _print_moves(found)
    elif found.unknown_contexts < found.contexts:
        part = _part(found.unknown_requests, found.requests)
        untold = f", but {part} of the requests cannot be told" if found.unknown else ""
        output.say(f"nobody moves{untold}")
    for warning in _warnings(found):
        output.warn(warning)


def _warnings(found: Plan) -> Iterator[str]:
    """Yield what is to be feared, and what the figures do not tell."""
    whole = found.requests
    for change in found.over:
        side = change.after
        yield (
            f"{change.version} would have about {side.concurrency:.1f} requests at a time, "
            f"over its max_concurrency of {side.max_concurrency}"
        )
    refused = found.refused
    if refused:
        part = _part(sum(move.requests for move in refused), whole)
        tenants = output.counted(len({move.tenant for move in refused}), "tenant")
        yield f"{part} of the requests, of {tenants}, would be refused"
    for one in found.unknown:
        yield (
            f"{_part(one.requests, whole)} of the requests cannot be told: they hang on "
            f"{one.attribute}, which no policy asked for when they came"
        )
    if found.decided_otherwise:
        yield (
            f"{_part(found.decided_otherwise, whole)} of the requests got another version when "
            "they came than the store's policy gives them now: by an earlier revision, or pins, "
            "kills or endpoints have changed"
        )


def _print_moves(found: Plan) -> None:
    print()
    rows = [_move_row(move, found.requests) for move in found.moves[:MAX_SHOWN]]
    output.table(("TENANT", "FROM", "TO", "REQUESTS", "WHY"), rows)
    if len(found.moves) > MAX_SHOWN:
        output.say(f"and {len(found.moves) - MAX_SHOWN:,} more: see --json")
    moved = _part(sum(move.requests for move in found.moves), found.requests)
    tenants = len({move.tenant for move in found.moves})
    output.say(f"\n{moved} of the requests move, of {output.counted(tenants, 'tenant')}")


def _row(change: Change) -> tuple[str, ...]:
    before, after = change.before, change.after
    limits = {str(side.max_concurrency or "-") for side in (before, after)}
    limit = f"{before.max_concurrency or '-'} -> {after.max_concurrency or '-'}"
    is_refused = not change.version
    return (
        change.version or "refused",
        f"{before.share:.1%} -> {after.share:.1%}",
        f"{before.tenants:,} -> {after.tenants:,}",
        "" if is_refused else f"{before.concurrency:.1f} -> {after.concurrency:.1f}",
        limit if len(limits) > 1 else limits.pop(),
    )


def _move_row(move: Move, whole: float) -> tuple[str, ...]:
    share = f"{move.requests:,.0f} ({_part(move.requests, whole)})"
    return (move.tenant, move.before or "refused", move.after or "refused", share, move.reason)


def _part(requests: float, whole: float) -> str:
    return f"{requests / whole:.1%}" if whole else "0.0%"
