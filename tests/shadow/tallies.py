"""A tally of a test whose differences are planted."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from sidecar.model.comparison import Comparison, Thresholds
from sidecar.model.policy import Shadow
from sidecar.model.shadow import Answer, Cost, Histogram, Ledger, Outcome, Share, Tally
from sidecar.shadow.tally import add_failure, add_pair

if TYPE_CHECKING:
    from collections.abc import Mapping

HOSTILE = "a|b`<script>alert(1)</script>\n# & *x* ]( \x00\ud800"
AT_S = 1_795_000_000.0
ASKED = Thresholds(latency_p95_ratio=1.5)
SHADOW = Shadow("v2", percent=25, compare=Comparison(control="v1b", thresholds=ASKED))
PLAIN = Shadow("v2", compare=Comparison(thresholds=ASKED))


def planted(
    pairs: int = 1500,
    shadow: Mapping[str, float] | None = None,
    noise: Mapping[str, float] | None = None,
    *,
    primary: str = "v1",
) -> Tally:
    """A test in which fields differ at these rates, and between client's and control's at those.

    The shadow is 1.2 times as slow, fails 2 % of its answers, and has no answer to 1 %.
    """
    random = Random(1)  # noqa: S311  # no secret
    tally = Tally("tumor", "v2", "0123456789ab", AT_S, ledger=ledger(pairs), cost=cost())
    for n in range(pairs):
        label = random.choice("xyz")
        sure = random.random()
        control = None if noise is None else Outcome("json", fields=drawn(random, noise))
        if n % 100 == 0:
            add_failure(tally, primary_version=primary, primary_status=200)
            continue
        add_pair(
            tally,
            primary_version=primary,
            tenant=random.choice(["acme", "globex", HOSTILE]),
            segments=("gold",) if n % 3 else (),
            at_s=AT_S + n,
            primary=answer(random.lognormvariate(-4, 0.4)),
            shadow=answer(1.2 * random.lognormvariate(-4, 0.4), 500 if n % 50 == 1 else 200),
            outcome=Outcome(
                "classification",
                fields=drawn(random, shadow or {}),
                measures={"first_token_s.primary": sure, "first_token_s.shadow": 2 * sure},
                labels=(label, label if n % 10 else HOSTILE),
                probabilities=(sure, sure * 0.9),
            ),
            control=control,
        )
    return tally


def drawn(random: Random, rates: Mapping[str, float]) -> tuple[str, ...]:
    """The fields that differ this time."""
    return tuple(name for name, rate in rates.items() if random.random() < rate)


def answer(seconds: float, status: int = 200) -> Answer:
    return Answer(status, (), b"{}", seconds / 2, seconds)


def ledger(mirrored: int) -> Ledger:
    """The ledger of a test whose large bodies were skipped."""
    large, small = mirrored // 2, mirrored
    sampled_out = 3 * (large + small)
    return Ledger(
        eligible=sampled_out + large + small,
        sampled_out=sampled_out,
        mirrored=small,
        compared=small - 10,
        skipped={"size": large},
        failed={"timeout": 6},
        uncompared={"budget": 4},
        sizes={10: Share(4 * small, small), 21: Share(4 * large, 0)},
        tenants={"acme": Share(4 * (small + large), small)},
    )


def cost() -> Cost:
    spent = {"acme/2026-11-22": 3.5, "acme/2026-11-23": 1.0, "globex/2026-11-23": 2.0}
    times = Histogram(1000, 10.0, {200: 900, 230: 100})
    return Cost(spent, 0.02, 100, 0.15, times, times)
