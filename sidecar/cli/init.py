"""`rmv init`: a folder to start from, with a policy, settings, a schema, and what to do next."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from sidecar.cli import output
from sidecar.cli.failure import advised
from sidecar.cli.options import AsJson, Default, Shadows, StoreOptions, Versions, commands, given
from sidecar.cli.seed import METHODS, seed_policy
from sidecar.errors import ConfigError
from sidecar.model.policy import Policy
from sidecar.policy.schema import schema

CONFIG = "rmv.toml"
POLICIES = "policies"
SCHEMA = "policy.schema.json"

# What means the same in every YAML, and is no number, true, false or null.
_PLAIN = re.compile(r"(?!(?:true|false|null)$)[A-Za-z/][A-Za-z0-9/._:-]*", re.IGNORECASE)

app = commands()


@app.command("init")
def init(
    ctx: typer.Context,
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What clients call it.")],
    version: Versions = None,
    default: Default = None,
    shadow: Shadows = None,
    folder: Annotated[
        Path, typer.Option(help="Where to; default: here.", metavar="DIR", show_default=False)
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Write a policy and settings to start from.

    Nothing that is there is overwritten. In a folder that has settings, only the policy of another
    model is added.
    """
    named = version or []
    policy = seed_policy(model, named, default or _first(named, shadow), shadow or ())
    if policy is None:
        msg = "name a version: --version v1=http://127.0.0.1:9001"
        raise ConfigError(msg)
    written = folder / POLICIES / f"{model}.yaml"
    if written.exists():
        error = ConfigError(f"{written}: already there, and not overwritten")
        raise advised(error, "--folder names another place.")
    shared = {folder / CONFIG: config_text(model), folder / SCHEMA: output.as_json(schema()) + "\n"}
    kept = [path for path in shared if path.exists()]
    new = {path: text for path, text in shared.items() if path not in kept}
    files = {written: policy_text(policy), **new}
    _write(files)
    if given(ctx, StoreOptions(as_json=as_json)).as_json:
        output.emit({"written": list(map(str, files)), "kept": list(map(str, kept))})
        return
    for path in files:
        output.say(f"wrote {path}")
    for path in kept:
        output.note(f"kept {path}, which was there")
    output.note(
        f"next: rmv serve --config {folder / CONFIG}\n"
        f"then: rmv apply --config {folder / CONFIG} -f {folder / POLICIES}"
    )


def _shadow(version: str, percent: float, methods: tuple[str, ...]) -> str:
    return f"{{version: {version}, percent: {percent:g}, methods: [{', '.join(methods)}]}}"


def policy_text(policy: Policy) -> str:
    """Write a policy as a commented document that shows what else can be said."""
    first, *others = policy.versions
    second = others[0] if others else "v2"
    versions = "\n".join(_version(name, one.endpoints) for name, one in policy.versions.items())
    shadows = "".join(
        f"\n  - {_shadow(_scalar(one.version), one.percent, one.methods)}" for one in policy.shadows
    )
    shadow = _shadow(_scalar(second), 10, METHODS)
    return (
        f"""\
---
# yaml-language-server: $schema=../{SCHEMA}
# Who gets which version of {policy.model}.
#
#   rmv diff -f {POLICIES}     what would change
#   rmv apply -f {POLICIES}    put it in force, without a restart
#   rmv explain {policy.model} --tenant acme
model: {_scalar(policy.model)}

versions:
{versions}
    # deny: [{{tenant: initech}}]              # who may not use it
    # health: {{path: /v2/health/ready}}       # without a healthy endpoint it serves nobody
    # state: draining                        # only who is pinned to it, or asks for it

# Names that can be moved from version to version: rmv label {policy.model} stable {first}
# labels: {{stable: {_scalar(first)}}}

# Asked in order; the first that matches answers.
# rules:
#   - id: globex
#     when: {{tenant: globex}}
#     serve: {_scalar(second)}
#   - id: canary
#     split: {{key: tenant, arms: {{{_scalar(first)}: 90, {_scalar(second)}: 10}}}}

# Who gets no version from the rules gets this one.
default: {_scalar(policy.default or first)}

# Copies of requests, whose answers reach nobody. With `compare: {{}}` they are compared with those
# that clients got: rmv shadow list
{f"shadows:{shadows}" if shadows else f"# shadows: [{shadow}]"}""".rstrip()
        + "\n"
    )


def config_text(model: str) -> str:
    """Write settings for trying it out, and what to change before anybody relies on it."""
    return f"""\
# Settings of `rmv serve --config {CONFIG}`. They are read once, at its start; policies are not in
# here, and change while it runs.
model = {_toml(model)}  # of requests that name no other
listen = "127.0.0.1:8080"
admin = "127.0.0.1:8081"  # health and metrics

# The store: by default a server of its own that `rmv serve` brings along.
# redis = "redis://127.0.0.1:6379"

# Believes every caller's X-Tenant header: for trying it out only. Before anybody relies on it,
# remove this line and say whose tokens count.
no_auth = true

# [identity]
# jwks_file = "jwks.json"  # the issuer's public keys
# issuer = "https://login.example"
# audience = "models"
# tenant_claim = "tenant"

# Of each worker ten requests a second are kept in the store, for `rmv plan`: tenants and what
# policies ask for, no bodies, no tokens. 0 keeps none.
# [contexts]
# per_second = 10
"""


def _first(versions: list[str], shadows: list[str] | None) -> str | None:
    """Return the first version that is not there for copies alone."""
    copies = {one.partition("=")[0] for one in shadows or ()}
    names = (one.partition("=")[0] for one in versions)
    return next((name for name in names if name not in copies), None)


def _write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x") as file:
                file.write(text)
        except OSError as error:
            msg = f"{path}: cannot be written: {error.strerror}"
            raise ConfigError(msg) from error


def _version(name: str, endpoints: tuple[str, ...]) -> str:
    listed = ", ".join(map(_scalar, endpoints))
    return f"  {_scalar(name)}:\n    endpoints: [{listed}]"


def _scalar(text: str) -> str:
    """Spell a text in YAML: as it is where that is safe, else as JSON does."""
    return text if _PLAIN.fullmatch(text) else msgspec.json.encode(text).decode()


def _toml(text: str) -> str:
    return msgspec.json.encode(text).decode()  # a name has no character that they spell otherwise
