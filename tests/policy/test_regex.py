"""Regular expressions cost time by the length of a value, and nothing where there are none."""

from __future__ import annotations

import subprocess
import sys

from sidecar.model.policy import Matcher, Operators, Policy, Version
from sidecar.policy.address import ANYWHERE
from sidecar.policy.compiled import compiling
from sidecar.policy.regex import MAX_PROGRAM, MAX_WORK, pattern
from sidecar.policy.validate import validating

EXPRESSIONS = 20
LOADS = """
import sys
from sidecar.model.policy import Operators, Policy, Rule, Version
from sidecar.policy.snapshot import compile_snapshot

def compiled(condition):
    rule = Rule(id="r", when={"app": condition}, serve="v1")
    versions = {"v1": Version(endpoints=("http://127.0.0.1:9001",))}
    compile_snapshot(Policy(model="m", versions=versions, rules=(rule,)), {}, {})
    return "re2" in sys.modules

print(compiled("a"), compiled(Operators(regex="a+")))
"""


def test_the_engine_is_loaded_with_the_first_expression() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADS],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )

    assert done.stdout == "False True\n"


def test_an_expression_in_use_is_compiled_once() -> None:
    assert pattern("[0-9]+") is pattern("[0-9]+")


def test_an_expression_takes_values_as_long_as_its_size_allows() -> None:
    small, large = pattern("/a+"), pattern(".*(?:(a|b)?){990}")

    assert small.fits("/" + "a" * 16_000)
    assert large.max_bytes < MAX_WORK // (MAX_PROGRAM - 100)
    assert large.fits("a" * large.max_bytes)
    assert not large.fits("a" * (large.max_bytes + 1))
    assert not large.fits("é" * large.max_bytes)  # bytes are counted, for each is work


def test_one_version_with_many_expressions_is_judged_and_compiled_one_at_a_time() -> None:
    expressions = [Operators(regex=f"a{n}+") for n in range(EXPRESSIONS)]
    allow = tuple[Matcher, ...]({"app": one} for one in expressions)
    versions = {"v1": Version(endpoints=("http://127.0.0.1:9001",), allow=allow)}
    policy = Policy(model="m", versions=versions)

    for steps in (validating(policy, "", ANYWHERE), compiling(policy)):
        assert sum(1 for _ in steps) >= EXPRESSIONS
