"""Conditions: what each attribute is, and what each operator asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from sidecar.model.policy import Condition, Matcher, Operators, Segment
from sidecar.policy.match import MAX_REMEMBERED, Needs, compile_matcher, needs, remembering
from sidecar.policy.segment import compile_segments
from tests.policy.examples import caller, make_head
from tests.policy.plain import matches
from tests.policy.policies import callers, heads, matchers

if TYPE_CHECKING:
    from sidecar.model.identity import JSON, Identity
    from sidecar.model.request import RequestHead

HEAD = make_head()


def claim(value: JSON) -> Identity:
    return caller(claims={"c": value})


@given(matchers(max_size=3), callers(), heads())
def test_a_matcher_is_a_plain_reading(
    matcher: Matcher, identity: Identity, head: RequestHead
) -> None:
    assert compile_matcher(matcher)(identity, head) == matches(matcher, identity, head)


class Asked:
    """A test that is met by tenants of an even number, and counts."""

    def __init__(self) -> None:
        self.times = 0

    def test(self, identity: Identity, _head: RequestHead) -> bool:
        self.times += 1
        return int(identity.tenant) % 2 == 0


@pytest.mark.parametrize(
    ("needed", "times"),
    [(Needs.NOTHING, 2), (Needs.TENANT, 2), (Needs.IDENTITY, 4), (Needs.REQUEST, 8)],
)
def test_a_test_is_asked_once_for_all_that_it_needs(needed: Needs, times: int) -> None:
    asked = Asked()
    test = remembering(asked.test, needed)
    identities = [caller("0"), caller("0"), caller("1"), caller("1")]

    for _ in range(2):
        assert [test(identity, make_head()) for identity in identities] == [
            True, True, False, False,
        ]  # fmt: skip

    assert asked.times == times


@pytest.mark.parametrize("needed", [Needs.TENANT, Needs.IDENTITY])
def test_what_is_remembered_of_callers_is_bounded(needed: Needs) -> None:
    asked = Asked()
    test = remembering(asked.test, needed)
    first = caller("0")
    test(first, HEAD)

    for n in range(MAX_REMEMBERED):
        assert test(caller(str(n + 1)), HEAD) is (n % 2 == 1)
    assert test(first, HEAD)

    assert asked.times == MAX_REMEMBERED + 2


def test_no_conditions_match_everyone() -> None:
    assert compile_matcher({})(caller(""), HEAD)


def test_all_conditions_must_hold() -> None:
    test = compile_matcher({"tenant": "acme", "app": "web", "header.x-a": "1"})
    head = make_head(headers=((b"X-A", b"1"),))

    assert test(caller("acme", app="web"), head)
    assert not test(caller("acme", app="web"), HEAD)
    assert not test(caller("acme"), head)
    assert not test(caller("globex", app="web"), head)


@pytest.mark.parametrize(
    ("value", "condition", "is_match"),
    [
        (1, 1, True),
        (1.0, 1, True),
        (True, 1, False),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        ("1", 1, False),
        (1, "1", False),
        ("true", True, False),
        (None, "None", False),
        ([1, "a"], "a", True),
        ([True], 1, False),
        ([[1]], 1, False),
        ({"a": 1}, "a", False),
        ("a", ("b", "a"), True),
        ("a", Operators(in_=("a", 1)), True),
        (1, Operators(prefix="1"), False),
        ("ab", Operators(prefix="a", suffix="b"), True),
        (["ax", "xb"], Operators(prefix="a", suffix="b"), False),
        ("abc", Operators(regex="a.c"), True),
        ("abcd", Operators(regex="a.c"), False),
        ("abc\n", Operators(regex="abc$"), False),
        ("a\nc", Operators(regex="a.c"), False),
        ("\u00e9", Operators(regex="."), True),
        ("a\x00b", Operators(regex="a.b"), True),
        ("\ud800", Operators(regex="."), True),
        (7, Operators(regex="7"), False),
        ("a", Operators(not_in=("b",)), True),
        (["a", "b"], Operators(not_in=("b",)), False),
        (None, Operators(not_in=("b",)), True),
        (None, Operators(not_in=("b",), exists=True), False),
        (None, Operators(exists=False), True),
        ([], Operators(exists=True), False),
        ({"a": 1}, Operators(exists=True), True),
        (False, Operators(exists=True), True),
        (5, Operators(gte=5), True),
        (4.9, Operators(gte=5), False),
        (5, Operators(gte=1, lte=4.5), False),
        ("10", Operators(gte=9), True),
        ("-1e1", Operators(lte=-10), True),
        ("+1000", Operators(gte=0), False),
        ("0001000", Operators(gte=0), False),
        ("1.", Operators(gte=0), False),
        ("0", Operators(gte=0), True),
        ("9007199254740993", Operators(gte=9007199254740993), True),
        ("9007199254740992", Operators(gte=9007199254740993), False),
        ("1" + "0" * 500, Operators(gte=0), True),
        ("1" + "0" * 5000, Operators(gte=0), True),
        (True, Operators(gte=0), False),
        ("five", Operators(gte=0), False),
        ("nan", Operators(gte=0), False),
        ("1_0", Operators(gte=0), False),
        ("", Operators(lte=0), False),
        ([1, 20], Operators(gte=5, lte=10), False),
        ([1, 7], Operators(gte=5, lte=10), True),
        ("2.4.0", Operators(semver=">=2.1 <3"), True),
        ("3.0.0", Operators(semver=">=2.1 <3"), False),
        (2, Operators(semver="2"), False),
        ("10.1.2.3", Operators(cidr=("192.168.0.0/16", "10.0.0.0/8")), True),
        ("11.1.2.3", Operators(cidr=("192.168.0.0/16", "10.0.0.0/8")), False),
        (["x", "10.0.0.1"], Operators(cidr=("10.0.0.0/8",)), True),
    ],
)
def test_claims_compare_by_their_json_type(
    value: JSON, condition: Condition, is_match: bool
) -> None:
    assert compile_matcher({"claim.c": condition})(claim(value), HEAD) is is_match


def test_claims_are_found_along_the_dots_or_by_their_very_name() -> None:
    identity = caller(claims={"org": {"unit": {"id": 7}}, "https://a.example/x": "y", "s": "t"})

    assert compile_matcher({"claim.org.unit.id": 7})(identity, HEAD)
    assert compile_matcher({"claim.https://a.example/x": "y"})(identity, HEAD)
    assert not compile_matcher({"claim.s.t": "t"})(identity, HEAD)
    assert not compile_matcher({"claim.org.gone.id": 7})(identity, HEAD)


def test_any_scope_of_the_caller_counts() -> None:
    identity = caller(scopes=("models:read", "models:write"))

    assert compile_matcher({"scope": "models:write"})(identity, HEAD)
    assert compile_matcher({"scope": Operators(suffix=":read")})(identity, HEAD)
    assert not compile_matcher({"scope": Operators(not_in=("models:read",))})(identity, HEAD)
    assert not compile_matcher({"scope": "models"})(identity, HEAD)


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        (b"1", 1),
        (b"true", True),
        (b"1.5", 1.5),
        ("zürich".encode(), "zürich"),
        (b"a, b", Operators(prefix="a")),
    ],
)
def test_headers_compare_as_text(sent: bytes, condition: Condition) -> None:
    head = make_head(headers=((b"X-Word", sent),))

    assert compile_matcher({"header.X-WORD": condition})(caller(), head)


def test_a_header_that_is_no_utf8_equals_nothing_written() -> None:
    head = make_head(headers=((b"X-Word", b"\xff\xfe"),))

    assert not compile_matcher({"header.x-word": "\xff\xfe"})(caller(), head)
    assert compile_matcher({"header.x-word": Operators(exists=True)})(caller(), head)


def test_the_host_is_a_header_too() -> None:
    assert compile_matcher({"header.host": "models.example"})(caller(), HEAD)
    assert not compile_matcher({"header.host": Operators(exists=True)})(
        caller(), make_head(host=b"")
    )


@pytest.mark.parametrize(
    "target", [b"/admin/x", b"/admin/x?a=/b", b"/%61dmin/x", b"http://h/admin/x?y"]
)
def test_a_path_is_compared_decoded_and_without_the_query(target: bytes) -> None:
    test = compile_matcher({"path": Operators(prefix="/admin/")})

    assert test(caller(), make_head(target))


def test_a_method_is_compared_as_sent() -> None:
    assert compile_matcher({"method": ("GET", "POST")})(caller(), HEAD)
    assert not compile_matcher({"method": "post"})(caller(), HEAD)


def test_nobody_has_an_empty_tenant() -> None:
    assert not compile_matcher({"tenant": ""})(caller(""), HEAD)
    assert compile_matcher({"tenant": Operators(exists=False)})(caller(""), HEAD)


@pytest.mark.parametrize("attribute", ["", "x", "tenant.x", "claim", "claim.", "header", "header."])
def test_an_unknown_attribute_is_refused(attribute: str) -> None:
    with pytest.raises(ValueError, match="unknown attribute"):
        compile_matcher({attribute: "x"})


@pytest.mark.parametrize(
    "regex",
    ["[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*[a-z]*@", "(a|a)*b", "([a-z]+)*@", "(.*a){20}b"],
)
def test_no_value_keeps_a_regex_busy(regex: str) -> None:
    test = compile_matcher({"header.x-a": Operators(regex=regex)})

    # An engine that tries one way after another would be at it for years.
    assert not test(caller(), make_head(headers=((b"X-A", b"a" * 2_000),)))


def test_bytes_that_are_no_text_are_characters_to_a_regex() -> None:
    test = compile_matcher({"header.x-a": Operators(regex=".*evil.")})

    assert test(caller(), make_head(headers=((b"X-A", b"\xff evil\xc3"),)))
    assert not test(caller(), make_head(headers=((b"X-A", b"\xff good\xc3"),)))


def test_a_bad_regex_is_refused() -> None:
    with pytest.raises(ValueError, match="bad regex"):
        compile_matcher({"app": Operators(regex="(")})


@pytest.mark.parametrize(
    ("matcher", "needed"),
    [
        ({}, Needs.NOTHING),
        ({"tenant": "a"}, Needs.TENANT),
        ({"tenant": "a", "claim.x": 1}, Needs.IDENTITY),
        ({"scope": "a"}, Needs.IDENTITY),
        ({"app": "a", "header.x": "a"}, Needs.REQUEST),
        ({"path": "a"}, Needs.REQUEST),
        ({"time": Operators(until="2026-01-01T00:00:00Z")}, Needs.REQUEST),
    ],
)
def test_a_matcher_needs_what_its_attributes_need(matcher: Matcher, needed: Needs) -> None:
    assert needs([matcher]) is needed


@pytest.mark.parametrize(
    ("at_s", "is_open"), [(999.999, False), (1000.0, True), (1999.999, True), (2000.0, False)]
)
def test_a_window_has_its_start_and_not_its_end(at_s: float, *, is_open: bool) -> None:
    window = Operators(from_="1970-01-01T00:16:40Z", until="1970-01-01T00:33:20Z")
    head = make_head()
    head.at_s = at_s

    assert compile_matcher({"time": window})(caller(), head) is is_open


def test_a_window_may_have_one_side_alone() -> None:
    head = make_head()
    head.at_s = 1000.0

    assert compile_matcher({"time": Operators(from_="1970-01-01T00:16:40Z")})(caller(), head)
    assert not compile_matcher({"time": Operators(until="1970-01-01T00:16:40Z")})(caller(), head)


def test_a_caller_is_matched_by_the_segments_it_is_in() -> None:
    segments = compile_segments(
        {"beta": Segment(include=("acme",)), "gold": Segment(when=({"claim.c": "gold"},))}
    )

    def is_match(condition: Condition, identity: Identity) -> bool:
        return compile_matcher({"segment": condition}, segments)(identity, HEAD)

    gold, beta, neither = caller("x", claims={"c": "gold"}), caller("acme"), caller("x")
    assert [is_match("beta", one) for one in (gold, beta, neither)] == [False, True, False]
    assert [is_match(("beta", "gold"), one) for one in (gold, beta, neither)] == [True, True, False]
    not_beta = Operators(not_in=("beta",))
    assert [is_match(not_beta, one) for one in (gold, beta, neither)] == [True, False, True]
    some = Operators(exists=True, not_in=("gold",))
    assert [is_match(some, one) for one in (gold, beta, neither)] == [False, True, False]
    assert is_match(Operators(exists=False), neither)


@pytest.mark.parametrize(
    "matcher",
    [
        {"time": "2026-01-01T00:00:00Z"},
        {"time": Operators(gte=1)},
        {"app": Operators(until="2026-01-01T00:00:00Z")},
        {"time": Operators(until="tomorrow")},
        {"segment": Operators(prefix="b")},
        {"app": Operators(semver="banana")},
        {"app": Operators(cidr=("10.0.0.1/8",))},
    ],
)
def test_an_operator_that_does_not_fit_is_refused(matcher: Matcher) -> None:
    with pytest.raises(ValueError, match=r".+"):
        compile_matcher(matcher)


def test_what_was_read_of_a_head_is_told_again() -> None:
    head = make_head(b"/a%2Fb?c", headers=((b"X-One", b"1"), (b"x-one", b"2"), (b"X-On", b"3")))

    for _ in range(2):
        assert head.header(b"x-one") == b"1, 2"
        assert head.header(b"x-on") == b"3"
        assert head.header(b"x-o") is None
        assert compile_matcher({"path": "/a/b"})(caller(), head)
        assert not compile_matcher({"path": Operators(prefix="/a%")})(caller(), head)
