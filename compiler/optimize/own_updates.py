"""Give every update a value of its own, so that it can be stored over its parameter.

An output that is such a parameter, or a view of one, gets a copy too: the caller is to see
the value from before the step, and outputs are read when the step is over. So does a half that
is only widened: targets that do that as they read have it in memory as a half.
"""

from __future__ import annotations

from ...ir.brick import Leaf, View
from ...ir.bricks.convert import is_widening
from ...ir.bricks.placement import Copy
from ...ir.bricks.source import Constant, DimSize, Iota, Literal
from ...ir.builder import Builder, rewrite
from ...ir.graph import Graph, Node

__all__ = ["own_updates"]


def own_updates(graph: Graph) -> Graph:
    """Insert a copy where an update is another leaf, a view, a constant or used twice, and
    where an output would show an updated leaf."""
    new = rewrite(graph, lambda builder, node, operands: None)
    builder = Builder(new)
    seen: set[int] = set()
    for leaf, value in list(new.updates.items()):
        node = new.node(value)
        if (
            isinstance(node.brick, Leaf | View | Constant | DimSize | Iota | Literal)
            or _widens(new, node)
            or value in seen
        ):
            builder.origin = node.origin
            operand = builder.value(value)
            new.updates[leaf] = operand.apply(Copy(None), operand).id
        seen.add(new.updates[leaf])
    for name, value in list(new.outputs.items()):
        source = new.node(value)
        while isinstance(source.brick, View):
            source = new.node(source.operands[0])
        if source.id in new.updates or _widens(new, source):
            builder.origin = new.node(value).origin
            operand = builder.value(value)
            new.outputs[name] = operand.apply(Copy(None), operand).id
    return new


def _widens(graph: Graph, node: Node) -> bool:
    return bool(node.operands) and is_widening(node.brick, graph.node(node.operands[0]).type)
