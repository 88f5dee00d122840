"""Circles are found, named by the way around them, and found only where there are some."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.circle import circles

Graph = dict[str, list[str]]

NAMES = ("a", "b", "c", "d", "e")
GRAPHS = st.fixed_dictionaries(
    {name: st.lists(st.sampled_from(NAMES), max_size=2, unique=True) for name in NAMES}
)


def circles_of(graph: Graph) -> list[list[str]]:
    return [one for one in circles(graph, graph.__getitem__) if one is not None]


@given(GRAPHS)
def test_there_is_a_circle_wherever_no_order_is_possible(graph: Graph) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        has_circle = True
    else:
        has_circle = False

    assert bool(circles_of(graph)) == has_circle


@given(GRAPHS)
def test_a_circle_is_a_way_that_ends_where_it_began(graph: Graph) -> None:
    for circle in circles_of(graph):
        assert circle[0] == circle[-1]
        assert len(set(circle)) == len(circle) - 1
        assert all(after in graph[name] for name, after in pairwise(circle))


def test_a_way_as_long_as_a_document_needs_no_stack() -> None:
    count = 20_000
    graph = {str(n): [str((n + 1) % count)] for n in range(count)}

    (circle,) = circles_of(graph)

    assert len(circle) == count + 1
