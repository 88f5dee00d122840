"""Models and versions as arguments of commands, completed by a shell from what the store holds."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer

from sidecar.cli.options import StoreOptions
from sidecar.errors import SidecarError
from sidecar.store.base import Store
from sidecar.store.connect import open_store

NAMES = ("redis", "prefix", "state_dir", "config")
"""Options that say which store is meant, as parameters of a command."""


def complete_model(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the stored models that begin so; none when the store cannot be asked."""
    return [one for one in _ask(ctx, "") if one.startswith(incomplete)]


def complete_version(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the versions and labels of the named model that begin so."""
    model = ctx.params.get("model")
    found = _ask(ctx, model) if isinstance(model, str) else []
    return [one for one in found if one.startswith(incomplete)]


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model.", autocompletion=complete_model)
]
Version = Annotated[
    str,
    typer.Argument(
        metavar="VERSION", help="The version, or a label of it.", autocompletion=complete_version
    ),
]


def _ask(ctx: typer.Context, model: str) -> list[str]:
    try:
        return asyncio.run(_read(_options(ctx), model))
    except (SidecarError, OSError):  # a shell that completes has no place for an error
        return []


async def _read(options: StoreOptions, model: str) -> list[str]:
    config = options.read()
    store = open_store(config.redis, config.prefix, config.state_dir)
    try:
        return await _versions(store, model) if model else await store.models()
    finally:
        await store.close()


async def _versions(store: Store, model: str) -> list[str]:
    stored = await store.get_policy(model)
    return [] if stored is None else [*stored.policy.versions, *stored.policy.labels]


def _options(ctx: typer.Context) -> StoreOptions:
    """Return the options so far: of the command, then those before its name."""
    options = StoreOptions()
    at: object = ctx
    while at is not None:
        params: object = getattr(at, "params", {})
        said = params if isinstance(params, dict) else {}
        named = {name: said[name] for name in NAMES if isinstance(said.get(name), str)}
        options = options.over(msgspec.convert(named, StoreOptions))
        at = getattr(at, "parent", None)
    return options
