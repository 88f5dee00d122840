"""`rmv revoke`, `rmv unrevoke`, `rmv revocations`: tokens that are not believed any more."""

from __future__ import annotations

import math
import sys
from enum import Enum
from typing import Annotated

import typer

from sidecar.cli import durations, output
from sidecar.cli.failure import advised
from sidecar.cli.lookup import NotFoundError
from sidecar.cli.options import Before, Ttl, commands, one_of
from sidecar.cli.session import Session, with_store
from sidecar.identity.compact import decode_any_object, decode_base64url
from sidecar.runtime.clock import SystemClock

LONG_S = 10 * 366 * 86_400.0  # a token that lives longer is revoked for good
MAX_LEEWAY_S = 300.0  # `identity.leeway_s` is no more: so long a token may be believed past `exp`


class What(Enum):
    """What is named: one token, by its id or as it is, or a tenant whose older ones are meant."""

    JTI = "jti"
    TOKEN = "token"  # noqa: S105 -- a word
    TENANT = "tenant"


Kind = Annotated[
    What,
    typer.Argument(
        parser=one_of(What),
        metavar="jti|token|tenant",
        help="One token, by its jti or as it is, or all older of a tenant.",
    ),
]
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The claim jti, the token (- reads it from stdin) or the tenant."
    ),
]
Reason = Annotated[str, typer.Option(help="Of one token: why; kept beside its jti.")]

app = commands()


@app.command("revoke")
@with_store
async def revoke(
    session: Session,
    kind: Kind,
    name: Name,
    before: Before = None,
    reason: Reason = "",
    ttl: Ttl = None,
) -> None:
    """Take a token back, or all that a tenant was given before.

    In force in every sidecar within 100 ms, for tokens already known too. Give --ttl the time that
    the token has left: past it nobody believes it anyway. Of a token as it is that is known.
    """
    if kind is What.TOKEN:
        name, left_s = _read(name)
        ttl = ttl or left_s
    term = f" for {durations.spell(ttl)}" if ttl else ""
    if kind is not What.TENANT:
        _refuse(before is not None, "--before is for tenants: this is one token")
        await session.store.set_revoked(name, reason, ttl_s=ttl)
        told: dict[str, object] = {"jti": name, "reason": reason, "ttl_s": ttl}
        words = f"the token {name} is revoked{term}{f': {reason}' if reason else ''}"
    else:
        _refuse(bool(reason), "--reason is for one token: a tenant's key holds the moment")
        # Up to the next second: `iat` has whole ones, and a token of this one may be the thief's.
        before_s = float(math.ceil(SystemClock().now_s() if before is None else before))
        await session.store.set_cutoff(name, before_s, ttl_s=ttl)
        told = {"tenant": name, "before_s": before_s, "ttl_s": ttl}
        words = f"tokens of {name} from before {durations.clock(before_s)} are revoked{term}"
    if session.as_json:
        output.emit(told)
        return
    output.say(words)


@app.command("unrevoke")
@with_store
async def unrevoke(session: Session, kind: Kind, name: Name) -> None:
    """Believe a token, or a tenant's older ones, again."""
    if kind is What.TOKEN:
        kind, name = What.JTI, _read(name)[0]
    if kind is What.JTI:
        was_revoked = await session.store.delete_revoked(name)
        words = f"the token {name} is believed again"
    else:
        was_revoked = await session.store.delete_cutoff(name)
        words = f"tokens of {name} are believed again, however old"
    if not was_revoked:
        error = NotFoundError(f"the {kind.value} {name} is not revoked")
        raise advised(error, "`rmv revocations` lists what is.")
    if session.as_json:
        output.emit({kind.value: name, "revoked": False})
        return
    output.say(words)


@app.command("revocations")
@with_store
async def revocations(session: Session) -> None:
    """List what is revoked: tenants first, then tokens."""
    tenants = await session.store.cutoffs()
    tokens = sorted([one async for one in session.store.revoked()], key=lambda one: one.jti)
    if session.as_json:
        output.emit({"tenants": tenants, "tokens": tokens})
        return
    rows = [
        (
            What.TENANT.value,
            one.tenant,
            one.fault or f"from before {durations.clock(one.before_s or 0.0)}",
            _ends_in(one.ttl_s),
        )
        for one in tenants
    ]
    rows += [
        (What.JTI.value, one.jti, one.fault or one.reason, _ends_in(one.ttl_s)) for one in tokens
    ]
    output.table(("KIND", "NAME", "WHAT", "ENDS IN"), rows)


def _read(token: str) -> tuple[str, float | None]:
    """Return the id of a token, unverified, and for how long it may still be believed."""
    text = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105 -- no secret
    try:
        claims = decode_any_object(decode_base64url(text.split(".")[1].encode()))
    except (IndexError, ValueError):
        msg = "this is no token: three parts with dots between them"
        raise typer.BadParameter(msg) from None
    jti, ends_s = claims.get("jti"), claims.get("exp")
    if not isinstance(jti, str) or not jti:
        error = NotFoundError("the token has no jti to be named by")
        raise advised(error, "`rmv revoke tenant` takes back all that its tenant has.")
    if isinstance(ends_s, bool) or not isinstance(ends_s, int | float):
        return jti, None
    left_s = ends_s + MAX_LEEWAY_S - SystemClock().now_s()
    if left_s <= 0:
        raise NotFoundError(f"the token {jti} has expired: nobody believes it")
    return jti, left_s if left_s < LONG_S else None


def _refuse(is_wrong: bool, why: str) -> None:
    if is_wrong:
        raise typer.BadParameter(why)


def _ends_in(ttl_s: float | None) -> str:
    return durations.spell(ttl_s) if ttl_s else ""
