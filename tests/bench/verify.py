"""Is the job really done? Asked with real requests, before anything is timed."""

import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.bench.addresses import HOST, PROXY_PORT
from tests.bench.fixtures import SPLIT_TENANT, SPLIT_WEIGHTS, TENANTS, WORK, Tokens
from tests.bench.items import MODEL, Item, headers
from tests.bench.origins import Origins

CLIENTS = 16  # at once, so that an answer given to the wrong connection shows
ASKED_PER_PIN = 40
ASKED_OF_SPLIT = 800
SPLIT_TOLERANCE = 0.05  # over four standard deviations of 800 draws at 90 %
SETTLE_S = 2.0

Answers = dict[str, tuple[Counter[int], Counter[str]]]  # tenant -> statuses, versions


@dataclass
class Verification:
    """The checks of one item on one proxy.

    A peer routes by x-tenant; the subject must read the claim. `local` holds one keep-alive
    connection for each thread.
    """

    item: Item
    tokens: Tokens
    origins: Origins
    is_peer: bool
    checks_token: bool
    local: threading.local = field(default_factory=threading.local)

    def ask(
        self, sent: dict[str, str], path: str = "", body: bytes | None = None
    ) -> tuple[int, bytes]:
        """Status and body of the answer; OSError or HTTPException if there is none."""
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection(HOST, PROXY_PORT, timeout=5)
        connection: http.client.HTTPConnection = self.local.connection
        method = "POST" if body else self.item.method
        payload = body or self.item.body_bytes() or None
        try:
            connection.request(method, path or self.item.path, payload, sent)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise

    def ask_as(self, tenant: str) -> tuple[int, bytes]:
        return self.ask(headers(self.item, tenant, self.tokens, is_peer=self.is_peer))

    def is_ready(self) -> bool:
        """Whether a real request of this item gets its 200."""
        try:
            return self.ask_as("t2")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def problems(self) -> list[str]:
        """Everything that is not as it should be; empty if the job is done."""
        try:
            return list(self.plain() if self.item.job == "plain" else self.full())
        except (OSError, http.client.HTTPException) as error:
            return [f"no answer: {error!r}"]

    def plain(self) -> Iterator[str]:
        status, answer = self.ask({})
        if ":body-" in self.item.path:
            body = WORK / "bodies" / self.item.path.rpartition("-")[2]
            if answer != body.read_bytes():
                yield f"{self.item.path}: {status}, {len(answer)} bytes, not the origin's"
        elif version(answer) != "v1":
            yield f"{self.item.path}: {status} from {version(answer)}, not v1"
        yield from self.echo({})

    def full(self) -> Iterator[str]:
        """Forgeries come after good tokens, so that a cache which trusts too much shows."""
        self.origins.mark()
        answers = self.ask_all_tenants()
        yield from wrongly_served(answers)
        yield from self.refusals()
        yield from self.echo(headers(self.item, "t2", self.tokens, is_peer=self.is_peer))
        served = sum(statuses[200] for statuses, _ in answers.values()) + 1
        if not self.is_peer:
            served += 1
            yield from self.lying_tenant()
        yield from self.deliveries(served)

    def lying_tenant(self) -> Iterator[str]:
        sent = headers(self.item, "t2", self.tokens, is_peer=False)
        status, answer = self.ask({**sent, "X-Tenant": "t3"})
        if version(answer) != TENANTS["t2"]:
            yield f"an x-tenant header moved t2 to {version(answer)} ({status}), not its claim"

    def ask_all_tenants(self) -> Answers:
        """Many requests of every tenant, shuffled over CLIENTS connections."""
        work = list(TENANTS) * ASKED_PER_PIN + [SPLIT_TENANT] * ASKED_OF_SPLIT
        random.shuffle(work)
        seen: Answers = {tenant: (Counter(), Counter()) for tenant in TENANTS}
        with ThreadPoolExecutor(CLIENTS) as clients:
            for tenant, (status, answer) in zip(work, clients.map(self.ask_as, work), strict=True):
                seen[tenant][0][status] += 1
                seen[tenant][1][version(answer)] += 1
        return seen

    def refusals(self) -> Iterator[str]:
        wrong = {"a token without access": (self.tokens.unentitled, "stranger", {401, 403, 404})}
        if self.checks_token:
            wrong |= {name: (token, "t2", {401}) for name, token in self.tokens.forged.items()}
            wrong["another audience"] = self.tokens.misdirected, "t2", {401, 403}
            wrong["no token"] = "", "t2", {401}
        for name, (token, tenant, allowed) in wrong.items():
            sent = {"Authorization": f"Bearer {token}"} if token else {}
            status, _ = self.ask(sent | ({"X-Tenant": tenant} if self.is_peer else {}))
            if status not in allowed:
                yield f"{name}: got {status}"

    def echo(self, sent: dict[str, str]) -> Iterator[str]:
        """A body must arrive and come back byte for byte."""
        body = self.item.body_bytes() or (WORK / "bodies" / "1k").read_bytes()
        status, answer = self.ask(sent, f"{MODEL}:echo", body)
        if answer != body:
            yield f"{MODEL}:echo: {status}, {len(answer)} bytes, not the {len(body)} sent"

    def deliveries(self, served: int) -> Iterator[str]:
        """At the origins: each served request once, its copy if mirrored, nothing refused."""
        wanted = served if self.item.job == "mirror" else 0
        sent, mirrored = self.origins.counts(may_differ_by=served - wanted, settle_s=SETTLE_S)
        if (sent, mirrored) != (served, wanted):
            yield f"{served} served, but {sent} reached v1 and v2"
            yield f"{wanted} copies wanted, but {mirrored} arrived"
        if self.origins.short_bodies():
            yield f"{self.origins.short_bodies()} copies without their body"


def wrongly_served(answers: Answers) -> Iterator[str]:
    """Each pin by its own version alone, the split by its weights."""
    for tenant, (statuses, versions) in answers.items():
        if set(statuses) != {200}:
            yield f"{tenant}: statuses {dict(statuses)}"
        elif tenant != SPLIT_TENANT and set(versions) != {TENANTS[tenant]}:
            yield f"{tenant}: served by {dict(versions)}, pinned to {TENANTS[tenant]}"
    versions = answers[SPLIT_TENANT][1]
    share = versions["v1"] / versions.total()
    if abs(share - SPLIT_WEIGHTS["v1"] / 100) > SPLIT_TOLERANCE:
        yield f"{SPLIT_TENANT}: split {dict(versions)}, asked for {SPLIT_WEIGHTS}"


def version(answer: bytes) -> str:
    """The version that answered, by its own word."""
    try:
        return str(json.loads(answer)["version"])
    except (ValueError, KeyError, TypeError):
        return "nobody"
