"""What the admin API is sent: bodies of JSON, each member and its limits."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from sidecar.admin.problems import Refusal, RefusedError
from sidecar.model.identity import MAX_TENANT_CHARS, is_tenant
from sidecar.model.policy import Name

T = TypeVar("T")

TtlS = Annotated[float, Meta(ge=1, le=315_360_000)]  # ten years
Words = Annotated[str, Meta(min_length=1, max_length=1000)]


class PinBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Hold a tenant to a version or label, for `ttl_s` seconds when given."""

    version: Name
    ttl_s: TtlS | None = None


class KillBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Switch off, and why: everybody who looks is told."""

    reason: Words
    ttl_s: TtlS | None = None


class RollbackBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Commit again what this revision said."""

    revision: Annotated[int, Meta(ge=1)]
    comment: Annotated[str, Meta(max_length=1000)] = ""


class RevokeBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Take one token back, for `ttl_s` seconds when given: as long as it would last."""

    reason: Annotated[str, Meta(max_length=1000)] = ""
    ttl_s: TtlS | None = None


class CutoffBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Take back what a tenant was given before a moment (epoch seconds; none: now)."""

    before_s: Annotated[float, Meta(ge=0, le=32_503_680_000)] | None = None  # the year 3000
    ttl_s: TtlS | None = None


class ExplainBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A request, as it is described; `not_ready` are versions taken for unhealthy."""

    tenant: Annotated[str, Meta(max_length=MAX_TENANT_CHARS)] = ""
    subject: str = ""
    app: str = ""
    scopes: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    claims: dict[str, object] = {}
    grants: dict[str, tuple[str, ...]] | None = None
    method: Annotated[str, Meta(pattern=r"^[A-Za-z]{1,32}$")] = "POST"
    path: Annotated[str, Meta(pattern=r"^/[!-~]*$", max_length=8192)] = "/"
    headers: dict[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$")],
        Annotated[str, Meta(pattern=r"^[\t -~]*$", max_length=8192)],
    ] = {}
    asked_version: Name | None = None
    at_s: Annotated[float, Meta(ge=0, le=4_102_444_800)] | None = None  # the year 2100
    not_ready: tuple[Name, ...] = ()


def decode(raw: bytes, kind: type[T]) -> T:
    """Return a body as `kind`; raises RefusedError that names the member and the reason."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise RefusedError(Refusal.INVALID, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(Refusal.MALFORMED_REQUEST, f"the body is no JSON: {error}") from error
    except RecursionError as error:
        raise RefusedError(Refusal.MALFORMED_REQUEST, "the body is nested too deeply") from error


def expect_line(text: str, name: str) -> str:
    """Return a text of one printable line; raises RefusedError for any other."""
    if text != text.strip() or not all(map(str.isprintable, text)):
        detail = f"{name} is one line of printable characters, without blanks around it"
        raise RefusedError(Refusal.INVALID, detail)
    return text


def expect_tenant(text: str) -> str:
    """Return a name that a tenant can have; raises RefusedError for any other."""
    if not is_tenant(text):
        detail = (
            "no token can have this tenant: it is printable ASCII, without blanks around it, "
            f"at most {MAX_TENANT_CHARS} characters"
        )
        raise RefusedError(Refusal.INVALID, detail)
    return text
