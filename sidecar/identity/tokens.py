"""Signed tokens to callers: every check a JWT passes before anything in it is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.errors import Code, ConfigError
from sidecar.identity.claims import read_identity
from sidecar.identity.compact import decode_any_object, decode_base64url, decode_object
from sidecar.identity.refusal import TokenRefused

if TYPE_CHECKING:
    from sidecar.identity.claims import ClaimNames
    from sidecar.identity.jwk import Verifying
    from sidecar.identity.keys import Key, KeySet
    from sidecar.model.identity import JSON, Identity

__all__ = ["TokenRefused", "Verifier"]

MAX_HEADERS: Final = 64  # remembered; one for each key and type of token
MAX_SECONDS: Final = 2**53  # above, a float no longer tells two seconds apart


class Verifier:
    """Turns tokens into callers by one key set.

    It believes tokens of `issuer` for `audience`, give or take `leeway_s` seconds, and reads the
    caller from `claims`. With `typ` it believes those alone whose header says that they are of this
    type: `at+jwt` for access tokens (RFC 9068 section 4). Raises ConfigError for an empty issuer
    or audience, which would match tokens that say nothing.
    """

    def __init__(
        self,
        keys: KeySet,
        issuer: str,
        audience: str,
        claims: ClaimNames,
        leeway_s: float,
        typ: str = "",
    ) -> None:
        if not issuer:
            raise ConfigError("identity.issuer: must not be empty")
        if not audience:
            raise ConfigError("identity.audience: must not be empty")
        self.keys = keys
        self.issuer = issuer
        self.audience = audience
        self.claims = claims
        self.leeway_s = leeway_s
        self.typ = typ
        self._media_type = media_type(typ)
        # Tokens of one key have one header; only those that it has signed get in.
        self._headers: dict[bytes, Verifying] = {}

    def verify(self, token: bytes, now_s: float) -> Identity:
        """Return the caller that `token` (a JWS in compact form, RFC 7519) speaks for.

        `now_s` is epoch seconds. The identity's `expires_at_s` is the token's `exp` plus the
        leeway: the first moment at which this method would refuse the token. Raises TokenRefused.
        """
        parts = token.split(b".")
        if len(parts) != 3:  # noqa: PLR2004 -- header, claims, signature
            raise _invalid("the token is not made of three parts")
        head, body, seal = parts
        known = self._headers.get(head)
        key = self._key(_object(head, "header")).verifying if known is None else known
        try:
            signature = decode_base64url(seal)
        except ValueError:
            raise _invalid("the token's signature is not base64url") from None
        if not key.verify(token[: -len(seal) - 1], signature):
            raise _invalid("the token's signature is wrong")
        if known is None:
            self._accept(head, key)
        claims = _object(body, "claims", is_signed=True)
        expires_at_s = self._check_registered(claims, now_s)
        issued_s = _seconds(claims, "iat") if "iat" in claims else 0.0
        return read_identity(
            claims, self.claims, expires_at_s, issued_s=issued_s, issuer=self.issuer
        )

    def _accept(self, head: bytes, key: Verifying) -> None:
        """Take a header of a token that its key has signed; it is not looked at again."""
        _object(head, "header", is_signed=True)
        if len(self._headers) < MAX_HEADERS:
            self._headers[head] = key

    def _key(self, header: dict[str, JSON]) -> Key:
        """Find the key by what an unverified header says; keys inside the header are not read."""
        # `crit` names extensions that must be understood (RFC 7515 section 4.1.11); `b64` changes
        # what is signed (RFC 7797).
        if "crit" in header or "b64" in header:
            raise _invalid("the token's header has extensions that are not supported")
        algorithm = header.get("alg")
        kid = header.get("kid")
        if not isinstance(algorithm, str) or not isinstance(kid, str | None):
            raise _invalid("the token's header names no algorithm, or no key, by a string")
        typ = header.get("typ", "")
        if not isinstance(typ, str) or (self._media_type and media_type(typ) != self._media_type):
            raise _invalid("the token is not of the type that is believed (typ)")
        key = self.keys.find(algorithm, kid)
        if key is None:
            # Not final: the key may be one that is only about to be published.
            raise TokenRefused(
                Code.TOKEN_INVALID,
                self.keys.why_not(kid) or "no known key verifies tokens of this header",
                is_final=False,
                awaits_key=kid is not None and not self.keys.knows(kid),
            )
        return key

    def _check_registered(self, claims: dict[str, JSON], now_s: float) -> float:
        """Check `iss`, `aud` and the times (RFC 7519 section 4.1); return when the token ends."""
        if claims.get("iss") != self.issuer:
            raise _invalid("the token is not of the trusted issuer (iss)")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if self.audience not in audiences or not all(isinstance(one, str) for one in audiences):
            raise _invalid("the token is not for this audience (aud)")
        expires_at_s = _seconds(claims, "exp") + self.leeway_s
        if now_s >= expires_at_s:
            raise TokenRefused(Code.TOKEN_EXPIRED, "the token has expired")
        for name in ("nbf", "iat"):
            if name in claims and _seconds(claims, name) > now_s + self.leeway_s:
                detail = f"the token is not valid yet ({name})"
                raise TokenRefused(Code.TOKEN_INVALID, detail, is_final=False)
        return expires_at_s


def media_type(typ: str) -> str:
    """Spell a `typ` in full: `application/` may be left out, and case does not matter.

    RFC 7515 section 4.1.9, RFC 2045 section 5.1. Empty for what is empty or no media type.
    """
    if not typ.isascii():
        return ""  # some letters are ASCII once they are lower case
    full = typ.lower()
    return full if "/" in full or not full else f"application/{full}"


def _object(part: bytes, name: str, *, is_signed: bool = False) -> dict[str, JSON]:
    """Decode a part; for repeated members it is searched only once somebody known has signed it."""
    try:
        raw = decode_base64url(part)
        return decode_object(raw) if is_signed else decode_any_object(raw)
    except ValueError:
        # Without the cause's text, which may hold bytes of the token.
        raise _invalid(f"the token's {name} is not a JSON object in base64url") from None


def _seconds(claims: dict[str, JSON], name: str) -> float:
    value = claims.get(name)
    # JSON's true is an int to Python. Each type apart: compiled, their union would be a float.
    if isinstance(value, int):
        if not isinstance(value, bool) and -MAX_SECONDS <= value <= MAX_SECONDS:
            return float(value)
    elif isinstance(value, float) and abs(value) <= MAX_SECONDS:
        return value
    if name not in claims:
        raise _invalid(f"the token has no {name}")
    raise _invalid(f"the token's {name} is not a time in seconds")


def _invalid(detail: str) -> TokenRefused:
    return TokenRefused(Code.TOKEN_INVALID, detail)
