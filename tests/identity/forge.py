"""How attack tokens are made: with real keys, each beside a twin that is good.

Nothing here uses the code under test.
"""

from __future__ import annotations

import hmac
import json
import time
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from msgspec.structs import replace

from tests.identity.minting import Signer, b64, encode, good_claims
from tests.identity.signers import hmac_signer, rsa_signer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.model.identity import JSON

    Maker = Callable[["Forge"], "Attack"]
    Change = Callable[[bytes], bytes]

TYPED_ISSUER = "https://typed.test"  # believed by the same keys, but its tokens have to say `typ`
OTHER_ISSUER = "https://other.test"  # believed by a key of its own
TYP = "at+jwt"
MAX_TOKEN_BYTES = 8 * 1024  # limits.token_bytes
STOLEN, FORMER = "stolen", "former"  # a `jti` that is revoked; a tenant whose older tokens are
HOUR_S = 3600
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2, 2.4.2
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493  # RFC 8032 section 5.1
ED25519_PRIME = 2**255 - 19
NUL, KELVIN, CYRILLIC_A, WIDE_A = "\x00", "\u212a", "\u0430", "\uff41"


class Attack(NamedTuple):
    """Two requests, and what the first must be answered; the second is to be served."""

    bad: bytes
    good: bytes
    code: str = "token-invalid"
    tenant: bytes = b"acme"  # of the good one


class Forge:
    """Keys of issuers that a sidecar believes, and those of a stranger."""

    def __init__(self) -> None:
        self.look_at_the_clock()
        self.rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.ec_key = ec.generate_private_key(ec.SECP256R1())
        self.ed_key = ed25519.Ed25519PrivateKey.generate()
        jwk: dict[str, JSON] = RSAAlgorithm.to_jwk(self.rsa_key.public_key(), as_dict=True)
        self.rsa = Signer("RS256", "rsa-1", self.sign_rsa, {**jwk, "kid": "rsa-1"})
        jwk = ECAlgorithm.to_jwk(self.ec_key.public_key(), as_dict=True)
        self.ec = Signer("ES256", "ec-1", self.sign_ec, {**jwk, "kid": "ec-1"})
        jwk = OKPAlgorithm.to_jwk(self.ed_key.public_key(), as_dict=True)
        self.ed = Signer("EdDSA", "ed-1", self.ed_key.sign, {**jwk, "kid": "ed-1"})
        self.hmac = hmac_signer()
        self.second = rsa_signer("rsa-2")
        self.other = rsa_signer("rsa-1")  # of OTHER_ISSUER, under an id that both use
        self.stranger = rsa_signer("rsa-1")

    def look_at_the_clock(self) -> None:
        """Mint from now on as of this moment: what shares a forge may take a minute."""
        self.now_s = int(time.time())  # noqa: TID251 -- the sidecar reads the same clock

    @property
    def trusted(self) -> list[dict[str, JSON]]:
        """The public keys of ISSUER and TYPED_ISSUER."""
        return [one.jwk for one in (self.rsa, self.second, self.ec, self.ed, self.hmac)]

    def sign_rsa(self, message: bytes, hashed: hashes.HashAlgorithm | None = None) -> bytes:
        """Sign as RS256 does, or by another hash."""
        return self.rsa_key.sign(message, padding.PKCS1v15(), hashed or hashes.SHA256())

    def sign_pss(self, message: bytes) -> bytes:
        """Sign as PS256 does."""
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        return self.rsa_key.sign(message, pss, hashes.SHA256())

    def sign_ec(self, message: bytes, hashed: hashes.HashAlgorithm | None = None) -> bytes:
        """Sign as ES256 does, or by another hash."""
        der = self.ec_key.sign(message, ec.ECDSA(hashed or hashes.SHA256()))
        return spelled(*utils.decode_dss_signature(der))

    def public(self, encoding: serialization.Encoding) -> bytes:
        """Return the public RSA key as anybody can have it."""
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.rsa_key.public_key().public_bytes(encoding, info)

    @property
    def modulus(self) -> bytes:
        """The modulus of the RSA key."""
        return self.rsa_key.public_key().public_numbers().n.to_bytes(256, "big")

    def claims(self, **changes: JSON) -> dict[str, JSON]:
        """Return claims that pass every check now; a change to None takes a claim away."""
        lives = {"exp": self.now_s + HOUR_S, "iat": self.now_s - 10}
        return good_claims(**{**lives, **changes})

    def text(self, **changes: JSON) -> bytes:
        """Return the same as bytes."""
        return encode(self.claims(**changes))


def spelled(r: int, s: int) -> bytes:
    """Spell an ECDSA signature as RFC 7518 section 3.4 has it."""
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def request(*lines: bytes, line: bytes = b"GET /infer HTTP/1.1", body: bytes = b"") -> bytes:
    """Return the bytes of a request with these header lines."""
    length = (b"Content-Length: %d" % len(body),) if body else ()
    return b"\r\n".join((line, b"Host: test", *lines, *length, b"", body))


def bearer(token: bytes, scheme: bytes = b"Bearer ") -> bytes:
    """Return a request that carries a token."""
    return request(b"Authorization: " + scheme + token)


def pair(bad: bytes, good: bytes, code: str = "token-invalid") -> Attack:
    """Return two tokens as requests."""
    return Attack(bearer(bad), bearer(good), code)


# --- ways to make an attack --------------------------------------------------------------------


def by_header(bad: dict[str, JSON], good: dict[str, JSON] | None = None) -> Maker:
    """Change members of a header; the signature is made anew, by the right key."""
    return lambda f: pair(f.rsa.mint(f.claims(), **bad), f.rsa.mint(f.claims(), **(good or {})))


def by_stranger(**header: JSON) -> Maker:
    """Let a stranger sign, under a header that speaks for its key."""

    def make(f: Forge) -> Attack:
        said = {"jwk": f.stranger.jwk} if header.get("jwk") else {}
        return pair(
            f.stranger.mint(f.claims(), **{**header, **said}),
            f.rsa.mint(f.claims(), **{**header, **said}),
        )

    return make


def by_claims(
    bad: Mapping[str, JSON], good: Mapping[str, JSON] | None = None, code: str = "token-invalid"
) -> Maker:
    """Change claims."""
    return lambda f: pair(f.rsa.mint(f.claims(**bad)), f.rsa.mint(f.claims(**(good or {}))), code)


def by_time(name: str, ahead_s: float, good_s: float, code: str = "token-invalid") -> Maker:
    """Set a claim to so many seconds from now."""
    return lambda f: pair(
        f.rsa.mint(f.claims(**{name: f.now_s + ahead_s})),
        f.rsa.mint(f.claims(**{name: f.now_s + good_s})),
        code,
    )


def by_number(name: str, value: bytes, code: str = "token-invalid") -> Maker:
    """Spell the number of a time in another way; by the right key."""

    def make(f: Forge) -> Attack:
        rest = f.text(**{name: None})[:-1]
        good_s = f.now_s + (HOUR_S if name == "exp" else -10)
        return pair(
            f.ed.mint(rest + b', "%b": %b}' % (name.encode(), value)),
            f.ed.mint(rest + b', "%b": %d}' % (name.encode(), good_s)),
            code,
        )

    return make


def by_text(change: Change, twin: Change = bytes) -> Maker:
    """Change the bytes of the claims; the signature is made anew."""
    return lambda f: pair(f.ed.mint(change(f.text())), f.ed.mint(twin(f.text())))


def by_head_text(change: Change) -> Maker:
    """Change the bytes of the header; the signature is made anew."""
    head = b'{"alg":"EdDSA","kid":"ed-1"}'
    return lambda f: pair(f.ed.mint_raw(change(head), f.text()), f.ed.mint_raw(head, f.text()))


def by_spelling(part: int, change: Change) -> Maker:
    """Change how a part is spelled in base64url; what is signed is signed as it is spelled."""

    def make(f: Forge) -> Attack:
        parts = f.rsa.mint(f.claims()).split(b".")
        good = b".".join(parts)
        parts[part] = change(parts[part])
        if part != 2:
            parts[2] = b64(f.rsa.sign(b".".join(parts[:2])))
        return pair(b".".join(parts), good)

    return make


def by_spare_bits(part: int) -> Maker:
    """Set bits of a last letter that no byte needs."""

    def make(f: Forge) -> Attack:
        texts = [b'{"alg":"RS256","kid":"rsa-1"}', f.text()]
        if part != 2:
            while len(texts[part]) % 3 != 1:
                texts[part] += b" "
        parts = [b64(text) for text in texts]
        good = b".".join([*parts, b64(f.rsa.sign(b".".join(parts)))])
        parts = good.split(b".")
        parts[part] = parts[part][:-1] + bytes([parts[part][-1] + 1])
        if part != 2:
            parts[2] = b64(f.rsa.sign(b".".join(parts[:2])))
        return pair(b".".join(parts), good)

    return make


def by_seal(kind: str, change: Callable[[bytes], bytes]) -> Maker:
    """Change the bytes of a signature."""

    def make(f: Forge) -> Attack:
        signer = {"RS256": f.rsa, "ES256": f.ec, "EdDSA": f.ed, "HS256": f.hmac}[kind]
        head, claims, _ = signer.mint(f.claims()).split(b".")
        message = head + b"." + claims
        seal = signer.sign(message)
        return pair(message + b"." + b64(change(seal)), message + b"." + b64(seal))

    return make


def by_token(change: Callable[[bytes, Forge], bytes]) -> Maker:
    """Change a whole token."""

    def make(f: Forge) -> Attack:
        good = f.rsa.mint(f.claims())
        return pair(change(good, f), good)

    return make


def by_request(bad: Callable[[bytes], bytes], code: str = "token-missing") -> Maker:
    """Bring a good token in another way than in the one field."""

    def make(f: Forge) -> Attack:
        token = f.rsa.mint(f.claims())
        return Attack(bad(token), bearer(token), code)

    return make


def by_secret(secret: Callable[[Forge], bytes], **header: JSON) -> Maker:
    """Sign by HMAC with something that is no secret, by the id of the RSA key unless told."""

    def make(f: Forge) -> Attack:
        key = secret(f)
        signer = Signer("HS256", "rsa-1", lambda m: hmac.digest(key, m, "sha256"), {})
        good = f.hmac if header else f.rsa
        return pair(signer.mint(f.claims(), **header), good.mint(f.claims(), **header))

    return make


def by_algorithm(kind: str, algorithm: str, sign: Callable[[Forge], Change]) -> Maker:
    """Use the right key by an algorithm that is not its own, and say so."""

    def make(f: Forge) -> Attack:
        good = f.rsa if kind == "RS256" else f.ec
        return pair(
            replace(good, sign=sign(f)).mint(f.claims(), alg=algorithm), good.mint(f.claims())
        )

    return make


def unsigned(algorithm: str) -> Maker:
    """Say that nothing is signed."""

    def make(f: Forge) -> Attack:
        silent = replace(f.rsa, sign=lambda _: b"")
        return pair(silent.mint(f.claims(), alg=algorithm), f.rsa.mint(f.claims()))

    return make


def by_type(typ: JSON) -> Maker:
    """Say another `typ` to an issuer whose tokens must have one."""
    return lambda f: pair(
        f.rsa.mint(f.claims(iss=TYPED_ISSUER), typ=typ),
        f.rsa.mint(f.claims(iss=TYPED_ISSUER), typ="application/AT+JWT"),
    )


# --- parts of attacks ---


def as_encrypted(_: bytes, f: Forge) -> bytes:
    """Look like a JWE in compact form (RFC 7516 section 3.1)."""
    header = b64(b'{"alg":"RSA-OAEP","enc":"A256GCM","kid":"rsa-1"}')
    return b".".join((header, b64(bytes(256)), b64(bytes(12)), b64(f.text()), b64(bytes(16))))


def as_json(token: bytes, *, is_general: bool) -> bytes:
    """Spell a token in JSON (RFC 7515 section 7.2)."""
    header, claims, seal = (part.decode() for part in token.split(b"."))
    one: dict[str, JSON] = {"protected": header, "signature": seal}
    whole: dict[str, JSON] = {"signatures": [one]} if is_general else one
    return json.dumps({"payload": claims, **whole}, separators=(",", ":")).encode()


def overlong(_: bytes, f: Forge) -> bytes:
    """Sign a token of one byte more than there may be."""
    return sized(f, MAX_TOKEN_BYTES + 1)


def sized(f: Forge, size: int) -> bytes:
    """Sign a token of so many bytes."""
    # Both texts can only grow by 4/3: what one cannot hit, the other does.
    for spaces in range(4):
        head = b'{"alg":"EdDSA","kid":"ed-1"' + b" " * spaces + b"}"
        room = size - len(b64(head)) - len(b64(bytes(64))) - 2
        text = f.text()
        text += b" " * (room * 3 // 4 - len(text))
        token = f.ed.mint_raw(head, text)
        if len(token) == size:
            return token
    raise AssertionError(size)


def halves(seal: bytes) -> tuple[int, int]:
    """Return r and s of an ECDSA signature."""
    return int.from_bytes(seal[:32], "big"), int.from_bytes(seal[32:], "big")


def higher(seal: bytes) -> bytes:
    """Add the group's order to S: the same S to who does not look (RFC 8032 section 5.1.7)."""
    s = int.from_bytes(seal[32:], "little") + ED25519_ORDER
    return seal[:32] + s.to_bytes(32, "little")


def with_point(y: int) -> Callable[[bytes], bytes]:
    """Put a point of small order in place of R, and zero in place of S."""
    return lambda _: y.to_bytes(32, "little") + bytes(32)
