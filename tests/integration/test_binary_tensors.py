"""Triton's binary tensors pass byte for byte; MLServer's REST side does not speak them."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tests.integration.processes import HOST
from tests.integration.sidecar import Sidecar, sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

numpy = pytest.importorskip("numpy", reason="tritonclient[http] is not installed")
triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")

LENGTH = "Inference-Header-Content-Length"


class Mirror(BaseHTTPRequestHandler):
    """A model that returns its input: a JSON head, then the tensor's bytes, split by LENGTH."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(b"{}", b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        split = int(self.headers[LENGTH])
        given = json.loads(body[:split])["inputs"][0]
        head = {"model_name": "mirror", "outputs": [given | {"name": "same"}]}
        self._answer(json.dumps(head).encode(), body[split:])

    def _answer(self, head: bytes, tensor: bytes) -> None:
        self.send_response(200)
        self.send_header(LENGTH, str(len(head)))
        self.send_header("Content-Length", str(len(head) + len(tensor)))
        self.end_headers()
        self.wfile.write(head + tensor)

    def log_message(self, *_: object) -> None:
        """Say nothing: the test speaks."""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with ThreadingHTTPServer((HOST, 0), Mirror) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        endpoint = f"http://{HOST}:{server.server_port}"
        policy = {"model": "mirror", "versions": {"v1": {"endpoints": [endpoint]}}, "default": "v1"}
        folder = tmp_path_factory.mktemp("sidecar")
        try:
            with sidecar(folder, policy, "/v2/models/mirror/ready") as proxy:
                yield proxy
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("rows", [1, 4_096])
def test_binary_tensors_come_back_byte_for_byte(mirror: Sidecar, rows: int) -> None:
    random = numpy.random.default_rng(7)
    sent = random.integers(0, 256, (rows, 64), numpy.uint8)  # every byte value, CR and LF too
    tensor = triton.InferInput("given", list(sent.shape), "UINT8")
    tensor.set_data_from_numpy(sent, binary_data=True)

    with triton.InferenceServerClient(mirror.address) as client:
        result = client.infer("mirror", [tensor])

    given = result.get_output("same")
    assert given["parameters"]["binary_data_size"] == sent.size
    assert numpy.array_equal(result.as_numpy("same"), sent)
