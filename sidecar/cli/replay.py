"""`rmv replay`: a recorded sample of requests, sent again to a version."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sidecar.cli import output
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError, policy_of, version_named
from sidecar.cli.options import Timeout, commands
from sidecar.cli.session import Session, failing_with, with_store
from sidecar.cli.targets import split
from sidecar.config import Config, allow_list
from sidecar.controller.replaying import Replay, Replayed
from sidecar.errors import ConfigError, SidecarError
from sidecar.model.comparison import Comparison
from sidecar.model.policy import Policy
from sidecar.model.shadow import Evidence
from sidecar.runtime.clock import SystemClock
from sidecar.shadow.compare import compile_rules
from sidecar.upstream.tls import TlsContext

TIMEOUT_S = 30.0
RATE = 10.0
PROGRESS_S = 1.0
MAX_SHOWN = 20  # of what differs; --json has all
TROUBLE = 2
DIFFERS = 1  # exit status, also where something could not be sent
app = commands()


class ReplayError(SidecarError):
    """A file cannot be replayed."""


class Line(msgspec.Struct, omit_defaults=True):
    """What is told of one request: `is_same` as the client got, `is_same_as_shadow` as the shadow.

    Both are None where it could not be compared.
    """

    request_id: str
    status: int | None = None
    took_s: float | None = None
    is_same: bool | None = None
    is_same_as_shadow: bool | None = None
    fields: tuple[str, ...] = ()
    failure: str = ""


@app.command("replay")
@failing_with(TROUBLE)
@with_store
async def replay(
    session: Session,
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `rmv shadow export` wrote; `-` is stdin.")
    ],
    against: Annotated[str, typer.Option(help="The version that gets them.", metavar="VERSION")],
    rate: Annotated[float, typer.Option(min=0.01, max=10_000, help="Requests a second.")] = RATE,
    limit: Annotated[int | None, typer.Option(min=1, help="No more than so many.")] = None,
    timeout_s: Timeout = None,
) -> None:
    """Send recorded requests to a version, and compare answers.

    They are compared with the recorded ones. Requests go straight to the version's endpoints, one
    at a time, whatever their method: a version with side effects has them again. Exits with 1
    unless all agree with what the client got, and with 2 where nothing was sent.
    """
    recorded = _read(file)[:limit]
    policy = await policy_of(session.store, recorded[0].model)
    version = version_named(policy, _version(against, policy.model))
    _expect_allowed(policy, version, session.config)
    comparison = _comparison(policy, recorded[0].version, version)
    tls = TlsContext(session.config.upstream_tls).current(SystemClock().monotonic_s())
    told: list[Line] = []
    sender = Replay(
        policy,
        version,
        compile_rules(comparison),
        timeout_s=TIMEOUT_S if timeout_s is None else timeout_s,
        max_body_bytes=comparison.max_body_bytes,
        tls=tls,
        allowed=allow_list(session.config),
    )
    async with sender:
        async for line in _paced(sender, recorded, rate):
            told.append(line)
            if session.as_json:
                output.emit_line(line)
    if not session.as_json:
        _summarise(told, policy.model, version)
    if not all(line.is_same for line in told):
        raise typer.Exit(DIFFERS)


def _version(against: str, model: str) -> str:
    """Return what `--against` names, which may be spelled with the model of the requests."""
    named, version = split(against)
    if version and named != model:
        msg = f"`{against}` is of another model than the requests: they are of {model}"
        raise typer.BadParameter(msg, param_hint="--against")
    return version or named


async def _paced(sender: Replay, recorded: Sequence[Evidence], rate: float) -> AsyncIterator[Line]:
    """Send at most `rate` a second, and say on stderr how far it is."""
    clock = asyncio.get_running_loop().time
    began_s = due_s = said_s = clock()
    for number, evidence in enumerate(recorded, 1):
        await asyncio.sleep(due_s - clock())
        due_s = max(due_s + 1 / rate, clock())
        yield _line(await sender.send(evidence))
        if clock() - said_s >= PROGRESS_S and number < len(recorded):
            said_s = clock()
            left_s = (said_s - began_s) / number * (len(recorded) - number)
            output.note(f"{number:,} of {len(recorded):,} sent, about {left_s:.0f} s left")


def _line(replayed: Replayed) -> Line:
    request_id, answer = replayed.evidence.request_id, replayed.answer
    outcome, shadow = replayed.outcome, replayed.against_shadow
    if answer is None or outcome is None or shadow is None:
        return Line(request_id, failure=replayed.failure)
    status, took_s = answer.status, answer.duration_s
    if outcome.uncompared is not None:
        why = f"its answer cannot be compared: {outcome.uncompared.value}"
        return Line(request_id, status, took_s, failure=why)
    return Line(
        request_id,
        status,
        took_s,
        outcome.agrees,
        None if shadow.uncompared is not None else shadow.agrees,
        outcome.fields,
    )


def _summarise(told: Sequence[Line], model: str, version: str) -> None:
    same = sum(line.is_same is True for line in told)
    failed = [line for line in told if line.is_same is None]
    differs = [line for line in told if line.is_same is False]
    output.say(
        f"{len(told):,} requests to {model}:{version}: {same:,} answered as the client got it, "
        f"{len(differs):,} otherwise ({_like_shadow(differs):,} of these as the shadow did then), "
        f"{len(failed):,} not to be compared"
    )
    causes = Counter(line.failure for line in failed)
    for cause, number in causes.most_common(MAX_SHOWN):
        output.say(f"  {number:,}: {cause}")
    if differs:
        rows = [
            (line.request_id, str(line.status or ""), ", ".join(line.fields))
            for line in differs[:MAX_SHOWN]
        ]
        output.table(("REQUEST", "STATUS", "DIFFERS IN"), rows)
    if len(differs) > MAX_SHOWN:
        output.say(f"and {len(differs) - MAX_SHOWN:,} more: --json has all")


def _like_shadow(differs: Sequence[Line]) -> int:
    return sum(line.is_same_as_shadow is True for line in differs)


def _comparison(policy: Policy, *versions: str) -> Comparison:
    """Return how the policy compares the first of `versions` that is a shadow, else the usual way.

    First is the one that the recorded answers were compared with.
    """
    compared = {
        policy.labels.get(shadow.version, shadow.version): shadow.compare
        for shadow in policy.shadows
    }
    found = (compared.get(version) for version in versions)
    return next((one for one in found if one is not None), Comparison())


def _expect_allowed(policy: Policy, version: str, config: Config) -> None:
    allowed = allow_list(config)
    for url in policy.versions[version].endpoints:
        if (why := allowed.fault(url)) is not None:
            msg = f"{policy.model}:{version}: {url}: {why}"
            raise ConfigError(msg)


def _read(file: Path) -> list[Evidence]:
    """Return the recorded requests of a file, all of one model; raises ReplayError."""
    recorded = list(_lines(file))
    if not recorded:
        error = ReplayError(f"{file}: nothing is recorded in it")
        raise advised(error, "`rmv shadow export MODEL@VERSION` writes such a file.")
    models = sorted({one.model for one in recorded})
    if len(models) > 1:
        raise ReplayError(f"{file}: of several models: {', '.join(models)}")
    return recorded


def _lines(file: Path) -> Iterator[Evidence]:
    decode = msgspec.json.Decoder(Evidence).decode
    name = "standard input" if str(file) == "-" else str(file)
    try:
        with (Path("/dev/stdin") if str(file) == "-" else file).open("rb") as opened:
            for number, line in enumerate(opened, 1):
                if not line.strip():
                    continue
                try:
                    yield decode(line)
                except (msgspec.DecodeError, RecursionError) as error:
                    raise ReplayError(f"{name}:{number}: no recorded request: {error}") from error
    except OSError as error:
        raise NotFoundError(f"{name}: {error.strerror}") from error
