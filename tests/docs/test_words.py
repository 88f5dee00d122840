"""Every word that an operator meets stands in the pages, and the pages name no other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args, get_origin

import msgspec
import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from sidecar.audit.entry import Entry, Inputs
from sidecar.cli.root import COMMANDS, LazyGroup, app
from sidecar.config import Config
from sidecar.errors import Code
from sidecar.model.audit import Kind, OnFailure
from sidecar.model.comparison import Comparison, Kept, Thresholds
from sidecar.model.decision import Cause, Decision, Reason
from sidecar.model.policy import (
    Column,
    DataSet,
    Deprecation,
    FeatureSet,
    Health,
    Lineage,
    Operators,
    Policy,
    Price,
    Rewrite,
    Rule,
    Segment,
    Shadow,
    Signature,
    Split,
    Version,
    VersionTimeouts,
)
from sidecar.model.record import ExchangeRecord
from sidecar.model.shadow import Failure, Skip, Uncompared
from sidecar.policy.condition import ATTRIBUTES
from sidecar.store.keys import Keys
from sidecar.store.seal import Cause as SealCause
from sidecar.wire.fields import REQUEST_FIELDS, RESPONSE_FIELDS
from tests.docs.markdown import DOCS, ROOT, coded, first_column, page, section, table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from enum import Enum

    from msgspec.structs import FieldInfo

SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "sidecar").rglob("*.py")))


def settings(struct: type[msgspec.Struct], parent: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every setting by its dotted name."""
    for field in msgspec.structs.fields(struct):
        name = f"{parent}{field.encode_name}"
        kinds = [field.type, *get_args(field.type)]
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, msgspec.Struct)]
        if inner and get_origin(field.type) is not tuple:
            yield from settings(inner[0], f"{name}.")
        else:
            yield name, field


def spelled_default(field: FieldInfo) -> str:
    """Spell a default as the page does: as TOML would, without a value `none`."""
    if field.required:
        return "required"
    if field.default is None:
        return "none"
    default = field.default
    if default is msgspec.NODEFAULT:
        assert field.default_factory is not msgspec.NODEFAULT
        default = field.default_factory()
    text = msgspec.json.encode(default).decode().replace(",", ", ")
    return f"`{text}`"


def flags_of(command: str) -> set[str]:
    """Return the long options of a command, `--help` aside."""
    group = get_command(app)
    assert isinstance(group, LazyGroup)
    found = group.get_command(typer.Context(group), command)
    assert found is not None
    parts = found.commands.values() if isinstance(found, TyperGroup) else [found]
    parameters = (parameter for part in parts for parameter in part.params)
    options = (option for parameter in parameters for option in parameter.opts)
    return {option for option in options if option.startswith("--")} - {"--help"}


def test_every_setting_has_a_row_with_its_environment_flag_and_default() -> None:
    rows = {coded(row[0])[0]: row for row in table(page("configuration.md"), "setting")}
    flags = flags_of("serve")

    assert rows.keys() == {name for name, _ in settings(Config)}
    for name, field in settings(Config):
        _, environment, flag, default, _ = rows[name]
        assert coded(environment) == ["RMV_" + name.upper().replace(".", "__")]
        expected = "--" + name.replace("_", "-")
        assert coded(flag) == ([expected] if expected in flags else [])
        assert default == spelled_default(field)


def test_every_error_code_has_a_row_with_its_status() -> None:
    rows = {coded(row[0])[0]: row[1] for row in table(page("http.md"), "code")}

    assert rows == {code.slug: str(code.status) for code in Code}


def test_every_header_that_is_not_just_passed_on_stands_in_the_page() -> None:
    words = {word.lower() for line in page("http.md").splitlines() for word in coded(line)}

    treated = {name.decode() for name in (*REQUEST_FIELDS, *RESPONSE_FIELDS)}
    assert treated - {"content-length", "transfer-encoding"} <= words  # RFC 9112's own business


def test_every_reason_and_cause_has_a_row() -> None:
    text = page("policy.md")

    assert set(first_column(text, "reason")) == {one.value for one in Reason}
    assert set(first_column(text, "cause")) == {one.value for one in Cause}


def test_every_metric_has_a_row() -> None:
    named = set(re.findall(r"\brmv_[a-z_]+[a-z]\b", SOURCES))

    assert set(first_column(page("operations.md"), "metric")) == named


def test_every_field_of_an_exchange_record_has_a_row() -> None:
    record = {field.encode_name for field in msgspec.structs.fields(ExchangeRecord)}
    decision = {f"decision.{field.encode_name}" for field in msgspec.structs.fields(Decision)}

    named = first_column(section(page("operations.md"), "The exchange log"), "field")

    assert set(named) == record - {"decision"} | decision


def test_every_message_that_asks_for_attention_has_a_row() -> None:
    logged = re.findall(r'_log\.(?:warning|error|exception)\(\s*"([^"]+)"', SOURCES)

    named = [coded(row[0])[0] for row in table(page("operations.md"), "message")]

    assert set(named) == set(logged)


@pytest.mark.parametrize(
    ("title", "struct"),
    [
        ("Fields of the document", Policy),
        ("A version", Version),
        ("Health", Health),
        ("Timeouts of a version", VersionTimeouts),
        ("Deprecation of a version", Deprecation),
        ("A segment", Segment),
        ("A rule", Rule),
        ("A split", Split),
        ("A rewrite", Rewrite),
        ("A shadow", Shadow),
    ],
)
def test_every_field_of_a_policy_has_a_row(title: str, struct: type[msgspec.Struct]) -> None:
    named = first_column(section(page("policy.md"), title), "field")

    assert set(named) == {field.encode_name for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize(
    ("title", "struct"),
    [
        ("A lineage", Lineage),
        ("A data set", DataSet),
        ("A feature set", FeatureSet),
        ("A signature", Signature),
        ("A column", Column),
    ],
)
def test_every_field_of_a_lineage_has_a_row(title: str, struct: type[msgspec.Struct]) -> None:
    named = first_column(section(page("lineage.md"), title), "field")

    assert set(named) == {field.encode_name for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize(
    ("title", "struct"),
    [
        ("How answers are compared", Comparison),
        ("The verdict", Thresholds),
        ("Evidence", Kept),
        ("What it costs", Price),
    ],
)
def test_every_field_of_a_shadow_test_has_a_row(title: str, struct: type[msgspec.Struct]) -> None:
    named = first_column(section(page("shadow.md"), title), "field")

    assert set(named) == {field.encode_name for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize(
    ("title", "causes"), [("skipped", Skip), ("failed", Failure), ("uncompared", Uncompared)]
)
def test_every_cause_of_the_ledger_has_a_row(title: str, causes: type[Enum]) -> None:
    named = first_column(page("shadow.md"), f"`{title}`")

    assert set(named) == {one.value for one in causes}


def test_every_attribute_and_operator_has_a_row() -> None:
    text = page("policy.md")

    operators = {field.encode_name for field in msgspec.structs.fields(Operators)}
    assert set(first_column(text, "operator")) == operators
    assert set(first_column(text, "attribute")) == {*ATTRIBUTES, "claim.<path>", "header.<name>"}


def test_every_kind_and_member_of_audit_has_a_row() -> None:
    text = page("audit.md")

    members = {field.encode_name for field in msgspec.structs.fields(Entry)}
    assert set(first_column(text, "kind")) == {one.value for one in Kind}
    assert set(first_column(text, "member")) == members
    inputs = next(row[1] for row in table(text, "member") if coded(row[0]) == ["inputs"])
    assert set(coded(inputs)) == {field.encode_name for field in msgspec.structs.fields(Inputs)}
    on_failure = first_column(text, "`audit.on_failure`")
    assert set(on_failure) == {one.value for one in OnFailure}


def test_every_cause_of_what_is_not_believed_has_a_row() -> None:
    assert set(first_column(page("signing.md"), "`cause`")) == {one.value for one in SealCause}


def test_every_kind_of_key_has_a_row() -> None:
    keys = Keys()
    spelled = {keys.policy("m"), keys.pin("m", "t"), keys.kill("m"), keys.kill("m", "v")}
    spelled |= {keys.revoked("<jti>"), keys.cutoff("t")}

    named = first_column(page("redis.md"), "key")

    assert {_filled(name) for name in named} == {
        *spelled,
        keys.history("m"),
        keys.contexts("m"),
        keys.shadows,
        keys.shadow("m", "v", "test").replace("test", "<test>"),
        keys.evidence("m", "v"),
        keys.spent("m", "v", "day").replace("day", "<day>"),
        keys.audit,
        keys.fleet,
        keys.member("<sidecar>:<worker>"),
        keys.probe + "<watcher>",
    }


def _filled(name: str) -> str:
    return name.replace("<model>", "m").replace("<tenant>", "t").replace("<version>", "v")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_section_that_names_its_options(command: str) -> None:
    text = page("cli.md")
    shared = text.partition("\n## ")[0]

    named = re.findall(r"--[a-z-]+", shared + section(text, f"rmv {command}"))

    assert flags_of(command) <= set(named)


def test_no_section_is_of_a_command_that_is_not_there() -> None:
    assert set(re.findall(r"^## rmv (\S+)$", page("cli.md"), re.MULTILINE)) == set(COMMANDS)


def test_the_pages_name_no_option_that_is_not_there() -> None:
    known = set().union(*(flags_of(command) for command in COMMANDS))
    known |= {"--redis", "--prefix", "--state-dir", "--config", "--json", "--version", "--help"}
    known |= {"--install-completion", "--show-completion"}

    for name in ("cli.md", "policy.md", "redis.md", "identity.md", "configuration.md"):
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page(name))) - known <= {"--raw"}


def test_every_make_target_has_a_row() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)

    named = first_column(page("development.md"), "target")

    assert {f"make {target}" for target in targets} <= set(named)
    assert all(name.split()[1] in targets for name in named if name.startswith("make "))


def test_every_floor_stands_in_the_map() -> None:
    folders = {path.stem for path in (ROOT / "sidecar").iterdir() if not path.stem.startswith("_")}
    folders -= {"py"}  # the marker py.typed

    assert set(first_column(page("development.md"), "floor")) == folders


def test_every_page_is_reachable_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()

    assert all(f"docs/{path.name}" in readme for path in DOCS.glob("*.md"))
