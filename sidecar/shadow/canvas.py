"""A small writer of SVG (W3C, "Scalable Vector Graphics 1.1", 2011): what plots are drawn with.

A page stands alone: no script, no font, no other file. Its colours follow what the reader's screen
is set to, light or dark. All text is escaped.
"""

from __future__ import annotations

from html import escape
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Final, NamedTuple

from sidecar.shadow.spelling import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    Point = tuple[float, float]

WIDTH: Final = 760

_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#24292f}"
    ".title{font-size:14px;font-weight:600}"
    ".paper{fill:#fff}"
    ".grid{stroke:#d0d7de}"
    ".end{text-anchor:end}.middle{text-anchor:middle}"
    ".one{stroke:#0969da;fill:none;stroke-width:2}.one-area{fill:#0969da;fill-opacity:.3}"
    ".two{stroke:#bc4c00;fill:none;stroke-width:2}.two-area{fill:#bc4c00;fill-opacity:.3}"
    ".dot{fill:#bc4c00;fill-opacity:.7}"
    ".whisker{stroke:#24292f;stroke-width:1.5;fill:none}"
    ".bound{stroke:#8250df;stroke-dasharray:6 4;stroke-width:1.5;fill:none}"
    "@media(prefers-color-scheme:dark){"
    "text{fill:#e6edf3}.paper{fill:#0d1117}.grid{stroke:#30363d}"
    ".one{stroke:#58a6ff}.one-area{fill:#58a6ff}.two{stroke:#f0883e}.two-area{fill:#f0883e}"
    ".dot{fill:#f0883e}.whisker{stroke:#e6edf3}.bound{stroke:#bc8cff}}"
)


class Scale(NamedTuple):
    """Where numbers from `low` to `high` are on a page: from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return where a number is; one that is outside is at the edge."""
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)

    def ticks(self, number: int) -> list[float]:
        """Return about so many round numbers of the scale."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        exact = span / number
        power = 10.0 ** floor(log10(exact))
        step = next(one * power for one in (1, 2, 5, 10) if one * power >= exact * (1 - 1e-9))
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [n * step for n in range(first, last + 1)]


class Page:
    """One plot, of `WIDTH` by `height` pixels, as it is drawn."""

    def __init__(self, height: int, title: str, note: str = "") -> None:
        """Begin with what it shows; `note` says it further."""
        self._height = height
        self._parts: list[str] = [f"<title>{_escaped(title)}</title>"]
        self._parts.append(f"<style>{_STYLE}</style>")
        self.bar("paper", (0, 0), (WIDTH, height))
        self.text((16, 22), title, "title")
        self.text((WIDTH - 16, 38), note, "end")

    def line(self, kind: str, points: Sequence[Point]) -> None:
        """Draw a line from point to point."""
        self._parts.append(f'<polyline class="{kind}" points="{_points(points)}"/>')

    def area(self, kind: str, points: Sequence[Point]) -> None:
        """Fill what a line encloses."""
        self._parts.append(f'<polygon class="{kind}" points="{_points(points)}"/>')

    def bar(self, kind: str, corner: Point, size: Point) -> None:
        """Fill a rectangle; sizes below 0 are none."""
        (x, y), (width, height) = corner, size
        self._parts.append(
            f'<rect class="{kind}" x="{_number(x)}" y="{_number(y)}"'
            f' width="{_number(max(width, 0))}" height="{_number(max(height, 0))}"/>'
        )

    def dot(self, kind: str, at: Point) -> None:
        """Draw a dot."""
        self._parts.append(
            f'<circle class="{kind}" cx="{_number(at[0])}" cy="{_number(at[1])}" r="3"/>'
        )

    def text(self, at: Point, words: str, kind: str = "") -> None:
        """Write at a point: from it on, or with it as its `end` or `middle`."""
        if words:
            named = f' class="{kind}"' if kind else ""
            x, y = _number(at[0]), _number(at[1])
            self._parts.append(f'<text{named} x="{x}" y="{y}">{_escaped(words)}</text>')

    def end(self) -> str:
        """Return the whole file."""
        size = f'width="{WIDTH}" height="{self._height}" viewBox="0 0 {WIDTH} {self._height}"'
        opened = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
        return "\n".join([opened, *self._parts, "</svg>"]) + "\n"


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _escaped(words: str) -> str:
    return escape(plain(words, 400))
