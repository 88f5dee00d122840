"""Documents come in as JSON or YAML, are refused with a place, and go out in one spelling."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.policy import Operators, Policy, Rule, Split, Version
from sidecar.policy import codec, document
from sidecar.policy.codec import MAX_DOCUMENT_BYTES, decode, digest, encode, load, locate
from sidecar.policy.problem import PolicyError, Problem
from sidecar.policy.schema import WORDS
from sidecar.policy.snapshot import compile_snapshot
from sidecar.policy.validate import validate, warnings
from tests.policy.policies import policies

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

YAML = b"""\
model: tumor
versions:
  v1: {endpoints: ["http://127.0.0.1:9001"]}
  v2:
    endpoints:
      - http://127.0.0.1:9002
rules:
  - id: canary
    when: {tenant: [acme, no, 007], claim.level: 3, header.x-debug: true}
    split: {arms: {v1: 90, v2: 10}}
default: v1
"""
MINIMAL = b'{"model":"m","versions":{"v1":{"endpoints":["http://h:1"]}}}'


def refused(raw: bytes) -> tuple[Problem, ...]:
    with pytest.raises(PolicyError) as caught:
        decode(raw, source="doc")
    return caught.value.problems


def with_version(members: str) -> bytes:
    return f"model: m\nversions:\n  v1: {{endpoints: [x], {members}}}\n".encode()


def with_rule(rule: str) -> bytes:
    return (
        b'{"model":"m","versions":{"v1":{"endpoints":["http://h:1"]}},"rules":[%s]}' % rule.encode()
    )


def test_yaml_is_read_as_it_stands() -> None:
    policy = decode(YAML, source="doc")

    assert policy == Policy(
        model="tumor",
        versions={
            "v1": Version(endpoints=("http://127.0.0.1:9001",)),
            "v2": Version(endpoints=("http://127.0.0.1:9002",)),
        },
        rules=(
            Rule(
                id="canary",
                when={"tenant": ("acme", "no", "007"), "claim.level": 3, "header.x-debug": True},
                split=Split(arms={"v1": 90, "v2": 10}),
            ),
        ),
        default="v1",
    )


@given(policies())
def test_what_is_encoded_decodes_to_the_same(policy: Policy) -> None:
    assert decode(encode(policy), source="doc") == policy


@given(policies())
def test_json_reads_the_same_as_json_and_as_yaml(policy: Policy) -> None:
    raw = encode(policy)

    assert document.read(raw.decode(), "doc") == json.loads(raw)


def test_equal_policies_have_one_spelling_and_one_digest() -> None:
    turned = b'{"versions": {"v1": {"endpoints": ["http://h:1"], "deny": []}}, "model": "m"}'

    one, other = decode(MINIMAL, source=""), decode(turned, source="")

    assert encode(one) == encode(other) == MINIMAL
    assert digest(one) == digest(other) == digest(MINIMAL)
    assert digest(turned) != digest(MINIMAL)


def test_the_order_of_versions_does_not_show_in_the_spelling() -> None:
    turned = decode(YAML, source="")
    versions = dict(reversed(turned.versions.items()))

    assert encode(Policy(model="m", versions=versions)) == encode(
        Policy(model="m", versions=turned.versions)
    )


@pytest.mark.parametrize(
    ("raw", "line", "column", "words"),
    [
        (b"", 1, 1, "empty"),
        (b"model: a\nmodel: b\n", 2, 1, '"model" is given twice'),
        (MINIMAL[:-1] + b',\n "model": "x"}', 2, 2, '"model" is given twice'),
        (b'{"model":\n  "m" :}', 2, 7, "not JSON"),
        (b'{"model":', 1, 10, "not JSON"),
        (b"a: b: c\n", 1, 5, "not YAML"),
        (b"model: m\n---\nmodel: n\n", 3, 1, "more than one document"),
        (b"model: !!python/object:os.system x\n", 1, 8, "tags"),
        (b"model: !!map {}\n", 1, 8, "tags"),
        (b"? [a]\n: b\n", 1, 3, "key must be plain text"),
        (b"model: *x\n", 1, 8, "alias"),
        (b"model: m\nx: \xff\n", 2, 4, "0xff"),
        (b"model: 1e999\n", 1, 8, "out of range"),
        (b"model: \x00\n", 1, 8, "not YAML"),
        ("é: é\nb: \x07\n".encode(), 2, 4, "not YAML"),
        ("é: é\nb:\n\tc: 1\n".encode(), 3, 1, "a tab is here"),
        (b"suffix: @example.com\n", 1, 9, "needs quotes"),
        (b"MODEL", 1, 1, 'a mapping is expected, not text "MODEL"'),
    ],
)
def test_what_is_no_document_is_refused_with_its_place(
    raw: bytes, line: int | None, column: int | None, words: str
) -> None:
    (problem,) = refused(raw)

    assert words in problem.reason
    assert (problem.line, problem.column) == (line, column)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"model: m\n", 'doc:1:1: the field "versions" is missing'),
        (
            b"versions:\n  v1: {}\n  v1: {}\n",
            'doc:3:3: versions: the key "v1" is given twice',
        ),
        (b"model: [m]\nversions: {}", "doc:1:8: model: text is expected, not a list"),
        (
            b"model: m\nversions:\n  v 1: {endpoints: [x]}",
            'doc:3:8: versions["v 1"]: "v 1" is not a name',
        ),
        (
            b"model: m\nversions:\n  v1: {endpoint: [x]}",
            'versions.v1.endpoint: unknown field "endpoint"; did you mean "endpoints"?',
        ),
        (
            b"model: m\nversions:\n  v1: {endpoints: []}",
            "doc:3:19: versions.v1.endpoints: a list of at least 1 item is expected, not of 0",
        ),
        (
            b"model: m\nversions:\n  v1: {endpoints: [x]}\ndefault: 1.10",
            "doc:4:10: default: text is expected, not the number 1.1; put it in quotes",
        ),
        (
            with_rule('{"id":"r","when":{"header.x":{"prefixx":"a"}}}'),
            'rules[0].when["header.x"].prefixx: unknown field "prefixx"; did you mean "prefix"?',
        ),
        (
            with_rule('{"id":"r","when":{"a":[[]]}}'),
            "rules[0].when.a[0]: true or false, a number or text is expected",
        ),
        (
            with_rule('{"id":"r","split":{"arms":{"v1":-1}}}'),
            "rules[0].split.arms.v1: a whole number of at least 0 is",
        ),
        (
            with_version("health: {status: [200]}"),
            'doc:3:32: versions.v1.health: the field "path" is missing',
        ),
        (
            with_version("health: {path: /, interval_s: 0}"),
            "versions.v1.health.interval_s: a number of at least 0.05 is expected, not the number",
        ),
        (
            with_version("health: {path: /, status: 200}"),
            "versions.v1.health.status: a list is expected, not the number 200",
        ),
        (
            with_version("health: {path: /, unhealthy_after: 0}"),
            "versions.v1.health.unhealthy_after: a whole number of at least 1 is",
        ),
        (
            with_version("max_concurrency: 0"),
            "versions.v1.max_concurrency: a whole number of at least 1 is",
        ),
        (
            with_version("max_queue: -1"),
            "versions.v1.max_queue: a whole number of at least 0 is",
        ),
        (
            with_version("state: drainin"),
            'versions.v1.state: "drainin" is none of registered, warming, active, draining, '
            'retired; did you mean "draining"?',
        ),
        (
            with_version("state: RETIRED"),
            'versions.v1.state: "RETIRED" is none of registered, warming, active, draining, '
            'retired; did you mean "retired"?',
        ),
        (
            with_version("state: 1"),
            'versions.v1.state: "registered", "warming", "active", "draining" or "retired" is '
            "expected, not the number 1",
        ),
        (
            with_version(f"deprecation: {{since: {'x' * 41}}}"),
            "versions.v1.deprecation.since: text of at most 40 characters is expected, not ",
        ),
        (
            with_version("timeouts: {first_byte: 1}"),
            'unknown field "first_byte"; did you mean "first_byte_s"?',
        ),
    ],
)
def test_misfits_are_named_with_path_and_place(raw: bytes, text: str) -> None:
    assert text in "\n".join(map(str, refused(raw)))


def test_all_misfits_are_reported_at_once() -> None:
    raw = b"model: m\nversions: {v1: {endpoints: x}}\nrules: [{id: 1}, {serve: v1}]\nextra: 1"

    assert [problem.path for problem in refused(raw)] == [
        "versions.v1.endpoints",
        "rules[0].id",
        "rules[1]",
        "extra",
    ]


def test_flow_yaml_is_no_broken_json() -> None:
    policy = decode(b"{model: m, versions: {v1: {endpoints: ['http://h:1']}}}", source="doc")

    assert policy == decode(MINIMAL, source="doc")


def test_a_byte_order_mark_is_no_text() -> None:
    assert decode(b"\xef\xbb\xbf" + MINIMAL, source="doc") == decode(MINIMAL, source="doc")


@pytest.mark.parametrize("text", ["no", "off", "1:30", "2026-01-01", "0x10", "1_000", ".nan", "01"])
def test_yaml_scalars_that_json_does_not_know_are_text(text: str) -> None:
    assert document.read(f"a: {text}", "") == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1.5", -1.5),
        ("12345678901234567890", 12345678901234567890),
        ("1e3", 1000.0),
        ("true", True),
        ("~", None),
        ("'1'", "1"),
        ("", None),
    ],
)
def test_yaml_scalars_that_json_knows_mean_the_same(text: str, value: JSON) -> None:
    assert document.read(f"a: {text}", "") == {"a": value}


@pytest.mark.parametrize("form", ["model: {}", '{{"model": {}}}'])
def test_a_whole_number_that_is_no_double_is_refused(form: str) -> None:
    (problem,) = refused(form.format("9" * 400).encode())

    assert (problem.path, problem.reason) == ("model", "number out of range")


BOMB = "# y\n" + ('{"' + "é" * 100 + '": ') * 31 + "[" + "0," * 20_000 + "0]" + "}" * 31


@pytest.mark.parametrize("text", [BOMB, BOMB.removeprefix("# y\n")], ids=["yaml", "json"])
def test_the_memory_to_refuse_a_document_is_in_proportion_to_it(text: str) -> None:
    raw = text.encode()
    tracemalloc.start()
    try:
        refused(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 40 * len(raw)


def test_a_long_tag_or_anchor_is_told_in_short() -> None:
    for text in ("a: !" + "t" * 9_999 + " b", "a: *" + "x" * 9_999):
        (problem,) = refused(text.encode())

        assert len(problem.reason) < 200


def test_aliases_are_read() -> None:
    assert document.read("a: &x {b: 1}\nc: [*x, *x]", "") == {
        "a": {"b": 1},
        "c": [{"b": 1}, {"b": 1}],
    }


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]

    assert "aliases counted in full" in refused("\n".join(lines).encode())[0].reason


def test_an_anchor_may_not_hold_itself() -> None:
    assert "before the end of its anchor" in refused(b"a: &x [*x]")[0].reason


@pytest.mark.parametrize("raw", [b"- " * 100_000, b"[" * 100_000, b'{"a":' * 100_000, b"a: " * 50])
def test_deep_nesting_is_refused(raw: bytes) -> None:
    assert refused(raw)


def test_a_document_over_the_limit_is_refused_unread() -> None:
    (problem,) = refused(b" " * (MAX_DOCUMENT_BYTES + 1))

    assert "at most 1048576" in problem.reason


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_no_bytes_cause_anything_but_a_refusal(raw: bytes) -> None:
    with pytest.raises(PolicyError):
        decode(raw, source="doc")


@given(st.integers(0, len(YAML)), st.integers(0, 12), st.text("{}[]:,*&!-' \n\t\"", max_size=4))
def test_a_damaged_document_is_read_or_refused(at: int, gone: int, put: str) -> None:
    for raw in (YAML, MINIMAL):
        damaged = raw[:at] + put.encode() + raw[at + gone :]
        try:
            policy = decode(damaged, source="doc")
        except PolicyError as error:
            assert error.problems  # noqa: PT017  # either outcome is right
        else:
            assert decode(encode(policy), source="doc") == policy


def test_load_validates_and_gives_places() -> None:
    raw = YAML.replace(b"default: v1", b"default: v22")

    with pytest.raises(PolicyError) as caught:
        load(raw, source="policies/tumor.yaml")

    wanted = 'policies/tumor.yaml:11:10: default: unknown version "v22"; did you mean "v2"?'
    assert str(caught.value) == wanted


def test_load_returns_a_good_policy() -> None:
    assert load(YAML, source="doc") == decode(YAML, source="doc")


def test_operators_keep_their_name_in() -> None:
    policy = decode(with_rule('{"id":"r","when":{"app":{"in":["a"]}},"serve":"v1"}'), source="")

    assert policy.rules[0].when == {"app": Operators(in_=("a",))}
    assert b'"in":["a"]' in encode(policy)


def test_a_problem_is_placed_at_the_nearest_value_that_encloses_it() -> None:
    problem = Problem("doc", 'rules[0].when["header.x-no.pe"].in', "why")

    (placed,) = codec.locate(YAML, [problem])

    assert str(placed) == 'doc:9:11: rules[0].when["header.x-no.pe"].in: why'


def test_a_problem_without_source_and_place_is_path_and_reason() -> None:
    assert str(Problem("", "rules[0]", "why")) == "rules[0]: why"


def with_members(members: str) -> bytes:
    return MINIMAL[:-1] + f",{members}}}".encode()


FIELDS = sorted({field for fields in WORDS.values() for field in fields})
NAMES = ("v1", "v2", "gold", "tenant", "segment", "time", "claim.a.b", "header.x", "header.host")
VALUES: st.SearchStrategy[JSON] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from((*NAMES, "2026-11-23T13:00:00Z", "10.0.0.0/8", ">=1 <2", "(", "draining"))
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from((*FIELDS, *NAMES)) | st.text(max_size=4), inner, max_size=3
        )
    ),
    max_leaves=10,
)


def judged(raw: bytes) -> None:
    """Read, judge and warn of a document: it can be compiled, or is refused with places."""
    try:
        policy = load(raw, source="doc")
    except PolicyError as error:
        lines = raw.count(b"\n") + 1
        assert error.problems  # noqa: PT017  # either outcome is right
        for one in error.problems:
            assert one.reason
            assert one.line is not None
            assert one.column is not None
            assert 1 <= one.line <= lines
            assert one.column >= 1
    else:
        assert load(encode(policy), source="doc") == policy
        assert all(one.line is not None for one in locate(raw, warnings(policy)))
        compile_snapshot(policy, {}, {})


@st.composite
def spelled(draw: st.DrawFn, value: JSON) -> bytes:
    """Spell a value as JSON of some kind, or as YAML."""
    if draw(st.integers(0, 2)) == 0:
        return yaml.safe_dump(value, allow_unicode=True).encode()
    indent = draw(st.sampled_from((None, 2, "\t")))
    return json.dumps(value, indent=indent, ensure_ascii=draw(st.booleans())).encode()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Spell a policy in which one value is another, has gone, or has come."""
    document: JSON = json.loads(encode(draw(policies())))
    at = document
    while steps := steps_of(at):
        step = draw(st.sampled_from(steps))
        inner = member(at, step)
        if not steps_of(inner) or draw(st.integers(0, 2)) == 0:
            change(draw, at, step)
            break
        at = inner
    return draw(spelled(document))


def steps_of(value: JSON) -> list[str | int]:
    """Return what leads to the members of a value."""
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, list) else []


def member(value: JSON, step: str | int) -> JSON:
    if isinstance(value, dict) and isinstance(step, str):
        return value[step]
    return value[step] if isinstance(value, list) and isinstance(step, int) else None


def change(draw: st.DrawFn, at: JSON, step: str | int) -> None:
    """Put another value in the place of one, or beside it, or take it away."""
    kind = draw(st.sampled_from(("replace", "add", "remove")))
    if isinstance(at, list) and isinstance(step, int):
        at[step : step + (kind != "add")] = [] if kind == "remove" else [draw(VALUES)]
    elif isinstance(at, dict) and isinstance(step, str):
        if kind == "remove":
            del at[step]
        else:
            at[draw(st.sampled_from(FIELDS)) if kind == "add" else step] = draw(VALUES)


@given(mutated())
def test_a_mutated_policy_is_good_or_refused_with_places(raw: bytes) -> None:
    judged(raw)


@given(VALUES.flatmap(spelled))
def test_any_value_is_refused_with_places(raw: bytes) -> None:
    judged(raw)


@given(mutated())
def test_whatever_has_the_shape_of_a_policy_can_be_judged(raw: bytes) -> None:
    try:
        policy = decode(raw, source="doc")
    except PolicyError:
        return
    assert all(problem.reason for problem in (*validate(policy), *warnings(policy)))


def test_json_with_tabs_is_refused_with_places() -> None:
    (problem,) = refused(b'{\n\t"model": 1,\n\t"versions": {}\n}')

    assert str(problem).startswith("doc:2:11: model: ")


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b'{"a":\n' + b"[" * 40_000, (2, 32)),
        (b'{"model":' + b"[" * 100_000, (1, 41)),
        (b"a:\n  " + b"[" * 40, (2, 34)),
        (b"x" * MAX_DOCUMENT_BYTES + b"\n", (1, MAX_DOCUMENT_BYTES + 1)),
        (b"# x\n" + b" " * MAX_DOCUMENT_BYTES, (2, MAX_DOCUMENT_BYTES - 3)),
    ],
)
def test_what_is_too_deep_or_large_is_refused_with_its_place(
    raw: bytes, place: tuple[int, int]
) -> None:
    first = refused(raw)[0]

    assert (first.line, first.column) == place


@pytest.mark.parametrize(
    "raw",
    [
        with_members('"rules":[{"id":"r","when":{"claim.n":' + "1" * 5000 + '},"serve":"v1"}]'),
        with_members('"rules":[{"id":"r","when":{"claim.n":1e999},"serve":"v1"}]'),
        with_members('"comment":"\\ud800"'),
        with_members('"comment":"\x01"'),
    ],
)
def test_json_that_no_reader_agrees_on_is_refused_with_a_place(raw: bytes) -> None:
    assert refused(raw)[0].line == 1


def test_a_number_out_of_range_is_told_with_its_place() -> None:
    (problem,) = refused(with_rule('{"id":"r","when":{"claim.n":1e999},"serve":"v1"}'))

    assert str(problem) == 'doc:1:98: rules[0].when["claim.n"]: number out of range'


def test_a_key_as_long_as_a_document_is_told_in_short() -> None:
    raw = b'{"model":"m","versions":{"%b":{"endpoints":[%b]}}}' % (
        b"v" * 500_000,
        b"1," * 99 + b"1",
    )

    problems = refused(raw)

    assert len(problems) == 101
    assert len("".join(map(str, problems))) < 50_000


def test_a_twin_key_in_json_with_tabs_has_its_place() -> None:
    (problem,) = refused(MINIMAL[:-1] + b',\n\t"model": "x"}')

    assert str(problem) == 'doc:2:2: the key "model" is given twice'
