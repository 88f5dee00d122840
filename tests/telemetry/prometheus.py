"""A reader of the Prometheus text format, version 0.0.4, as strict as its specification."""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{((?:{_LABEL},?)*)\}})? (\S+)")
_SUFFIXES = ("_bucket", "_sum", "_count")
Labels = frozenset[tuple[str, str]]


class Sample(NamedTuple):
    """One line."""

    name: str
    labels: Labels
    value: float

    def label(self, name: str) -> str:
        """Return the value of a label."""
        return dict(self.labels)[name]


class Exposition(list[Sample]):
    """All samples of a text, each of a family whose type was told before it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.types: dict[str, str] = {}
        assert text.endswith("\n")
        for line in text[:-1].split("\n"):
            self._read(line)
        keys = [(one.name, one.labels) for one in self]
        assert len(keys) == len(set(keys)), "a sample is there twice"

    def find(self, name: str, **labels: str) -> list[Sample]:
        """Return the samples of this name that have these labels."""
        wanted = set(labels.items())
        return [one for one in self if one.name == name and wanted <= one.labels]

    def value(self, name: str, **labels: str) -> float:
        """Return the value of the one sample of this name that has these labels."""
        (found,) = self.find(name, **labels)
        return found.value

    def check_histograms(self) -> int:
        """Check that buckets rise, end with all, and agree with the count; return how many."""
        names = [name for name, kind in self.types.items() if kind == "histogram"]
        checked = 0
        for name in names:
            for count in self.find(f"{name}_count"):
                buckets = [
                    one
                    for one in self.find(f"{name}_bucket")
                    if {label for label in one.labels if label[0] != "le"} == count.labels
                ]
                bounds = [float(one.label("le")) for one in buckets]
                values = [one.value for one in buckets]
                assert bounds == sorted(set(bounds))
                assert bounds[-1] == float("inf")
                assert values == sorted(values)
                assert values[-1] == count.value
                checked += 1
        return checked

    def _read(self, line: str) -> None:
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in {"counter", "gauge", "histogram"}
            assert name not in self.types, f"the type of {name} is told twice"
            assert not any(one.name == name for one in self)
            self.types[name] = kind
        elif not line.startswith("# HELP "):
            self.append(self._sample(line))

    def _sample(self, line: str) -> Sample:
        found = _SAMPLE.fullmatch(line)
        assert found is not None, f"no sample: {line!r}"
        pairs = re.findall(_LABEL, found[2] or "")
        labels = {name: _unescape(value) for name, value in pairs}
        assert len(labels) == len(pairs), f"a label is there twice: {line!r}"
        name = found[1]
        families = (name, *(name.removesuffix(end) for end in _SUFFIXES))
        assert any(family in self.types for family in families), f"no type: {line!r}"
        return Sample(name, frozenset(labels.items()), float(found[5]))


def _unescape(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), value)
