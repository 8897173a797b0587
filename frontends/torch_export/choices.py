"""Comparisons, logic and choice on every element: bounds, masks, extrema."""

from __future__ import annotations

import math
from collections.abc import Callable

from ...errors import UnsupportedError
from ...ir.bricks import arithmetic
from ...ir.bricks.shape import broadcast_to
from ...ir.dtypes import DType
from ...ir.expression import operand
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import Number, Out, Scalar, floats, promote, promoted, scalar, to
from .pointwise import Converter, binary, infinite, truth

__all__ = ["CHOICES"]

x0 = operand(0)
of = trace.of


def bitwise(function: Callable[[Value, Value], Value]) -> Converter:
    """A connective of truth values. brickc has no bits of integers."""

    def convert(out: Out, x: Scalar, other: Scalar) -> Tensor:
        a, b = promote(x, other)
        if a.dtype is not DType.BOOL:
            raise UnsupportedError("bits of integers", got=a.dtype, expected="bool")
        return of(function(a, b))

    return convert


def logical(function: Callable[[Value, Value], Value]) -> Converter:
    """A connective; numbers are true unless they are 0."""

    def convert(out: Out, x: Tensor, other: Tensor) -> Tensor:
        return of(function(truth(x), truth(other)))

    return convert


def logical_not(out: Out, x: Tensor) -> Tensor:
    return of(arithmetic.logical_not(truth(x)))


def bitwise_not(out: Out, x: Tensor) -> Tensor:
    if x.dtype is DType.BOOL:
        return of(arithmetic.logical_not(x))
    return of(arithmetic.sub(arithmetic.neg(x), 1))


def logical_xor(out: Out, x: Tensor, other: Tensor) -> Tensor:
    return of(arithmetic.not_equal(truth(x), truth(other)))


def isnan(out: Out, x: Tensor) -> Tensor:
    return of(arithmetic.not_equal(x, x))


def isinf(out: Out, x: Tensor) -> Tensor:
    return of(infinite(*floats(x)))


def isfinite(out: Out, x: Tensor) -> Tensor:
    (a,) = floats(x)
    return of(arithmetic.less(arithmetic.abs(a), math.inf))


def isposinf(out: Out, x: Tensor) -> Tensor:
    (a,) = floats(x)
    return of(arithmetic.equal(a, math.inf))


def isneginf(out: Out, x: Tensor) -> Tensor:
    (a,) = floats(x)
    return of(arithmetic.equal(a, -math.inf))


def signbit(out: Out, x: Tensor) -> Tensor:
    if not x.dtype.is_float:
        return (
            of(arithmetic.less(x, 0))
            if x.dtype.is_integer
            else of(arithmetic.logical_and(x, arithmetic.logical_not(x)))
        )
    low = arithmetic.less(x, 0)
    return of(arithmetic.logical_or(low, arithmetic.less(arithmetic.reciprocal(x), 0)))


def where(out: Out, condition: Tensor, x: Scalar, other: Scalar) -> Tensor:
    a, b = promote(x, other)
    return of(arithmetic.where(truth(condition), a, b))


def clamp(out: Out, x: Tensor, min: Number | None = None, max: Number | None = None) -> Tensor:
    dtype = promoted(x, min, max)
    x = to(x, dtype)
    if min is not None and max is not None and min > max:
        return of(broadcast_to(scalar(max, dtype), x.shape))
    for bound in (min, max):
        if bound is not None and bound != bound:
            return of(broadcast_to(scalar(bound, dtype), x.shape))
    lo = None if min is None or min == -math.inf else float(min)
    hi = None if max is None or max == math.inf else float(max)
    return x if lo is None and hi is None else of(arithmetic.clip(x, lo, hi))


def clamp_tensor(
    out: Out, x: Tensor, min: Tensor | None = None, max: Tensor | None = None
) -> Tensor:
    given = [v for v in (min, max) if v is not None]
    dtype = promoted(x, *given)
    y: Value = to(x, dtype)
    # at ties the whole derivative stays with x, which is_less alone decides
    if min is not None:
        low = to(min, dtype)
        y = arithmetic.where(_below(y, low), low, y)
    if max is not None:
        high = to(max, dtype)
        y = arithmetic.where(_below(high, y), high, y)
    return of(y)


def _below(a: Value, b: Value) -> Value:
    """a < b, or b is NaN and a not: bounds that are no number win."""
    unknown = arithmetic.not_equal
    if not a.dtype.is_float:
        return arithmetic.less(a, b)
    return arithmetic.logical_or(
        arithmetic.less(a, b), arithmetic.logical_or(unknown(a, a), unknown(b, b))
    )


def clamp_min(out: Out, x: Tensor, min: Number) -> Tensor:
    return clamp(out, x, min, None)


def clamp_max(out: Out, x: Tensor, max: Number) -> Tensor:
    return clamp(out, x, None, max)


def clamp_min_tensor(out: Out, x: Tensor, min: Tensor) -> Tensor:
    return clamp_tensor(out, x, min, None)


def clamp_max_tensor(out: Out, x: Tensor, max: Tensor) -> Tensor:
    return clamp_tensor(out, x, None, max)


def fmax(out: Out, x: Tensor, other: Tensor) -> Tensor:
    a, b = promote(x, other)
    return _ignoring_nan(arithmetic.greater_equal, a, b)


def fmin(out: Out, x: Tensor, other: Tensor) -> Tensor:
    a, b = promote(x, other)
    return _ignoring_nan(arithmetic.less_equal, a, b)


def _ignoring_nan(first: Callable[[Value, Value], Value], a: Tensor, b: Tensor) -> Tensor:
    """The one that is picked, or the one that is a number; at ties the first."""
    taken = first(a, b)
    if a.dtype.is_float:
        taken = arithmetic.logical_or(taken, arithmetic.not_equal(b, b))
    return of(arithmetic.where(taken, a, b))


def nan_to_num(
    out: Out, x: Tensor, nan: float | None = None, posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:  # fmt: skip
    if not x.dtype.is_float:
        return x
    largest = {DType.F64: 1.7976931348623157e308, DType.F32: 3.4028234663852886e38}.get(
        x.dtype, 65504.0
    )
    y = arithmetic.where(arithmetic.not_equal(x, x), 0.0 if nan is None else nan, x)
    y = arithmetic.where(arithmetic.equal(x, math.inf), largest if posinf is None else posinf, y)
    low = -largest if neginf is None else neginf
    return of(arithmetic.where(arithmetic.equal(x, -math.inf), low, y))


def heaviside(out: Out, x: Tensor, values: Tensor) -> Tensor:
    a, b = promote(x, values)
    step = to(of(arithmetic.greater(a, 0)), a.dtype)
    return of(arithmetic.where(arithmetic.equal(a, 0), b, step))


CHOICES: dict[str, Callable[..., Tensor]] = {
    **{f"{name}.{kind}": binary(f) for kind in ("Tensor", "Scalar") for name, f in (
        ("eq", arithmetic.equal), ("ne", arithmetic.not_equal), ("lt", arithmetic.less),
        ("le", arithmetic.less_equal), ("gt", arithmetic.greater),
        ("ge", arithmetic.greater_equal),
    )},
    "maximum.default": binary(arithmetic.maximum),
    "minimum.default": binary(arithmetic.minimum), "fmax.default": fmax, "fmin.default": fmin,
    "logical_and.default": logical(arithmetic.logical_and),
    "logical_or.default": logical(arithmetic.logical_or), "logical_xor.default": logical_xor,
    "logical_not.default": logical_not,
    **{f"bitwise_{name}.{kind}": bitwise(f) for kind in ("Tensor", "Scalar") for name, f in (
        ("and", arithmetic.logical_and), ("or", arithmetic.logical_or),
        ("xor", arithmetic.not_equal),
    )},
    "bitwise_not.default": bitwise_not, "isnan.default": isnan, "isinf.default": isinf,
    "isfinite.default": isfinite, "isposinf.default": isposinf, "isneginf.default": isneginf,
    "signbit.default": signbit, "where.self": where, "where.Scalar": where,
    "where.ScalarSelf": where, "where.ScalarOther": where, "clamp.default": clamp,
    "clamp.Tensor": clamp_tensor, "clamp_min.default": clamp_min,
    "clamp_max.default": clamp_max, "clamp_min.Tensor": clamp_min_tensor,
    "clamp_max.Tensor": clamp_max_tensor, "nan_to_num.default": nan_to_num,
    "heaviside.default": heaviside,
}  # fmt: skip
