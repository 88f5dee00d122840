"""Whether a document that was seen belongs into the history, and as which revision.

Anyone may edit a policy with redis-cli, and a commit may die between its two writes. So whoever
sees a document compares it with the history; all who see the same thing do the same thing.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from msgspec import structs

if TYPE_CHECKING:
    from sidecar.model.policy import Policy

DIRECT = "direct"
"""The actor of an edit made past this program."""

LAST_REVISION = 2**53 - 1  # what every JSON reader keeps exact; stream ids end at 2**64
MAX_REVISION = 2**52
"""What a document may say of itself and be believed: revisions enough are left to follow it."""


class Adoption(Enum):
    """What the history still needs."""

    NONE = "none"  # the document stands there already
    RECORD = "record"  # add the document as it is
    COMMIT = "commit"  # its revision is taken: commit it anew, as the next one
    REFUSE = "refuse"  # the store went back: an older copy of it was promoted or restored


def judge(
    revision: int, digest: str, *, last: int, recorded: str | None, reached: int = 0
) -> Adoption:
    """Judge a document by its revision and digest.

    `last` is the newest revision in the history (0: none), `recorded` the digest that the
    document's own revision has there, `reached` the newest revision that was seen in force.

    An older document than that is an edit by hand if the history knows what was in force, or if
    no commit ever made this document. Else the history is as old as the document: a store that
    lost what came after.
    """
    is_next = last < revision <= MAX_REVISION
    if (is_next or recorded == digest) and max(revision, last) < reached:
        return Adoption.REFUSE
    if is_next:
        return Adoption.RECORD
    if recorded == digest and revision == last:
        return Adoption.NONE
    return Adoption.COMMIT


def readopted(policy: Policy, *, last: int) -> Policy:
    """Return a directly edited `policy` as the next revision.

    Its comment and signature are dropped: they were those of the commit which the editor started
    from.
    """
    return structs.replace(policy, revision=last + 1, actor=DIRECT, comment="", signature="")
