"""What follows the gradient of a max pooling moves to the pooled side, which is smaller.

Every window hands its value to one place. So a sum over all places is the sum over all
windows; and a slope of the pooled value, a factor that depends on nothing else, can be
applied to the window's value before it is handed on: at the winner's place the image holds
the window's maximum.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from ...ir.bricks.elementwise import Elementwise
from ...ir.bricks.reduce import ReduceSum
from ...ir.bricks.window import WindowMaxScatter
from ...ir.builder import Builder, GraphValue
from ...ir.expression import operand
from ...ir.graph import Graph, Node
from .patterns import operands_of, replace_node, rewritten

__all__ = ["shrink_pool_gradients"]


def shrink_pool_gradients(graph: Graph) -> Graph:
    """The graph with such sums and slopes on the values of windows."""

    roots = set(graph.roots())

    def rule(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
        if isinstance(node.brick, ReduceSum):
            return _sum(builder, node, operands[0])
        if isinstance(node.brick, Elementwise):
            single = [len(graph.users(o)) == 1 and o not in roots for o in node.operands]
            return _slope(builder, node, operands, single)
        return None

    return rewritten(graph, rule)


def _sum(builder: Builder, node: Node, scattered: GraphValue) -> GraphValue | None:
    """Σ scatter(x, y, v) = Σ v over axes that hold whole windows, if none is all padding."""
    reduction, scatter = node.brick, scattered.node.brick
    assert isinstance(reduction, ReduceSum)
    if not isinstance(scatter, WindowMaxScatter):
        return None
    x, _, v = operands_of(scattered)
    for a in range(x.rank):
        slides = scatter.window[a] > 1 or scatter.stride[a] > 1 or scatter.padding[a] != (0, 0)
        if slides and a not in reduction.axes:
            return None
        lo, _ = scatter.padding[a]
        if scatter.padding[a] != (0, 0):
            size, count = x.shape[a], v.shape[a]
            if not (isinstance(size, int) and isinstance(count, int)):
                return None
            if lo >= scatter.window[a] or (count - 1) * scatter.stride[a] - lo >= size:
                return None
    return replace_node(builder, node, reduction, [v])


def _slope(
    builder: Builder, node: Node, operands: Sequence[GraphValue], single: Sequence[bool]
) -> GraphValue | None:
    """scatter(x, y, v)·f(x) = scatter(x, y, v·f(y)), if nothing else reads the product's factor."""
    brick = node.brick
    assert isinstance(brick, Elementwise)
    for k, value in enumerate(operands):
        scatter = value.node.brick
        if not isinstance(scatter, WindowMaxScatter) or not single[k]:
            continue
        x, y, v = operands_of(value)
        if any(o.id != x.id for j, o in enumerate(operands) if j != k):
            continue
        if x.dtype is not node.type.dtype or not _is_factor(brick.expression(), operand(k)):
            continue
        pooled = v.apply(brick, *(v if j == k else y for j in range(len(operands))))
        assert isinstance(pooled, GraphValue)
        return replace_node(builder, node, scatter, [x, y, pooled])
    return None


def _is_factor(expression: sp.Basic, symbol: sp.Symbol) -> bool:
    """True for a product of the symbol and something without it."""
    if expression == symbol or not isinstance(expression, sp.Mul):
        return False
    rest = [a for a in expression.args if a != symbol]
    return len(rest) == len(expression.args) - 1 and not any(symbol in a.free_symbols for a in rest)
