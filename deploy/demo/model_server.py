"""A model container for the demo: one process, one version, the Open Inference Protocol v2.

    python deploy/demo/model_server.py --model deploy/demo/models/v1.json \\
        --name tumor --version v1 --port 9001

It knows nothing of the sidecar, as real model containers do not. The models are read from plain
JSON (`train.py` writes it) and computed in plain Python, so there is nothing to install but aiohttp
and msgspec.

    GET  /v2  /v2/health/live  /v2/health/ready
    GET  /v2/models/{name}[/versions/{version}][/ready]
    POST /v2/models/{name}[/versions/{version}]/infer
    GET  /v2/models/{name}/events    server-sent events: rows scored so far
    GET  /ws                         a WebSocket that echoes

When it listens it prints one line, and ends on SIGTERM, SIGINT or the death of its parent:

    ready tumor v1 http://127.0.0.1:9001
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web
from msgspec import Meta, Struct

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

MAX_BODY_BYTES = 1024 * 1024  # some 5,000 rows of 30 measurements
PARENT_CHECK_S = 0.5
SHUTDOWN_S = 2.0  # for requests that run when the end comes
MALIGNANT_FROM = 0.5  # the probability from which the label is 1

Row = list[float]


# --- the models ------------------------------------------------------------------------------


class Term(Struct, frozen=True):
    """What one measurement adds to a logistic regression, once it is standardised."""

    column: int
    mean: float
    scale: float
    coefficient: float


class Branch(Struct, frozen=True):
    """A node of a tree; a plain number in its place is a leaf."""

    column: int
    threshold: float
    below: Branch | float
    above: Branch | float

    def leaf(self, row: Row) -> float:
        """Walk down to the leaf that `row` belongs to and return its value."""
        node: Branch | float = self
        while isinstance(node, Branch):
            node = node.below if row[node.column] <= node.threshold else node.above
        return node


class Logistic(Struct, frozen=True, tag_field="kind", tag="logistic"):
    """A logistic regression over standardised measurements."""

    inputs: list[str]
    intercept: float
    terms: list[Term]

    def score(self, row: Row) -> float:
        """Return the log-odds that `row` is malignant."""
        return self.intercept + sum(
            term.coefficient * (row[term.column] - term.mean) / term.scale for term in self.terms
        )


class BoostedTrees(Struct, frozen=True, tag_field="kind", tag="boosted-trees"):
    """Gradient-boosted regression trees whose sum is the log-odds."""

    inputs: list[str]
    intercept: float
    rate: float
    trees: list[Branch]

    def score(self, row: Row) -> float:
        """Return the log-odds that `row` is malignant."""
        return self.intercept + self.rate * sum(tree.leaf(row) for tree in self.trees)


Model = Logistic | BoostedTrees


def load(path: Path) -> Model:
    """Read a model file; raises OSError or msgspec.ValidationError."""
    model: Model = msgspec.json.decode(path.read_bytes(), type=Model)
    return model


def probability(model: Model, row: Row) -> float:
    """Return how likely `row` is malignant, 0 to 1."""
    score = model.score(row)
    if score >= 0:
        return 1 / (1 + math.exp(-score))
    odds = math.exp(score)  # never of a large positive number, which would overflow
    return odds / (1 + odds)


# --- the protocol ----------------------------------------------------------------------------

# Far beyond any measurement, and small enough that no score becomes infinite.
Value = Annotated[float, Meta(ge=-1e12, le=1e12)]


class InputTensor(Struct):
    """A tensor of a request; its data is flat or one list a row."""

    name: Literal["rows"]
    shape: Annotated[list[int], Meta(min_length=2, max_length=2)]
    datatype: Literal["FP32", "FP64"]
    data: list[Value | list[Value]]

    def rows(self, width: int) -> list[Row]:
        """Return the rows of `width` values; raises ValueError where shape and data disagree."""
        if self.shape[0] < 1 or self.shape[1] != width:
            raise ValueError(f"shape is {self.shape}, must be [n, {width}] with n of at least 1")
        nested = [item for item in self.data if isinstance(item, list)]
        flat = [item for item in self.data if not isinstance(item, list)]
        if nested and flat:
            raise ValueError("data mixes numbers and rows")
        rows = nested or [flat[at : at + width] for at in range(0, len(flat), width)]
        if len(rows) != self.shape[0] or any(len(row) != width for row in rows):
            raise ValueError(f"data does not fill shape {self.shape}")
        return rows


class OutputTensor(Struct):
    """A tensor of an answer, with one number a row."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float] | list[int]


class RequestedOutput(Struct):
    """An output that the client asks for by name."""

    name: Literal["probability", "label"]


class InferRequest(Struct):
    """The body of an inference request."""

    inputs: Annotated[list[InputTensor], Meta(min_length=1, max_length=1)]
    outputs: list[RequestedOutput] = []
    id: str | None = None


class InferAnswer(Struct, omit_defaults=True):
    """The body of an inference answer."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


# --- the server ------------------------------------------------------------------------------


def reply(body: object) -> web.Response:
    """Return 200 with `body` as JSON."""
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every refusal the protocol's error body: `{"error": "why"}`."""
    try:
        return await handler(request)
    except web.HTTPError as error:
        body = msgspec.json.encode({"error": error.text or error.reason})
        answer = web.Response(status=error.status, body=body, content_type="application/json")
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer


class ModelServer:
    """One version of one model behind HTTP."""

    def __init__(self, name: str, version: str, model: Model) -> None:
        self.name = name
        self.version = version
        self.model = model
        self.rows_scored = 0
        self.stopping = asyncio.Event()
        self.sockets: set[web.WebSocketResponse] = set()

    def application(self) -> web.Application:
        """Return the aiohttp application with every route."""
        app = web.Application(middlewares=[errors_as_json], client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/v2", self.about_server)
        app.router.add_get("/v2/health/live", self.live)
        app.router.add_get("/v2/health/ready", self.ready)
        for prefix in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            app.router.add_get(prefix, self.about_model)
            app.router.add_get(f"{prefix}/ready", self.model_ready)
            app.router.add_post(f"{prefix}/infer", self.infer)
            app.router.add_get(f"{prefix}/events", self.events)
        app.router.add_get("/ws", self.echo)
        app.on_shutdown.append(self.stop)
        return app

    async def about_server(self, _: web.Request) -> web.Response:
        """Server metadata."""
        return reply({"name": "rmv-demo-model", "version": self.version, "extensions": []})

    async def live(self, _: web.Request) -> web.Response:
        """Say that the process answers."""
        return reply({"live": True})

    async def ready(self, _: web.Request) -> web.Response:
        """Say that inference can be asked for: the model is loaded before the port opens."""
        return reply({"ready": True})

    async def about_model(self, request: web.Request) -> web.Response:
        """Model metadata: the tensors that go in and come out."""
        self._check_addressed(request)
        return reply(
            {
                "name": self.name,
                "versions": [self.version],
                "platform": "plain-python",
                "inputs": [
                    {"name": "rows", "datatype": "FP64", "shape": [-1, len(self.model.inputs)]}
                ],
                "outputs": [
                    {"name": "probability", "datatype": "FP64", "shape": [-1]},
                    {"name": "label", "datatype": "INT64", "shape": [-1]},
                ],
            }
        )

    async def model_ready(self, request: web.Request) -> web.Response:
        """Say that this model and version can be asked."""
        self._check_addressed(request)
        return reply({"name": self.name, "ready": True})

    async def infer(self, request: web.Request) -> web.Response:
        """Score every row of the request."""
        self._check_addressed(request)
        try:
            asked = msgspec.json.decode(await request.read(), type=InferRequest)
            rows = asked.inputs[0].rows(len(self.model.inputs))
        except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
            raise web.HTTPBadRequest(text=str(error)) from error
        probabilities = [probability(self.model, row) for row in rows]
        labels = [int(p >= MALIGNANT_FROM) for p in probabilities]
        self.rows_scored += len(rows)
        outputs = [
            OutputTensor("probability", "FP64", [len(rows)], probabilities),
            OutputTensor("label", "INT64", [len(rows)], labels),
        ]
        if asked.outputs:
            wanted = {output.name for output in asked.outputs}
            outputs = [output for output in outputs if output.name in wanted]
        return reply(InferAnswer(self.name, self.version, outputs, asked.id))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream `?count=` events (default 5), one every `?every_ms=` (default 200)."""
        self._check_addressed(request)
        count = _whole_number(request, "count", default=5, most=10_000)
        every_s = _whole_number(request, "every_ms", default=200, most=60_000) / 1000
        stream = web.StreamResponse(headers={"Cache-Control": "no-store"})
        stream.content_type = "text/event-stream"
        await stream.prepare(request)
        for number in range(count):
            if number and await _happens(self.stopping, within_s=every_s):
                break
            data = {"model": self.name, "version": self.version, "rows_scored": self.rows_scored}
            text = msgspec.json.encode(data).decode()
            await stream.write(f"id: {number}\nevent: scored\ndata: {text}\n\n".encode())
        return stream

    async def echo(self, request: web.Request) -> web.WebSocketResponse:
        """Send every WebSocket message back as it came."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.add(socket)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await socket.send_str(message.data)
                elif message.type is WSMsgType.BINARY:
                    await socket.send_bytes(message.data)
        finally:
            self.sockets.discard(socket)
        return socket

    async def stop(self, _: web.Application) -> None:
        """End what would otherwise outlast the server: event streams and WebSockets."""
        self.stopping.set()
        for socket in list(self.sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY)

    def _check_addressed(self, request: web.Request) -> None:
        """Refuse with 404 a path that names another model or version than this container's."""
        name = request.match_info["name"]
        version = request.match_info.get("version", self.version)
        if (name, version) != (self.name, self.version):
            raise web.HTTPNotFound(
                text=f"no {name} {version} here: this container serves {self.name} {self.version}"
            )


def _whole_number(request: web.Request, name: str, *, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) > most:
        raise web.HTTPBadRequest(text=f"{name} must be a whole number of at most {most}")
    return int(text)


async def _happens(event: asyncio.Event, *, within_s: float) -> bool:
    """Wait for `event` at most so long; say whether it came."""
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False


# --- the process -----------------------------------------------------------------------------


async def serve(server: ModelServer, *, host: str, port: int | None, unix: str | None) -> None:
    """Listen, print the ready line, and return once the process is told to end or is orphaned."""
    parent = os.getppid()
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        addresses = []
        if port is not None:
            await web.TCPSite(runner, host, port).start()
            bound = runner.addresses[0][1]  # what port 0 became
            addresses.append(f"http://{f'[{host}]' if ':' in host else host}:{bound}")
        if unix is not None:
            await web.UnixSite(runner, unix).start()
            addresses.append(f"unix:{unix}")
        print("ready", server.name, server.version, *addresses, flush=True)
        while os.getppid() == parent:
            if await _happens(told, within_s=PARENT_CHECK_S):
                break
    finally:
        await runner.cleanup()


def main() -> None:
    """Parse the flags, load the model, serve."""
    parser = argparse.ArgumentParser(description="One model version behind HTTP.")
    parser.add_argument("--model", type=Path, required=True, help="a JSON file of train.py")
    parser.add_argument("--name", default="tumor", help="what clients call the model")
    parser.add_argument("--version", required=True, help="what this version is called")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="0 takes a free one; the ready line tells it")
    parser.add_argument("--unix", metavar="PATH", help="listen on a Unix socket, too or instead")
    flags = parser.parse_args()
    if flags.port is None and flags.unix is None:
        parser.error("one of --port and --unix is needed")
    try:
        model = load(flags.model)
    except (OSError, msgspec.ValidationError) as error:
        parser.error(f"cannot use {flags.model}: {error}")
    server = ModelServer(flags.name, flags.version, model)
    asyncio.run(serve(server, host=flags.host, port=flags.port, unix=flags.unix))


if __name__ == "__main__":
    main()
