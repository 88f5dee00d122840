"""A server that speaks as MLflow does, and says what it is told: a real socket, in a thread."""

from __future__ import annotations

import json
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHA = f"sha256:{'a' * 64}"
COMMIT = "8" * 40
MLMODEL = """\
signature:
  inputs: '[{"type": "double", "name": "income", "required": true}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]'
  params: null
utc_time_created: '2026-11-23 13:00:00'
"""


class Asked(NamedTuple):
    """One request as the server saw it."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


class Mlflow:
    """What the server says: `answers` by path, each a status, headers and a body."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}

    def says(self, path: str, body: object, status: int = 200, **headers: str) -> None:
        """Answer requests of `path` so; a body that is no bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[path] = status, headers, raw

    def has_version(self, number: str = "3", **more: object) -> None:
        """Have a version of the model `credit`, asked for by number or alias, and its run."""
        version = {
            "name": "credit",
            "version": number,
            "creation_timestamp": 1763902800123,
            "run_id": "r1",
            "user_id": "",
            "tags": [],
        }
        self.says("/api/2.0/mlflow/model-versions/get", {"model_version": version | more})
        self.says("/api/2.0/mlflow/registered-models/alias", {"model_version": version | more})
        self.says("/api/2.0/mlflow/runs/get", {"run": RUN})
        self.says("/model-versions/get-artifact", MLMODEL.encode())

    def has_aliases(self, **aliases: str) -> None:
        """Have these aliases of the model `credit`."""
        listed = [{"alias": alias, "version": number} for alias, number in aliases.items()]
        model = {"name": "credit", "aliases": listed}
        self.says("/api/2.0/mlflow/registered-models/get", {"registered_model": model})


RUN = {
    "info": {"run_id": "r1"},
    "data": {
        "metrics": [{"key": "auc", "value": 0.9, "timestamp": 1, "step": 0}],
        "params": [{"key": "solver", "value": "lbfgs"}, {"key": "C", "value": "1.0"}],
        "tags": [
            {"key": "mlflow.source.git.commit", "value": COMMIT},
            {"key": "mlflow.user", "value": "ada"},
        ],
    },
    "inputs": {
        "dataset_inputs": [
            {
                "tags": [{"key": "mlflow.data.context", "value": "training"}],
                "dataset": {"name": "loans", "digest": "1a2b3c4d", "source_type": "local"},
            },
            {
                "tags": [{"key": "mlflow.data.context", "value": "eval"}],
                "dataset": {"name": "holdout", "digest": "5e6f"},
            },
        ]
    },
}
"""A run as MLflow 3 tells it, shortened."""


@contextmanager
def running_mlflow(certificate: tuple[Path, Path] | None = None) -> Iterator[Mlflow]:
    """Run the server on a free port; it knows nothing until it is told.

    With a certificate and its key, both PEM, it speaks TLS.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            told.asked.append(Asked(parts.path, query, dict(self.headers.items())))
            status, headers, body = told.answers.get(parts.path, UNKNOWN)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library's
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        scheme = "http"
        if certificate is not None:
            scheme, tls = "https", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(*certificate)
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        told = Mlflow(f"{scheme}://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


UNKNOWN = (
    404,
    {"Content-Type": "application/json"},
    b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Registered Model not found"}',
)
