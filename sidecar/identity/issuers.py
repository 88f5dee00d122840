"""The issuers whose tokens are believed, each with its own keys, audience and names of claims.

What a token says of its issuer chooses whose keys verify it, and nothing else: before that no word
of it is believed, and afterwards the one chosen checks that the token is its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import Code
from sidecar.identity.claims import ClaimNames
from sidecar.identity.compact import decode_any_object, decode_base64url
from sidecar.identity.keys import KeySet, load_jwks
from sidecar.identity.refusal import TokenRefused
from sidecar.identity.tokens import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sidecar.identity.holding import Holding
    from sidecar.model.identity import Identity
    from sidecar.model.issuer import IdentitySettings


def verifier_of(settings: IdentitySettings, keys: KeySet) -> Verifier:
    """Return what verifies the tokens of an issuer by these keys."""
    names = ClaimNames(
        tenant=settings.tenant_claim,
        subject=settings.subject_claim,
        app=settings.app_claim,
        scope=settings.scope_claim,
        segments=settings.segments_claim,
        grants=settings.grants_claim,
        needs_grants=settings.grants_required,
    )
    return Verifier(
        keys, settings.issuer, settings.audience, names, settings.leeway_s, settings.typ
    )


class Issuers:
    """Verifies tokens of several issuers by the keys that `take` was told of.

    `ask` is called with the name of an issuer when one of its tokens names a key that nobody
    knows, and not again for it before `take` has told that it was looked for.
    """

    def __init__(
        self,
        trusted: Sequence[IdentitySettings],
        ask: Callable[[str], None],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._standings = {settings.issuer: _Standing(settings) for settings in trusted}
        self._only = next(iter(self._standings.values())) if len(trusted) == 1 else None
        self._ask = ask
        self._monotonic_s = monotonic_s

    def verify(self, token: bytes, now_s: float) -> Identity:
        """Return the caller that a token speaks for; raises TokenRefused.

        That it names an unknown key which is looked for now is told by `TokenRefused.awaits`.
        """
        standing = self._only or self._named(token)
        verifier = standing.verifier
        if verifier is None:
            # The token may be good: nobody here can tell.
            detail = "the keys of the token's issuer cannot be had"
            raise TokenRefused(Code.NOT_READY, detail, is_final=False)
        try:
            return verifier.verify(token, now_s)
        except TokenRefused as refused:
            if refused.awaits_key and self._may_come(standing, token):
                refused.awaits = standing.issuer
            raise

    def take(self, holdings: Sequence[Holding]) -> tuple[bool, list[str]]:
        """Learn what keys there are; return whether they are others, and who was looked at."""
        is_changed = False
        settled: list[str] = []
        for holding in holdings:
            standing = self._standings[holding.issuer]
            is_changed |= standing.take(holding)
            standing.rests_until_s = self._monotonic_s() + holding.rests_s
            if standing.settled != holding.settled:
                standing.settled = holding.settled
                standing.is_asked = False
                settled.append(holding.issuer)
        return is_changed, settled

    def lacking(self) -> str:
        """Return why tokens cannot be verified, or an empty text.

        One issuer that cannot be reached must not take those of others out of service: only its
        first keys are waited for.
        """
        standings = self._standings.values()
        missing = [one.issuer for one in standings if one.verifier is None and not one.is_closed]
        if not missing and all(one.verifier is None for one in standings):
            missing = [one.issuer for one in standings]
        return f"no keys of {', '.join(missing)}" if missing else ""

    def _named(self, token: bytes) -> _Standing:
        standing = self._standings.get(issuer_of(token))
        if standing is None:
            detail = "the token names no issuer that is trusted (iss)"
            raise TokenRefused(Code.TOKEN_INVALID, detail)
        return standing

    def _may_come(self, standing: _Standing, token: bytes) -> bool:
        """Return whether an unknown key is looked for now, and have it looked for."""
        if self._monotonic_s() < standing.rests_until_s or issuer_of(token) != standing.issuer:
            return False
        if not standing.is_asked:
            standing.is_asked = True
            self._ask(standing.issuer)
        return True


class _Standing:
    """One issuer, and how it stands with its keys."""

    def __init__(self, settings: IdentitySettings) -> None:
        self.issuer = settings.issuer
        self.verifier: Verifier | None = None
        self.is_closed = False
        self.is_asked = False
        self.settled = 0
        self.rests_until_s = float("-inf")
        self._settings = settings
        self._told: tuple[str, dict[str, str]] = "", {}  # what `verifier` was made of

    def take(self, holding: Holding) -> bool:
        """Take keys; return whether they are others than before."""
        self.is_closed = holding.is_closed
        told = holding.jwks, holding.left_out
        if told == self._told:
            return False
        self._told = told
        self.verifier = self._verifier(holding) if holding.jwks else None
        return True

    def _verifier(self, holding: Holding) -> Verifier:
        loaded = load_jwks(holding.jwks.encode(), self._settings.algorithms)
        return verifier_of(self._settings, KeySet(loaded.keys, left_out=holding.left_out))


def issuer_of(token: bytes) -> str:
    """Return whose a token says it is, unverified; empty if that cannot be read."""
    parts = token.split(b".", 2)
    try:
        issuer = decode_any_object(decode_base64url(parts[1])).get("iss")
    except (IndexError, ValueError):
        return ""
    return issuer if isinstance(issuer, str) else ""
