"""Keys of issuers at a real sidecar: fetched, rotated, lost and found, under real requests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING

from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.identity.issuer import JWKS_FILE, PRIVATE_KEY_FILE, create_keys, issue
from tests.identity.minting import b64
from tests.identity.signers import rsa_signer
from tests.support.certificates import write_certificate
from tests.support.keys import JWKS_PATH, flood, hang, key_server
from tests.support.messages import read_answer
from tests.support.servers import free_port
from tests.support.sidecar import PATIENCE_S, policy_flags, sidecar
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.sidecar import Sidecar

ISSUER, AUDIENCE = "https://issuer.test", "models"
FLOOD, CONNECTIONS = 10_000, 20
_subjects = count()


class Pair:
    """A key of an issuer, kept in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        create_keys(folder, "EdDSA")

    @property
    def jwks(self) -> bytes:
        return (self.folder / JWKS_FILE).read_bytes()

    def bearer(self, issuer: str = ISSUER) -> str:
        """Return the Authorization field of a token never seen before, good for a minute."""
        token = issue(
            self.folder,
            tenant="acme",
            subject=str(next(_subjects)),
            issuer=issuer,
            audience=AUDIENCE,
            lifetime_s=60.0,
            now_s=now_s(),
        )
        return f"Bearer {token}"

    def write_pem(self, file: Path) -> Path:
        """Write the public key in PEM."""
        private = load_pem_private_key((self.folder / PRIVATE_KEY_FILE).read_bytes(), None)
        file.write_bytes(
            private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return file


def now_s() -> float:
    return time.time()  # noqa: TID251 -- the sidecar reads the same clock


def together(*pairs: Pair) -> bytes:
    """Return a JWK Set of several keys."""
    return json.dumps({"keys": [json.loads(pair.jwks)["keys"][0] for pair in pairs]}).encode()


def believing(**settings: str | float | bool) -> str:
    """Return settings of an issuer."""
    given = {"issuer": ISSUER, "audience": AUDIENCE, **settings}
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in given.items())


@asynccontextmanager
async def guarded(settings: str, *flags: str, waits: bool = True) -> AsyncIterator[Sidecar]:
    """Run a sidecar before one version; `settings` are of its `[identity]`, and what follows."""
    async with (
        scripted_upstream() as up,
        sidecar(
            *policy_flags(v1=up.url), *flags, settings=f"[identity]\n{settings}", waits=waits
        ) as running,
    ):
        yield running


async def test_rotation_under_load_refuses_nobody(tmp_path: Path) -> None:
    old, new = Pair(tmp_path / "old"), Pair(tmp_path / "new")
    tls = write_certificate(tmp_path)
    async with key_server(old.jwks, tls=tls) as server:
        settings = believing(jwks_url=server.jwks_url, ca_file=str(tls[0]))
        async with guarded(settings, "--workers", "2") as running:
            signing, answers, goes_on = old, list[tuple[int, bytes]](), True

            async def keep_asking() -> None:
                while goes_on:
                    answer = await running.ask(Authorization=signing.bearer())
                    worker = (answer.get(b"X-Request-Id") or b"")[:20]
                    answers.append((answer.status, worker))

            async def go_on(number: int) -> None:
                wanted = len(answers) + number

                async def is_reached() -> bool:
                    return len(answers) >= wanted

                await running.until(is_reached, "answers")

            asking = [asyncio.ensure_future(keep_asking()) for _ in range(8)]
            await go_on(20)
            server.keys = together(old, new)
            signing = new
            await go_on(40)
            running.signal(signal.SIGHUP)
            await running.says("workers replaced")
            await go_on(40)
            goes_on = False
            await asyncio.gather(*asking)

            assert {status for status, _ in answers} == {200}
            assert len({worker for _, worker in answers}) == 4
            assert server.asked == [JWKS_PATH] * 3  # at the start, for the new key, at the signal
            assert await running.counted("rmv_key_reads_total", outcome="changed") == 2
            assert await running.counted("rmv_keys", issuer=ISSUER) == 2

            server.keys = new.jwks
            running.signal(signal.SIGHUP)

            async def is_withdrawn() -> bool:
                return (await running.ask(Authorization=old.bearer())).status == 401

            await running.until(is_withdrawn, "an end of the former key")


async def test_any_number_of_unknown_keys_makes_one_fetch_and_holds_up_no_known_one(
    tmp_path: Path,
) -> None:
    pair = Pair(tmp_path / "keys")
    async with (
        key_server(pair.jwks) as server,
        guarded(believing(jwks_url=server.jwks_url), "--workers", "2") as running,
    ):
        before = len(server.asked)
        claims = b64(json.dumps({"iss": ISSUER, "aud": AUDIENCE}).encode())

        async def send(first: int) -> list[int]:
            reader, writer = await asyncio.open_connection(*running.listen)
            for number in range(first, FLOOD, CONNECTIONS):
                head = b64(json.dumps({"alg": "EdDSA", "kid": f"k{number}"}).encode())
                token = b"%b.%b.%b" % (head, claims, b64(bytes(64)))
                writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ")
                writer.write(token + b"\r\n\r\n")
                if number % 10 == 0:
                    await writer.drain()
            due = range(first, FLOOD, CONNECTIONS)
            statuses = [(await read_answer(reader)).status for _ in due]
            writer.close()
            return statuses

        begun_s = time.monotonic()
        flooding = asyncio.gather(*(send(first) for first in range(CONNECTIONS)))
        served: list[int] = []
        while not flooding.done():  # tokens never seen before, of a key that is known
            served.append((await running.ask(Authorization=pair.bearer())).status)
        statuses = await flooding
        took_s = time.monotonic() - begun_s

        assert sum(map(len, statuses)) == FLOOD
        assert {status for some in statuses for status in some} == {401}
        assert len(server.asked) - before <= 1 + took_s // 30
        assert len(served) > 1
        assert set(served) == {200}


async def is_served(running: Sidecar, pair: Pair) -> bool:
    try:
        return (await running.ask(Authorization=pair.bearer())).status == 200
    except OSError:  # a worker is gone
        return False


async def lacks_keys(running: Sidecar) -> bool:
    """Return whether it takes no traffic, as keys are not there."""
    status, why = await running.asked_admin("/readyz")
    return status == 503 and f"no keys of {ISSUER}" in why


async def test_keys_are_waited_for_and_then_outlive_an_outage(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "keys")
    port = free_port()
    settings = believing(jwks_url=f"http://127.0.0.1:{port}{JWKS_PATH}", keys_refresh_s=1)
    async with guarded(settings, waits=False) as running:
        await running.located()
        await running.says("keys not there: tokens of their issuer get 503")
        await running.until(lambda: lacks_keys(running), "word of keys that are not there")
        async with key_server(pair.jwks, port=port):
            await running.ready()
            assert await is_served(running, pair)
        await running.says("keys not renewed: the last good ones are believed")
        assert await is_served(running, pair)
        os.kill(running.workers()[0], signal.SIGKILL)

        await running.until(lambda: is_served(running, pair), "a worker that is told old keys")
        assert await running.counted("rmv_key_age_seconds", issuer=ISSUER) > 0
        assert await running.counted("rmv_key_reads_total", outcome="failed-connect") > 1


async def test_keys_that_are_too_old_are_believed_no_more_and_newer_ones_are(
    tmp_path: Path,
) -> None:
    pair = Pair(tmp_path / "keys")
    port = free_port()
    url = f"http://127.0.0.1:{port}{JWKS_PATH}"
    settings = believing(jwks_url=url, keys_refresh_s=1, keys_max_age_s=2)
    async with guarded(settings, waits=False) as running:
        await running.located()
        async with key_server(pair.jwks, port=port):
            await running.ready()
            known = pair.bearer()
            await running.until(lambda: is_served(running, pair), "service")
            assert (await running.ask(Authorization=known)).status == 200
        await running.says("keys are too old: tokens of their issuer get 503")

        async def is_closed() -> bool:
            answer = await running.ask(Authorization=known)  # remembered or not
            return (answer.status, answer.code) == (503, "not-ready")

        await running.until(is_closed, "refusals")
        await running.until(lambda: lacks_keys(running), "word of keys that are not there")
        assert await running.counted("rmv_keys", issuer=ISSUER) == 0
        async with key_server(pair.jwks, port=port):
            await running.until(lambda: is_served(running, pair), "keys again")
            await running.ready()


async def elsewhere(_request: web.Request) -> web.StreamResponse:
    """Send whoever asks to another place."""
    return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/keys"})


async def weak(_request: web.Request) -> web.StreamResponse:
    """Answer with a key that is too short."""
    jwk = rsa_signer("weak", bits=1024).jwk
    return web.Response(body=json.dumps({"keys": [jwk]}).encode())


async def test_a_server_that_misbehaves_changes_nothing(tmp_path: Path) -> None:
    pair, stranger = Pair(tmp_path / "keys"), Pair(tmp_path / "stranger")
    answers = {
        "failed-timeout": hang,
        "failed-size": flood,
        "failed-redirect": elsewhere,
        "refused": weak,
    }
    async with (
        key_server(pair.jwks) as server,
        guarded(believing(jwks_url=server.jwks_url)) as running,
    ):
        server.answer = hang
        waiting = asyncio.ensure_future(running.ask(Authorization=stranger.bearer()))
        for outcome, answer in answers.items():
            server.answer = answer
            running.signal(signal.SIGHUP)

            async def is_counted(outcome: str = outcome) -> bool:
                assert (await running.ask(Authorization=pair.bearer())).status == 200
                return await running.counted("rmv_key_reads_total", outcome=outcome) > 0

            await running.until(is_counted, outcome)
        assert (await waiting).status == 401
        assert await running.counted("rmv_keys", issuer=ISSUER) == 1


def with_another_use(*pairs: Pair) -> bytes:
    """Return a JWK Set of several keys, and one to encrypt with beside them."""
    told = json.loads(together(*pairs))
    other = rsa_signer("enc-1").jwk | {"use": "enc", "alg": "RSA-OAEP"}
    return json.dumps({"keys": [*told["keys"], other]}).encode()


async def test_a_set_that_gets_a_key_to_encrypt_with_is_refused_and_the_one_before_serves(
    tmp_path: Path,
) -> None:
    old, new = Pair(tmp_path / "old"), Pair(tmp_path / "new")
    async with (
        key_server(old.jwks) as server,
        guarded(believing(jwks_url=server.jwks_url)) as running,
    ):
        server.keys = with_another_use(old, new)
        running.signal(signal.SIGHUP)
        await running.says("key 'enc-1': its use is not 'sig'")
        await running.says('keys_of_other_use = \\"skip\\"')
        assert await is_served(running, old)
        assert not await is_served(running, new)

        server.keys = together(old, new)
        running.signal(signal.SIGHUP)
        await running.until(lambda: is_served(running, new), "the keys of a set that is mended")


async def test_a_set_with_a_key_to_encrypt_with_is_taken_without_it_where_that_is_said(
    tmp_path: Path,
) -> None:
    pair = Pair(tmp_path / "keys")
    async with (
        key_server(with_another_use(pair)) as server,
        guarded(believing(jwks_url=server.jwks_url, keys_of_other_use="skip")) as running,
    ):
        await running.says("key left out")
        assert await is_served(running, pair)
        assert await running.counted("rmv_keys", issuer=ISSUER) == 1


async def explain(running: Sidecar, bearer: str) -> tuple[int, str]:
    """Run `rmv explain` for a token, by the settings of a sidecar."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "sidecar", "explain", "m", "--token", "-"),
        *("--config", f"{running.folder}/rmv.toml", "--state-dir", str(running.state_dir)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(PATIENCE_S):
        said, _ = await process.communicate(bearer[7:].encode())
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_issuers_of_every_kind_stand_side_by_side(tmp_path: Path) -> None:
    pairs = [Pair(tmp_path / name) for name in ("discovered", "pem", "file")]
    tls = write_certificate(tmp_path)
    pem = pairs[1].write_pem(tmp_path / "public.pem")
    file = tmp_path / "jwks.json"
    file.write_bytes(pairs[2].jwks)
    async with key_server(pairs[0].jwks, tls=tls) as server:
        described = {"issuer": server.url, "jwks_uri": server.jwks_url}
        path = "/.well-known/openid-configuration"
        server.documents[path] = json.dumps(described).encode()
        names = (server.url, "pem", "file")
        settings = "[[issuers]]\n".join(
            (
                believing(issuer=names[0], discovery=True, ca_file=str(tls[0])),
                believing(issuer=names[1]) + f"keys = [{{file = {json.dumps(str(pem))}}}]\n",
                believing(issuer=names[2], jwks_file=str(file)),
            )
        )
        kid = json.loads(pairs[1].jwks)["keys"][0]["kid"]
        settings = settings.replace("}]", f', kid = "{kid}"}}]')
        async with guarded(settings) as running:
            assert server.asked == [path, JWKS_PATH]  # where the issuer says, not where they may be
            for mine, pair in enumerate(pairs):
                for named, issuer in enumerate(names):
                    answer = await running.ask(Authorization=pair.bearer(issuer))
                    assert answer.status == (200 if mine == named else 401), (mine, issuer)
                status, told = await explain(running, pair.bearer(names[mine]))
                assert (status, "tenant    acme" in told) == (0, True), told
            status, told = await explain(running, pairs[0].bearer(names[1]))
            assert (status, "no known key" in told) == (1, True), told


async def test_a_file_of_keys_is_read_when_it_changes_and_never_while_it_is_no_good(
    tmp_path: Path,
) -> None:
    former, renewed = Pair(tmp_path / "former"), Pair(tmp_path / "renewed")
    file = tmp_path / "jwks.json"
    file.write_bytes(former.jwks)
    async with guarded(believing(jwks_file=str(file)), "--workers", "2") as running:
        former_token = former.bearer()
        assert (await running.ask(Authorization=former_token)).status == 200
        file.write_bytes(renewed.jwks)
        assert (await running.ask(Authorization=renewed.bearer())).status == 200  # it waits

        async def is_gone() -> bool:
            answers = await running.ask_workers(2, Authorization=former_token)
            return {answer.status for answer in answers} == {401}

        await running.until(is_gone, "an end of the former key")

        file.write_text("nothing")
        await running.says("keys not renewed: the last good ones are believed")
        running.signal(signal.SIGHUP)
        await running.says("workers replaced")
        assert (await running.ask(Authorization=renewed.bearer())).status == 200
