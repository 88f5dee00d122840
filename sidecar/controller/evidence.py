"""A pair that disagrees, as it is kept: masked, and with no more than the policy asks for."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from sidecar.model.shadow import Evidence
from sidecar.shadow.body import UnreadableError, undo
from sidecar.shadow.findings import MASKED
from sidecar.shadow.masking import mask
from sidecar.shadow.pointer import has_mask
from sidecar.telemetry.recorder import hide_token

if TYPE_CHECKING:
    from sidecar.controller.trials import Trial
    from sidecar.model.shadow import Answer, Difference, Outcome
    from sidecar.shadow.rules import Rules

    Fields = tuple[tuple[str, str], ...]

MAX_BODY_BYTES: Final = 64 * 1024  # of a body that is kept
MAX_FIELD_CHARS: Final = 200  # of a header field: whoever answers may send a head of 64 KiB
REQUEST_ID: Final = "x-request-id"
_MASKED: Final = MASKED.encode()


def make_evidence(
    trial: Trial, rules: Rules, primary: Answer, shadow: Answer, outcome: Outcome
) -> Evidence:
    """Return a pair that disagrees as it may be kept: what the policy does not ask for is not."""
    book, keep, head = trial.book, trial.comparison.keep, trial.head
    request_id = head.request_id.decode("latin-1")
    evidence = Evidence(
        at_s=trial.at_s,
        model=book.model,
        version=book.version,
        primary=trial.serving,
        test=book.test,
        request_id=request_id,
        shadow_request_id=dict(shadow.fields).get(REQUEST_ID, request_id)[:MAX_FIELD_CHARS],
        tenant=trial.identity.tenant,
        kind=outcome.kind,
        fields=outcome.fields,
        differences=_told(outcome.differences, has_values=keep.values),
        primary_status=primary.status,
        shadow_status=shadow.status,
        primary_s=primary.duration_s,
        shadow_s=shadow.duration_s,
    )
    return _with_bodies(evidence, trial, rules, primary, shadow) if keep.bodies else evidence


def _told(differences: tuple[Difference, ...], *, has_values: bool) -> tuple[Difference, ...]:
    if has_values:
        return differences
    return tuple(replace(one, primary="", shadow="", delta=None) for one in differences)


def _with_bodies(
    evidence: Evidence, trial: Trial, rules: Rules, primary: Answer, shadow: Answer
) -> Evidence:
    """Add the request and both answers, but for what is masked, or too large to be kept."""
    head = trial.head
    sent = head.target.decode("latin-1")
    target = hide_token(sent)
    content_type = (head.header(b"content-type") or b"").decode("latin-1")[:MAX_FIELD_CHARS]
    request, _ = _kept(_plain_body(trial), (("content-type", content_type),), rules)
    primary_body, primary_fields = _kept(primary.body, primary.fields, rules)
    shadow_body, shadow_fields = _kept(shadow.body, shadow.fields, rules)
    return replace(
        evidence,
        method=head.method.decode("latin-1"),
        target=target,
        content_type=content_type,
        request_body=base64.b64encode(request).decode(),
        is_masked=target != sent or (bool(trial.request_body) and not _is_whole(request, rules)),
        primary_fields=primary_fields,
        primary_body=base64.b64encode(primary_body).decode(),
        shadow_fields=shadow_fields,
        shadow_body=base64.b64encode(shadow_body).decode(),
    )


def _plain_body(trial: Trial) -> bytes:
    """Return a request's body without its content coding; nothing where that cannot be undone."""
    coding = trial.head.header(b"content-encoding")
    if coding is None:
        return trial.request_body
    with suppress(UnreadableError):
        return undo(trial.request_body, coding.decode("latin-1"), MAX_BODY_BYTES)
    return b""


def _is_whole(body: bytes, rules: Rules) -> bool:
    """Return whether nothing of a body was left out."""
    return bool(body) and not (has_mask(rules.nodes) and _MASKED in body)


def _kept(body: bytes, fields: Fields, rules: Rules) -> tuple[bytes, Fields]:
    """Return what may be kept of a body, and its header fields that are looked at."""
    looked_at = tuple(
        (name, value[:MAX_FIELD_CHARS]) for name, value in fields if name in rules.fields
    )
    # What is longer is not even looked at: the loop stands still meanwhile.
    is_short = len(body) <= MAX_BODY_BYTES
    kept = mask(body, dict(looked_at), rules.nodes, MAX_BODY_BYTES) if is_short else b""
    if has_mask(rules.nodes):  # it is written anew, without a content coding and in UTF-8
        looked_at = tuple(
            (name, value.partition(";")[0] if name == "content-type" else value)
            for name, value in looked_at
            if name != "content-encoding"
        )
    return kept, looked_at
