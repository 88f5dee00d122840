"""The admin listener as the control process has it, on a free port, before a real Valkey."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from sidecar.app.admin import administering
from sidecar.app.auditing import auditing
from sidecar.audit.entry import Entry
from sidecar.config import Config, ServeSpec
from sidecar.model.admin import AdminToken, Role
from sidecar.model.audit import AuditSettings, OnFailure
from sidecar.model.policy import Policy, Version
from sidecar.runtime.sockets import bind
from sidecar.store.connect import open_store
from sidecar.telemetry.metrics import Metrics
from tests.support.messages import PATIENCE_S, read_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sidecar.store.base import Store
    from tests.support.messages import Answer
    from tests.support.valkey import Valkey

ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
POLICY = Policy(
    "fraud",
    versions={
        "v1": Version(endpoints=("http://127.0.0.1:9001",)),
        "v2": Version(endpoints=("http://127.0.0.1:9002",)),
    },
    default="v1",
)


def token_of(role: str) -> str:
    """Return the token of a role, which is also its owner's name."""
    return f"rmv_{role}-of-these-tests"


TOKENS = tuple(
    AdminToken(role, role, hashlib.sha256(token_of(role).encode()).hexdigest()) for role in ROLES
)
WITH_TOKENS = Config(admin_tokens=TOKENS)


class Told(NamedTuple):
    """An answer of the API: its status, the answer whole, its JSON."""

    status: int
    answer: Answer
    body: dict[str, object]

    @property
    def code(self) -> object:
        """What a problem says that it is."""
        return self.body.get("code")


class Desk(NamedTuple):
    """An admin listener, and what is behind it."""

    port: int
    store: Store
    metrics: Metrics
    audit_dir: Path

    async def call(  # noqa: PLR0913 -- what a request has
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        role: str = "",
        headers: tuple[str, ...] = (),
        host: str = "127.0.0.1",
        source: str = "127.0.0.1",
    ) -> Told:
        """Call a route of the API."""
        lines = [f"Host: {host}", *headers]
        if role:
            lines.append(f"Authorization: Bearer {token_of(role)}")
        raw = b"" if body is None else msgspec.json.encode(body)
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(raw)}"]
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in lines)
        answer = await self.send(head.encode() + b"\r\n" + raw, source=source)
        is_json = b"json" in (answer.get(b"Content-Type") or b"")
        told = msgspec.json.decode(answer.body, type=dict[str, object]) if is_json else {}
        return Told(answer.status, answer, told)

    async def send(
        self, data: bytes, context: ssl.SSLContext | None = None, *, source: str = "127.0.0.1"
    ) -> Answer:
        """Send bytes on a connection of their own, and return what they are answered."""
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1",
                self.port,
                ssl=context,
                server_hostname="localhost" if context else None,
                local_addr=(source, 0),
            )
            try:
                writer.write(data)
                return await read_answer(reader)
            finally:
                writer.close()
                with suppress(ConnectionError, ssl.SSLError):
                    await writer.wait_closed()

    def audited(self) -> list[Entry]:
        """Return what audit has, once the desk is closed."""
        files = sorted(self.audit_dir.rglob("*.jsonl"))
        lines = [line for file in files for line in file.read_bytes().splitlines()]
        return [msgspec.json.decode(line, type=Entry) for line in lines]


@asynccontextmanager
async def desk(
    valkey: Valkey,
    tmp_path: Path,
    config: Config = WITH_TOKENS,
    on_failure: OnFailure = OnFailure.OPEN,
    file: str = "",
) -> AsyncIterator[Desk]:
    """Serve the API by these settings, on the store of `valkey`, which has a policy of `fraud`."""
    folder = tmp_path / "audit"
    config = msgspec.structs.replace(
        config,
        redis=valkey.url,
        audit=AuditSettings(dir=str(folder), fsync="never", on_failure=on_failure),
    )
    metrics, store = Metrics(), open_store(valkey.url)
    listening = bind("127.0.0.1:0")

    async def unready() -> str:
        return ""

    async def exposition() -> str:
        return "rmv_requests_total 1\n"

    try:
        if await store.get_document("fraud") is None:
            await store.commit(POLICY, expected=None, actor="test", comment="")
        async with (
            auditing(config, metrics) as audit,
            administering(
                ServeSpec(config, file=file),
                listening,
                audit,
                metrics,
                unready=unready,
                exposition=exposition,
            ),
        ):
            yield Desk(listening.getsockname()[1], store, metrics, folder)
    finally:
        await store.close()
