"""`python -m sidecar.app`: what `rmv serve` becomes, and what it starts its workers as."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING

from sidecar.app.spec import LISTENING_VARIABLE, WORKER_VARIABLE
from sidecar.config import take_over
from sidecar.errors import ConfigError, SidecarError
from sidecar.runtime import accelerators
from sidecar.runtime.questions import excuse
from sidecar.runtime.slices import lasting
from sidecar.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sidecar.config import Config

    Runner = Callable[[Coroutine[None, None, None]], None]

_log = logging.getLogger("sidecar")


def main() -> None:
    """Serve until SIGTERM or SIGINT; exit with 1 and one clear line if that cannot begin.

    Told to end before it has begun, it ends well.
    """
    logs.configure()
    try:
        _serve()
    except asyncio.CancelledError:
        return
    except (SidecarError, OSError) as error:
        sys.stderr.write(f"error: {_in_words(error)}\n")
        raise SystemExit(1) from error


def _serve() -> None:
    spec = take_over(os.environ)
    run = _runner(spec.config)
    if WORKER_VARIABLE in os.environ:
        with lasting():
            from sidecar.app.worker import run_worker  # noqa: PLC0415 -- see sidecar.app

        listening = socket.socket(fileno=int(os.environ[LISTENING_VARIABLE]))
        answering = socket.socket(fileno=int(os.environ[WORKER_VARIABLE]))
        try:
            run(run_worker(spec.config, listening, answering))
        except (SidecarError, OSError) as error:
            excuse(answering, _in_words(error))
            raise
    else:
        with lasting():
            from sidecar.app.control import run_control  # noqa: PLC0415

        run(run_control(spec))


def _runner(config: Config) -> Runner:
    """Return what runs the event loop; ConfigError when what makes it fast is not there."""
    is_worker = WORKER_VARIABLE in os.environ
    lacking = [] if is_worker else accelerators.missing()
    if lacking and not config.allow_slow:
        what = "\n  ".join(lacking)
        raise ConfigError(
            f"modules in C are missing, without which it is many times slower:\n  {what}\n"
            "Install the packages of requirements/runtime.txt for this platform, or start all the "
            "same with `allow_slow = true` (flag --allow-slow)"
        )
    for one in lacking:
        _log.warning("IT IS SLOW: a module in C is missing", extra={"missing": one})
    try:
        from uvloop import run  # noqa: PLC0415 -- it may be what is missing
    except ImportError:
        return asyncio.run
    return run


def _in_words(error: SidecarError | OSError) -> str:
    """Return what people read of an error: of the system's, not its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


if __name__ == "__main__":
    main()
