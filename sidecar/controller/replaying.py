"""Recorded requests, sent again to one version: straight to its endpoints, past every sidecar."""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import socket
from itertools import cycle
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from sidecar.model.request import RequestHead
from sidecar.model.shadow import Answer
from sidecar.policy.rewrite import compile_rewrite
from sidecar.policy.route import RouteTable
from sidecar.shadow.compare import compare

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

    from aiohttp.abc import ResolveResult

    from sidecar.model.policy import Policy
    from sidecar.model.shadow import Evidence, Outcome
    from sidecar.policy.address import AllowList
    from sidecar.shadow.compare import Rules


class Replayed(NamedTuple):
    """What became of one request; `outcome` is None where `failure` says why.

    `against_shadow` compares with what the version that was recorded as shadow said then.
    """

    evidence: Evidence
    answer: Answer | None = None
    outcome: Outcome | None = None
    against_shadow: Outcome | None = None
    failure: str = ""


class Replay:
    """Sends requests to the endpoints of a version in turn. Use it as an async context manager."""

    def __init__(  # noqa: PLR0913 -- each is named where it is called
        self,
        policy: Policy,
        version: str,
        rules: Rules,
        *,
        timeout_s: float,
        max_body_bytes: int,
        tls: ssl.SSLContext,
        allowed: AllowList,
    ) -> None:
        """Take a version of `policy`; raises KeyError where there is none of that name.

        Names have to resolve to what is `allowed`.
        An answer has `timeout_s` from its connection to its last byte, and `max_body_bytes`.
        """
        deployed = policy.versions[version]
        self._rules = rules
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._routes = RouteTable((), policy.model)
        rewrite = deployed.rewrite
        self._rewrite = None if rewrite is None else compile_rewrite(rewrite, policy.model, version)
        self._headers = dict(rewrite.headers) if rewrite is not None else {}
        self._headers["X-Model-Version"] = version
        self._tls = tls
        self._allowed = allowed
        self._endpoints = deployed.endpoints
        self._sessions: list[tuple[str, aiohttp.ClientSession]] = []

    async def __aenter__(self) -> Self:
        self._sessions = [self._session(url) for url in self._endpoints]
        self._turns = cycle(self._sessions)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _, session in self._sessions:
            await session.close()

    async def send(self, evidence: Evidence) -> Replayed:
        """Send a recorded request, and compare the answer with those that were recorded."""
        if why := _unfit(evidence):
            return Replayed(evidence, failure=why)
        try:
            body = base64.b64decode(evidence.request_body, validate=True)
            recorded = _recorded(evidence, of_shadow=False)
            of_shadow = _recorded(evidence, of_shadow=True)
        except binascii.Error as error:
            return Replayed(evidence, failure=f"a recorded body is no base64: {error}")
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._ask(evidence, body)
        except TimeoutError:
            return Replayed(evidence, failure=f"no whole answer in {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Replayed(evidence, failure=str(error) or type(error).__name__)
        outcome = compare(recorded, answer, self._rules)
        return Replayed(evidence, answer, outcome, compare(of_shadow, answer, self._rules))

    def _session(self, url: str) -> tuple[str, aiohttp.ClientSession]:
        connector: aiohttp.BaseConnector
        if url.startswith("unix:"):
            base, connector = "http://localhost", aiohttp.UnixConnector(url.removeprefix("unix:"))
        else:
            base, connector = url.rstrip("/"), self._tcp()
        return base, aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),  # `send` has one for everything
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
        )

    def _tcp(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(ssl=self._tls, resolver=_Resolver(self._allowed))

    async def _ask(self, evidence: Evidence, body: bytes) -> Answer:
        base, session = next(self._turns)
        headers = {**self._headers, "X-Request-Id": evidence.request_id, "X-Shadow": "1"}
        if evidence.content_type:
            headers["Content-Type"] = evidence.content_type
        url = URL(base + self._target(evidence), encoded=True)
        began_s = perf_counter()
        async with session.request(
            evidence.method, url, data=body or None, headers=headers, allow_redirects=False
        ) as response:
            first_s = perf_counter() - began_s
            pieces, marks, size = [], [], 0
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > self._max_body_bytes:
                    msg = f"the answer is over {self._max_body_bytes:,} bytes"
                    raise ValueError(msg)
                pieces.append(piece)
                marks.append((size, perf_counter() - began_s))
            fields = tuple((name.lower(), value) for name, value in response.headers.items())
            took_s = perf_counter() - began_s
            return Answer(response.status, fields, b"".join(pieces), first_s, took_s, tuple(marks))

    def _target(self, evidence: Evidence) -> str:
        """Return the target as the version gets it."""
        target = evidence.target.encode("latin-1")
        if self._rewrite is None:
            return evidence.target
        head = RequestHead(evidence.method.encode("latin-1"), target, [])
        return self._rewrite(target, self._routes.find(head).rest).decode("latin-1")


class _Resolver(ThreadedResolver):
    """Resolves names, and knows none of the addresses that endpoints may not have."""

    def __init__(self, allowed: AllowList) -> None:
        super().__init__()
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name; raises OSError if one of them may not be connected to."""
        found = await super().resolve(host, port, family)
        for one in found:
            if (why := self._allowed.reach_fault(one["host"], port)) is not None:
                msg = f"{host} is at {one['host']}: {why}"
                raise OSError(errno.EACCES, msg)  # aiohttp tells the text alone
        return found


def _unfit(evidence: Evidence) -> str:
    """Return why a recorded request cannot be sent again, or nothing."""
    if not evidence.method or not evidence.target.startswith("/"):
        return "its request was not recorded: the policy's `compare.keep.bodies` was off"
    if evidence.is_masked:
        return "its request was masked, and would not be the same"
    return ""


def _recorded(evidence: Evidence, *, of_shadow: bool) -> Answer:
    """Return one of the answers that were recorded; raises binascii.Error."""
    if of_shadow:
        status, fields, took_s = evidence.shadow_status, evidence.shadow_fields, evidence.shadow_s
        text = evidence.shadow_body
    else:
        status, fields = evidence.primary_status, evidence.primary_fields
        text, took_s = evidence.primary_body, evidence.primary_s
    return Answer(status, fields, base64.b64decode(text, validate=True), took_s, took_s)
