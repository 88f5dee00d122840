"""Fields that a client makes up never change what an upstream is told about it.

Raw sockets on both sides: a client sends what no library would, and every byte that reaches the
upstream is looked at.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest
import pytest_asyncio

from sidecar.identity.issuer import JWKS_FILE, create_keys, issue
from tests.support.messages import Answer, read_answer, read_body
from tests.support.sidecar import policy_flags, sidecar
from tests.support.upstream import ANSWER, scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.sidecar import Sidecar

pytestmark = pytest.mark.asyncio(loop_scope="module")
ISSUER, AUDIENCE = "https://issuer.test", "models"
LIFETIME_S = 600.0

LIES = {
    b"X-Tenant": b"globex",
    b"X-Forwarded-For": b"10.9.8.7",
    b"X-Forwarded-Proto": b"https",
    b"X-Forwarded-Host": b"evil.test",
    b"X-Model-Decision": b"PIN",
    b"X-Shadow": b"1",
}
"""What the sidecar derives, or takes away, and what a client says of it."""
DERIVED = frozenset(name.lower() for name in (*LIES, b"X-Model-Version"))

Lines = tuple[bytes, ...]


class Seen(NamedTuple):
    """One request as it reached the upstream, to the last byte."""

    head: bytes
    raw_body: bytes

    def derived(self) -> dict[bytes, list[bytes]]:
        """Return the values of derived fields, by what careless servers make of a name."""
        found: dict[bytes, list[bytes]] = {}
        for line in (*self.head.split(b"\r\n")[1:], *self.trailers()):
            name, _, value = line.partition(b":")
            plain = re.sub(rb"[^0-9a-z]", b"-", name.strip().lower())
            if plain in DERIVED:
                found.setdefault(plain, []).append(value.strip())
        return found

    def trailers(self) -> list[bytes]:
        """Return the lines behind the last chunk."""
        return self.raw_body.rpartition(b"0\r\n")[2].split(b"\r\n")


class Watched(NamedTuple):
    """A sidecar, what has reached the upstream behind it, and the field of a good token."""

    sidecar: Sidecar
    seen: list[Seen]
    bearer: bytes

    async def tell(self, *requests: bytes) -> Answer:
        """Send bytes on a connection of their own; return the first answer."""
        reader, writer = await asyncio.open_connection(*self.sidecar.listen)
        try:
            writer.write(b"".join(requests))
            return await read_answer(reader)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


TRUSTING = '[callers]\ntrusted_networks = ["127.0.0.0/8"]\n'


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["", TRUSTING], ids=["tokens", "trusted network"]
)
async def watched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Watched]:
    """One for all tests here; also where headers are believed of who brings no token."""
    keys = tmp_path_factory.mktemp("issuer") / "keys"
    create_keys(keys, "EdDSA")
    token = issue(
        keys,
        tenant="acme",
        subject="ada",
        issuer=ISSUER,
        audience=AUDIENCE,
        lifetime_s=LIFETIME_S,
        now_s=time.time(),  # noqa: TID251 -- the sidecar reads the same clock
    )
    settings = (
        f'[identity]\njwks_file = "{keys / JWKS_FILE}"\n'
        f'issuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n{request.param}'
    )
    seen: list[Seen] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
            seen.append(Seen(head, (await read_body(head, reader))[1]))
            writer.write(ANSWER)

    async with (
        scripted_upstream(conversation=listen) as up,
        sidecar(*policy_flags(v1=up.url), settings=settings) as running,
    ):
        yield Watched(running, seen, b"Authorization: Bearer " + token.encode())


def request(
    *lines: bytes, line: bytes = b"GET /infer HTTP/1.1", host: bytes = b"Host: test"
) -> bytes:
    """Return the bytes of a request without a body."""
    return b"\r\n".join((line, host, *lines, b"", b""))


def chunked(trailer: bytes, *lines: bytes) -> bytes:
    """Return the bytes of a request with a trailer."""
    lines = (b"Transfer-Encoding: chunked", *lines)
    return (
        request(*lines, line=b"POST /infer HTTP/1.1") + b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n\r\n"
    )


def mixed(name: bytes) -> bytes:
    return bytes(
        byte ^ 32 if at % 2 and chr(byte).isalpha() else byte for at, byte in enumerate(name)
    )


FORMS: dict[str, Callable[[bytes, bytes, bytes], bytes]] = {
    "plain": lambda n, v, b: request(n + b": " + v, b),
    "behind the token": lambda n, v, b: request(b, n + b": " + v),
    "in lower case": lambda n, v, b: request(n.lower() + b": " + v, b),
    "in upper case": lambda n, v, b: request(n.upper() + b": " + v, b),
    "in mixed case": lambda n, v, b: request(mixed(n) + b": " + v, b),
    "with underscores": lambda n, v, b: request(n.replace(b"-", b"_") + b": " + v, b),
    "with an underscore": lambda n, v, b: request(n.replace(b"-", b"_", 1) + b": " + v, b),
    "with underscores, in upper case": lambda n, v, b: request(
        n.upper().replace(b"-", b"_") + b": " + v, b
    ),
    "with underscores, and plain": lambda n, v, b: request(
        n.replace(b"-", b"_") + b": " + v, n + b": " + v, b
    ),
    "with dots": lambda n, v, b: request(n.replace(b"-", b".") + b": " + v, b),
    "with a tilde": lambda n, v, b: request(n.replace(b"-", b"~", 1) + b": " + v, b),
    "twice": lambda n, v, b: request(n + b": " + v, n + b": " + v, b),
    "around the token": lambda n, v, b: request(n + b": acme", b, n + b": " + v),
    "in two cases": lambda n, v, b: request(n.lower() + b": " + v, n.upper() + b": " + v, b),
    "forty times": lambda n, v, b: request(*[n + b": " + v] * 40, b),
    "as a list": lambda n, v, b: request(n + b": acme, " + v, b),
    "empty": lambda n, _, b: request(n + b":", b),
    "without a blank": lambda n, v, b: request(n + b":" + v, b),
    "with blanks around it": lambda n, v, b: request(n + b": \t " + v + b" \t", b),
    "with a blank before the colon": lambda n, v, b: request(n + b" : " + v, b),
    "with a tab before the colon": lambda n, v, b: request(n + b"\t: " + v, b),
    "with a NUL in the name": lambda n, v, b: request(n + b"\x00: " + v, b),
    "with a byte past ASCII": lambda n, v, b: request(n + b"\xad: " + v, b),
    "with a soft hyphen": lambda n, v, b: request(n.replace(b"-", b"\xc2\xad") + b": " + v, b),
    "on a folded line": lambda n, v, b: request(b"X-A: 1", b" " + n + b": " + v, b),
    "folded itself": lambda n, v, b: request(n + b":", b" " + v, b),
    "behind a folded token": lambda n, v, b: request(b, b"\t" + n + b": " + v),
    "behind a bare LF": lambda n, v, b: request(b"X-A: 1\n" + n + b": " + v, b),
    "behind a bare CR": lambda n, v, b: request(b"X-A: 1\r" + n + b": " + v, b),
    "behind a bare LF in the target": lambda n, v, b: request(
        b, line=b"GET /infer HTTP/1.1\n" + n + b": " + v
    ),
    "in the first line": lambda n, v, b: request(
        b, line=b"GET /infer " + n + b":" + v + b" HTTP/1.1"
    ),
    "before the first field": lambda n, v, b: request(
        b, host=b" " + n + b": " + v + b"\r\nHost: test"
    ),
    "listed by Connection": lambda n, v, b: request(b"Connection: " + n, n + b": " + v, b),
    "listed by Connection, in lower case": lambda n, v, b: request(
        b"Connection: close, " + n.lower(), n + b": " + v, b
    ),
    "listed by Connection alone": lambda n, _, b: request(b"Connection: " + n, b),
    "listed with the token": lambda n, v, b: request(
        b"Connection: authorization, " + n, n + b": " + v, b
    ),
    "listed by Proxy-Connection": lambda n, v, b: request(
        b"Proxy-Connection: " + n, n + b": " + v, b
    ),
    "in a trailer": lambda n, v, b: chunked(n + b": " + v, b),
    "in a trailer that is announced": lambda n, v, b: chunked(n + b": " + v, b"Trailer: " + n, b),
    "in a trailer with underscores": lambda n, v, b: chunked(
        n.replace(b"-", b"_") + b": " + v, b"Trailer: " + n.replace(b"-", b"_"), b
    ),
    "in a trailer with dots": lambda n, v, b: chunked(
        n.replace(b"-", b".") + b": " + v, b"Trailer: " + n.replace(b"-", b"."), b
    ),
    "in a trailer in lower case": lambda n, v, b: chunked(
        n.lower() + b": " + v, b"TE: trailers", b"Trailer: " + n.lower(), b
    ),
    "in a trailer with a fold": lambda n, v, b: chunked(
        b"X-A: 1\r\n " + n + b": " + v, b"Trailer: X-A", b
    ),
    "in a trailer, and in the head": lambda n, v, b: chunked(
        n + b": " + v, n + b": " + v, b"Trailer: " + n, b
    ),
    "with Forwarded": lambda n, v, b: request(
        n + b": " + v, b"Forwarded: for=10.9.8.7;host=evil.test;proto=https", b
    ),
    "by HTTP/1.0": lambda n, v, b: request(n + b": " + v, b, line=b"GET /infer HTTP/1.0"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
async def test_what_an_upstream_is_told_is_never_what_a_client_makes_up(
    watched: Watched, form: str
) -> None:
    await watched.tell(request(watched.bearer))
    truth = watched.seen[-1].derived()
    assert truth[b"x-tenant"] == [b"acme"]

    for name, lie in LIES.items():
        before = len(watched.seen)
        answer = await watched.tell(FORMS[form](name, lie, watched.bearer))

        reached = watched.seen[before:]
        if answer.status == 200:
            assert [one.derived() for one in reached] == [truth], name
        else:
            assert (answer.status, answer.code) == (400, "malformed-request"), name
            assert reached == []


TARGETS = (
    b"http://globex.test/infer",
    b"http://globex@test/infer",
    b"http://test/infer?X-Tenant=globex",
    b"http://test/infer#X-Tenant:globex",
    b"HTTP://TEST/infer",
    b"https://test/infer",
    b"/infer?x-tenant=globex&tenant=globex",
    b"/infer;tenant=globex",
    b"//globex/infer",
    b"/infer%0d%0aX-Tenant:%20globex",
    b"/infer%20HTTP/1.1%0d%0aX-Tenant:%20globex%0d%0a",
)


@pytest.mark.parametrize("target", TARGETS)
async def test_no_target_names_another_tenant(watched: Watched, target: bytes) -> None:
    before = len(watched.seen)
    answer = await watched.tell(
        request(b"X-Tenant: globex", watched.bearer, line=b"GET " + target + b" HTTP/1.1")
    )

    for one in watched.seen[before:]:
        assert one.derived()[b"x-tenant"] == [b"acme"]
    assert len(watched.seen) - before == (answer.status == 200)


async def test_no_tenant_is_left_over_for_the_next_request_of_a_connection(
    watched: Watched,
) -> None:
    before = len(watched.seen)
    reader, writer = await asyncio.open_connection(*watched.sidecar.listen)
    writer.write(request(b"X-Tenant: globex", watched.bearer) * 2)
    writer.write(chunked(b"X-Tenant: globex", watched.bearer, b"Trailer: X-Tenant"))
    writer.write(request(b"X_Tenant: globex", watched.bearer))
    answers = [await read_answer(reader) for _ in range(4)]
    writer.write(request(b"X-Model: m"))  # nobody's: what came before it speaks for itself alone
    last = await read_answer(reader)
    writer.close()

    assert [answer.status for answer in answers] == [200] * 4
    assert (last.status, last.code) == (401, "token-missing")
    told = [one.derived()[b"x-tenant"] for one in watched.seen[before:]]
    assert told == [[b"acme"]] * 4
