"""Reductions over axes."""

from __future__ import annotations

import math
from collections.abc import Callable

from ....errors import UnsupportedError
from ....ir.bricks import arithmetic as a
from ....ir.bricks import reduce as r
from ....ir.bricks.arithmetic import where
from ....ir.bricks.convert import cast
from ....ir.bricks.shape import broadcast_to, concat, reshape, reverse, slice_
from ....ir.bricks.source import constant
from ....ir.dims import product
from ....ir.dtypes import DType
from ....ir.value import Value
from ..node import Node
from .kind import Convert, Table

__all__ = ["TABLE", "product_over"]

Axes = tuple[int, ...]
Reduction = Callable[[Value, Axes], Value]


def reduction(function: Reduction, axes_as_input: int = 18) -> Convert:
    """A reduction whose axes are an attribute, and from that opset on an input."""

    def convert(node: Node) -> Value:
        x = node.tensor(0)
        if node.opset >= axes_as_input:
            axes = node.axes(x.rank, 1)
        else:
            axes = node.axes(x.rank, 99)
        if not axes:
            if axes is not None or node.opset >= axes_as_input:
                if node.get_flag("noop_with_empty_axes"):
                    return x if function not in _POINTWISE else _POINTWISE[function](x)
            axes = tuple(range(x.rank))
        axes = tuple(sorted(axes))
        if len(set(axes)) != len(axes):
            raise node.wrong("an axis comes twice", axes)
        y = function(x, axes)
        if node.get_flag("keepdims", True):
            return y
        return reshape(y, tuple(n for k, n in enumerate(y.shape) if k not in axes))

    return convert


def _empty(x: Value, axes: Axes) -> bool:
    return any(x.shape[k] == 0 for k in axes)


def _filled(x: Value, axes: Axes, value: float) -> Value:
    shape = tuple(1 if k in axes else n for k, n in enumerate(x.shape))
    return broadcast_to(constant(x, value, x.dtype), shape)


def total(x: Value, axes: Axes) -> Value:
    return r.reduce_sum(x, axes, keepdims=True)


def _extremum(x: Value, axes: Axes, largest: bool) -> Value:
    if x.dtype is DType.BOOL:
        if _empty(x, axes):
            return cast(_filled(cast(x, DType.I32), axes, not largest), DType.BOOL)
        return cast(_extremum(cast(x, DType.I32), axes, largest), DType.BOOL)
    if _empty(x, axes):
        if x.dtype.is_float:
            return _filled(x, axes, -math.inf if largest else math.inf)
        bound = 2 ** (8 * x.dtype.itemsize - 1)
        return _filled(x, axes, -bound if largest else bound - 1)
    return (r.reduce_max if largest else r.reduce_min)(x, axes, keepdims=True)


def maximum(x: Value, axes: Axes) -> Value:
    return _extremum(x, axes, True)


def minimum(x: Value, axes: Axes) -> Value:
    return _extremum(x, axes, False)


def mean(x: Value, axes: Axes) -> Value:
    if x.dtype.is_float:
        return r.reduce_mean(x, axes, keepdims=True)
    count = product(x.shape[k] for k in axes)
    if not isinstance(count, int):
        return cast(r.reduce_mean(cast(x, DType.F64), axes, keepdims=True), x.dtype)
    return a.div(total(x, axes), count)


def product_over(x: Value, axes: Axes) -> Value:
    """Halves multiplied until one element is left."""
    for axis in axes:
        size = x.shape[axis]
        if not isinstance(size, int):
            raise UnsupportedError("a product over an axis without a fixed size", got=size)
        if size == 0:
            x = _filled(x, (axis,), 1)
            continue
        while size > 1:
            half = size // 2
            y = a.mul(_part(x, axis, 0, half), _part(x, axis, half, 2 * half))
            if size % 2:
                y = concat([y, _part(x, axis, 2 * half, size)], axis)
            x, size = y, half + size % 2
    return x


def _part(x: Value, axis: int, start: int, stop: int) -> Value:
    first, last = [0] * x.rank, list(x.shape)
    first[axis], last[axis] = start, stop
    return slice_(x, first, last)


def l1(x: Value, axes: Axes) -> Value:
    return total(a.abs(x), axes)


def _root(x: Value) -> Value:
    return a.sqrt(x) if x.dtype.is_float else cast(a.sqrt(cast(x, DType.F64)), x.dtype)


def l2(x: Value, axes: Axes) -> Value:
    return _root(total(a.mul(x, x), axes))


def sum_square(x: Value, axes: Axes) -> Value:
    return total(a.mul(x, x), axes)


def log_sum(x: Value, axes: Axes) -> Value:
    return a.log(total(x, axes))


def log_sum_exp(x: Value, axes: Axes) -> Value:
    """The maximum is taken out first; where it is infinite there is nothing to take out."""
    if _empty(x, axes):
        return _filled(x, axes, -math.inf)
    top = r.reduce_max(x, axes, keepdims=True)
    finite = where(a.less(a.abs(top), math.inf), top, 0.0)
    return a.add(a.log(total(a.exp(a.sub(x, finite)), axes)), finite)


#: what is left of a reduction over no axis at all
_POINTWISE: dict[Reduction, Callable[[Value], Value]] = {
    l1: a.abs,
    l2: a.abs,
    sum_square: lambda x: a.mul(x, x),
    log_sum: a.log,
    log_sum_exp: lambda x: x,
}


def extreme_index(largest: bool) -> Convert:
    def convert(node: Node) -> Value:
        x = node.tensor(0)
        axis = node.axis(node.get_int("axis", 0), max(x.rank, 1))
        keep = node.get_flag("keepdims", True)
        find = r.arg_max if largest else r.arg_min
        if not node.get_flag("select_last_index"):
            return cast(find(x, axis, keep), DType.I64)
        last = cast(find(reverse(x, (axis,)), axis, keep), DType.I64)
        size = x.shape[axis]
        if not isinstance(size, int):
            raise node.unsupported("the last index on an axis without a fixed size", size)
        return a.sub(node.number(size - 1, DType.I64), last)

    return convert


TABLE: Table = {
    "ReduceSum": reduction(total, 13),
    "ReduceMean": reduction(mean),
    "ReduceMax": reduction(maximum),
    "ReduceMin": reduction(minimum),
    "ReduceProd": reduction(product_over),
    "ReduceL1": reduction(l1),
    "ReduceL2": reduction(l2),
    "ReduceSumSquare": reduction(sum_square),
    "ReduceLogSum": reduction(log_sum),
    "ReduceLogSumExp": reduction(log_sum_exp),
    "ArgMax": extreme_index(True),
    "ArgMin": extreme_index(False),
}
