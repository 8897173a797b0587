"""Arithmetic, comparisons and logic on every element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import sympy as sp

from ...errors import UsageError
from ..expression import Y, operand
from ..value import Value
from .elementwise import Elementwise
from .source import constant

__all__ = [
    "abs", "add", "ceil", "clip", "cos", "div", "equal", "erf", "exp", "expm1", "floor",
    "greater", "greater_equal", "less", "less_equal", "log", "log1p", "logical_and",
    "logical_not", "logical_or", "maximum", "minimum", "mul", "neg", "not_equal", "pow",
    "power", "reciprocal", "sign", "sin", "sqrt", "square", "sub", "where",
]  # fmt: skip

x0, x1, x2 = operand(0), operand(1), operand(2)
Number = bool | int | float


class _Unary(Elementwise):
    arity: ClassVar[int | None] = 1


class _Binary(Elementwise):
    arity: ClassVar[int | None] = 2


@dataclass(frozen=True)
class Add(_Binary):
    """y = x0 + x1"""

    mnemonic: ClassVar[str] = "add"
    formula: ClassVar[sp.Basic] = x0 + x1


@dataclass(frozen=True)
class Sub(_Binary):
    """y = x0 - x1"""

    mnemonic: ClassVar[str] = "sub"
    formula: ClassVar[sp.Basic] = x0 - x1


@dataclass(frozen=True)
class Mul(_Binary):
    """y = x0 · x1"""

    mnemonic: ClassVar[str] = "mul"
    formula: ClassVar[sp.Basic] = x0 * x1


@dataclass(frozen=True)
class Div(_Binary):
    """y = x0 / x1. Grad: dx1 = -dy · y / x1"""

    mnemonic: ClassVar[str] = "div"
    formula: ClassVar[sp.Basic] = x0 / x1
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (1 / x1, -Y / x1)


@dataclass(frozen=True)
class Neg(_Unary):
    """y = -x"""

    mnemonic: ClassVar[str] = "neg"
    formula: ClassVar[sp.Basic] = -x0


@dataclass(frozen=True)
class Exp(_Unary):
    """y = exp(x). Grad: dx = dy · y"""

    mnemonic: ClassVar[str] = "exp"
    formula: ClassVar[sp.Basic] = sp.exp(x0)
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (Y,)


@dataclass(frozen=True)
class Expm1(_Unary):
    """y = exp(x) - 1, exact near 0. Grad: dx = dy · (y + 1)"""

    mnemonic: ClassVar[str] = "expm1"
    formula: ClassVar[sp.Basic] = sp.exp(x0) - 1
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (Y + 1,)


@dataclass(frozen=True)
class Log(_Unary):
    """y = log(x)"""

    mnemonic: ClassVar[str] = "log"
    formula: ClassVar[sp.Basic] = sp.log(x0)


@dataclass(frozen=True)
class Log1p(_Unary):
    """y = log(1 + x), exact near 0"""

    mnemonic: ClassVar[str] = "log1p"
    formula: ClassVar[sp.Basic] = sp.log(x0 + 1)


@dataclass(frozen=True)
class Sqrt(_Unary):
    """y = √x. Grad: dx = dy / 2y"""

    mnemonic: ClassVar[str] = "sqrt"
    formula: ClassVar[sp.Basic] = sp.sqrt(x0)
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (1 / (2 * Y),)


@dataclass(frozen=True)
class Abs(_Unary):
    """y = |x|. Grad: dx = dy · sign(x), 0 at 0"""

    mnemonic: ClassVar[str] = "abs"
    formula: ClassVar[sp.Basic] = sp.Abs(x0)


@dataclass(frozen=True)
class Sign(_Unary):
    """y = -1, 0 or 1. Grad: none (zero almost everywhere)"""

    mnemonic: ClassVar[str] = "sign"
    formula: ClassVar[sp.Basic] = sp.sign(x0)
    differentiable: ClassVar[bool] = False


@dataclass(frozen=True)
class Square(_Unary):
    """y = x²"""

    mnemonic: ClassVar[str] = "square"
    formula: ClassVar[sp.Basic] = x0**2


@dataclass(frozen=True)
class Reciprocal(_Unary):
    """y = 1/x. Grad: dx = -dy · y²"""

    mnemonic: ClassVar[str] = "reciprocal"
    formula: ClassVar[sp.Basic] = 1 / x0
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (-(Y**2),)


@dataclass(frozen=True)
class Power(_Unary):
    """y = x^exponent, the exponent being a number"""

    mnemonic: ClassVar[str] = "power"

    exponent: float

    def expression(self) -> sp.Basic:
        return x0 ** number(self.exponent)


@dataclass(frozen=True)
class Pow(_Binary):
    """y = x0^x1, x0 > 0 where a gradient in x1 is wanted"""

    mnemonic: ClassVar[str] = "pow"
    formula: ClassVar[sp.Basic] = x0**x1


@dataclass(frozen=True)
class Maximum(_Binary):
    """y = the larger one. Grad: to the larger one; to x1 at ties"""

    mnemonic: ClassVar[str] = "maximum"
    formula: ClassVar[sp.Basic] = sp.Piecewise((x0, x0 > x1), (x1, True))


@dataclass(frozen=True)
class Minimum(_Binary):
    """y = the smaller one. Grad: to the smaller one; to x1 at ties"""

    mnemonic: ClassVar[str] = "minimum"
    formula: ClassVar[sp.Basic] = sp.Piecewise((x0, x0 < x1), (x1, True))


@dataclass(frozen=True)
class Clip(_Unary):
    """y = x cut off at lo and hi (None: not at all). Grad: 1 inside and on the bounds, else 0"""

    mnemonic: ClassVar[str] = "clip"

    lo: float | None
    hi: float | None

    def expression(self) -> sp.Basic:
        cases = []
        if self.lo is not None:
            cases.append((number(self.lo), x0 < number(self.lo)))
        if self.hi is not None:
            cases.append((number(self.hi), x0 > number(self.hi)))
        return sp.Piecewise(*cases, (x0, True))


@dataclass(frozen=True)
class Floor(_Unary):
    """y = the largest integer ≤ x. Grad: none"""

    mnemonic: ClassVar[str] = "floor"
    formula: ClassVar[sp.Basic] = sp.floor(x0)
    differentiable: ClassVar[bool] = False


@dataclass(frozen=True)
class Ceil(_Unary):
    """y = the smallest integer ≥ x. Grad: none"""

    mnemonic: ClassVar[str] = "ceil"
    formula: ClassVar[sp.Basic] = sp.ceiling(x0)
    differentiable: ClassVar[bool] = False


@dataclass(frozen=True)
class Sin(_Unary):
    """y = sin(x)"""

    mnemonic: ClassVar[str] = "sin"
    formula: ClassVar[sp.Basic] = sp.sin(x0)


@dataclass(frozen=True)
class Cos(_Unary):
    """y = cos(x)"""

    mnemonic: ClassVar[str] = "cos"
    formula: ClassVar[sp.Basic] = sp.cos(x0)


@dataclass(frozen=True)
class Erf(_Unary):
    """y = erf(x), the error function"""

    mnemonic: ClassVar[str] = "erf"
    formula: ClassVar[sp.Basic] = sp.erf(x0)


class _Comparison(_Binary):
    differentiable: ClassVar[bool] = False


@dataclass(frozen=True)
class Less(_Comparison):
    """y = x0 < x1"""

    mnemonic: ClassVar[str] = "less"
    formula: ClassVar[sp.Basic] = sp.StrictLessThan(x0, x1)


@dataclass(frozen=True)
class LessEqual(_Comparison):
    """y = x0 ≤ x1"""

    mnemonic: ClassVar[str] = "less_equal"
    formula: ClassVar[sp.Basic] = sp.LessThan(x0, x1)


@dataclass(frozen=True)
class Greater(_Comparison):
    """y = x0 > x1"""

    mnemonic: ClassVar[str] = "greater"
    formula: ClassVar[sp.Basic] = sp.StrictGreaterThan(x0, x1)


@dataclass(frozen=True)
class GreaterEqual(_Comparison):
    """y = x0 ≥ x1"""

    mnemonic: ClassVar[str] = "greater_equal"
    formula: ClassVar[sp.Basic] = sp.GreaterThan(x0, x1)


@dataclass(frozen=True)
class Equal(_Comparison):
    """y = x0 == x1"""

    mnemonic: ClassVar[str] = "equal"
    formula: ClassVar[sp.Basic] = sp.Equality(x0, x1)


@dataclass(frozen=True)
class NotEqual(_Comparison):
    """y = x0 != x1"""

    mnemonic: ClassVar[str] = "not_equal"
    formula: ClassVar[sp.Basic] = sp.Unequality(x0, x1)


@dataclass(frozen=True)
class LogicalAnd(_Comparison):
    """y = x0 and x1, both bool"""

    mnemonic: ClassVar[str] = "logical_and"
    formula: ClassVar[sp.Basic] = sp.And(sp.Ne(x0, 0), sp.Ne(x1, 0))


@dataclass(frozen=True)
class LogicalOr(_Comparison):
    """y = x0 or x1, both bool"""

    mnemonic: ClassVar[str] = "logical_or"
    formula: ClassVar[sp.Basic] = sp.Or(sp.Ne(x0, 0), sp.Ne(x1, 0))


@dataclass(frozen=True)
class LogicalNot(_Unary):
    """y = not x, a bool"""

    mnemonic: ClassVar[str] = "logical_not"
    formula: ClassVar[sp.Basic] = sp.Eq(x0, 0)
    differentiable: ClassVar[bool] = False


@dataclass(frozen=True)
class Where(Elementwise):
    """y = x1 where x0 (a bool), else x2"""

    mnemonic: ClassVar[str] = "where"
    arity: ClassVar[int | None] = 3
    formula: ClassVar[sp.Basic] = sp.Piecewise((x1, sp.Ne(x0, 0)), (x2, True))


def number(value: float) -> sp.Expr:
    """A float as SymPy has it: an integer if it is one, else all 53 bits."""
    return sp.Integer(int(value)) if float(value).is_integer() else sp.Float(value, precision=53)


def _lift(x: Value | Number, y: Value | Number) -> tuple[Value, Value]:
    """Numbers become constants of the other operand's dtype."""
    if isinstance(x, Value):
        return x, y if isinstance(y, Value) else constant(x, y, x.dtype)
    if isinstance(y, Value):
        return constant(y, x, y.dtype), y
    raise UsageError("two numbers and no tensor", got=f"{x!r} and {y!r}")


def _unary(brick: Elementwise, x: Value) -> Value:
    return x.apply(brick, x)


def _binary(brick: Elementwise, x: Value | Number, y: Value | Number) -> Value:
    left, right = _lift(x, y)
    return left.apply(brick, left, right)


def add(x: Value | Number, y: Value | Number) -> Value:
    return _binary(Add(), x, y)


def sub(x: Value | Number, y: Value | Number) -> Value:
    return _binary(Sub(), x, y)


def mul(x: Value | Number, y: Value | Number) -> Value:
    return _binary(Mul(), x, y)


def div(x: Value | Number, y: Value | Number) -> Value:
    return _binary(Div(), x, y)


def pow(x: Value | Number, y: Value | Number) -> Value:
    return _binary(Pow(), x, y)


def maximum(x: Value | Number, y: Value | Number) -> Value:
    return _binary(Maximum(), x, y)


def minimum(x: Value | Number, y: Value | Number) -> Value:
    return _binary(Minimum(), x, y)


def less(x: Value | Number, y: Value | Number) -> Value:
    return _binary(Less(), x, y)


def less_equal(x: Value | Number, y: Value | Number) -> Value:
    return _binary(LessEqual(), x, y)


def greater(x: Value | Number, y: Value | Number) -> Value:
    return _binary(Greater(), x, y)


def greater_equal(x: Value | Number, y: Value | Number) -> Value:
    return _binary(GreaterEqual(), x, y)


def equal(x: Value | Number, y: Value | Number) -> Value:
    return _binary(Equal(), x, y)


def not_equal(x: Value | Number, y: Value | Number) -> Value:
    return _binary(NotEqual(), x, y)


def logical_and(x: Value, y: Value) -> Value:
    return _binary(LogicalAnd(), x, y)


def logical_or(x: Value, y: Value) -> Value:
    return _binary(LogicalOr(), x, y)


def where(condition: Value, x: Value | Number, y: Value | Number) -> Value:
    left, right = _lift(x, y)
    return condition.apply(Where(), condition, left, right)


def neg(x: Value) -> Value:
    return _unary(Neg(), x)


def exp(x: Value) -> Value:
    return _unary(Exp(), x)


def expm1(x: Value) -> Value:
    return _unary(Expm1(), x)


def log(x: Value) -> Value:
    return _unary(Log(), x)


def log1p(x: Value) -> Value:
    return _unary(Log1p(), x)


def sqrt(x: Value) -> Value:
    return _unary(Sqrt(), x)


def abs(x: Value) -> Value:
    return _unary(Abs(), x)


def sign(x: Value) -> Value:
    return _unary(Sign(), x)


def square(x: Value) -> Value:
    return _unary(Square(), x)


def reciprocal(x: Value) -> Value:
    return _unary(Reciprocal(), x)


def power(x: Value, exponent: float) -> Value:
    return _unary(Power(float(exponent)), x)


def clip(x: Value, lo: float | None = None, hi: float | None = None) -> Value:
    return _unary(Clip(None if lo is None else float(lo), None if hi is None else float(hi)), x)


def floor(x: Value) -> Value:
    return _unary(Floor(), x)


def ceil(x: Value) -> Value:
    return _unary(Ceil(), x)


def sin(x: Value) -> Value:
    return _unary(Sin(), x)


def cos(x: Value) -> Value:
    return _unary(Cos(), x)


def erf(x: Value) -> Value:
    return _unary(Erf(), x)


def logical_not(x: Value) -> Value:
    return _unary(LogicalNot(), x)
