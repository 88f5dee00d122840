"""One commit of a changed policy, and what to do when somebody else was faster."""

from __future__ import annotations

from sidecar.cli import output
from sidecar.cli.failure import advised
from sidecar.cli.review import read
from sidecar.errors import StoreConflictError
from sidecar.model.policy import Policy
from sidecar.store.base import Store


async def commit(
    store: Store, policy: Policy, expected: bytes | None, actor: str, comment: str
) -> int:
    """Commit a policy in the place of the bytes that were read; return its revision.

    Raises:
        StoreConflictError: somebody else changed the document; what they meant is not lost.
        PolicyError: the policy is not valid.
    """
    try:
        committed = await store.commit(policy, expected=expected, actor=actor, comment=comment)
    except StoreConflictError as error:
        raise conflict(policy.model) from error
    if store.signer is None and not store.doubt_of(committed):  # else it is told already
        before = read(expected, policy.model)
        if before is not None and before.signature:
            output.warn(
                f"{policy.model} was signed before, and revision {committed.revision} is not: "
                "sidecars that trust keys refuse it (--key signs)"
            )
    return committed.revision


def conflict(model: str) -> StoreConflictError:
    """Return what to say when somebody else was faster."""
    error = StoreConflictError(f"{model}: somebody else changed it just now")
    return advised(error, f"Look at `rmv get {model}`, and try again.")
