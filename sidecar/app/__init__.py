"""The only place that wires parts together.

`rmv serve` becomes the control process: it keeps the embedded store, the admin listener and the
workers alive. A worker is the data plane, alone on its core and as small as it can be: what the
control process needs and a worker does not (aiohttp above all) is never loaded there.
"""
