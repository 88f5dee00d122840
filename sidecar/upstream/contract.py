"""What an upstream connection tells, and whom: the response in hand, its sink, its keeper."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from sidecar.wire.framing import UNTIL_CLOSE

if TYPE_CHECKING:
    from sidecar.runtime.turns import Turns
    from sidecar.wire.pieces import Pieces
    from sidecar.wire.response import ResponseHead


class Response:
    """The response in hand."""

    head: ResponseHead
    framing: int  # what its body has, whatever the head says
    writes_chunks: bool  # a sink may clear it: HTTP/1.0 knows no chunks
    read_s: float  # monotonic time of the read in hand

    def __init__(self) -> None:
        self.framing = UNTIL_CLOSE
        self.writes_chunks = False
        self.read_s = 0.0


class ResponseSink:
    """Who asked. Called in order: interim*, head, data*, then end or lost; or lost alone."""

    @property
    def copies(self) -> bool:
        """Whether it holds what it is given in copies, until somebody takes them."""
        return False

    @abstractmethod
    def on_interim_head(self, response: Response, out: Pieces) -> None:
        """Take a 1xx head; append to `out` what to pass on."""

    @abstractmethod
    def on_response_head(self, response: Response, out: Pieces) -> None:
        """Take a final head; append to `out` what goes before its body."""

    @abstractmethod
    def on_upgrade(self, response: Response, out: Pieces) -> ResponseSink | None:
        """Take a 101; return who takes the bytes from here on, None if nobody asked for it."""

    @abstractmethod
    def on_response_data(self, pieces: Pieces, body_bytes: int) -> None:
        """Take what the bytes of one read amount to, in pieces; `body_bytes` of it are body."""

    @abstractmethod
    def on_response_end(self) -> None:
        """Learn that the response is whole; the connection is already back in its pool."""

    @abstractmethod
    def on_response_lost(self, reason: str, *, is_unanswered: bool) -> None:
        """Learn that the connection failed, or the response is malformed, before it was whole.

        `is_unanswered` when the connection ended before any byte of a response.
        """

    def on_fault(self) -> None:
        """Learn that a fault of the sidecar has ended the connection; it is noted already.

        It may come after any other call, also the last one. It raises nothing.
        """
        self.on_response_lost("a fault of the sidecar", is_unanswered=False)

    def on_half_close(self) -> bool:
        """Learn that the upstream of a tunnel sends no more; return whether it is kept."""
        return False

    @abstractmethod
    def on_upstream_full(self) -> None:
        """Stop sending: the connection's write buffer is over its high-water mark."""

    @abstractmethod
    def on_upstream_drained(self) -> None:
        """Send again."""


class Keeper:
    """Who owns a connection while nobody uses it. The connections it is told of are its own."""

    hides_decisions: bool  # of the upstream: X-Model-* are the sidecar's own
    turns: Turns

    @abstractmethod
    def release(self, connection: Response) -> None:
        """Take back a connection whose response is whole."""

    @abstractmethod
    def forget(self, connection: Response) -> None:
        """Leave out a connection that is gone."""
