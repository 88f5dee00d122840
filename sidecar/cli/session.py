"""A command's visit to the store: opened, handed over, closed, and its failures explained."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Concatenate, NamedTuple, ParamSpec
from urllib.parse import urlsplit

import msgspec
import typer

from sidecar.app.auditing import record, telling
from sidecar.cli.failure import advised, tell
from sidecar.cli.options import (
    AsJson,
    ConfigFile,
    Prefix,
    Redis,
    StateDir,
    StoreOptions,
    given,
    user,
)
from sidecar.config import Config
from sidecar.errors import (
    SidecarError,
    StoreRefusedError,
    StoreUnavailableError,
    WrongTypeError,
)
from sidecar.store.base import Store
from sidecar.store.connect import open_store
from sidecar.store.seal import Keyring, Reader

P = ParamSpec("P")


def _keyword(name: str, annotation: object, default: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, annotation=annotation, default=default)


_CONTEXT = _keyword("ctx", typer.Context, inspect.Parameter.empty)
_OPTIONS = (
    _keyword("redis", Redis, None),
    _keyword("prefix", Prefix, None),
    _keyword("state_dir", StateDir, None),
    _keyword("config", ConfigFile, None),
    _keyword("as_json", AsJson, default=False),
)


class Session(NamedTuple):
    """What a command works with."""

    store: Store
    config: Config
    as_json: bool


def with_store(
    command: Callable[Concatenate[Session, P], Awaitable[None]],
) -> Callable[P, None]:
    """Make an async `command(session, ...)` one that typer can run.

    Its command line gets the options that say which store is meant.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        ctx = kwargs.pop(_CONTEXT.name)
        said = {option.name: kwargs.pop(option.name) for option in _OPTIONS}
        options = given(ctx, msgspec.convert(said, StoreOptions))

        async def visit() -> None:
            async with _session(options) as session:
                await command(session, *args, **kwargs)

        asyncio.run(visit())

    # Typer reads the signature: the command's own, without the session, then the shared part.
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    run.__dict__["__signature__"] = inspect.Signature([*parameters, _CONTEXT, *_OPTIONS])
    return run


def failing_with(status: int) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a command exit with `status` where others exit with 1, which is an answer of its own."""

    def decorate(command: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(command)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                command(*args, **kwargs)
            except SidecarError as error:
                tell(error)
                raise typer.Exit(status) from error

        return run

    return decorate


@asynccontextmanager
async def _session(options: StoreOptions) -> AsyncIterator[Session]:
    config = options.read()
    store = open_store(config.redis, config.prefix, config.state_dir)
    if config.signing.trusted:
        store.believe(_reader(config))
    try:
        tell = functools.partial(record, config.audit, store, user())
        yield Session(telling(store, tell), config, options.as_json)
    except WrongTypeError:
        raise  # the store can be reached, and the text says all
    except StoreRefusedError as error:
        msg = f"the store `{_shown(config.redis)}` refuses it: {error}"
        advice = "docs/redis.md lists the rights of an operator; --redis names another user."
        raise advised(StoreRefusedError(msg), advice) from error
    except StoreUnavailableError as error:
        # Only the embedded store lives and dies with a sidecar.
        asked = "Is `rmv serve` running? " if config.redis == "embedded" else ""
        msg = f"the store `{_shown(config.redis)}` cannot be reached: {error}"
        advice = f"{asked}--redis, --state-dir or --config names another store."
        raise advised(StoreUnavailableError(msg), advice) from error
    finally:
        await store.close()


def _reader(config: Config) -> Reader:
    from sidecar.runtime.ed25519 import load_public  # noqa: PLC0415 -- it weighs

    keyring = Keyring([load_public(file) for file in config.signing.trusted])
    return Reader(keyring, exempts_kills=config.signing.exempt_kills)


def _shown(url: str) -> str:
    """Return a URL without its password."""
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@") if password else url
