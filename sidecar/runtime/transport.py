"""What the data plane asks of a socket's transport."""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """The part of `asyncio.Transport` in use. uvloop's transports have it without inheriting it."""

    def write(self, data: bytes | memoryview) -> None:
        """Send `data`, now or when the socket takes it."""
        ...

    def writelines(self, pieces: list[bytes | memoryview]) -> None:
        """Send all of `pieces` in order, as `write` does."""
        ...

    def write_eof(self) -> None:
        """Close the sending side once all is written."""
        ...

    def can_write_eof(self) -> bool:
        """Return whether `write_eof` is possible; over TLS it is not."""
        ...

    def pause_reading(self) -> None:
        """Deliver no more data."""
        ...

    def resume_reading(self) -> None:
        """Deliver data again."""
        ...

    def set_read_buffer_limits(self, high: int, low: int) -> None:
        """Read no more while `high` bytes wait for who has paused; of TLS only."""
        ...

    def set_write_buffer_limits(self, high: int) -> None:
        """Have the protocol pause writing while more than `high` bytes wait."""
        ...

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the socket has not taken yet."""
        ...

    def set_protocol(self, protocol: object) -> None:
        """Deliver data to `protocol` from now on."""
        ...

    def is_closing(self) -> bool:
        """Return whether the transport is closed or about to be."""
        ...

    def close(self) -> None:
        """Close once all is written."""
        ...

    def abort(self) -> None:
        """Close now; what is not written is lost."""
        ...

    def get_extra_info(self, name: str) -> object:
        """Return `peername`, `socket` and the like, or None."""
        ...
