"""Which model a request is for, and which version its path names."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sidecar.model.route import AMBIGUOUS, Route
from sidecar.policy import target as targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sidecar.model.request import RequestHead
    from sidecar.model.route import RouteRule

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")  # a port is not compared
_UNRESOLVED = re.compile(rb"%|;|//|/\.")
MAX_REMEMBERED = 4096
MAX_REMEMBERED_BYTES = 512  # a longer target is parsed anew: memory stays under 4 MiB


def faults(routes: Sequence[RouteRule]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with configured routes: where (`[1].prefix`), and the reason."""
    taken: dict[tuple[bytes, bytes], int] = {}
    for number, route in enumerate(routes):
        rule = _Rule(route)
        if not route.host and not route.prefix:
            yield f"[{number}]", "has neither host nor prefix: every request would be its model's"
            continue
        if route.host and _HOST.fullmatch(route.host) is None:
            yield f"[{number}].host", f"`{route.host}` is not the name or address of a host"
        if route.prefix and not route.prefix.startswith("/"):
            yield f"[{number}].prefix", f"`{route.prefix}` does not begin with /: no path fits"
        first = taken.setdefault((rule.host, rule.prefix), number)
        if first != number:
            yield f"[{number}]", f"is for the same requests as [{first}], which comes first"


class RouteTable:
    """Finds the model of a request; the order is written in `find`."""

    __slots__ = ("_default", "_found", "_rules")

    def __init__(self, routes: Iterable[RouteRule], default_model: str | None) -> None:
        self._default = default_model or ""
        rules = (_Rule(route) for route in routes)
        # A named host beats any host, as Envoy's virtual hosts do; then the longest prefix wins.
        self._rules = sorted(rules, key=lambda rule: (not rule.host, -len(rule.prefix)))
        self._found: dict[tuple[bytes, bytes, bytes | None], Route] = {}

    def find(self, head: RequestHead) -> Route:
        """Return the route of a request.

        First the configured routes, then `X-Model`, then an inference path (Open Inference
        Protocol, TensorFlow Serving), then the default model. Who names a model never gets
        another one for it, be it deleted or misspelled. It is `AMBIGUOUS` where servers that
        resolve paths (RFC 3986 section 5.2.4) would read another model or version.
        """
        path = head.target.partition(b"?")[0]
        key = (head.host, path, head.asked_model)
        found = self._found.get(key)
        if found is None:
            found = self._read(head.host, targets.path(path), head.asked_model)
            self._remember(key, found)
        return found

    def _read(self, host: bytes, path: bytes, asked: bytes | None) -> Route:
        found = self._parse(host, path, asked)
        if _UNRESOLVED.search(path) is None:
            return found
        resolved = self._parse(host, _resolved(path), asked)
        return found if resolved.asks() == found.asks() else AMBIGUOUS

    def _parse(self, host: bytes, path: bytes, asked: bytes | None) -> Route:
        rule = self._match(host, path)
        if rule is not None:
            return _named(rule.model, path[len(rule.prefix) :], path)
        if asked is not None:
            return _named(_text(asked), path, path)
        return _inference(path) or Route(self._default, None, None, path)

    def _match(self, host: bytes, path: bytes) -> _Rule | None:
        name = _host_name(host)
        return next((rule for rule in self._rules if rule.covers(name, path)), None)

    def _remember(self, key: tuple[bytes, bytes, bytes | None], found: Route) -> None:
        host, path, asked = key
        if len(host) + len(path) + len(asked or b"") > MAX_REMEMBERED_BYTES:
            return
        if len(self._found) >= MAX_REMEMBERED:
            self._found.clear()
        self._found[key] = found


def _resolved(path: bytes) -> bytes:
    """Return a path as servers read it that decode it whole, and resolve what that makes.

    ASGI and WSGI decode it before they look at segments, `net/http` of Go and nginx take out empty
    and dot segments, and Java servers what follows a semicolon.
    """
    segments: list[bytes] = []
    for sent in unquote_to_bytes(path).split(b"/"):
        segment = sent.partition(b";")[0]
        if segment == b"..":
            del segments[-1:]
        elif segment not in {b"", b"."}:
            segments.append(quote_from_bytes(segment, safe=":").encode())
    return b"/" + b"/".join(segments)


class _Rule:
    """A configured route, ready to compare."""

    __slots__ = ("host", "model", "prefix")

    def __init__(self, route: RouteRule) -> None:
        self.model = route.model
        self.host = _host_name(route.host.encode())
        self.prefix = route.prefix.encode().rstrip(b"/")

    def covers(self, host: bytes, path: bytes) -> bool:
        if self.host and self.host != host:
            return False
        after = len(self.prefix)
        return path.startswith(self.prefix) and path[after : after + 1] in {b"", b"/"}


def _host_name(host: bytes) -> bytes:
    """Return a host without port and final dot, in lower case; IPv6 keeps its brackets."""
    if host.startswith(b"["):
        return (host.partition(b"]")[0] + b"]").lower()
    return host.partition(b":")[0].lower().removesuffix(b".")


def _named(model: str, after_prefix: bytes, path: bytes) -> Route:
    """Route to a model named outside the path; the path's version counts if it names that model."""
    for candidate in (after_prefix, path):
        inference = _inference(candidate)
        if inference is not None and inference.model == model:
            return inference
    return Route(model, None, None, after_prefix)


_OPEN_INFERENCE = (b"v2", b"models")
_TENSORFLOW = (b"v1", b"models")
_SEGMENT = re.compile(rb"/([^/]*)")
_SEGMENTS_TO_MODEL = 3
_SEGMENTS_TO_VERSION = 5


def _inference(path: bytes) -> Route | None:
    """Parse `/v2/models/{m}[/versions/{v}]...` and `/v1/models/{m}[/versions|labels/{x}][:verb]`.

    Every segment is percent-decoded to be compared, the fixed words too: servers do the same,
    and `/%76ersions/2` must not slip past the checks that `/versions/2` undergoes.
    """
    found = islice(_SEGMENT.finditer(path), _SEGMENTS_TO_VERSION)
    segments = [(one[1], one.start(), one.end()) for one in found]
    if len(segments) < _SEGMENTS_TO_MODEL or not path.startswith(b"/"):
        return None
    family = tuple(unquote_to_bytes(segment) for segment, _, _ in segments[:2])
    has_verbs = family == _TENSORFLOW
    model, end = _name(segments[2], has_verbs=has_verbs)
    if not model or family not in {_OPEN_INFERENCE, _TENSORFLOW}:
        return None
    if len(segments) < _SEGMENTS_TO_VERSION or end != segments[2][2]:
        return Route(model, None, None, path[end:])
    word = unquote_to_bytes(segments[3][0])
    name, name_end = _name(segments[4], has_verbs=has_verbs)
    if word == b"versions":
        return Route(model, name, None, path[name_end:])
    if word == b"labels" and has_verbs:
        return Route(model, None, name, path[name_end:])
    return Route(model, None, None, path[end:])


def _name(segment: tuple[bytes, int, int], *, has_verbs: bool) -> tuple[str, int]:
    """Return the decoded name in a segment, and where it ends in the path."""
    raw, start, end = segment
    verb = raw.find(b":") if has_verbs else -1
    if verb < 0:
        return _text(unquote_to_bytes(raw)), end
    return _text(unquote_to_bytes(raw[:verb])), start + 1 + verb


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
