"""Kept-alive connections to one endpoint, and all endpoints of one worker."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from sidecar.runtime import faults
from sidecar.runtime.tasks import spawn
from sidecar.runtime.turns import Turns
from sidecar.telemetry.metrics import Metrics
from sidecar.upstream.breaker import Breaker
from sidecar.upstream.connection import UpstreamConnection
from sidecar.upstream.contract import Keeper
from sidecar.upstream.dial import Dialer, DialError, FaultyDialError
from sidecar.upstream.ejection import MAX_FAILURES, Ejection
from sidecar.upstream.endpoint import Endpoint, parse_endpoint, spelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sidecar.model.policy import Version
    from sidecar.upstream.contract import Response

IN_FLIGHT: Final = "rmv_in_flight"
EJECTED: Final = "rmv_endpoints_ejected"
FIRST_DOWN: Final = 502  # Bad Gateway, Service Unavailable, Gateway Timeout
LAST_DOWN: Final = 504
IDLE: Final = -1.0  # `idle_since_s` of a connection that no sweep has seen since
_log = logging.getLogger("sidecar.upstream")


class PoolSettings(Struct, frozen=True):
    """How a pool behaves; times in seconds."""

    connect_timeout_s: float = 1.0
    idle_timeout_s: float = 30.0
    max_idle: int = 256
    hides_decisions: bool = True  # X-Model-* of the upstream are replaced by the sidecar's
    queue_timeout_s: float = 1.0  # of a request that waits for another one of its version to end
    workers: int = 1  # that share the concurrency of a version
    traffic: str = "requests"  # what is sent, as metrics and log tell it: these, or their "copies"
    dialer: Dialer = field(default_factory=Dialer)
    turns: Turns = field(default_factory=Turns)


class Pool(Keeper):
    """Connections to one endpoint: idle ones are kept, last used first.

    It counts those that are in use or being opened, and failures in a row.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        settings: PoolSettings,
        monotonic_s: Callable[[], float],
        on_outlier: Callable[[Pool], None],
    ) -> None:
        """Tell `on_outlier` of too many failures: it may `eject`."""
        self.endpoint = endpoint
        self.url = endpoint.url
        self.authority = endpoint.authority
        self.hides_decisions = settings.hides_decisions
        self.turns = settings.turns
        self.is_closed = False
        self.is_healthy = True  # what health checks say
        self.is_ejected = False
        self.outstanding = 0  # connections in use or being opened
        self._failures = 0
        self._ejection = Ejection()
        self._on_outlier = on_outlier
        self._settings = settings
        self._max_idle = settings.max_idle
        self._monotonic_s = monotonic_s
        self._idle: list[UpstreamConnection] = []
        self._dial = settings.dialer.open(endpoint, monotonic_s)
        self._name = self._dial.name
        self._is_used = False  # since the last sweep

    @property
    def is_available(self) -> bool:
        """Whether the endpoint should be given requests while there is a choice."""
        return self.is_healthy and not self.is_ejected

    def acquire(self) -> UpstreamConnection | None:
        """Return an idle connection, or None: then `connect`."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                connection.idle_since_s = 0.0
                self.outstanding += 1
                return connection
        return None

    def connect(
        self,
        on_connected: Callable[[UpstreamConnection], None],
        on_failed: Callable[[DialError], None],
    ) -> None:
        """Open a connection in a task of its own, then call one of the two."""
        self.outstanding += 1
        spawn(self._open(on_connected, on_failed), name=f"connect {self.endpoint.url}")

    async def _open(
        self,
        on_connected: Callable[[UpstreamConnection], None],
        on_failed: Callable[[DialError], None],
    ) -> None:
        """Count the attempt out however it ends, and the connection that came of it in."""
        made: list[UpstreamConnection] = []
        failed: list[DialError] = []
        try:
            await self._connect(made.append, failed.append)
        except Exception as fault:  # noqa: BLE001 -- somebody waits for one of the two
            failed.append(FaultyDialError(faults.note("upstream", fault)))
        finally:
            self.outstanding -= 1
        for error in failed:
            if not error.is_own:
                self.note_failure()
            on_failed(error)
        for connection in made:
            if not connection.transport.is_closing():
                connection.idle_since_s = 0.0
                self.outstanding += 1
            try:
                on_connected(connection)
            except Exception as fault:  # noqa: BLE001 -- who is connected is told of it
                faults.note("upstream", fault)
                connection.on_fault()

    async def _connect(
        self,
        on_connected: Callable[[UpstreamConnection], None],
        on_failed: Callable[[DialError], None],
    ) -> None:
        self._is_used = True
        try:
            connection = await self._dial.connect(
                lambda: UpstreamConnection(self, self._monotonic_s),
                self._settings.connect_timeout_s,
            )
        except DialError as error:
            on_failed(error)
        else:
            on_connected(connection)

    def release(self, connection: Response) -> None:
        """Take back a connection whose response is whole."""
        assert isinstance(connection, UpstreamConnection)  # noqa: S101 -- its own, see Keeper
        if connection.idle_since_s:  # lost meanwhile
            return
        connection.idle_since_s = IDLE
        self.outstanding -= 1
        self._is_used = True
        is_wanted = not self.is_closed and len(self._idle) < self._max_idle
        if not is_wanted or self._has_left(connection):
            connection.transport.close()
        else:
            self._idle.append(connection)

    def forget(self, connection: Response) -> None:
        """Leave out a connection that is gone."""
        assert isinstance(connection, UpstreamConnection)  # noqa: S101 -- its own, see Keeper
        if connection.idle_since_s:
            self._idle = [idle for idle in self._idle if idle is not connection]
        else:
            connection.idle_since_s = IDLE
            self.outstanding -= 1

    def note_success(self) -> None:
        """Learn that the endpoint answered as one that is up."""
        self._failures = 0

    def note_status(self, status: int) -> None:
        """Learn what it answered: some answers say that what is behind it is down."""
        if FIRST_DOWN <= status <= LAST_DOWN:
            self.note_failure()
        else:
            self.note_success()

    def note_failure(self) -> None:
        """Learn that it could not be reached, was lost before it answered, was late, or said so."""
        self._failures += 1
        if self._failures >= MAX_FAILURES and not self.is_ejected:
            self._failures = 0
            self._on_outlier(self)

    def eject(self) -> float:
        """Leave the endpoint alone for a while; return for how many seconds."""
        self.is_ejected = True
        self._ejection.begin(self._monotonic_s())
        return self._ejection.lasts_s

    def sweep(self, now_s: float) -> None:
        """Close connections that have been idle too long; called every second or so.

        A connection counts as idle since the first sweep that finds it so: no clock is read when
        one is released. An ejection ends here, too.
        """
        if self.is_ejected and self._ejection.until_s <= now_s:
            self.is_ejected = False
            self._failures = 0
            extra = {"endpoint": self.url, "traffic": self._settings.traffic}
            _log.warning("endpoint is back", extra=extra)
        if self._is_used or self._idle:
            self._is_used = False
            self._dial.refresh()
        for connection in self._idle:
            if connection.idle_since_s == IDLE:
                connection.idle_since_s = now_s
            is_old = now_s - connection.idle_since_s >= self._settings.idle_timeout_s
            if is_old or self._has_left(connection):
                connection.transport.close()

    def close(self) -> None:
        """Close what is idle; what is in use closes when its response ends."""
        self.is_closed = True
        for connection in self._idle:
            connection.transport.close()
        self._idle.clear()

    def _has_left(self, connection: UpstreamConnection) -> bool:
        """Return whether a connection leads to where the endpoint is no more; most never move."""
        name = self._name
        return name is not None and name.has_moved and self._dial.has_left(connection.transport)


class Upstreams:
    """Every pool of this worker, by endpoint; they outlive the policies that name them."""

    def __init__(
        self,
        settings: PoolSettings,
        monotonic_s: Callable[[], float],
        metrics: Metrics | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.turns = settings.turns
        self._settings = settings
        self._monotonic_s = monotonic_s
        self._metrics = metrics or Metrics()
        self._draw = draw
        self._pools: dict[str, Pool] = {}
        self._groups: dict[tuple[str, str], Group] = {}  # by model and version

    @property
    def queue_timeout_s(self) -> float:
        """How long a request may wait for another one of its version to end."""
        return self._settings.queue_timeout_s

    def group(self, urls: Iterable[str]) -> Group:
        """Return a new group of endpoints; raises ValueError for a bad address."""
        return Group(tuple([self._pool(url) for url in urls]), self._draw)

    def group_of(self, model: str, name: str, version: Version) -> Group:
        """Return the one group of a version, as its policy has it now."""
        group = self._groups.get((model, name))
        if group is None:
            group = self._groups[model, name] = self.group(version.endpoints)
        else:
            group.pools = tuple([self._pool(url) for url in version.endpoints])
        group.limit(self._share(version.max_concurrency), self._share(version.max_queue))
        return group

    def measure(self) -> None:
        """Set the gauges: requests in hand by version, endpoints ejected."""
        levels = self._metrics.levels
        for key in [key for key in levels if key[0] == IN_FLIGHT]:
            del levels[key]
        for (model, name), group in self._groups.items():
            levels[IN_FLIGHT, "model", model, "version", name] = group.in_flight
        self.measure_ejected()

    def measure_ejected(self) -> None:
        """Set the gauge of endpoints ejected alone."""
        ejected = sum([pool.is_ejected for pool in self._pools.values()])
        self._metrics.levels[EJECTED, "traffic", self._settings.traffic] = ejected

    def retain(self, urls: Iterable[str]) -> None:
        """Close the pools of all other endpoints: no policy names them any more."""
        wanted = set(urls)
        for url in self._pools.keys() - wanted:
            self._pools.pop(url).close()

    def retain_versions(self, names: Iterable[tuple[str, str]]) -> None:
        """Forget the groups of other versions, but for those with requests in hand."""
        wanted = set(names)
        self._groups = {
            name: group
            for name, group in self._groups.items()
            if name in wanted or group.in_flight or group.waiting
        }

    def sweep(self, now_s: float) -> None:
        """End what lasts too long: idle connections, ejections, waiting."""
        swept: list[Pool | Group] = [*self._pools.values(), *self._groups.values()]
        for one in swept:
            try:
                one.sweep(now_s)
            except Exception as error:  # noqa: BLE001 -- the others are swept all the same
                faults.note("sweep", error)

    def close(self) -> None:
        """Close every pool."""
        self.retain(())

    def _share(self, number: int | None) -> int | None:
        """Return a worker's part of a number for the whole sidecar, rounded up."""
        return None if number is None else -(-number // self._settings.workers)

    def _pool(self, url: str) -> Pool:
        if url not in self._pools:
            self._pools[url] = Pool(
                parse_endpoint(url), self._settings, self._monotonic_s, self._on_outlier
            )
        return self._pools[url]

    def _on_outlier(self, pool: Pool) -> None:
        """Eject, unless some version would be left without an endpoint; each that has it counts."""
        groups = {name: group for name, group in self._groups.items() if pool in group.pools}
        if not groups or not all(group.has_other_than(pool) for group in groups.values()):
            return
        for_s, traffic = pool.eject(), self._settings.traffic
        for model, version in groups:
            self._metrics.count(
                "rmv_ejections_total", "model", model, "version", version,
                "endpoint", pool.url, "traffic", traffic,
            )  # fmt: skip
        versions = spelled(groups)
        extra = {"endpoint": pool.url, "versions": versions, "for_s": for_s, "traffic": traffic}
        _log.warning("endpoint ejected", extra=extra)


class Group(Breaker):
    """The endpoints of one version, shared by all that it serves."""

    def __init__(self, pools: tuple[Pool, ...], draw: Callable[[], float]) -> None:
        """Choose by `draw`: numbers from 0 up to 1."""
        super().__init__()
        self.pools = pools
        self._draw = draw

    def pick(self) -> Pool:
        """Return the less busy of two endpoints drawn at random, of those that are available.

        Two choices already keep the longest queue short, and unlike the least busy of all they
        do not send every worker's next request to the same endpoint (Mitzenmacher, 2001).
        """
        pools = self.pools
        if len(pools) == 1:
            return pools[0]
        chosen = self._less_busy(pools)
        if chosen.is_available:
            return chosen
        fit = self._available()
        return self._less_busy(fit) if len(fit) > 1 else fit[0]

    def after(self, url: str) -> Pool:
        """Return an endpoint for another attempt: not `url`, which failed, if there is a choice."""
        others = tuple([pool for pool in self._available() if pool.url != url])
        if not others:
            others = tuple([pool for pool in self.pools if pool.url != url]) or self.pools
        return self._less_busy(others) if len(others) > 1 else others[0]

    def has_other_than(self, pool: Pool) -> bool:
        """Return whether another endpoint could take over from `pool`."""
        return any(other.is_available for other in self.pools if other is not pool)

    def _less_busy(self, pools: tuple[Pool, ...]) -> Pool:
        """Return one of two or more; one draw makes both choices."""
        others = len(pools) - 1
        drawn = int(self._draw() * (others + 1) * others)
        first = drawn // others
        second = drawn % others
        if second >= first:
            second += 1
        one, other = pools[first], pools[second]
        if one.is_available is not other.is_available:
            return one if one.is_available else other
        return one if one.outstanding <= other.outstanding else other

    def _available(self) -> tuple[Pool, ...]:
        """Return the available ones; all of them if none is: one may be better than it looks."""
        return tuple([pool for pool in self.pools if pool.is_available]) or self.pools
