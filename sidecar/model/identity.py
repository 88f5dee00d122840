"""Who calls: what a verified token says, and nothing that a client can merely claim."""

from __future__ import annotations

from msgspec import Struct

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]


class Identity(Struct, frozen=True, gc=False):
    """A caller, and what its token says of itself.

    `expires_at_s` is epoch seconds; the identity is void from then on. `issued_s` is when the
    token was made, 0.0 where it does not say. `grants` are the versions that the token is for, by
    model: names, `label:<label>` or semver ranges; None is a token that leaves it to the policies.
    """

    tenant: str
    subject: str = ""
    app: str = ""
    scopes: tuple[str, ...] = ()
    claims: dict[str, JSON] = {}
    expires_at_s: float = float("inf")
    jti: str = ""
    issued_s: float = 0.0
    segments: tuple[str, ...] = ()
    grants: dict[str, tuple[str, ...]] | None = None
    issuer: str = ""


MAX_JTI_CHARS = 512  # it stands in a Redis key; issuers use UUIDs and the like
MAX_TENANT_CHARS = 128  # it stands in a header, in Redis keys and in metric labels
NO_TENANT_CLAIMED = (
    f"X-Tenant is empty, or not printable ASCII of at most {MAX_TENANT_CHARS} characters"
)


def is_tenant(text: str) -> bool:
    """Return whether a caller can be of this tenant: printable ASCII without outer blanks."""
    return (
        0 < len(text) <= MAX_TENANT_CHARS
        and text.isascii()
        and text.isprintable()
        and text == text.strip()
    )


ANONYMOUS = Identity(tenant="")
