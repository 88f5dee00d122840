"""The JSON Schema of a policy document: the shape of the structs, with words for each field.

Editors complete and check documents by it; what a document means is judged by `policy.validate`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Final

import msgspec

from sidecar.model.policy import Matcher, Policy
from sidecar.policy.condition import ATTRIBUTES
from sidecar.policy.validate import KEYS

if TYPE_CHECKING:
    from sidecar.model.identity import JSON

    Node = dict[str, JSON]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
ID: Final = "urn:rmv:policy"

_KEY: Final[Node] = {"anyOf": [{"enum": list(KEYS)}, {"pattern": r"^header\..+$"}]}
_ATTRIBUTE: Final[Node] = {
    "anyOf": [{"enum": list(ATTRIBUTES)}, {"pattern": r"^(claim|header)\..+$"}]
}

WORDS: Final[dict[str, dict[str, str]]] = {
    "Policy": {
        "model": "What clients call it; must be the model of the Redis key.",
        "versions": "The deployed variants by name; at least one.",
        "labels": "Further names of versions, which can be moved: `canary: v3`.",
        "segments": "Sets of callers by name, for the attribute `segment` of matchers.",
        "rules": "Asked in order; the first whose `when` holds answers.",
        "default": "The version of those who get none from the rules.",
        "default_access": "Who may use a version where neither it nor the model has `allow`.",
        "allow": "Who may use the model at all: any of these matches. Left out: everybody.",
        "deny": "Who may use none of its versions; wins over every `allow`.",
        "on_unavailable": "What becomes of a tenant whose pinned version may not serve.",
        "shadows": "Versions that get copies of requests.",
        "audit": "Which requests audit is told of: those that are denied, or all.",
        "revision": "Written by a commit.",
        "actor": "Written by a commit.",
        "comment": "Written by a commit.",
        "applied": "Written by a commit.",
        "deleted": "The model is deleted; nothing else is said of it.",
        "signature": "Written by a commit.",
    },
    "Version": {
        "endpoints": "Each `http://host:port`, `https://host:port` or `unix:/path.sock`.",
        "state": "Only active versions serve; draining ones those who are pinned or ask.",
        "allow": "Who may use it: any of these matches. Left out: everybody.",
        "deny": "Who may not; wins over `allow`.",
        "accepts": "Requests that it is compatible with: any of these matches.",
        "fallback": "The version that serves where this one may not or cannot.",
        "rewrite": "How requests are spelled for it.",
        "health": "How its endpoints are checked.",
        "max_concurrency": "Requests that are with its endpoints at a time, at most.",
        "max_queue": "Requests that may wait for that, at most.",
        "max_body_bytes": "The longest body of a request.",
        "idempotent": "Whether doing a request twice does no harm, whatever its method.",
        "timeouts": "Bounds of waiting in the place of those of the sidecar's settings.",
        "deprecation": "What answers tell while it is draining.",
        "lineage": "What it was made from; changes no decision.",
        "price": "What its answers cost, for reports and caps of shadows.",
    },
    "Price": {
        "per_request": "For each request.",
        "per_1k_input_tokens": "For a thousand tokens of prompts, as answers tell them.",
        "per_1k_output_tokens": "For a thousand tokens of answers.",
        "currency": "Three letters, as ISO 4217 has them.",
    },
    "Segment": {
        "include": "Tenants that are in, whatever else is said.",
        "exclude": "Tenants that are out, unless they are in `include`.",
        "when": "Of all others those are in whom any of these matches.",
        "claimed": "Of all others those are in, too, whose token lists the segment.",
    },
    "Operators": {
        "in": "The value is one of the list.",
        "not_in": "No value is in the list; an absent one is not.",
        "prefix": "It begins with the text.",
        "suffix": "It ends with the text.",
        "regex": "It matches as a whole; the syntax is RE2's.",
        "exists": "Whether there is a value.",
        "gte": "It is a number of at least this.",
        "lte": "It is a number of at most this.",
        "semver": "It is a version in the range: `>=2.1 <3`.",
        "cidr": "It is an address in one of the networks.",
        "from": "For `time`: at or after this moment.",
        "until": "For `time`: before this moment.",
    },
    "Rule": {
        "id": "Stands in reasons; unique in the policy.",
        "when": "Whom it is for; left out: everybody.",
        "serve": "The version they get.",
        "split": "The versions they are divided over.",
        "deny": "Refuse them; they read this text.",
    },
    "Split": {
        "arms": "Versions and their weights, relative to the sum.",
        "key": "What keeps its arm: `tenant`, `subject`, `app`, `header.<name>`, or `request`.",
        "otherwise": "The version for callers without the key.",
    },
    "Shadow": {
        "version": "Who gets the copies.",
        "percent": "Of the requests.",
        "key": "What is sampled; `request` samples each request on its own.",
        "enabled": "Whether there are any copies.",
        "when": "Requests that are eligible: any of these matches. Left out: all.",
        "methods": "Copied beside safe ones; `*` is any.",
        "credentials": "Whether copies carry Authorization, Cookie and X-Api-Key.",
        "headers": "Set on copies, in the place of a client's of that name.",
        "body_model": "Takes the place of the member `model` of a JSON body.",
        "max_body_bytes": "The longest body of a copy.",
        "max_connections": "Copies under way at a time, of one worker.",
        "max_queue": "Copies under way or waiting, of one worker.",
        "timeout_s": "Seconds for an answer's first byte, and again for the rest.",
        "cost_per_day": "What copies may cost in a UTC day, by the version's price.",
        "compare": "How its answers are compared with those that clients got.",
    },
    "Comparison": {
        "kind": "What answers are compared as; `auto` goes by their content.",
        "ignore": "Pointers to what may differ.",
        "unordered": "Pointers to arrays whose order means nothing.",
        "absolute": "Numbers that differ by no more are the same.",
        "relative": "The same, as a share of the greater.",
        "headers": "Those of answers that are compared.",
        "text": "When two texts are the same.",
        "text_ratio": "The least likeness of two texts, for `ratio`.",
        "label": "A pointer to a classification's label.",
        "labels": "The names of classes, in the order of `probabilities`.",
        "probabilities": "A pointer to their probabilities.",
        "control": "A version that shows noise: the serving one once more.",
        "control_percent": "Of the copies, that go to the control as well.",
        "max_body_bytes": "The longest answer that is compared.",
        "thresholds": "What the shadow must hold to pass.",
        "keep": "What is kept of pairs that disagree.",
    },
    "Thresholds": {
        "agreement": "The least share of pairs that agree.",
        "error_increase": "The most that the share of errors may grow by.",
        "latency_p50_ratio": "The most that its median latency may be of the client's.",
        "latency_p95_ratio": "The same of the 95th percentile.",
        "latency_p99_ratio": "The same of the 99th.",
        "min_pairs": "No verdict before so many pairs.",
        "confidence": "Of all bounds at once.",
    },
    "Kept": {
        "pairs": "The newest pairs that are kept, about.",
        "values": "Whether to keep what differing fields said.",
        "bodies": "Whether to keep the request and both answers.",
        "mask": "Pointers to what is never kept.",
    },
    "Rewrite": {
        "path": "A template over {model}, {version}, {path} and {rest}.",
        "headers": "Set on the request, in the place of a client's of that name.",
    },
    "Health": {
        "path": "What each endpoint is asked by GET.",
        "status": "The answers that mean yes; left out: any 2xx.",
        "interval_s": "Seconds between two checks.",
        "timeout_s": "Seconds for a whole check.",
        "unhealthy_after": "So many bad checks in a row take an endpoint out.",
        "healthy_after": "So many good ones bring it back.",
    },
    "VersionTimeouts": {
        "first_byte_s": "Seconds until the first byte of an answer.",
        "body_idle_s": "Seconds between two pieces of a body.",
    },
    "Deprecation": {
        "since": "When it is deprecated: `2026-11-23T13:00:00Z`.",
        "sunset": "When it will be gone.",
        "link": "What to read about it.",
    },
    "Lineage": {
        "registry": "The URI of its registered form.",
        "run": "The id of the run that made it.",
        "git": "The commit of its source, all 40 or 64 digits.",
        "training_data": "What it was trained on.",
        "feature_set": "Where its features come from.",
        "config": "The digest of its configuration: `sha256:` and 64 digits.",
        "image": "The digest of its container.",
        "signature": "What it takes and gives.",
        "owner": "Who answers for it.",
        "created": "When it was made: `2026-11-23T13:00:00Z`.",
    },
    "DataSet": {
        "name": "What it is called.",
        "digest": "Which it was: `sha256:` and 64 digits, or `mlflow:` and what MLflow tells.",
    },
    "FeatureSet": {
        "service": "The feature service or view.",
        "digest": "Which features they were: `sha256:` and 64 digits.",
    },
    "Signature": {
        "inputs": "What a request holds.",
        "outputs": "What an answer holds.",
        "params": "What a request may set.",
    },
    "Column": {
        "type": "Such as `double`, `array<string>`, or of a tensor what it holds: `float32`.",
        "name": "Left out where there is but one.",
        "shape": "Of a tensor; -1 is a size that is left open.",
        "optional": "Whether it may be missing.",
    },
}
"""What editors show of each field."""


def schema() -> Node:
    """Return the schema of a policy document (JSON Schema 2020-12)."""
    made: Node = msgspec.json.schema(Policy)
    definitions = _node(made["$defs"])
    matcher = msgspec.json.schema(Matcher)
    definitions.update(_node(matcher.pop("$defs")))
    plain = {name: _plain(_tidy(one, matcher)) for name, one in definitions.items()}
    for name, words in WORDS.items():
        members = _node(plain[name]["properties"])
        for field, text in words.items():
            members[field] = {"description": text, **_node(members[field])}
    _narrow(plain)
    tidy = _node(_tidy(matcher, None))
    plain["Matcher"] = {
        "description": "Conditions by attribute, all of which must hold.",
        **tidy,
        "propertyNames": _ATTRIBUTE,
    }
    return {
        "$schema": DIALECT,
        "$id": ID,
        "title": "A policy of rmv",
        "$ref": "#/$defs/Policy",
        "$defs": dict(sorted(plain.items())),
    }


def _narrow(definitions: dict[str, Node]) -> None:
    """Say what the types leave open, so that editors offer it."""
    outcomes = ("serve", "split", "deny")
    definitions["Rule"]["oneOf"] = [{"required": [name]} for name in outcomes]
    for name in ("Split", "Shadow"):
        _node(_node(definitions[name]["properties"])["key"]).update(_KEY)


def _tidy(value: JSON, matcher: Node | None) -> JSON:
    """Name each matcher instead of repeating it, and leave null out: a field is given or not."""
    if isinstance(value, (list, tuple)):
        return [_tidy(one, matcher) for one in value]
    if not isinstance(value, dict):
        return value
    if matcher is not None and {**value, "default": 0} == {**matcher, "default": 0}:
        return {"$ref": "#/$defs/Matcher"}
    tidy = {key: _tidy(one, matcher) for key, one in value.items()}
    options = tidy.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        options.remove({"type": "null"})
        tidy.pop("default", None)
        if len(options) == 1:
            del tidy["anyOf"]
            tidy |= _node(options[0])
    return tidy


def _plain(value: JSON) -> Node:
    """Take the indentation of the source from a definition's description."""
    node = _node(value)
    text = node.get("description")
    return {**node, "description": inspect.cleandoc(text)} if isinstance(text, str) else node


def _node(value: JSON) -> Node:
    if not isinstance(value, dict):
        raise TypeError(f"a schema is a mapping, not {value!r}")
    return value
