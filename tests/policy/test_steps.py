"""Large documents are read, judged and refused in steps, with the outcome of small ones."""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING
from unittest.mock import Mock, patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.policy import Policy, Segment
from sidecar.policy import codec, document, match, pieces, shape, steps
from sidecar.policy.address import ANYWHERE
from sidecar.policy.compiled import compiling
from sidecar.policy.key import Shares
from sidecar.policy.pieces import WINDOW, FlawError
from sidecar.policy.problem import MAX_PROBLEMS, PolicyError
from sidecar.policy.segment import references
from sidecar.policy.shape import FEW
from sidecar.policy.steps import Steps, finish, letting_go
from sidecar.policy.validate import validating
from tests.policy.policies import policies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.model.identity import JSON

MANY = 3 * FEW


def steps_of(work: Steps[Policy]) -> tuple[int, Policy | PolicyError]:
    """Return how many pauses some work made, and how it ended."""
    count = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: Policy = end.value
            return count, made
        except PolicyError as error:
            return count, error
        count += 1


def most_between_pauses(work: Steps[object], calls: Mock) -> int:
    """Return how often something was called from one pause of some work to the next, at most."""
    counts = [0]
    try:
        while True:
            next(work)
            counts.append(calls.call_count)
    except StopIteration:
        counts.append(calls.call_count)
    return max(after - before for before, after in pairwise(counts))


def rules(count: int, **members: JSON) -> list[JSON]:
    return [
        {"id": f"r{n}", "when": {"tenant": f"t{n}"}, "serve": "v1", **members} for n in range(count)
    ]


def large(**members: JSON) -> bytes:
    versions: JSON = {"v1": {"endpoints": ["http://127.0.0.1:9001"]}}
    return json.dumps(
        {"model": "m", "versions": versions, "rules": rules(MANY), **members}
    ).encode()


GOOD = large()
MATCHERS: list[JSON] = [{"tenant": f"t{n}"} for n in range(MANY)]
ENDPOINTS: JSON = ["http://127.0.0.1:9001"]
TAKES: JSON = {"inputs": [{"type": "double", "name": f"c{n}"} for n in range(MANY)]}


@pytest.mark.parametrize(
    "raw",
    [
        GOOD,
        large(rules=rules(MANY, servee=1)),
        large(rules=rules(MANY, serve="v9")),
        large(versions={f"v{n}": {"endpoints": ENDPOINTS} for n in range(MANY)}),
        large(versions={"v1": {"endpoints": ENDPOINTS, "allow": MATCHERS}}),
        large(segments={f"s{n}": {"include": ["a"]} for n in range(MANY)}),
        large(segments={"s": {"when": MATCHERS}}),
        GOOD[:-5],  # read as YAML, before it is told that it is none
        json.dumps(json.loads(GOOD), indent=1).encode(),
        GOOD[:-1] + b',"model":"m"}',
    ],
)
def test_whatever_a_large_document_is_the_loop_comes_round_many_times(raw: bytes) -> None:
    count, _ = steps_of(codec.loading(raw, source="doc"))

    assert count >= MANY


@pytest.mark.parametrize(
    "members",
    [
        {"versions": {"v1": {"endpoints": ENDPOINTS, "allow": MATCHERS}}},
        {"versions": {"v1": {"endpoints": ENDPOINTS, "accepts": MATCHERS}}},
        {"segments": {"s": {"when": MATCHERS}}},
    ],
)
def test_the_matchers_of_one_list_are_compiled_one_at_a_time(members: dict[str, JSON]) -> None:
    policy = codec.load(large(rules=[], **members), source="doc")

    with patch.object(match, "compile_matcher", wraps=match.compile_matcher) as compiled:
        most = most_between_pauses(compiling(policy), compiled)

    assert compiled.call_count == MANY
    assert most == 1


def test_the_columns_of_one_version_are_taken_one_at_a_time() -> None:
    version: JSON = {"endpoints": ENDPOINTS, "lineage": {"signature": TAKES}}

    count, _ = steps_of(codec.loading(large(rules=[], versions={"v1": version}), source="doc"))

    assert count >= 3 * MANY  # read, shaped, judged


def test_rules_are_indexed_one_at_a_time() -> None:
    policy = codec.load(large(), source="doc")

    with patch.object(
        Shares, "most_selective", autospec=True, side_effect=Shares.most_selective
    ) as chosen:
        most = most_between_pauses(compiling(policy), chosen)

    assert most == 1


def test_the_tenants_of_one_segment_are_gathered_in_portions() -> None:
    tenants = [f"t{n}" for n in range(5 * match.PORTION)]

    pauses = sum(1 for _ in match.gathering((*tenants, "", "t1")))

    assert pauses >= 5
    assert finish(match.gathering((*tenants, "", "t1"))) == set(tenants)


def test_no_step_looks_at_the_references_of_all_segments() -> None:
    segments: JSON = {f"s{n}": {"include": ["a"]} for n in range(MANY)}
    policy = codec.load(large(segments=segments), source="doc")
    judging = validating(policy, "doc", ANYWHERE)

    with patch("sidecar.policy.validate.references", wraps=references) as asked:
        most = most_between_pauses(judging, asked)

    assert asked.call_count == MANY
    assert most == 1


def test_a_fault_of_a_large_document_keeps_its_place() -> None:
    wrong = rules(MANY)
    wrong[MANY - 1] = {"id": "r", "serve": "v9"}
    lines = json.dumps({**json.loads(GOOD), "rules": wrong}, indent=0)

    _, ended = steps_of(codec.loading(lines.encode(), source="doc"))

    assert isinstance(ended, PolicyError)
    at = lines[: lines.index('"v9"')].count("\n") + 1
    assert str(ended) == f'doc:{at}:10: rules[{MANY - 1}].serve: unknown version "v9"'


def test_a_long_list_with_one_wrong_item_is_looked_through_in_steps() -> None:
    tenants: list[JSON] = [*[f"t{n}" for n in range(1_000)], {}]
    wrong: JSON = [{"id": "r", "when": {"tenant": tenants}, "serve": "v1"}]

    count, ended = steps_of(codec.loading(large(rules=wrong), source="doc"))

    assert count >= 1_000
    assert isinstance(ended, PolicyError)
    assert ended.problems[0].path == "rules[0].when.tenant[1000]"


def test_a_document_that_is_wrong_everywhere_is_told_as_far_as_anybody_reads() -> None:
    for raw in (large(rules=rules(MANY, servee=1)), large(rules=rules(MANY, serve="v9"))):
        _, ended = steps_of(codec.loading(raw, source="doc"))

        assert isinstance(ended, PolicyError)
        assert len(ended.problems) == MAX_PROBLEMS + 1
        assert ended.problems[-1].reason == "and more"


@contextmanager
def everything_is_large() -> Iterator[None]:
    """Have the smallest document taken apart as far as it can be."""
    with patch.object(pieces, "WINDOW", 8), patch.object(shape, "FEW", 0):
        yield


@given(policies(), st.integers(0, 2**16), st.integers(0, 12), st.text('{}[]:,"1v-', max_size=4))
def test_a_document_in_steps_is_the_same_as_at_once_good_or_faulty(
    policy: Policy, at: int, gone: int, put: str
) -> None:
    good = codec.encode(policy)
    at %= len(good)

    for raw in (good, good[:at] + put.encode() + good[at + gone :]):
        _, at_once = steps_of(codec.loading(raw, source="doc"))
        with everything_is_large():
            _, in_steps = steps_of(codec.loading(raw, source="doc"))

        assert type(in_steps) is type(at_once)
        if not isinstance(at_once, PolicyError):
            assert in_steps == at_once == msgspec.json.decode(raw, type=type(at_once))
            continue
        assert str(in_steps) == str(at_once)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.just("long " * WINDOW)
    | st.just(10**300)
)
VALUES: st.SearchStrategy[JSON] = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES, st.sampled_from([None, 0, 3, "\t"]), st.booleans(), st.integers(0, WINDOW))
def test_json_in_pieces_is_what_json_reads_at_once(
    value: JSON, indent: int | str | None, ensure_ascii: bool, blanks: int
) -> None:
    text = " " * blanks + json.dumps(value, indent=indent, ensure_ascii=ensure_ascii) + "\n"

    read = finish(pieces.read(text))

    assert read.value == value
    assert type(read.value) is type(value)
    for start, end in read.ends.items():
        json.loads(text[start:end])  # each piece is a value of its own


@pytest.mark.parametrize(
    ("text", "path", "at"),
    [
        ('{"a": 1, "b": {"c": [0, {"d": 1,  "d": 2}]}}', ("b", "c", 1), 34),
        ('{"a": 1, "\\u0061": 2}', (), 9),
        ('[1, {"x": [1e999]}]', (1, "x", 0), 11),
        (f"[{'1' * 5000}]", (0,), 1),
    ],
)
@pytest.mark.parametrize("after", ["", " " * 2 * WINDOW])
def test_what_readers_disagree_on_is_refused_where_it_stands(
    text: str, path: tuple[str | int, ...], at: int, after: str
) -> None:
    with pytest.raises(FlawError) as caught:
        finish(pieces.read(text + after))

    assert (caught.value.path, caught.value.at) == (path, at)


def test_aliases_of_yaml_are_values_each() -> None:
    matchers = ", ".join(f"{{tenant: t{n}}}" for n in range(MANY))
    text = (
        f"model: m\nversions:\n"
        f"  v1: {{endpoints: ['http://h:1'], allow: &x [{matchers}]}}\n"
        f"  v2: {{endpoints: ['http://h:2'], deny: *x}}\n"
    )

    versions = codec.decode(text.encode(), source="doc").versions

    assert versions["v1"].allow == versions["v2"].deny
    assert len(versions["v2"].deny) == MANY


class Counted(str):
    """A text that is counted as it is freed."""

    __slots__ = ()
    freed = 0

    def __del__(self) -> None:
        Counted.freed += 1


def texts(number: int) -> list[Counted]:
    return [Counted(f"t{n}") for n in range(number)]


def test_what_is_let_go_of_is_freed_in_portions_however_deep_it_is() -> None:
    number = 20 * steps.PORTION
    segment = Segment(include=tuple(texts(number)), when=({"tenant": tuple(texts(number))},))
    held: list[object] = [
        {"rules": [{"when": {"tenant": texts(number)}}]},
        dict(enumerate(texts(number))),
        Policy("m", versions={}, segments={"s": segment}),
        set(texts(number)),
    ]
    del segment
    Counted.freed = 0

    with patch.object(steps, "_PLAIN", {Counted, int}):
        freed = [Counted.freed for _ in letting_go(held)]

    assert freed[-1] == 5 * number
    assert held == []
    assert max(after - before for before, after in pairwise([0, *freed])) <= steps.PORTION


def test_what_somebody_else_holds_is_left_as_it_is() -> None:
    value: JSON = {"rules": [{"id": "r"}] * 1_000, "versions": {"v1": {}}}
    before = json.dumps(value)

    finish(letting_go([value]))

    assert json.dumps(value) == before


def test_a_long_list_of_plain_values_is_made_in_portions() -> None:
    numbers: list[JSON] = list(range(2 * shape.PORTION + 1))

    with patch.object(msgspec, "convert", wraps=msgspec.convert) as converting:
        made = codec.decode(large(rules=rules(1, when={"claim.n": numbers})), source="doc")

    assert made.rules[0].when["claim.n"] == tuple(numbers)
    lists = [call.args[0] for call in converting.call_args_list if isinstance(call.args[0], list)]
    assert max(map(len, lists)) == shape.PORTION


def test_a_long_list_with_a_wrong_value_at_its_end_is_told_of_that_value() -> None:
    tenants: list[JSON] = [*map(str, range(2 * shape.PORTION)), 7]

    with pytest.raises(PolicyError, match=rf"include\[{2 * shape.PORTION}\]: "):
        codec.decode(large(segments={"s": {"include": tenants}}), source="doc")


def test_a_list_that_is_longer_than_it_may_be_is_told_so_however_long() -> None:
    endpoints: list[JSON] = ["http://h:1"] * (2 * shape.PORTION)

    with pytest.raises(PolicyError, match=r"versions\.v1\.endpoints: .*256"):
        codec.decode(large(versions={"v1": {"endpoints": endpoints}}), source="doc")


def test_many_short_lists_are_taken_apart_like_a_long_one() -> None:
    conditions: JSON = {f"claim.c{n}": [1] * FEW for n in range(FEW)}
    document = large(rules=rules(FEW, when=conditions))

    with patch.object(msgspec, "convert", wraps=msgspec.convert) as converting:
        most = most_between_pauses(codec.decoding(document, source="doc"), converting)

    assert most < FEW
    assert converting.call_count > FEW


def test_flow_yaml_may_be_given_up_at_any_step() -> None:
    work = document.reading("{a: [1, 2, 3]}", "doc")
    next(work)

    work.close()  # as by a newer document; a generator that went on would raise
