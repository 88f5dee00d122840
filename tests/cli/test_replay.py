"""`rmv replay` sends recorded requests to a version as it would get them, and compares."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING

import msgspec
import pytest

from sidecar.model.shadow import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Rmv

ANSWER = b'{"score": 0.5, "id": 1}'
JSON = (("content-type", "application/json"),)


class Seen:
    """A model server, and the requests that it got."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []


@contextmanager
def serving(answer: Callable[[bytes], tuple[int, bytes]]) -> Iterator[Seen]:
    """Serve JSON over a real socket."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            seen.requests.append((self.command, self.path, headers, body))
            status, said = answer(body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen = Seen(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def recorded(number: int, **changed: object) -> Evidence:
    made = Evidence(
        at_s=1000.0 + number,
        model="m",
        version="v2",
        primary="v1",
        test="0123456789ab",
        request_id=f"r{number}",
        shadow_request_id=f"r{number}",
        tenant="acme",
        kind="json",
        fields=("/score",),
        differences=(),
        primary_status=200,
        shadow_status=200,
        primary_s=0.01,
        shadow_s=0.01,
        method="POST",
        target="/v2/models/m/infer?a=%2F",
        content_type="application/json",
        request_body=base64.b64encode(b'{"row": %d}' % number).decode(),
        primary_fields=JSON,
        primary_body=base64.b64encode(ANSWER).decode(),
        shadow_fields=JSON,
        shadow_body=base64.b64encode(b'{"score": 0.75, "id": 2}').decode(),
    )
    return msgspec.structs.replace(made, **changed)


def written(folder: Path, *pairs: Evidence) -> Path:
    file = folder / "pairs.jsonl"
    file.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in pairs))
    return file


def applied(rmv: Rmv, folder: Path, url: str, more: str = "") -> None:
    file = folder / "m.yaml"
    file.write_text(
        f"""
model: m
versions:
  v1: {{endpoints: ["http://127.0.0.1:9001"]}}
  v2: {{endpoints: ["http://127.0.0.1:9002"]}}
  v3:
    endpoints: ["{url}"]
    rewrite: {{path: "/v2/models/m/versions/3{{rest}}", headers: {{X-Mode: test}}}}
labels: {{next: v3}}
default: v1
shadows: [{{version: v2, methods: [POST], compare: {{ignore: [/id]}}}}]
{more}"""
    )
    assert rmv("apply", "-f", file).code == 0


def test_requests_are_sent_as_the_version_gets_them(store: Rmv, tmp_path: Path) -> None:
    with serving(lambda _: (200, b'{"score": 0.5, "id": 99}')) as seen:
        applied(store, tmp_path, seen.url)

        ran = store("replay", written(tmp_path, recorded(1), recorded(2)), "--against", "next")

    assert ran.code == 0, ran.err
    assert "2 answered as the client got it" in ran.out
    method, target, headers, body = seen.requests[0]
    assert (method, target, body) == (
        "POST",
        "/v2/models/m/versions/3/infer?a=%2F",
        b'{"row": 1}',
    )
    assert headers["x-shadow"] == "1"
    assert headers["x-mode"] == "test"
    assert headers["x-model-version"] == "v3"
    assert headers["x-request-id"] == "r1"
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers


def test_answers_that_differ_are_told_and_end_with_1(store: Rmv, tmp_path: Path) -> None:
    def answer(body: bytes) -> tuple[int, bytes]:
        return (200, b'{"score": 0.75, "id": 5}') if b"2" in body else (200, ANSWER)

    with serving(answer) as seen:
        applied(store, tmp_path, seen.url)
        file = written(tmp_path, recorded(1), recorded(2))
        ran = store("replay", file, "--against", "v3", "--rate", "1000")
        lines = store("replay", file, "--against", "v3", "--rate", "1000", "--json").out

    assert ran.code == 1
    assert "1 otherwise (1 of these as the shadow did then)" in ran.out
    told = [json.loads(line) for line in lines.splitlines()]
    assert [(one["request_id"], one["is_same"]) for one in told] == [("r1", True), ("r2", False)]
    assert told[1]["fields"] == ["/score"]
    assert told[1]["is_same_as_shadow"] is True


def test_what_cannot_be_sent_again_is_told_with_its_cause(store: Rmv, tmp_path: Path) -> None:
    with serving(lambda _: (200, ANSWER)) as seen:
        applied(store, tmp_path, seen.url)
        pairs = [recorded(1, is_masked=True), recorded(2, method="", target=""), recorded(3)]

        ran = store("replay", written(tmp_path, *pairs), "--against", "v3")

    assert ran.code == 1
    assert "1: its request was masked" in ran.out
    assert "1: its request was not recorded" in ran.out
    assert [headers["x-request-id"] for _, _, headers, _ in seen.requests] == ["r3"]


def test_a_version_that_is_not_there_is_a_failure_of_each(store: Rmv, tmp_path: Path) -> None:
    applied(store, tmp_path, "http://127.0.0.1:1")

    ran = store("replay", written(tmp_path, recorded(1)), "--against", "v3")

    assert ran.code == 1
    assert "1 not to be compared" in ran.out


def test_a_version_that_hangs_is_left_after_the_timeout(store: Rmv, tmp_path: Path) -> None:
    is_over = Event()

    def hang(_: bytes) -> tuple[int, bytes]:
        is_over.wait(30)
        return 200, ANSWER

    with serving(hang) as seen:
        applied(store, tmp_path, seen.url)
        file = written(tmp_path, recorded(1))
        ran = store("replay", file, "--against", "v3", "--timeout", "1s")
        is_over.set()

    assert "1: no whole answer in 1 s" in ran.out


def test_requests_are_sent_at_the_rate_that_is_asked_for(store: Rmv, tmp_path: Path) -> None:
    with serving(lambda _: (200, ANSWER)) as seen:
        applied(store, tmp_path, seen.url)
        file = written(tmp_path, *(recorded(number) for number in range(9)))
        began_s = monotonic()
        ran = store("replay", file, "--against", "v3", "--rate", "10", "--limit", "6")
        took_s = monotonic() - began_s

    assert ran.code == 0
    assert len(seen.requests) == 6
    assert took_s >= 0.5  # five pauses of a tenth


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing is recorded in it"),
        ("{\n", "pairs.jsonl:1: no recorded request"),
        ('{"model": "m"}\n', "pairs.jsonl:1: no recorded request"),
    ],
    ids=["empty", "no JSON", "no evidence"],
)
def test_a_file_that_holds_no_requests_is_refused(
    store: Rmv, tmp_path: Path, text: str, said: str
) -> None:
    applied(store, tmp_path, "http://127.0.0.1:1")
    file = tmp_path / "pairs.jsonl"
    file.write_text(text)

    ran = store("replay", file, "--against", "v3")

    assert ran.code == 2
    assert said in ran.err


def test_a_file_of_two_models_is_refused(store: Rmv, tmp_path: Path) -> None:
    applied(store, tmp_path, "http://127.0.0.1:1")

    ran = store("replay", written(tmp_path, recorded(1), recorded(2, model="n")), "--against", "v3")

    assert ran.code == 2
    assert "of several models: m, n" in ran.err


def test_an_endpoint_outside_of_the_allow_list_gets_nothing(
    store: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lambda _: (200, ANSWER)) as seen:
        applied(store, tmp_path, seen.url)
        settings = tmp_path / "rmv.toml"
        settings.write_text('[endpoints]\nallow = ["10.0.0.0/8"]\n')
        monkeypatch.setenv("RMV_CONFIG", str(settings))

        ran = store("replay", written(tmp_path, recorded(1)), "--against", "v3")

    assert ran.code == 2
    assert "endpoints.allow" in ran.err
    assert seen.requests == []


def test_a_name_that_leads_outside_of_the_allow_list_gets_nothing(
    store: Rmv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lambda _: (200, ANSWER)) as seen:
        applied(store, tmp_path, seen.url.replace("127.0.0.1", "localhost"))
        settings = tmp_path / "rmv.toml"
        settings.write_text('[endpoints]\nallow = ["localhost", "127.0.0.1/32", "10.0.0.0/8"]\n')
        monkeypatch.setenv("RMV_CONFIG", str(settings))
        file = written(tmp_path, recorded(1))
        inside = store("replay", file, "--against", "v3", "--json")
        settings.write_text('[endpoints]\nallow = ["localhost", "10.0.0.0/8"]\n')
        outside = store("replay", file, "--against", "v3", "--json")

    assert inside.code == 0, inside.out
    assert outside.code != 0
    assert "in none of the networks of the setting endpoints.allow" in outside.out
    assert len(seen.requests) == 1
