"""Give every update a value of its own, so that it can be stored over its parameter."""

from __future__ import annotations

from ...ir.brick import Leaf, View
from ...ir.bricks.placement import Copy
from ...ir.bricks.source import Constant, DimSize, Iota, Literal
from ...ir.builder import Builder, rewrite
from ...ir.graph import Graph

__all__ = ["own_updates"]


def own_updates(graph: Graph) -> Graph:
    """Insert a copy where an update is another leaf, a view, a constant or used twice."""
    new = rewrite(graph, lambda builder, node, operands: None)
    builder = Builder(new)
    seen: set[int] = set()
    for leaf, value in list(new.updates.items()):
        node = new.node(value)
        if (
            isinstance(node.brick, Leaf | View | Constant | DimSize | Iota | Literal)
            or value in seen
        ):
            builder.origin = node.origin
            operand = builder.value(value)
            new.updates[leaf] = operand.apply(Copy(None), operand).id
        seen.add(new.updates[leaf])
    return new
