"""What the pages show works as shown: documents, settings, commands and what they print."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

import pytest

from sidecar import config
from sidecar.policy import codec
from sidecar.policy.problem import PolicyError
from tests.docs.markdown import PAGES, ROOT, Block, blocks, steps
from tests.docs.shell import Shell
from tests.support.certificates import write_certificate
from tests.support.valkey import running_valkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def fits(shown: str, printed: str) -> bool:
    """Return whether a page shows what was printed; `...` stands for anything."""
    parts = (re.escape(part) for part in shown.rstrip().split("..."))
    return re.fullmatch(".*".join(parts), printed.rstrip(), re.DOTALL) is not None


def _shell_lines(page: Path) -> list[str]:
    return [
        line
        for block in blocks(page.read_text())
        if block.language == "sh"
        for line in block.text.splitlines()
    ]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A terminal in an empty folder, beside an empty store."""
    for name in [name for name in os.environ if name.startswith("RMV_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    with asyncio.Runner() as runner:
        server = running_valkey()
        valkey = runner.run(server.__aenter__())
        monkeypatch.setenv("RMV_REDIS", valkey.url)
        yield Shell(tmp_path, valkey.url)
        runner.run(server.__aexit__(None, None, None))


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if "```console" in page.read_text()],
    ids=lambda page: page.name,
)
def test_commands_print_what_the_page_shows(page: Path, shell: Shell, tmp_path: Path) -> None:
    for block in blocks(page.read_text()):
        if block.name:
            (tmp_path / block.name).write_text(block.text)
        for step in steps(block.text) if block.language == "console" else ():
            printed = shell.run(step.command)
            assert fits(step.printed, printed), f"$ {step.command}\n{printed}"


def test_the_samples_are_applied_together_and_serve(shell: Shell) -> None:
    samples = ROOT / "policies"
    models = [codec.load(file.read_bytes(), source="").model for file in samples.glob("*.yaml")]

    applied = shell.run(f"rmv apply -f {samples}")
    again = shell.run(f"rmv diff -f {samples}")

    assert sorted(applied.splitlines()) == sorted(f"{one} created (revision 1)" for one in models)
    assert again == ""
    for model in models:
        shares = shell.run(f"rmv try {model} -n 50").splitlines()
        assert len(shares) > 1
        assert not any("DENIED" in share for share in shares)


class Became(Exception):  # noqa: N818 -- it stands for success
    """This process would serve by now."""


@pytest.mark.parametrize(
    "command",
    sorted({line for page in PAGES for line in _shell_lines(page) if line.startswith("rmv serve")}),
)
def test_a_command_that_serves_is_understood(
    command: str, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def become(*_arguments: object) -> None:
        raise Became

    monkeypatch.setattr("os.execve", become)
    (tmp_path / "rmv.toml").write_text("no_auth = true")

    with pytest.raises(Became):
        shell.run(command)


def _named(language: str) -> list[tuple[Path, Block]]:
    return [
        (page, block)
        for page in PAGES
        for block in blocks(page.read_text())
        if block.language == language
    ]


@pytest.mark.parametrize(("page", "block"), _named("yaml"), ids=str)
def test_a_policy_is_valid_unless_it_shows_a_mistake(page: Path, block: Block) -> None:
    try:
        codec.load(block.text.encode(), source=str(page))
    except PolicyError:
        assert block.name == "wrong.yaml"
    else:
        assert block.name != "wrong.yaml"


@pytest.mark.parametrize(("page", "block"), _named("toml"), ids=str)
def test_a_configuration_can_be_served(page: Path, block: Block, tmp_path: Path) -> None:
    file = tmp_path / page.with_suffix(".toml").name
    file.write_text(block.text)
    (tmp_path / "jwks.json").write_text("{}")
    own, _ = write_certificate(tmp_path, "admin")
    (tmp_path / "operators-ca.pem").write_bytes(own.read_bytes())

    assert config.load(file, {}, {}).identity is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            spelled = {
                re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings
            }
            assert anchor in spelled, target
