"""Which documents the history still needs, and as which revision."""

from __future__ import annotations

import pytest

from sidecar.store.adoption import DIRECT, LAST_REVISION, MAX_REVISION, Adoption, judge, readopted
from tests.store.documents import policy


@pytest.mark.parametrize(
    ("revision", "last", "recorded", "verdict"),
    [
        (3, 3, "same", Adoption.NONE),
        (2, 3, "same", Adoption.COMMIT),  # an old document, put back as it was
        (4, 3, None, Adoption.RECORD),
        (9, 0, None, Adoption.RECORD),
        (MAX_REVISION, 0, None, Adoption.RECORD),
        (3, 3, "other", Adoption.COMMIT),
        (2, 3, None, Adoption.COMMIT),
        (0, 0, None, Adoption.COMMIT),
        (MAX_REVISION + 1, 3, None, Adoption.COMMIT),
        (LAST_REVISION + 1, 3, None, Adoption.COMMIT),
    ],
)
def test_a_document_is_judged_by_its_revision_and_digest(
    revision: int, last: int, recorded: str | None, verdict: Adoption
) -> None:
    assert judge(revision, "same", last=last, recorded=recorded) is verdict


@pytest.mark.parametrize(
    ("revision", "last", "recorded", "verdict"),
    [
        (3, 3, "same", Adoption.REFUSE),  # the history ends where the document stands
        (2, 3, "same", Adoption.REFUSE),
        (4, 3, None, Adoption.REFUSE),  # a commit whose entry was lost with what came after
        (3, 3, "other", Adoption.COMMIT),  # an edit of what the store went back to
        (0, 3, None, Adoption.COMMIT),  # an edit without a revision
        (2, 5, "same", Adoption.COMMIT),  # the history knows what is in force
        (5, 3, None, Adoption.RECORD),
        (6, 3, None, Adoption.RECORD),
    ],
)
def test_an_older_document_than_is_in_force_is_an_edit_or_a_store_that_went_back(
    revision: int, last: int, recorded: str | None, verdict: Adoption
) -> None:
    assert judge(revision, "same", last=last, recorded=recorded, reached=5) is verdict


def test_a_direct_edit_becomes_the_next_revision_without_the_old_comment() -> None:
    adopted = readopted(policy(default="v2", revision=3, comment="of the old one"), last=5)

    assert (adopted.revision, adopted.actor, adopted.comment) == (6, DIRECT, "")
    assert adopted.default == "v2"
