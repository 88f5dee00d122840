"""Who calls: what a verified token says, and nothing that a client can merely claim."""

from __future__ import annotations

from msgspec import Struct

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]


class Identity(Struct, frozen=True, gc=False):
    """A caller. `expires_at_s` is epoch seconds; the identity is void from then on."""

    tenant: str
    subject: str = ""
    app: str = ""
    scopes: tuple[str, ...] = ()
    claims: dict[str, JSON] = {}
    expires_at_s: float = float("inf")


ANONYMOUS = Identity(tenant="")
