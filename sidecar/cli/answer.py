"""What a request would get, and why, told to people."""

from __future__ import annotations

from sidecar.cli import output, steps
from sidecar.policy.answer import Answer


def tell(found: Answer, *, is_brief: bool) -> None:
    """Print all of it, for people; each step to the decision unless `is_brief`."""
    decision = found.decision
    code = decision.refusal
    refused = "" if code is None else f"{code.status} {code.slug}: {decision.detail}"
    rejected = (f"{one.version} ({one.cause.value})" for one in decision.rejected)
    output.facts(
        [
            ("model", decision.model),
            ("tenant", found.identity.tenant),
            ("version", decision.version),
            ("lineage", decision.lineage),
            ("refused", refused),
            ("reason", decision.reason),
            ("revision", str(decision.revision)),
            ("rejected", ", ".join(rejected)),
            ("shadows", ", ".join(shadow.version for shadow in found.shadows)),
        ]
    )
    if not is_brief:
        steps.tell(found.trace, found.identity, found.killed)
