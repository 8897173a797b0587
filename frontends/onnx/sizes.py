"""Arithmetic on shapes that hold named dims: arrays of sizes, computed while importing."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UnsupportedError
from ...ir.brick import Array
from ...ir.dims import Size, maximum, minimum
from ...ir.dtypes import DType
from .reading import DTYPES
from .values import Item, Known, plain_sizes

if TYPE_CHECKING:
    from .node import Node

__all__ = ["fold"]


def fold(node: Node) -> list[Item] | None:
    """The node's result if its operands are known, some of them sizes; else None."""
    items = [o for o in node.operands if o is not None]
    if not any(isinstance(o, Known) and o.symbolic for o in items):
        return None
    if not all(isinstance(o, Known) for o in items) or node.op not in _FOLDS:
        return None
    arrays = [o.array if isinstance(o, Known) else None for o in node.operands]
    try:
        result = _FOLDS[node.op](node, arrays)
    except UnsupportedError:
        return None  # what cannot be known now is computed by the program
    if result is None:
        return None
    many = result if isinstance(result, list) else [result]
    return [Known(plain_sizes(np.asarray(r))) for r in many]


def _gather(node: Node, arrays: list[Any]) -> Array | None:
    x, indices = arrays
    if indices.dtype == object:
        return None
    return np.asarray(np.take(x, indices, node.axis(node.get_int("axis", 0), x.ndim)))


def _concat(node: Node, arrays: list[Any]) -> Array:
    return np.concatenate(arrays, node.axis(node.get_int("axis"), arrays[0].ndim))


def _slice(node: Node, arrays: list[Any]) -> Array | None:
    x = arrays[0]
    if node.opset < 10:
        starts, ends = node.get_ints("starts"), node.get_ints("ends")
        axes, steps = node.get_ints("axes", tuple(range(len(starts)))), (1,) * len(starts)
    else:
        if any(a is not None and a.dtype == object for a in arrays[1:]):
            return None
        starts, ends = node.integers(1), node.integers(2)
        axes = node.integers(3) if node.has(3) else tuple(range(len(starts)))
        steps = node.integers(4) if node.has(4) else (1,) * len(starts)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[node.axis(axis, x.ndim)] = slice(start, end, step)
    return np.asarray(x[tuple(index)])


def _squeeze(node: Node, arrays: list[Any]) -> Array:
    axes = node.axes(arrays[0].ndim, 1)
    return np.asarray(np.squeeze(arrays[0], axes))


def _unsqueeze(node: Node, arrays: list[Any]) -> Array:
    x = arrays[0]
    axes = node.integers(1) if node.has(1) else node.get_ints("axes")
    return np.asarray(np.expand_dims(x, tuple(node.axis(a, x.ndim + len(axes)) for a in axes)))


def _reshape(node: Node, arrays: list[Any]) -> Array:
    return np.asarray(arrays[0].reshape(node.integers(1)))


def _cast(node: Node, arrays: list[Any]) -> Array | None:
    wanted = DTYPES.get(node.get_int("to"))
    return np.asarray(arrays[0]) if wanted in (DType.I64, DType.I32) else None


def _same(node: Node, arrays: list[Any]) -> Array:
    return np.asarray(arrays[0])


def _pairwise(function: Callable[[Any, Any], Any]) -> Callable[[Node, list[Any]], Array | None]:
    def each(node: Node, arrays: list[Any]) -> Array | None:
        if any(a.dtype.kind not in "iuO" for a in arrays):
            return None
        plain = [a.astype(object) for a in arrays]
        return np.asarray(reduce(lambda x, y: _outer(function, x, y), plain))

    return each


def _outer(function: Callable[[Any, Any], Any], x: Array, y: Array) -> Array:
    x, y = np.broadcast_arrays(x, y)
    result = np.empty(x.shape, object)
    for k in np.ndindex(x.shape):
        result[k] = function(x[k], y[k])
    return result


def _quotient(x: Size, y: Size) -> Size:
    if not isinstance(y, int) or y <= 0:
        raise UnsupportedError("a quotient of sizes", got=f"{x}/{y}")
    return x // y


def _equal(x: Size, y: Size) -> bool:
    """Whether two sizes are equal, if that does not depend on the dims."""
    if x == y:
        return True
    gap = x - y
    if minimum(gap) > 0 or maximum(gap) < 0:
        return False
    raise UnsupportedError("whether two sizes are equal is not known", got=f"{x} and {y}")


def _equals(node: Node, arrays: list[Any]) -> Array | None:
    found = _pairwise(_equal)(node, arrays)
    return None if found is None else found.astype(np.bool_)


def _where(node: Node, arrays: list[Any]) -> Array | None:
    condition, x, y = arrays
    if condition.dtype != np.bool_:
        return None
    return np.asarray(np.where(condition, x.astype(object), y.astype(object)))


def _product(node: Node, arrays: list[Any]) -> Array:
    return _reduced(node, arrays[0], np.multiply)


def _sum(node: Node, arrays: list[Any]) -> Array:
    return _reduced(node, arrays[0], np.add)


def _reduced(node: Node, x: Array, function: np.ufunc) -> Array:
    axes = node.axes(x.ndim, 1)
    chosen = axes if axes else tuple(range(x.ndim))
    result: Array = np.asarray(
        function.reduce(x, axis=chosen, keepdims=node.get_flag("keepdims", True))
    )
    return result.astype(object)


def _split(node: Node, arrays: list[Any]) -> list[Array] | None:
    x = arrays[0]
    axis = node.axis(node.get_int("axis", 0), x.ndim)
    if node.has(1):
        sizes = node.integers(1)
    elif node.given("split"):
        sizes = node.get_ints("split")
    else:
        return None
    return np.split(x, np.cumsum(sizes)[:-1].tolist(), axis)


_FOLDS: dict[str, Callable[[Any, list[Any]], Any]] = {
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Identity": _same,
    "Cast": _cast,
    "Add": _pairwise(lambda x, y: x + y),
    "Sub": _pairwise(lambda x, y: x - y),
    "Mul": _pairwise(lambda x, y: x * y),
    "Div": _pairwise(_quotient),
    "Equal": _equals,
    "Where": _where,
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "Split": _split,
}
