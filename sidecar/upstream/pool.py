"""Kept-alive connections to one endpoint, and the endpoints of one version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from sidecar.runtime.tasks import spawn
from sidecar.upstream.connection import UpstreamConnection
from sidecar.upstream.contract import Keeper
from sidecar.upstream.dial import Dialer, DialError
from sidecar.upstream.endpoint import Endpoint, parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sidecar.upstream.contract import Response


class PoolSettings(Struct, frozen=True):
    """How a pool behaves; times in seconds."""

    connect_timeout_s: float = 1.0
    idle_timeout_s: float = 30.0
    max_idle: int = 256
    hides_decisions: bool = True  # X-Model-* of the upstream are replaced by the sidecar's
    dialer: Dialer = field(default_factory=Dialer)


class Pool(Keeper):
    """Connections to one endpoint: idle ones are kept, last used first."""

    def __init__(
        self, endpoint: Endpoint, settings: PoolSettings, monotonic_s: Callable[[], float]
    ) -> None:
        self.endpoint = endpoint
        self.url = endpoint.url
        self.authority = endpoint.authority
        self.hides_decisions = settings.hides_decisions
        self.is_closed = False
        self.is_healthy = True  # what health checks say
        self._settings = settings
        self._monotonic_s = monotonic_s
        self._idle: list[UpstreamConnection] = []
        self._dial = settings.dialer.open(endpoint, monotonic_s)
        self._is_used = False  # since the last sweep

    def acquire(self) -> UpstreamConnection | None:
        """Return an idle connection, or None: then `connect`."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    def connect(
        self,
        on_connected: Callable[[UpstreamConnection], None],
        on_failed: Callable[[str], None],
    ) -> None:
        """Open a connection in a task of its own, then call one of the two."""
        spawn(self._connect(on_connected, on_failed), name=f"connect {self.endpoint.url}")

    async def _connect(
        self,
        on_connected: Callable[[UpstreamConnection], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self._is_used = True
        try:
            connection = await self._dial.connect(
                lambda: UpstreamConnection(self, self._monotonic_s),
                self._settings.connect_timeout_s,
            )
        except DialError as error:
            on_failed(str(error))
        else:
            on_connected(connection)

    def release(self, connection: Response) -> None:
        """Take back a connection whose response is whole."""
        assert isinstance(connection, UpstreamConnection)  # noqa: S101 -- its own, see Keeper
        self._is_used = True
        is_wanted = not self.is_closed and len(self._idle) < self._settings.max_idle
        if not is_wanted or self._dial.has_left(connection.transport):
            connection.transport.close()
        else:
            self._idle.append(connection)

    def forget(self, connection: Response) -> None:
        """Leave out a connection that is gone."""
        self._idle = [idle for idle in self._idle if idle is not connection]

    def sweep(self, now_s: float) -> None:
        """Close what was idle too long, or leads to an address that the name has no more.

        Called every second or so; that keeps the name of an endpoint in use fresh, too. A
        connection counts as idle since the first sweep that finds it so: no clock is read when
        one is released.
        """
        if self._is_used or self._idle:
            self._is_used = False
            self._dial.refresh()
        for connection in self._idle:
            connection.idle_since_s = connection.idle_since_s or now_s
            is_old = now_s - connection.idle_since_s >= self._settings.idle_timeout_s
            if is_old or self._dial.has_left(connection.transport):
                connection.transport.close()

    def close(self) -> None:
        """Close what is idle; what is in use closes when its response ends."""
        self.is_closed = True
        for connection in self._idle:
            connection.transport.close()
        self._idle.clear()


class Upstreams:
    """Every pool of this worker, by endpoint; they outlive the policies that name them."""

    def __init__(self, settings: PoolSettings, monotonic_s: Callable[[], float]) -> None:
        self._settings = settings
        self._monotonic_s = monotonic_s
        self._pools: dict[str, Pool] = {}

    def group(self, urls: Iterable[str]) -> Group:
        """Return the endpoints of one version as a group; raises ValueError for a bad address."""
        return Group(tuple(self._pool(url) for url in urls))

    def retain(self, urls: Iterable[str]) -> None:
        """Close the pools of all other endpoints: no policy names them any more."""
        wanted = set(urls)
        for url in self._pools.keys() - wanted:
            self._pools.pop(url).close()

    def sweep(self, now_s: float) -> None:
        """Close connections that have been idle too long."""
        for pool in self._pools.values():
            pool.sweep(now_s)

    def close(self) -> None:
        """Close every pool."""
        self.retain(())

    def _pool(self, url: str) -> Pool:
        if url not in self._pools:
            self._pools[url] = Pool(parse_endpoint(url), self._settings, self._monotonic_s)
        return self._pools[url]


class Group:
    """The endpoints of one version, taken in turn."""

    __slots__ = ("_pools", "_turn")

    def __init__(self, pools: tuple[Pool, ...]) -> None:
        self._pools = pools
        self._turn = 0

    def pick(self) -> Pool:
        """Return the next endpoint's pool."""
        pools = self._pools
        if len(pools) == 1:
            return pools[0]
        self._turn = (self._turn + 1) % len(pools)
        return pools[self._turn]

    def after(self, url: str) -> Pool:
        """Return the pool that follows that of endpoint `url`, which failed."""
        pools = self._pools
        at = next(n for n, pool in enumerate(pools) if pool.url == url)
        return pools[(at + 1) % len(pools)]
