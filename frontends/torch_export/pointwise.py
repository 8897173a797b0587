"""Operators on every element: arithmetic, comparisons, logic, activations.

Conventions (kinks, ties, integer division) are torch's; a formula that torch has and the
catalogue has not is composed here of those it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import sympy as sp

from ...errors import UnsupportedError
from ...ir.bricks import activation, arithmetic
from ...ir.bricks.convert import cast, stop_gradient
from ...ir.bricks.elementwise import elementwise
from ...ir.dtypes import DType
from ...ir.expression import expm1, log1p, number, operand, softplus
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import Number, Out, Scalar, floats, promote, promoted, scalar, to

x0, x1 = operand(0), operand(1)
of = trace.of

Converter = Callable[..., Tensor]


# ── families ─────────────────────────────────────────────────────────────────────────────


def on_floats(function: Callable[[Value], Value]) -> Converter:
    """A function of one float; integers are converted first."""

    def convert(out: Out, x: Tensor) -> Tensor:
        return of(function(*floats(x)))

    return convert


def on_numbers(function: Callable[[Value], Value]) -> Converter:
    """A function of one number, in its own dtype."""

    def convert(out: Out, x: Tensor) -> Tensor:
        return of(function(x))

    return convert


def formula(expr: sp.Basic) -> Converter:
    """The SymPy expression of x0 on floats."""
    return on_floats(lambda x: elementwise(expr, x, symbols=(x0,)))


def formula2(expr: sp.Basic) -> Converter:
    """The SymPy expression of x0 and x1 on floats."""

    def convert(out: Out, x: Scalar, other: Scalar) -> Tensor:
        return of(elementwise(expr, *floats(x, other), symbols=(x0, x1)))

    return convert


def rounding(function: Callable[[Value], Value]) -> Converter:
    """A rounding: whole numbers stay as they are."""

    def convert(out: Out, x: Tensor) -> Tensor:
        return of(function(x)) if x.dtype.is_float else x

    return convert


def binary(function: Callable[[Value, Value], Value]) -> Converter:
    """A function of two numbers in the dtype that both are promoted to."""

    def convert(out: Out, x: Scalar, other: Scalar) -> Tensor:
        return of(function(*promote(x, other)))

    return convert


def truth(x: Tensor) -> Tensor:
    """[x ≠ 0]"""
    return x if x.dtype is DType.BOOL else of(arithmetic.not_equal(x, 0))


# ── arithmetic ───────────────────────────────────────────────────────────────────────────


def scaled(b: Tensor, alpha: Number) -> Tensor:
    return b if alpha == 1 else of(arithmetic.mul(b, scalar(alpha, b.dtype)))


def add(out: Out, x: Scalar, other: Scalar, *, alpha: Number = 1) -> Tensor:
    a, b = promote(x, other)
    if a.dtype is DType.BOOL:
        return of(arithmetic.logical_or(a, b)) if alpha else a
    return of(arithmetic.add(a, scaled(b, alpha)))


def add_scalar(out: Out, x: Scalar, other: Scalar, alpha: Number = 1) -> Tensor:
    return add(out, x, other, alpha=alpha)


def sub(out: Out, x: Scalar, other: Scalar, *, alpha: Number = 1) -> Tensor:
    a, b = promote(x, other)
    return of(arithmetic.sub(a, scaled(b, alpha)))


def sub_scalar(out: Out, x: Scalar, other: Scalar, alpha: Number = 1) -> Tensor:
    return sub(out, x, other, alpha=alpha)


def rsub(out: Out, x: Scalar, other: Scalar, alpha: Number = 1) -> Tensor:
    return sub(out, other, x, alpha=alpha)


def rsub_tensor(out: Out, x: Tensor, other: Tensor, *, alpha: Number = 1) -> Tensor:
    return sub(out, other, x, alpha=alpha)


def mul(out: Out, x: Scalar, other: Scalar) -> Tensor:
    a, b = promote(x, other)
    both = arithmetic.logical_and if a.dtype is DType.BOOL else arithmetic.mul
    return of(both(a, b))


def div(out: Out, x: Scalar, other: Scalar) -> Tensor:
    return of(arithmetic.div(*floats(x, other)))


def reciprocal(out: Out, x: Tensor) -> Tensor:
    return of(arithmetic.reciprocal(*floats(x)))


def div_mode(out: Out, x: Scalar, other: Scalar, *, rounding_mode: str | None = None) -> Tensor:
    match rounding_mode:
        case None:
            return div(out, x, other)
        case "floor":
            return floor_divide(out, x, other)
        case "trunc":
            a, b = promote(x, other)
            return of(_trunc(arithmetic.div(a, b)))
    raise UnsupportedError("such a rounding mode", got=rounding_mode)


def _trunc(x: Value) -> Value:
    if not x.dtype.is_float:
        return x
    whole = sp.Piecewise((sp.floor(x0), x0 >= 0), (sp.ceiling(x0), True))
    return elementwise(whole, x, symbols=(x0,))


def floor_divide(out: Out, x: Scalar, other: Scalar) -> Tensor:
    a, b = promote(x, other)
    quotient = arithmetic.div(a, b)
    if a.dtype.is_float:
        # Python's rule, and torch's: the remainder is taken exactly first, as 1 // 0.1 is 9
        exact = arithmetic.div(arithmetic.sub(a, _fmod(a, b)), b)
        low = arithmetic.less(arithmetic.mul(_fmod(a, b), b), 0)
        whole = arithmetic.sub(exact, cast(low, a.dtype))
        near = arithmetic.floor(arithmetic.add(whole, 0.5))
        return of(arithmetic.where(arithmetic.equal(b, 0), quotient, near))
    rest = arithmetic.sub(a, arithmetic.mul(quotient, b))
    low = arithmetic.less(arithmetic.mul(arithmetic.sign(rest), arithmetic.sign(b)), 0)
    return of(arithmetic.sub(quotient, cast(low, a.dtype)))


def _fmod(a: Value, b: Value) -> Value:
    """a - b · trunc(a/b), the quotient a constant, as derivatives have it."""
    whole = stop_gradient(_trunc(arithmetic.div(a, b)))
    return arithmetic.sub(a, arithmetic.mul(b, whole))


def fmod(out: Out, x: Scalar, other: Scalar) -> Tensor:
    return of(_fmod(*promote(x, other)))


def remainder(out: Out, x: Scalar, other: Scalar) -> Tensor:
    a, b = promote(x, other)
    if a.dtype.is_float:
        whole = stop_gradient(arithmetic.floor(arithmetic.div(a, b)))
        return of(arithmetic.sub(a, arithmetic.mul(b, whole)))
    return of(arithmetic.sub(a, arithmetic.mul(b, floor_divide(out, a, b))))


def pow_(out: Out, x: Scalar, exponent: Scalar) -> Tensor:
    if isinstance(x, Tensor) and not isinstance(exponent, Tensor):
        dtype = promoted(x, exponent)
        if math.isfinite(exponent):
            return of(arithmetic.power(to(x, dtype), float(exponent)))
    a, b = promote(x, exponent)
    if not a.dtype.is_float:
        raise UnsupportedError("a power of integers that the data give", got=a.dtype)
    return of(arithmetic.pow(a, b))


def neg(out: Out, x: Tensor) -> Tensor:
    return of(arithmetic.neg(x))


def square(out: Out, x: Tensor) -> Tensor:
    return of(arithmetic.square(x))


def addcmul(out: Out, x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    a, b, c = promote(x, tensor1, tensor2)
    return of(arithmetic.add(a, scaled(of(arithmetic.mul(b, c)), value)))


def addcdiv(out: Out, x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    a, b, c = floats(x, tensor1, tensor2)
    return of(arithmetic.add(a, scaled(of(arithmetic.div(b, c)), value)))


def lerp(out: Out, x: Tensor, end: Tensor, weight: Scalar) -> Tensor:
    """start + weight · (end - start), from the nearer end, as torch computes it."""
    a, b, w = promote(x, end, weight)
    gap = arithmetic.sub(b, a)
    low = arithmetic.add(a, arithmetic.mul(w, gap))
    high = arithmetic.sub(b, arithmetic.mul(gap, arithmetic.sub(1.0, w)))
    return of(arithmetic.where(arithmetic.less(arithmetic.abs(w), 0.5), low, high))


def hypot(out: Out, x: Scalar, other: Scalar) -> Tensor:
    a, b = floats(x, other)
    return of(arithmetic.sqrt(arithmetic.add(arithmetic.square(a), arithmetic.square(b))))


def copysign(out: Out, x: Scalar, other: Scalar) -> Tensor:
    a, b = floats(x, other)
    # 1/b tells -0 from 0
    minus = arithmetic.logical_or(
        arithmetic.less(b, 0), arithmetic.less(arithmetic.reciprocal(b), 0)
    )
    size = arithmetic.abs(a)
    return of(arithmetic.where(minus, arithmetic.neg(size), size))


def logaddexp(out: Out, x: Tensor, other: Tensor) -> Tensor:
    a, b = floats(x, other)
    # equal infinities have no difference
    same = arithmetic.logical_and(arithmetic.equal(a, b), infinite(a))
    gap = arithmetic.where(same, 0.0, arithmetic.abs(arithmetic.sub(a, b)))
    rest = arithmetic.log1p(arithmetic.exp(arithmetic.neg(gap)))
    return of(arithmetic.add(arithmetic.maximum(a, b), arithmetic.where(same, 0.0, rest)))


def logaddexp2(out: Out, x: Tensor, other: Tensor) -> Tensor:
    a, b = floats(x, other)
    ln2 = math.log(2.0)
    scaled = [arithmetic.mul(v, ln2) for v in (a, b)]
    return of(arithmetic.mul(logaddexp(out, of(scaled[0]), of(scaled[1])), 1.0 / ln2))


def infinite(x: Value) -> Value:
    return arithmetic.equal(arithmetic.abs(x), math.inf)


def xlogy(out: Out, x: Scalar, other: Scalar) -> Tensor:
    return _product_at_zero(arithmetic.log, *floats(x, other))


def xlog1py(out: Out, x: Scalar, other: Scalar) -> Tensor:
    return _product_at_zero(arithmetic.log1p, *floats(x, other))


def _product_at_zero(function: Callable[[Value], Value], a: Tensor, b: Tensor) -> Tensor:
    """a · f(b), 0 where a is 0 and b is a number."""
    unknown = arithmetic.not_equal(b, b)
    nothing = arithmetic.logical_and(arithmetic.equal(a, 0.0), arithmetic.logical_not(unknown))
    inside = arithmetic.where(nothing, 1.0, b)
    return of(arithmetic.where(nothing, 0.0, arithmetic.mul(a, function(inside))))


def ldexp(out: Out, x: Tensor, other: Tensor) -> Tensor:
    a, b = floats(x, other)
    return of(arithmetic.mul(a, arithmetic.exp(arithmetic.mul(b, math.log(2.0)))))


# ── comparisons, logic, choice ───────────────────────────────────────────────────────────


def sign(out: Out, x: Tensor) -> Tensor:
    return x if x.dtype is DType.BOOL else of(arithmetic.sign(x))


def round_(out: Out, x: Tensor) -> Tensor:
    """To the nearest whole number, halves to the even one."""
    return of(_round(x)) if x.dtype.is_float else x


def _round(x: Value) -> Value:
    low = sp.floor(x0)
    even = sp.Eq(low, 2 * sp.floor(low / 2))
    gap = x0 - low
    half = sp.Rational(1, 2)
    whole = sp.Piecewise((low, (gap < half) | (sp.Eq(gap, half) & even)), (sp.ceiling(x0), True))
    return elementwise(whole, x, symbols=(x0,))


def round_decimals(out: Out, x: Tensor, *, decimals: int) -> Tensor:
    if abs(decimals) > 15:
        raise UnsupportedError("round to so many digits", got=decimals)
    if not x.dtype.is_float:
        raise UnsupportedError("round integers to digits", got=x.dtype)
    scale = 10.0 ** abs(decimals)
    grown = arithmetic.mul(x, scale) if decimals > 0 else arithmetic.div(x, scale)
    whole = _round(grown)
    return of(arithmetic.div(whole, scale) if decimals > 0 else arithmetic.mul(whole, scale))


def frac(out: Out, x: Tensor) -> Tensor:
    return of(arithmetic.sub(x, stop_gradient(_trunc(x))))


# ── activations ──────────────────────────────────────────────────────────────────────────


# ── the table's part ─────────────────────────────────────────────────────────────────────

_LN2, _LN10 = number(math.log(2.0)), number(math.log(10.0))
_PI = number(math.pi)


def _odd(expr: sp.Expr) -> sp.Expr:
    """An odd function by what it is for x ≥ 0, where it loses no digits."""
    return sp.Piecewise((expr, x0 >= 0), (-expr.xreplace({x0: -x0}), True))


UNARY: dict[str, Converter] = {
    "abs": on_numbers(arithmetic.abs),
    "acosh": formula(log1p((x0 - 1) + sp.sqrt((x0 - 1) * (x0 + 1)))),
    "asinh": formula(_odd(log1p(x0 + x0**2 / (1 + sp.sqrt(x0**2 + 1))))),
    "atanh": formula((log1p(x0) - log1p(-x0)) / 2),
    "ceil": rounding(arithmetic.ceil),
    "cos": on_floats(arithmetic.cos),
    "cosh": formula((sp.exp(x0) + sp.exp(-x0)) / 2),
    "deg2rad": formula(x0 * number(math.pi / 180.0)),
    "erf": on_floats(arithmetic.erf),
    "exp": on_floats(arithmetic.exp),
    "exp2": formula(sp.exp(x0 * _LN2)),
    "expm1": on_floats(arithmetic.expm1),
    "floor": rounding(arithmetic.floor),
    "hardsigmoid": formula(
        sp.Piecewise((0, x0 <= -3), (1, x0 >= 3), (x0 / 6 + sp.Rational(1, 2), True))
    ),
    "hardswish": formula(
        sp.Piecewise((0, x0 <= -3), (x0, x0 >= 3), (x0 * (x0 + 3) / 6, True))
    ),
    "log": on_floats(arithmetic.log),
    "log10": formula(sp.log(x0) / _LN10),
    "log1p": on_floats(arithmetic.log1p),
    "log2": formula(sp.log(x0) / _LN2),
    "log_sigmoid": formula(-softplus(-x0)),
    "mish": formula(x0 * sp.tanh(softplus(x0))),
    "rad2deg": formula(x0 * number(180.0 / math.pi)),
    "relu": on_numbers(activation.relu),
    "rsqrt": formula(1 / sp.sqrt(x0)),
    "sigmoid": on_floats(activation.logistic),
    "silu": on_floats(activation.silu),
    "sin": on_floats(arithmetic.sin),
    "sinc": formula(
        sp.Piecewise((1, sp.Eq(x0, 0)), (sp.sin(_PI * x0) / (_PI * x0), True))
    ),
    "sinh": formula(_odd((expm1(x0) + expm1(x0) / (expm1(x0) + 1)) / 2)),
    "sqrt": on_floats(arithmetic.sqrt),
    "tan": formula(sp.sin(x0) / sp.cos(x0)),
    "tanh": on_floats(activation.tanh),
    "trunc": rounding(_trunc),
}  # fmt: skip


POINTWISE: dict[str, Converter] = {
    **{f"{name}.default": f for name, f in UNARY.items()}, "add.Tensor": add,
    "add.Scalar": add_scalar, "sub.Tensor": sub, "sub.Scalar": sub_scalar, "rsub.Scalar": rsub,
    "rsub.Tensor": rsub_tensor, "mul.Tensor": mul, "mul.Scalar": mul, "div.Tensor": div,
    "div.Scalar": div, "true_divide.Tensor": div, "div.Tensor_mode": div_mode,
    "div.Scalar_mode": div_mode, "floor_divide.default": floor_divide,
    "floor_divide.Scalar": floor_divide, "fmod.Tensor": fmod, "fmod.Scalar": fmod,
    "remainder.Tensor": remainder, "remainder.Scalar": remainder,
    "remainder.Scalar_Tensor": remainder, "pow.Tensor_Scalar": pow_, "pow.Tensor_Tensor": pow_,
    "pow.Scalar": pow_, "neg.default": neg, "square.default": square,
    "reciprocal.default": reciprocal, "addcmul.default": addcmul, "addcdiv.default": addcdiv,
    "lerp.Scalar": lerp, "lerp.Tensor": lerp, "hypot.default": hypot,
    "copysign.Tensor": copysign, "copysign.Scalar": copysign, "logaddexp.default": logaddexp,
    "logaddexp2.default": logaddexp2, "xlogy.Tensor": xlogy, "xlogy.Scalar_Other": xlogy,
    "xlogy.Scalar_Self": xlogy, "special_xlog1py.default": xlog1py,
    "special_xlog1py.other_scalar": xlog1py, "special_xlog1py.self_scalar": xlog1py,
    "ldexp.Tensor": ldexp, "sign.default": sign, "sgn.default": sign, "round.default": round_,
    "round.decimals": round_decimals, "frac.default": frac,
}  # fmt: skip
