"""Running sums and products, and order."""

from __future__ import annotations

from collections.abc import Callable

from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.convert import cast
from ....ir.bricks.reduce import reduce_sum
from ....ir.bricks.shape import broadcast_to, concat, reshape, reverse, transpose
from ....ir.bricks.source import constant, iota
from ....ir.dtypes import DType
from ....ir.types import TensorType
from ....ir.value import Value
from ..node import Node
from .indexing import linear_gather
from .kind import Convert, Table
from .movement import cut, fixed

__all__ = ["TABLE"]

#: elements of an axis that is sorted: every one is compared with every other
_LONGEST_SORT = 4096
_LONGEST_SCAN = 2**20


def running(function: Callable[[Value, Value], Value], neutral: int) -> Convert:
    """Prefix sums or products by doubling: log2(n) steps, each on whole arrays."""

    def convert(node: Node) -> Value:
        x = node.tensor(0)
        axis = node.axis(int(node.scalar(1)), x.rank)
        size = fixed(node, x.shape[axis], "a running sum")
        if size > _LONGEST_SCAN:
            raise node.unsupported("a running sum over so long an axis", size)
        backwards = node.get_flag("reverse")
        if backwards:
            x = reverse(x, (axis,))
        step = 1
        while step < size:
            later = function(cut(x, axis, step, size), cut(x, axis, 0, size - step))
            x = concat([cut(x, axis, 0, step), later], axis)
            step *= 2
        if node.get_flag("exclusive") and size:
            shape = tuple(1 if k == axis else n for k, n in enumerate(x.shape))
            first = broadcast_to(constant(x, neutral, x.dtype), shape)
            x = concat([first, cut(x, axis, 0, size - 1)], axis)
        return reverse(x, (axis,)) if backwards else x

    return convert


def top_k(node: Node) -> list[Value]:
    """The k largest or smallest elements, in order, the first of equal ones first.

    An element's rank is how many others come before it.
    """
    x = node.tensor(0)
    k = node.get_int("k") if node.opset < 10 else int(node.scalar(1))
    axis = node.axis(node.get_int("axis", -1), x.rank)
    size = fixed(node, x.shape[axis], "an axis that is sorted")
    if not 0 <= k <= size:
        raise node.wrong("more elements than there are", k, size)
    if size > _LONGEST_SORT:
        raise node.unsupported("sorting so long an axis", size, "at most 4096")
    largest = node.get_flag("largest", True) if node.opset >= 11 else True
    order = (*(j for j in range(x.rank) if j != axis), axis)
    moved = transpose(x, order)
    outer = moved.shape[:-1]
    own = reshape(moved, (*outer, size, 1))
    other = reshape(moved, (*outer, 1, size))
    number = iota(x, TensorType(DType.I64, (size, 1)), 0)
    rival = iota(x, TensorType(DType.I64, (1, size)), 1)
    before = (a.greater if largest else a.less)(other, own)
    tie = a.logical_and(a.equal(other, own), a.less(rival, number))
    ranks = reduce_sum(cast(a.logical_or(before, tie), DType.I64), -1)
    place = iota(x, TensorType(DType.I64, (k, 1)), 0)
    taken = a.equal(reshape(ranks, (*outer, 1, size)), place)
    indices = reduce_sum(where(taken, rival, 0), -1)
    back = tuple(order.index(j) for j in range(x.rank))
    chosen = transpose(indices, back)
    return [linear_gather(node, x, chosen, axis), chosen]


TABLE: Table = {
    "CumSum": running(a.add, 0),
    "CumProd": running(a.mul, 1),
    "TopK": top_k,
}
