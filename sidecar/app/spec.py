"""What the control process and its workers agree on."""

from __future__ import annotations

from typing import Final

from sidecar.controller.trials import CAPPED
from sidecar.upstream.health import ENDPOINT_HEALTHY

WORKER_VARIABLE: Final = "RMV_WORKER_ANSWERING"
"""Set in a worker: the descriptor, inherited, on which it answers the control process."""

LISTENING_VARIABLE: Final = "RMV_WORKER_LISTENING"
"""Set in a worker: the descriptor of the listening socket that it has inherited."""

READY: Final = "ready"  # answered with why a worker should get no traffic, or nothing
METRICS: Final = "metrics"  # answered with an exposition
KEYS: Final = "keys"  # about what `identity.holding` spells; answered with nothing
UNKNOWN_KEY: Final = "unknown-key"  # a notice, about the issuer of a token that names one

POLICIES: Final = "rmv_policies"
POLICY_FAULTS: Final = "rmv_policy_faults"
POLICIES_STALE: Final = "rmv_policies_stale"
POLICIES_LOST: Final = "rmv_policies_lost"
POLICIES_BEHIND: Final = "rmv_policies_behind"
SIGNATURE_REFUSED: Final = "rmv_signature_refused"
IDENTITIES: Final = "rmv_identities"
REVOCATIONS: Final = "rmv_revocations"
LONGEST_STALL: Final = "rmv_loop_stall_seconds"
SHARED_GAUGES: Final = frozenset(
    (
        LONGEST_STALL,
        POLICIES,
        POLICY_FAULTS,
        POLICIES_STALE,
        POLICIES_LOST,
        POLICIES_BEHIND,
        REVOCATIONS,
        SIGNATURE_REFUSED,
        CAPPED,
        ENDPOINT_HEALTHY,
    )
)
"""Of these the largest counts: most tell in each worker of the one world outside."""
