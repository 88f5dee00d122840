"""Which requests leave a context behind: some of each model, spread over all that come.

Hot path: a request that leaves none costs one subtraction and one test. How many requests are
passed over is drawn anew for each context, around the pace of the last second, so that callers who
take turns are not met in step. Of what came in a second, each of its contexts stands for an equal
part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sidecar.model.context import Context
from sidecar.policy.attributes import MAX_VERSION_CHARS, attributes_of, take, take_grants

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model.decision import Decision
    from sidecar.model.identity import Identity
    from sidecar.model.policy import Policy
    from sidecar.model.request import RequestHead

NEVER: Final = 1 << 60  # requests: more than a worker lives to see


class Tally:
    """Of one model: how many requests came, and which of them were taken.

    `left` is how many more come until one is taken; it counts down even when none is.
    """

    __slots__ = (
        "_attributes",
        "_credit",
        "_draw",
        "_instance",
        "_owed",
        "_policy",
        "_seen",
        "_set_to",
        "_stride",
        "_taken",
        "left",
    )

    def __init__(
        self, policy: Policy, share: float, draw: Callable[[], float], instance: str
    ) -> None:
        self._policy = policy
        self._attributes: frozenset[str] | None = None
        self._draw = draw
        self._instance = instance
        self._credit = max(share, 1.0) if share else 0.0  # contexts that may be taken now
        self._stride = 1  # requests from one context to the next, about
        self._seen = 0  # requests of this second, as far as `left` was read
        self._owed = 0  # requests of earlier seconds that no context stands for
        self._taken: list[Context] = []
        self.left = self._set_to = 1 if share else NEVER

    def is_due(self) -> bool:
        """Count a request; return whether it is to be taken."""
        self.left -= 1
        return self.left <= 0

    def take(
        self,
        identity: Identity,
        head: RequestHead,
        decision: Decision,
        at_s: float,
        duration_s: float,
    ) -> None:
        """Take the context of the request that is due."""
        if self._attributes is None:
            self._attributes = attributes_of(self._policy)
        asked, refusal = head.asked_version, decision.refusal
        self._taken.append(
            Context(
                request_id=head.request_id.decode("ascii"),
                at_s=at_s,
                model=decision.model,
                tenant=identity.tenant,
                version=decision.version,
                reason=decision.reason,
                revision=decision.revision,
                duration_s=duration_s,
                instance=self._instance,
                attributes=take(self._attributes, identity, head)
                | take_grants(identity, decision.model),
                asked_version=None if asked is None else _version_text(asked),
                rejected={one.version: one.cause.value for one in decision.rejected},
                code="" if refusal is None else refusal.slug,
            )
        )
        self._credit -= 1.0
        self._count()
        self._rest()

    def follow(self, policy: Policy) -> None:
        """Take from now on what another policy looks at."""
        self._policy = policy
        self._attributes = None

    def seen(self) -> int:
        """Return how many requests came since the last `drain`."""
        self._count()
        return self._seen

    def drain(self, share: float) -> list[Context]:
        """Return what was taken since the last call, and begin a second with this share.

        A share of less than one context is saved up; more than a second's worth never is.
        """
        seen = self.seen()
        taken, self._taken = self._taken, []
        self._seen = 0
        self._credit = min(self._credit + share, max(share, 1.0))
        self._stride = max(int(seen / max(share, 1.0)), 1)
        if self.left > 2 * self._stride:  # what was drawn at another pace
            self._rest()
        if not taken:
            self._owed += seen
            return []
        stands_for = (seen + self._owed) / len(taken)
        self._owed = 0
        return [replace(one, stands_for=stands_for) for one in taken]

    def _count(self) -> None:
        self._seen += self._set_to - self.left
        self._set_to = self.left

    def _rest(self) -> None:
        """Pass over as many requests as are drawn: 1 to twice the stride, the stride on average."""
        gap = 1 + int(self._draw() * (2 * self._stride - 1)) if self._credit >= 1.0 else NEVER
        self._count()
        self.left = self._set_to = gap


class Sampler:
    """The tallies of one worker, which divide `per_second` contexts between the busy models."""

    def __init__(self, per_second: int, draw: Callable[[], float], instance: str) -> None:
        """Take about `per_second` contexts; `draw` returns numbers evenly from 0 to below 1."""
        self._per_second = per_second
        self._draw = draw
        self._instance = instance
        self._tallies: dict[str, Tally] = {}

    def follow(self, model: str, policy: Policy | None) -> None:
        """Learn of a model's policy; None is a model that is gone."""
        tally = self._tallies.get(model)
        if policy is None:
            self._tallies.pop(model, None)
        elif tally is not None:
            tally.follow(policy)
        else:
            share = self._share(len(self._tallies) + 1)
            self._tallies[model] = Tally(policy, share, self._draw, self._instance)

    def tally(self, model: str) -> Tally | None:
        """Return the tally of a model; None for one that has no policy."""
        return self._tallies.get(model)

    def drain(self) -> list[Context]:
        """Return what was taken since the last call; to be called once a second."""
        busy = sum(tally.seen() > 0 for tally in self._tallies.values())
        share = self._share(busy)
        return [one for tally in self._tallies.values() for one in tally.drain(share)]

    def _share(self, models: int) -> float:
        return self._per_second / max(models, 1)


def _version_text(asked: bytes) -> str:
    return asked.decode("utf-8", "replace")[:MAX_VERSION_CHARS]
