"""Settings of signatures: whom they name can be read, each once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sidecar.config import load
from sidecar.errors import ConfigError
from sidecar.runtime.ed25519 import generate

if TYPE_CHECKING:
    from pathlib import Path


def settings(folder: Path, lines: str) -> Path:
    file = folder / "rmv.toml"
    file.write_text(f"no_auth = true\n[signing]\n{lines}\n")
    return file


def test_trusted_keys_lie_beside_the_file_that_names_them(tmp_path: Path) -> None:
    generate(tmp_path, "ann")
    file = settings(tmp_path, 'trusted = ["ann.pub"]\nexempt_kills = true')

    config = load(file, {"RMV_SIGNING_KEY": "elsewhere.key"}, {})

    assert config.signing.trusted == (str(tmp_path / "ann.pub"),)
    assert config.signing.exempt_kills
    environ = {"RMV_SIGNING__TRUSTED": str(tmp_path / "ann.pub"), "RMV_NO_AUTH": "true"}
    assert load(None, environ, {}).signing.trusted == config.signing.trusted


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("exempt_kills = true", ":3: signing.exempt_kills: has no effect without signing.trusted"),
        ('trusted = ["none.pub"]', ":3: signing.trusted[0]: "),
        ('trusted = ["ann.pub", "ann.key"]', "a private key, which has no place here"),
        ('trusted = ["ann.pub", "ann.pub"]', "the same key as"),
    ],
)
def test_keys_that_cannot_be_meant_are_told(tmp_path: Path, lines: str, told: str) -> None:
    generate(tmp_path, "ann")

    with pytest.raises(ConfigError) as caught:
        load(settings(tmp_path, lines), {}, {})

    assert told in str(caught.value)
