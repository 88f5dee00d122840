"""Runtime model versioning: which model version serves each request, and why.

The floors, top to bottom; imports only ever point down:

    __main__  cli  app     entry; `app` is the only place that wires parts together
    config                 process configuration: TOML file < environment < flags
    dataplane  admin       bytes in, bytes out; the admin listener
    decide                 head -> identity -> decision
    store identity upstream    Redis; keys and tokens; connections to model containers
    telemetry  runtime     metrics and logs; tasks, clock, processes
    policy  wire           PURE: documents to snapshots to decisions; heads and framing
    model  errors          PURE: the structs and codes everything above speaks in

One way through:

    bytes -> RequestHead -> Identity -> Decision -> Endpoint -> response
          -> ExchangeRecord -> metrics, log

Policy: Redis -> codec -> validate -> Snapshot -> one reference swap.
"""

__version__ = "0.1.0"
