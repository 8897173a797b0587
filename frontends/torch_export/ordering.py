"""Operators that put elements in order, composed of comparisons.

An element's rank is the number of elements that come before it, ties in the order of their
index: n² comparisons for an axis of n elements, all of them independent, and a derivative that
follows the elements to their new places. Axes that are too long for that are refused.
"""

from __future__ import annotations

from collections.abc import Callable

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks import arithmetic, reduce
from ...ir.bricks import shape as shapes
from ...ir.bricks.convert import stop_gradient
from ...ir.bricks.source import iota
from ...ir.dims import maximum
from ...ir.dtypes import DType
from ...ir.types import TensorType
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import Number, Out, Result, axis_of, fixed, scalar, to
from .indexing import take_along
from .reductions import scan, vector_norm
from .views import part

__all__ = ["ORDERING"]

of = trace.of

#: comparisons of one operator
_MOST = 2**27


def _before(a: Value, b: Value, descending: bool) -> Value:
    """a comes before b; NaN counts as the largest number."""
    low, high = (b, a) if descending else (a, b)
    less = arithmetic.less(low, high)
    if not a.dtype.is_float:
        return less
    number = arithmetic.equal(low, low)
    return arithmetic.logical_or(
        less, arithmetic.logical_and(number, arithmetic.not_equal(high, high))
    )


def _sorted(x: Tensor, axis: int, descending: bool) -> tuple[Tensor, Tensor]:
    """The elements of an axis in order, and the index that each of them had."""
    if x.rank == 0:
        return x, scalar(0, DType.I64)
    n = fixed(x.shape[axis], "an axis that is sorted")
    if maximum(x.type.size) * n > _MOST:
        raise UnsupportedError("so long an axis put in order", got=x.type,
                               expected=f"at most {_MOST} comparisons")  # fmt: skip
    if n == 0:
        return x, of(shapes.broadcast_to(scalar(0, DType.I64), x.shape))
    # [.., i, j, ..]: does element j come before element i?
    plain = stop_gradient(to(x, DType.I32) if x.dtype is DType.BOOL else x)
    rows = shapes.reshape(plain, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
    cols = shapes.reshape(plain, (*x.shape[:axis], 1, *x.shape[axis:]))
    table = (*(1,) * axis, n, n, *(1,) * (x.rank - axis - 1))
    kind = TensorType(DType.I64, table)
    i, j = iota(rows, kind, axis), iota(rows, kind, axis + 1)
    earlier = arithmetic.less(j, i)
    after = _before(rows, cols, descending)
    tie = arithmetic.logical_not(arithmetic.logical_or(_before(cols, rows, descending), after))
    ahead = arithmetic.logical_or(
        _before(cols, rows, descending), arithmetic.logical_and(tie, earlier)
    )
    rank = reduce.reduce_sum(to(of(ahead), DType.I64), (axis + 1,), True)
    # the element of rank j goes to place j: [.., i, j, ..] has one 1 in each column
    hit = to(of(arithmetic.equal(rank, j)), DType.I64)
    index = of(reduce.reduce_sum(arithmetic.mul(hit, i), (axis,), False))
    return take_along(x, axis, index), index


def sort(out: Out, x: Tensor, dim: int = -1, descending: bool = False) -> Result:
    return _sorted(x, axis_of(x, dim), descending)


def sort_stable(
    out: Out, x: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> Result:
    return _sorted(x, axis_of(x, dim), descending)


def argsort(out: Out, x: Tensor, dim: int = -1, descending: bool = False) -> Tensor:
    return _sorted(x, axis_of(x, dim), descending)[1]


def topk(
    out: Out, x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> Result:
    if x.rank == 0:
        return x, scalar(0, DType.I64)
    axis = axis_of(x, dim)
    if not 0 <= k <= fixed(x.shape[axis]):
        raise ImportModelError("more elements than there are", got=k, expected=x.type)
    values, index = _sorted(x, axis, largest)
    return of(part(values, axis, 0, k)), of(part(index, axis, 0, k))


def kthvalue(out: Out, x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Result:
    if x.rank == 0:
        return x, scalar(0, DType.I64)
    axis = axis_of(x, dim)
    if not 1 <= k <= fixed(x.shape[axis]):
        raise ImportModelError("no such element", got=k, expected=x.type)
    return _at(_sorted(x, axis, False), axis, k - 1, keepdim)


def _at(pair: tuple[Tensor, Tensor], axis: int, place: int, keepdim: bool) -> Result:
    cut = [part(v, axis, place, place + 1) for v in pair]
    if keepdim:
        return of(cut[0]), of(cut[1])
    shape = [n for a, n in enumerate(cut[0].shape) if a != axis]
    return of(shapes.reshape(cut[0], shape)), of(shapes.reshape(cut[1], shape))


# ── running extrema ──────────────────────────────────────────────────────────────────────


def _running(larger: bool) -> Callable[..., Result]:
    def convert(out: Out, x: Tensor, dim: int) -> Result:
        if x.rank == 0:
            return x, scalar(0, DType.I64)
        axis = axis_of(x, dim)
        both = arithmetic.maximum if larger else arithmetic.minimum
        if not x.dtype.is_float:
            raise UnsupportedError("running extrema of integers", got=x.dtype)
        plain = of(stop_gradient(x))
        best = scan(plain, axis, both, -float("inf") if larger else float("inf"))
        # the last place that is as good as all before it
        here = iota(x, TensorType(DType.I64, x.shape), axis)
        good = arithmetic.logical_or(
            arithmetic.equal(plain, best), arithmetic.not_equal(plain, plain)
        )
        index = scan(of(arithmetic.where(good, here, -1)), axis, arithmetic.maximum, -1)
        return take_along(x, axis, index), index

    return convert


# ── places among sorted numbers, distances ───────────────────────────────────────────────


def bucketize(
    out: Out, x: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    return searchsorted(out, boundaries, x, out_int32=out_int32, right=right)


def searchsorted(
    out: Out, sorted_sequence: Tensor, x: Tensor, *, out_int32: bool = False,
    right: bool = False, side: str | None = None, sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """How many of the sorted numbers are smaller (or, to the right, no larger)."""
    if sorter is not None:
        sorted_sequence = take_along(sorted_sequence, sorted_sequence.rank - 1, sorter)
    line = sorted_sequence
    if line.rank > 1:
        line = of(shapes.reshape(line, (*line.shape[:-1], 1, line.shape[-1])))
    if maximum(x.type.size) * maximum(line.shape[-1]) > _MOST:
        raise UnsupportedError("so many numbers to be looked up", got=x.type)
    column = shapes.reshape(x, (*x.shape, 1))
    passes = arithmetic.less_equal if right or side == "right" else arithmetic.less
    below = to(of(passes(line, column)), DType.I32 if out_int32 else DType.I64)
    return of(reduce.reduce_sum(below, (below.rank - 1,), False))


def dist(out: Out, x: Tensor, other: Tensor, p: Number = 2) -> Tensor:
    return vector_norm(out, of(arithmetic.sub(x, other)), p)


def cdist(out: Out, x1: Tensor, x2: Tensor, p: float, compute_mode: int | None = None) -> Tensor:
    """Distances between all rows of two matrices."""
    rows = shapes.reshape(x1, (*x1.shape[:-1], 1, x1.shape[-1]))
    cols = shapes.reshape(x2, (*x2.shape[:-2], 1, *x2.shape[-2:]))
    return vector_norm(out, of(arithmetic.sub(rows, cols)), p, -1)


ORDERING: dict[str, Callable[..., Result]] = {
    "sort.default": sort, "sort.stable": sort_stable, "argsort.default": argsort,
    "topk.default": topk, "kthvalue.default": kthvalue,
    "cummax.default": _running(True), "cummin.default": _running(False),
    "bucketize.Tensor": bucketize, "searchsorted.Tensor": searchsorted,
    "dist.default": dist, "_cdist_forward.default": cdist, "cdist.default": cdist,
}  # fmt: skip
