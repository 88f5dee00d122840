"""Active health checks: which endpoints can serve, and so which versions are ready.

A check is an endpoint and the way it is asked; versions and models that ask the same way share
it. What has not been asked yet counts as healthy: a sidecar that starts, or a version that is
new, must not refuse what nobody has found wrong. Another way of asking changes nothing by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from sidecar.runtime.tasks import repeat, spawn
from sidecar.upstream.endpoint import spelled
from sidecar.upstream.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sidecar.model.policy import Health, Policy
    from sidecar.telemetry.metrics import Metrics
    from sidecar.upstream.pool import Pool, Upstreams

    Key = tuple[str, Health]  # an endpoint's URL, and how it is asked
    Checked = dict[str, tuple[Key, ...]]  # by version

ENDPOINT_HEALTHY: Final = "rmv_endpoint_healthy"
_JITTER: Final = 0.1  # of an interval: workers that start together must not ask together for ever
_log = logging.getLogger("sidecar.upstream")


class Standing:
    """What is held of one endpoint, by how many answers in a row said otherwise."""

    def __init__(self, health: Health, *, is_healthy: bool = True) -> None:
        self.is_healthy = is_healthy
        self._health = health
        self._against = 0

    def take(self, *, is_good: bool) -> bool:
        """Count one answer; return whether it changed what is held."""
        if is_good == self.is_healthy:
            self._against = 0
            return False
        self._against += 1
        health = self._health
        if self._against < (health.healthy_after if is_good else health.unhealthy_after):
            return False
        self.is_healthy = is_good
        self._against = 0
        return True


class _Check:
    """One running check."""

    def __init__(self, standing: Standing, task: asyncio.Task[None]) -> None:
        self.standing = standing
        self.task = task


class HealthChecks:
    """Every check of this worker; `update` keeps them to what the policies say.

    `upstreams` are for checks alone, and keep no idle connections. `traffic` are those whose pools
    are marked. `on_unready` is told a model's versions that have no healthy endpoint. `draw` gives
    random numbers from 0 to 1.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        traffic: tuple[Upstreams, ...],
        metrics: Metrics,
        on_unready: Callable[[str, frozenset[str]], None],
        draw: Callable[[], float],
    ) -> None:
        self._upstreams = upstreams
        self._traffic = traffic
        self._metrics = metrics
        self._on_unready = on_unready
        self._draw = draw
        self._versions: dict[str, Checked] = {}  # by model
        self._users: Counter[Key] = Counter()  # in how many models
        self._checks: dict[Key, _Check] = {}

    def update(self, model: str, policy: Policy | None) -> None:
        """Start and stop checks as the policy of `model` now says; None has no checks."""
        old = self._keys(model)
        before = self._versions.pop(model, {})
        if policy is not None and (versions := _checked(policy)):
            self._versions[model] = versions
        new = self._keys(model)
        self._users.update(new)
        self._users.subtract(old)
        for key in new - self._checks.keys():
            self._start(key, is_healthy=self._was_healthy(key, before, self._versions[model]))
        for key in old:
            if not self._users[key]:
                self._stop(key)
        self._judge(model)

    def close(self) -> None:
        """Stop every check."""
        for check in self._checks.values():
            check.task.cancel()
        self._upstreams.close()

    def _keys(self, model: str) -> set[Key]:
        return {key for keys in self._versions.get(model, {}).values() for key in keys}

    def _was_healthy(self, key: Key, before: Checked, after: Checked) -> bool:
        """Return whether any version that is to be checked by `key` held its endpoint healthy.

        True if none knows it.
        """
        held = [
            self._checks[old].standing.is_healthy
            for version, keys in after.items()
            if key in keys
            for old in before.get(version, ())
            if old[0] == key[0]
        ]
        return any(held) or not held

    def _start(self, key: Key, *, is_healthy: bool) -> None:
        url, health = key
        standing = Standing(health, is_healthy=is_healthy)
        task = spawn(self._run(key, standing), name=f"health {url}")
        self._checks[key] = _Check(standing, task)
        self._mark(url)

    def _stop(self, key: Key) -> None:
        del self._users[key]
        self._checks.pop(key).task.cancel()
        self._mark(key[0])
        self._upstreams.retain({url for url, _ in self._checks})

    async def _run(self, key: Key, standing: Standing) -> None:
        url, health = key
        pool = _pool(self._upstreams, url)
        await asyncio.sleep(self._draw() * _JITTER * health.interval_s)

        async def ask() -> None:
            outcome = await probe(pool, health.path, health.timeout_s)
            if outcome is not None and standing.take(is_good=is_good(health, outcome)):
                self._changed(url, health, standing, outcome)
            await asyncio.sleep(health.interval_s * (1 + _JITTER * (2 * self._draw() - 1)))

        await repeat(ask, part="health")

    def _changed(self, url: str, health: Health, standing: Standing, outcome: int | str) -> None:
        told = {
            "endpoint": url,
            "versions": spelled(self._users_of((url, health))),
            "path": health.path,
            "answer": outcome,
        }
        if standing.is_healthy:
            _log.warning("endpoint healthy", extra=told)
        else:
            _log.warning("endpoint unhealthy", extra=told)
        self._mark(url)
        for model in self._versions:
            if (url, health) in self._keys(model):
                self._judge(model)

    def _users_of(self, key: Key) -> Iterator[tuple[str, str]]:
        for model, versions in self._versions.items():
            for version, keys in versions.items():
                if key in keys:
                    yield model, version

    def _mark(self, url: str) -> None:
        """Tell pools and metrics: an endpoint is healthy while one of its checks says so.

        Versions in one server may be asked by paths of their own; one that is not loaded is no
        reason to keep the others from it.
        """
        standings = [check.standing for key, check in self._checks.items() if key[0] == url]
        is_healthy = not standings or any(one.is_healthy for one in standings)
        for upstreams in self._traffic:
            _pool(upstreams, url).is_healthy = is_healthy
        gauge = ENDPOINT_HEALTHY, "endpoint", url
        if standings:
            self._metrics.levels[gauge] = float(is_healthy)
        else:
            self._metrics.levels.pop(gauge, None)

    def _judge(self, model: str) -> None:
        unready = frozenset(
            version
            for version, keys in self._versions.get(model, {}).items()
            if not any(self._checks[key].standing.is_healthy for key in keys)
        )
        self._on_unready(model, unready)


def is_good(health: Health, outcome: int | str) -> bool:
    """Return whether an answer, or what stands for its absence, is one of a healthy endpoint."""
    if isinstance(outcome, str):
        return False
    return outcome in health.status if health.status else 200 <= outcome <= 299  # noqa: PLR2004  # RFC 9110: 2xx


def _checked(policy: Policy) -> Checked:
    return {
        name: tuple((url, version.health) for url in version.endpoints)
        for name, version in policy.versions.items()
        if version.health is not None
    }


def _pool(upstreams: Upstreams, url: str) -> Pool:
    return upstreams.group((url,)).pick()
