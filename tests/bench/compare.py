"""What comparing two answers costs: `python -m tests.bench.compare` prints microseconds.

Each pair differs in a member that is ignored, so that all of both answers is read and walked.
Nothing is sent: this is what a worker's thread, or its loop, spends for each pair.
"""

import json
import random
import time
import timeit

from sidecar.model.comparison import Comparison, Text
from sidecar.model.shadow import Answer
from sidecar.shadow.compare import compare, compile_rules

ROUNDS = 7
ROUND_S = 0.1
FIELDS = (
    ("server", "nginx"),
    ("date", "Mon, 23 Nov 2026 07:00:00 GMT"),
    ("content-length", "1024"),
    ("connection", "keep-alive"),
)
DRAW = random.Random(6)


def answer(body: bytes, media: str = "application/json") -> Answer:
    marks = tuple((end, end / 1e5) for end in range(500, len(body) + 500, 500))
    return Answer(200, (*FIELDS, ("content-type", media)), body, 0.01, 0.02, marks)


def document() -> dict[str, object]:
    """About a kibibyte of JSON."""
    rows = [
        {
            "id": number,
            "label": f"class-{number}",
            "score": DRAW.random(),
            "is_new": number % 2 == 0,
        }
        for number in range(14)
    ]
    return {"model": "m", "rows": rows, "status": "done", "total": 14, "next": None}


def tensors(size: int) -> dict[str, object]:
    """`size` bytes of scores, about."""
    number = size // 20
    data = [DRAW.random() for _ in range(number // 10 * 10)]
    return {
        "model_name": "m",
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [len(data) // 10, 10], "data": data}
        ],
    }


def varied(said: dict[str, object], shift: float = 0.0) -> tuple[bytes, bytes]:
    """Two spellings that differ in `id`, and in each tensor's data by `shift`."""
    other = json.loads(json.dumps(said))
    for output in other.get("outputs", ()):
        output["data"] = [number + shift * DRAW.random() for number in output["data"]]
    return tuple(
        json.dumps({"id": name, **of}).encode() for name, of in (("a", said), ("b", other))
    )


def stream(words: int, name: str) -> bytes:
    events = [
        {
            "id": name,
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": "m",
            "choices": [
                {"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}
            ],
        }
        for number in range(words)
    ]
    lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return b"".join([*lines, b"data: [DONE]\n\n"])


def prose(words: int) -> str:
    return " ".join(f"word{DRAW.randrange(500)}" for _ in range(words))


def pairs() -> dict[str, tuple[Answer, Answer, Comparison]]:
    ignoring = Comparison(ignore=("/id",))
    near = Comparison(absolute=0.1)
    body = json.dumps(document()).encode()
    small, same = map(answer, varied(document())), answer(body)
    found = {
        f"JSON, {len(body)} bytes": (*small, ignoring),
        f"JSON, {len(body)} bytes, the same": (same, same, ignoring),
    }
    for size in (1024, 65536):
        one, other = map(answer, varied(tensors(size), 0.05))
        found[f"tensors, {len(one.body)} bytes"] = (one, other, near)
    one, other = (answer(stream(200, name), "text/event-stream") for name in "ab")
    found["completion, 200 events"] = (one, other, Comparison())
    one, other = (answer(prose(300).encode(), "text/plain") for _ in "ab")
    found[f"text by edits, {len(one.body)} bytes"] = (one, other, Comparison(text=Text.RATIO))
    return found


def microseconds(one: Answer, other: Answer, comparison: Comparison) -> float:
    """The best of some rounds: what is added to it is what else the machine does."""
    rules = compile_rules(comparison)
    timer = timeit.Timer(lambda: compare(one, other, rules), timer=time.process_time)
    number, took_s = timer.autorange()
    number = max(1, int(number * ROUND_S / took_s))
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


def main() -> None:
    print("| compared | us |\n| --- | --- |")
    for name, (one, other, comparison) in pairs().items():
        print(f"| {name} | {microseconds(one, other, comparison):.0f} |", flush=True)


if __name__ == "__main__":
    main()
