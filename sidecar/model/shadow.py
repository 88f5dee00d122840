"""What a shadow test counts: its ledger, what its pairs of answers amount to, and single pairs.

A worker adds up for as long as it lives. Sums of several workers are sums again, so that a fleet's
is exact, in whatever order they are read.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct, field

OTHER = "(other)"
"""Where the names of a bounded table are counted that came after it was full."""


PER_OCTAVE = 16
"""Buckets of a `Histogram` for each doubling: 4.4 % wide, less than a bound of latency asks for."""


class Skip(Enum):
    """Why a request that was due to be copied was not."""

    METHOD = "method"  # not safe, and nothing says that doing it twice does no harm
    SIZE = "size"  # its body is over what a copy may have
    MEMORY = "memory"  # copies have all the memory that they may have
    QUEUE = "queue"  # as many copies wait as may
    QUEUE_TIMEOUT = "queue-timeout"  # it waited longer than an answer may take
    DISABLED = "disabled"  # the shadow is switched off, killed or not ready
    COST = "cost"  # it has cost what it may cost in a day
    DRAINING = "draining"  # the sidecar is about to end
    ABORTED = "aborted"  # the client's request never became whole
    POLICY = "policy"  # the policy has changed since the decision
    FAULT = "fault"  # of the sidecar, while it made the copy


class Failure(Enum):
    """Why a copy got no whole answer."""

    CONNECT = "connect"
    LOST = "lost"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"


class Uncompared(Enum):
    """Why a copy's answer was not compared with the client's."""

    OFF = "off"  # the policy does not ask for it
    SIZE = "size"  # of one of the answers
    MEMORY = "memory"
    BUDGET = "budget"  # comparing has had the time that it may have, or its queue is full
    PRIMARY = "primary"  # the client's answer was not whole: it left, or the upstream failed
    ENCODING = "encoding"  # of a body, which cannot be undone here
    MALFORMED = "malformed"  # a body is not what its type, or the policy, says
    FAULT = "fault"  # of the sidecar, while it compared or counted
    SHUTDOWN = "shutdown"


class Share(Struct):
    """How many there were, and how many of them are `part` of what is told."""

    number: int = 0
    part: int = 0


class Ledger(Struct):
    """What became of the requests that a shadow was due to see, by `Skip`, `Failure`, `Uncompared`.

    `eligible` = `sampled_out` + `mirrored` + all of `skipped`. `mirrored` = `compared` + all of
    `failed` + all of `uncompared` + what is under way. `sizes` (by the bits of the body's bytes)
    and `tenants` tell how many were eligible (`number`) and mirrored (`part`).
    """

    eligible: int = 0
    sampled_out: int = 0
    mirrored: int = 0
    compared: int = 0
    skipped: dict[str, int] = {}
    failed: dict[str, int] = {}
    uncompared: dict[str, int] = {}
    sizes: dict[int, Share] = {}
    tenants: dict[str, Share] = {}


class Histogram(Struct):
    """Times by bucket: `buckets[b]` of them were in [2**(b/16), 2**((b+1)/16)) microseconds.

    The lowest, 0, has those under a microsecond too. The 16 is `PER_OCTAVE`.
    """

    number: int = 0
    total_s: float = 0.0
    buckets: dict[int, int] = {}


class Moments(Struct):
    """A measure over pairs."""

    number: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float | None = None
    most: float | None = None


class FieldTally(Struct):
    """In how many pairs one field differed.

    `raw` of all; of those with a control, `paired_raw` from the shadow, `noise` from the control,
    and `both` from either of them.
    """

    raw: int = 0
    paired_raw: int = 0
    noise: int = 0
    both: int = 0


class Control(Struct):
    """Of the pairs that had a control: how many disagreed with the shadow, the control, just one.

    `shadow_only` disagreed with the shadow alone, `control_only` with the control alone.
    """

    number: int = 0
    shadow: int = 0
    control: int = 0
    shadow_only: int = 0
    control_only: int = 0


class Calibration(Struct):
    """The probabilities of one tenth: how many pairs, and the sums of both sides'."""

    number: int = 0
    primary: float = 0.0
    shadow: float = 0.0


class Pairs(Struct):
    """What the pairs of one shadow and one version that served amount to.

    `answers` are the copies that ended, be it without an answer; `primary_errors`,
    `shadow_errors` of these had a status of 5xx or no whole answer on that side alone,
    `both_errors` on both.
    Latencies are to the last byte, of pairs with two whole answers. `measures` are by name, as
    `Outcome.measures`. `confusion` is by the label that the client got, then by the shadow's.
    `calibration` is by tenths of the client's probability, `timeline` by epoch minute.
    """

    number: int = 0
    agreed: int = 0
    answers: int = 0
    primary_errors: int = 0
    shadow_errors: int = 0
    both_errors: int = 0
    primary_latency: Histogram = field(default_factory=Histogram)
    shadow_latency: Histogram = field(default_factory=Histogram)
    primary_first_byte: Histogram = field(default_factory=Histogram)
    shadow_first_byte: Histogram = field(default_factory=Histogram)
    primary_bytes: Moments = field(default_factory=Moments)
    shadow_bytes: Moments = field(default_factory=Moments)
    fields: dict[str, FieldTally] = {}
    measures: dict[str, Moments] = {}
    confusion: dict[str, dict[str, int]] = {}
    calibration: dict[int, Calibration] = {}
    control: Control = field(default_factory=Control)
    tenants: dict[str, Share] = {}
    segments: dict[str, Share] = {}
    timeline: dict[int, Share] = {}


class Cost(Struct):
    """What a shadow costs.

    `price` is by tenant and UTC day (`acme/2026-11-23`), in the currency of its version's price.
    `copy_s` and `compare_s` are CPU seconds of the sidecar. Latencies are the clients', of requests
    that were copied and of those that were sampled out: what they differ by is what copying costs.
    """

    price: dict[str, float] = {}
    copy_s: float = 0.0
    copies_timed: int = 0
    compare_s: float = 0.0
    copied_latency: Histogram = field(default_factory=Histogram)
    spared_latency: Histogram = field(default_factory=Histogram)


class Tally(Struct):
    """All that one worker, or a fleet, has counted of one shadow test; `pairs` by serving version.

    A test is one way of shadowing: `test` is a digest of what the policy says of it, so that a
    changed shadow begins anew. `since_s` and `until_s` are epoch seconds.
    """

    model: str
    version: str
    test: str
    since_s: float
    until_s: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    pairs: dict[str, Pairs] = {}
    cost: Cost = field(default_factory=Cost)
    workers: int = 1


class Answer(Struct, frozen=True, gc=False):
    """One whole answer. Times are seconds from the request's last byte.

    `fields` are name (lower case) and value, `marks` pairs of how many bytes of the body had come
    and when, for the reads of a stream. `body` is as sent, content coding and all.
    """

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes
    first_byte_s: float
    duration_s: float
    marks: tuple[tuple[int, float], ...] = ()


class Difference(Struct, frozen=True, gc=False):
    """One field in which two answers differ.

    `field` is a JSON pointer (RFC 6901) in which `*` stands for an array's indices, or `body` for
    the whole, `status`, `header:<name>`, `text`, `label`, `finish_reason`, `event` (the type of
    one). `kind` is `value`, `missing`, `extra`, `type` or `length`. The sides are spelled as JSON,
    cut at 200 characters; of two numbers `delta` is the shadow's less the primary's.
    """

    field: str
    kind: str
    primary: str = ""
    shadow: str = ""
    delta: float | None = None


class Outcome(Struct, frozen=True):
    """What comparing two answers found; with an `uncompared` cause nothing else counts.

    `kind` is how they were compared: `json`, `tensors`, `classification`, `text`, `stream`,
    `completion` (of OpenAI's API, in one piece), `bytes`, `empty`, or by `status` alone. `fields`
    are the fields that differ, at most 64, `differences` what is told of some of them, at most 20.
    `measures` are numbers by name, each side's own with `.primary` or `.shadow` at its end.
    `labels` and `probabilities` are primary's and shadow's, of the label that the client got: of
    the first row; `rows` are those of all further ones, where an answer has several.
    `tokens` are input and output tokens that the shadow's answer tells of.
    """

    kind: str
    fields: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()
    measures: dict[str, float] = {}
    labels: tuple[str, str] | None = None
    probabilities: tuple[float, float] | None = None
    tokens: tuple[int, int] | None = None
    uncompared: Uncompared | None = None
    rows: tuple[tuple[tuple[str, str], tuple[float, float] | None], ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether the two answers say the same, as far as the policy tells."""
        return not self.fields


class Evidence(Struct, frozen=True, omit_defaults=True):
    """One pair that disagreed, as it is kept: masked, and without bodies unless asked for.

    Bodies are base64. What stands from `method` on is kept only where the policy asks for bodies;
    `rmv replay` sends such a request again, unless `is_masked`: something of its body was left out.
    `fields` of answers are those that are compared, and content-type and content-encoding.
    """

    at_s: float
    model: str
    version: str
    primary: str
    test: str
    request_id: str
    shadow_request_id: str
    tenant: str
    kind: str
    fields: tuple[str, ...]
    differences: tuple[Difference, ...]
    primary_status: int
    shadow_status: int
    primary_s: float
    shadow_s: float
    method: str = ""
    target: str = ""
    content_type: str = ""
    request_body: str = ""
    is_masked: bool = False
    primary_fields: tuple[tuple[str, str], ...] = ()
    primary_body: str = ""
    shadow_fields: tuple[tuple[str, str], ...] = ()
    shadow_body: str = ""
