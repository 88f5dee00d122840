"""The longest step of taking a document into force, and out of it again, by its shape.

Each shape puts most of a document's mebibyte into one place: one list, one mapping, one text.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from sidecar.policy.codec import MAX_DOCUMENT_BYTES
from sidecar.store.live import LivePolicies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sidecar.model.identity import JSON
    from tests.bench.policy import Row

    Shape = dict[str, JSON]

ROUNDS = 2  # the least of them is told: what the host does meanwhile is no step's
TARGET = "under 5 ms"
AT: JSON = ["http://127.0.0.1:9001"]
SMALL: Shape = {"model": "m", "versions": {"v1": {"endpoints": AT}, "v2": {"endpoints": AT}}}


def named(count: int, form: str = "t{:05}") -> list[JSON]:
    return [form.format(n) for n in range(count)]


def rules(count: int, when: Callable[[int], JSON], **outcome: JSON) -> Shape:
    outcome = outcome or {"serve": "v1"}
    return {"rules": [{"id": f"r{n}", "when": when(n), **outcome} for n in range(count)]}


def one_rule(**when: JSON) -> Shape:
    return rules(1, lambda _: when)


def v1(**members: JSON) -> Shape:
    return {"versions": {"v1": {"endpoints": AT, **members}, "v2": {"endpoints": AT}}}


def segments(count: int, member: Callable[[int], JSON]) -> Shape:
    return {"segments": {f"s{n}": member(n) for n in range(count)}}


def each(attribute: str, count: int) -> list[JSON]:
    return [{attribute: text} for text in named(count)]


SHAPES: dict[str, Callable[[], Shape]] = {
    "rules by tenant": lambda: rules(16_000, lambda n: {"tenant": f"t{n}"}),
    "rules by claim": lambda: rules(15_000, lambda n: {"claim.org": f"t{n}"}),
    "rules by path prefix": lambda: rules(12_000, lambda n: {"path": {"prefix": f"/v/{n}/"}}),
    "rules by regex": lambda: rules(5_000, lambda n: {"path": {"regex": f"/a{n}/(x|y)+[a-z]*"}}),
    "rules by any segment": lambda: (
        rules(6_000, lambda _: {"segment": {"exists": True}})
        | segments(6_000, lambda n: {"include": [f"t{n}"]})
    ),
    "rules without end": lambda: rules(14_000, lambda _: {}, split={"arms": {"v1": 1}}),
    "rules that are wrong": lambda: rules(16_000, lambda n: {"tenant": f"t{n}"}, serve="v9"),
    "conditions of one rule": lambda: one_rule(**{f"header.x-{n}": "a" for n in range(40_000)}),
    "tenants of a rule": lambda: one_rule(tenant=named(100_000)),
    "tenants left out": lambda: one_rule(tenant={"not_in": named(100_000)}),
    "tenants of 2,000 rules": lambda: rules(
        2_000, lambda n: {"tenant": named(45, f"t{n:04}{{:02}}")}
    ),
    "many short lists": lambda: rules(
        64, lambda rule: {f"claim.c{n}": list(range(rule, rule + 60)) for n in range(64)}
    ),
    "values of a claim": lambda: one_rule(**{"claim.org": named(100_000)}),
    "numbers of a claim": lambda: one_rule(**{"claim.org": list(range(140_000))}),
    "one number over again": lambda: one_rule(**{"claim.org": [1] * 500_000}),
    "apps of a rule": lambda: one_rule(app=named(100_000)),
    "networks of a rule": lambda: one_rule(
        app={"cidr": [f"10.{n >> 8}.{n & 255}.0/24" for n in range(50_000)]}
    ),
    "networks, as many as may be": lambda: one_rule(
        app={"cidr": [f"2001:db8:{n:x}::/48" for n in range(5_000)]}
    ),
    "an expression of 900 KiB": lambda: one_rule(app={"regex": "a" * 900_000}),
    "a range of 900 KiB": lambda: one_rule(app={"semver": ">=1.2.3 " * 110_000}),
    "tenants allowed": lambda: v1(allow=each("tenant", 45_000)),
    "a list of tenants allowed": lambda: v1(allow=[{"tenant": named(100_000)}]),
    "claims allowed": lambda: v1(allow=each("claim.org", 40_000)),
    "expressions allowed": lambda: v1(
        allow=[{"app": {"regex": f"a{n}[a-z]+"}} for n in range(20_000)]
    ),
    "accepted paths": lambda: v1(accepts=[{"path": {"prefix": f"/{n}"}} for n in range(30_000)]),
    "endpoints of a version": lambda: v1(endpoints=named(25_000, "http://127.0.0.1:1{:05}")),
    "equal endpoints": lambda: v1(endpoints=AT * 40_000 if isinstance(AT, list) else AT),
    "headers of a rewrite": lambda: v1(
        rewrite={"path": "/{path}", "headers": {f"x-{n}": "a" for n in range(60_000)}}
    ),
    "a health path of 900 KiB": lambda: v1(health={"path": "/" + "a" * 900_000}),
    "statuses of health": lambda: v1(health={"path": "/", "status": [200] * 250_000}),
    "versions": lambda: {"versions": {f"v{n}": {"endpoints": AT} for n in range(18_000)}},
    "versions, as many as may be": lambda: {
        "versions": {f"v{n}": {"endpoints": AT} for n in range(1_000)},
        "labels": {f"l{n}": f"v{n}" for n in range(1_000)},
    },
    "versions in a row": lambda: {
        "versions": {f"v{n}": {"endpoints": AT, "fallback": f"v{n + 1}"} for n in range(14_000)}
    },
    "labels": lambda: {"labels": {f"l{n}": "v1" for n in range(60_000)}},
    "shadows": lambda: {"shadows": [{"version": "v2"}] * 45_000},
    "arms of a split": lambda: rules(
        1, lambda _: {}, split={"arms": {f"v{n}": 1 for n in range(60_000)}}
    ),
    "segments": lambda: segments(25_000, lambda n: {"include": [f"t{n}"]}),
    "segments of a condition": lambda: (
        segments(15_000, lambda n: {"include": [f"t{n}"]}) | one_rule(segment=named(15_000, "s{}"))
    ),
    "segments in a row": lambda: segments(
        18_000, lambda n: {"when": [{"segment": f"s{n + 1}"}]} if n < 17_999 else {"include": ["t"]}
    ),
    "segments that name all": lambda: segments(
        12_000, lambda _: {"when": [{"segment": {"exists": True}}]}
    ),
    "a segment of lists": lambda: segments(1, lambda _: {"include": named(100_000)}),
    "a segment asked for": lambda: (
        segments(1, lambda _: {"include": named(100_000)}) | one_rule(segment="s0")
    ),
    "a segment without": lambda: segments(
        1, lambda _: {"include": ["t"], "exclude": named(100_000)}
    ),
    "a segment of matchers": lambda: segments(1, lambda _: {"when": each("tenant", 45_000)}),
    "a segment of one list": lambda: segments(1, lambda _: {"when": [{"app": named(100_000)}]}),
    "an unknown field": lambda: {"fiel": "x" * 900_000},
    "unknown fields": lambda: {f"x{n}": 0 for n in range(80_000)},
    "unknown versions": lambda: rules(12_000, lambda _: {}, serve="v9"),
    "a list for a text": lambda: {"default": named(100_000)},
    "wrong kinds": lambda: one_rule(tenant=[{}] * 300_000),
    "the last of a list wrong": lambda: one_rule(tenant=[*named(100_000), {}]),
    "deep lists": lambda: {"rules": json.loads("[" * 900 + "]" * 900)},
}
"""Members of a document by the name of its shape."""


def texts() -> dict[str, bytes]:
    """Return a document of each shape, and a few whose text itself is odd."""
    made = {
        name: json.dumps({**SMALL, **shape()}, separators=(",", ":")).encode()
        for name, shape in SHAPES.items()
    }
    small = json.dumps(SMALL).encode()
    blanks = MAX_DOCUMENT_BYTES - len(small)
    listed = json.dumps({**SMALL, **rules(12_000, lambda n: {"tenant": f"t{n}"})})
    made["blanks after it"] = small + b" " * blanks
    made["blanks within"] = small.replace(b" ", b" " * blanks, 1)[:MAX_DOCUMENT_BYTES]
    made["blank lines of YAML"] = b"model: m\n" + b"\n" * 500_000 + b"versions: {}\n"
    made["a comment of YAML"] = b"model: m\n#" + b"x" * 500_000 + b"\nversions: {}\n"
    made["comments of YAML"] = b"model: m\n" + b"#\n" * 250_000 + b"versions: {}\n"
    made["a text of YAML"] = b"model: " + b"x y " * 128_000 + b"\n"
    made["a quoted text of YAML"] = b'model: "' + b"\\x41" * 128_000 + b'"\n'
    made["a block of YAML"] = b"model: |\n" + b" x\n" * 170_000
    fewer = json.dumps({**SMALL, **rules(8_000, lambda n: {"tenant": f"t{n}"})})
    made["rules as YAML"] = fewer.encode() + b" # YAML"
    made["aliases of YAML"] = _aliases()
    made["JSON cut off"] = listed[:-9].encode()
    return made


def _aliases() -> bytes:
    ladder = ["a0: &a0 [{tenant: t}]"]
    ladder += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 20)}]" for n in range(1, 4)]
    return "\n".join(ladder).encode()


def longest_ms(raw: bytes) -> tuple[float, bool]:
    """Return the CPU time of the longest step of a document's coming and going; is it taken?"""
    live, longest_s = LivePolicies(), 0.0
    for one in (raw, json.dumps(SMALL).encode()):
        steps = live.taking("m", one)
        is_going_on = True
        while is_going_on:
            began_s = time.thread_time()
            try:
                next(steps)
            except StopIteration:
                is_going_on = False
            longest_s = max(longest_s, time.thread_time() - began_s)
        if one is raw:
            is_taken = "m" not in live.faults
    return longest_s * 1e3, is_taken


async def rows() -> AsyncIterator[Row]:
    """Yield the longest step for each shape."""
    for name, raw in texts().items():
        runs = [longest_ms(raw) for _ in range(ROUNDS)]
        of = "taken" if runs[0][1] else "refused"
        what = f"longest step, {name} ({len(raw) >> 10} KiB, {of})"
        yield what, f"{min(ms for ms, _ in runs):.1f} ms of CPU", TARGET
