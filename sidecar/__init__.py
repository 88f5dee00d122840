"""Runtime model versioning: which model version serves each request, and why.

The floors, top to bottom; imports only ever point down:

    __main__  cli  app     entry; `app` is the only place that wires parts together
    config                 process configuration: TOML file < environment < flags
    dataplane  admin       bytes in, bytes out; the admin listener
    controller             what runs beside requests: shadow tests, compared and counted
    decide                 head -> identity -> decision
    store identity         Redis; keys and tokens
    upstream  audit        connections to model containers; chains of what was done and decided
    registry               what registries of models say, asked by commands alone
    telemetry  runtime     metrics and logs; tasks, clock, processes
    policy  shadow  wire   PURE: documents to snapshots to decisions; what pairs of answers
                           amount to; heads and framing
    model  errors          PURE: the structs and codes everything above speaks in

One way through:

    bytes -> RequestHead -> Identity -> Decision -> Endpoint -> response
          -> ExchangeRecord -> metrics, log, audit

Policy: Redis -> codec -> validate -> Snapshot -> one reference swap.
"""

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Tell whether the hot modules run as C (docs/adr/0002-compiled-hot-path.md)."""
    spec = find_spec("sidecar.dataplane.exchange")  # found, not imported: `rmv --version` is quick
    origin = spec.origin if spec else None
    return origin is not None and origin.endswith(tuple(EXTENSION_SUFFIXES))
