"""The rows of a report's tables.

Times are in seconds, shares are fractions.
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.model.shadow import Histogram
from sidecar.shadow.sequence import Interval
from sidecar.shadow.verdict import Finding, Verdict


class Figure(Struct, frozen=True):
    """A number as it was seen, and where it is; ends that are infinite are null in JSON."""

    estimate: float | None
    interval: Interval


class Agreement(Struct, frozen=True):
    """Shares of pairs that agree: `raw` of all `number` pairs.

    Of the `paired` ones that had a control, `noise` is in how many the control disagreed with the
    client's answer, and `net` is 1 less what the shadow disagreed in more than that.
    """

    number: int
    agreed: int
    raw: Figure
    paired: int
    noise: Figure | None
    net: Figure | None


class Errors(Struct, frozen=True):
    """Shares of `answers` with a status of 5xx or no whole answer, and what the shadow has more."""

    answers: int
    primary: Figure
    shadow: Figure
    increase: Figure


class Latency(Struct, frozen=True):
    """One quantile of two histograms, `p50` to `p99`, and the second's divided by the first's."""

    quantile: str
    first: Figure
    second: Figure
    ratio: Figure


class Field(Struct, frozen=True):
    """In what share of pairs a field differs.

    `noise` is in what share it differs between control and client's answer, of the pairs that had
    a control, and `net` what the shadow has more than that.
    """

    name: str
    pairs: int
    raw: Figure
    noise: Figure | None
    net: Figure | None


class Measure(Struct, frozen=True):
    """A measure over pairs: its mean, where that is, its deviation and its range."""

    name: str
    number: int
    mean: Figure
    deviation: float | None
    least: float | None
    most: float | None


class Shift(Struct, frozen=True):
    """A measure that both sides have: what the shadow's mean is more than the client's."""

    name: str
    primary: float
    shadow: float
    difference: Figure


class Tenth(Struct, frozen=True):
    """Pairs where the client's answer had a probability in the tenth that begins at `least`."""

    least: float
    number: int
    primary: float
    shadow: float
    shift: float


class Labels(Struct, frozen=True):
    """In how many pairs both labels are the same; `confusion` is by the client's, the shadow's."""

    number: int
    same: Figure
    confusion: dict[str, dict[str, int]]


class Group(Struct, frozen=True):
    """Agreement, noise and all, of one tenant or segment; intervals hold for all rows together."""

    name: str
    number: int
    agreed: int
    agreement: Figure
    outcome: Finding


class Moment(Struct, frozen=True):
    """Pairs of the minutes from `at_s` on, and agreement of all pairs up to then."""

    at_s: float
    minutes: int
    number: int
    agreed: int
    agreement: Figure
    running: Figure


class Against(Struct, frozen=True):
    """What the pairs with one serving version show; rows that are left out are counted."""

    primary: str
    verdict: Verdict
    agreement: Agreement
    errors: Errors
    latency: tuple[Latency, ...]
    first_byte: tuple[Latency, ...]
    latencies: tuple[Histogram, Histogram]
    fields: tuple[Field, ...]
    fields_left_out: int
    measures: tuple[Measure, ...]
    shifts: tuple[Shift, ...]
    labels: Labels | None
    calibration: tuple[Tenth, ...]
    tenants: tuple[Group, ...]
    tenants_left_out: int
    segments: tuple[Group, ...]
    segments_left_out: int
    timeline: tuple[Moment, ...]


class Price(Struct, frozen=True):
    """What a shadow cost one tenant's requests on one UTC day."""

    day: str
    tenant: str
    price: float


class Expense(Struct, frozen=True):
    """What a shadow test costs: CPU time of the sidecar, clients' latency, and money.

    `latency` is of requests that were sampled out, and of those that were copied. `cost_per_day` is
    what the policy bounds the price of a UTC day by; `currency` is empty where there is no price.
    """

    copy_us: float | None
    compare_us: float | None
    latency: tuple[Latency, ...]
    currency: str
    total: float
    cost_per_day: float | None
    prices: tuple[Price, ...]
    prices_left_out: int
