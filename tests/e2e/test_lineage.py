"""From an answer back to what it was made from, and from that to all who got answers of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sidecar.store.connect import open_store
from sidecar.store.embedded import embedded_url
from tests.e2e.test_commands import rmv
from tests.support.sidecar import flags, sidecar
from tests.support.upstream import scripted_upstream

if TYPE_CHECKING:
    from tests.support.sidecar import Sidecar

SETTINGS = """
lineage_header = true

[audit]
stream = true
"""


async def test_an_answer_leads_to_its_lineage_and_back() -> None:
    async with (
        scripted_upstream() as upstream,
        sidecar(*flags(v1=upstream.url), settings=SETTINGS) as running,
        running.editor() as editor,
    ):
        document = await editor.document()
        version = {"endpoints": [upstream.url], "lineage": {"run": "r1"}}
        told = {"versions": {"v1": version}, "audit": "decisions"}
        await editor.put({**document, **told})
        await running.until(lambda: _is_adopted(running), "an answer by the adopted document")
        answer = await running.ask("acme", X_Request_Id="r-1")
        await running.until(lambda: _is_audited(running, b'"r-1"'), "the answer in audit")
        shown = await rmv(running, "lineage", "m@v1", "--json")
        why = await rmv(running, "why", "r-1", "--json")
        recall = await rmv(running, "recall", "--lineage", "run=r1", "--json")

    lineage = json.loads(shown[1])
    assert answer.get(b"x-model-version") == f"v1; lineage={lineage['digest']}".encode()
    (again,) = json.loads(why[1])
    assert (why[0], again["is_same"], again["is_intact"]) == (0, True, True)
    assert again["entry"]["lineage"] == lineage["digest"]
    answers = {one["tenant"]: one["span"]["answers"] for one in json.loads(recall[1])["answers"]}
    assert answers["acme"] == 1


async def _is_adopted(running: Sidecar) -> bool:
    """Ask, and tell whether the edit is a revision by now: till then it has the number before."""
    answer = await running.ask("probe")
    record = await running.record_of(answer)
    decision = record["decision"]
    return isinstance(decision, dict) and decision["revision"] == 2


async def _is_audited(running: Sidecar, text: bytes) -> bool:
    store = open_store(embedded_url(str(running.state_dir)))
    try:
        return any([text in line async for _, line in store.audit()])
    finally:
        await store.close()
