"""Requests at a fixed rate: `python -m tests.bench.openloop PORT MODEL RATE LEAD_S SECONDS`.

Prints p50 and p99 of those after the first `LEAD_S` seconds, in milliseconds. wrk has no such load:
it waits for an answer before it asks again, so what stalls it is not measured.
"""

import select
import socket
import sys
import time
from collections import deque
from statistics import median

from tests.bench.addresses import HOST
from tests.bench.fixtures import BODY_SIZES, predict_body

CONNECTIONS = 32
LATE_S = 10.0  # for any answer
MAX_ANSWER = 65_536
END = b'x"}'  # of what the origins answer


def request(model: str) -> bytes:
    body = predict_body(BODY_SIZES["1k"])
    head = (
        f"POST /v1/models/{model}:predict HTTP/1.1\r\nHost: {HOST}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Load:
    """What was asked and has not been answered; on each connection one at a time."""

    def __init__(self, port: int, asking: bytes) -> None:
        self._asking = asking
        self._free = deque(socket.create_connection((HOST, port)) for _ in range(CONNECTIONS))
        self._due_s: dict[socket.socket, float] = {}
        for connection in self._free:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self, rate: int, number: int) -> list[float]:
        """Return the seconds that each took from when it was due, in the order of the answers.

        Who had to wait for a free connection, or for this process to wake up, has waited.
        """
        took: list[float] = []
        began_s, sent = time.perf_counter(), 0
        while len(took) < number:
            while self._free and sent < number and began_s + sent / rate <= time.perf_counter():
                self._ask(began_s + sent / rate)
                sent += 1
            is_next = self._free and sent < number
            wait_s = began_s + sent / rate - time.perf_counter() if is_next else LATE_S
            took += self._answers(max(wait_s, 0.0))
            if time.perf_counter() - began_s > number / rate + LATE_S:
                raise SystemExit(f"{number - len(took)} of {number} requests were not answered")
        return took

    def _ask(self, due_s: float) -> None:
        connection = self._free.popleft()
        connection.sendall(self._asking)
        self._due_s[connection] = due_s

    def _answers(self, wait_s: float) -> list[float]:
        """Take what is there within so many seconds."""
        took = []
        ready, _, _ = select.select(list(self._due_s), (), (), wait_s)
        for connection in ready:
            answer = connection.recv(MAX_ANSWER)
            if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(END):
                raise SystemExit(f"no good answer: {answer[:300]!r}")
            took.append(time.perf_counter() - self._due_s.pop(connection))
            self._free.append(connection)
        return took


def main(port: int, model: str, rate: int, lead_s: float, seconds: float) -> None:
    lead, number = int(rate * lead_s), int(rate * seconds)
    took = sorted(Load(port, request(model)).run(rate, lead + number)[lead:])
    print(median(took) * 1e3, took[len(took) * 99 // 100] * 1e3)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
