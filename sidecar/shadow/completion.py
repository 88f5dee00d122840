"""Completions of OpenAI's API, in one piece or streamed: what was said, and how it ended.

`id`, `created`, `model`, `system_fingerprint`, log probabilities, reasoning, the ids of tool calls
and the usage are not compared: they tell of an answer what the next one would not repeat.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from sidecar.shadow import text
from sidecar.shadow.body import bound_values
from sidecar.shadow.document import MalformedError, Walk, decode
from sidecar.shadow.findings import TooMuchError
from sidecar.shadow.pointer import ANY, along, has_mask, is_ignored, mask_of

if TYPE_CHECKING:
    from sidecar.model.identity import JSON
    from sidecar.shadow.events import Event
    from sidecar.shadow.findings import Findings
    from sidecar.shadow.pointer import Nodes
    from sidecar.shadow.rules import Rules

DONE = b"[DONE]"
_OBJECTS = frozenset(("chat.completion", "chat.completion.chunk", "text_completion"))
FINISH = "finish_reason"
MAX_TOKENS = 1_000_000_000  # of one answer: JSON has integers that no float holds
_ONLY = -1  # the place of a call that has none
_FUNCTION = ("choices", ANY, "message", "function_call")
_TOOLS = ("choices", ANY, "message", "tool_calls")


class Function(Struct):
    """What a tool call calls; a stream sends the arguments, which are JSON, in pieces."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct):
    """A tool call, or a piece of it; `index` is its place, of which all pieces tell."""

    index: int | None = None
    function: Function | None = None


class Part(Struct):
    """A part of a message: its text, if it is one."""

    text: str = ""


class Message(Struct):
    """A message, or a piece of one; its content may be in parts."""

    content: str | list[Part] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Function | None = None  # as it was before there were several


class Choice(Struct):
    """One of the answers, or a piece of it: `message` or `delta` of a chat, `text` of others."""

    index: int = 0
    message: Message | None = None
    delta: Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class Usage(Struct):
    """Tokens, by either of the names that are about."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output tokens; whoever answers may say anything."""
        said = self.prompt_tokens or self.input_tokens, self.completion_tokens or self.output_tokens
        taken, given = [min(max(number or 0, 0), MAX_TOKENS) for number in said]
        return taken, given


class Piece(Struct):
    """A whole completion, or a chunk of a stream; some chunks do not say of what they are one."""

    choices: list[Choice]
    object: str | None = None
    usage: Usage | None = None


class Said(Struct):
    """What one choice said, put together."""

    text: list[str] = []
    calls: dict[int, tuple[list[str], list[str]]] = {}
    finish_reason: str | None = None


class Completion(Struct):
    """What a completion said, by the index of the choice; `ends` are where its pieces end."""

    choices: dict[int, Said] = {}
    usage: tuple[int, int] | None = None
    deltas: int = 0
    ends: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> tuple[int, int] | None:
        """Input and output tokens; of a stream that tells none, its pieces, of no input."""
        if self.usage is None and self.ends:
            return (0, self.deltas)
        return self.usage


_decoder = msgspec.json.Decoder(Piece)


def of_document(document: JSON) -> Completion | None:
    """Return what a document says if it is a completion."""
    if not isinstance(document, dict) or "choices" not in document:
        return None
    try:
        piece = msgspec.convert(document, Piece)
    except msgspec.ValidationError:
        return None
    if piece.object not in _OBJECTS:
        return None
    made = Completion()
    _add(made, piece)
    return made


def of_events(events: list[Event]) -> Completion | None:
    """Return what a stream says if all of its events are pieces of a completion.

    One has to say so, and none anything else: Azure's first chunk, which tells of the filters, has
    an empty `object`, and gateways that add the usage leave it out.

    Raises:
        UnreadableError: an event has too many values.
    """
    made = Completion()
    is_named = False
    for event in events:
        if event.data == DONE:
            continue
        bound_values(event.data)
        try:
            piece = _decoder.decode(event.data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        if piece.object and piece.object not in _OBJECTS:
            return None
        is_named = is_named or bool(piece.object)
        if _add(made, piece):
            made.deltas += 1
            made.ends.append(event.end)
    return made if made.choices and is_named else None


def tokens_of(document: JSON) -> tuple[int, int] | None:
    """Return the input and output tokens that a document's member `usage` tells."""
    if not isinstance(document, dict) or "usage" not in document:
        return None
    try:
        return msgspec.convert(document["usage"], Usage).tokens
    except msgspec.ValidationError:
        return None


def _add(to: Completion, piece: Piece) -> bool:
    """Add a piece; return whether it says anything."""
    if piece.usage is not None:
        to.usage = piece.usage.tokens
    says = False
    for choice in piece.choices:
        said = to.choices.get(choice.index)
        if said is None:
            said = to.choices[choice.index] = Said()
        said.finish_reason = choice.finish_reason or said.finish_reason
        message = choice.delta or choice.message
        words = (_words(message) if message else "") or choice.text
        if words:
            said.text.append(words)
            says = True
        if message and message.tool_calls:
            _add_calls(said, message.tool_calls)
            says = True
        if message and message.function_call:
            _add_calls(said, [ToolCall(_ONLY, message.function_call)])
            says = True
    return says


def _words(message: Message) -> str:
    content = message.content
    if isinstance(content, list):
        content = "".join([part.text for part in content])
    return content or message.refusal or ""


def _add_calls(said: Said, calls: list[ToolCall]) -> None:
    for place, call in enumerate(calls):
        index = place if call.index is None else call.index
        name, arguments = said.calls.setdefault(index, ([], []))
        if call.function is not None:
            name.append(call.function.name or "")
            arguments.append(call.function.arguments or "")


def compare(
    primary: Completion, shadow: Completion, choices: Nodes, rules: Rules, findings: Findings
) -> None:
    """Note where two completions differ: `text`, `finish_reason`, tool calls.

    `choices` is said of the member of that name. What a pointer says of a message holds for the
    pieces of one, too, and the other way round.

    Raises:
        FullError: as many fields differ as are told.
        TooMuchError: arguments of a tool are nested too deeply.
        UnreadableError: texts are too long for their edits to be counted.
    """
    if is_ignored(choices):
        return
    if primary.choices.keys() != shadow.choices.keys():
        findings.note_length(
            mask_of(choices) or "/choices", len(primary.choices), len(shadow.choices)
        )
    for index, mine in primary.choices.items():
        theirs = shadow.choices.get(index)
        if theirs is not None:
            _compare_choice(mine, theirs, along(choices, (str(index),)), rules, findings)


def _compare_choice(
    primary: Said, shadow: Said, nodes: Nodes, rules: Rules, findings: Findings
) -> None:
    if is_ignored(nodes):
        return
    said = _places(nodes, "content") + _places(nodes, "refusal") + along(nodes, ("text",))
    if not is_ignored(said):
        mine, theirs = "".join(primary.text), "".join(shadow.text)
        text.compare(mine, theirs, rules, findings, is_masked=has_mask(said))
    end = along(nodes, (FINISH,))
    if primary.finish_reason != shadow.finish_reason and not is_ignored(end):
        findings.note_values(
            FINISH, primary.finish_reason, shadow.finish_reason, is_masked=has_mask(end)
        )
    tools = _places(nodes, "tool_calls")
    Walk(findings, rules.tolerance, _TOOLS).compare(_calls(primary), _calls(shadow), tools)
    only = _places(nodes, "function_call")
    Walk(findings, rules.tolerance, _FUNCTION).compare(_only(primary), _only(shadow), only)


def _places(nodes: Nodes, name: str) -> Nodes:
    return along(nodes, ("message", name)) + along(nodes, ("delta", name))


def _calls(said: Said) -> list[JSON]:
    """Return tool calls in order."""
    return [{"function": _call(said, place)} for place in sorted(said.calls) if place != _ONLY]


def _only(said: Said) -> JSON:
    """Return the call of a message that has no list of them."""
    return _call(said, _ONLY) if _ONLY in said.calls else None


def _call(said: Said, place: int) -> JSON:
    """Return a call, its arguments as the JSON that they are, if they are."""
    name, arguments = said.calls[place]
    spelled = "".join(arguments)
    value: JSON = spelled
    with suppress(MalformedError, TooMuchError):
        value = decode(spelled)
    return {"name": "".join(name), "arguments": value}
