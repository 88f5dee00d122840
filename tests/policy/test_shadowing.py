"""What a shadow may not mean is found with its place; what it hardly means is warned of."""

from __future__ import annotations

import pytest
from msgspec import structs

from sidecar.model.comparison import Comparison, Kept, Kind, Thresholds
from sidecar.model.policy import Price, Shadow, State, Version
from sidecar.policy.answer import answer
from sidecar.policy.snapshot import compile_snapshot
from sidecar.policy.validate import validate, warnings
from tests.policy.examples import caller, make_head, make_policy, version

POST = ("POST",)


def found(shadow: Shadow, **versions: Version) -> list[str]:
    """Return what is wrong with a policy of this shadow."""
    policy = make_policy(shadows=(shadow,))
    policy = structs.replace(policy, versions=policy.versions | versions, labels={"canary": "v2"})
    return [str(one) for one in validate(policy)]


def warned(shadow: Shadow, **versions: Version) -> list[str]:
    """Return what is odd about a policy of this shadow."""
    policy = make_policy(shadows=(shadow,))
    policy = structs.replace(policy, versions=policy.versions | versions)
    assert validate(policy) == ()
    return [str(one) for one in warnings(policy)]


def test_a_shadow_that_says_everything_is_good() -> None:
    shadow = Shadow(
        version="canary",
        when=({"tenant": "acme"}, {"header.x-a": "1"}),
        methods=("POST", "*"),
        headers={"X-Team": "shadows", "Authorization": "Bearer of-its-own"},
        cost_per_day=5.0,
        compare=Comparison(
            kind=Kind.CLASSIFICATION,
            probabilities="/outputs/0/data",
            ignore=("/id", "/a~1b/*"),
            control="v1",
            keep=Kept(mask=("",)),
        ),
    )

    assert found(shadow, v2=structs.replace(version(), price=Price(per_request=0.01))) == []


@pytest.mark.parametrize(
    ("shadow", "problem"),
    [
        (Shadow(version="v2", when=({"tenent": "a"},)), "when[0].tenent: unknown attribute"),
        (Shadow(version="v2", when=({"segment": "x"},)), 'when[0].segment: unknown segment "x"'),
        (Shadow(version="v2", methods=("PO ST",)), 'methods[0]: "PO ST" is no method'),
        (Shadow(version="v2", headers={"a b": "1"}), 'headers["a b"]: "a b" is not a header name'),
        (Shadow(version="v2", headers={"X-Shadow": "0"}), "written by the sidecar itself"),
        (Shadow(version="v2", headers={"Content-Length": "0"}), "written by the sidecar itself"),
        (Shadow(version="v2", headers={"A": "1", "a": "2"}), 'headers.a: the header "a" is given'),
        (Shadow(version="v2", headers={"A": "1\r\nB: 2"}), "without control characters"),
        (Shadow(version="v2", cost_per_day=1.0), 'cost_per_day: the version "v2" has no price'),
        (Shadow(version="v2", percent=101), "percent: a percentage is from 0 to 100"),
    ],
)
def test_a_fault_of_a_shadow_is_found(shadow: Shadow, problem: str) -> None:
    (fault,) = found(shadow)

    assert fault.startswith("shadows[0].")
    assert problem in fault


@pytest.mark.parametrize(
    ("compare", "problem"),
    [
        (Comparison(control="v9"), 'control: unknown version "v9"'),
        (Comparison(control="v2"), 'control: "v2" is the shadow itself'),
        (Comparison(control="canary"), 'control: "canary" is the shadow itself'),
        (Comparison(ignore=("/a", "/b~2")), 'ignore[1]: "/b~2" is no JSON pointer'),
        (Comparison(label="no"), 'label: "no" is no JSON pointer'),
        (Comparison(headers=("a:",)), 'headers[0]: "a:" is not a header name'),
        (Comparison(kind=Kind.CLASSIFICATION), "kind: where a classification is"),
    ],
)
def test_a_fault_of_a_comparison_is_found(compare: Comparison, problem: str) -> None:
    (fault,) = found(Shadow(version="v2", compare=compare))

    assert fault.startswith("shadows[0].compare.")
    assert problem in fault


def test_a_control_is_not_retired() -> None:
    retired = structs.replace(version(), state=State.RETIRED)

    (fault,) = found(Shadow(version="v2", compare=Comparison(control="v3")), v3=retired)

    assert fault.startswith('shadows[0].compare.control: "v3" is retired')


def test_a_shadow_that_gets_no_post_is_warned_of_unless_it_means_to() -> None:
    idempotent = structs.replace(version(), idempotent=True)

    (odd,) = warned(Shadow(version="v2"))

    assert odd.startswith("shadows[0]: only GET, HEAD and OPTIONS are copied")
    assert warned(Shadow(version="v2", methods=POST)) == []
    assert warned(Shadow(version="v2"), v2=idempotent) == []


@pytest.mark.parametrize(
    ("shadow", "warning"),
    [
        (Shadow(version="v2", methods=("post",)), "methods[0]: methods are matched as sent"),
        (
            Shadow(version="v2", methods=POST, when=({"path": "a"},)),
            'when[0].path: a path starts with "/"',
        ),
        (
            Shadow(version="v2", methods=POST, compare=Comparison(control="v1", control_percent=0)),
            "compare.control_percent: the control gets no copy",
        ),
        (
            Shadow(
                version="v2", methods=POST, compare=Comparison(thresholds=Thresholds(agreement=1))
            ),
            "compare.thresholds.agreement: can be violated and not be held",
        ),
        (
            Shadow(
                version="v2",
                methods=POST,
                compare=Comparison(thresholds=Thresholds(error_increase=0)),
            ),
            "compare.thresholds.error_increase: can be violated and not be held",
        ),
        (Shadow(version="v1", methods=POST), "version: serves by default"),
    ],
)
def test_what_a_shadow_hardly_means_is_warned_of(shadow: Shadow, warning: str) -> None:
    (odd,) = warned(shadow)

    assert odd.startswith(f"shadows[0].{warning}")


def test_a_shadow_that_may_cost_nothing_is_warned_of() -> None:
    priced = structs.replace(version(), price=Price(per_request=0.01))

    (odd,) = warned(Shadow(version="v2", methods=POST, cost_per_day=0), v2=priced)

    assert odd == "shadows[0].cost_per_day: nothing is copied: it may cost nothing"


def test_a_cap_that_no_copy_counts_towards_is_warned_of() -> None:
    free = structs.replace(version(), price=Price())
    by_token = structs.replace(version(), price=Price(per_1k_output_tokens=2))
    shadow = Shadow(version="v2", methods=POST, cost_per_day=5)

    assert "price is 0" in warned(shadow, v2=free)[0]
    assert "not compared are not known" in warned(shadow, v2=by_token)[0]
    assert warned(structs.replace(shadow, compare=Comparison()), v2=by_token) == []


def test_who_explains_a_request_is_told_of_shadows_that_copy_its_method() -> None:
    shadows = (Shadow(version="v2"), Shadow(version="v3", methods=POST))
    snapshot = compile_snapshot(make_policy(shadows=shadows), {}, {})

    def told(method: bytes) -> list[str]:
        found = answer(snapshot, caller(), make_head(method=method))
        return [shadow.version for shadow in found.shadows]

    assert told(b"POST") == ["v3"]
    assert told(b"GET") == ["v2", "v3"]
