"""Which claims say who calls, and what they must look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sidecar.errors import Code
from sidecar.identity.refusal import TokenRefused
from sidecar.model.identity import MAX_JTI_CHARS, MAX_TENANT_CHARS, Identity, is_tenant
from sidecar.policy import grant

if TYPE_CHECKING:
    from sidecar.model.identity import JSON


class ClaimNames(NamedTuple):
    """Where the claims are: a claim's whole name, or a path (`org.tenant`: member of claim `org`).

    An empty name means that the claim is not read. With `needs_grants` a token has to have grants.
    """

    tenant: str = "tenant"
    subject: str = "sub"
    app: str = "azp"
    scope: str = "scope"
    segments: str = ""
    grants: str = ""
    needs_grants: bool = False


def read_identity(
    claims: dict[str, JSON],
    names: ClaimNames,
    expires_at_s: float,
    *,
    issued_s: float = 0.0,
    issuer: str = "",
) -> Identity:
    """Return the caller that verified `claims` speak of; raise TokenRefused.

    An absent or null subject, app, scope, segment list or `jti` is empty, and absent or null
    grants are none; the tenant has to be there, and grants where they are needed.
    """
    return Identity(
        tenant=_tenant(find(claims, names.tenant), names.tenant),
        subject=_text(find(claims, names.subject), names.subject),
        app=_text(find(claims, names.app), names.app),
        scopes=_words(find(claims, names.scope), names.scope),
        claims=claims,
        expires_at_s=expires_at_s,
        jti=_jti(claims.get("jti")),
        issued_s=issued_s,
        segments=_words(find(claims, names.segments), names.segments),
        grants=_grants(find(claims, names.grants), names),
        issuer=issuer,
    )


def find(claims: dict[str, JSON], name: str) -> JSON:
    """Return the value of claim `name`, or None; a claim of that whole name comes before a path."""
    if not name:
        return None
    # Namespaced claims are URLs, full of dots: https://example.com/tenant.
    if name in claims:
        return claims[name]
    if "." not in name:
        return None
    value: JSON = claims
    for member in name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(member)
    return value


def _tenant(value: JSON, name: str) -> str:
    if value is None or value == "":
        raise TokenRefused(Code.TENANT_DENIED, f"the token has no tenant in claim '{name}'")
    if not isinstance(value, str):
        raise TokenRefused(Code.TENANT_DENIED, f"claim '{name}' is not a string")
    # It goes into an HTTP header: outer spaces would be lost there, and with them the difference
    # between two tenants (RFC 9110 section 5.5).
    if not is_tenant(value):
        detail = (
            f"claim '{name}' can be no tenant: one is printable ASCII without outer blanks, "
            f"at most {MAX_TENANT_CHARS} characters"
        )
        raise TokenRefused(Code.TENANT_DENIED, detail)
    return value


def _text(value: JSON, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TokenRefused(Code.TOKEN_INVALID, f"claim '{name}' is not a string")
    return value


def _words(value: JSON, name: str) -> tuple[str, ...]:
    """Read both spellings: words in one string (RFC 8693 section 4.2), or a list."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple([word for word in value.split(" ") if word])
    words = _strings(value)
    if words is None:
        raise TokenRefused(Code.TOKEN_INVALID, f"claim '{name}' is neither a string nor strings")
    return words


def _grants(value: JSON, names: ClaimNames) -> dict[str, tuple[str, ...]] | None:
    name = names.grants
    if value is None:
        if names.needs_grants:
            raise TokenRefused(Code.TENANT_DENIED, f"the token has no grants in claim '{name}'")
        return None
    # What cannot be read is not read as no grants at all: that would give the caller everything.
    fault = TokenRefused(Code.TOKEN_INVALID, f"claim '{name}' is not an object of lists of strings")
    if not isinstance(value, dict):
        raise fault
    granted: dict[str, tuple[str, ...]] = {}
    for model, versions in value.items():
        words = _strings(versions)
        if words is None:
            raise fault
        granted[model] = words
    try:
        for words in granted.values():
            grant.read(words)
    except ValueError:
        detail = f"claim '{name}' has a grant that is no version, label or range"
        raise TokenRefused(Code.TOKEN_INVALID, detail) from None
    return granted


def _jti(value: JSON) -> str:
    text = _text(value, "jti")
    if len(text) > MAX_JTI_CHARS:
        # It could not be revoked: no key in the store is that long.
        detail = f"claim 'jti' is longer than {MAX_JTI_CHARS} characters"
        raise TokenRefused(Code.TOKEN_INVALID, detail)
    return text


def _strings(value: JSON) -> tuple[str, ...] | None:
    """Return a list of strings as a tuple, None for anything else."""
    if not isinstance(value, list):
        return None
    strings = [one for one in value if isinstance(one, str)]
    return tuple(strings) if len(strings) == len(value) else None
