"""What a decision costs, by the number of rules and by how it is made."""

from __future__ import annotations

import time
import timeit
from statistics import median
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sidecar.model.identity import Identity
from sidecar.model.policy import Policy, Rule, Split, Version
from sidecar.model.request import RequestHead
from sidecar.policy.pins import Pins
from sidecar.policy.resolver import resolve
from sidecar.policy.size import MAX_NAMES
from sidecar.policy.snapshot import compile_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.policy.snapshot import Snapshot
    from tests.bench.policy import Row

SIZES = (10, 1_000, 10_000)
NUMBER = 2_000
REPEAT = 7
VERSIONS = {name: Version(endpoints=("http://127.0.0.1:9001",)) for name in ("v1", "v2")}
CALLER = Identity(tenant="t-5", subject="s-1", app="web", scopes=(), claims={"plan": "p-5"})
GRANTED = replace(CALLER, grants={"m": ("v2",)})
HEAD = RequestHead(
    method=b"POST",
    target=b"/v2/models/m/infer",
    fields=[b"content-length: 9\r\n"],
    host=b"models.example:8080",
    request_id=b"0123456789abcdef",
)


def snapshots(size: int) -> Iterator[tuple[str, Snapshot]]:
    """Yield policies of so many rules, each with the way in which it decides for `CALLER`."""
    of_tenants = tuple(Rule(id=f"r{n}", when={"tenant": f"t-{n}"}, serve="v2") for n in range(size))
    of_others = tuple(
        Rule(id=f"r{n}", when={"tenant": f"other-{n}"}, serve="v2") for n in range(size - 1)
    )
    of_claims = Rule(id="gold", when={"claim.plan": "p-5"}, serve="v2")
    canary = Rule(id="canary", split=Split(arms={"v1": 90, "v2": 10}))
    by_subject = Rule(id="canary", split=Split(arms={"v1": 90, "v2": 10}, key="subject"))
    pins = Pins()
    pins.put(CALLER.tenant, "v2")
    yield "pinned", compile_snapshot(_policy(of_tenants), pins, {})
    yield "rule by tenant", compile_snapshot(_policy(of_tenants), {}, {})
    yield "rule by a claim", compile_snapshot(_policy((*of_others, of_claims)), {}, {})
    yield "split by tenant", compile_snapshot(_policy((*of_others, canary)), {}, {})
    yield "split by subject", compile_snapshot(_policy((*of_others, by_subject)), {}, {})


def rows() -> Iterator[Row]:
    """Yield the microseconds of one decision."""
    for size in SIZES:
        for name, snapshot in snapshots(size):
            yield f"resolve, {size:,} rules: {name}", _cost(snapshot, CALLER), ""
        if size == SIZES[0]:
            for name, snapshot in snapshots(size):
                yield (
                    f"resolve, {size:,} rules, token with grants: {name}",
                    _cost(snapshot, GRANTED),
                    "",
                )
    yield from view_rows()


def view_rows() -> Iterator[Row]:
    """Yield what the first request costs whose token grants a set of versions as none before."""
    for size in (5, MAX_NAMES):
        versions = {f"v{n}": VERSIONS["v1"] for n in range(size)}
        snapshot = compile_snapshot(Policy(model="m", versions=versions, default="v0"), {}, {})
        runs = []
        for n in range(size):
            caller = replace(CALLER, grants={"m": (f"v{n}",)})
            began_s = time.perf_counter()
            resolve(snapshot, caller, HEAD)
            runs.append((time.perf_counter() - began_s) * 1e6)
        yield f"the first grants of their kind, of {size:,} versions", f"{median(runs):.0f} us", ""


def _cost(snapshot: Snapshot, caller: Identity) -> str:
    call = timeit.Timer(lambda: resolve(snapshot, caller, HEAD))
    return f"{median(run / NUMBER * 1e6 for run in call.repeat(REPEAT, NUMBER)):.2f} us"


def _policy(rules: tuple[Rule, ...]) -> Policy:
    return Policy(model="m", versions=VERSIONS, rules=rules, default="v1")
