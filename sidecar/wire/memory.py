"""Tables of what was judged before: most of what peers say, they have said already."""

from __future__ import annotations

from typing import TypeVar

_T = TypeVar("_T")


def remember(table: dict[bytes, _T], said: bytes, found: _T, most: int) -> None:
    """Keep `found` for what was `said`; a table that has `most` begins anew.

    Not the oldest goes: whoever fills a table makes up what he says, and it must neither stay for
    good nor cost more than this.
    """
    if len(table) >= most:
        table.clear()
    table[said] = found
