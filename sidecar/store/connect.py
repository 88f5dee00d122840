"""Which store a configured URL means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import ConfigError
from sidecar.store.embedded import embedded_url
from sidecar.store.keys import Keys
from sidecar.store.redis import RedisStore

if TYPE_CHECKING:
    from sidecar.store.base import Store

_SCHEMES = ("redis://", "rediss://", "unix://")


def open_store(url: str, prefix: str = "rmv", state_dir: str = "") -> Store:
    """Return the store of `redis://`, `rediss://`, `unix://` or `embedded`; it connects when used.

    For `embedded` the server of `state_dir` must run by then: see `EmbeddedServer`.

    Raises:
        ConfigError: `url` is none of these, or cannot be used.
    """
    keys = Keys(prefix)
    if url == "embedded":
        return RedisStore(embedded_url(state_dir), keys)
    if url.startswith(_SCHEMES):
        return RedisStore(url, keys)
    scheme = url.partition("://")[0]  # no more of it: a URL may hold a password
    if "sentinel" in scheme or "cluster" in scheme:
        raise ConfigError(
            f"redis: {scheme} is not supported yet; name one standalone server "
            "by redis://, rediss:// or unix://"
        )
    raise ConfigError(
        "redis: the URL must begin with redis://, rediss:// or unix://, or be 'embedded'"
    )
