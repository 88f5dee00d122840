"""The data plane is tested on the loop that serves: uvloop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import uvloop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from pathlib import Path


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test here on uvloop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The exchange log's file."""
    return tmp_path / "exchanges.jsonl"
