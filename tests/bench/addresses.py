"""Where everybody listens; loopback only."""

HOST = "127.0.0.1"
PROXY_PORT = 8000
ADMIN_PORT = 8001  # where the subject says what its caches did
ORIGIN_PORTS = {"v1": 9001, "v2": 9002, "shadow": 9003}
SILENT_PORT = 9004  # a shadow that hangs
ORIGINS = {version: f"{HOST}:{port}" for version, port in ORIGIN_PORTS.items()}
