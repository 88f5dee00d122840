"""The admin listener: health, readiness and metrics, apart from the data plane's sockets."""
