"""nginx: a map from the x-tenant header, split_clients, mirror. The token is not looked at."""

import getpass
import os

from tests.bench.addresses import HOST, ORIGINS, PROXY_PORT
from tests.bench.fixtures import SPLIT_WEIGHTS, TENANTS, WORK
from tests.bench.items import Job
from tests.bench.programs import SkipError, find

IDLE_CONNECTIONS = 64  # kept to an origin
FORWARD = 'proxy_http_version 1.1; proxy_set_header Connection "";'
# The defaults give a half (4 MiB down) to a seventeenth (64 KiB up) of this; unbuffered answers,
# a third.
UPLOADS = "proxy_request_buffering off; client_body_buffer_size 256k;"
ANSWERS = "proxy_max_temp_file_size 0; proxy_buffers 8 64k; proxy_buffer_size 64k;"


def configure(job: Job) -> list[str]:
    if job == "fresh":
        raise SkipError("nginx checks no token")
    http = "".join(upstream(version, address) for version, address in ORIGINS.items())
    if job == "plain":
        locations = f"location / {{ {FORWARD} {UPLOADS} {ANSWERS} proxy_pass http://v1; }}"
    else:
        http += tenant_map()
        locations = tenant_locations(is_mirrored=job == "mirror")
    config = WORK / "conf" / f"nginx-{job}.conf"
    server = f"  server {{ listen {HOST}:{PROXY_PORT}; {locations} }}\n"
    config.write_text(complete_file("nginx", http + server))
    return [find("nginx"), "-c", str(config)]


def upstream(version: str, address: str) -> str:
    keep = f"keepalive {IDLE_CONNECTIONS}; keepalive_requests 1000000000;"
    return f"  upstream {version} {{ server {address}; {keep} }}\n"


def tenant_map() -> str:
    targets = "".join(
        f"{tenant} {'$split' if to == 'split' else to}; " for tenant, to in TENANTS.items()
    )
    return f"""
  map $http_x_tenant $version {{ default ""; {targets}}}
  split_clients "$request_id" $split {{ {SPLIT_WEIGHTS["v1"]}% v1; * v2; }}
"""


def tenant_locations(*, is_mirrored: bool) -> str:
    return f"""
    location / {{
      if ($version = "") {{ return 403; }}
      {"mirror /shadow;" if is_mirrored else ""} {FORWARD} proxy_pass http://$version;
    }}
    location = /shadow {{ internal; {FORWARD} proxy_pass http://shadow$request_uri; }}
"""


def complete_file(name: str, http: str) -> str:
    """A complete configuration of one nginx worker around `http`; the origins use it too."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"  {kind}_temp_path {WORK}/run/{name}-{kind};\n" for kind in kinds)
    # WORK may be closed to nginx's own user.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    return f"""
{user} daemon off; worker_processes 1; pid {WORK}/run/{name}.pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; tcp_nodelay on; client_max_body_size 0;
  keepalive_requests 1000000000; keepalive_timeout 600s;
{temporary}{http}}}
"""
