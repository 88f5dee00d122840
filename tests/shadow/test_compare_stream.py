"""Event streams are compared by what they say in the end; when it came is measured."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model.comparison import Comparison, Kept, Text
from sidecar.model.shadow import Answer, Outcome
from sidecar.shadow.completion import of_events
from sidecar.shadow.events import Event, parse
from tests.shadow.answers import answer, compared

SSE = "text/event-stream"
EVERY_MASK = (
    *("", "/choices", "/*", "/choices/*/message", "/choices/0/delta/content"),
    *("/choices/*/text", "/*/choices/*/delta/content", "/choices/*/message/content/x"),
)


def chunk(*, finish: str | None = None, index: int = 0, **delta: object) -> dict[str, object]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "choices": [choice]}


def stream(*chunks: object) -> bytes:
    events = [b"data: " + json.dumps(said).encode() + b"\n\n" for said in chunks]
    return b"".join([*events, b"data: [DONE]\n\n"])


def said(*words: str, finish: str = "stop") -> bytes:
    return stream(*[chunk(content=word) for word in words], chunk(finish=finish))


def message(content: str, finish: str = "stop", **members: object) -> bytes:
    choice = {"index": 0, "message": {"content": content}, "finish_reason": finish}
    return json.dumps({"object": "chat.completion", "choices": [choice], **members}).encode()


def streams(
    primary: bytes,
    shadow: bytes,
    comparison: Comparison = Comparison(),  # noqa: B008
) -> Outcome:
    return compared(answer(primary, SSE), answer(shadow, SSE), comparison)


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: a\n\ndata:b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\r", [b"a", b"b"]),
        (b"data: a\ndata:  b\n\n", [b"a\n b"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b": a comment\n\nid: 1\ndata: a\nretry: 5\n\n", [b"a"]),
        (b"data\n\n", [b""]),
        (b"data: a\n\ndata: cut", [b"a"]),
        (b"event: x\n\ndatax: a\n\n", []),
    ],
)
def test_a_stream_has_the_events_that_a_browser_reads(body: bytes, events: list[bytes]) -> None:
    assert [event.data for event in parse(body)] == events


@given(st.lists(st.sampled_from([b"data: a", b"event: x", b":", b"", b"data", b"x"])))
def test_it_makes_no_difference_how_lines_end(lines: list[bytes]) -> None:
    plain = [(event.kind, event.data) for event in parse(b"\n".join([*lines, b""]))]
    for ending in (b"\r\n", b"\r"):
        found = parse(ending.join([*lines, b""]))
        assert [(event.kind, event.data) for event in found] == plain


def test_an_event_ends_where_its_empty_line_does() -> None:
    assert parse(b"event: e\ndata: a\n\r\n") == [Event(b"e", b"a", 19)]


def test_completions_agree_however_they_are_cut_into_pieces() -> None:
    outcome = streams(said("Hel", "lo"), said("H", "ell", "o"))

    assert (outcome.kind, outcome.agrees) == ("stream", True)
    assert outcome.measures == {"tokens.primary": 2, "tokens.shadow": 3}
    assert outcome.tokens == (0, 3)


def test_text_and_the_reason_for_its_end_are_compared() -> None:
    outcome = streams(said("Hello"), said("Hullo", finish="length"))

    assert outcome.fields == ("text", "finish_reason")
    assert outcome.differences[0].primary == '"Hello"'
    assert streams(said("Hello"), said("hel", "lo "), Comparison(text=Text.NORMALISED)).agrees


def test_usage_tells_tokens() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    with_usage = stream(chunk(content="a"), {**chunk(), "choices": [], "usage": usage})
    outcome = streams(said("a"), with_usage, Comparison(ignore=("/choices/*/finish_reason",)))

    assert outcome.agrees
    assert outcome.tokens == (9, 4)
    assert outcome.measures["tokens.shadow"] == 4


def test_tool_calls_are_compared_as_the_json_that_they_are() -> None:
    def call(*arguments: str) -> bytes:
        calls: list[dict[str, object]] = [{"index": 0, "id": "1", "function": {"name": "f"}}]
        calls += [{"index": 0, "function": {"arguments": piece}} for piece in arguments]
        return stream(*[chunk(tool_calls=[one]) for one in calls])

    assert streams(call('{"a": 1, ', '"b": 2}'), call('{"b":2,"a":1}')).agrees
    outcome = streams(call('{"a":1}'), call('{"a":2}'))
    field = "/choices/*/message/tool_calls/*/function/arguments/a"
    assert outcome.fields == (field,)
    assert streams(call('{"a":1}'), call('{"a":2}'), Comparison(ignore=(field,))).agrees
    masked = Comparison(keep=Kept(mask=("/choices/*/delta/tool_calls",)))
    assert '"2"' not in repr(streams(call('{"a":1}'), call('{"a":2}'), masked))


def test_the_one_call_of_an_older_message_is_compared() -> None:
    def call(name: str, arguments: str) -> bytes:
        function = {"name": name, "arguments": arguments}
        said = json.loads(message(""))
        said["choices"][0]["message"]["function_call"] = function
        return json.dumps(said).encode()

    field = "/choices/*/message/function_call"
    mine = call("f", '{"a": 1}')
    assert compared(mine, call("f", '{"a":1}')).agrees
    assert compared(mine, call("g", '{"a":2}')).fields == (f"{field}/name", f"{field}/arguments/a")
    assert compared(mine, message("")).fields == (field,)
    assert compared(mine, call("g", "")).kind == "completion"
    for pointer in (field, f"{field}/arguments", f"{field}/arguments/a", "/choices/*/message"):
        masked = Comparison(keep=Kept(mask=(pointer,)))
        for theirs in (call("f", '{"a": 98765}'), message("")):
            assert "98765" not in repr(compared(theirs, mine, masked))
    assert compared(mine, call("g", "{}"), Comparison(ignore=(field,))).agrees
    streamed = [chunk(function_call={"name": "f"}), chunk(function_call={"arguments": "1"})]
    assert streams(stream(*streamed), stream(*streamed)).agrees
    assert not streams(stream(*streamed), stream(*streamed[:1])).agrees


def test_what_a_message_says_is_not_hidden_by_a_text_beside_it() -> None:
    said = json.loads(message("bad"))
    said["choices"][0]["text"] = "good"

    assert compared(message("good"), json.dumps(said).encode()).fields == ("text",)


def test_several_choices_are_compared_each_with_its_own() -> None:
    mine = stream(chunk(content="a"), chunk(content="b", index=1))
    theirs = stream(chunk(content="b", index=1), chunk(content="a"))

    assert streams(mine, theirs).agrees
    assert streams(mine, stream(chunk(content="a"))).fields == ("/choices",)


def test_a_completion_in_one_piece_is_compared_as_one_by_default() -> None:
    mine = message("Hi", id="1", created=1, model="a", system_fingerprint="x")
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    theirs = message("Hi", id="2", created=2, model="b", usage=usage)
    outcome = compared(mine, theirs)

    assert (outcome.kind, outcome.agrees, outcome.tokens) == ("completion", True, (1, 2))
    assert compared(mine, message("Ho", finish="length")).fields == ("text", "finish_reason")
    assert compared(mine, b'{"error":"x"}').kind == "json"


def test_a_message_in_parts_says_what_they_say() -> None:
    parts = message("?").replace(b'"?"', b'[{"type":"text","text":"H"},{"type":"text","text":"i"}]')

    assert compared(message("Hi"), parts).kind == "completion"
    assert compared(message("Hi"), parts).agrees


@pytest.mark.parametrize("mask", EVERY_MASK)
def test_masked_words_are_never_told(mask: str) -> None:
    comparison = Comparison(keep=Kept(mask=(mask,)), headers=())
    secret, other = said("s3cret"), said("pass", "w0rd")
    broken = stream({"error": "s3cret"})
    for outcome in (
        streams(secret, other, comparison),
        compared(message("s3cret"), message("passw0rd"), comparison) if "/*/" not in mask else None,
    ):
        assert outcome is None or not outcome.agrees
        assert "s3cret" not in repr(outcome)
        assert "w0rd" not in repr(outcome)
    if mask in {"", "/*", "/choices", "/*/choices/*/delta/content", "/choices/0/delta/content"}:
        assert "pass" not in repr(streams(broken, other, comparison).differences)


def test_times_of_tokens_are_those_of_the_reads_that_brought_them() -> None:
    body = said("a", "b", "c", "d")
    ends = [event.end for event in parse(body)]
    marks = ((10, 0.1), (ends[0], 0.2), (ends[1], 0.3), (ends[3], 0.7), (len(body), 0.9))
    mine = Answer(200, (("content-type", SSE),), body, 0.1, 0.9, marks)
    measures = compared(mine, answer(body, SSE)).measures

    assert measures["first_token_s.primary"] == 0.2
    assert measures["gap_mean_s.primary"] == pytest.approx(0.5 / 3)
    assert measures["gap_max_s.primary"] == measures["gap_p95_s.primary"] == pytest.approx(0.4)
    assert "first_token_s.shadow" not in measures


def coded(coding: str, body: bytes, *marks: tuple[int, float]) -> Answer:
    fields = (("content-type", SSE), ("content-encoding", coding))
    return Answer(200, fields, body, 0.1, 0.9, marks)


def test_times_of_a_coded_stream_are_those_when_it_could_be_read() -> None:
    stream = zlib.compressobj(wbits=31)
    first = stream.compress(said("a")) + stream.flush(zlib.Z_SYNC_FLUSH)
    rest = stream.compress(said("b")) + stream.flush()
    body = first + rest
    mine = coded("gzip", body, (5, 0.1), (len(first), 0.2), (len(body), 0.5))

    measures = compared(mine, mine).measures
    assert measures["first_token_s.primary"] == 0.2
    assert measures["gap_max_s.shadow"] == pytest.approx(0.3)


def test_times_of_a_stream_that_is_coded_twice_are_not_known() -> None:
    body = gzip.compress(gzip.compress(said("a")))
    mine = coded("gzip, gzip", body, (len(body), 0.5))

    assert compared(mine, mine).uncompared is None
    assert "first_token_s.primary" not in compared(mine, mine).measures


def test_other_events_are_compared_one_by_one() -> None:
    mine = b'event: delta\ndata: {"a":1,"at":1}\n\ndata: plain\n\n'
    theirs = b'event: delta\ndata: {"at":2,"a":1}\n\ndata: plane\n\n'

    assert streams(mine, theirs, Comparison(ignore=("/at",))).fields == ("/*",)
    assert streams(mine, theirs, Comparison(ignore=("/*/at", "/1"))).agrees
    assert streams(mine, mine.replace(b"delta", b"end")).fields == ("event",)
    assert streams(mine, mine + b"data: 1\n\n").differences[0].kind == "length"


def test_lines_of_json_are_events() -> None:
    lines = [
        answer(body, "application/x-ndjson")
        for body in (b'{"a":1}\n{"b":2}', b'{"a":1}\n{"b":3}\n')
    ]

    assert compared(lines[0], lines[1]).fields == ("/*/b",)


def test_a_stream_with_something_else_in_it_is_no_completion() -> None:
    assert of_events(parse(said("a"))) is not None
    assert of_events(parse(b'data: {"error":{}}\n\n')) is None
    assert of_events(parse(said("a") + b"data: {\n\n")) is None


@pytest.mark.parametrize("silent", [{"object": ""}, {"object": None}, {}])
def test_a_chunk_need_not_say_what_it_is_of(silent: dict[str, object]) -> None:
    filters = {"choices": [], "id": "", "model": "", **silent}  # as Azure begins
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}, **silent}

    def told(name: str) -> bytes:
        words = [{**chunk(content=word), "id": name} for word in ("a", "b")]
        return stream(filters, *words, usage)

    outcome = streams(told("x"), told("y"))

    assert outcome.agrees
    assert outcome.tokens == (3, 2)


def test_a_stream_of_which_nothing_says_that_it_is_a_completion_is_none() -> None:
    assert of_events(parse(stream({"choices": [{"text": "a"}]}))) is None
