"""Which model a request is for: routes, X-Model, the path, the default; in this order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.route import AMBIGUOUS, Route, RouteRule
from sidecar.policy import target as targets
from sidecar.policy.route import MAX_REMEMBERED, RouteTable
from tests.policy.examples import make_head


def find(
    target: bytes = b"/x",
    *routes: RouteRule,
    default: str | None = None,
    host: bytes = b"h",
    asked: bytes | None = None,
) -> Route:
    head = make_head(target, host=host, asked_model=asked)
    return RouteTable(routes, default).find(head)


@pytest.mark.parametrize(
    ("target", "version", "label", "rest"),
    [
        (b"/v2/models/fraud", None, None, b""),
        (b"/v2/models/fraud/infer", None, None, b"/infer"),
        (b"/v2/models/fraud/infer?x=/versions/3", None, None, b"/infer"),
        (b"/v2/models/fraud/versions/v2/infer", "v2", None, b"/infer"),
        (b"/v2/models/fraud/versions/v2", "v2", None, b""),
        (b"/v2/models/fraud/versions", None, None, b"/versions"),
        (b"/v2/models/fraud/labels/x/infer", None, None, b"/labels/x/infer"),
        (b"/v2/models/%66raud/%76ersions/v%32/infer", "v2", None, b"/infer"),
        (b"/v1/models/fraud", None, None, b""),
        (b"/v1/models/fraud:predict", None, None, b":predict"),
        (b"/v1/models/fraud/metadata", None, None, b"/metadata"),
        (b"/v1/models/fraud/versions/2:predict", "2", None, b":predict"),
        (b"/v1/models/fraud/versions/2/metadata", "2", None, b"/metadata"),
        (b"/v1/models/fraud/labels/canary:predict", None, "canary", b":predict"),
        (b"/v1/models/fraud:predict/versions/2", None, None, b":predict/versions/2"),
        (b"http://other.example/v2/models/fraud/versions/3/infer?a=b", "3", None, b"/infer"),
    ],
)
def test_an_inference_path_names_model_and_version(
    target: bytes, version: str | None, label: str | None, rest: bytes
) -> None:
    assert find(target) == Route("fraud", version, label, rest)


@pytest.mark.parametrize(
    "target",
    [
        b"/invocations",
        b"/",
        b"*",
        b"",
        b"h:443",
        b"/v2/models",
        b"/v2/models/",
        b"/v3/models/fraud/infer",
        b"x/v2/models/fraud/infer",
        b"/v2/repository/models/fraud/load",
        b"/v1/models/:predict",
    ],
)
def test_any_other_path_is_for_the_default_model(target: bytes) -> None:
    assert find(target, default="tumor") == Route("tumor", None, None, target)
    assert find(target).model == ""


@pytest.mark.parametrize(
    "target",
    [
        b"//v2/models/secret/infer",
        b"/v2//models/secret/infer",
        b"/./v2/models/secret/infer",
        b"/x/../v2/models/secret/infer",
        b"/x/%2e%2E/v2/models/secret/infer",
        b"/v2%2Fmodels%2Fsecret/infer",
        b"/v2;x/models/secret/infer",
        b"http://h//v2/models/secret/infer",
        b"/v2/models//secret/infer",
        b"/v2/models/fraud/../secret/infer",
        b"/v2/models/fraud/./versions/v2/infer",
        b"/v2/models/fraud//versions/v2/infer",
        b"/v2/models/fraud/versions%2Fv2/infer",
        b"/v2/models/fraud/versions/v1/../v2/infer",
        b"/v1/models/fraud/x/../versions/2:predict",
    ],
)
def test_a_path_that_servers_may_read_as_another_model_or_version_is_ambiguous(
    target: bytes,
) -> None:
    assert find(target, default="fraud") is AMBIGUOUS


@pytest.mark.parametrize(
    "target",
    [
        b"//infer",
        b"/a/../b;c",
        b"/v2/models/fraud//infer",
        b"/v2/models/fraud/infer/../x%2Fy",
        b"//v2/models/fraud/infer",
    ],
)
def test_a_path_that_asks_for_the_same_however_it_is_read_is_taken(target: bytes) -> None:
    assert find(target, default="fraud").model == "fraud"


def test_a_prefix_cannot_be_left_by_dots() -> None:
    inner = RouteRule(model="inner", prefix="/inner")

    assert find(b"/open/../inner/x", inner, default="fraud") is AMBIGUOUS
    assert find(b"/inner/../open", inner, default="fraud") is AMBIGUOUS
    assert find(b"/inne%72/x", inner, default="fraud") is AMBIGUOUS
    assert find(b"/inner/./x", inner, default="fraud").model == "inner"


def test_a_model_that_a_path_names_is_never_answered_by_the_default() -> None:
    paths = b"/v2/models/resnet/infer", b"/v2/models/resnet/versions/7/infer", b"/v2/models/resnet"

    assert [find(path, default="tumor") for path in paths] == [
        Route("resnet", None, None, b"/infer"),
        Route("resnet", "7", None, b"/infer"),
        Route("resnet", None, None, b""),
    ]
    assert find(b"/v1/models/r/labels/x:predict", default="tumor").model == "r"


def test_a_route_gives_a_path_of_another_name_to_a_model() -> None:
    rule = RouteRule(model="tumor", prefix="/v2/models/resnet")

    assert find(b"/v2/models/resnet/infer", rule) == Route("tumor", None, None, b"/infer")


def test_x_model_beats_the_path() -> None:
    assert find(b"/v2/models/tumor/versions/1/infer", asked=b"fraud") == Route(
        "fraud", None, None, b"/v2/models/tumor/versions/1/infer"
    )
    assert find(b"/v2/models/fraud/versions/1/infer", asked=b"fraud").version == "1"


def test_x_model_with_an_unknown_model_is_not_answered_by_the_default() -> None:
    assert find(b"/x", asked=b"nobody", default="tumor").model == "nobody"
    assert find(b"/x", asked=b"\xff", default="tumor").model not in {"tumor", ""}


def test_a_configured_route_beats_x_model_and_path() -> None:
    route = RouteRule(model="tumor", prefix="/v2")

    assert find(b"/v2/models/fraud/infer", route, asked=b"fraud").model == "tumor"


@pytest.mark.parametrize("host", [b"A.example", b"a.example:8080", b"a.EXAMPLE."])
def test_a_host_matches_whatever_its_case_and_port(host: bytes) -> None:
    assert find(b"/x", RouteRule(model="fraud", host="a.Example"), host=host).model == "fraud"


@pytest.mark.parametrize("host", [b"", b"b.example", b"xa.example", b"a.example.evil"])
def test_another_host_does_not_match(host: bytes) -> None:
    assert find(b"/x", RouteRule(model="fraud", host="a.example"), host=host).model == ""


def test_an_ipv6_host_matches_without_its_port() -> None:
    assert find(b"/x", RouteRule(model="fraud", host="[::1]"), host=b"[::1]:80").model == "fraud"


@pytest.mark.parametrize("prefix", ["/team", "/team/"])
@pytest.mark.parametrize(
    ("target", "rest"),
    [(b"/team", b""), (b"/team/", b"/"), (b"/team/x?y", b"/x"), (b"/teams", None), (b"/te", None)],
)
def test_a_prefix_matches_on_the_border_of_a_segment(
    prefix: str, target: bytes, rest: bytes | None
) -> None:
    found = find(target, RouteRule(model="fraud", prefix=prefix))

    assert found == (
        Route("", None, None, target) if rest is None else Route("fraud", None, None, rest)
    )


def test_the_longest_prefix_wins_and_a_host_beats_any_host() -> None:
    routes = (
        RouteRule(model="any", prefix="/a/b/c"),
        RouteRule(model="short", host="h", prefix="/a"),
        RouteRule(model="long", host="h", prefix="/a/b"),
    )

    assert find(b"/a/b/c", *routes).model == "long"
    assert find(b"/a/x", *routes).model == "short"
    assert find(b"/a/b/c", *routes, host=b"other").model == "any"


@pytest.mark.parametrize("prefix", ["", "/team"])
def test_a_version_counts_behind_a_route_to_the_same_model(prefix: str) -> None:
    target = prefix.encode() + b"/v2/models/fraud/versions/2/infer"
    route = RouteRule(model="fraud", host="h", prefix=prefix)

    assert find(target, route) == Route("fraud", "2", None, b"/infer")


def test_a_version_of_another_model_does_not_count_behind_a_route() -> None:
    target = b"/v2/models/tumor/versions/2/infer"

    assert find(target, RouteRule(model="fraud", host="h")) == Route("fraud", None, None, target)


def test_the_memory_of_targets_is_bounded() -> None:
    table = RouteTable((), "tumor")

    for n in range(MAX_REMEMBERED * 2):
        table.find(make_head(b"/%d" % n))
    table.find(make_head(b"/" + b"x" * 16_000))

    remembered = table._found  # noqa: SLF001  # the bound is the promise
    assert len(remembered) <= MAX_REMEMBERED
    assert max(len(path) for _, path, _ in remembered) < 1000


@given(st.binary(max_size=60) | st.from_regex(rb"/v[12]/models/[a:/%]{0,8}", fullmatch=True))
def test_rest_is_a_tail_of_the_path_whatever_is_sent(target: bytes) -> None:
    table = RouteTable((), "tumor")

    first, again = (table.find(make_head(target)) for _ in range(2))

    assert targets.path(target).endswith(first.rest)
    assert again == first


@given(st.binary(max_size=40) | st.from_regex(rb"https?://[a-z:]{0,4}[/?a]{0,6}", fullmatch=True))
def test_the_parts_of_a_target_join_to_it(target: bytes) -> None:
    before, path, query = targets.split(target)

    assert before + path + query == target
    assert query[:1] in {b"", b"?"}
    assert b"?" not in path
    assert targets.path(target) == path
