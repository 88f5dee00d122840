"""Everything that runs in the demo, brought up and taken down."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import aiohttp
import msgspec

from sidecar.cli.apply import apply_policy
from sidecar.cli.demo import children
from sidecar.cli.demo.checkout import MODEL, Checkout
from sidecar.cli.demo.children import Child
from sidecar.cli.demo.client import TIMEOUT_S, Client, request_body
from sidecar.cli.demo.counters import Admin
from sidecar.cli.demo.folder import Folder
from sidecar.config import parse_address
from sidecar.errors import Code
from sidecar.model.policy import Policy
from sidecar.store.connect import open_store

USUAL_LISTEN = "127.0.0.1:8080"
USUAL_ADMIN = "127.0.0.1:8081"
ACTOR = "demo"
_READY = re.compile(r"^ready \S+ \S+ (http://\S+)$", re.MULTILINE)

T = TypeVar("T")


class Stage:
    """The demo's running parts, and where to find them."""

    def __init__(self, checkout: Checkout, folder: Folder, listen: str, admin: str) -> None:
        self.checkout = checkout
        self.folder = folder
        self.listen = listen
        self.admin_address = admin
        self.policy = checkout.policy
        self.models: dict[str, Child] = {}
        self.urls: dict[str, str] = {}
        self._stack = AsyncExitStack()

    async def start_processes(self) -> None:
        """Start every process; none is waited for."""
        checkout, folder = self.checkout, self.folder
        for version in checkout.policy.versions:
            flags = ("--name", MODEL, "--version", version, "--port", "0")
            command = [sys.executable, str(checkout.server), *flags]
            command += ["--model", str(checkout.model_file(version))]
            self.models[version] = await self._run(f"model-{version}", command)
        folder.write_settings(self.listen, self.admin_address)
        # -P: a module that lies in the current folder must not stand in for one of ours.
        command = [sys.executable, "-P", "-m", "sidecar", "serve", "--config", str(folder.settings)]
        self.sidecar = await self._run("sidecar", command)

    async def connect(self) -> None:
        """Open the sessions that requests and questions to the admin listener go through."""
        self.client = Client(await self._session(self.listen))
        self.admin = Admin(await self._session(self.admin_address))

    async def wait_for_models(self) -> None:
        """Wait until every container listens, and point the policy at them."""
        for version, child in self.models.items():
            self.urls[version] = await child.until("ready", _probe(child))
        self.policy = pointed_at(self.checkout.policy, self.urls)

    async def wait_for_sidecar(self) -> None:
        """Wait until the sidecar has its store and wants traffic."""
        await self.sidecar.until("ready", self.admin.is_ready)

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

    def ended(self) -> Child | None:
        """Return a process that is gone although it should run."""
        return next((one for one in (self.sidecar, *self.models.values()) if one.has_ended), None)

    async def close(self) -> None:
        """End everything, the last started first."""
        await self._stack.aclose()

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
    stage = Stage(checkout, folder, listen, free_address(USUAL_ADMIN, besides=listen))
    try:
        await stage.start_processes()
        await stage.connect()
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


def free_address(preferred: str, *, besides: str = "") -> str:
    """Return `preferred` if one can listen there, else a free port of the same host."""
    address = parse_address(preferred)
    if preferred != besides and is_free(preferred) and address.port:
        return preferred
    with _bound(address.host, 0) as found:
        port = found.getsockname()[1]
    return f"{preferred.rpartition(':')[0]}:{port}"


def is_free(text: str) -> bool:
    """Return whether one can listen at an address; ConfigError when that can never be."""
    address = parse_address(text)
    try:
        _bound(address.host, address.port).close()
    except OSError:
        return False
    return True


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server binds
    try:
        found.bind((host, port))
        found.listen()  # two may bind a port, but only one may listen
    except OSError:
        found.close()
        raise
    return found


def _probe(child: Child) -> Callable[[], Awaitable[str | None]]:
    async def url() -> str | None:
        found = _READY.search(child.output())
        return found[1] if found else None

    return url
