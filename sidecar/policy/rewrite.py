"""How a request target is spelled for one version.

The template is the policy's and was validated; `{path}` and `{rest}` are inserted as the client
sent them, and the query follows byte for byte.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sidecar.policy import target as targets

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model.policy import Rewrite

    Rewriter = Callable[[bytes, bytes], bytes]

PLACEHOLDERS = ("{model}", "{version}", "{path}", "{rest}")

_SPLIT = re.compile(r"(\{path\}|\{rest\})")


def compile_rewrite(rewrite: Rewrite, model: str, version: str) -> Rewriter:
    """Return a function of (target as sent, rest) that gives the target to send.

    `rest` is what follows model and version in an inference path (`Route.rest`). A template
    with `{rest}` leaves alone a path that names no model, such as `/v2/health/ready`.
    """
    if rewrite.path == "{path}":
        return lambda target, _rest: target
    filled = rewrite.path.replace("{model}", model).replace("{version}", version)
    needs_rest = "{rest}" in filled
    parts = tuple(part.encode() for part in _SPLIT.split(filled) if part)

    def respell(target: bytes, rest: bytes) -> bytes:
        before, path, query = targets.split(target)
        if not path.startswith(b"/"):
            return target  # `OPTIONS *` and CONNECT have no path that could be respelled
        if needs_rest and rest == path:
            return target  # it names no model: health and metadata of the server as a whole
        inserts = {b"{path}": path, b"{rest}": rest}
        return b"".join((before, *(inserts.get(part, part) for part in parts), query))

    return respell
