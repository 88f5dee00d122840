"""How a store is reached, by its URL: one server, the primary that Sentinels name, or a cluster."""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as LateError

from sidecar.errors import ConfigError
from sidecar.store.client import CONNECT_TIMEOUT_S, bounded, connection_settings
from sidecar.store.cluster import ClusterLink
from sidecar.store.tracking import TrackingConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sidecar.store.keys import Keys
    from sidecar.store.tracking import Tracking

SENTINEL: Final = "+sentinel"
CLUSTER: Final = "+cluster"
SCHEMES: Final = tuple(
    f"{base}://"
    for base in (
        "redis",
        "rediss",
        "unix",
        f"redis{SENTINEL}",
        f"rediss{SENTINEL}",
        f"redis{CLUSTER}",
        f"rediss{CLUSTER}",
    )
)
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
# The library's words may repeat a piece of a password that holds a `/` or `#`.
_UNUSABLE: Final = (
    "redis: the URL cannot be used: its port or an option is malformed, "
    "or a character of the password must be percent-encoded"
)


class Link(Protocol):
    """A way to a store; nothing is connected before the first call."""

    redis: Redis
    """For commands, of which none spans two keys."""

    def track(self, keys: Keys) -> Tracking:
        """Return what one session of a watch needs."""

    def pages(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        """Iterate over the keys that match, some at a time; a key may come twice."""

    async def close(self) -> None:
        """Let go of every connection."""


class PoolLink:
    """A link by a pool of connections to one server, which they may have to look for."""

    def __init__(self, pool: ConnectionPool, sentinel: Sentinel | None = None) -> None:
        self.redis = Redis.from_pool(pool)
        self._pool = pool
        self._sentinel = sentinel

    def track(self, keys: Keys) -> Tracking:
        """Return what one session of a watch needs."""
        # Made as the pool makes them, but not one of the pool's: it lives as long as the watch.
        connection = self._pool.connection_class(**self._pool.connection_kwargs)
        return TrackingConnection(connection, keys, keys.probe + token_hex(6))

    async def pages(self, pattern: str, count: int) -> AsyncIterator[list[bytes]]:
        """Iterate over the keys that match, some at a time; a key may come twice."""
        cursor = 0
        while True:
            async with bounded():
                cursor, page = await self.redis.scan(cursor, match=pattern, count=count)
            if page:
                yield [key for key in page if isinstance(key, bytes)]
            if cursor == 0:
                return

    async def close(self) -> None:
        """Let go of every connection."""
        async with bounded():
            await self.redis.aclose()
            if self._sentinel is not None:
                await self._sentinel.aclose()


class _Sentinels(Sentinel):
    """Sentinels that say why nobody names a primary: the library tells objects, and no cause."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the primary; raises MasterNotFoundError when none is named.

        The Sentinel that names it is asked first from then on.
        """
        causes: list[str] = []
        for number, one in enumerate(self.sentinels):
            try:
                told = await one.sentinel_masters()
            except (LostConnectionError, LateError) as error:
                at = one.connection_pool.connection_kwargs
                causes.append(f"{at['host']}:{at['port']}: {str(error) or 'it did not answer'}")
                continue
            state = told.get(service_name) if isinstance(told, dict) else None
            if state and self.check_master_state(state, service_name):
                self.sentinels.insert(0, self.sentinels.pop(number))
                return state["ip"], state["port"]
        words = "; ".join([f"no Sentinel names a primary of '{service_name}'", *causes])
        raise MasterNotFoundError(words)


def open_link(url: str) -> Link:
    """Return the link of a URL with one of `SCHEMES`.

    Raises:
        ConfigError: it cannot be used.
    """
    scheme = url.partition("://")[0]
    try:
        if scheme.endswith(SENTINEL):
            return _sentinel_link(url)
        if scheme.endswith(CLUSTER):
            return _cluster_link(url)
        return PoolLink(ConnectionPool.from_url(url, **connection_settings()))
    except (ValueError, TypeError, RedisError):
        raise ConfigError(_UNUSABLE) from None


class _Parts(NamedTuple):
    """What a URL of several servers says; `settings` are of connections to data servers."""

    hosts: list[tuple[str, int]]
    path: list[str]
    options: dict[str, str]
    settings: dict[str, object]


def _sentinel_link(url: str) -> Link:
    """Read `redis+sentinel://[user:password@]host[:port],.../service[/db][?options]`."""
    parts = _split(url, SENTINEL, _SENTINEL_PORT, ("sentinel_username", "sentinel_password"))
    if not parts.path:
        raise ConfigError("redis: the URL names no service: redis+sentinel://HOST:26379/SERVICE")
    settings = parts.settings
    is_tls = settings.pop("connection_class", None) is SSLConnection
    asking = {name: value for name, value in settings.items() if name.startswith("ssl_")}
    for name in ("username", "password"):
        if value := parts.options.get(f"sentinel_{name}"):
            asking[name] = value
    sentinel = _Sentinels(  # type: ignore[no-untyped-call]
        parts.hosts,
        sentinel_kwargs={
            **connection_settings(),
            **asking,
            "ssl": is_tls,
            "protocol": 2,  # its answers have no use for more, and Sentinels of Redis 6 no HELLO
            "socket_timeout": CONNECT_TIMEOUT_S / 2,  # one that hangs must leave time for the next
            "socket_connect_timeout": CONNECT_TIMEOUT_S / 2,
        },
    )
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        parts.path[0], sentinel, **settings, ssl=is_tls
    )
    return PoolLink(pool, sentinel)


def _cluster_link(url: str) -> Link:
    """Read `redis+cluster://[user:password@]host[:port],...[?options]`."""
    parts = _split(url, CLUSTER, _PORT, ())
    if parts.path and parts.path != ["0"]:
        raise ConfigError("redis: a cluster has no databases: leave out what follows the hosts")
    settings = parts.settings
    is_tls = settings.pop("connection_class", None) is SSLConnection
    settings.pop("db", None)
    return ClusterLink(parts.hosts, {**settings, "ssl": is_tls})


def _split(url: str, kind: str, port: int, own_options: tuple[str, ...]) -> _Parts:
    split = urlsplit(url.replace(kind, "", 1))
    login, at, hosts = split.netloc.rpartition("@")
    path = [word for word in split.path.split("/") if word]
    options = dict(parse_qsl(split.query, strict_parsing=bool(split.query)))
    others = urlencode({name: value for name, value in options.items() if name not in own_options})
    db = path[1] if kind == SENTINEL and len(path) > 1 else "0"
    settings = parse_url(f"{split.scheme}://{login}{at}-/{int(db)}?{others}")
    settings.pop("host")
    found = [_host(one, port) for one in hosts.split(",")]
    return _Parts(found, path, options, {**connection_settings(), **settings})


def _host(text: str, port: int) -> tuple[str, int]:
    one = urlsplit(f"//{text}")
    if not one.hostname or one.path or one.query or one.fragment:
        raise ValueError
    return one.hostname, one.port or port
