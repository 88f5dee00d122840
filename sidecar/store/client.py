"""How this program talks to Redis: bounded in time, and with its errors translated."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.maint_notifications import MaintNotificationsConfig

from sidecar.errors import StoreRefusedError, StoreUnavailableError, WrongTypeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONNECT_TIMEOUT_S = 1.0
CALL_TIMEOUT_S = 2.0  # of a whole call, retry included; a healthy server takes under 1 ms
_RETRIES = 1  # on a fresh connection, at once; the library's own ten wait for seconds

FOREIGN_ERRORS = (RedisError, RedisClusterException, OSError, TimeoutError)
_ANSWERS = (AuthenticationError, ResponseError)


@asynccontextmanager
async def bounded(key: str = "") -> AsyncIterator[None]:
    """Bound the calls within, and turn what goes wrong into `StoreUnavailableError`.

    What the server answers by an error is a `StoreRefusedError`; of a `key` that holds another type
    of value than is asked for, a `WrongTypeError`.
    """
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            yield
    except FOREIGN_ERRORS as e:
        if key and "WRONGTYPE" in str(e):
            raise WrongTypeError(
                f"{key} holds another type of value than rmv keeps there (WRONGTYPE). Look at it "
                f"with `TYPE {key}`; move it away with RENAME, or DEL it"
            ) from e
        # A timeout of asyncio has no words of its own.
        late = f"it did not answer within {CALL_TIMEOUT_S:g} s"
        words = str(e) or (late if isinstance(e, TimeoutError) else type(e).__name__)
        # A login that failed comes inside of an error of the connection.
        is_answered = any(isinstance(one, _ANSWERS) for one in (e, e.__cause__))
        failure = StoreRefusedError if is_answered else StoreUnavailableError
        raise failure(f"Redis: {words}") from e


def connection_settings() -> dict[str, object]:
    """Return how every connection is made."""
    return {
        "protocol": 3,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        # The library bounds writes by `wait_for`, which may swallow a cancellation before
        # Python 3.12; `bounded` does it instead.
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), _RETRIES),
        # A handshake that only one vendor's cloud answers.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
