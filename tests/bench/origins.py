"""The origins: nginx that reads each body whole, names its version and counts requests."""

import time
import urllib.request

from tests.bench.addresses import HOST, ORIGIN_PORTS
from tests.bench.fixtures import BODY_SIZES, WORK
from tests.bench.items import MODEL
from tests.bench.peers.nginx import complete_file
from tests.bench.processes import Pinned, require_free
from tests.bench.programs import find

STATUS = "/bench-status"
ANSWER_BYTES = 200
START_S = 0.5
QUIET_S = 0.3
SHORT_LOG = WORK / "logs" / "short-bodies.log"


class Origins:
    """Two nginx processes on the load CPU: one for v1 and v2, one for the mirrored copies."""

    def __init__(self, cpu: int) -> None:
        require_free(*ORIGIN_PORTS.values())
        self.processes = []
        for name, versions in (("primary", ("v1", "v2")), ("shadow", ("shadow",))):
            config = WORK / "conf" / f"origin-{name}.conf"
            config.write_text(
                complete_file(f"origin-{name}", MAPS + "".join(map(server, versions)))
            )
            log = WORK / "logs" / f"origin-{name}.log"
            self.processes.append(Pinned([find("nginx"), "-c", str(config)], cpu, log))
        self.marks: dict[str, int] = {}
        time.sleep(START_S)
        if dead := [process for process in self.processes if process.process.poll() is not None]:
            raise SystemExit(f"an origin does not start: {dead[0].last_words()}")

    def cpu_s(self) -> float:
        return sum(process.cpu_s() for process in self.processes)

    def mark(self) -> None:
        """Count from here, once copies of earlier requests have arrived."""
        time.sleep(QUIET_S)
        self.marks = {version: requests_so_far(version) for version in ("v1", "shadow")}
        SHORT_LOG.write_bytes(b"")

    def counts(self, may_differ_by: int, settle_s: float) -> tuple[int, int]:
        """Requests since the mark at v1 + v2, and at shadow, read until they agree.

        After `settle_s` they are returned as they are.
        """
        deadline = time.monotonic() + settle_s
        polls = 0
        while True:
            polls += 1  # each reading is itself a request
            sent, mirrored = (
                requests_so_far(version) - mark - polls for version, mark in self.marks.items()
            )
            if abs(sent - mirrored) <= may_differ_by or time.monotonic() > deadline:
                return sent, mirrored
            time.sleep(0.05)

    def short_bodies(self) -> int:
        """Copies since the mark that did not carry the 1 KiB which was sent."""
        return len(SHORT_LOG.read_bytes().splitlines())


def requests_so_far(version: str) -> int:
    url = f"http://{HOST}:{ORIGIN_PORTS[version]}{STATUS}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        # stub_status says "... server accepts handled requests" and, under it, the numbers.
        return int(answer.read().split()[9])


MAPS = f"""
  client_body_in_single_buffer on;
  map $request_body $short {{ "~(?s)^.{{{BODY_SIZES["1k"]}}}$" 0; default 1; }}
"""


def server(version: str) -> str:
    """One version. `mirror` to a no-op makes nginx read the body; `return` alone would not."""
    start = f'{{"model":"m","version":"{version}","predictions":[0.1,0.2,0.3,0.4],"pad":"'
    answer = start.ljust(ANSWER_BYTES - 2, "x") + '"}'
    # empty_gif refuses a POST with 405.
    read_body = "mirror /read-body; empty_gif; error_page 405 =200"
    large = f"client_body_buffer_size {2 * BODY_SIZES['4m']};"
    log = f"access_log {SHORT_LOG} combined if=$short;" if version == "shadow" else ""
    return f"""
  server {{
    listen {HOST}:{ORIGIN_PORTS[version]} backlog=4096;
    default_type application/json;
    location / {{ return 200 '{answer}'; }}
    location = {STATUS} {{ stub_status; }}
    location = {MODEL}:body-64k {{ alias {WORK}/bodies/64k; }}
    location = {MODEL}:body-4m {{ alias {WORK}/bodies/4m; }}
    location = {MODEL}:predict {{ {read_body} @answer; }}
    location = {MODEL}:upload {{ {large} {read_body} @answer; }}
    location = {MODEL}:echo {{ {large} {read_body} @echo; }}
    location = /read-body {{ internal; return 204; }}
    location @answer {{ {log} return 200 '{answer}'; }}
    location @echo {{ return 200 $request_body; }}
  }}
"""
