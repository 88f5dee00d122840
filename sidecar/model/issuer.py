"""Whose tokens are believed, and where their keys are."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Algorithm = Literal["RS256", "ES256", "EdDSA", "HS256"]


class KeyFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A public key in PEM, the id that tokens name it by, and what it must be for, if that is said.

    Without `kid` it verifies tokens that name no key.
    """

    file: str
    kid: str = ""
    algorithm: Algorithm | None = None


class IdentitySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """An issuer whose tokens are believed, where its keys are, and which claims say who calls.

    Keys come from one of `jwks_file`, `jwks_url`, `discovery` and `keys`. Claim names may be
    paths: `org.tenant` is member `tenant` of claim `org`.
    """

    issuer: str
    audience: str
    jwks_file: str = ""
    jwks_url: str = ""
    discovery: bool = False  # by OpenID Connect: `<issuer>/.well-known/openid-configuration`
    keys: tuple[KeyFile, ...] = ()
    ca_file: str = ""  # PEM, of who vouches for the URLs; empty: whom the system trusts
    keys_refresh_s: Annotated[float, Meta(ge=1, le=86_400)] = 300.0  # between two fetches
    keys_max_age_s: Annotated[float, Meta(ge=1, le=2_592_000)] = 86_400.0  # without a good one
    keys_of_other_use: Literal["refuse", "skip"] = "refuse"  # a set with keys to encrypt with, say
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
    tenant_claim: str = "tenant"
    subject_claim: str = "sub"
    app_claim: str = "azp"
    scope_claim: str = "scope"
    segments_claim: str = ""  # empty: not read
    grants_claim: str = ""
    grants_required: bool = False  # no token without that claim is believed
    typ: str = ""  # what tokens have to be by their header, such as `at+jwt`; empty: anything
    leeway_s: Annotated[float, Meta(ge=0, le=300)] = 30.0
