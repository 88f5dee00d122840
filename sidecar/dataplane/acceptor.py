"""Takes connections off a listening socket: also when files run out, and to the last one."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from sidecar.wire import proxy_protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.telemetry.metrics import Metrics

BACKLOG: Final = 4096
AT_ONCE: Final = 64  # accepted before clients that are there get their turn
PAUSE_S: Final = 0.1  # without files: the socket stays readable, and to ask again would spin
HANDSHAKE_S: Final = 0.02  # for handshakes under way at a drain: a round trip within a zone
LOG_EVERY_S: Final = 10.0
_MAX_HEADER_BYTES: Final = 16 + proxy_protocol.MAX_BLOCK_BYTES
_OUT_OF_FILES: Final = frozenset((errno.EMFILE, errno.ENFILE))
_OUT_OF_MEMORY: Final = frozenset((errno.ENOBUFS, errno.ENOMEM))
# The client left, or its network: accept(2), Error handling.
_CLIENT_GONE: Final = frozenset(
    (
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
    )
)
_log = logging.getLogger("sidecar.dataplane")


class Acceptor:
    """Hands every connection of one listening socket to `take`.

    With no file descriptor left, one connection in `PAUSE_S` is told `refusal` and the others
    wait in the kernel's queue, so that a server short of files answers instead of hanging.
    """

    def __init__(
        self,
        listening: socket.socket,
        take: Callable[[socket.socket], None],
        metrics: Metrics,
        refusal: bytes,
    ) -> None:
        self._listening = listening
        self._take = take
        self._metrics = metrics
        self._refusal = refusal
        self._loop = asyncio.get_running_loop()
        self._reserve: int | None = _open_reserve()  # spent on one client that is turned away
        self._resuming: asyncio.TimerHandle | None = None
        self._logged_s = float("-inf")

    def start(self) -> None:
        """Accept from now on."""
        self._listening.settimeout(0)
        self._listening.listen(BACKLOG)
        self._loop.add_reader(self._listening, self._on_readable)

    async def drain(self) -> None:
        """Take all clients that have begun, and close.

        A connection left in the queue of a socket that closes is reset, and its request with it:
        who holds this socket last has to let no more clients begin before.
        """
        try:
            await asyncio.sleep(HANDSHAKE_S)
            while self._accept():
                pass
        finally:  # also when the drain's time is over
            self.close()

    def close(self) -> None:
        """Accept no more; whoever shares the socket may."""
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def _on_readable(self) -> None:
        for _ in range(AT_ONCE):
            if not self._accept():
                return

    def _accept(self) -> bool:
        """Take one connection; return whether there may be more."""
        try:
            client, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _OUT_OF_FILES:
                self._turn_away()
            elif error.errno in _OUT_OF_MEMORY:
                self._pause(None)
            return error.errno in _CLIENT_GONE
        self._take(client)
        return True

    def _turn_away(self) -> None:
        """Spend the reserve on one client, so that it hears why; then wait."""
        self._metrics.count("rmv_limits_hit_total", "limit", "files")
        now_s = self._loop.time()
        if now_s - self._logged_s > LOG_EVERY_S:
            self._logged_s = now_s
            _log.error("no file descriptor left: clients wait or are turned away")
        client: socket.socket | None = None
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            with suppress(OSError):  # somebody else took the descriptor, or the client left
                client, _ = self._listening.accept()
                client.settimeout(0)
                client.send(self._refusal)
                client.shutdown(socket.SHUT_WR)
        self._pause(client)

    def _pause(self, turned_away: socket.socket | None) -> None:
        """Leave the queue alone for a while, in which a client reads why it was turned away."""
        self._loop.remove_reader(self._listening)
        self._resuming = self._loop.call_later(PAUSE_S, self._resume, turned_away)

    def _resume(self, turned_away: socket.socket | None) -> None:
        self._loop.add_reader(self._listening, self._on_readable)
        if turned_away is not None:
            with suppress(OSError):
                turned_away.recv(65_536)  # unread bytes would make this close a reset
            turned_away.close()
        if self._reserve is None:
            self._reserve = _open_reserve()


async def introduce(accepted: socket.socket) -> str | None:
    """Take the PROXY header off a connection; return whom it names, if anybody.

    What follows it stays in the socket, for TLS or HTTP. Raises ValueError for what is no header,
    EOFError at the end of the connection and OSError; then, or cancelled, it closes the socket.
    """
    with ExitStack() as failing:
        failing.callback(accepted.close)
        accepted.settimeout(0)
        held = b""
        while True:
            await _readable(accepted)
            seen = accepted.recv(_MAX_HEADER_BYTES, socket.MSG_PEEK)
            if not seen:
                raise EOFError("the connection ended before its PROXY header")
            header = proxy_protocol.parse(held + seen)
            # Unfinished, all of it is the header's: left there, it would wake the loop again.
            part = len(seen) if header is None else header.size_bytes - len(held)
            held += accepted.recv(part)
            if header is not None:
                failing.pop_all()
                return header.source


async def _readable(accepted: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(accepted, _settle, readable)
    try:
        await readable
    finally:
        loop.remove_reader(accepted)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _open_reserve() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # none is left: tried again after the pause
        return None
