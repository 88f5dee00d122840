"""How answers of a shadow are compared with those that clients got, and what is asked of them."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]

Pointer = Annotated[str, Meta(pattern=r"^(/[^/]*)*$", max_length=500)]
"""A JSON pointer (RFC 6901) in which `*` stands for every index of an array, or every member."""

Fraction = Annotated[float, Meta(ge=0, le=1)]


class Kind(Enum):
    """What answers are compared as; `auto` goes by their content type and form."""

    AUTO = "auto"
    JSON = "json"
    TENSORS = "tensors"
    CLASSIFICATION = "classification"
    TEXT = "text"
    STREAM = "stream"
    BYTES = "bytes"


class Text(Enum):
    """When two texts are the same: byte by byte, but for case and white space, or nearly."""

    EXACT = "exact"
    NORMALISED = "normalised"
    RATIO = "ratio"


class Thresholds(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a version must hold to pass; a bound that is left out is not asked for.

    `agreement` is the least share of pairs that agree, net of noise where there is a control.
    `error_increase` is the most that the share of errors may grow by. `latency_p50_ratio` to
    `latency_p99_ratio` are the most that the shadow's quantile may be of the client's.
    All hold at once with `confidence`, however often one looks, and not before `min_pairs`.
    """

    agreement: Fraction | None = 0.99
    error_increase: Fraction | None = 0.01
    latency_p50_ratio: Annotated[float, Meta(gt=0, le=1000)] | None = None
    latency_p95_ratio: Annotated[float, Meta(gt=0, le=1000)] | None = None
    latency_p99_ratio: Annotated[float, Meta(gt=0, le=1000)] | None = None
    min_pairs: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1000
    confidence: Annotated[float, Meta(ge=0.5, le=0.9999)] = 0.95


class Kept(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is kept of pairs that disagree: about the newest `pairs` of them.

    `values` keeps what the differing fields said, `bodies` the request and both answers as well.
    What `mask` points at is never kept, nor are headers but those that are compared.
    """

    pairs: Annotated[int, Meta(ge=0, le=10_000)] = 100
    values: bool = False
    bodies: bool = False
    mask: Annotated[tuple[Pointer, ...], Meta(max_length=100)] = ()


class Comparison(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How pairs of answers are compared.

    `ignore` are pointers to what may differ, `unordered` to arrays that are sets. Two numbers are
    the same within `absolute` or within `relative` of the greater. `headers` are compared, no
    others. Two texts are the same as `text` says, `text_ratio` being the least for `ratio`.
    `label`, `labels` and `probabilities` point at a classification: its label, or where it only has
    `probabilities`, the index, or the name in `labels`, of the greatest.
    `control` is a version that the same request is sent to as well, for `control_percent` of the
    copies: the serving version once more. What it says otherwise than the client's answer is noise.
    Answers over `max_body_bytes` are not compared.
    """

    kind: Kind = Kind.AUTO
    ignore: Annotated[tuple[Pointer, ...], Meta(max_length=200)] = ()
    unordered: Annotated[tuple[Pointer, ...], Meta(max_length=200)] = ()
    absolute: Annotated[float, Meta(ge=0)] = 0.0
    relative: Fraction = 0.0
    headers: Annotated[tuple[str, ...], Meta(max_length=50)] = ("content-type",)
    text: Text = Text.EXACT
    text_ratio: Fraction = 0.9
    label: Pointer | None = None
    labels: Annotated[tuple[str, ...], Meta(max_length=1000)] = ()
    probabilities: Pointer | None = None
    control: Name | None = None
    control_percent: Annotated[float, Meta(ge=0, le=100)] = 100.0
    max_body_bytes: Annotated[int, Meta(ge=1, le=16 * 1024 * 1024)] = 256 * 1024
    thresholds: Thresholds = Thresholds()
    keep: Kept = Kept()
