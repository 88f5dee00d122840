"""What a caller of the demo does: one inference, with a token, over the real listener."""

from __future__ import annotations

from time import perf_counter
from typing import TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from sidecar.cli.demo.checkout import MODEL
from sidecar.cli.demo.failure import DemoError

PATH = f"/v2/models/{MODEL}/infer"
OK = 200
TIMEOUT_S = 15.0

T = TypeVar("T", bound=Struct)


class Output(Struct, frozen=True):
    """One tensor of an answer."""

    name: str
    data: tuple[float, ...]


class Inference(Struct, frozen=True):
    """The body of an answer (Open Inference Protocol v2)."""

    model_name: str
    model_version: str
    outputs: tuple[Output, ...]


class Problem(Struct, frozen=True):
    """The body of a refusal (RFC 9457)."""

    code: str
    detail: str


class Answer(Struct, frozen=True):
    """One response; `took_s` is from before the request to the last byte of the body."""

    status: int
    version: str
    reason: str
    body: bytes
    took_s: float

    @property
    def decision(self) -> tuple[str, str]:
        """The version that answered, and why."""
        return self.version, self.reason

    def inference(self) -> Inference:
        """Return the body of an answer of status 200; DemoError when it is none."""
        return self._read(Inference)

    def problem(self) -> Problem:
        """Return the body of a refusal; DemoError when it is none."""
        return self._read(Problem)

    def _read(self, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(self.body, type=kind)
        except msgspec.DecodeError as error:
            msg = f"an answer of status {self.status} cannot be read: {error}"
            raise DemoError(msg) from error


class Client:
    """Sends requests and counts those that were served."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """Use a session whose base is the sidecar's address."""
        self._session = session
        self.served = 0

    async def infer(self, token: str, body: bytes, *, version: str = "") -> Answer:
        """Send one request, asking for `version` when given; DemoError when nobody answers."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if version:
            headers["X-Model-Version"] = version
        began_s = perf_counter()
        try:
            async with self._session.post(PATH, data=body, headers=headers) as response:
                said = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            msg = f"the sidecar did not answer: {str(error) or type(error).__name__}"
            raise DemoError(msg) from error
        took_s = perf_counter() - began_s
        self.served += response.status == OK
        version = response.headers.get("X-Model-Version", "")
        reason = response.headers.get("X-Model-Decision", "")
        return Answer(response.status, version, reason, said, took_s)


def request_body(row: tuple[float, ...]) -> bytes:
    """Return an inference request of one row."""
    tensor = {"name": "rows", "shape": [1, len(row)], "datatype": "FP64", "data": row}
    return msgspec.json.encode({"inputs": [tensor]})
