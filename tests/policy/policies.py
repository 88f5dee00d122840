"""Random policies, callers and heads that go together, for property tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.model.identity import JSON, Identity
from sidecar.model.policy import (
    Column,
    Condition,
    DataSet,
    DefaultAccess,
    FeatureSet,
    Lineage,
    Matcher,
    OnUnavailable,
    Operators,
    Policy,
    Rule,
    Scalar,
    Segment,
    Shadow,
    Signature,
    Split,
    State,
    Version,
)
from tests.policy.examples import make_head

if TYPE_CHECKING:
    from sidecar.model.request import RequestHead


VERSIONS = ("v1", "v2", "v3")
TENANTS = ("", "acme", "globex", "initech")
WORDS = ("a", "b", "ab", "true", "1", "2.1", "1.2.3", "10.1.2.3")

SCALARS: st.SearchStrategy[Scalar] = st.sampled_from(WORDS) | st.sampled_from((0, 1, 1.0, True))
OPTIONS = st.lists(SCALARS, min_size=1, max_size=3).map(tuple)
LABELS = ("stable", "canary")
NAMES = st.sampled_from((*VERSIONS, *VERSIONS, *LABELS))
SEGMENTS = ("inner", "outer", "listed")
MOMENTS = ("1970-01-01T00:16:40Z", "1970-01-01T01:33:20+01:00")  # 1000 and 2000
INSTANTS = (0.0, 999.9, 1000.0, 1999.0, 2000.0)
PINS = st.dictionaries(
    st.sampled_from(TENANTS[1:]), st.sampled_from((*VERSIONS, *LABELS, "gone")), max_size=2
)
KILLS = st.dictionaries(
    st.sampled_from((*VERSIONS, *VERSIONS, "canary", "")), st.just("why"), max_size=2
)
UNREADY = st.frozensets(st.sampled_from(VERSIONS), max_size=2)
ENDPOINTS = ("http://127.0.0.1:9001",)
DIGESTS = st.sampled_from([f"sha256:{digit * 64}" for digit in "09f"])
COLUMNS = st.lists(
    st.builds(
        Column,
        type=st.sampled_from(("double", "array<string>")),
        name=st.sampled_from(("a", "b")),
        shape=st.none() | st.just((-1, 3)),
        optional=st.booleans(),
    ),
    max_size=2,
    unique_by=lambda one: one.name,
).map(tuple)
LINEAGES = st.builds(
    Lineage,
    registry=st.sampled_from(("", "models:/tumor/3")),
    run=st.sampled_from(("0a1b", "2c3d")),
    git=st.sampled_from(("", "0" * 40, "f" * 64)),
    training_data=st.lists(
        st.builds(DataSet, st.sampled_from(("scans", "labels")), DIGESTS | st.just("mlflow:1f")),
        max_size=2,
        unique=True,
    ).map(tuple),
    feature_set=st.none() | st.builds(FeatureSet, st.just("vitals"), DIGESTS),
    config=st.none() | DIGESTS,
    image=st.none() | DIGESTS,
    signature=st.none() | st.builds(Signature, COLUMNS, COLUMNS, COLUMNS),
    owner=st.sampled_from(("", "Zoë")),
    created=st.none() | st.sampled_from(MOMENTS),
)

_OPERANDS: dict[str, st.SearchStrategy[object]] = {
    "in_": OPTIONS,
    "not_in": OPTIONS,
    "prefix": st.sampled_from(("a", "ab", "t", "1", "1.2.")),
    "suffix": st.sampled_from(("b", "e")),
    "regex": st.sampled_from(("a.?", "[0-9]+")),
    "exists": st.booleans(),
    "gte": st.sampled_from((1, 1.5)),
    "lte": st.sampled_from((1, 2.5)),
    "semver": st.sampled_from(("^1.2", ">=2.1")),
    "cidr": st.just(("10.0.0.0/8", "::/0")),
}


@st.composite
def operators(draw: st.DrawFn) -> Operators:
    """One operator, or a few."""
    chosen = draw(st.lists(st.sampled_from(sorted(_OPERANDS)), min_size=1, max_size=3, unique=True))
    return replace(Operators(), **{name: draw(_OPERANDS[name]) for name in chosen})


CONDITIONS = SCALARS | OPTIONS | operators()
CLAIMS: st.SearchStrategy[JSON] = st.one_of(
    st.none(), SCALARS, st.lists(SCALARS, max_size=2).map(list), st.just({"x": 1})
)
SPLITS = st.builds(
    Split,
    arms=st.dictionaries(st.sampled_from(VERSIONS), st.integers(0, 3), min_size=1).filter(
        lambda a: any(a.values())
    ),
    key=st.sampled_from(("tenant", "subject", "app", "request", "header.x-word")),
    otherwise=st.none() | NAMES,
)

PATHS: st.SearchStrategy[Condition] = st.one_of(
    st.sampled_from(("/invocations", "/a")),
    st.sampled_from(("/", "/v2/", "/v2/models/", "/a")).map(lambda text: Operators(prefix=text)),
)

ATTRIBUTES: dict[str, st.SearchStrategy[Condition]] = {
    "tenant": st.sampled_from(TENANTS[1:])
    | st.lists(st.sampled_from(TENANTS), min_size=1).map(tuple),
    "app": CONDITIONS,
    "subject": CONDITIONS | st.sampled_from(("s1", "s2")),
    "scope": CONDITIONS,
    "claim.level": CONDITIONS,
    "claim.org.unit": CONDITIONS,
    "header.x-word": CONDITIONS,
    "path": PATHS | CONDITIONS,
    "time": st.builds(
        Operators, from_=st.none() | st.sampled_from(MOMENTS), until=st.sampled_from(MOMENTS)
    ),
    "method": st.sampled_from(("GET", "POST")) | operators(),
}


def members(known: tuple[str, ...]) -> st.SearchStrategy[Condition]:
    """Conditions on `segment` that name these alone."""
    names = st.sampled_from(known)
    lists = st.lists(names, min_size=1, max_size=2).map(tuple)
    operators = st.builds(Operators, in_=st.none() | lists, not_in=lists)
    return names | lists | operators


@st.composite
def segments(draw: st.DrawFn) -> dict[str, Segment]:
    """Two that decide by lists and matchers, one of which names the other; one of lists alone."""
    tenants = st.lists(st.sampled_from(TENANTS), max_size=2).map(tuple)
    made = {}
    for name in SEGMENTS:
        whens = () if name == "listed" else tuple(draw(st.lists(matchers(max_size=1), max_size=2)))
        made[name] = Segment(include=draw(tenants), exclude=draw(tenants), when=whens)
    if draw(st.booleans()):
        outer: Matcher = {"segment": draw(members(("inner", "listed")))}
        made["outer"] = Segment(exclude=draw(tenants), when=(outer,))
    return made


@st.composite
def matchers(draw: st.DrawFn, max_size: int = 2, *, by_segment: bool = False) -> Matcher:
    """Conditions on the attributes that `callers` and `heads` have."""
    chosen = draw(st.lists(st.sampled_from(sorted(ATTRIBUTES)), max_size=max_size, unique=True))
    matcher = {attribute: draw(ATTRIBUTES[attribute]) for attribute in chosen}
    if "tenant" in matcher and draw(st.integers(0, 3)) == 0:
        matcher["tenant"] = Operators(not_in=("acme",))
    if by_segment and draw(st.integers(0, 2)) == 0:
        exists = st.builds(Operators, exists=st.booleans())
        matcher["segment"] = draw(members(SEGMENTS) | exists)
    return matcher


@st.composite
def versions(draw: st.DrawFn) -> dict[str, Version]:
    """All of `VERSIONS`, mostly open to everybody."""
    lists = st.lists(matchers(max_size=1, by_segment=True), max_size=2).map(tuple)
    states = st.sampled_from((*[State.ACTIVE] * 4, *State))
    made = {}
    for name in VERSIONS:
        allow: tuple[Matcher, ...] | None = None
        deny: tuple[Matcher, ...] = ()
        if draw(st.integers(0, 2)) == 0:
            allow = draw(lists) or None
            deny = draw(lists)
        made[name] = Version(
            endpoints=ENDPOINTS,
            state=draw(states),
            allow=allow,
            deny=deny,
            accepts=(draw(lists) or None) if draw(st.integers(0, 3)) == 0 else None,
            fallback=draw(st.none() | NAMES),
            lineage=draw(LINEAGES) if draw(st.integers(0, 3)) == 0 else None,
        )
    return made


@st.composite
def rules(draw: st.DrawFn) -> tuple[Rule, ...]:
    """Up to five rules with ids of their own."""
    made = []
    for n in range(draw(st.integers(0, 5))):
        when = draw(matchers(by_segment=True))
        kind = draw(st.sampled_from(("serve", "split", "deny")))
        if kind == "serve":
            made.append(Rule(id=f"r{n}", when=when, serve=draw(NAMES)))
        elif kind == "split":
            made.append(Rule(id=f"r{n}", when=when, split=draw(SPLITS)))
        else:
            made.append(Rule(id=f"r{n}", when=when, deny="no"))
    return tuple(made)


@st.composite
def shadows(draw: st.DrawFn) -> Shadow:
    """A shadow that most often takes all."""
    return Shadow(
        version=draw(NAMES),
        percent=draw(st.sampled_from((0.0, 50.0, 100.0))),
        enabled=draw(st.integers(0, 3)) != 0,
        when=(draw(matchers(by_segment=True)),) if draw(st.integers(0, 3)) == 0 else (),
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies over `VERSIONS`; well shaped, and fit to be compiled."""
    few = st.lists(matchers(max_size=1, by_segment=True), max_size=1).map(tuple)
    access = st.just(()) | st.just(()) | few
    return Policy(
        model="tumor",
        versions=draw(versions()),
        labels={name: draw(st.sampled_from(VERSIONS)) for name in LABELS},
        segments=draw(segments()),
        rules=draw(rules()),
        default=draw(st.none() | NAMES),
        default_access=draw(st.sampled_from((DefaultAccess.ALLOW, *DefaultAccess))),
        allow=draw(access) or None,
        deny=draw(access),
        on_unavailable=draw(st.sampled_from(OnUnavailable)),
        shadows=tuple(draw(st.lists(shadows(), max_size=2, unique_by=lambda one: one.version))),
        revision=draw(st.integers(0, 3)),
    )


GRANTED = st.lists(
    st.sampled_from((*VERSIONS, "v9", "label:canary", "label:v1", ">=2", "^1 || =3", "*")),
    max_size=3,
).map(tuple)
GRANTS = (
    st.none()
    | st.none()
    | st.dictionaries(st.sampled_from(("tumor", "tumor", "*", "other")), GRANTED, max_size=2)
)


@st.composite
def callers(draw: st.DrawFn) -> Identity:
    """Callers with and without each attribute."""
    claims = draw(st.fixed_dictionaries({}, optional={"level": CLAIMS, "org": CLAIMS}))
    if draw(st.booleans()):
        claims["org"] = {"unit": draw(CLAIMS)}
    return Identity(
        tenant=draw(st.sampled_from(TENANTS)),
        subject=draw(st.sampled_from(("", "s1", "s2"))),
        app=draw(st.sampled_from(("", *WORDS))),
        scopes=tuple(draw(st.lists(st.sampled_from(WORDS), max_size=2))),
        claims=claims,
        grants=draw(GRANTS),
    )


@st.composite
def heads(draw: st.DrawFn) -> RequestHead:
    """Heads that may ask for a version and may carry `X-Word`."""
    words = draw(st.lists(st.sampled_from(WORDS), max_size=1))
    made = make_head(
        draw(st.sampled_from((b"/invocations", b"/%61?b=/a", b"/v2/models/tumor/infer"))),
        method=draw(st.sampled_from((b"GET", b"POST"))),
        request_id=draw(st.sampled_from((b"r1", b"r2", b"r3"))),
        asked_version=draw(
            st.sampled_from((None, None, None, b"v1", b"v2", b"v9", b"canary", b"\xff"))
        ),
        headers=tuple((b"X-Word", one.encode()) for one in words),
    )
    made.at_s = draw(st.sampled_from(INSTANTS))
    return made
