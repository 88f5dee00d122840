"""One health check: `GET` on a connection of its own, and what came of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sidecar.upstream.contract import ResponseSink

if TYPE_CHECKING:
    from sidecar.upstream.connection import UpstreamConnection
    from sidecar.upstream.contract import Response
    from sidecar.upstream.dial import DialError
    from sidecar.upstream.pool import Pool
    from sidecar.wire.pieces import Pieces


async def probe(pool: Pool, path: str, timeout_s: float) -> int | str | None:
    """Return the status of the answer to `GET path`, or why there is none.

    None if it could not be asked, and not for any fault of the endpoint.
    The answer has to be whole within `timeout_s`. The pool should keep nothing idle.
    """
    asking = _Probe(pool, path)
    try:
        async with asyncio.timeout(timeout_s):
            return await asking.outcome
    except TimeoutError:
        return f"no whole answer within {timeout_s:g} s"
    finally:
        asking.end()


class _Probe(ResponseSink):
    """Asks when it is made."""

    def __init__(self, pool: Pool, path: str) -> None:
        self.outcome: asyncio.Future[int | str | None] = asyncio.get_running_loop().create_future()
        self._authority = pool.authority
        self._path = path
        self._status = 0
        self._connection: UpstreamConnection | None = None
        pool.connect(self._on_connected, self._on_connect_failed)

    def end(self) -> None:
        """Let go of the connection if an answer is still under way on it."""
        self.outcome.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    def _on_connected(self, connection: UpstreamConnection) -> None:
        if self.outcome.done():
            connection.give_back()
            return
        self._connection = connection
        connection.start(self, b"GET")
        connection.is_sent = True
        head = f"GET {self._path} HTTP/1.1\r\nHost: {self._authority.decode()}\r\n"
        connection.send(f"{head}User-Agent: rmv\r\nConnection: close\r\n\r\n".encode())

    def _on_connect_failed(self, error: DialError) -> None:
        self._settle(None if error.is_own else str(error))

    def _settle(self, outcome: int | str | None) -> None:
        self._connection = None
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def on_interim_head(self, response: Response, out: Pieces) -> None:
        """Drop it."""

    def on_response_head(self, response: Response, out: Pieces) -> None:
        """Note the status; it counts once the answer is whole."""
        self._status = response.head.status

    def on_response_data(self, pieces: Pieces, body_bytes: int) -> None:
        """Drop it."""

    def on_response_end(self) -> None:
        """Tell the status."""
        self._settle(self._status)

    def on_upgrade(self, response: Response, out: Pieces) -> ResponseSink | None:
        """None was asked for."""
        return None

    def on_response_lost(self, reason: str, *, is_unanswered: bool) -> None:
        """Tell why there is no answer."""
        self._settle(reason)

    def on_fault(self) -> None:
        """Tell nothing of an endpoint that has no part in it."""
        self._settle(None)

    def on_upstream_full(self) -> None:
        """A head this small is never held back."""

    def on_upstream_drained(self) -> None:
        """As above."""
