"""Operators that look elements up, or put them somewhere.

They are gather and scatter_add on the elements in one row, whose numbers are computed from the
indices; so derivatives and kernels are those of the two bricks.
"""

from __future__ import annotations

import numpy as np

from ....ir.bricks import arithmetic as a
from ....ir.bricks import indexing
from ....ir.bricks.arithmetic import where
from ....ir.bricks.convert import cast
from ....ir.bricks.reduce import reduce_max, reduce_min
from ....ir.bricks.shape import broadcast_to, reshape, slice_
from ....ir.bricks.source import dim_size, iota
from ....ir.dims import Size, product
from ....ir.dtypes import DType
from ....ir.types import Shape, TensorType
from ....ir.value import Value
from ..node import Node
from ..values import Known
from .arithmetic import modulo
from .kind import Table
from .reductions import product_over

__all__ = ["TABLE", "linear_gather", "scatter_rows", "strides_of"]

#: elements of the comparison that a scatter with min, max or mul takes
_LARGEST_COMPARISON = 2**24


def strides_of(shape: Shape) -> list[Size]:
    """How many elements lie between neighbours on each axis."""
    return [product(shape[k + 1 :]) for k in range(len(shape))]


def positive(indices: Value, size: Size) -> Value:
    """Negative indices count from the end."""
    indices = cast(indices, DType.I64)
    return where(a.less(indices, 0), a.add(indices, dim_size(indices, size, DType.I64)), indices)


def _indices(node: Node, position: int, size: Size) -> Value:
    """An operand of indices, none of them negative; known ones are checked now."""
    item = node.item(position)
    if isinstance(item, Known) and not item.symbolic and isinstance(size, int):
        array = item.array
        if array.dtype.kind not in "iu":
            raise node.wrong("indices are no integers", array.dtype)
        if array.size and not (-size <= array.min() and array.max() < size):
            raise node.wrong("an index is out of range", f"{array.min()}..{array.max()}", size)
        return node.literal(np.where(array < 0, array + size, array).astype(np.int64))
    return positive(_whole(node, node.tensor(position)), size)


def _whole(node: Node, indices: Value) -> Value:
    if not indices.dtype.is_integer:
        raise node.wrong("indices are no integers", indices.type)
    return indices


def gather(node: Node) -> Value:
    x = node.tensor(0)
    axis = node.axis(node.get_int("axis", 0), x.rank)
    return indexing.gather(x, _indices(node, 1, x.shape[axis]), axis)


def _place_along(x: Value, shape: Shape, indices: Value, axis: int) -> Value:
    """The number of the element at (…, indices, …) in a row of an array of that shape."""
    strides = strides_of(shape)
    total: Value | None = None
    for k, stride in enumerate(strides):
        if k == axis:
            part = indices
        else:
            sizes = tuple(n if j == k else 1 for j, n in enumerate(indices.shape))
            part = iota(x, TensorType(DType.I64, sizes), k)
        part = part if stride == 1 else a.mul(part, dim_size(x, stride, DType.I64))
        total = part if total is None else a.add(total, part)
    assert total is not None
    return broadcast_to(total, indices.shape)


def linear_gather(node: Node, x: Value, indices: Value, axis: int) -> Value:
    """y[i, j, …] = x[i, indices[i, j, …], …], the index standing on ``axis``."""
    if indices.rank != x.rank:
        raise node.wrong("indices have another rank", indices.type, x.type)
    row = reshape(x, (product(x.shape),))
    places = _place_along(x, x.shape, indices, axis)
    return indexing.gather(row, places, 0)


def gather_elements(node: Node) -> Value:
    x = node.tensor(0)
    axis = node.axis(node.get_int("axis", 0), x.rank)
    return linear_gather(node, x, _indices(node, 1, x.shape[axis]), axis)


def _place_of_rows(node: Node, x: Value, indices: Value, batch: int) -> tuple[Value, int]:
    """Numbers of the slices that the last axis of ``indices`` points to, and its length."""
    depth = indices.shape[-1] if indices.rank else 0
    if not isinstance(depth, int) or not 1 <= depth <= x.rank - batch:
        raise node.wrong("indices point to no axes", indices.type, x.type)
    shape = x.shape[: batch + depth]
    strides = strides_of(shape)
    total: Value | None = None
    outer = indices.shape[:-1]
    for k, stride in enumerate(strides):
        if k < batch:
            sizes = tuple(n if j == k else 1 for j, n in enumerate(outer))
            part = iota(x, TensorType(DType.I64, sizes), k)
        else:
            start, stop = [0] * indices.rank, list(indices.shape)
            start[-1], stop[-1] = k - batch, k - batch + 1
            column = reshape(slice_(indices, start, stop), outer)
            part = positive(column, x.shape[k])
        part = part if stride == 1 else a.mul(part, dim_size(x, stride, DType.I64))
        total = part if total is None else a.add(total, part)
    assert total is not None
    return broadcast_to(total, outer), depth


def gather_nd(node: Node) -> Value:
    x, indices = node.tensor(0), _whole(node, node.tensor(1))
    batch = node.get_int("batch_dims", 0)
    if not 0 <= batch < min(x.rank, indices.rank):
        raise node.wrong("no such batch axes", batch)
    places, depth = _place_of_rows(node, x, indices, batch)
    rest = x.shape[batch + depth :]
    rows = reshape(x, (product(x.shape[: batch + depth]), *rest))
    return indexing.gather(rows, places, 0)


# ── scattering ───────────────────────────────────────────────────────────────────────────


def scatter_rows(node: Node, rows: Value, places: Value, updates: Value, kind: str) -> Value:
    """rows [M, *R] with updates [K, *R] put at places [K]."""
    size = rows.shape[0]
    if kind == "none":
        hits = indexing.scatter_add(places, _ones_at(node, places), 0, size)
        hit = reshape(a.greater(hits, 0.5), (size, *(1,) * (rows.rank - 1)))
        put = _add_at(places, updates, size)
        if rows.dtype is DType.BOOL:
            put = cast(put, DType.BOOL)
        return where(hit, put, rows)
    if kind == "add":
        return a.add(rows, _add_at(places, updates, size))
    if kind not in ("mul", "max", "min"):
        raise node.unsupported("a way of joining elements", kind)
    return _compared(node, rows, places, updates, kind)


def _ones_at(node: Node, places: Value) -> Value:
    return broadcast_to(node.literal(np.ones((), np.float32)), places.shape)


def _add_at(places: Value, updates: Value, size: Size) -> Value:
    """Sums in the updates' dtype; whole numbers through f64, exact below 2^53."""
    if updates.dtype in (DType.F32, DType.F64):
        return indexing.scatter_add(places, updates, 0, size)
    wide = indexing.scatter_add(places, cast(updates, DType.F64), 0, size)
    return cast(wide, DType.I32 if updates.dtype is DType.BOOL else updates.dtype)


def _compared(node: Node, rows: Value, places: Value, updates: Value, kind: str) -> Value:
    """Every place is compared with every index: quadratic, so only for small arrays."""
    size, count = rows.shape[0], places.shape[0]
    work = product((size, *updates.shape))
    if not isinstance(work, int) or work > _LARGEST_COMPARISON:
        raise node.unsupported(f"scattering by {kind} into a large array", rows.type)
    rest = (1,) * (rows.rank - 1)
    numbers = iota(rows, TensorType(DType.I64, (size, 1)), 0)
    chosen = reshape(a.equal(numbers, reshape(places, (1, count))), (size, count, *rest))
    many = reshape(updates, (1, *updates.shape))
    own = reshape(rows, (size, 1, *rows.shape[1:]))
    if kind == "mul":
        factors = where(chosen, many, node.number(1, rows.dtype))
        every = product_over(factors, (1,))
        return a.mul(rows, reshape(every, rows.shape))
    every = where(chosen, many, own)
    reduce = reduce_max if kind == "max" else reduce_min
    best = reduce(every, (1,))
    return (a.maximum if kind == "max" else a.minimum)(rows, best)


def scatter_elements(node: Node) -> Value:
    x, updates = node.tensor(0), node.tensor(2)
    axis = node.axis(node.get_int("axis", 0), x.rank)
    indices = _indices(node, 1, x.shape[axis])
    if indices.rank != x.rank or indices.shape != updates.shape:
        raise node.wrong("updates do not fit the indices", updates.type, indices.type)
    places = reshape(_place_along(x, x.shape, indices, axis), (product(indices.shape),))
    row = reshape(x, (product(x.shape),))
    flat = reshape(updates, (product(updates.shape),))
    kind = node.get_string("reduction", "none")
    return reshape(scatter_rows(node, row, places, flat, kind), x.shape)


def scatter_nd(node: Node) -> Value:
    x, indices, updates = node.tensor(0), _whole(node, node.tensor(1)), node.tensor(2)
    places, depth = _place_of_rows(node, x, indices, 0)
    rest = x.shape[depth:]
    if updates.shape != (*places.shape, *rest):
        raise node.wrong("updates do not fit the indices", updates.type, indices.type)
    rows = reshape(x, (product(x.shape[:depth]), *rest))
    many = reshape(updates, (product(places.shape), *rest))
    flat = reshape(places, (product(places.shape),))
    kind = node.get_string("reduction", "none")
    return reshape(scatter_rows(node, rows, flat, many, kind), x.shape)


def tensor_scatter(node: Node) -> Value:
    """A key-value cache gets new rows: at write_indices, on in a ring if circular."""
    past, update = node.tensor(0), node.tensor(1)
    axis = node.axis(node.get_int("axis", -2), past.rank)
    length, count = past.shape[axis], update.shape[axis]
    if axis == 0:
        raise node.wrong("the batch is no axis to write on", axis)
    ones = (1,) * (past.rank - 1)
    if node.has(2):
        first = reshape(cast(node.tensor(2), DType.I64), (past.shape[0], *ones))
    else:
        first = broadcast_to(node.number(0, DType.I64), (past.shape[0], *ones))
    along = tuple(count if k == axis else 1 for k in range(past.rank))
    places = a.add(first, iota(past, TensorType(DType.I64, along), axis))
    if node.get_string("mode", "linear") == "circular":
        places = modulo(places, dim_size(past, length, DType.I64))
    places = broadcast_to(places, update.shape)
    flat = reshape(_place_along(past, past.shape, places, axis), (product(update.shape),))
    row = reshape(past, (product(past.shape),))
    new = reshape(update, (product(update.shape),))
    return reshape(scatter_rows(node, row, flat, new, "none"), past.shape)


# ── others ───────────────────────────────────────────────────────────────────────────────


def one_hot(node: Node) -> Value:
    """Indices out of range make a row of off-values."""
    indices, values = node.tensor(0), node.tensor(2)
    depth = int(node.scalar(1))
    if not 0 < depth < 2**31:
        raise node.wrong("impossible depth", depth)
    axis = node.axis(node.get_int("axis", -1), indices.rank + 1)
    whole = cast(indices, DType.I64)
    whole = where(a.less(whole, 0), a.add(whole, depth), whole)
    column = reshape(whole, (*whole.shape[:axis], 1, *whole.shape[axis:]))
    shape = tuple(depth if k == axis else 1 for k in range(column.rank))
    places = iota(column, TensorType(DType.I64, shape), axis)
    off, on = (reshape(slice_(values, (k,), (k + 1,)), ()) for k in (0, 1))
    return where(a.equal(places, column), on, off)


def compress(node: Node) -> Value:
    """The condition must be known: the result's size depends on it."""
    x = node.tensor(0)
    kept = np.flatnonzero(node.known(1))
    axis = node.axis(node.get_int("axis"), x.rank) if node.given("axis") else 0
    if not node.given("axis"):
        x = reshape(x, (product(x.shape),))
    size = x.shape[axis]
    if isinstance(size, int) and kept.size and kept.max() >= size:
        raise node.wrong("the condition is longer than the axis", int(kept.max()) + 1, size)
    return indexing.gather(x, node.literal(kept), axis)


def non_zero(node: Node) -> Known:
    """Of known arrays only: the result's size depends on the elements."""
    return Known(np.array(np.nonzero(node.known(0)), np.int64))


TABLE: Table = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TensorScatter": tensor_scatter,
    "OneHot": one_hot,
    "Compress": compress,
    "NonZero": non_zero,
}
