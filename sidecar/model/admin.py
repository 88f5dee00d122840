"""Who may do what on the admin listener, and how much of it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Final, Literal

from msgspec import Meta, Struct, structs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Role = Literal["viewer", "operator", "admin"]

RANKS: Final[dict[Role, int]] = {"viewer": 0, "operator": 1, "admin": 2}
"""Each role may do what those before it may."""

AdminName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
"""Whose a credential is: it stands in histories and in audit."""


class AdminToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A bearer token that is believed: the hash of it, in hexadecimal, never itself."""

    name: AdminName
    role: Role
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class AdminCertificate(Struct, frozen=True, forbid_unknown_fields=True):
    """A client certificate that is believed: who signed it is `admin_tls.client_ca_file`'s matter.

    Exactly one of `cn`, the only common name of its subject, and `san`, one of its alternative
    names as `URI:spiffe://example/ops`, `DNS:ops.example` or `email:ops@example`.
    """

    name: AdminName
    role: Role
    cn: str = ""
    san: str = ""


class AdminSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the admin listener takes requests; `hosts` are names that its clients may call it by.

    `redis` is the store as the API visits it, with the rights of an operator; empty: as the sidecar
    does.
    """

    redis: str = ""
    metrics: Literal["open", "loopback", "viewer"] = "open"
    hosts: tuple[Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,253}$")], ...] = ()
    timeout_s: Annotated[float, Meta(ge=0.1, le=300)] = 10.0  # of a request, and for its head
    connections: Annotated[int, Meta(ge=4, le=100_000)] = 256
    failures: Annotated[int, Meta(ge=1, le=1000)] = 10  # of one peer in a minute; of all ten times


Credential = AdminToken | AdminCertificate


def credential_changes(
    before: Sequence[Credential], after: Sequence[Credential]
) -> dict[str, list[str]]:
    """Return what became of credentials, by whose they are: `added`, `removed` and `changed`.

    Told are names, roles and kinds; of what proves them only that it is another.
    """
    old, new = ({one.name: one for one in ones} for ones in (before, after))
    changed = [
        _change(one, new[name])
        for name, one in sorted(old.items())
        if name in new and new[name] != one
    ]
    told = {
        "added": [_told(one) for name, one in sorted(new.items()) if name not in old],
        "removed": [_told(one) for name, one in sorted(old.items()) if name not in new],
        "changed": changed,
    }
    return {what: ones for what, ones in told.items() if ones}


def _told(one: Credential) -> str:
    return f"{one.name} ({one.role}, {_kind(one)})"


def _kind(one: Credential) -> str:
    return "token" if isinstance(one, AdminToken) else "certificate"


def _change(old: Credential, new: Credential) -> str:
    changes = [] if old.role == new.role else [f"{old.role} -> {new.role}"]
    if structs.replace(old, role=new.role) != new:
        changes.append(f"another {_kind(new)}")
    return f"{new.name}: {', '.join(changes)}"


_SAN: Final = re.compile(r"(URI|DNS|email):\S+")


def credential_faults(
    tokens: Sequence[AdminToken], certificates: Sequence[AdminCertificate]
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with credentials that are each well-formed: setting, reason."""
    names = Counter([*(one.name for one in tokens), *(one.name for one in certificates)])
    hashes = Counter(one.sha256 for one in tokens)
    meant = Counter((one.cn, one.san) for one in certificates)
    for n, token in enumerate(tokens):
        if names[token.name] > 1:
            yield f"admin_tokens[{n}].name", f"`{token.name}` is somebody else, too"
        if hashes[token.sha256] > 1:
            yield f"admin_tokens[{n}].sha256", "is another's, too: nobody could tell them apart"
    for n, one in enumerate(certificates):
        at = f"admin_certificates[{n}]"
        if names[one.name] > 1:
            yield f"{at}.name", f"`{one.name}` is somebody else, too"
        if meant[one.cn, one.san] > 1:
            yield at, "these certificates are somebody else's, too"
        yield from ((at + path, why) for path, why in _meaning_faults(one))


def _meaning_faults(one: AdminCertificate) -> Iterator[tuple[str, str]]:
    if bool(one.cn) == bool(one.san):
        yield "", "set one of cn and san: which certificates are meant"
    if one.san and not _SAN.fullmatch(one.san):
        yield ".san", f"`{one.san}`: write URI:, DNS: or email: and the name"
