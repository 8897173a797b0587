"""Arithmetic, comparison and conversion on every element."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce

import numpy as np

from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.contract import contract, matmul
from ....ir.bricks.convert import cast
from ....ir.bricks.shape import reshape, transpose
from ....ir.dtypes import DType
from ....ir.value import Value
from ..node import Node
from ..reading import DTYPES
from ..values import Known
from .kind import Convert, Table

__all__ = ["TABLE", "modulo"]


def unary(function: Callable[[Value], Value]) -> Convert:
    return lambda node: function(node.tensor(0))


def binary(function: Callable[[Value, Value], Value]) -> Convert:
    return lambda node: function(node.tensor(0), second(node))


def second(node: Node) -> Value:
    """The second operand. Before opset 7 its axes are x's from ``axis`` on, not the last ones."""
    y = node.tensor(1)
    if node.opset >= 7 or not node.get_flag("broadcast") or not node.given("axis"):
        return y
    rank = len(node.shape_of(0))
    rest = rank - node.axis(node.get_int("axis"), rank) - y.rank
    if rest < 0:
        raise node.wrong("the second operand has too many axes", y.type)
    return reshape(y, (*y.shape, *(1,) * rest))


def many(function: Callable[[Value, Value], Value]) -> Convert:
    return lambda node: reduce(function, node.tensors())


# ── functions that the catalogue states by others ────────────────────────────────────────


def round_even(x: Value) -> Value:
    """The nearest whole number, the even one of two."""
    low = a.floor(x)
    rest = a.sub(x, low)
    odd = a.not_equal(a.mul(a.floor(a.mul(low, 0.5)), 2.0), low)
    up = a.logical_or(a.greater(rest, 0.5), a.logical_and(a.equal(rest, 0.5), odd))
    return where(up, a.add(low, 1.0), low)


def tan(x: Value) -> Value:
    return a.div(a.sin(x), a.cos(x))


def sinh(x: Value) -> Value:
    """(exp(x) - exp(-x))/2, exact near 0."""
    return a.mul(a.sub(a.expm1(x), a.expm1(a.neg(x))), 0.5)


def cosh(x: Value) -> Value:
    return a.mul(a.add(a.exp(x), a.exp(a.neg(x))), 0.5)


def asinh(x: Value) -> Value:
    """log(|x| + √(x² + 1)) with x's sign, exact near 0, where the derivative is 1."""
    square = a.square(x)
    more = a.div(square, a.add(a.sqrt(a.add(square, 1.0)), 1.0))
    below, above = a.neg(a.log1p(a.sub(more, x))), a.log1p(a.add(x, more))
    return where(a.less(x, 0.0), below, above)


def acosh(x: Value) -> Value:
    """log(x + √(x² - 1)), exact near 1."""
    over = a.sub(x, 1.0)
    return a.log1p(a.add(over, a.sqrt(a.mul(over, a.add(x, 1.0)))))


def atanh(x: Value) -> Value:
    return a.mul(a.sub(a.log1p(x), a.log1p(a.neg(x))), 0.5)


def is_nan(x: Value) -> Value:
    return a.logical_not(a.equal(x, x))


def is_inf(node: Node) -> Value:
    x = node.tensor(0)
    up, down = node.get_flag("detect_positive", True), node.get_flag("detect_negative", True)
    if up and down:
        return a.equal(a.abs(x), math.inf)
    if up or down:
        return a.equal(x, math.inf if up else -math.inf)
    return a.not_equal(x, x) if not x.dtype.is_float else a.less(a.abs(x), -1.0)


def modulo(x: Value, y: Value) -> Value:
    """The rest that has y's sign."""
    rest = remainder(x, y)
    other = a.not_equal(a.less(rest, 0), a.less(y, 0))
    return where(a.logical_and(other, a.not_equal(rest, 0)), a.add(rest, y), rest)


def remainder(x: Value, y: Value) -> Value:
    """The rest that has x's sign, as C's fmod."""
    quotient = a.div(x, y)
    if not x.dtype.is_float:
        return a.sub(x, a.mul(quotient, y))
    whole = where(a.less(quotient, 0.0), a.ceil(quotient), a.floor(quotient))
    # the rest of a division by infinity is x itself
    return a.sub(x, where(a.equal(whole, 0.0), 0.0, a.mul(whole, y)))


def mod(node: Node) -> Value:
    x, y = node.tensor(0), node.tensor(1)
    return remainder(x, y) if node.get_flag("fmod") else modulo(x, y)


def xor(x: Value, y: Value) -> Value:
    return a.not_equal(x, y)


def power(node: Node) -> Value:
    x, y = node.tensor(0), second(node)
    if node.is_known(1) and node.known(1).size == 1:
        exponent = float(node.known(1).reshape(()).item())
        small = node.known(1).ndim <= x.rank
        whole = x.dtype.is_float or (exponent.is_integer() and exponent >= 0)
        if small and whole and math.isfinite(exponent):
            return a.power(x, exponent)
    if x.dtype.is_float:
        return a.pow(x, cast(y, x.dtype))
    # whole numbers are exact in f64 up to 2^53; beyond that ONNX Runtime rounds as well
    return cast(a.pow(cast(x, DType.F64), cast(y, DType.F64)), x.dtype)


def clip(node: Node) -> Value:
    """Before opset 11 the bounds are attributes."""
    x = node.tensor(0)
    if node.opset < 11:
        low: float | None = node.get_float("min", -math.inf)
        high: float | None = node.get_float("max", math.inf)
        return a.clip(x, low, high)
    low = node.scalar(1) if node.is_known(1) else None
    high = node.scalar(2) if node.is_known(2) else None
    known = all(not node.has(k) or node.is_known(k) for k in (1, 2))
    if known and not (low is not None and high is not None and low > high):
        return a.clip(x, low, high) if node.has(1) or node.has(2) else x
    if node.has(1):
        x = a.maximum(x, node.tensor(1))
    return a.minimum(x, node.tensor(2)) if node.has(2) else x


def mean(node: Node) -> Value:
    return a.mul(reduce(a.add, node.tensors()), 1.0 / node.count)


# ── conversions ──────────────────────────────────────────────────────────────────────────


def cast_to(node: Node) -> object:
    number = node.get_int("to")
    wanted = DTYPES.get(number)
    item = node.item(0)
    if wanted is None:
        raise node.unsupported("an element type that brickc has not", f"type {number}")
    if isinstance(item, Known) and not item.symbolic and item.array.dtype.kind in "iufb":
        with np.errstate(all="ignore"):
            return Known(item.array.astype(wanted.numpy))
    return cast(node.tensor(0), wanted)


def cast_like(node: Node) -> object:
    return cast(node.tensor(0), node.type_of(1).dtype)


# ── products ─────────────────────────────────────────────────────────────────────────────


def integer_product(x: Value, y: Value) -> Value:
    """Whole numbers are multiplied in f64, which holds sums below 2^53 exactly."""
    if x.dtype.is_float and x.dtype is not DType.F16:
        return matmul(x, y)
    wide = DType.F32 if x.dtype is DType.F16 else DType.F64
    return cast(matmul(cast(x, wide), cast(y, wide)), x.dtype)


def gemm(node: Node) -> Value:
    """alpha · A' · B' + beta · C."""
    left, right = node.tensor(0), node.tensor(1)
    if left.rank != 2 or right.rank != 2:
        raise node.wrong("operands are no matrices", f"{left.type} and {right.type}")
    m = "km" if node.get_flag("transA") else "mk"
    n = "nk" if node.get_flag("transB") else "kn"
    if left.dtype is DType.F16 or not left.dtype.is_float:
        left = transpose(left, (1, 0)) if m == "km" else left
        right = transpose(right, (1, 0)) if n == "nk" else right
        y = integer_product(left, right)
    else:
        y = contract(f"{m},{n}->mn", left, right)
    alpha, beta = node.get_float("alpha", 1.0), node.get_float("beta", 1.0)
    if alpha != 1.0:
        y = a.mul(y, alpha)
    if not node.has(2):
        return y
    c = node.tensor(2)
    return a.add(y, c if beta == 1.0 else a.mul(c, beta))


TABLE: Table = {
    "Add": binary(a.add),
    "Sub": binary(a.sub),
    "Mul": binary(a.mul),
    "Div": binary(a.div),
    "Neg": unary(a.neg),
    "Abs": unary(a.abs),
    "Sign": unary(a.sign),
    "Exp": unary(a.exp),
    "Log": unary(a.log),
    "Sqrt": unary(a.sqrt),
    "Reciprocal": unary(a.reciprocal),
    "Floor": unary(a.floor),
    "Ceil": unary(a.ceil),
    "Round": unary(round_even),
    "Sin": unary(a.sin),
    "Cos": unary(a.cos),
    "Tan": unary(tan),
    "Sinh": unary(sinh),
    "Cosh": unary(cosh),
    "Asinh": unary(asinh),
    "Acosh": unary(acosh),
    "Atanh": unary(atanh),
    "Erf": unary(a.erf),
    "Pow": power,
    "Mod": mod,
    "Max": many(a.maximum),
    "Min": many(a.minimum),
    "Sum": many(a.add),
    "Mean": mean,
    "Clip": clip,
    "Less": binary(a.less),
    "LessOrEqual": binary(a.less_equal),
    "Greater": binary(a.greater),
    "GreaterOrEqual": binary(a.greater_equal),
    "Equal": binary(a.equal),
    "And": binary(a.logical_and),
    "Or": binary(a.logical_or),
    "Xor": binary(xor),
    "Not": unary(a.logical_not),
    "Where": lambda node: where(node.tensor(0), node.tensor(1), node.tensor(2)),
    "IsNaN": unary(is_nan),
    "IsInf": is_inf,
    "Cast": cast_to,
    "CastLike": cast_like,
    "MatMul": binary(integer_product),
    "Gemm": gemm,
}
