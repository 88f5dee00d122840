"""Attack tokens, each beside a twin that differs from it in the attacked point alone.

What RFC 8725 warns of and what the cases of Wycheproof for JWS are about; nothing is copied from
either. All are made at run time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import utils
from msgspec.structs import replace

from tests.identity.forge import (
    CYRILLIC_A,
    ED25519_PRIME,
    FORMER,
    HOUR_S,
    KELVIN,
    MAX_TOKEN_BYTES,
    NUL,
    OTHER_ISSUER,
    P256_ORDER,
    STOLEN,
    TYP,
    WIDE_A,
    as_encrypted,
    as_json,
    bearer,
    by_algorithm,
    by_claims,
    by_head_text,
    by_header,
    by_number,
    by_request,
    by_seal,
    by_secret,
    by_spare_bits,
    by_spelling,
    by_stranger,
    by_text,
    by_time,
    by_token,
    by_type,
    halves,
    higher,
    overlong,
    pair,
    request,
    sized,
    spelled,
    unsigned,
    with_point,
)
from tests.identity.minting import AUDIENCE, ISSUER, b64, encode

if TYPE_CHECKING:
    from sidecar.model.identity import JSON
    from tests.identity.forge import Maker


# --- none, and other algorithms: RFC 8725 sections 2.1 and 3.1 ---------------------------------

ATTACKS: dict[str, Maker] = {}
for _none in ("none", "None", "NONE", "nOnE", "none ", "", "null", "n\u043ene"):
    ATTACKS[f"alg {_none!r}, no signature"] = unsigned(_none)
ATTACKS |= {
    "alg none, a good signature": by_header({"alg": "none"}),
    "no alg": lambda f: pair(
        f.rsa.mint_raw(b'{"kid":"rsa-1"}', f.text()),
        f.rsa.mint_raw(b'{"kid":"rsa-1","alg":"RS256"}', f.text()),
    ),
    "alg null": by_header({"alg": None}),
    "alg a list": by_header({"alg": ["RS256"]}),
    "alg a number": by_header({"alg": 256}),
    "alg in lower case": by_header({"alg": "rs256"}),
    "alg with a NUL": by_header({"alg": "RS256\x00"}),
    "HS256 by the public key in PEM": by_secret(lambda f: f.public(serialization.Encoding.PEM)),
    "HS256 by the public key in PEM, without its last line end": by_secret(
        lambda f: f.public(serialization.Encoding.PEM).strip()
    ),
    "HS256 by the public key in DER": by_secret(lambda f: f.public(serialization.Encoding.DER)),
    "HS256 by the public key as a JWK": by_secret(lambda f: encode(f.rsa.jwk)),
    "HS256 by the modulus": by_secret(lambda f: str(f.rsa.jwk["n"]).encode()),
    "HS256 by nothing": by_secret(lambda _: b""),
    "HS256 by nothing, of the secret's id": by_secret(lambda _: b"", kid="hmac-1"),
    "HS256 by the public key, of the secret's id": by_secret(
        lambda f: f.public(serialization.Encoding.PEM), kid="hmac-1"
    ),
    "HS256 by the secret, of the RSA key's id": lambda f: pair(
        f.hmac.mint(f.claims(), kid="rsa-1"), f.hmac.mint(f.claims())
    ),
    "RS256 said, HS256 made": lambda f: pair(
        replace(
            f.rsa, sign=lambda m: hmac.digest(f.public(serialization.Encoding.PEM), m, "sha256")
        ).mint(f.claims()),
        f.rsa.mint(f.claims()),
    ),
    "PS256": by_algorithm("RS256", "PS256", lambda f: f.sign_pss),
    "RS512": by_algorithm("RS256", "RS512", lambda f: lambda m: f.sign_rsa(m, hashes.SHA512())),
    "RS384": by_algorithm("RS256", "RS384", lambda f: lambda m: f.sign_rsa(m, hashes.SHA384())),
    "ES384": by_algorithm("ES256", "ES384", lambda f: lambda m: f.sign_ec(m, hashes.SHA384())),
    "ES256K": by_algorithm("ES256", "ES256K", lambda f: f.sign_ec),
    "RS256 said, PS256 made": by_algorithm("RS256", "RS256", lambda f: f.sign_pss),
    "RS256 said, RS512 made": by_algorithm(
        "RS256", "RS256", lambda f: lambda m: f.sign_rsa(m, hashes.SHA512())
    ),
    "ES256 said, over SHA-512": by_algorithm(
        "ES256", "ES256", lambda f: lambda m: f.sign_ec(m, hashes.SHA512())
    ),
    "an RSA key's id, signed by the EC key": lambda f: pair(
        f.ec.mint(f.claims(), kid="rsa-1"), f.ec.mint(f.claims())
    ),
    "an EC key's id, signed by the Ed25519 key": lambda f: pair(
        f.ed.mint(f.claims(), kid="ec-1"), f.ed.mint(f.claims())
    ),
    "another key's id, of the same kind": lambda f: pair(
        f.rsa.mint(f.claims(), kid="rsa-2"), f.second.mint(f.claims())
    ),
    "no id where two keys may be meant": lambda f: pair(
        f.rsa.mint_raw(b'{"alg":"RS256"}', f.text()),
        f.rsa.mint_raw(b'{"alg":"RS256","kid":"rsa-1"}', f.text()),
    ),
}

# --- what a header says of its key: sections 3.10, 2.8 -----------------------------------------

ATTACKS |= {
    "jwk in the header": by_stranger(jwk=True),
    "jwk in the header, under an id of its own": lambda f: pair(
        f.stranger.mint(f.claims(), jwk={**f.stranger.jwk, "kid": "mine"}, kid="mine"),
        f.rsa.mint(f.claims(), jwk={**f.stranger.jwk, "kid": "mine"}),
    ),
    "jku": by_stranger(jku="http://127.0.0.1:1/keys"),
    "jku of the issuer's host": by_stranger(jku=f"{ISSUER}@127.0.0.1/keys"),
    "x5u": by_stranger(x5u="file:///dev/stdin"),
    "x5c": by_stranger(x5c=["AAAA"]),
    "x5t": by_stranger(**{"x5t": "AAAA", "x5t#S256": "AAAA"}),
    "crit": by_header({"crit": ["exp"], "exp": 1}, {"exp": 1}),
    "crit that is empty": by_header({"crit": []}),
    "crit of what is understood": by_header({"crit": ["alg"]}),
    "b64 false": by_header({"b64": False, "crit": ["b64"]}),
    "b64 false, not said to be critical": by_header({"b64": False}),
    "b64 true": by_header({"b64": True}),
    "zip": by_token(lambda _, f: f.rsa.mint(b"\x78\x9c" + f.text(), zip="DEF")),
    "typ a number": by_header({"typ": 7}),
}
KIDS: tuple[JSON, ...] = (
    "../../../../dev/null",
    "/dev/null",
    "file:///dev/null",
    "rsa-1' OR '1'='1",
    "x' UNION SELECT 'key'--",
    "rsa-1; sleep 9",
    "$(id)",
    "rsa-1\x00",
    "rsa-1 ",
    "RSA-1",
    "rsa\u20101",
    "",
    "http://127.0.0.1:1/key",
    "x" * 5000,
    1,
    True,
    ["rsa-1"],
    {"kid": "rsa-1"},
)
for _kid in KIDS:
    ATTACKS[f"kid {str(_kid)[:30]!r} {type(_kid).__name__}"] = by_header({"kid": _kid})

# --- one reading of every byte: section 2.4, 3.7 -----------------------------------------------

ATTACKS |= {
    "a claim repeated": by_text(lambda t: t[:-1] + b', "tenant": "globex"}'),
    "a claim repeated, before": by_text(lambda t: b'{"tenant": "globex", ' + t[1:]),
    "a claim repeated, with an escape": by_text(lambda t: t[:-1] + b', "t\\u0065nant": "globex"}'),
    "exp repeated": by_text(lambda t: t[:-1] + b', "exp": 99999999999}'),
    "a member repeated deep in a claim": by_text(
        lambda t: t[:-1] + b', "x": [{"a": {"b": 1, "b": 2}}]}',
        lambda t: t[:-1] + b', "x": [{"a": {"b": 1, "c": 2}}]}',
    ),
    "alg repeated": by_head_text(lambda t: t[:-1] + b',"alg":"EdDSA"}'),
    "alg repeated, with an escape": by_head_text(lambda t: t[:-1] + b',"\\u0061lg":"none"}'),
    "kid repeated": by_head_text(lambda t: b'{"kid":"x",' + t[1:]),
    "a NUL in a text": by_text(lambda t: t.replace(b"ada", b"ada\x00")),
    "NaN": by_text(lambda t: t[:-1] + b', "x": NaN}', lambda t: t[:-1] + b', "x": 0}'),
    "Infinity": by_text(lambda t: t[:-1] + b', "x": Infinity}', lambda t: t[:-1] + b', "x": 1}'),
    "-Infinity": by_text(lambda t: t[:-1] + b', "x": -Infinity}', lambda t: t[:-1] + b', "x": -1}'),
    "a leading zero": by_text(lambda t: t[:-1] + b', "x": 01}', lambda t: t[:-1] + b', "x": 1}'),
    "a comma too many": by_text(lambda t: t[:-1] + b",}"),
    "a comment": by_text(lambda t: b"{/*x*/" + t[1:]),
    "single quotes": by_text(lambda t: t.replace(b'"', b"'")),
    "a byte order mark": by_text(lambda t: b"\xef\xbb\xbf" + t),
    "a byte order mark before the header": by_head_text(lambda t: b"\xef\xbb\xbf" + t),
    "UTF-16": by_text(lambda t: t.decode().encode("utf-16")),
    "UTF-16 without a mark": by_text(lambda t: t.decode().encode("utf-16-le")),
    "UTF-32": by_text(lambda t: t.decode().encode("utf-32")),
    "a byte that is no UTF-8": by_text(lambda t: t.replace(b"ada", b"ad\xff")),
    "an overlong letter": by_text(lambda t: t.replace(b"ada", b"ad\xc1\xa1")),
    "a lone surrogate": by_text(
        lambda t: t.replace(b"ada", b"ad\\ud800"), lambda t: t.replace(b"ada", b"ad\\ud83d\\ude00")
    ),
    "a raw line end in a text": by_text(lambda t: t.replace(b"ada", b"a\nda")),
    "something after the object": by_text(lambda t: t + b"{}", lambda t: t + b" \n"),
    "an object that is cut": by_text(lambda t: t[:-1]),
    "a list around the claims": by_text(lambda t: b"[" + t + b"]"),
    "claims that are a text": by_text(lambda t: json.dumps(t.decode()).encode()),
    "claims that are null": by_text(lambda _: b"null"),
    "claims that are nothing": by_text(lambda _: b""),
    "a header that is nothing": by_head_text(lambda _: b""),
    "a header that is a list": by_head_text(lambda t: b"[" + t + b"]"),
    "deep nesting": by_text(
        lambda t: t[:-1] + b', "x": ' + b"[" * 2500 + b"]" * 2500 + b"}",
        lambda t: t[:-1] + b', "x": ' + b"[" * 25 + b"]" * 25 + b"}",
    ),
    "deep nesting in the header": by_head_text(
        lambda t: t[:-1] + b', "x": ' + b"[" * 2500 + b"]" * 2500 + b"}"
    ),
}
for _part, _name in enumerate(("header", "claims", "signature")):
    ATTACKS |= {
        f"padding: {_name}": by_spelling(_part, lambda t: t + b"="),
        f"more padding than is due: {_name}": by_spelling(_part, lambda t: t + b"==="),
        f"a space: {_name}": by_spelling(_part, lambda t: t[:9] + b" " + t[9:]),
        f"a tab: {_name}": by_spelling(_part, lambda t: t[:9] + b"\t" + t[9:]),
        f"another alphabet: {_name}": by_spelling(_part, lambda t: t[:8] + b"+/+/" + t[12:]),
        f"a letter of no alphabet: {_name}": by_spelling(_part, lambda t: t[:9] + b"*" + t[9:]),
        f"a percent escape: {_name}": by_spelling(_part, lambda t: t[:9] + b"%41" + t[10:]),
        f"a byte past ASCII: {_name}": by_spelling(_part, lambda t: t[:9] + b"\xe9" + t[9:]),
        f"one letter more: {_name}": by_spelling(_part, lambda t: t + b"A"),
        f"spare bits: {_name}": by_spare_bits(_part),
    }

# --- the parts ---------------------------------------------------------------------------------

ATTACKS |= {
    "an empty signature": by_token(lambda t, _: t.rpartition(b".")[0] + b"."),
    "no signature": by_token(lambda t, _: t.rpartition(b".")[0]),
    "an empty header": by_token(lambda t, _: b"." + t.partition(b".")[2]),
    "empty claims": by_token(lambda t, _: b"..".join(t.split(b".")[::2])),
    "dots alone": by_token(lambda *_: b".."),
    "a fourth part": by_token(lambda t, _: t + b".AAAA"),
    "an empty fourth part": by_token(lambda t, _: t + b"."),
    "five parts": by_token(as_encrypted),
    "JSON, flattened": by_token(lambda t, _: as_json(t, is_general=False)),
    "JSON, general": by_token(lambda t, _: as_json(t, is_general=True)),
    "a token in a token": by_token(lambda t, f: f.rsa.mint(t, cty="JWT")),
    "a token in a text in a token": by_token(
        lambda t, f: f.rsa.mint(json.dumps(t.decode()).encode(), cty="JWT")
    ),
    "parts in another order": by_token(lambda t, _: b".".join(t.split(b".")[::-1])),
    "claims of another token": by_token(
        lambda t, f: b".".join((t.split(b".")[0], b64(f.text(tenant="globex")), t.split(b".")[2]))
    ),
    "a header of another token": by_token(
        lambda t, f: f.ec.mint(f.claims()).split(b".")[0] + b"." + t.partition(b".")[2]
    ),
    "two tokens": by_token(lambda t, _: t + b" " + t),
    "two tokens with a comma": by_token(lambda t, _: t + b"," + t),
    "quotes": by_token(lambda t, _: b'"' + t + b'"'),
    "8 KiB and a byte": lambda f: pair(overlong(b"", f), sized(f, MAX_TOKEN_BYTES)),
}

# --- signatures: section 3.2, 3.3 --------------------------------------------------------------

for _kind, _bytes in (("RS256", 256), ("ES256", 64), ("EdDSA", 64), ("HS256", 32)):
    ATTACKS |= {
        f"{_kind}: a signature of zeros": by_seal(_kind, lambda s: bytes(len(s))),
        f"{_kind}: a signature of ones": by_seal(_kind, lambda s: b"\xff" * len(s)),
        f"{_kind}: a byte short": by_seal(_kind, lambda s: s[:-1]),
        f"{_kind}: a byte long": by_seal(_kind, lambda s: s + b"\x00"),
        f"{_kind}: a zero before": by_seal(_kind, lambda s: b"\x00" + s),
        f"{_kind}: half": by_seal(_kind, lambda s: s[: len(s) // 2]),
        f"{_kind}: a bit flipped": by_seal(_kind, lambda s: s[:-1] + bytes([s[-1] ^ 1])),
        f"{_kind}: the first bit flipped": by_seal(_kind, lambda s: bytes([s[0] ^ 128]) + s[1:]),
        f"{_kind}: in hexadecimal": by_seal(_kind, lambda s: s.hex().encode()),
    }

ATTACKS |= {
    "ES256: r is zero": by_seal("ES256", lambda s: bytes(32) + s[32:]),
    "ES256: s is zero": by_seal("ES256", lambda s: s[:32] + bytes(32)),
    "ES256: r is the order": by_seal("ES256", lambda s: spelled(P256_ORDER, halves(s)[1])),
    "ES256: s is the order": by_seal("ES256", lambda s: spelled(halves(s)[0], P256_ORDER)),
    "ES256: both are one": by_seal("ES256", lambda _: spelled(1, 1)),
    "ES256: r and s change places": by_seal("ES256", lambda s: s[32:] + s[:32]),
    "ES256: in DER": by_seal("ES256", lambda s: utils.encode_dss_signature(*halves(s))),
    "ES256: halves of 48 bytes": by_seal(
        "ES256", lambda s: bytes(16) + s[:32] + bytes(16) + s[32:]
    ),
    "EdDSA: S past the order": by_seal("EdDSA", higher),
    "EdDSA: R of order one": by_seal("EdDSA", with_point(1)),
    "EdDSA: R of order two": by_seal("EdDSA", with_point(ED25519_PRIME - 1)),
    "EdDSA: R of order four": by_seal("EdDSA", with_point(0)),
    "EdDSA: R that is spelled past the prime": by_seal("EdDSA", with_point(ED25519_PRIME + 1)),
    "EdDSA: over the hash of the message": lambda f: pair(
        replace(f.ed, sign=lambda m: f.ed_key.sign(hashlib.sha512(m).digest())).mint(f.claims()),
        f.ed.mint(f.claims()),
    ),
    "RS256: of a stranger": by_stranger(),
    "RS256: the modulus": lambda f: pair(
        replace(f.rsa, sign=lambda _: f.modulus).mint(f.claims()), f.rsa.mint(f.claims())
    ),
    "RS256: the signature of another token": lambda f: pair(
        b".".join(
            (
                *f.rsa.mint(f.claims()).split(b".")[:2],
                f.rsa.mint(f.claims(sub="bob")).split(b".")[2],
            )
        ),
        f.rsa.mint(f.claims()),
    ),
}

# --- whose, for whom, and when: sections 3.8, 3.9 ----------------------------------------------

ISSUERS: tuple[JSON, ...] = (
    None, "", ISSUER + "/", ISSUER.upper(), ISSUER.replace("https", "http"), ISSUER[:-1],
    f"{ISSUER}.evil.test", f" {ISSUER}", ISSUER + NUL, [ISSUER], {"iss": ISSUER}, True,
)  # fmt: skip
for _issuer in ISSUERS:
    ATTACKS[f"iss {_issuer!r}"] = by_claims({"iss": _issuer})
AUDIENCES: tuple[JSON, ...] = (
    None, "", [], AUDIENCE + "/", AUDIENCE.upper(), AUDIENCE[:-1], f"{AUDIENCE} other",
    f"{AUDIENCE},other", ["other"], [AUDIENCE, 7], [AUDIENCE, None], [[AUDIENCE]],
    {AUDIENCE: True}, True,
)  # fmt: skip
for _audience in AUDIENCES:
    ATTACKS[f"aud {_audience!r}"] = by_claims(
        {"aud": _audience},
        {"aud": [AUDIENCE, "other"]} if isinstance(_audience, list) else {},
    )
for _member, _values in {
    "exp": (b"null", b'"%d"' % 99999999999, b"true", b"[99999999999]", b"{}", b"1e400", b"9" * 400),
    "nbf": (b'"0"', b"true", b"-1e400", b"[0]", b"1e400"),
    "iat": (b'"0"', b"false", b"-1e400", b"{}", b"9" * 40),
}.items():
    for _value in _values:
        ATTACKS[f"{_member} {_value[:20].decode()}"] = by_number(_member, _value)
ATTACKS |= {
    "exp missing": by_claims({"exp": None}),
    "exp an hour ago": by_time("exp", -HOUR_S, HOUR_S, "token-expired"),
    "exp past the leeway": by_time("exp", -45, -5, "token-expired"),
    "exp zero": by_number("exp", b"0", "token-expired"),
    "exp negative": by_number("exp", b"-1", "token-expired"),
    "exp in milliseconds of the past": by_time("exp", -1e9, 1e9, "token-expired"),
    "nbf ahead": by_time("nbf", HOUR_S, 5),
    "iat ahead": by_time("iat", HOUR_S, 5),
    "a key of another issuer": lambda f: pair(
        f.other.mint(f.claims()), f.other.mint(f.claims(iss=OTHER_ISSUER))
    ),
    "an issuer that has another key": lambda f: pair(
        f.rsa.mint(f.claims(iss=OTHER_ISSUER)), f.rsa.mint(f.claims())
    ),
    "an issuer that is not known": lambda f: pair(
        f.rsa.mint(f.claims(iss="https://evil.test")), f.rsa.mint(f.claims())
    ),
    "iss in the header alone": lambda f: pair(
        f.rsa.mint(f.claims(iss=None), iss=ISSUER), f.rsa.mint(f.claims(), iss=ISSUER)
    ),
    "revoked": by_claims({"jti": STOLEN}, {"jti": f"{STOLEN}."}),
    "a jti that is a number": by_claims({"jti": 7}, {"jti": "7"}),
    "a jti that is too long to be revoked": by_claims({"jti": "x" * 513}, {"jti": "x" * 512}),
    "issued before a cut-off": lambda f: pair(
        f.rsa.mint(f.claims(tenant=FORMER, iat=f.now_s - 2 * HOUR_S)),
        f.rsa.mint(f.claims(tenant=FORMER)),
    )._replace(tenant=FORMER.encode()),
    "not said when issued, of a tenant with a cut-off": lambda f: pair(
        f.rsa.mint(f.claims(tenant=FORMER, iat=None)), f.rsa.mint(f.claims(tenant=FORMER))
    )._replace(tenant=FORMER.encode()),
}
# --- of one kind, and of one tenant: sections 3.11, 3.12 ---------------------------------------

TYPES: tuple[JSON, ...] = (
    None, "", "JWT", "at", "id+jwt", "at+jwt ", "at+jwt;v=1", "text/at+jwt", ["at+jwt"],
)  # fmt: skip
for _typ in TYPES:
    ATTACKS[f"typ {_typ!r} where {TYP} is wanted"] = by_type(_typ)
TENANTS: tuple[JSON, ...] = (
    None, "", 7, True, ["acme"], {"id": "acme"}, "acme\r\nX-Tenant: globex", "acme\n", "ac\tme",
    "\x7facme", "acme" + NUL, " acme", "acme ", CYRILLIC_A + "cme", WIDE_A + "cme",
    "acme\u200b", KELVIN, "\u202eemca", "a" * 129,
)  # fmt: skip
for _tenant in TENANTS:
    ATTACKS[f"tenant {str(_tenant)[:20]!r} {type(_tenant).__name__}"] = by_claims(
        {"tenant": _tenant}, code="tenant-denied"
    )
ATTACKS |= {
    "tenant under a name in another case": lambda f: pair(
        f.rsa.mint(f.claims(tenant=None, Tenant="acme")),
        f.rsa.mint(f.claims(Tenant="acme")),
        "tenant-denied",
    ),
    "a subject that is a number": by_claims({"sub": 7}, {"sub": "7"}),
    "an app that is a list": by_claims({"azp": ["console"]}),
    "a scope that is an object": by_claims({"scope": {"read": True}}),
    "a scope with a number": by_claims({"scope": ["read", 7]}, {"scope": ["read", "7"]}),
    "segments that are an object": by_claims({"segments": {"a": 1}}, {"segments": ["a"]}),
    "grants that are a list": by_claims({"models": ["v1"]}, {"models": {"m": ["v1"]}}),
    "a grant that is a text": by_claims({"models": {"m": "v1"}}, {"models": {"m": ["v1"]}}),
    "a grant that is a number": by_claims({"models": {"m": [1]}}, {"models": {"m": ["v1"]}}),
}

# --- how it is brought: RFC 6750 section 2, RFC 9110 section 11 --------------------------------

ATTACKS |= {
    "no token": by_request(lambda _: request()),
    "an empty field": by_request(lambda _: request(b"Authorization:")),
    "a scheme and nothing": by_request(lambda _: request(b"Authorization: Bearer")),
    "a scheme and blanks": by_request(lambda _: request(b"Authorization: Bearer    ")),
    "no scheme": by_request(lambda t: request(b"Authorization: " + t)),
    "Basic": by_request(lambda t: bearer(t, b"Basic ")),
    "another scheme that begins so": by_request(lambda t: bearer(t, b"BearerX ")),
    "a tab for the blank": by_request(lambda t: bearer(t, b"Bearer\t")),
    "no blank": by_request(lambda t: bearer(t, b"Bearer")),
    "a colon for the blank": by_request(lambda t: bearer(t, b"Bearer:")),
    "in the query": by_request(
        lambda t: request(line=b"GET /infer?access_token=" + t + b" HTTP/1.1")
    ),
    "in a form": by_request(
        lambda t: request(
            b"Content-Type: application/x-www-form-urlencoded",
            line=b"POST /infer HTTP/1.1",
            body=b"access_token=" + t,
        )
    ),
    "in a cookie": by_request(lambda t: request(b"Cookie: access_token=" + t)),
    "for the proxy": by_request(lambda t: request(b"Proxy-Authorization: Bearer " + t)),
    "in X-Api-Key": by_request(lambda t: request(b"X-Api-Key: " + t)),
    "with an underscore": by_request(lambda t: request(b"Authorization_: Bearer " + t)),
    "in X-Forwarded-Authorization": by_request(
        lambda t: request(b"X-Forwarded-Authorization: Bearer " + t)
    ),
    "the field twice": by_request(
        lambda t: request(b"Authorization: Bearer " + t, b"Authorization: Bearer " + t),
        "malformed-request",
    ),
    "the field twice, one of them bad": by_request(
        lambda t: request(b"authorization: Bearer x", b"Authorization: Bearer " + t),
        "malformed-request",
    ),
    "on a folded line": by_request(
        lambda t: request(b"Authorization: Bearer", b" " + t), "malformed-request"
    ),
    "a blank before the colon": by_request(
        lambda t: request(b"Authorization : Bearer " + t), "malformed-request"
    ),
    "a NUL in the field": by_request(
        lambda t: request(b"Authorization: Bearer " + t + b"\x00"), "malformed-request"
    ),
    "a bare LF in the field": by_request(
        lambda t: request(b"Authorization: Bearer " + t[:9] + b"\n" + t[9:]), "malformed-request"
    ),
    "in a trailer": by_request(
        lambda t: (
            b"POST /infer HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n"
            b"Trailer: Authorization\r\n\r\n0\r\nAuthorization: Bearer " + t + b"\r\n\r\n"
        )
    ),
}
