"""Models and versions as arguments of commands, completed by a shell from what the store holds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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
    return [one for one in _ask(ctx, lambda store: store.models()) if one.startswith(incomplete)]


def complete_version(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the versions and labels of the named model that begin so."""
    return _of_model(ctx, incomplete, _versions)


def complete_label(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the labels of the named model that begin so."""
    return _of_model(ctx, incomplete, _labels)


def complete_revision(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the revisions of the named model that begin so, newest first."""
    return _of_model(ctx, incomplete, _revisions)


def complete_target(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the models that begin so; behind `MODEL:`, its versions and labels."""
    model, colon, version = incomplete.partition(":")
    if not colon:
        return complete_model(ctx, incomplete)
    found = _ask(ctx, lambda store: _versions(store, model))
    return [f"{model}:{one}" for one in found if one.startswith(version)]


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model.", autocompletion=complete_model)
]
MaybeModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The model; default: all, or the one of the document.",
        autocompletion=complete_model,
        show_default=False,
    ),
]
Version = Annotated[
    str,
    typer.Argument(
        metavar="VERSION", help="The version, or a label of it.", autocompletion=complete_version
    ),
]


def _of_model(
    ctx: typer.Context, incomplete: str, ask: Callable[[Store, str], Awaitable[list[str]]]
) -> list[str]:
    named_by = (ctx.params.get(one) for one in ("model", "target", "model_option"))
    # Before an option that still lacks its value, arguments are as they were typed.
    said = next(filter(None, (*named_by, *ctx.args[:1])), None)
    if not isinstance(said, str):
        return []
    model = said.partition(":")[0]
    return [one for one in _ask(ctx, lambda store: ask(store, model)) if one.startswith(incomplete)]


def _ask(ctx: typer.Context, question: Callable[[Store], Awaitable[list[str]]]) -> list[str]:
    try:
        return asyncio.run(_read(_options(ctx), question))
    except (SidecarError, OSError):  # a shell that completes has no place for an error
        return []


async def _read(
    options: StoreOptions, question: Callable[[Store], Awaitable[list[str]]]
) -> list[str]:
    config = options.read()
    store = open_store(config.redis, config.prefix, config.state_dir)
    try:
        return await question(store)
    finally:
        await store.close()


async def _versions(store: Store, model: str) -> list[str]:
    stored = await store.get_policy(model)
    return [] if stored is None else [*stored.policy.versions, *stored.policy.labels]


async def _labels(store: Store, model: str) -> list[str]:
    stored = await store.get_policy(model)
    return [] if stored is None else [*stored.policy.labels]


async def _revisions(store: Store, model: str) -> list[str]:
    return [str(one.revision) for one in await store.history(model)]


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
