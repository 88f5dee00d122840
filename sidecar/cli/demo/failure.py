"""Why the demo cannot go on."""

from __future__ import annotations

from sidecar.errors import SidecarError


class DemoError(SidecarError):
    """A part of the demo did not do what it must; the text tells which, with its last words."""
