"""`rmv admin`: a token that its settings believe, and that is kept nowhere."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from sidecar import config

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv


def test_a_token_is_printed_with_the_settings_that_believe_it(rmv: Rmv, tmp_path: Path) -> None:
    ran = rmv("admin", "token", "alice", "--role", "operator")

    token, _, settings = ran.out.partition("\n")
    (tmp_path / "rmv.toml").write_text(f"no_auth = true\n{settings}")
    [known] = config.load(tmp_path / "rmv.toml", {}, {}).admin_tokens
    assert ran.code == 0
    assert (known.name, known.role) == ("alice", "operator")
    assert known.sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert token not in settings + ran.err
    assert len(token) >= len("rmv_") + 43  # 256 bits in base64url


def test_no_two_tokens_are_alike(rmv: Rmv) -> None:
    ran = [rmv("admin", "token", "a", "--role", "viewer", "--json").out for _ in range(2)]

    tokens = {msgspec.json.decode(out, type=dict[str, object])["token"] for out in ran}
    assert len(tokens) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a b", "--role", "viewer"), "is no name"),
        (("", "--role", "viewer"), "is no name"),
        (("alice", "--role", "root"), "none of viewer, operator, admin"),
        (("alice",), "--role"),
    ],
)
def test_a_name_or_role_that_cannot_be_is_refused(
    arguments: tuple[str, ...], told: str, rmv: Rmv
) -> None:
    ran = rmv("admin", "token", *arguments)

    assert ran.code == 2
    assert told in ran.err
    assert ran.out == ""
