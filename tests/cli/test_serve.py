"""`rmv serve` checks everything it is told, then becomes the process that serves."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

from sidecar.cli.seed import seed_policy
from sidecar.config import Config, ServeSpec, take_over
from sidecar.errors import ConfigError
from sidecar.model.policy import Policy, Shadow, Version

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Rmv

V1 = "v1=http://127.0.0.1:9001"
V2 = "v2=http://127.0.0.1:9002"


class Became(Exception):  # noqa: N818 -- it stands for success
    """This process would be another one by now."""

    def __init__(self, arguments: list[str], environ: dict[str, str]) -> None:
        self.arguments = arguments
        self.spec = take_over(environ)
        self.environ = environ


class Becomes(Protocol):
    """Runs `rmv serve`."""

    def __call__(self, *arguments: str | Path) -> Became:
        """Run `rmv serve` with these arguments."""
        ...


@pytest.fixture
def becomes(monkeypatch: pytest.MonkeyPatch, rmv: Rmv) -> Becomes:
    """Run `rmv serve` up to the point where it would be replaced."""

    def become(_path: str, arguments: list[str], environ: dict[str, str]) -> None:
        raise Became(arguments, environ)

    def run(*arguments: str | Path) -> Became:
        monkeypatch.setattr("os.execve", become)
        with pytest.raises(Became) as caught:
            rmv("serve", *arguments)
        return caught.value

    return run


def test_flags_alone_describe_a_sidecar_and_its_policy(becomes: Becomes) -> None:
    listen = ("--listen", "127.0.0.1:8090", "--admin", "off", "--workers", "2")
    model = ("--model", "tumor", "--version", V1, "--version", V2, "--default", "v1")

    became = becomes(*model, *listen, "--redis", "embedded", "--shadow", "v2=10", "--no-auth")

    assert became.spec == ServeSpec(
        config=Config(listen="127.0.0.1:8090", admin=None, workers=2, model="tumor", no_auth=True),
        seed_policy=Policy(
            model="tumor",
            versions={
                "v1": Version(endpoints=("http://127.0.0.1:9001",)),
                "v2": Version(endpoints=("http://127.0.0.1:9002",)),
            },
            default="v1",
            shadows=(Shadow(version="v2", percent=10, methods=("POST",)),),
        ),
    )


def test_a_file_describes_a_sidecar_without_any_policy(becomes: Becomes, tmp_path: Path) -> None:
    file = tmp_path / "rmv.toml"
    file.write_text('no_auth = true\nprefix = "other"\n')

    became = becomes("--config", file)

    assert became.spec == ServeSpec(config=Config(no_auth=True, prefix="other"), file=str(file))


def test_the_file_may_be_named_by_the_environment_or_before_the_command(
    rmv: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "rmv.toml"
    file.write_text("no_auth = 1\n")

    by_root = rmv("--config", file, "serve")
    monkeypatch.setenv("RMV_CONFIG", str(file))
    by_environment = rmv("serve")

    assert by_root == by_environment
    assert by_root.err == f"error: {file}:1: no_auth: true or false is expected, not the number 1\n"


def test_modules_of_the_current_folder_are_not_imported(becomes: Becomes) -> None:
    became = becomes("--no-auth")

    assert became.arguments == [sys.executable, "-P", "-m", "sidecar.app"]


def test_without_a_word_on_auth_nothing_is_served(rmv: Rmv) -> None:
    ran = rmv("serve", "--model", "tumor", "--version", V1)

    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("error: auth: ")
    assert "--no-auth" in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--listen", "8080"), "--listen: `8080` is not an address"),
        (
            ("--workers", "0"),
            "--workers: a whole number of at least 1 is expected, not the number 0",
        ),
        (("--version", V1), "--version needs the name of the model"),
        (("--model", "m", "--version", "v1"), "--version v1: write NAME=URL"),
        (("--model", "m", "--version", V1, "--version", V2), "--default is needed"),
        (("--redis", "localhost:6379"), "--redis: the URL must begin with redis://"),
        (("--model", "m", "--default", "v1"), "--default and --shadow need versions"),
        (("--model", "m", "--version", V1, "--shadow", "v1=x"), "--shadow v1=x: write NAME"),
    ],
)
def test_a_flag_that_cannot_be_used_is_named(
    rmv: Rmv, arguments: tuple[str, ...], told: str
) -> None:
    ran = rmv("serve", "--no-auth", *arguments)

    assert ran.code == 2
    assert ran.err.startswith(f"error: {told}")


def test_the_one_version_that_is_no_shadow_answers() -> None:
    policy = seed_policy("m", [V1, V2], None, ["v2"])

    assert policy is not None
    assert policy.default == "v1"


def test_a_version_given_twice_has_two_endpoints() -> None:
    policy = seed_policy("m", [V1, "v1=http://127.0.0.1:9009"], None, [])

    assert policy is not None
    assert policy.versions["v1"].endpoints == ("http://127.0.0.1:9001", "http://127.0.0.1:9009")


@pytest.mark.parametrize("percent", ["101", "-1", "nan", ""])
def test_a_shadow_takes_a_percentage(percent: str) -> None:
    with pytest.raises(ConfigError, match="from 0 to 100"):
        seed_policy("m", [V1, V2], "v1", [f"v2={percent}"])


def test_flags_that_make_an_invalid_policy_are_refused() -> None:
    with pytest.raises(ConfigError, match="flags: default"):
        seed_policy("m", [V1], "v9", [])


def test_the_program_ends_with_one_line_and_no_trace(tmp_path: Path) -> None:
    """The real program: a store that is not there, and what that costs to find out."""
    missing = tmp_path / "none.sock"
    command = [sys.executable, "-m", "sidecar", "pins", "tumor", "--redis", f"unix://{missing}"]

    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith(f"error: the store `unix://{missing}` cannot be reached: ")
    assert "Is `rmv serve` running?" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_version_of_the_flags_is_held_to_the_allow_list(
    rmv: Rmv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMV_ENDPOINTS__ALLOW", "127.0.0.1:9002")

    ran = rmv("serve", "--no-auth", "--model", "tumor", "--version", V1)

    assert ran.code == 2
    assert "versions.v1.endpoints[0]" in ran.err
    assert "endpoints.allow" in ran.err
