"""Which claims say who calls, and what they must look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from sidecar.errors import Code
from sidecar.identity.refusal import TokenRefused
from sidecar.model.identity import MAX_TENANT_CHARS, Identity, is_tenant

if TYPE_CHECKING:
    from sidecar.model.identity import JSON


class ClaimNames(Struct, frozen=True):
    """Where the claims are: a claim's whole name, or a path (`org.tenant`: member of claim `org`).

    An empty name means that the claim is not read.
    """

    tenant: str = "tenant"
    subject: str = "sub"
    app: str = "azp"
    scope: str = "scope"


def read_identity(claims: dict[str, JSON], names: ClaimNames, expires_at_s: float) -> Identity:
    """Return the caller that verified `claims` speak of; raise TokenRefused.

    An absent or null subject, app or scope is empty; the tenant has to be there.
    """
    return Identity(
        tenant=_tenant(find(claims, names.tenant), names.tenant),
        subject=_text(find(claims, names.subject), names.subject),
        app=_text(find(claims, names.app), names.app),
        scopes=_scopes(find(claims, names.scope), names.scope),
        claims=claims,
        expires_at_s=expires_at_s,
    )


def find(claims: dict[str, JSON], name: str) -> JSON:
    """Return the value of claim `name`, or None; a claim of that whole name comes before a path."""
    # Namespaced claims are URLs, full of dots: https://example.com/tenant.
    if name in claims:
        return claims[name]
    value: JSON = claims
    for member in name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(member)
    return value


def _tenant(value: JSON, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise TokenRefused(Code.TENANT_DENIED, f"the token has no tenant in claim '{name}'")
    # It goes into an HTTP header: outer spaces would be lost there, and with them the difference
    # between two tenants (RFC 9110 section 5.5).
    if not is_tenant(value):
        detail = f"claim '{name}' is not printable ASCII of at most {MAX_TENANT_CHARS} characters"
        raise TokenRefused(Code.TENANT_DENIED, detail)
    return value


def _text(value: JSON, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TokenRefused(Code.TOKEN_INVALID, f"claim '{name}' is not a string")
    return value


def _scopes(value: JSON, name: str) -> tuple[str, ...]:
    """Read both spellings: words in one string (RFC 8693 section 4.2), or a list."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(scope for scope in value.split(" ") if scope)
    scopes = [scope for scope in value if isinstance(scope, str)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(scopes) != len(value):
        raise TokenRefused(Code.TOKEN_INVALID, f"claim '{name}' is neither a string nor strings")
    return tuple(scopes)
