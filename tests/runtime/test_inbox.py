from sidecar.runtime.inbox import MAX_LENT, SIZE_BYTES, Inbox
from sidecar.wire.pieces import MIN_APART_BYTES

LARGE = MIN_APART_BYTES + 1


def read(inbox: Inbox, byte: int, size: int) -> bytes | memoryview:
    """Do as a transport does."""
    inbox.buffer()[:size] = bytes([byte]) * size
    return inbox.take(size)


def test_small_reads_are_copied_and_share_one_buffer() -> None:
    inbox = Inbox()
    first = read(inbox, 1, 100)
    second = read(inbox, 2, 100)
    assert isinstance(first, bytes)
    assert first == b"\1" * 100
    assert second == b"\2" * 100


def test_a_large_read_stays_as_it_was_while_anybody_has_a_piece_of_it() -> None:
    inbox = Inbox()
    whole = read(inbox, 1, LARGE)
    assert isinstance(whole, memoryview)
    piece = whole[10:20]
    whole.release()
    for byte in range(2, 2 * MAX_LENT):
        read(inbox, byte, LARGE)
    assert piece == b"\1" * 10


def test_a_buffer_is_read_into_again_once_nobody_has_a_piece_of_it() -> None:
    inbox = Inbox()
    before = inbox.buffer()
    read(inbox, 1, LARGE)
    assert inbox.buffer() is before
    kept = read(inbox, 2, LARGE)
    other = inbox.buffer()
    assert other is not before
    del kept
    held = read(inbox, 3, LARGE)
    assert inbox.buffer() is before
    assert held == b"\3" * LARGE


def test_after_a_burst_no_more_than_one_buffer_is_kept() -> None:
    inbox = Inbox()
    pieces = [read(inbox, 1, LARGE) for _ in range(5)]
    inbox.shrink()
    inbox.buffer()
    pieces.clear()
    seen = {id(inbox.buffer()) for _ in range(9) if read(inbox, 2, LARGE)}
    assert len(seen) == 1


def test_a_buffer_keeps_its_size() -> None:
    inbox = Inbox()
    for byte in range(9):
        read(inbox, byte, LARGE)
    assert len(inbox.buffer()) == SIZE_BYTES
