"""A stored document as the policy of its key: what every reader of a store accepts and refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.policy import codec
from sidecar.policy.address import ANYWHERE, AllowList
from sidecar.policy.problem import PolicyError, Problem, by_rule
from sidecar.policy.steps import finish
from sidecar.store.doubts import NO_TEXT

if TYPE_CHECKING:
    from sidecar.model.policy import Policy
    from sidecar.policy.steps import Steps

MAX_YAML_CHARS: Final = 512 * 1024
"""Of a document in YAML: whoever reads it serves requests meanwhile. `rmv apply` stores JSON."""

NO_STRING: Final = b"\0"
"""Stands for the document of a key that holds no string; no document may have a NUL in it."""


def load(raw: bytes, *, model: str, source: str, allowed: AllowList = ANYWHERE) -> Policy:
    """Read the document stored for `model`; `source` names its key in problems.

    `allowed` is where endpoints may be: for who takes the policy into force.

    Raises:
        PolicyError: it does not parse or validate, or it names another model than its key.
    """
    return finish(loading(raw, model=model, source=source, allowed=allowed))


def loading(raw: bytes, *, model: str, source: str, allowed: AllowList = ANYWHERE) -> Steps[Policy]:
    """Do what `load` does, in steps."""
    if raw == NO_STRING:
        raise no_string(source)
    policy = yield from codec.loading(raw, source=source, allowed=allowed, most_yaml=MAX_YAML_CHARS)
    if policy.model != model:
        reason = f'is "{policy.model}", but the key says "{model}"'
        raise PolicyError((yield from codec.locating(raw, [Problem(source, "model", reason)])))
    return policy


def checked(policy: Policy, source: str) -> Policy:
    """Return a policy as it will be read from the store.

    Raises:
        PolicyError: it would be refused.
    """
    raw = codec.encode(policy)
    try:
        return codec.load(raw, source=source)
    except PolicyError as error:
        raise without_lines(error, raw) from error


def without_lines(error: PolicyError, raw: bytes) -> PolicyError:
    """Return why a document is refused that was encoded here, so that nobody knows its lines."""
    try:
        rules = codec.decode(raw, source="").rules
    except PolicyError:
        rules = ()
    return PolicyError(by_rule(error.problems, [rule.id for rule in rules]))


def no_string(source: str) -> PolicyError:
    """Return what is wrong with a key that holds no string."""
    return PolicyError([Problem(source, "", f"{NO_TEXT}: nothing can be read from it; delete it")])
