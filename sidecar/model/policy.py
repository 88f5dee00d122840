"""The policy an operator writes, as it means; `policy.codec` owns how it is spelled."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A model, version or rule id: it stands in Redis keys, headers and metric labels."""

Weight = Annotated[int, Meta(ge=0, le=1_000_000)]
"""An arm's share, relative to the sum of its split's weights."""

Seconds = Annotated[float, Meta(ge=0.05, le=3600)]
"""A pause or a bound of waiting: no shorter than a busy event loop can keep."""

Scalar = str | int | float | bool


class Operators(
    Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"in_": "in"}
):
    """Tests of one attribute; all that are given must hold."""

    in_: tuple[Scalar, ...] | None = None
    not_in: tuple[Scalar, ...] | None = None
    prefix: str | None = None
    suffix: str | None = None
    regex: str | None = None
    exists: bool | None = None


Condition = Scalar | tuple[Scalar, ...] | Operators
"""A value, a list (any of), or operators."""

Matcher = dict[str, Condition]
"""Conditions by attribute, all of which must hold.

Attributes: `tenant subject app scope method path claim.<path> header.<name>`.
"""


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

    first_byte_s: Seconds


class Version(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One deployed variant. `deny` wins over `allow`; without `allow` all may use it.

    `max_concurrency` requests are with its endpoints at a time, and `max_queue` more may wait for
    their turn; the workers divide both.
    """

    endpoints: Annotated[tuple[str, ...], Meta(min_length=1, max_length=256)]
    allow: tuple[Matcher, ...] | None = None
    deny: tuple[Matcher, ...] = ()
    rewrite: Rewrite | None = None
    health: Health | None = None
    max_concurrency: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    max_queue: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    timeouts: VersionTimeouts | None = None


class Split(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A weighted choice between versions: sticky by `key`, drawn anew when the key is `request`.

    `key` is `tenant`, `subject`, `app`, `request` or `header.<name>`. A caller without the key
    gets `otherwise` when it is given, else the rule does not match.
    """

    arms: dict[Name, Weight]
    key: str = "tenant"
    otherwise: Name | None = None


class Rule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`when` a caller matches, `serve` a version, `split`, or `deny` with words."""

    id: Name
    when: Matcher = {}
    serve: Name | None = None
    split: Split | None = None
    deny: str | None = None


class Shadow(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A copy of `percent` of the requests goes to `version`; its answers reach nobody.

    `key` is as in `Split`; `request` samples each request on its own.
    """

    version: Name
    percent: Annotated[float, Meta(ge=0, le=100)] = 100.0
    key: str = "request"


class Policy(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One document per model. `revision`, `actor` and `comment` are those of its commit."""

    model: Name
    versions: dict[Name, Version]
    rules: tuple[Rule, ...] = ()
    default: Name | None = None
    shadows: tuple[Shadow, ...] = ()
    revision: Annotated[int, Meta(ge=0)] = 0
    actor: str = ""
    comment: str = ""
