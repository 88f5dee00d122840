"""Become the sidecar, all features on, for the work item that the environment names.

Reads BENCH_JOB, BENCH_WORK, UPSTREAM_V1, UPSTREAM_V2, UPSTREAM_SHADOW and the files of BENCH_WORK;
knows nothing of the loader. BENCH_AUDIT (denials, decisions) turns audit on: into files, with
checkpoints. BENCH_COMPARE has answers of shadows compared. Writes what it makes to
BENCH_WORK/subject.
"""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.policy import codec
from sidecar.store.connect import open_store
from sidecar.store.embedded import EmbeddedServer

MODEL = "m"
PREFIX = "rmv"
LISTEN = "127.0.0.1:8000"

Arms = dict[str, int]
Tenants = dict[str, str | Arms]  # tenant -> its version, or the weights of its split
JSON = dict[str, "JSON"] | list["JSON"] | str | int | float


def main() -> None:
    job, work = os.environ["BENCH_JOB"], Path(os.environ["BENCH_WORK"]).absolute()
    folder = work / "subject"
    shutil.rmtree(folder, ignore_errors=True)  # each round starts afresh
    state = folder / "state"
    state.mkdir(parents=True, mode=0o700)
    (work / "logs").mkdir(exist_ok=True)
    tenants: Tenants = {} if job == "plain" else json.loads((work / "tenants.json").read_text())
    document = json.dumps(policy(job, tenants), indent=1)
    (folder / "policy.json").write_text(document)
    settings = folder / "rmv.toml"
    settings.write_text(config(job, work, folder))
    asyncio.run(seed(document.encode(), tenants, str(state)))
    program = str(Path(sys.executable).with_name("rmv"))
    # A setting from the caller's environment would override the file.
    env = {name: value for name, value in os.environ.items() if not name.startswith("RMV_")}
    os.execve(program, [program, "serve", "--config", str(settings)], env)


def policy(job: str, tenants: Tenants) -> JSON:
    """The document: `plain` sends all to v1; else tenants have access, pins and one split."""
    audited: dict[str, JSON] = {"audit": os.environ.get("BENCH_AUDIT", "denials")}
    if job == "plain":
        return {"model": MODEL, "versions": {"v1": version("v1")}, "default": "v1", **audited}
    versions: dict[str, JSON] = {
        name: version(name, allow=[{"tenant": allowed(name, tenants)}]) for name in ("v1", "v2")
    }
    document: dict[str, JSON] = {
        "model": MODEL,
        "versions": versions,
        "rules": [split(tenant, to) for tenant, to in tenants.items() if isinstance(to, dict)],
        "default": "v1",
        **audited,
    }
    if job == "mirror":
        # Nobody can ask for it; it only gets copies.
        versions["shadow"] = version("shadow", deny=[{"tenant": {"exists": True}}])
        compared: JSON = {"compare": {}} if "BENCH_COMPARE" in os.environ else {}
        document["shadows"] = [{"version": "shadow", "methods": ["POST"], **compared}]
    return document


def version(name: str, **access: JSON) -> JSON:
    """A version at the address that the environment gives it."""
    return {"endpoints": [f"http://{os.environ[f'UPSTREAM_{name.upper()}']}"], **access}


def allowed(version: str, tenants: Tenants) -> JSON:
    """The tenants that may use a version: those pinned to it, and those whose split has it."""
    arms = {tenant: [to] if isinstance(to, str) else to for tenant, to in tenants.items()}
    return [tenant for tenant, versions in arms.items() if version in versions]


def split(tenant: str, arms: Arms) -> JSON:
    """A split that is drawn anew for each request."""
    weights: dict[str, JSON] = {**arms}
    chosen: JSON = {"arms": weights, "key": "request"}
    return {"id": f"split-{tenant}", "when": {"tenant": tenant}, "split": chosen}


def config(job: str, work: Path, folder: Path) -> str:
    """The settings, as TOML; whatever is not named has the default that everybody gets."""
    log = work / "logs" / "exchanges.jsonl"
    log.unlink(missing_ok=True)
    settings = {
        "listen": LISTEN,
        "admin": os.environ.get("BENCH_ADMIN", "127.0.0.1:0"),
        "workers": 1,
        "redis": "embedded",
        "state_dir": str(folder / "state"),
        "prefix": PREFIX,
        "exchange_log": str(log),
    }
    audit = f"\n[audit]\n{toml(audited(folder))}" if "BENCH_AUDIT" in os.environ else ""
    if job == "plain":
        return toml(settings | {"no_auth": True}) + audit
    identity = {
        "jwks_file": str(work / "jwks.json"),
        "issuer": "bench",
        "audience": "models",
        "tenant_claim": "tenant",
    }
    return f"{toml(settings)}\n[identity]\n{toml(identity)}{audit}"


def audited(folder: Path) -> dict[str, str | int]:
    """Audit as an operator would have it, with a key that signs checkpoints."""
    key = folder / "audit.key"
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key.touch(mode=0o600)
    key.write_bytes(pem)
    return {"dir": str(folder / "audit"), "key_file": str(key)}


def toml(values: dict[str, str | int]) -> str:
    """One line for each value: of strings, integers and booleans, JSON's spelling is TOML's."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


async def seed(document: bytes, tenants: Tenants, state: str) -> None:
    """Store the policy and the pins, as an operator would have done before the start."""
    server = EmbeddedServer(state)
    await server.start()
    try:
        store = open_store(server.url, PREFIX, state)
        try:
            await store.commit(
                codec.load(document, source="policy.json"), expected=None, actor="bench", comment=""
            )
            for tenant, to in tenants.items():
                if isinstance(to, str):
                    await store.set_pin(MODEL, tenant, to)
        finally:
            await store.close()
    finally:
        await server.stop()


if __name__ == "__main__":
    main()
