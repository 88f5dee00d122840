"""Which places of a JSON document the policy's pointers mean.

A pointer is of RFC 6901, and a step `*` stands for every index of an array, or every member of an
object; an item of an array that has a member `name` is meant by it, too, as tensors are. All
pointers of a comparison are one tree, which a walk goes down beside the document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.model.comparison import Comparison
    from sidecar.model.identity import JSON

ANY = "*"
WHOLE = "body"
"""How a document as a whole is called among the fields that differ."""

MAX_FIELD_CHARS = 200  # fields are rows of tables; member names may be of any length


class Node:
    """One step of one or more pointers. `mask` is the pointer that ends here and masks."""

    __slots__ = ("any", "has_mask", "is_ignored", "is_unordered", "mask", "names")

    def __init__(self) -> None:
        self.names: dict[str, Node] = {}
        self.any: Node | None = None
        self.is_ignored = False
        self.is_unordered = False
        self.mask: str | None = None
        self.has_mask = False  # here or further down

    def child(self, step: str) -> Node:
        """Return the node one step down, made if it is new."""
        if step != ANY:
            return self.names.setdefault(step, Node())
        if self.any is None:
            self.any = Node()
        return self.any


Nodes = tuple[Node, ...]
"""What is said of one place of a document; empty where no pointer leads further."""


def compile_nodes(comparison: Comparison) -> Nodes:
    """Return what the pointers of `comparison` say of a whole document."""
    root = Node()
    for pointer in comparison.ignore:
        _plant(root, pointer).is_ignored = True
    for pointer in comparison.unordered:
        _plant(root, pointer).is_unordered = True
    return _pruned(_masked(root, comparison.keep.mask))


def compile_masks(pointers: Iterable[str]) -> Nodes:
    """Return what `pointers` say of a whole document, as masks alone."""
    return _pruned(_masked(Node(), pointers))


def steps_of(pointer: str) -> tuple[str, ...]:
    """Return the steps of a pointer, unescaped (RFC 6901 section 4)."""
    return tuple(
        [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]],
    )


def spell(path: Iterable[str]) -> str:
    """Return the pointer of `path`, cut at 200 characters; `body` of a whole document."""
    spelled = "".join(["/" + step.replace("~", "~0").replace("/", "~1") for step in path])
    if len(spelled) > MAX_FIELD_CHARS:
        return spelled[: MAX_FIELD_CHARS - 1] + "…"
    return spelled or WHOLE


def below(nodes: Nodes, step: str) -> Nodes:
    """Return what is said of the place one step further down."""
    found = []
    for node in nodes:
        named = node.names.get(step)
        if named is not None:
            found.append(named)
        if node.any is not None:
            found.append(node.any)
    return tuple(found)


def below_item(nodes: Nodes, index: int, *items: JSON) -> Nodes:
    """Return what is said of an item of an array: by its index, or a member `name` that it has.

    `items` are what stands there on either side.
    """
    steps = {str(index): None, **{name: None for name in map(_name, items) if name is not None}}
    if len(steps) == 1:
        return below(nodes, str(index))
    return tuple(dict.fromkeys([node for step in steps for node in below(nodes, step)]))


def _name(item: JSON) -> str | None:
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else None


def along(nodes: Nodes, path: Iterable[str]) -> Nodes:
    """Return what is said of the place at the end of `path`; what holds above holds there, too."""
    for step in path:
        if not nodes or is_ignored(nodes) or mask_of(nodes) is not None:
            return nodes
        nodes = below(nodes, step)
    return nodes


def is_ignored(nodes: Nodes) -> bool:
    """Return whether a place is not compared."""
    # any() of a generator takes four times as long, and this is asked at every step.
    for node in nodes:  # noqa: SIM110
        if node.is_ignored:
            return True
    return False


def is_unordered(nodes: Nodes) -> bool:
    """Return whether an array is a multiset."""
    return any(node.is_unordered for node in nodes)


def mask_of(nodes: Nodes) -> str | None:
    """Return the first pointer that masks just this place."""
    return next((node.mask for node in nodes if node.mask is not None), None)


def has_mask(nodes: Nodes) -> bool:
    """Return whether a place, or one below it, is masked."""
    return any(node.has_mask for node in nodes)


def resolve(document: JSON, steps: tuple[str, ...]) -> list[JSON]:
    """Return the values that a pointer means, in the document's order.

    Their number is bounded by the document's size: no step leads to one place twice.
    """
    found: list[JSON] = [document]
    for step in steps:
        found = [value for holder in found for value in _values(holder, step)]
    return found


def _values(holder: JSON, step: str) -> list[JSON]:
    if isinstance(holder, dict):
        if step == ANY:
            return list(holder.values())
        return [holder[step]] if step in holder else []
    if not isinstance(holder, list):
        return []
    if step == ANY:
        return holder
    named = [item for item in holder if _name(item) == step]
    # RFC 6901 section 4: digits without leading zeros; more of them than this is no index.
    if step.isascii() and step.isdigit() and len(step) < 10 and str(int(step)) == step:  # noqa: PLR2004
        return holder[int(step) : int(step) + 1] or named
    return named


def _plant(root: Node, pointer: str) -> Node:
    node = root
    for step in steps_of(pointer):
        node = node.child(step)
    return node


def _masked(root: Node, pointers: Iterable[str]) -> Node:
    for pointer in pointers:
        node = root
        node.has_mask = True
        for step in steps_of(pointer):
            node = node.child(step)
            node.has_mask = True
        node.mask = pointer or WHOLE
    return root


def _pruned(root: Node) -> Nodes:
    """Return no nodes where no pointer says anything, which is what the walk is fastest with."""
    says = root.names or root.any or root.is_ignored or root.is_unordered or root.has_mask
    return (root,) if says else ()
