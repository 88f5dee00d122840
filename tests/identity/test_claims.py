"""The caller is read from where the operator said, and from nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Code
from sidecar.identity.claims import ClaimNames, find, read_identity
from sidecar.identity.refusal import TokenRefused
from sidecar.model.identity import JSON, Identity


def read(claims: dict[str, JSON], names: ClaimNames | None = None) -> Identity:
    return read_identity(claims, names or ClaimNames(), 1.0)


def test_a_path_leads_into_nested_claims() -> None:
    claims: dict[str, JSON] = {"org": {"tenant": "acme", "user": {"name": "ada"}}}

    identity = read(claims, ClaimNames(tenant="org.tenant", subject="org.user.name"))

    assert identity == Identity("acme", "ada", "", (), claims, 1.0)


def test_a_claim_of_the_whole_name_comes_before_a_path() -> None:
    claims: dict[str, JSON] = {"https://example.com/t": "whole", "org.t": "dotted", "org": {"t": 1}}

    assert find(claims, "https://example.com/t") == "whole"
    assert find(claims, "org.t") == "dotted"


@pytest.mark.parametrize("name", ["org.tenant.x", "org.other", "other.tenant", "list.0", "", "."])
def test_a_path_that_leads_nowhere_finds_nothing(name: str) -> None:
    assert find({"org": {"tenant": "acme"}, "list": ["a"]}, name) is None


@pytest.mark.parametrize(
    "tenant",
    [
        None,
        "",
        7,
        True,
        ["acme"],
        {"id": "acme"},
        "a\r\nX-Tenant: other",
        "a\nb",
        "a\rb",
        "a\x00b",
        "a\tb",
        "a\x7fb",
        "a\x85b",
        "caf\xe9",
        "\u540d",
        " acme",
        "acme ",
        " ",
        "a" * 129,
    ],
)
def test_a_tenant_that_cannot_stand_in_a_header_is_denied(tenant: JSON) -> None:
    with pytest.raises(TokenRefused) as refused:
        read({"tenant": tenant})

    assert refused.value.code is Code.TENANT_DENIED


def test_a_missing_tenant_is_denied() -> None:
    with pytest.raises(TokenRefused) as refused:
        read({"sub": "ada"})

    assert refused.value.code is Code.TENANT_DENIED


@pytest.mark.parametrize(
    ("tenant", "why"),
    [
        (None, "the token has no tenant in claim 'tenant'"),
        ("", "the token has no tenant in claim 'tenant'"),
        (7, "claim 'tenant' is not a string"),
        (" acme", "without outer blanks"),
    ],
)
def test_why_a_tenant_is_denied_is_told(tenant: JSON, why: str) -> None:
    with pytest.raises(TokenRefused, match=why):
        read({"tenant": tenant})


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128))
def test_any_visible_ascii_is_a_tenant(tenant: str) -> None:
    assert read({"tenant": tenant}).tenant == tenant


@pytest.mark.parametrize("name", ["sub", "azp"])
@pytest.mark.parametrize("value", [7, False, ["x"], {"x": 1}])
def test_a_subject_or_app_that_is_no_string_is_refused(name: str, value: JSON) -> None:
    with pytest.raises(TokenRefused) as refused:
        read({"tenant": "acme", name: value})

    assert refused.value.code is Code.TOKEN_INVALID
    assert name in refused.value.detail


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        (None, ()),
        ("", ()),
        ("read", ("read",)),
        (" read  write ", ("read", "write")),
        (["read", "write all"], ("read", "write all")),
        ([], ()),
    ],
)
def test_scopes_are_words_or_a_list(value: JSON, scopes: tuple[str, ...]) -> None:
    assert read({"tenant": "acme", "scope": value}).scopes == scopes


@pytest.mark.parametrize("value", [7, True, {"read": True}, ["read", 7], [None]])
def test_scopes_of_any_other_shape_are_refused(value: JSON) -> None:
    with pytest.raises(TokenRefused) as refused:
        read({"tenant": "acme", "scope": value})

    assert refused.value.code is Code.TOKEN_INVALID


def test_a_claim_that_is_not_named_is_not_read() -> None:
    names = ClaimNames(subject="", app="", scope="")

    identity = read({"tenant": "acme", "sub": 7, "azp": 7, "scope": 7}, names)

    assert (identity.subject, identity.app, identity.scopes) == ("", "", ())


# --- what a token says of itself --------------------------------------------------------------

WIDE = ClaimNames(segments="org.groups", grants="models")


@pytest.mark.parametrize(
    ("groups", "segments"),
    [(None, ()), ("beta staff", ("beta", "staff")), (["beta"], ("beta",)), ([], ())],
)
def test_segments_are_words_or_a_list(groups: JSON, segments: tuple[str, ...]) -> None:
    assert read({"tenant": "acme", "org": {"groups": groups}}, WIDE).segments == segments


def test_segments_and_grants_are_read_only_where_a_claim_is_named_for_them() -> None:
    identity = read({"tenant": "acme", "": {"m": ["v1"]}, "segments": ["x"], "models": 7})

    assert (identity.segments, identity.grants) == ((), None)


def test_grants_are_versions_by_model() -> None:
    granted: JSON = {"tumor": ["v1", ">=2 <4", "label:canary"], "fraud": []}

    identity = read({"tenant": "acme", "models": granted}, WIDE)

    assert identity.grants == {"tumor": ("v1", ">=2 <4", "label:canary"), "fraud": ()}


@pytest.mark.parametrize("grants", [None, {}])
def test_a_token_without_grants_differs_from_one_that_grants_nothing(
    grants: dict[str, JSON] | None,
) -> None:
    assert (read({"tenant": "acme", "models": grants}, WIDE).grants is None) == (grants is None)


@pytest.mark.parametrize("grants", ["v1", ["v1"], 7, True, {"m": "v1"}, {"m": [7]}, {"m": None}])
def test_grants_of_any_other_shape_are_not_taken_for_none(grants: JSON) -> None:
    with pytest.raises(TokenRefused) as refused:
        read({"tenant": "acme", "models": grants}, WIDE)

    assert refused.value.code is Code.TOKEN_INVALID
    assert "models" in refused.value.detail


@pytest.mark.parametrize(
    "text", ["", "v1 ", "label:", "label:*", ">= y", "v1,v2", "v1 or v2", "latest!", ">1 " * 90]
)
def test_a_grant_that_cannot_be_read_refuses_the_token(text: str) -> None:
    with pytest.raises(TokenRefused) as refused:
        read({"tenant": "acme", "models": {"other": ["v1"], "tumor": ["v1", text]}}, WIDE)

    assert refused.value.code is Code.TOKEN_INVALID
    assert "models" in refused.value.detail
    assert "latest" not in refused.value.detail


@pytest.mark.parametrize("claims", [{"tenant": "acme"}, {"tenant": "acme", "models": None}])
def test_where_grants_are_needed_a_token_without_them_is_refused(claims: dict[str, JSON]) -> None:
    strict = ClaimNames(grants="models", needs_grants=True)

    with pytest.raises(TokenRefused, match="no grants in claim 'models'") as refused:
        read(claims, strict)

    assert refused.value.code is Code.TENANT_DENIED
    assert read({**claims, "models": {}}, strict).grants == {}


def test_a_token_is_told_apart_by_its_jti() -> None:
    assert read({"tenant": "acme", "jti": "t-1"}).jti == "t-1"
    assert not read({"tenant": "acme"}).jti


@pytest.mark.parametrize("jti", [7, ["t-1"], True, "x" * 513])
def test_a_jti_that_could_not_be_revoked_is_refused(jti: JSON) -> None:
    with pytest.raises(TokenRefused) as refused:
        read({"tenant": "acme", "jti": jti})

    assert refused.value.code is Code.TOKEN_INVALID
