"""Which store a configured URL means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import ConfigError
from sidecar.store.embedded import embedded_url
from sidecar.store.keys import Keys
from sidecar.store.link import SCHEMES
from sidecar.store.redis import RedisStore

if TYPE_CHECKING:
    from sidecar.store.base import Store


def open_store(url: str, prefix: str = "rmv", state_dir: str = "") -> Store:
    """Return the store of a URL or of `embedded`; it connects when used.

    For `embedded` the server of `state_dir` must run by then: see `EmbeddedServer`.

    Raises:
        ConfigError: `url` is none of these, or cannot be used.
    """
    keys = Keys(prefix)
    if url == "embedded":
        return RedisStore(embedded_url(state_dir), keys)
    if url.startswith(SCHEMES):
        return RedisStore(url, keys)
    raise ConfigError(
        "redis: the URL must begin with redis://, rediss://, unix://, redis+sentinel:// or "
        "redis+cluster://, or be 'embedded'"
    )
