"""The policy an operator writes, as it means; `policy.codec` owns how it is spelled."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from msgspec import Meta, Struct

from sidecar.model.comparison import Comparison

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A model, version or rule id: it stands in Redis keys, headers and metric labels."""

VersionRef = Name
"""A version, by its own name or by a label that the policy gives it."""

Moment = Annotated[str, Meta(max_length=40)]
"""A time in UTC, as RFC 3339 spells it: `2026-11-23T13:00:00Z`."""

Weight = Annotated[int, Meta(ge=0, le=1_000_000)]
"""An arm's share, relative to the sum of its split's weights."""

Seconds = Annotated[float, Meta(ge=0.05, le=3600)]
"""A pause or a bound of waiting: no shorter than a busy event loop can keep."""

Method = Annotated[str, Meta(pattern=r"^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32})$")]
"""A method token (RFC 9110 section 9.1), or `*` for any."""

Scalar = str | int | float | bool

Words = Annotated[str, Meta(min_length=1, max_length=256)]
"""What a registry calls something: printable text."""

Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
"""A SHA-256, as container registries spell it."""

DataDigest = Annotated[str, Meta(pattern=r"^(sha256:[0-9a-f]{64}|mlflow:[!-~]{1,36})$")]
"""A SHA-256, or what MLflow has in its place: mostly 8 digits, made of a sample of the data."""


class State(Enum):
    """Where a version is in its life: only ACTIVE and DRAINING serve.

    DRAINING serves those alone who are pinned to it or ask for it.
    """

    REGISTERED = "registered"
    WARMING = "warming"
    ACTIVE = "active"
    DRAINING = "draining"
    RETIRED = "retired"


class OnUnavailable(Enum):
    """What becomes of a tenant whose pinned version may not serve."""

    REFUSE = "refuse"
    FALLBACK = "fallback"


class DefaultAccess(Enum):
    """Who may use a version where neither it nor its model says so by `allow`: all, or nobody."""

    ALLOW = "allow"
    DENY = "deny"


class Audited(Enum):
    """Which requests of a model audit is told of, where there is any."""

    DENIALS = "denials"
    DECISIONS = "decisions"  # all


class Operators(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename={"in_": "in", "from_": "from"},
):
    """Tests of one attribute; all that are given must hold.

    `gte` and `lte` compare numbers, also those spelled as text. `semver` is a range such as
    `>=2.1 <3`. `cidr` are networks, one of which has the address. `from` and `until` are for `time`
    alone, a half-open interval in UTC.
    """

    in_: tuple[Scalar, ...] | None = None
    not_in: tuple[Scalar, ...] | None = None
    prefix: str | None = None
    suffix: str | None = None
    regex: str | None = None
    exists: bool | None = None
    gte: int | float | None = None
    lte: int | float | None = None
    semver: str | None = None
    cidr: tuple[str, ...] | None = None
    from_: Moment | None = None
    until: Moment | None = None


Condition = Scalar | tuple[Scalar, ...] | Operators
"""A value, a list (any of), or operators."""

Matcher = dict[str, Condition]
"""Conditions by attribute, all of which must hold.

Attributes: `tenant segment subject app scope method path time claim.<path> header.<name>`.
"""


class Segment(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named set of callers: who is in `include` is in, else who is in `exclude` is out.

    Of all others those are in whom a matcher of `when` fits, and with `claimed` those whose token
    lists the segment. Both lists are of tenants. A matcher may name other segments; none may lead
    back to itself.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    when: tuple[Matcher, ...] = ()
    claimed: bool = False


class Rewrite(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a request is spelled for one version, so that several can live in one server.

    `path` is a template over `{model}`, `{version}`, `{path}` (the whole path as sent) and
    `{rest}` (what follows the model and version in an inference path: `/infer`, `:predict`). A
    template with `{rest}` leaves alone a path that names no model, such as `/v2/health/ready`.
    """

    path: str = "{path}"
    headers: dict[str, str] = {}


class Health(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How each endpoint of a version is asked whether it can serve: by `GET path`.

    A status of the list says yes; an empty list is any from 200 to 299. So many answers in a row
    change what is held of an endpoint.
    """

    path: str
    status: tuple[int, ...] = ()
    interval_s: Seconds = 5.0
    timeout_s: Seconds = 1.0
    unhealthy_after: Annotated[int, Meta(ge=1, le=100)] = 2
    healthy_after: Annotated[int, Meta(ge=1, le=100)] = 1


class VersionTimeouts(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Bounds of waiting for one version, in the place of those of the sidecar's settings."""

    first_byte_s: Seconds | None = None
    body_idle_s: Seconds | None = None


class Deprecation(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What answers of a draining version tell their callers (RFC 9745, RFC 8594).

    `since` when it is deprecated, `sunset` when it will be gone, `link` what to read about it.
    """

    since: Moment | None = None
    sunset: Moment | None = None
    link: str | None = None


class DataSet(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a version was trained on."""

    name: Words
    digest: DataDigest


class FeatureSet(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the features come from that a version was trained on, and which they were."""

    service: Words
    digest: Digest


class Column(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One input, output or parameter. `shape` makes it a tensor; -1 is a size that is left open."""

    type: Words
    name: Annotated[str, Meta(max_length=256)] = ""
    shape: Annotated[tuple[Annotated[int, Meta(ge=-1)], ...], Meta(max_length=64)] | None = None
    optional: bool = False


class Signature(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a version takes and gives."""

    inputs: tuple[Column, ...] = ()
    outputs: tuple[Column, ...] = ()
    params: tuple[Column, ...] = ()


class Lineage(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a version was made from: it changes no decision, and audit keeps its digest.

    `registry` is the URI of its registered form, `run` the id of the run that made it, `git` the
    commit of the source. `config` and `image` are digests of its configuration and container.
    """

    registry: Annotated[str, Meta(max_length=2000)] = ""
    run: Annotated[str, Meta(max_length=256)] = ""
    git: Annotated[str, Meta(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})?$")] = ""
    training_data: Annotated[tuple[DataSet, ...], Meta(max_length=100)] = ()
    feature_set: FeatureSet | None = None
    config: Digest | None = None
    image: Digest | None = None
    signature: Signature | None = None
    owner: Annotated[str, Meta(max_length=256)] = ""
    created: Moment | None = None


class Price(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a version costs: for each request, and for the tokens that its answers tell of."""

    per_request: Annotated[float, Meta(ge=0)] = 0.0
    per_1k_input_tokens: Annotated[float, Meta(ge=0)] = 0.0
    per_1k_output_tokens: Annotated[float, Meta(ge=0)] = 0.0
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$")] = "USD"


class Version(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One deployed variant. `deny` wins over `allow`; without `allow` all may use it whom the model
    lets in.

    It serves only what one of `accepts` fits (compatibility); without it, everything. Where it may
    not serve, or cannot before the first byte of an answer, `fallback` may, and so on from there.
    `idempotent` says that doing any request twice does no harm.

    `max_concurrency` requests are with its endpoints at a time, and `max_queue` more may wait for
    their turn; the workers divide both.
    """

    endpoints: Annotated[tuple[str, ...], Meta(min_length=1, max_length=256)]
    state: State = State.ACTIVE
    allow: tuple[Matcher, ...] | None = None
    deny: tuple[Matcher, ...] = ()
    accepts: tuple[Matcher, ...] | None = None
    fallback: VersionRef | None = None
    rewrite: Rewrite | None = None
    health: Health | None = None
    max_concurrency: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    max_queue: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    max_body_bytes: Annotated[int, Meta(ge=0)] | None = None
    idempotent: bool = False
    timeouts: VersionTimeouts | None = None
    deprecation: Deprecation | None = None
    lineage: Lineage | None = None
    price: Price | None = None


class Split(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A weighted choice between versions: sticky by `key`, drawn anew when the key is `request`.

    `key` is `tenant`, `subject`, `app`, `request` or `header.<name>`. A caller without the key
    gets `otherwise` when it is given, else the rule does not match.
    """

    arms: dict[VersionRef, Weight]
    key: str = "tenant"
    otherwise: VersionRef | None = None


class Rule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`when` a caller matches, `serve` a version, `split`, or `deny` with words."""

    id: Name
    when: Matcher = {}
    serve: VersionRef | None = None
    split: Split | None = None
    deny: str | None = None


class Shadow(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A copy of `percent` of the requests goes to `version`; its answers reach nobody.

    `key` is as in `Split`; `request` samples each request on its own. With `when` only requests
    that one of its matchers fits are eligible.

    GET, HEAD and OPTIONS are copied, every method if the version is `idempotent`, and those of
    `methods` besides; `*` is any. `credentials` lets Authorization, Cookie and X-Api-Key through.
    `headers` are set on copies; `body_model` takes the place of the member `model` of a JSON body.

    `max_body_bytes`, `max_connections`, `max_queue` and `timeout_s` are for this shadow, within
    the sidecar's limits. Once its copies have cost `cost_per_day`, by the version's `price`, there
    are no more of them that UTC day.

    With `compare` every answer is compared with the client's.
    """

    version: VersionRef
    percent: Annotated[float, Meta(ge=0, le=100)] = 100.0
    key: str = "request"
    enabled: bool = True
    when: Annotated[tuple[Matcher, ...], Meta(max_length=100)] = ()
    methods: Annotated[tuple[Method, ...], Meta(max_length=50)] = ()
    credentials: bool = False
    headers: dict[str, str] = {}
    body_model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    max_body_bytes: Annotated[int, Meta(ge=0)] | None = None
    max_connections: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    max_queue: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    timeout_s: Seconds | None = None
    cost_per_day: Annotated[float, Meta(ge=0)] | None = None
    compare: Comparison | None = None


class Policy(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One document per model. `revision`, `actor` and `comment` are those of its commit.

    `applied` is the fingerprint of what files last said: where the document says something else,
    it was changed past them.

    `labels` are further names of versions, which can be moved: `canary: v3`.

    `allow` and `deny` are of every version, beside what it says itself: only whom both let in may
    use it. `default_access` is for versions without either `allow`.

    `deleted` says that there is no such model any more, as a commit that can be signed; nothing
    but what commits write stands beside it. `signature` is that of whoever made the commit.
    """

    model: Name
    versions: dict[Name, Version]
    labels: dict[Name, Name] = {}
    segments: dict[Name, Segment] = {}
    rules: tuple[Rule, ...] = ()
    default: VersionRef | None = None
    default_access: DefaultAccess = DefaultAccess.ALLOW
    allow: tuple[Matcher, ...] | None = None
    deny: tuple[Matcher, ...] = ()
    on_unavailable: OnUnavailable = OnUnavailable.REFUSE
    shadows: tuple[Shadow, ...] = ()
    audit: Audited = Audited.DENIALS
    revision: Annotated[int, Meta(ge=0)] = 0
    actor: str = ""
    comment: str = ""
    applied: str = ""
    deleted: bool = False
    signature: Annotated[str, Meta(max_length=256)] = ""
