"""What llhttp, by httptools, makes of the same bytes; tests that ask it skip where it is not."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

import pytest


class _Parser(Protocol):
    def feed_data(self, data: bytes) -> None: ...


class _Httptools(Protocol):
    HttpParserError: type[Exception]

    def HttpRequestParser(self, protocol: object) -> _Parser: ...  # noqa: N802 -- its name

    def HttpResponseParser(self, protocol: object) -> _Parser: ...  # noqa: N802 -- its name


class _Messages:
    """Bodies of the messages that have ended."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._body = b""

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.bodies.append(self._body)


def read_requests(data: bytes) -> list[bytes] | None:
    """Return the bodies of the requests in `data`, or None where llhttp refuses one."""
    httptools, messages = _load(), _Messages()
    return _feed(httptools, httptools.HttpRequestParser(messages), messages, data)


def read_responses(data: bytes) -> list[bytes] | None:
    """Return the bodies of the responses in `data`, or None where llhttp refuses one."""
    httptools, messages = _load(), _Messages()
    return _feed(httptools, httptools.HttpResponseParser(messages), messages, data)


def _load() -> _Httptools:
    try:
        return cast("_Httptools", import_module("httptools"))
    except ModuleNotFoundError:
        pytest.skip("httptools is not installed")


def _feed(
    httptools: _Httptools, parser: _Parser, messages: _Messages, data: bytes
) -> list[bytes] | None:
    try:
        parser.feed_data(data)
    except httptools.HttpParserError:
        return None
    return messages.bodies
