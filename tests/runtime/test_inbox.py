"""Buffers that long bodies are read into: few, and none is written over while somebody reads it."""

from __future__ import annotations

from sidecar.runtime.inbox import BufferedReads, Inbox

MIB = 1024 * 1024
KEPT_AT_MOST = 5 * MIB  # of one worker, whatever comes


class Taker:
    """A connection that keeps what it is handed as a view, and tells what it was handed whole."""

    def __init__(self) -> None:
        self.kept: list[memoryview] = []
        self.copied: list[bytes] = []

    def room(self) -> int:
        return MIB

    def take_read(self, read: memoryview) -> None:
        self.kept.append(read)

    def data_received(self, data: bytes) -> None:
        self.copied.append(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        pass

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass


def read(reads: BufferedReads, data: bytes) -> None:
    """Do as the event loop does with what a socket has."""
    buffer = reads.get_buffer(-1)
    buffer[: len(data)] = data
    buffer.release()
    reads.buffer_updated(len(data))


def test_what_is_kept_is_never_written_over_and_the_rest_is_copied() -> None:
    taker, inbox = Taker(), Inbox()
    reads = BufferedReads(taker, inbox)
    for number in range(20):
        read(reads, b"%d" % number)

    got = [bytes(view) for view in taker.kept] + taker.copied
    assert got == [b"%d" % number for number in range(20)]
    assert taker.kept
    assert taker.copied


def test_however_many_are_slow_the_buffers_of_a_worker_are_bounded() -> None:
    inbox, slow = Inbox(), [Taker() for _ in range(100)]
    for number, taker in enumerate(slow):
        read(BufferedReads(taker, inbox), b"%d" % number)

    held = {id(view.obj): len(memoryview(view.obj)) for one in slow for view in one.kept}
    assert sum(held.values()) + len(inbox.scratch) <= KEPT_AT_MOST
    said = [bytes(one.kept[0]) if one.kept else one.copied[0] for one in slow]
    assert said == [b"%d" % number for number in range(100)]


def test_a_buffer_that_nobody_keeps_is_used_again() -> None:
    taker, inbox = Taker(), Inbox()
    reads = BufferedReads(taker, inbox)
    for number in range(20):
        read(reads, b"%d" % number)
        taker.kept.clear()

    assert not taker.copied
