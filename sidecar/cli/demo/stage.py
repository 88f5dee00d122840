"""Everything that runs in the demo, brought up and taken down."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import aiohttp
import msgspec

from sidecar.cli.apply import apply_policy
from sidecar.cli.demo import children
from sidecar.cli.demo.checkout import MODEL, Checkout
from sidecar.cli.demo.children import Child, ChildFailedError
from sidecar.cli.demo.client import TIMEOUT_S, Client, request_body
from sidecar.cli.demo.counters import Admin
from sidecar.cli.demo.folder import Folder
from sidecar.cli.demo.shadow import read_report
from sidecar.errors import Code
from sidecar.model.policy import Policy
from sidecar.runtime.sockets import bind
from sidecar.shadow.report import Report
from sidecar.store.connect import open_store

USUAL_LISTEN = "127.0.0.1:8080"
FREE = "127.0.0.1:0"  # who listens finds the port: one looked up before may be taken by then
ACTOR = "demo"
_READY = re.compile(r"^ready \S+ \S+ (http://\S+)$", re.MULTILINE)
_SERVING = re.compile(r" msg=serving listen=(\S+) admin=(\S+)(?= |$)", re.MULTILINE)
_TAKEN = os.strerror(errno.EADDRINUSE)
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 -- not bound here

T = TypeVar("T")


class Stage:
    """The demo's running parts, and where to find them."""

    def __init__(self, checkout: Checkout, folder: Folder, listen: str) -> None:
        """Listen on `listen`, as the configuration spells it: port 0 becomes a free one."""
        self.checkout = checkout
        self.folder = folder
        self.listen = listen
        self.admin_address = FREE
        self.policy = checkout.policy
        self.models: dict[str, Child] = {}
        self.urls: dict[str, str] = {}
        self._stack = AsyncExitStack()

    async def start_processes(self) -> None:
        """Start every process; none is waited for."""
        checkout = self.checkout
        for version in checkout.policy.versions:
            flags = ("--name", MODEL, "--version", version, "--port", "0")
            command = [sys.executable, str(checkout.server), *flags]
            command += ["--model", str(checkout.model_file(version))]
            self.models[version] = await self._run(f"model-{version}", command)
        await self._start_sidecar()

    async def wait_for_models(self) -> None:
        """Wait until every container listens, and point the policy at them."""
        for version, child in self.models.items():
            self.urls[version] = (await child.until("ready", _probe(child, _READY)))[1]
        self.policy = pointed_at(self.checkout.policy, self.urls)

    async def wait_for_sidecar(self) -> None:
        """Wait until the sidecar wants traffic, and learn where it listens."""
        try:
            serving = await self._serving()
        except ChildFailedError:
            if self.listen != USUAL_LISTEN or _TAKEN not in self.sidecar.output():
                raise
            self.listen = FREE  # somebody took the usual port since it was looked at
            await self._start_sidecar()
            serving = await self._serving()
        self.listen, self.admin_address = map(_reachable, serving.groups())
        self.client = Client(await self._session(self.listen))
        self.admin = Admin(await self._session(self.admin_address))

    async def apply(self) -> int:
        """Commit the policy as `rmv apply` does; return its revision once it is served."""
        store = open_store(self.folder.store_url)
        try:
            outcome = await apply_policy(store, self.policy, ACTOR, "the demo's policy")
        finally:
            await store.close()
        body, token = request_body(self.checkout.rows.rows[0]), self.folder.token("nobody")

        async def is_served() -> bool | None:
            # Asks for what there never is: nothing is served, so that the counts stay plain.
            answer = await self.client.infer(token, body, version="none")
            is_refused = answer.status == Code.NO_SUCH_VERSION.status
            return (is_refused and answer.problem().code == Code.NO_SUCH_VERSION.slug) or None

        await self.sidecar.until("serving the policy", is_served)
        return outcome.revision

    async def shadow_report(self, version: str, copies: int) -> Report:
        """Return what became of so many copies, as `rmv shadow report` does; keep it as a file."""
        store = open_store(self.folder.store_url)
        try:
            report = await read_report(store, MODEL, version, copies)
        finally:
            await store.close()
        self.folder.shadow_file(version).write_bytes(msgspec.json.encode(report))
        return report

    def ended(self) -> Child | None:
        """Return a process that is gone although it should run."""
        return next((one for one in (self.sidecar, *self.models.values()) if one.has_ended), None)

    async def close(self) -> None:
        """End everything, the last started first."""
        await self._stack.aclose()

    async def _start_sidecar(self) -> None:
        settings = self.folder.settings
        self.folder.write_settings(self.listen, self.admin_address)
        # -P: a module that lies in the current folder must not stand in for one of ours.
        command = [sys.executable, "-P", "-m", "sidecar", "serve", "--config", str(settings)]
        self.sidecar = await self._run("sidecar", command)

    async def _serving(self) -> re.Match[str]:
        return await self.sidecar.until("ready", _probe(self.sidecar, _SERVING))

    async def _run(self, name: str, command: list[str]) -> Child:
        process = children.running(name, command, self.folder.log(name))
        return await self._stack.enter_async_context(process)

    async def _session(self, address: str) -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        session = aiohttp.ClientSession(f"http://{address}", timeout=timeout)
        return await self._stack.enter_async_context(session)


@asynccontextmanager
async def raised(checkout: Checkout, folder: Folder, listen: str) -> AsyncIterator[Stage]:
    """Start every process of the demo; all of them are gone when this ends, however it ends."""
    stage = Stage(checkout, folder, listen)
    try:
        await stage.start_processes()
        yield stage
    finally:
        await stage.close()


def pointed_at(policy: Policy, urls: Mapping[str, str]) -> Policy:
    """Return a policy whose versions are where `urls` say."""
    versions = {
        name: msgspec.structs.replace(version, endpoints=(urls[name],))
        for name, version in policy.versions.items()
    }
    return msgspec.structs.replace(policy, versions=versions)


def is_free(address: str) -> bool:
    """Return whether one can listen at an address."""
    try:
        bind(address).close()
    except OSError:
        return False
    return True


def _reachable(address: str) -> str:
    """Return the address for a client of a server that listens on every interface."""
    host, _, port = address.rpartition(":")
    return f"{_LOOPBACK.get(host, host)}:{port}"


def _probe(child: Child, said: re.Pattern[str]) -> Callable[[], Awaitable[re.Match[str] | None]]:
    async def look() -> re.Match[str] | None:
        return said.search(child.output())

    return look
