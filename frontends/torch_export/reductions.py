"""Operators that reduce or scan an axis: sums, extrema, moments, norms, softmax, cumulation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...errors import UnsupportedError
from ...ir.bricks import arithmetic, normalization, reduce
from ...ir.bricks.shape import broadcast_to, pad, reshape, slice_
from ...ir.bricks.source import dim_size
from ...ir.dims import product
from ...ir.dtypes import DType
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import Number, Out, Result, axes_of, axis_of, fixed, floats, scalar, to
from .pointwise import logaddexp, truth

__all__ = ["REDUCTIONS"]

of = trace.of
Axes = int | Sequence[int] | None


def _summable(x: Tensor, dtype: DType | None) -> Tensor:
    """Truth values and integers are summed as i64."""
    return to(x, dtype or (x.dtype if x.dtype.is_float else DType.I64))


def sum_(
    out: Out, x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False,
    *, dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    x = _summable(x, dtype)
    return of(reduce.reduce_sum(x, axes_of(x, dim), keepdim))


def sum_all(out: Out, x: Tensor, *, dtype: DType | None = None) -> Tensor:
    return sum_(out, x, dtype=dtype)


def mean(
    out: Out, x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False,
    *, dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    x = to(x, dtype or x.dtype)
    axes = axes_of(x, dim)
    total = reduce.reduce_sum(x, axes, keepdim)
    return of(arithmetic.div(total, _count(x, axes)))


def mean_all(out: Out, x: Tensor, *, dtype: DType | None = None) -> Tensor:
    return mean(out, x, dtype=dtype)


def _count(x: Tensor, axes: Sequence[int]) -> Value:
    return dim_size(x, product(x.shape[a] for a in axes), x.dtype)


def _extremum(over: Callable[..., Value]) -> Callable[..., Tensor]:
    def convert(
        out: Out, x: Tensor, dim: Sequence[int] | int = (), keepdim: bool = False
    ) -> Tensor:
        if x.dtype is DType.BOOL:
            number = over(to(x, DType.I32), axes_of(x, dim), keepdim)
            return truth(of(number))
        return of(over(x, axes_of(x, dim), keepdim))

    return convert


def _extremum_all(over: Callable[..., Value]) -> Callable[..., Tensor]:
    def convert(out: Out, x: Tensor) -> Tensor:
        return of(over(x, None, False))

    return convert


def _with_index(place: Callable[..., Value]) -> Callable[..., Result]:
    """Values and indices along an axis; the derivative goes to the index that is returned."""

    def convert(out: Out, x: Tensor, dim: int, keepdim: bool = False) -> Result:
        if x.rank == 0:
            return x, scalar(0, DType.I64)
        axis = axis_of(x, dim)
        found = to(of(place(x, axis, True)), DType.I64)
        from .indexing import take_along

        values = take_along(x, axis, found)
        if not keepdim:
            shape = [n for a, n in enumerate(x.shape) if a != axis]
            values, found = of(reshape(values, shape)), of(reshape(found, shape))
        return values, found

    return convert


def _arg(place: Callable[..., Value]) -> Callable[..., Tensor]:
    def convert(out: Out, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
        if x.rank == 0:
            return scalar(0, DType.I64)
        if dim is None:
            flat = reshape(x, (x.type.size,))
            found = to(of(place(flat, 0, False)), DType.I64)
            return of(reshape(found, (1,) * x.rank)) if keepdim else found
        return to(of(place(x, axis_of(x, dim), keepdim)), DType.I64)

    return convert


def any_(out: Out, x: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    return of(arithmetic.greater(_hits(truth(x), dim, keepdim), 0))


def all_(out: Out, x: Tensor, dim: Axes = None, keepdim: bool = False) -> Tensor:
    return of(arithmetic.equal(_hits(of(arithmetic.logical_not(truth(x))), dim, keepdim), 0))


def _hits(x: Tensor, dim: Axes, keepdim: bool) -> Value:
    return reduce.reduce_sum(to(x, DType.I64), axes_of(x, dim), keepdim)


def prod_dim(
    out: Out, x: Tensor, dim: int, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The product by halves: its derivative is exact where elements are 0."""
    x = _summable(x, dtype)
    if x.rank == 0:
        return x
    axis = axis_of(x, dim)
    n = fixed(x.shape[axis], "an axis whose product is taken")
    if n == 0:
        one = broadcast_to(scalar(1, x.dtype), (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
        x, n = of(one), 1
    while n > 1:
        half = n // 2
        both = arithmetic.mul(_part(x, axis, 0, half), _part(x, axis, half, 2 * half))
        if n % 2:
            from ...ir.bricks.shape import concat

            both = concat([both, _part(x, axis, n - 1, n)], axis)
        x, n = of(both), half + n % 2
    if keepdim:
        return x
    return of(reshape(x, [size for a, size in enumerate(x.shape) if a != axis]))


def _part(x: Value, axis: int, start: int, stop: int) -> Value:
    lo, hi = [0] * x.rank, list(x.shape)
    lo[axis], hi[axis] = start, stop
    return slice_(x, lo, hi)


def prod_all(out: Out, x: Tensor, *, dtype: DType | None = None) -> Tensor:
    flat = of(reshape(x, (x.type.size,)))
    return prod_dim(out, flat, 0, dtype=dtype)


# ── moments and norms ────────────────────────────────────────────────────────────────────


def _moments(
    x: Tensor, axes: tuple[int, ...], keepdim: bool, correction: Number
) -> tuple[Value, Value]:
    if not x.dtype.is_float:
        raise UnsupportedError("a variance of integers", got=x.dtype)
    centre = arithmetic.div(reduce.reduce_sum(x, axes, True), _count(x, axes))
    squares = reduce.reduce_sum(arithmetic.square(arithmetic.sub(x, centre)), axes, keepdim)
    rest = arithmetic.maximum(arithmetic.sub(_count(x, axes), float(correction)), 0.0)
    middle = centre if keepdim else reshape(centre, squares.shape)
    return arithmetic.div(squares, rest), middle


def var(
    out: Out, x: Tensor, dim: Axes = None, *, correction: Number | None = None,
    keepdim: bool = False,
) -> Tensor:  # fmt: skip
    spread, _ = _moments(x, axes_of(x, dim), keepdim, 1 if correction is None else correction)
    return of(spread)


def var_mean(
    out: Out, x: Tensor, dim: Axes = None, *, correction: Number | None = None,
    keepdim: bool = False,
) -> Result:  # fmt: skip
    return _moments(x, axes_of(x, dim), keepdim, 1 if correction is None else correction)


def std(
    out: Out, x: Tensor, dim: Axes = None, *, correction: Number | None = None,
    keepdim: bool = False,
) -> Tensor:  # fmt: skip
    return of(root(var(out, x, dim, correction=correction, keepdim=keepdim)))


def std_mean(
    out: Out, x: Tensor, dim: Axes = None, *, correction: Number | None = None,
    keepdim: bool = False,
) -> Result:  # fmt: skip
    spread, middle = var_mean(out, x, dim, correction=correction, keepdim=keepdim)
    return of(root(spread)), middle


def root(x: Value) -> Value:
    """√x with the derivative 0 at 0, as torch's norms and deviations have it."""
    nothing = arithmetic.equal(x, 0.0)
    return arithmetic.where(nothing, 0.0, arithmetic.sqrt(arithmetic.where(nothing, 1.0, x)))


def vector_norm(
    out: Out, x: Tensor, ord: Number = 2, dim: Axes = None, keepdim: bool = False,
    *, dtype: DType | None = None,
) -> Tensor:  # fmt: skip
    x = to(x, dtype or x.dtype)
    axes = axes_of(x, dim)
    size = arithmetic.abs(x)
    if ord == math.inf:
        return of(reduce.reduce_max(size, axes, keepdim))
    if ord == -math.inf:
        return of(reduce.reduce_min(size, axes, keepdim))
    if ord == 0:
        return of(reduce.reduce_sum(to(of(arithmetic.not_equal(x, 0.0)), x.dtype), axes, keepdim))
    if ord == 1:
        return of(reduce.reduce_sum(size, axes, keepdim))
    if ord == 2:
        return of(root(reduce.reduce_sum(arithmetic.square(x), axes, keepdim)))
    # |x|^p has no finite derivative at 0 for p < 1; torch's is 0
    nothing = arithmetic.equal(x, 0.0)
    safe = arithmetic.where(nothing, 1.0, size)
    at_zero = 0.0 if ord > 0 else math.inf
    powers = arithmetic.where(nothing, at_zero, arithmetic.power(safe, float(ord)))
    total = reduce.reduce_sum(powers, axes, keepdim)
    empty = arithmetic.equal(total, at_zero)
    rooted = arithmetic.power(arithmetic.where(empty, 1.0, total), 1.0 / float(ord))
    return of(arithmetic.where(empty, 0.0, rooted))


def norm_scalar(out: Out, x: Tensor, p: Number = 2) -> Tensor:
    return vector_norm(out, x, p)


def norm_dim(
    out: Out, x: Tensor, p: Number | None, dim: Sequence[int] | int, keepdim: bool = False
) -> Tensor:
    return vector_norm(out, x, 2 if p is None else p, dim, keepdim)


def logsumexp(out: Out, x: Tensor, dim: Sequence[int] | int, keepdim: bool = False) -> Tensor:
    (x,) = floats(x)
    axes = axes_of(x, dim)
    if not axes:
        return x
    top = reduce.reduce_max(x, axes, True)
    # where all are -inf, or one is inf, the maximum is the answer and x - max is none
    top = arithmetic.where(arithmetic.equal(arithmetic.abs(top), math.inf), 0.0, top)
    from ...ir.bricks.convert import stop_gradient

    top = stop_gradient(top)
    total = reduce.reduce_sum(arithmetic.exp(arithmetic.sub(x, top)), axes, keepdim)
    shift = top if keepdim else reshape(top, total.shape)
    return of(arithmetic.add(arithmetic.log(total), shift))


def softmax(out: Out, x: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    x = to(x, dtype or x.dtype)
    return of(normalization.softmax(x, axis_of(x, dim))) if x.rank else _lone(x, 1.0)


def log_softmax(out: Out, x: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    x = to(x, dtype or x.dtype)
    return of(normalization.log_softmax(x, axis_of(x, dim))) if x.rank else _lone(x, 0.0)


def core_softmax(out: Out, x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    return softmax(out, x, dim, DType.F32 if half_to_float else None)


def core_log_softmax(out: Out, x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    return log_softmax(out, x, dim, DType.F32 if half_to_float else None)


def safe_softmax(out: Out, x: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """A softmax that is 0 where a whole row is -inf."""
    return masked_softmax(to(x, dtype or x.dtype), axis_of(x, dim))


def masked_softmax(x: Tensor, axis: int) -> Tensor:
    """A softmax that is 0, without a derivative, where a whole row is -inf."""
    if x.rank == 0:
        return _lone(x, 1.0)
    dead = arithmetic.equal(reduce.reduce_max(x, (axis,), True), -math.inf)
    live = arithmetic.where(dead, 0.0, x)
    return of(arithmetic.where(dead, 0.0, normalization.softmax(live, axis)))


def _lone(x: Tensor, value: float) -> Tensor:
    """What a softmax of one element is."""
    return of(arithmetic.add(arithmetic.mul(x, 0.0), value))


# ── cumulation ───────────────────────────────────────────────────────────────────────────


def scan(x: Tensor, axis: int, combine: Callable[[Value, Value], Value], neutral: float) -> Tensor:
    """y_i = x_0 ∘ … ∘ x_i in log2(n) steps, each of which doubles the reach."""
    n = fixed(x.shape[axis], "an axis that is cumulated")
    reach = 1
    y: Value = x
    while reach < n:
        lo = [reach if a == axis else 0 for a in range(x.rank)]
        moved = pad(_part(y, axis, 0, n - reach), lo, [0] * x.rank, neutral)
        y = combine(moved, y)
        reach *= 2
    return of(y)


def cumsum(out: Out, x: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    x = _summable(x, dtype)
    return scan(x, axis_of(x, dim), arithmetic.add, 0.0) if x.rank else x


def cumprod(out: Out, x: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    x = _summable(x, dtype)
    return scan(x, axis_of(x, dim), arithmetic.mul, 1.0) if x.rank else x


def logcumsumexp(out: Out, x: Tensor, dim: int) -> Tensor:
    def combine(a: Value, b: Value) -> Value:
        return logaddexp(out, of(a), of(b))

    return scan(x, axis_of(x, dim), combine, -math.inf) if x.rank else x


REDUCTIONS: dict[str, Callable[..., Result]] = {
    "sum.dim_IntList": sum_, "sum.default": sum_all, "mean.dim": mean, "mean.default": mean_all,
    "amax.default": _extremum(reduce.reduce_max), "amin.default": _extremum(reduce.reduce_min),
    "max.default": _extremum_all(reduce.reduce_max),
    "min.default": _extremum_all(reduce.reduce_min),
    "max.dim": _with_index(reduce.arg_max), "min.dim": _with_index(reduce.arg_min),
    "argmax.default": _arg(reduce.arg_max), "argmin.default": _arg(reduce.arg_min),
    "any.default": any_, "any.dim": any_, "any.dims": any_,
    "all.default": all_, "all.dim": all_, "all.dims": all_,
    "prod.default": prod_all, "prod.dim_int": prod_dim,
    "var.correction": var, "std.correction": std, "var_mean.correction": var_mean,
    "std_mean.correction": std_mean,
    "linalg_vector_norm.default": vector_norm, "norm.Scalar": norm_scalar,
    "norm.ScalarOpt_dim": norm_dim,
    "logsumexp.default": logsumexp,
    "softmax.int": softmax, "log_softmax.int": log_softmax,
    "_safe_softmax.default": safe_softmax, "_softmax.default": core_softmax,
    "_log_softmax.default": core_log_softmax,
    "cumsum.default": cumsum, "cumprod.default": cumprod, "logcumsumexp.default": logcumsumexp,
}  # fmt: skip
