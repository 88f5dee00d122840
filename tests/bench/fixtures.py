"""What a run generates before anything starts, all under WORK: keys, tokens, tenants, bodies."""

import base64
import hashlib
import hmac
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

WORK = Path(os.environ.get("BENCH_WORK") or Path(tempfile.gettempdir(), "rmv-bench")).absolute()
ISSUER, AUDIENCE, KEY_ID = "bench", "models", "k1"
TOKEN_LIFE_S = 24 * 3600  # longer than any campaign
FRESH = 40_000  # tokens of item g
TIMED = range(30_000)  # of them, in turn: three times as many as the subject remembers
WARMING = range(len(TIMED), FRESH)  # it remembers these: of those that are timed none finds room
FRESH_FOR_S = TOKEN_LIFE_S / 2  # after which they are made anew

CPUS = os.sched_getaffinity(0)  # before the bench keeps to one of them
SIGNERS = 2

SPLIT_TENANT, SPLIT_WEIGHTS = "t1", {"v1": 90, "v2": 10}
TENANTS = {f"t{n}": "split" if n == 1 else "v1" if n % 2 == 0 else "v2" for n in range(1, 21)}
BODY_SIZES = {"1k": 1024, "64k": 64 * 1024, "4m": 4 * 1024 * 1024}


@dataclass(frozen=True)
class Tokens:
    """One good token for each tenant, and tokens that must not open anything."""

    good: dict[str, str]
    forged: dict[str, str]  # what is wrong with it -> token that must get 401
    misdirected: str  # genuine, but for another audience: 401, or 403 as Envoy answers
    unentitled: str  # genuine, of a tenant that no version serves: must be refused


def write() -> Tokens:
    """Fill WORK: private.pem, public.pem, jwks.json, tenants.json, bodies/."""
    for folder in ("bodies", "conf", "logs", "results", "run", "wrk"):
        (WORK / folder).mkdir(parents=True, exist_ok=True)
    key, stranger = kept_key(), new_key()
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (WORK / "public.pem").write_bytes(pem)
    (WORK / "jwks.json").write_text(jwks(key.public_key()))
    routes = {tenant: SPLIT_WEIGHTS if to == "split" else to for tenant, to in TENANTS.items()}
    (WORK / "tenants.json").write_text(json.dumps(routes, indent=1))
    for name, size in BODY_SIZES.items():
        body = predict_body(size) if name == "1k" else os.urandom(size)
        (WORK / "bodies" / name).write_bytes(body)
    return make_tokens(key, stranger, pem)


def kept_key() -> rsa.RSAPrivateKey:
    """The key of earlier runs, whose fresh tokens take half a minute to sign, or a new one."""
    file = WORK / "private.pem"
    if file.exists():
        key = serialization.load_pem_private_key(file.read_bytes(), None)
        if isinstance(key, rsa.RSAPrivateKey):
            return key
    key = new_key()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.touch(mode=0o600)
    file.write_bytes(pem)
    return key


def fresh_tokens() -> Path:
    """A file of FRESH tokens, one a line, the tenants in turn; those of an earlier run, if good."""
    file, key = WORK / "fresh-tokens", WORK / "private.pem"
    if file.exists() and file.stat().st_mtime > max(key.stat().st_mtime, time.time() - FRESH_FOR_S):
        return file
    print(f"signing {FRESH} tokens", flush=True)
    part = FRESH // (len(TENANTS) * SIGNERS)
    with ProcessPoolExecutor(SIGNERS, initializer=os.sched_setaffinity, initargs=(0, CPUS)) as pool:
        lines = "\n".join(pool.map(sign_fresh, range(SIGNERS), [part] * SIGNERS))
    file.with_suffix(".new").write_text(lines + "\n")
    file.with_suffix(".new").replace(file)
    return file


def sign_fresh(signer: int, turns: int) -> str:
    """Tokens of all tenants, so many times, which differ in their `jti`; one a line."""
    key = kept_key()
    numbered = ((turn, tenant) for turn in range(turns) for tenant in TENANTS)
    return "\n".join(
        sign(claims(tenant, jti=f"{signer}-{turn}-{tenant}"), key) for turn, tenant in numbered
    )


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def predict_body(size: int) -> bytes:
    """A JSON prediction request of exactly `size` bytes."""
    body = json.dumps({"model": "m", "inputs": [round(0.1234567 * i, 6) for i in range(90)]})
    return body.ljust(size).encode()


def make_tokens(key: rsa.RSAPrivateKey, stranger: rsa.RSAPrivateKey, pem: bytes) -> Tokens:
    good = {tenant: sign(claims(tenant), key) for tenant in TENANTS}
    head, payload, signature = good["t2"].split(".")
    other_payload = good["t3"].split(".")[1]
    flipped = ("A" if signature[20] != "A" else "B").join((signature[:20], signature[21:]))
    forged = {
        "altered signature": f"{head}.{payload}.{flipped}",
        "altered claims": f"{head}.{other_payload}.{signature}",
        "another key": sign(claims("t2"), stranger),
        "alg none": sign(claims("t2"), None),
        "HS256 over the public key": sign(claims("t2"), pem),
        "expired": sign(claims("t2", exp=int(time.time()) - 3600), key),
        "another issuer": sign(claims("t2", iss="elsewhere"), key),
    }
    misdirected = sign(claims("t2", aud="elsewhere"), key)
    return Tokens(good, forged, misdirected, unentitled=sign(claims("stranger"), key))


def claims(tenant: str, **changes: str | int) -> dict[str, str | int]:
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": f"svc-{tenant}", "tenant": tenant}
    return usual | {"exp": int(time.time()) + TOKEN_LIFE_S} | changes


def sign(payload: dict[str, str | int], key: rsa.RSAPrivateKey | bytes | None) -> str:
    """A compact JWS (RFC 7515): RS256 by a private key, HS256 by bytes, `none` without a key."""
    algorithm = "none" if key is None else "HS256" if isinstance(key, bytes) else "RS256"
    head = {"alg": algorithm, "typ": "JWT", "kid": KEY_ID}
    signed = ".".join(base64url(json.dumps(part).encode()) for part in (head, payload))
    if key is None:
        signature = b""
    elif isinstance(key, bytes):
        signature = hmac.digest(key, signed.encode(), hashlib.sha256)
    else:
        signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{base64url(signature)}"


def jwks(public: rsa.RSAPublicKey) -> str:
    numbers = public.public_numbers()
    n, e = (base64url(i.to_bytes((i.bit_length() + 7) // 8, "big")) for i in (numbers.n, numbers.e))
    key = {"kty": "RSA", "kid": KEY_ID, "alg": "RS256", "use": "sig", "n": n, "e": e}
    return json.dumps({"keys": [key]})


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
