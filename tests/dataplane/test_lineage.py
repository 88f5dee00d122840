"""Answers carry the digest of what their version was made from, where the settings say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sidecar.model.policy import Lineage, Version
from sidecar.policy.lineage import digest
from tests.support.proxy import policy, proxy
from tests.support.upstream import ANSWER, scripted_upstream

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.model.identity import JSON

ASKED = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
DIGEST = digest(Version(endpoints=("http://h",), lineage=Lineage(run="r1"))).encode()


@pytest.mark.parametrize(
    ("shows_lineage", "is_told", "value"),
    [
        (True, True, b"v1; lineage=" + DIGEST),
        (True, False, b"v1"),
        (False, True, b"v1"),
    ],
)
async def test_an_answer_names_the_lineage_of_its_version(
    log: Path, value: bytes, *, shows_lineage: bool, is_told: bool
) -> None:
    async with scripted_upstream(ANSWER) as upstream:
        own: dict[str, JSON] = {"lineage": {"run": "r1"}} if is_told else {}
        document = policy({"v1": {"endpoints": [upstream.url], **own}})
        async with proxy(document, log, shows_lineage=shows_lineage) as running:
            answer = await running.ask(ASKED)
        (received,) = upstream.received

    assert answer.get(b"x-model-version") == value
    assert received.get(b"x-model-version") == b"v1"
