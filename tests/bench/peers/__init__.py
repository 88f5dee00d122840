"""The proxies to compare with."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench.items import Job
from tests.bench.peers import envoy, haproxy, nginx, traefik
from tests.bench.programs import SkipError

VERSION_TIMEOUT_S = 20


@dataclass(frozen=True)
class Peer:
    """A proxy to compare with. `configure(job)` writes its files and returns its command line."""

    configure: Callable[[Job], list[str]]
    full_job: str  # what stands behind "full job" for this proxy
    version_flag: str
    checks_token: bool = False
    env: dict[str, str] = field(default_factory=dict)
    fresh_job: str = ""  # the same where no token comes twice; empty: the same

    def note(self, job: Job) -> str:
        """What this proxy does of a job."""
        if job == "plain":
            return ""
        return (self.fresh_job if job == "fresh" else "") or self.full_job

    def version(self) -> str:
        try:
            command = [self.configure("plain")[0], self.version_flag]
            shown = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=VERSION_TIMEOUT_S
            )
        except (SkipError, OSError, subprocess.TimeoutExpired):
            return "(missing)"
        numbers = re.search(r"\d+\.\d+\.\d+", shown.stdout + shown.stderr)
        return numbers[0] if numbers else "(unknown)"


UNCHECKED = "routes by header, no token check"
PEERS = {
    "envoy": Peer(
        envoy.configure,
        "jwt_authn + RBAC + weighted clusters",
        "--version",
        checks_token=True,
        fresh_job="jwt_authn without its cache + RBAC + weighted clusters",
    ),
    "haproxy": Peer(haproxy.configure, "jwt_verify + map", "-v", checks_token=True),
    "nginx": Peer(nginx.configure, UNCHECKED, "-v"),
    "traefik": Peer(traefik.configure, UNCHECKED, "version", env={"GOMAXPROCS": "1"}),
}
