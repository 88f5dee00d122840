"""Print what one decision costs, in microseconds: `.venv/bin/python -m tests.bench.resolve`.

After `make compiled`, `PYTHONSAFEPATH=1 PYTHONPATH=build/compiled:.` before it measures that form.
"""

from __future__ import annotations

import statistics
import timeit
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sidecar.model.identity import JSON, Identity
from sidecar.model.policy import Operators, Policy, Rule, Segment, Shadow, Split, State, Version
from sidecar.model.request import RequestHead
from sidecar.policy import codec
from sidecar.policy.resolver import resolve, shadows_for
from sidecar.policy.route import RouteTable
from sidecar.policy.snapshot import compile_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.model.policy import Condition
    from sidecar.policy.snapshot import Snapshot

NUMBER = 5_000
REPEAT = 9
MANY_RULES = 10_000
MANY_PINS = 1_000_000
MANY = ("tenant", "segment", "app", "header.x-c", "claim.plan", "scope", "path", "regex")

VERSIONS = {name: Version(endpoints=("http://127.0.0.1:9001",)) for name in ("v1", "v2")}
CLAIMS: dict[str, JSON] = {"plan": "gold", "org": {"tier": 2}}
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


def measure(name: str, call: Callable[[], object], number: int = NUMBER) -> None:
    call()
    runs = [run / number * 1e6 for run in timeit.repeat(call, number=number, repeat=REPEAT)]
    print(f"{name:52} {statistics.median(runs):11.3f} us  (best {min(runs):.3f})")


def measure_resolve(name: str, made: Policy, pins: dict[str, str], head: RequestHead) -> None:
    snapshot = compile_snapshot(made, pins, {})
    measure(name, lambda: resolve(snapshot, CALLER, head))


def many(attribute: str) -> tuple[Rule, ...]:
    """Return rules, each for one value of an attribute; one of them is for the caller."""
    wanted: dict[str, Callable[[int], Condition]] = {
        "tenant": lambda n: f"t-{n}",
        "segment": lambda n: f"segment-{n}",
        "app": lambda n: "web" if n == MANY_RULES // 2 else f"a-{n}",
        "header.x-c": lambda n: "value" if n == MANY_RULES // 2 else f"{n}",
        "claim.plan": lambda n: "gold" if n == MANY_RULES // 2 else f"p-{n}",
        "scope": lambda n: "b" if n == MANY_RULES // 2 else f"s-{n}",
        "path": lambda n: Operators(prefix=f"/v1/{n}"),
        "regex": lambda n: Operators(regex=f"/v1/{n}/.*"),
    }
    read = "path" if attribute == "regex" else attribute
    return tuple(
        Rule(id=f"r{n}", when={read: wanted[attribute](n)}, serve="v2") for n in range(MANY_RULES)
    )


def measure_many_rules() -> None:
    segments = {f"segment-{n}": Segment(include=(f"t-{n}",)) for n in range(MANY_RULES)}
    for attribute in MANY:
        made = replace(policy(*many(attribute)), segments=segments)
        snapshot = compile_snapshot(made, {}, {})
        number = 10 if attribute == "regex" else NUMBER  # which no look-up finds

        def first(snapshot: Snapshot = snapshot) -> object:
            snapshot.plans.clear()
            return resolve(snapshot, CALLER, HEAD)

        name = f"{MANY_RULES:,} rules by {attribute}"
        measure(f"{name}: a tenant's first request", first, number)
        measure(f"{name}: its next one", partial(resolve, snapshot, CALLER, HEAD), number)
        measure(f"{name}: compile", partial(compile_snapshot, made, {}, {}), 1)
        measure(f"{name}: a kill", partial(snapshot.with_health, {"v1": ""}, frozenset()), 10)


def measure_many_pins() -> None:
    pins = {f"t-{n}": "v2" for n in range(MANY_PINS)}
    measure_resolve(f"pinned, one of {MANY_PINS:,}", policy(), pins, HEAD)


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
    failed = replace(VERSIONS["v1"], state=State.RETIRED, fallback="v2")
    fallen = Policy(model="tumor", versions=VERSIONS | {"v1": failed}, default="v1")
    measure_resolve("fallback of the default", fallen, {}, HEAD)
    measure_many_rules()
    measure_many_pins()

    shadowed = compile_snapshot(policy(shadows=(Shadow(version="v2"),)), {}, {})
    decision = resolve(shadowed, CALLER, HEAD)
    measure("shadows: none", lambda: shadows_for(plain, CALLER, HEAD, decision))
    measure("shadows: one at 100 %", lambda: shadows_for(shadowed, CALLER, HEAD, decision))
    table = RouteTable((), "tumor")
    measure("route, seen before", lambda: table.find(HEAD))

    text = Path("policies/tumor.yaml").read_bytes()
    as_json = codec.encode(codec.decode(text, source="bench"))
    measure("decode JSON", lambda: codec.decode(as_json, source="bench"))
    parsed = codec.decode(as_json, source="bench")
    measure("compile_snapshot", lambda: compile_snapshot(parsed, {}, {}))


plain = compile_snapshot(policy(), {}, {})

if __name__ == "__main__":
    main()
