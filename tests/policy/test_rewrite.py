"""A rewrite respells the path and keeps the query, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sidecar.model.policy import Rewrite
from sidecar.policy.rewrite import compile_rewrite

TRITON = "/v2/models/{model}/versions/{version}{rest}"


def rewritten(template: str, target: bytes, rest: bytes = b"/infer") -> bytes:
    return compile_rewrite(Rewrite(path=template), "tumor", "v2")(target, rest)


@pytest.mark.parametrize(
    ("template", "target", "wanted"),
    [
        ("{path}", b"/a%2Fb?x=%20&x", b"/a%2Fb?x=%20&x"),
        ("/base{path}", b"/a%2Fb//c?x", b"/base/a%2Fb//c?x"),
        ("{path}{path}", b"/a", b"/a/a"),
        (TRITON, b"/v2/models/m/infer?a=/b?c", b"/v2/models/tumor/versions/v2/infer?a=/b?c"),
        (TRITON, b"/x?", b"/v2/models/tumor/versions/v2/infer?"),
        ("/fixed", b"/x?{path}", b"/fixed?{path}"),
        ("/p{path}", b"http://h/a?b", b"http://h/p/a?b"),
        ("/p{path}", b"*", b"*"),
        ("/p{path}", b"h:443", b"h:443"),
    ],
)
def test_a_template_respells_the_path(template: str, target: bytes, wanted: bytes) -> None:
    assert rewritten(template, target) == wanted


def test_what_the_client_sends_is_not_read_as_a_template() -> None:
    assert rewritten("/p{path}", b"/{rest}/{version}") == b"/p/{rest}/{version}"


@given(st.binary(max_size=30), st.binary(max_size=30), st.binary(max_size=10))
def test_the_query_is_kept_byte_for_byte(path: bytes, query: bytes, rest: bytes) -> None:
    target = b"/" + path.replace(b"?", b"") + b"?" + query

    assume(rest != target.partition(b"?")[0])  # that is a path that names no model
    assert rewritten("/a{rest}", target, rest) == b"/a" + rest + b"?" + query


def test_a_path_that_names_no_model_is_left_alone_by_a_template_with_rest() -> None:
    assert rewritten(TRITON, b"/v2/health/live?x=1", b"/v2/health/live") == b"/v2/health/live?x=1"


def test_a_path_that_names_no_model_can_be_respelled_by_path() -> None:
    assert rewritten("/pre{path}", b"/v2/health/live", b"/v2/health/live") == b"/pre/v2/health/live"
