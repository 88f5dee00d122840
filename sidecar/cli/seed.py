"""PURE. The policy that the flags of `rmv serve` describe."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sidecar.errors import ConfigError
from sidecar.model.policy import Policy, Shadow, Version
from sidecar.policy.address import ANYWHERE, AllowList
from sidecar.policy.validate import validate

SOURCE = "flags"
METHODS = ("POST",)  # of a shadow: it is what inference is asked by


def seed_policy(
    model: str | None,
    versions: Sequence[str],
    default: str | None,
    shadows: Sequence[str],
    allowed: AllowList = ANYWHERE,
) -> Policy | None:
    """Return the policy of `--version NAME=URL`, `--default` and `--shadow NAME[=PERCENT]`.

    None when no version is given: then `model` only names the model that is fronted. `allowed` is
    where endpoints may be.

    Raises:
        ConfigError: a flag cannot be read, one is missing, or the policy they make is not valid.
    """
    if not versions:
        if default is not None or shadows:
            msg = "--default and --shadow need versions: --version v1=http://127.0.0.1:9001"
            raise ConfigError(msg)
        return None
    if model is None:
        msg = "--version needs the name of the model: --model NAME"
        raise ConfigError(msg)
    endpoints: dict[str, tuple[str, ...]] = {}
    for text in versions:
        name, url = _pair(text)
        endpoints[name] = (*endpoints.get(name, ()), url)
    mirrored = tuple(_shadow(text) for text in shadows)
    policy = Policy(
        model=model,
        versions={name: Version(endpoints=urls) for name, urls in endpoints.items()},
        default=default or _only(endpoints, mirrored),
        shadows=mirrored,
    )
    if problems := validate(policy, SOURCE, allowed):
        raise ConfigError("\n".join(str(problem) for problem in problems))
    return policy


def _pair(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    if not name or not url:
        msg = f"--version {text}: write NAME=URL, like v1=http://127.0.0.1:9001"
        raise ConfigError(msg)
    return name, url


def _shadow(text: str) -> Shadow:
    name, given, percent = text.partition("=")
    try:
        share = float(percent) if given else 100.0
    except ValueError:
        share = -1.0
    if not 0 <= share <= 100:  # noqa: PLR2004 -- percent; refuses NaN, too
        msg = f"--shadow {text}: write NAME or NAME=PERCENT, from 0 to 100"
        raise ConfigError(msg)
    return Shadow(version=name, percent=share, methods=METHODS)


def _only(versions: Collection[str], shadows: Sequence[Shadow]) -> str:
    """Return the only version that can be meant to answer."""
    answering = [name for name in versions if name not in {one.version for one in shadows}]
    if len(answering) != 1:
        msg = f"--default is needed: it says which of {', '.join(versions)} answers"
        raise ConfigError(msg)
    return answering[0]
