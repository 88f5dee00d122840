"""`python -m sidecar.app`: what `rmv serve` becomes, and what it starts its workers as."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import uvloop

from sidecar.app.spec import LISTENING_VARIABLE, WORKER_VARIABLE
from sidecar.config import take_over
from sidecar.errors import SidecarError
from sidecar.runtime.questions import excuse
from sidecar.telemetry import logs


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
    if WORKER_VARIABLE in os.environ:
        from sidecar.app.worker import run_worker  # noqa: PLC0415 -- see sidecar.app

        listening = socket.socket(fileno=int(os.environ[LISTENING_VARIABLE]))
        answering = socket.socket(fileno=int(os.environ[WORKER_VARIABLE]))
        try:
            uvloop.run(run_worker(spec.config, listening, answering))
        except (SidecarError, OSError) as error:
            excuse(answering, _in_words(error))
            raise
    else:
        from sidecar.app.control import run_control  # noqa: PLC0415

        uvloop.run(run_control(spec))


def _in_words(error: SidecarError | OSError) -> str:
    """Return what people read of an error: of the system's, not its number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


if __name__ == "__main__":
    main()
