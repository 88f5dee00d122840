"""What the sidecar itself counted: read from its metrics, as a Prometheus would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp

from sidecar.cli.demo.failure import DemoError

_SAMPLE = re.compile(r"^rmv_mirrors_total\{(?P<labels>.*)\} (?P<value>\S+)$", re.MULTILINE)
_KINDS = {
    "compared": "answered",
    "uncompared": "answered",
    "skipped": "dropped",
    "failed": "failed",
    "eligible": "",  # the sum of all others, and of what is under way
    "mirrored": "",
    "sampled": "",
}
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Mirrors(NamedTuple):
    """What became of the copies for one shadow version."""

    answered: int = 0
    dropped: int = 0
    failed: int = 0


def read_mirrors(exposition: str) -> Mapping[str, Mirrors]:
    """Return what became of copies, by shadow version, out of the Prometheus text format."""
    found: dict[str, Mirrors] = {}
    for sample in _SAMPLE.finditer(exposition):
        labels = dict(_LABEL.findall(sample["labels"]))
        version, outcome = labels.get("version", ""), labels.get("outcome", "")
        word = outcome.partition("-")[0]  # `skipped-queue` and the like
        if word not in _KINDS:
            msg = f"the metrics count copies by an unknown outcome: {outcome}"
            raise DemoError(msg)
        kind = _KINDS[word]
        if not kind:
            continue
        counted = found.get(version, Mirrors())._asdict()
        counted[kind] += int(float(sample["value"]))
        found[version] = Mirrors(**counted)
    return found


class Admin:
    """The sidecar's admin listener."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """Use a session whose base is the admin address."""
        self._session = session

    async def mirrors(self) -> Mapping[str, Mirrors]:
        """Return what became of copies so far; DemoError when the metrics cannot be had."""
        try:
            async with self._session.get("/metrics") as response:
                response.raise_for_status()
                return read_mirrors(await response.text())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            msg = f"the metrics cannot be read: {str(error) or type(error).__name__}"
            raise DemoError(msg) from error
