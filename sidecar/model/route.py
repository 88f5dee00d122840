"""Where requests belong: what an operator configures, and what a request turns out to name."""

from __future__ import annotations

from msgspec import Struct

from sidecar.model.policy import Name


class RouteRule(Struct, frozen=True, forbid_unknown_fields=True):
    """Requests of this host and path prefix (both, where both are given) are for `model`."""

    model: Name
    host: str = ""
    prefix: str = ""


class Route(Struct, frozen=True):
    """Where a request belongs. `model` is empty when nothing names one.

    `version` or `label` is what the path asks for, percent-decoded; labels are not resolved here.
    `rest` is what follows model and version in an inference path (`/infer`, `:predict`), else
    the path after the prefix of its route; as sent.
    """

    model: str
    version: str | None
    label: str | None
    rest: bytes

    def asks(self) -> tuple[str, str | None, str | None]:
        """Return what is asked for, wherever the path says so."""
        return self.model, self.version, self.label


AMBIGUOUS = Route("", None, None, b"")
"""Where a request belongs whose path asks for one thing as sent, and for another once resolved."""
