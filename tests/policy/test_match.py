"""Conditions: what each attribute is, and what each operator asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from sidecar.model.policy import Condition, Matcher, Operators
from sidecar.policy.match import Needs, compile_matcher, needs
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
        ("a", Operators(not_in=("b",)), True),
        (["a", "b"], Operators(not_in=("b",)), False),
        (None, Operators(not_in=("b",)), True),
        (None, Operators(not_in=("b",), exists=True), False),
        (None, Operators(exists=False), True),
        ([], Operators(exists=True), False),
        ({"a": 1}, Operators(exists=True), True),
        (False, Operators(exists=True), True),
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
    ],
)
def test_a_matcher_needs_what_its_attributes_need(matcher: Matcher, needed: Needs) -> None:
    assert needs([matcher]) is needed
