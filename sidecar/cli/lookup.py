"""What the store holds of one model, or a failure that helps to find the right one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from sidecar.cli import output
from sidecar.errors import SidecarError
from sidecar.model.policy import Policy
from sidecar.store.base import Store


class NotFoundError(SidecarError):
    """The store has no such model, or its policy no such version."""


async def policy_of(store: Store, model: str) -> Policy:
    """Return a model's policy.

    Raises:
        NotFoundError: the store has none; the text names those it has.
        PolicyError: the stored document is not valid.
    """
    stored = await store.get_policy(model)
    if stored is not None:
        return stored.policy
    raise NotFoundError(
        _unknown(f"the store has no policy of `{model}`", model, await store.models())
    )


async def expect_version(store: Store, model: str, version: str, *, is_forced: bool) -> None:
    """Raise NotFoundError when the policy lacks the version; with `is_forced` only warn of it."""
    lacking = await _lacking(store, model, version)
    if lacking and not is_forced:
        msg = f"{lacking}; --force does it all the same"
        raise NotFoundError(msg)
    if lacking:
        output.warn(lacking)


async def _lacking(store: Store, model: str, version: str) -> str:
    try:
        policy = await policy_of(store, model)
    except NotFoundError as error:
        return str(error)
    if not version or version in policy.versions:
        return ""
    return _unknown(f"the policy of {model} has no version `{version}`", version, policy.versions)


def _unknown(what: str, wanted: str, known: Iterable[str]) -> str:
    known = list(known)
    if similar := get_close_matches(wanted, known, n=1):
        return f"{what}; did you mean `{similar[0]}`?"
    return f"{what}; it has {', '.join(known[:20]) or 'none'}"
