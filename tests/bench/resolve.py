"""Print what one decision costs, in microseconds: `.venv/bin/python tests/bench/resolve.py`."""

from __future__ import annotations

import statistics
import timeit
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.model.identity import Identity
from sidecar.model.policy import Operators, Policy, Rule, Shadow, Split, Version
from sidecar.model.request import RequestHead
from sidecar.policy import codec
from sidecar.policy.resolver import resolve, shadows_for
from sidecar.policy.route import RouteTable
from sidecar.policy.snapshot import compile_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

NUMBER = 5_000
REPEAT = 9

VERSIONS = {name: Version(endpoints=("http://127.0.0.1:9001",)) for name in ("v1", "v2")}
CLAIMS = {"plan": "gold", "org": {"tier": 2}}
CALLER = Identity(tenant="t-50", subject="s-1", app="web", scopes=("a", "b"), claims=CLAIMS)
FIELDS = [b"accept", b"user-agent", b"content-type", b"x-a", b"x-b", b"x-c", b"content-length"]
HEAD = RequestHead(
    method=b"POST",
    target=b"/v2/models/tumor/infer?trace=1",
    fields=[b"%b: value\r\n" % name for name in FIELDS],
    host=b"models.example:8080",
    request_id=b"0123456789abcdef",
)


def policy(*rules: Rule, shadows: tuple[Shadow, ...] = ()) -> Policy:
    return Policy(model="tumor", versions=VERSIONS, rules=rules, default="v1", shadows=shadows)


def measure(name: str, call: Callable[[], object]) -> None:
    call()
    runs = [run / NUMBER * 1e6 for run in timeit.repeat(call, number=NUMBER, repeat=REPEAT)]
    print(f"{name:44} {statistics.median(runs):8.3f} us  (best {min(runs):.3f})")


def measure_resolve(name: str, made: Policy, pins: dict[str, str], head: RequestHead) -> None:
    snapshot = compile_snapshot(made, pins, {})
    measure(name, lambda: resolve(snapshot, CALLER, head))


def main() -> None:
    arms = {"v1": 90, "v2": 10}
    measure("an empty call (part of every figure)", lambda: None)
    measure_resolve("pinned", policy(), {"t-50": "v2"}, HEAD)
    measure_resolve("default", policy(), {}, HEAD)
    for key in ("tenant", "subject", "request"):
        split = policy(Rule(id="canary", split=Split(arms=arms, key=key)))
        measure_resolve(f"split by {key}", split, {}, HEAD)
    tenants = [Rule(id=f"r{n}", when={"tenant": f"t-{n}"}, serve="v2") for n in range(100)]
    measure_resolve("100 rules by tenant", policy(*tenants), {}, HEAD)
    apps = [Rule(id=f"r{n}", when={"app": f"a-{n}"}, serve="v2") for n in range(100)]
    measure_resolve("100 rules by app, none matches", policy(*apps), {}, HEAD)
    headers = [Rule(id=f"r{n}", when={"header.x-c": f"{n}"}, serve="v2") for n in range(100)]
    measure_resolve("100 rules by one header, none matches", policy(*headers), {}, HEAD)
    gold = {
        "v2": Version(endpoints=("http://h:1",), allow=({"claim.plan": Operators(in_=("gold",))},))
    }
    limited = Policy(model="tumor", versions=VERSIONS | gold, default="v2")
    measure_resolve("default, entitled by a claim", limited, {}, HEAD)

    shadowed = compile_snapshot(policy(shadows=(Shadow(version="v2"),)), {}, {})
    decision = resolve(shadowed, CALLER, HEAD)
    measure("shadows: none", lambda: shadows_for(plain, CALLER, HEAD, decision))
    measure("shadows: one at 100 %", lambda: shadows_for(shadowed, CALLER, HEAD, decision))
    known = {"tumor": plain}
    table = RouteTable((), "tumor")
    measure("route, seen before", lambda: table.find(HEAD, known))

    text = Path("policies/tumor.yaml").read_bytes()
    as_json = codec.encode(codec.decode(text, source="bench"))
    measure("decode JSON", lambda: codec.decode(as_json, source="bench"))
    parsed = codec.decode(as_json, source="bench")
    measure("compile_snapshot", lambda: compile_snapshot(parsed, {}, {}))


plain = compile_snapshot(policy(), {}, {})

if __name__ == "__main__":
    main()
