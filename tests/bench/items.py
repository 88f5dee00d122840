"""The work items: which request, over how many connections, and what the proxy must do with it."""

from dataclasses import dataclass
from typing import Literal

from tests.bench.fixtures import BODY_SIZES, WORK, Tokens

Job = Literal["plain", "full", "mirror", "fresh"]
MODEL = "/v1/models/m"
PREDICT, UPLOAD = f"{MODEL}:predict", f"{MODEL}:upload"


@dataclass(frozen=True)
class Item:
    """One kind of load. The subject gets the name's first letter as BENCH_ITEM."""

    name: str
    job: Job  # the subject's BENCH_JOB
    method: str
    path: str
    body: str = ""  # a file of WORK/bodies
    connections: int = 32
    payload_bytes: int = 0  # moved by one request, for MB/s

    def body_bytes(self) -> bytes:
        return (WORK / "bodies" / self.body).read_bytes() if self.body else b""


def transfer(name: str, body: str, connections: int = 32) -> Item:
    """Item e: a body of this size, down (GET) or up (POST)."""
    size = BODY_SIZES[body]
    if name.endswith("down"):
        path = f"{MODEL}:body-{body}"
        return Item(name, "plain", "GET", path, connections=connections, payload_bytes=size)
    return Item(name, "plain", "POST", UPLOAD, body, connections, payload_bytes=size)


ITEMS = (
    Item("a", "plain", "GET", MODEL),
    Item("b", "plain", "POST", PREDICT, "1k"),
    Item("c", "full", "POST", PREDICT, "1k"),
    Item("d", "mirror", "POST", PREDICT, "1k"),
    transfer("e-64k-down", "64k"),
    transfer("e-4m-down", "4m", connections=8),
    transfer("e-64k-up", "64k"),
    transfer("e-4m-up", "4m", connections=8),
    Item("f-plain", "plain", "POST", PREDICT, "1k", connections=1),
    Item("f-full", "full", "POST", PREDICT, "1k", connections=1),
    Item("g", "fresh", "POST", PREDICT, "1k"),
)


def chosen(names: str) -> list[Item]:
    """The items of a comma-separated list of names or first letters, in the order of ITEMS."""
    wanted = set(names.split(","))
    known = {item.name for item in ITEMS} | {item.name[0] for item in ITEMS}
    if unknown := wanted - known:
        raise SystemExit(f"no such item: {', '.join(sorted(unknown))}")
    return [item for item in ITEMS if wanted & {item.name, item.name[0]}]


def headers(item: Item, tenant: str, tokens: Tokens, *, is_peer: bool) -> dict[str, str]:
    """What one request carries. Only peers get x-tenant: the subject must read the claim."""
    sent = {"Content-Type": "application/json"} if item.body else {}
    if item.job != "plain":
        sent["Authorization"] = f"Bearer {tokens.good[tenant]}"
        if is_peer:
            sent["X-Tenant"] = tenant
    return sent
