"""How audit is kept, and how much of it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

from msgspec import Meta, Struct


class Kind(Enum):
    """What an audit entry tells of; stable strings."""

    BEGIN = "begin"  # a process began its chain
    END = "end"  # and ended it
    CHECKPOINT = "checkpoint"  # a signature over all of the chain before
    LOST = "lost"  # so many entries could not be kept
    COMMIT = "commit"
    ADOPT = "adopt"  # an edit made past this program became a revision
    DELETE = "delete"
    LABEL = "label"
    PIN = "pin"
    UNPIN = "unpin"
    KILL = "kill"
    REVIVE = "revive"  # what was killed is on again
    REVOKE = "revoke"
    UNREVOKE = "unrevoke"
    KEYS = "keys"  # other keys are believed
    CREDENTIALS = "credentials"  # others may use the admin surface
    LOGIN = "login"  # to the admin surface, taken or refused
    DENIED = "denied"  # a request got no version
    DECISION = "decision"  # it got one


class OnFailure(Enum):
    """What becomes of requests while no entry can be written."""

    OPEN = "fail-open"
    CLOSED = "fail-closed"


class AuditSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where audit goes: with neither a folder nor the stream there is none.

    `key_file` is the Ed25519 private key (PEM) that signs checkpoints, at least every
    `checkpoint_entries` entries and `checkpoint_s` seconds. `buffer_entries` wait for each sink
    that cannot be written, and no more. Of callers without an identity, each process tells
    `strangers_per_minute` denials one by one, and counts the others.
    """

    dir: str = ""  # a folder for files of lines; empty: none
    stream: bool = False  # the Redis stream `<prefix>:audit`
    file_bytes: Annotated[int, Meta(ge=4096, le=1 << 40)] = 64 * 1024 * 1024
    files: Annotated[int, Meta(ge=2, le=100_000)] = 16  # the oldest of more is deleted
    fsync: Literal["batch", "second", "never"] = "second"
    stream_entries: Annotated[int, Meta(ge=1, le=1 << 32)] = 1_000_000  # trimmed beyond only
    buffer_entries: Annotated[int, Meta(ge=256, le=10_000_000)] = 20_000
    strangers_per_minute: Annotated[int, Meta(ge=0, le=1_000_000)] = 60
    on_failure: OnFailure = OnFailure.OPEN
    key_file: str = ""
    checkpoint_entries: Annotated[int, Meta(ge=10, le=1_000_000)] = 1000
    checkpoint_s: Annotated[float, Meta(ge=0.1, le=86_400)] = 60.0

    @property
    def is_on(self) -> bool:
        """Return whether there is a sink."""
        return bool(self.dir) or self.stream
