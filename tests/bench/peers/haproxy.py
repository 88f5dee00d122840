"""HAProxy: jwt_verify, claims by jwt_payload_query, the backend from a map keyed by the claim."""

from tests.bench.addresses import HOST, ORIGINS, PROXY_PORT
from tests.bench.fixtures import AUDIENCE, ISSUER, SPLIT_WEIGHTS, TENANTS, WORK
from tests.bench.items import Job
from tests.bench.programs import SkipError, find


def configure(job: Job) -> list[str]:
    if job == "mirror":
        raise SkipError("haproxy cannot mirror")
    config = WORK / "conf" / f"haproxy-{job}.cfg"
    config.write_text(f"""
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind {HOST}:{PROXY_PORT}
{"  default_backend v1" if job == "plain" else token_rules()}
backend v1
  server v1 {ORIGINS["v1"]}
backend v2
  server v2 {ORIGINS["v2"]}
backend split
  balance roundrobin
  server v1 {ORIGINS["v1"]} weight {SPLIT_WEIGHTS["v1"]}
  server v2 {ORIGINS["v2"]} weight {SPLIT_WEIGHTS["v2"]}
""")
    return [find("haproxy"), "-db", "-f", str(config)]


def token_rules() -> str:
    tenants = WORK / "conf" / "haproxy-tenants.map"
    tenants.write_text("".join(f"{tenant} {backend}\n" for tenant, backend in TENANTS.items()))
    valid = f'var(txn.bearer),jwt_verify(txn.alg,"{WORK}/public.pem")'
    return f"""
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request set-var(txn.iss) var(txn.bearer),jwt_payload_query('$.iss')
  http-request set-var(txn.aud) var(txn.bearer),jwt_payload_query('$.aud')
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.tenant) var(txn.bearer),jwt_payload_query('$.tenant')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str RS256 }}
  http-request deny deny_status 401 unless {{ var(txn.iss) -m str {ISSUER} }}
  http-request deny deny_status 401 unless {{ var(txn.aud) -m str {AUDIENCE} }}
  http-request deny deny_status 401 unless {{ {valid} 1 }}
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
  http-request set-var(txn.backend) var(txn.tenant),map({tenants})
  http-request deny deny_status 403 unless {{ var(txn.backend) -m found }}
  use_backend %[var(txn.backend)]
"""
