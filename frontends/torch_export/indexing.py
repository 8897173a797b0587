"""Operators that look up and store by index.

brickc's gather and scatter-add work along one axis with indices from 0. Everything else is
brought to that form: several axes are laid out as one, negative indices are wrapped around,
and where torch overwrites, the last of several writes to one place wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks import arithmetic
from ...ir.bricks import reduce as reductions
from ...ir.bricks import shape as shapes
from ...ir.bricks.convert import cast
from ...ir.bricks.indexing import gather, scatter_add
from ...ir.bricks.source import dim_size, iota
from ...ir.dims import Size, product
from ...ir.dtypes import DType
from ...ir.types import TensorType
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import Number, Out, Result, Scalar, axis_of, fixed, fixed_shape, scalar, to
from .pointwise import truth
from .views import part

__all__ = ["INDEXING", "take_along"]

of = trace.of

#: elements of the table that says which write to a place is the last
_LARGEST_TABLE = 2**27


def wrapped(index: Tensor, size: Size) -> Tensor:
    """The index counted from 0. A literal that holds no negative number is left alone."""
    if not index.dtype.is_integer:
        raise UnsupportedError("an index by truth values", got=index.type, expected="integers")
    from ...ir.bricks.source import Iota

    if isinstance(index.brick, Iota):
        return index
    low = arithmetic.less(index, 0)
    count = dim_size(index, size, index.dtype)
    return of(arithmetic.where(low, arithmetic.add(index, count), index))


def _flat(x: Value) -> Value:
    return shapes.reshape(x, (x.type.size,))


def _flat_index(shape: Sequence[Size], axis: int, index: Tensor) -> Value:
    """For each element of ``index``: its place in an array of ``shape`` that is laid flat,
    where the index stands for the axis and the other axes keep their own."""
    kind = TensorType(index.dtype, index.shape)
    place: Value | None = None
    for a in range(len(shape)):
        step = product(shape[a + 1 :])
        at = wrapped(index, shape[a]) if a == axis else iota(index, kind, a)
        if step != 1:
            at = arithmetic.mul(at, dim_size(index, step, index.dtype))
        place = at if place is None else arithmetic.add(place, at)
    assert place is not None
    return place


def take_along(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """y[i, j] = x[index[i, j], j] for axis 0, and so on."""
    if x.rank <= 1:
        line = x if x.rank else shapes.reshape(x, (1,))
        return of(gather(line, wrapped(index, line.shape[0]), 0))
    return of(gather(_flat(x), _flat_index(x.shape, axis, index), 0))


def gather_(out: Out, x: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    if x.rank == 0:
        return of(shapes.reshape(take_along(x, 0, of(_flat(index))), index.shape))
    if index.rank == 0:
        return of(shapes.reshape(take_along(x, 0, of(_flat(index))), ()))
    return take_along(x, axis_of(x, dim), index)


def index_select(out: Out, x: Tensor, dim: int, index: Tensor) -> Tensor:
    if x.rank == 0:
        return of(shapes.reshape(x, ()))
    axis = axis_of(x, dim)
    line = of(_flat(index))
    return of(gather(x, wrapped(line, x.shape[axis]), axis))


def embedding(
    out: Out, weight: Tensor, indices: Tensor, padding_idx: int = -1,
    scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    if scale_grad_by_freq:
        raise UnsupportedError("an embedding whose gradient is scaled by frequency")
    if padding_idx >= 0:
        # the padding's row is looked up, but not trained
        from ...ir.bricks.convert import stop_gradient

        rows = iota(indices, TensorType(DType.I64, (weight.shape[0], 1)), 0)
        padding = arithmetic.equal(rows, padding_idx)
        weight = of(arithmetic.where(padding, stop_gradient(weight), weight))
    return of(gather(weight, indices, 0))


def take(out: Out, x: Tensor, index: Tensor) -> Tensor:
    line = of(_flat(x))
    return of(gather(line, wrapped(index, line.shape[0]), 0))


class _Places:
    """Advanced indexing: which axes are looked up, and where in them."""

    def __init__(self, x: Tensor, indices: Sequence[Tensor | None]) -> None:
        given = {a: i for a, i in enumerate(indices) if i is not None}
        if not given or max(given) >= x.rank:
            raise ImportModelError("indices that do not fit", got=len(indices), expected=x.type)
        self.axes = sorted(given)
        rest = [a for a in range(x.rank) if a not in given]
        together = self.axes == list(range(self.axes[0], self.axes[-1] + 1))
        #: where the axes of the indices stand in the result
        self.axis = self.axes[0] if together else 0
        self.order = [*rest[: self.axis], *self.axes, *rest[self.axis :]]
        self.shape = tuple(x.shape[a] for a in self.order)
        self.count = product(x.shape[a] for a in self.axes)
        place: Value | None = None
        for k, a in enumerate(self.axes):
            step = product(x.shape[b] for b in self.axes[k + 1 :])
            at: Value = cast(wrapped(given[a], x.shape[a]), DType.I64)
            if step != 1:
                at = arithmetic.mul(at, dim_size(at, step, DType.I64))
            place = at if place is None else arithmetic.add(place, at)
        assert place is not None
        self.place = place

    def laid_out(self, x: Value) -> Value:
        """x with the indexed axes as one, at ``axis``."""
        moved = x if self.order == list(range(x.rank)) else shapes.transpose(x, self.order)
        k = len(self.axes)
        return shapes.reshape(
            moved, (*moved.shape[: self.axis], self.count, *moved.shape[self.axis + k :])
        )

    def put_back(self, y: Value) -> Tensor:
        """The inverse of ``laid_out``."""
        wide = shapes.reshape(y, self.shape)
        back = [self.order.index(a) for a in range(len(self.order))]
        return of(wide if back == list(range(len(back))) else shapes.transpose(wide, back))


def index(out: Out, x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    if all(i is None for i in indices):
        return x
    places = _Places(x, indices)
    return of(gather(places.laid_out(x), places.place, places.axis))


def index_put(
    out: Out, x: Tensor, indices: Sequence[Tensor | None], values: Tensor,
    accumulate: bool = False,
) -> Tensor:  # fmt: skip
    if len([i for i in indices if i is not None]) == 1 and _is_mask(x, indices):
        mask = indices[0]
        assert mask is not None
        if values.type.size != 1 or accumulate:
            raise UnsupportedError("values stored where a mask is true", got=values.type)
        wide = shapes.reshape(mask, (*mask.shape, *(1,) * (x.rank - mask.rank)))
        single = shapes.reshape(to(values, x.dtype), ())
        return of(arithmetic.where(wide, single, x))
    places = _Places(x, indices)
    line = places.laid_out(x)
    shape = (*line.shape[: places.axis], *places.place.shape, *line.shape[places.axis + 1 :])
    values = of(shapes.broadcast_to(to(values, x.dtype), shape))
    k = places.place.rank
    flat_values = shapes.reshape(
        values, (*shape[: places.axis], places.place.type.size, *shape[places.axis + k :])
    )
    flat_place = of(_flat(places.place))
    if accumulate:
        added = scatter_add(flat_place, flat_values, places.axis, places.count)
        return places.put_back(arithmetic.add(line, added))
    return places.put_back(_overwritten(of(line), places.axis, flat_place, of(flat_values)))


def _is_mask(x: Tensor, indices: Sequence[Tensor | None]) -> bool:
    first = indices[0]
    return first is not None and first.dtype is DType.BOOL


def _overwritten(x: Tensor, axis: int, index: Tensor, values: Tensor) -> Tensor:
    """x with rows replaced: row index[k] becomes values[k], the last write wins."""
    n, m = fixed(x.shape[axis]), fixed(index.shape[0])
    if m == 0:
        return x
    _check_table(n * m)
    # [n, m]: write k goes to row j; which is the last one, counted from 1, if any
    rows = iota(index, TensorType(index.dtype, (n, 1)), 0)
    hits = cast(arithmetic.equal(rows, shapes.reshape(index, (1, m))), DType.I64)
    numbers = arithmetic.add(iota(index, TensorType(DType.I64, (1, m)), 1), 1)
    last = of(reductions.reduce_max(arithmetic.mul(hits, numbers), (1,), False))
    written = arithmetic.greater(last, 0)
    pick = arithmetic.sub(arithmetic.maximum(last, 1), 1)
    fresh = gather(values, pick, axis)
    column = shapes.reshape(written, (n, *(1,) * (x.rank - axis - 1)))
    return of(arithmetic.where(column, fresh, x))


def _check_table(size: int) -> None:
    if size > _LARGEST_TABLE:
        raise UnsupportedError("so many writes to so many places", got=size,
                               expected=f"at most {_LARGEST_TABLE} pairs")  # fmt: skip


def index_add(
    out: Out, x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1
) -> Tensor:
    axis = axis_of(x, dim)
    if x.rank == 0:
        total = reductions.reduce_sum(source, None, False)
        return of(arithmetic.add(x, arithmetic.mul(total, alpha)))
    line = of(_flat(index))
    parts: Value = to(source, x.dtype)
    if alpha != 1:
        parts = arithmetic.mul(parts, float(alpha))
    added = scatter_add(wrapped(line, x.shape[axis]), parts, axis, x.shape[axis])
    return of(arithmetic.add(x, added))


def index_copy(out: Out, x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    if x.rank == 0:
        return of(shapes.reshape(source, ()))
    axis = axis_of(x, dim)
    line = wrapped(of(_flat(index)), x.shape[axis])
    if source.rank == 0:
        source = of(shapes.reshape(source, (1,)))
    return _overwritten(x, axis, line, source)


def index_fill(out: Out, x: Tensor, dim: int, index: Tensor, value: Scalar) -> Tensor:
    if x.rank == 0:
        return to(value, x.dtype)
    axis = axis_of(x, dim)
    line = wrapped(of(_flat(index)), x.shape[axis])
    n, m = x.shape[axis], line.shape[0]
    rows = iota(line, TensorType(line.dtype, (n, 1)), 0)
    hits = cast(arithmetic.equal(rows, shapes.reshape(line, (1, m))), DType.I64)
    written = arithmetic.greater(reductions.reduce_sum(hits, (1,), False), 0)
    column = shapes.reshape(written, (n, *(1,) * (x.rank - axis - 1)))
    return of(arithmetic.where(column, to(value, x.dtype), x))


# ── scatter ──────────────────────────────────────────────────────────────────────────────


def _line(x: Tensor) -> Tensor:
    return of(shapes.reshape(x, (1,))) if x.rank == 0 else x


def _cut(src: Tensor, index: Tensor) -> Tensor:
    """The part of ``src`` that an index of a smaller shape reads."""
    if src.shape == index.shape:
        return src
    return of(shapes.slice_(src, [0] * src.rank, index.shape))


def scatter_add_(out: Out, x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    line, index, src = _line(x), _line(index), _line(src)
    if index.type.size == 0:
        return x
    values = _flat(_cut(to(src, x.dtype), index))
    place = _flat(_flat_index(line.shape, axis_of(line, dim), index))
    added = scatter_add(place, values, 0, line.type.size)
    return of(shapes.reshape(arithmetic.add(_flat(line), added), x.shape))


def scatter_reduce(
    out: Out, x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
    include_self: bool = True,
) -> Tensor:  # fmt: skip
    if reduce not in ("sum", "mean") or not x.dtype.is_float:
        raise UnsupportedError("a scatter with such a reduction", got=f"{reduce} of {x.dtype}")
    ones = full_as(src, 1.0)
    nothing = full_as(x, 0.0)
    count = scatter_add_(out, full_as(x, 1.0) if include_self else nothing, dim, index, ones)
    total = scatter_add_(out, x if include_self else nothing, dim, index, to(src, x.dtype))
    if reduce == "mean":
        total = of(arithmetic.div(total, arithmetic.maximum(count, 1.0)))
    if include_self:
        return total
    return of(arithmetic.where(arithmetic.greater(count, 0.0), total, x))


def full_as(x: Tensor, value: float) -> Tensor:
    """The number in x's dtype and shape."""
    return of(shapes.broadcast_to(scalar(value, x.dtype), x.shape))


def scatter_src(out: Out, x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    line, index, src = _line(x), _line(index), _line(src)
    if index.type.size == 0:
        return x
    axis = axis_of(line, dim)
    values = _cut(to(src, x.dtype), index)
    shape, inner = fixed_shape(line), fixed_shape(index)
    n, m = shape[axis], inner[axis]
    _check_table(n * fixed(index.type.size))
    # [.., n, m]: write k along the axis goes to place j
    order = [*(a for a in range(line.rank) if a != axis), axis]
    moved = shapes.transpose(wrapped(index, n), order)
    wide = shapes.reshape(moved, [*inner[:axis], *inner[axis + 1 :], 1, m])
    places = iota(index, TensorType(index.dtype, (n, 1)), 0)
    hits = cast(arithmetic.equal(places, wide), DType.I64)
    numbers = arithmetic.add(iota(index, TensorType(DType.I64, (1, m)), 1), 1)
    last = reductions.reduce_max(arithmetic.mul(hits, numbers), (hits.rank - 1,), False)
    back = [line.rank - 1 if a == axis else a - (a > axis) for a in range(line.rank)]
    last = shapes.transpose(last, back)
    written = arithmetic.greater(last, 0)
    pick = of(arithmetic.sub(arithmetic.maximum(last, 1), 1))
    fresh = take_along(of(values), axis, pick)
    merged = arithmetic.where(written, fresh, _corner(line, pick))
    return of(shapes.reshape(_pasted(line, of(merged)), x.shape))


def _corner(x: Tensor, small: Tensor) -> Value:
    """The corner of x that has the smaller tensor's shape."""
    return x if x.shape == small.shape else shapes.slice_(x, [0] * x.rank, small.shape)


def _pasted(x: Tensor, corner: Tensor) -> Value:
    """x with its first corner replaced."""
    y: Value = corner
    for a in range(x.rank - 1, -1, -1):
        if y.shape[a] != x.shape[a]:
            rest = part(x, a, fixed(y.shape[a]), x.shape[a])
            # axes before this one are still short in y
            bounds = [y.shape[b] if b < a else n for b, n in enumerate(rest.shape)]
            rest = shapes.slice_(rest, [0] * x.rank, bounds)
            y = shapes.concat([y, rest], a)
    return y


def scatter_value(out: Out, x: Tensor, dim: int, index: Tensor, value: Number) -> Tensor:
    line, index = _line(x), _line(index)
    if index.type.size == 0:
        return x
    place = _flat(_flat_index(line.shape, axis_of(line, dim), index))
    ones = shapes.broadcast_to(scalar(1.0, DType.F32), place.shape)
    hits = arithmetic.greater(scatter_add(place, ones, 0, line.type.size), 0.0)
    merged = arithmetic.where(hits, scalar(value, x.dtype), _flat(line))
    return of(shapes.reshape(merged, x.shape))


def masked_fill(out: Out, x: Tensor, mask: Tensor, value: Scalar) -> Tensor:
    return of(arithmetic.where(truth(mask), to(value, x.dtype), x))


def one_hot(out: Out, x: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 1:
        raise UnsupportedError("one_hot of as many classes as the data have")
    places = iota(x, TensorType(x.dtype, (num_classes,)), 0)
    column = shapes.reshape(x, (*x.shape, 1))
    return to(of(arithmetic.equal(places, column)), DType.I64)


INDEXING: dict[str, Callable[..., Result]] = {
    "gather.default": gather_, "index_select.default": index_select,
    "embedding.default": embedding, "take.default": take, "index.Tensor": index,
    "index_put.default": index_put, "_unsafe_index.Tensor": index,
    "_unsafe_index_put.default": index_put,
    "index_add.default": index_add, "index_copy.default": index_copy,
    "index_fill.int_Scalar": index_fill, "index_fill.int_Tensor": index_fill,
    "scatter_reduce.two": scatter_reduce, "scatter_add.default": scatter_add_,
    "scatter.src": scatter_src, "scatter.value": scatter_value,
    "masked_fill.Scalar": masked_fill, "masked_fill.Tensor": masked_fill,
    "one_hot.default": one_hot,
}  # fmt: skip
