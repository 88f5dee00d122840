"""Print what a token costs, in microseconds: `.venv/bin/python -m tests.bench.tokens`.

A token of the usual claims seen for the first time, one that is remembered, and bad ones; then how
many requests a second floods of these leave, and how long a revocation takes to be in force in a
sidecar of two workers. After `make compiled`, `PYTHONSAFEPATH=1 PYTHONPATH=build/compiled:.` before
it measures that form.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from redis import Redis

from sidecar import is_compiled
from sidecar.identity.cache import IdentityCache
from sidecar.identity.claims import ClaimNames
from sidecar.identity.keys import load_jwks
from sidecar.identity.refusal import TokenRefused
from sidecar.identity.tokens import Verifier
from tests.identity.minting import AUDIENCE, ISSUER, LEEWAY_S, NOW_S, good_claims, jwks
from tests.identity.signers import ec_signer, ed_signer, rsa_signer
from tests.support.memory import resident_bytes
from tests.support.sidecar import WORKER_DIGITS, sidecar
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.model.identity import JSON
    from tests.identity.minting import Signer

TOKENS = 2_000  # of each kind, each looked at once a round
ROUNDS = 7
FLOOD = 100_000
ENTRIES = 10_000  # limits.identities
MAX_BYTES = 8 * 1024  # limits.token_bytes
UNAUTHORIZED = 401


def usual(number: int) -> dict[str, JSON]:
    """Return what access tokens of identity providers say, about 700 bytes of it."""
    return good_claims(
        sub=f"auth|{number:024x}",
        jti=f"{number:08x}-5b1f-4e0c-9a51-8f6f7a2d1c30",
        scope="openid profile models:read models:infer",
        email=f"user-{number}@example.com",
        email_verified=True,
        roles=["analyst", "reviewer"],
        org={"id": "org_7Kq2", "plan": "gold", "region": "eu-central-1"},
        sid="3f9d6a0b-4b0f-4f5e-bb0a-5f2b7d2f6a11",
        acr="1",
        auth_time=NOW_S - 20,
        nbf=NOW_S - 10,
    )


def large(number: int) -> dict[str, JSON]:
    """Return as many small claims as a token has room for."""
    return good_claims(jti=str(number), **{f"c{n}": n for n in range(450)})


def measure(name: str, tokens: list[bytes], look: Callable[[bytes], object]) -> float:
    """Print and return the median over the rounds of the mean microseconds of a look."""
    runs = []
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for token in tokens:
            look(token)
        runs.append((time.process_time() - began_s) / len(tokens) * 1e6)
    print(f"{name:58} {statistics.median(runs):9.2f} us  (best {min(runs):.2f})")
    return statistics.median(runs)


def refused(cache: IdentityCache, field: bytes) -> None:
    with suppress(TokenRefused):
        cache.lookup(field, NOW_S)


def first_sight(signer: Signer, claims: Callable[[int], dict[str, JSON]]) -> None:
    """Measure tokens that nobody remembers, through the cache as requests go."""
    keys = load_jwks(jwks(signer.jwk), (signer.algorithm,))
    verifier = Verifier(keys, ISSUER, AUDIENCE, ClaimNames(), LEEWAY_S)
    fields = [b"Bearer " + signer.mint(claims(number)) for number in range(TOKENS // 4)]
    cache = IdentityCache(verifier, ENTRIES, MAX_BYTES, lambda _identity: False)

    def look(field: bytes) -> None:
        cache.lookup(field, NOW_S)
        cache.clear()

    size = len(fields[0]) - len(b"Bearer ")
    measure(f"first sight, {signer.algorithm}, {size} bytes", fields, look)
    message, _, _ = fields[0].removeprefix(b"Bearer ").rpartition(b".")
    signature = signer.sign(message)
    key = keys.keys[0]
    measure("  of which its signature", fields, lambda _: key.verify(message, signature))


def remembered(cache: IdentityCache, signer: Signer) -> None:
    fields = [b"Bearer " + signer.mint(usual(number)) for number in range(TOKENS // 4)]
    for field in fields:
        cache.lookup(field, NOW_S)
    copies = [bytes(bytearray(field)) for field in fields]  # as a request brings it: not hashed yet
    measure("remembered", fields, partial(cache.lookup, now_s=NOW_S))

    def once() -> Iterator[bytes]:
        for _ in range(ROUNDS):
            yield from [bytes(bytearray(field)) for field in copies]

    every = list(once())
    began_s = time.process_time()
    for field in every:
        cache.lookup(field, NOW_S)
    cost = (time.process_time() - began_s) / len(every) * 1e6
    print(f"{'remembered, its bytes new in each request':58} {cost:9.2f} us")


def bad(cache: IdentityCache, signer: Signer, foreign: Signer) -> None:
    good = signer.mint(usual(1))
    head, body, _ = good.split(b".")
    kinds = {
        "garbage": b"Bearer nothing",
        "three parts of garbage": b"Bearer AAAA.BBBB.CCCC",
        "an unknown key": b"Bearer " + signer.mint(usual(1), kid="unknown"),
        "a wrong signature": b"Bearer " + foreign.mint(usual(1)),
        "a signature of no length": b"Bearer " + head + b"." + body + b".",
        "expired": b"Bearer " + signer.mint({**usual(1), "exp": NOW_S - 1000}),
        "a header of 6 KiB": b"Bearer "
        + signer.mint(usual(1), kid="x", x={str(n): n for n in range(450)}),
    }
    for name, field in kinds.items():
        measure(f"bad: {name}, seen before", [field] * TOKENS, partial(refused, cache))

        def anew(again: bytes) -> None:
            refused(cache, again)
            cache.clear()

        measure(f"bad: {name}, first sight", [field] * (TOKENS // 4), anew)


def floods(signer: Signer, edwards: Signer) -> None:
    """Fill a cache, flood it, and tell what is left of what was in it, and what memory it took."""
    keys = load_jwks(jwks(signer.jwk, edwards.jwk), (signer.algorithm, edwards.algorithm))
    verifier = Verifier(keys, ISSUER, AUDIENCE, ClaimNames(), LEEWAY_S)
    cache = IdentityCache(verifier, ENTRIES, MAX_BYTES, lambda _identity: False)
    good = [
        b"Bearer " + edwards.mint({**usual(number), "tenant": f"tenant-{number % 100}"})
        for number in range(1_000)
    ]
    for field in good:
        cache.lookup(field, NOW_S)
    head, body, _ = signer.mint(usual(1)).split(b".")
    before = resident_bytes(os.getpid())
    began_s = time.process_time()
    for number in range(FLOOD):
        refused(cache, b"Bearer %b.%b.A%08x%b" % (head, body, number, b"A" * 333))
    spent_s = time.process_time() - began_s
    report(
        cache, good, f"{FLOOD:,} bad tokens", spent_s / FLOOD, resident_bytes(os.getpid()) - before
    )
    many = [b"Bearer " + edwards.mint(usual(number)) for number in range(FLOOD // 5)]
    before = resident_bytes(os.getpid())
    began_s = time.process_time()
    for field in many:
        cache.lookup(field, NOW_S)
    spent_s = time.process_time() - began_s
    report(
        cache, good, f"{len(many):,} good of one tenant", spent_s / len(many),
        resident_bytes(os.getpid()) - before,
    )  # fmt: skip


def report(cache: IdentityCache, good: list[bytes], name: str, each_s: float, grown: int) -> None:
    misses = cache.misses
    for field in good:
        cache.lookup(field, NOW_S)
    left = len(good) - (cache.misses - misses)
    print(
        f"flood of {name + ':':48} {each_s * 1e6:10.2f} us each; {left:,} of {len(good):,} "
        f"remembered tokens are left; {grown / 1e6:+.1f} MB"
    )


REVOCATIONS = 100
POLL_S = 0.0005  # between two requests: they must not keep busy what has to read the change
WORKERS = 2


class Line:
    """A kept connection to one worker of a sidecar."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.worker = b""

    def status(self, token: bytes) -> int:
        """Return the status of a request with this token, after which nothing is in flight."""
        self._socket.sendall(
            b"GET / HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer %b\r\n\r\n" % token
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._some()
        head, _, body = answer.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields[b"Content-Length"]):
            body += self._some()
        self.worker = fields[b"X-Request-Id"][:WORKER_DIGITS]
        return int(head.split(b" ")[1])

    def _some(self) -> bytes:
        piece = self._socket.recv(65_536)
        if not piece:
            raise RuntimeError("the sidecar hung up")
        return piece


def revocation(signer: Signer) -> None:
    """Print how long it takes from a SET until every worker refuses a token that it knew."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "jwks.json")
        file.write_bytes(jwks(signer.jwk))
        took = sorted(asyncio.run(_revoked(file, signer)))
    print(
        f"{f'revoked in all of {WORKERS} workers, {REVOCATIONS} times':58} "
        f"{statistics.median(took) * 1e3:9.2f} ms  (p99 {took[-2] * 1e3:.2f}, "
        f"longest {took[-1] * 1e3:.2f})"
    )


async def _revoked(file: Path, signer: Signer) -> list[float]:
    settings = f'[identity]\njwks_file = "{file}"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n'
    async with running_valkey() as valkey:
        own = ("--model", "m", "--redis", valkey.url, "--workers", str(WORKERS))
        async with sidecar(*own, settings=settings) as running:
            return await asyncio.to_thread(_revoke, running.listen, valkey.url, signer)


def _revoke(address: tuple[str, int], url: str, signer: Signer) -> list[float]:
    lines: dict[bytes, Line] = {}
    now_s = time.time()
    while len(lines) < WORKERS:  # who accepts is the kernel's choice
        line = Line(address)
        line.status(signer.mint(_living("first", now_s)))
        lines.setdefault(line.worker, line)
    client, took = Redis.from_url(url), []
    for number in range(REVOCATIONS):
        jti = f"token-{number}"
        token = signer.mint(_living(jti, now_s))
        for line in lines.values():
            if line.status(token) == UNAUTHORIZED:
                raise RuntimeError("a good token was refused")
        time.sleep(POLL_S * (1 + number % 40))
        sent_s = time.monotonic()
        client.set(f"rmv:revoked:{jti}", "")
        for line in lines.values():
            while line.status(token) != UNAUTHORIZED:
                time.sleep(POLL_S)
        took.append(time.monotonic() - sent_s)
    client.close()
    return took


def _living(jti: str, now_s: float) -> dict[str, JSON]:
    return {**usual(1), "jti": jti, "iat": now_s - 60, "nbf": now_s - 60, "exp": now_s + 3600}


def main() -> None:
    print("compiled" if is_compiled() else "not compiled")
    rsa, foreign, ec, edwards = rsa_signer("rsa-1"), rsa_signer("rsa-1"), ec_signer(), ed_signer()
    for signer in (rsa, ec, edwards):
        first_sight(signer, usual)
    first_sight(rsa, large)
    keys = load_jwks(jwks(rsa.jwk), ("RS256",))
    verifier = Verifier(keys, ISSUER, AUDIENCE, ClaimNames(), LEEWAY_S)
    cache = IdentityCache(verifier, ENTRIES, MAX_BYTES, lambda _identity: False)
    remembered(cache, rsa)
    bad(cache, rsa, foreign)
    floods(rsa, edwards)
    revocation(edwards)


if __name__ == "__main__":
    main()
