"""wrk, the load: the script that it runs, and what it printed."""

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.addresses import HOST, PROXY_PORT
from tests.bench.fixtures import TENANTS, TIMED, WARMING, WORK, Tokens, fresh_tokens
from tests.bench.items import Item, Job, headers
from tests.bench.processes import Pinned
from tests.bench.programs import find

GRACE_S = 15.0
MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}

ONE_REQUEST = """\
wrk.method, wrk.path, wrk.body, wrk.headers = "{method}", "{path}", {body}, {headers}
"""
REQUESTS_IN_TURN = """\
local body, requests, turn = {body}, {{}}, 0
function init()
  for i, headers in ipairs({{
    {headers}
  }}) do
    requests[i] = wrk.format("{method}", "{path}", headers, body)
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
"""
# Put together at each request: so many whole requests would fill memory, and wrk.format takes long.
FRESH_REQUESTS = """\
local body, before, after, tokens, turn = {body}, {{}}, {{}}, {{}}, 0
local first, number
function init(args)
  first, number = tonumber(args[1]), tonumber(args[2])
  for i, headers in ipairs({{
    {headers}
  }}) do
    local whole = wrk.format("{method}", "{path}", headers, body)
    local at, last = whole:find("{mark}", 1, true)
    before[i], after[i] = whole:sub(1, at - 1), whole:sub(last + 1)
  end
  for token in io.lines("{tokens}") do tokens[#tokens + 1] = token end
end
function request()
  local tenant, token = turn % #before + 1, first + turn % number + 1
  turn = turn + 1
  return before[tenant] .. tokens[token] .. after[tenant]
end
"""
MARK = "@token@"
FILLING_S = 2  # in which the fresh tokens of a warm-up fill the memory of any proxy that has one


def write_script(item: Item, tokens: Tokens, *, is_peer: bool) -> Path:
    """Write the Lua that sends this item: one request again and again, or all tenants in turn."""
    tables = []
    if item.job == "fresh":
        tokens = replace(tokens, good=dict.fromkeys(TENANTS, MARK))
    for tenant in ["t2"] if item.job == "plain" else tokens.good:
        sent = headers(item, tenant, tokens, is_peer=is_peer)
        fields = ", ".join(f'["{name}"] = "{value}"' for name, value in sent.items())
        tables.append(f"{{{fields}}}")
    body = f'io.open("{WORK}/bodies/{item.body}", "rb"):read("*a")' if item.body else "nil"
    script = WORK / "wrk" / f"{item.name}-{'peer' if is_peer else 'subject'}.lua"
    text = TEMPLATES.get(item.job, REQUESTS_IN_TURN).format(
        method=item.method,
        path=item.path,
        body=body,
        headers=",\n    ".join(tables),
        mark=MARK,
        tokens=fresh_tokens() if item.job == "fresh" else "",
    )
    script.write_text(text)
    return script


TEMPLATES: dict[Job, str] = {"plain": ONE_REQUEST, "fresh": FRESH_REQUESTS}


def warm_up(item: Item, script: Path, *, cpu: int, seconds: int) -> None:
    """Load the proxy before it is timed, with other fresh tokens and for as long as they take."""
    least_s = FILLING_S if item.job == "fresh" else 0
    run(item, script, cpu=cpu, seconds=max(seconds, least_s), fresh=WARMING)


def run(item: Item, script: Path, *, cpu: int, seconds: int, fresh: range = TIMED) -> str:
    """Load the proxy for so long, with these fresh tokens in turn; returns what wrk prints."""
    options = ["-t1", f"-c{item.connections}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    url = f"http://{HOST}:{PROXY_PORT}{item.path}"
    command = [find("wrk"), *options, "-s", str(script), url]
    command += [str(fresh.start), str(len(fresh))]
    wrk = Pinned(command, cpu, WORK / "logs" / "wrk.log")
    try:
        wrk.process.wait(seconds + GRACE_S)
    except subprocess.TimeoutExpired:
        wrk.log.write_text("it did not end in time")
    wrk.stop()
    return wrk.log.read_text()


@dataclass(frozen=True)
class Figures:
    """What wrk saw. Any fault makes the rest worthless."""

    requests: int
    rps: float
    p50_ms: float
    p99_ms: float
    faults: list[str]

    @classmethod
    def read(cls, text: str) -> "Figures":
        """Read wrk's own report; a text without requests is a fault."""
        requests = int(number(r"(\d+) requests in", text))
        faults = re.findall(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", text)
        if not requests:
            faults.append(f"wrk: {' '.join(text.split())[-200:]}")
        rps = number(r"Requests/sec:\s+([\d.]+)", text)
        return cls(requests, rps, percentile_ms(50, text), percentile_ms(99, text), faults)


def number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    return float(match[1]) if match else 0.0


def percentile_ms(percentile: int, text: str) -> float:
    match = re.search(rf"\n\s+{percentile}%\s+([\d.]+)(us|ms|s|m)\n", text)
    return float(match[1]) * MILLISECONDS[match[2]] if match else 0.0
