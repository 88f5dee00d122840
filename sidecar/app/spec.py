"""What the control process and its workers agree on."""

from __future__ import annotations

from typing import Final

WORKER_VARIABLE: Final = "RMV_WORKER_SOCKET"
"""Set in a worker: the path of the unix socket on which it answers the control process."""

READY: Final = "ready"  # answered with why a worker should get no traffic, or nothing
METRICS: Final = "metrics"  # answered with an exposition
