"""Times as documents spell them: RFC 3339, always with the offset from UTC."""

from __future__ import annotations

import re
from datetime import datetime

_SPELLING = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def seconds(moment: str) -> float:
    """Return a moment in epoch seconds.

    Raises:
        ValueError: it is not spelled as RFC 3339 section 5.6 says, or there is no such time.
    """
    if not _SPELLING.fullmatch(moment):
        msg = f'"{moment[:80]}" is not a time such as 2026-11-23T13:00:00Z'
        raise ValueError(msg)
    try:
        return datetime.fromisoformat(moment.upper()).timestamp()
    except (ValueError, OverflowError) as error:
        msg = f'"{moment}": {error}'
        raise ValueError(msg) from error
