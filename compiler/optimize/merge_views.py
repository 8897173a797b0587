"""Chains of reshapes, transposes, broadcasts, slices, reverses and casts become one link."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.brick import Brick
from ...ir.bricks.convert import Cast
from ...ir.bricks.shape import BroadcastTo, Reshape, Reverse, Slice, Transpose
from ...ir.builder import Builder, GraphValue
from ...ir.dims import Size
from ...ir.dtypes import DType
from ...ir.graph import Graph, Node
from .patterns import operands_of, replace_node, rewritten

__all__ = ["merge_views"]

#: dtypes that hold every value of the key exactly
_WIDER: dict[DType, frozenset[DType]] = {
    DType.BOOL: frozenset(DType),
    DType.I32: frozenset({DType.I64, DType.F64}),
    DType.F16: frozenset({DType.F32, DType.F64}),
    DType.BF16: frozenset({DType.F32, DType.F64}),
    DType.F32: frozenset({DType.F64}),
}


def merge_views(graph: Graph) -> Graph:
    """Merge neighbours of one kind; the views in between die if nothing else uses them."""
    return rewritten(graph, _rule)


def _rule(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
    if len(operands) != 1 or len(operands[0].node.operands) != 1:
        return None
    outer, inner = node.brick, operands[0].node.brick
    (x,) = operands_of(operands[0])
    merged = _merged(outer, inner, x, operands[0])
    if merged is None:
        return None
    if isinstance(merged, GraphValue):
        return merged if merged.type == node.type else None
    if merged.infer_type([x.type]) != node.type:
        return None
    return replace_node(builder, node, merged, [x])


def _merged(
    outer: Brick, inner: Brick, x: GraphValue, middle: GraphValue
) -> Brick | GraphValue | None:
    """The brick on ``x`` that does both, ``x`` itself if they cancel, or None."""
    match outer, inner:
        case Reshape(), Reshape():
            return x if outer.shape == x.shape else outer
        case Transpose(), Transpose():
            order = tuple(inner.permutation[a] for a in outer.permutation)
            return x if order == tuple(range(x.rank)) else Transpose(order)
        case BroadcastTo(), BroadcastTo():
            return x if outer.shape == x.shape else outer
        case BroadcastTo(), Reshape():
            # ones in front are what broadcasting adds by itself
            ones = middle.rank - x.rank
            return outer if ones > 0 and middle.shape == (1,) * ones + x.shape else None
        case Reverse(), Reverse():
            axes = tuple(sorted(set(outer.axes) ^ set(inner.axes)))
            return Reverse(axes) if axes else x
        case Slice(), Slice():
            return _slice(outer, inner)
        case Cast(), Cast():
            # a detour over a wider type changes nothing; over a narrower one it rounds
            if inner.dtype in _WIDER.get(x.dtype, frozenset()):
                return x if outer.dtype is x.dtype else outer
    return None


def _slice(outer: Slice, inner: Slice) -> Slice | None:
    """Element j of the inner slice is element start + j·step of x."""
    start: list[int] = []
    stop: list[Size] = []
    step: list[int] = []
    for s1, t1, s2, e2, t2 in zip(
        inner.start, inner.step, outer.start, outer.stop, outer.step, strict=True
    ):
        if e2 == s2:
            return None  # nothing is left; no stop could say so for a step above 1
        start.append(s1 + s2 * t1)
        stop.append((e2 - 1) * t1 + 1 + s1)
        step.append(t1 * t2)
    return Slice(tuple(start), tuple(stop), tuple(step))
