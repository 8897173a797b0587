"""What rewriting rules share: looking at operands, replacing a node, counting changes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir.brick import Brick
from ...ir.bricks.shape import BroadcastTo
from ...ir.bricks.source import Constant
from ...ir.builder import Builder, GraphValue, Rewriter, rewrite
from ...ir.graph import Graph, Node
from ...ir.types import Shape

__all__ = ["broadcast", "operands_of", "replace_node", "rewritten", "same_constant", "uniform",
           "uniform_value"]  # fmt: skip


def rewritten(graph: Graph, rule: Rewriter) -> Graph:
    """The rewritten graph, or the same object if the rule changed nothing."""
    changed = False

    def watched(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
        nonlocal changed
        result = rule(builder, node, operands)
        changed = changed or result is not None
        return result

    new = rewrite(graph, watched)
    return new if changed else graph


def replace_node(
    builder: Builder, node: Node, brick: Brick, operands: Sequence[GraphValue]
) -> GraphValue:
    """Another brick in the node's place, under its number: dumps of stages stay comparable."""
    numbers = [o.id for o in operands]
    return GraphValue(builder, builder.graph.add(brick, numbers, node.origin, id=node.id))


def operands_of(value: GraphValue) -> list[GraphValue]:
    """The operands of the node that made the value."""
    return [value.builder.value(o) for o in value.node.operands]


def broadcast(builder: Builder, node: Node, value: GraphValue) -> GraphValue:
    """The value stretched to the node's shape, in the node's place; itself if it has it."""
    if value.shape == node.type.shape:
        return value
    return replace_node(builder, node, BroadcastTo(node.type.shape), [value])


def uniform(value: GraphValue) -> Constant | None:
    """The constant that every element of the value is, if the graph shows it at once."""
    brick = value.node.brick
    if isinstance(brick, BroadcastTo):
        brick = value.builder.graph.node(value.node.operands[0]).brick
    return brick if isinstance(brick, Constant) else None


def uniform_value(
    builder: Builder, node: Node, value: float | int | bool, shape: Shape
) -> GraphValue:
    """A tensor of the node's dtype, every element ``value``, in the node's place."""
    constant = Constant(value, node.type.dtype)
    if shape == ():
        return replace_node(builder, node, constant, [])
    return replace_node(builder, node, BroadcastTo(shape), [builder.add(constant)])


def same_constant(a: float | int | bool, b: float | int | bool) -> bool:
    """Equal as bits: 0.0 and -0.0 are two, NaN is itself."""
    if isinstance(a, float) and isinstance(b, float):
        both_nan = math.isnan(a) and math.isnan(b)
        return both_nan or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b
