"""One form for what can be written in several: identities dropped, operands in a fixed order.

Elementwise bricks broadcast by themselves, so a BroadcastTo before one is dropped; where
all operands are stretched, the stretching moves behind it, to be done last or never.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.bricks.arithmetic import Add, Equal, LogicalAnd, LogicalOr, Mul, NotEqual
from ...ir.bricks.convert import Cast
from ...ir.bricks.elementwise import Elementwise, broadcast_shapes
from ...ir.bricks.reduce import ReduceMax, ReduceMin, ReduceSum
from ...ir.bricks.shape import (
    BroadcastTo,
    Concat,
    Pad,
    Reshape,
    Reverse,
    Slice,
    Transpose,
)
from ...ir.builder import Builder, GraphValue
from ...ir.graph import Graph, Node
from .patterns import broadcast, operands_of, replace_node, rewritten, uniform

__all__ = ["canonicalise"]

_COMMUTATIVE = (Add, Mul, Equal, NotEqual, LogicalAnd, LogicalOr)


def canonicalise(graph: Graph) -> Graph:
    """The graph in canonical form; values and gradients are unchanged."""
    return rewritten(graph, _rule)


def _rule(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
    brick = node.brick
    if isinstance(brick, Elementwise):
        return _elementwise(builder, node, operands)
    if len(operands) != 1:
        return None
    (x,) = operands
    match brick:
        case Reshape() | BroadcastTo():
            return x if x.type == node.type else None
        case Transpose():
            return x if brick.permutation == tuple(range(x.rank)) else None
        case Slice():
            # a slice that keeps the size starts at 0 and steps by 1
            return x if x.type == node.type else None
        case Reverse():
            return x if all(x.shape[a] == 1 for a in brick.axes) else None
        case Pad():
            same = not any((*brick.lo, *brick.hi)) and (
                not any(brick.interior) or x.type == node.type
            )
            return x if same else None
        case Cast():
            return x if x.dtype is brick.dtype else None
        case Concat():
            return x
        case ReduceSum() | ReduceMax() | ReduceMin():
            return _reduce(builder, node, x)
    return None


def _reduce(builder: Builder, node: Node, x: GraphValue) -> GraphValue | None:
    """A reduction over axes of size 1, or over none, moves no data."""
    assert isinstance(node.brick, ReduceSum | ReduceMax | ReduceMin)
    if any(x.shape[a] != 1 for a in node.brick.axes):
        return None
    if x.type == node.type:
        return x
    return replace_node(builder, node, Reshape(node.type.shape), [x])


def _elementwise(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
    brick = node.brick
    wanted = node.type.shape
    chosen = [_narrowest(o) for o in operands]
    if broadcast_shapes([o.shape for o in chosen]) != wanted:
        # only stretching may move behind the brick; a mere change of rank is not worth a node
        chosen = [_unstretched(o) for o in operands]
    if isinstance(brick, _COMMUTATIVE):
        chosen.sort(key=_rank)
    if [o.id for o in chosen] == [o.id for o in operands]:
        return None
    if broadcast_shapes([o.shape for o in chosen]) == wanted:
        return replace_node(builder, node, brick, chosen)
    return broadcast(builder, node, builder.add(brick, *chosen))


def _rank(value: GraphValue) -> tuple[bool, int]:
    """Constants last, the others by number."""
    return uniform(value) is not None, value.id


def _unstretched(value: GraphValue) -> GraphValue:
    while isinstance(value.node.brick, BroadcastTo):
        (value,) = operands_of(value)
    return value


def _narrowest(value: GraphValue) -> GraphValue:
    """The operand behind what broadcasting does anyway: stretching, and ones in front."""
    while True:
        brick = value.node.brick
        if isinstance(brick, BroadcastTo):
            (value,) = operands_of(value)
        elif isinstance(brick, Reshape):
            (x,) = operands_of(value)
            ones = value.rank - x.rank
            if ones <= 0 or value.shape != (1,) * ones + x.shape:
                return value
            value = x
        else:
            return value
