"""Opens connections to endpoints: names, addresses in turn, TLS, unix sockets."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import ssl
from typing import TYPE_CHECKING, Final, TypeVar, cast
from weakref import WeakValueDictionary

from sidecar.model.upstream import UpstreamSettings, UpstreamTls
from sidecar.policy.address import ANYWHERE, AllowList
from sidecar.upstream.names import Name, ask_system
from sidecar.upstream.own import OwnListeners
from sidecar.upstream.tls import TlsContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.runtime.transport import Transport
    from sidecar.upstream.endpoint import Endpoint
    from sidecar.upstream.names import Resolve

    Make = Callable[[], asyncio.Protocol]

P = TypeVar("P")

MAX_TRIES: Final = 3  # addresses for one connection; the first gets half of the time
HOLD_S: Final = 1.0  # between handshakes with an endpoint whose certificate is not believed
OWN: Final = "it leads to a listener of this sidecar"
REPEAT_S: Final = 10.0  # between log lines that say the same of an endpoint
_log = logging.getLogger("sidecar.upstream")


_OUT_OF_FILES: Final = frozenset((errno.EMFILE, errno.ENFILE))


class DialError(Exception):
    """No connection. Its text is for the client; what it must not learn is in the log."""

    is_own = False  # the endpoint is not to blame
    is_late = False
    limit = ""  # of the sidecar, that it has met


class LateError(DialError):
    """No connection in time."""

    is_late = True


class OutOfFilesError(DialError):
    """No connection, as there is no file descriptor for one."""

    is_own = True
    limit = "files"

    def __init__(self) -> None:
        super().__init__("no file descriptor left")


class FaultyDialError(DialError):
    """No connection, for a fault of the sidecar that is noted already."""

    is_own = True


class Unbelieved(Exception):  # noqa: N818 -- a finding, told to the log
    """What is wrong on this side, or with the peer's identity; for the log only."""


class Dialer:
    """How all endpoints of a worker are reached."""

    def __init__(
        self,
        settings: UpstreamSettings | None = None,
        tls: UpstreamTls | None = None,
        resolve: Resolve = ask_system,
        users: Callable[[str], str] = lambda _url: "",
        allowed: AllowList = ANYWHERE,
        own: OwnListeners | None = None,
    ) -> None:
        """Tell in the log whose an endpoint is, by `users`: the versions that have its URL.

        No connection leads to an `own` listener.
        """
        self.users = users
        self._own = own or OwnListeners()
        folders = settings.sockets if settings is not None else ()
        self._folders = tuple(folder.rstrip("/") for folder in folders)
        self._tls = TlsContext(tls or UpstreamTls())
        self._resolve = resolve
        self._allowed = allowed
        # Shared by the pools of traffic, of copies and of checks, and gone with the last of them.
        self._names = WeakValueDictionary[tuple[str, int], Name]()

    def open(self, endpoint: Endpoint, monotonic_s: Callable[[], float]) -> Dial:
        """Return what connects to `endpoint`; nothing is connected yet."""
        return Dial(self, endpoint, monotonic_s)

    def name(self, endpoint: Endpoint, monotonic_s: Callable[[], float]) -> Name | None:
        """Return the name to resolve; None for a literal address and a socket."""
        if endpoint.path or _is_literal(endpoint.host):
            return None
        key = endpoint.host, endpoint.port
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = Name(*key, self._resolve, monotonic_s, self._allowed)
        return name

    def context(self, now_s: float) -> ssl.SSLContext:
        """Return the TLS context; Unbelieved when its files are no good."""
        try:
            return self._tls.current(now_s)
        except (OSError, ValueError) as error:
            msg = f"upstream_tls: {error}"
            raise Unbelieved(msg) from error

    def check_address(self, address: str, port: int) -> None:
        """Raise Unbelieved for an address where this sidecar listens itself."""
        if self._own.has(address, port):
            raise Unbelieved(OWN)

    def check_socket(self, path: str) -> None:
        """Raise Unbelieved unless the socket, links followed, is below a folder of the setting."""
        real = os.path.realpath(path)
        if self._own.has_socket(real):
            raise Unbelieved(OWN)
        for folder in self._folders:
            below = path.startswith(f"{folder}/")
            if below and real.startswith(os.path.realpath(folder or "/").rstrip("/") + "/"):
                return
        msg = f"{path} is not below a folder of the setting upstream.sockets"
        raise Unbelieved(msg)


class Dial:
    """Connects to one endpoint."""

    def __init__(
        self, dialer: Dialer, endpoint: Endpoint, monotonic_s: Callable[[], float]
    ) -> None:
        self._dialer = dialer
        self._endpoint = endpoint
        self._monotonic_s = monotonic_s
        self.name = dialer.name(endpoint, monotonic_s)
        self._held_until_s = 0.0
        self._told = ""
        self._told_s = 0.0

    async def connect(self, make: Callable[[], P], timeout_s: float) -> P:
        """Return the protocol that `make` made, connected; raises DialError."""
        if self._monotonic_s() < self._held_until_s:
            raise DialError("cannot connect")
        making = cast("Make", make)
        try:
            async with asyncio.timeout(timeout_s):
                made = await (
                    self._connect_socket(making)
                    if self._endpoint.path
                    else self._connect_host(making, timeout_s)
                )
        except TimeoutError as error:
            self._doubt()
            raise LateError(f"no connection within {timeout_s:g} s") from error
        except Unbelieved as error:
            self._tell(str(error))
            raise DialError("cannot connect") from error
        except OSError as error:
            if error.errno in _OUT_OF_FILES:
                raise OutOfFilesError from error
            self._doubt()
            raise DialError(f"cannot connect: {error.strerror or error}") from error
        return cast("P", made)

    def refresh(self) -> None:
        """Resolve the name again, if it is time; called now and then while it is in use."""
        if self.name is not None:
            self.name.refresh()

    def has_left(self, transport: Transport) -> bool:
        """Return whether a connection leads to an address that the name has no more."""
        name = self.name
        if name is None or not name.has_moved:
            return False
        peer = transport.get_extra_info("peername")
        return isinstance(peer, tuple) and peer[0] not in name.addresses

    async def _connect_socket(self, make: Make) -> asyncio.BaseProtocol:
        self._dialer.check_socket(self._endpoint.path)
        loop = asyncio.get_running_loop()
        _, made = await loop.create_unix_connection(make, self._endpoint.path)
        return made

    async def _connect_host(self, make: Make, timeout_s: float) -> asyncio.BaseProtocol:
        ends_s = self._monotonic_s() + timeout_s
        context = None
        if self._endpoint.is_tls:
            context = self._dialer.context(self._monotonic_s())
        known = (self._endpoint.host,) if self.name is None else await self.name.take()
        *others, last = known[:MAX_TRIES]
        for address in others:
            left_s = ends_s - self._monotonic_s()
            try:
                async with asyncio.timeout(left_s / 2):
                    return await self._connect_address(make, address, context, left_s)
            except OSError:  # a timeout is one, too
                continue
        try:
            left_s = ends_s - self._monotonic_s()
            return await self._connect_address(make, last, context, left_s)
        except ssl.SSLError as error:
            if isinstance(error, ssl.SSLCertVerificationError):
                # Each try is a handshake for both sides, and the next one will end no better.
                self._held_until_s = self._monotonic_s() + HOLD_S
            msg = f"TLS: {getattr(error, 'verify_message', '') or error}"
            raise Unbelieved(msg) from error

    async def _connect_address(
        self, make: Make, address: str, context: ssl.SSLContext | None, left_s: float
    ) -> asyncio.BaseProtocol:
        loop, port = asyncio.get_running_loop(), self._endpoint.port
        self._dialer.check_address(address, port)
        if context is None:
            _, made = await loop.create_connection(make, address, port)
            return made
        transport, made = await loop.create_connection(
            make,
            address,
            port,
            ssl=context,
            server_hostname=self._endpoint.host.removesuffix("."),  # RFC 6066 section 3
            ssl_handshake_timeout=max(left_s, 0.01),
        )
        # While nobody takes what it has read, it must not read on: uvloop drops that when it meets
        # the end of the connection (and takes no limit of 0).
        cast("Transport", transport).set_read_buffer_limits(1, 0)
        return made

    def _doubt(self) -> None:
        if self.name is not None:
            self.name.expire()

    def _tell(self, reason: str) -> None:
        now_s = self._monotonic_s()
        if reason != self._told or now_s - self._told_s >= REPEAT_S:
            self._told, self._told_s = reason, now_s
            url = self._endpoint.url
            extra = {"endpoint": url, "versions": self._dialer.users(url), "reason": reason}
            _log.warning("endpoint cannot be used", extra=extra)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
