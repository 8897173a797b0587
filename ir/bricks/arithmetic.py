"""Arithmetic on every element: the base of everything else that is elementwise.

A brick is its ``formula``; x0 and x1 are the operands, y the result. ``through_result`` gives
the derivative where saving y is better than keeping the operands: no second exponential, no
square that leaves the range. Functions take numbers for tensors: ``add(x, 1.0)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import sympy as sp

from ...errors import UsageError
from .. import expression
from ..expression import Y, number, operand
from ..value import Value
from .comparison import (
    Clip,
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    LogicalAnd,
    LogicalNot,
    LogicalOr,
    Maximum,
    Minimum,
    NotEqual,
    Where,
    binary,
    clip,
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    not_equal,
    where,
)
from .elementwise import Elementwise
from .source import Number

__all__ = [
    "Abs", "Add", "Ceil", "Clip", "Cos", "Div", "Equal", "Erf", "Exp", "Expm1", "Floor",
    "Greater", "GreaterEqual", "Less", "LessEqual", "Log", "Log1p", "LogicalAnd", "LogicalNot",
    "LogicalOr", "Maximum", "Minimum", "Mul", "Neg", "NotEqual", "Pow", "Power", "Reciprocal",
    "Sign", "Sin", "Sqrt", "Square", "Sub", "Where",
    "abs", "add", "ceil", "clip", "cos", "div", "equal", "erf", "exp", "expm1", "floor",
    "greater", "greater_equal", "less", "less_equal", "log", "log1p", "logical_and",
    "logical_not", "logical_or", "maximum", "minimum", "mul", "neg", "not_equal", "number",
    "pow", "power", "reciprocal", "sign", "sin", "sqrt", "square", "sub", "where",
]  # fmt: skip

x0, x1 = operand(0), operand(1)
Partials = tuple[sp.Expr, ...]


class _Unary(Elementwise):
    arity: ClassVar[int | None] = 1


class _Binary(Elementwise):
    arity: ClassVar[int | None] = 2


@dataclass(frozen=True)
class Add(_Binary):
    """y = x0 + x1.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  floats, integers
    Grad:    dx0 = dy, dx1 = dy
    """

    mnemonic: ClassVar[str] = "add"
    formula: ClassVar[sp.Basic] = x0 + x1


@dataclass(frozen=True)
class Sub(_Binary):
    """y = x0 - x1.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  floats, integers
    Grad:    dx0 = dy, dx1 = -dy
    """

    mnemonic: ClassVar[str] = "sub"
    formula: ClassVar[sp.Basic] = x0 - x1


@dataclass(frozen=True)
class Mul(_Binary):
    """y = x0 · x1.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  floats, integers
    Grad:    dx0 = dy · x1, dx1 = dy · x0
    """

    mnemonic: ClassVar[str] = "mul"
    formula: ClassVar[sp.Basic] = x0 * x1


@dataclass(frozen=True)
class Div(_Binary):
    """y = x0 / x1; integers are cut towards zero.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  floats, integers
    Grad:    dx0 = dy / x1, dx1 = -dy · y / x1
    """

    mnemonic: ClassVar[str] = "div"
    formula: ClassVar[sp.Basic] = x0 / x1
    through_result: ClassVar[Partials | None] = (1 / x1, -Y / x1)


@dataclass(frozen=True)
class Neg(_Unary):
    """y = -x0.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats, integers
    Grad:    dx0 = -dy
    """

    mnemonic: ClassVar[str] = "neg"
    formula: ClassVar[sp.Basic] = -x0


@dataclass(frozen=True)
class Reciprocal(_Unary):
    """y = 1 / x0.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx0 = -dy · y²
    """

    mnemonic: ClassVar[str] = "reciprocal"
    formula: ClassVar[sp.Basic] = 1 / x0
    through_result: ClassVar[Partials | None] = (-(Y**2),)


@dataclass(frozen=True)
class Square(_Unary):
    """y = x0².

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats, integers
    Grad:    dx0 = 2 · dy · x0
    """

    mnemonic: ClassVar[str] = "square"
    formula: ClassVar[sp.Basic] = x0**2


@dataclass(frozen=True)
class Sqrt(_Unary):
    """y = √x0; NaN where x0 < 0.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx0 = dy / (2y), infinite at 0
    """

    mnemonic: ClassVar[str] = "sqrt"
    formula: ClassVar[sp.Basic] = sp.sqrt(x0)
    through_result: ClassVar[Partials | None] = (1 / (2 * Y),)


@dataclass(frozen=True)
class Power(_Unary):
    """y = x0^exponent for a fixed exponent; NaN where x0 < 0, unless the exponent is whole.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats; integers if the exponent is whole and not negative
    Grad:    dx0 = dy · exponent · x0^(exponent - 1); 0 if the exponent is 0
    Raises:  UsageError if the exponent is not finite
    """

    mnemonic: ClassVar[str] = "power"

    exponent: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.exponent):
            raise UsageError("power: the exponent is not finite", got=self.exponent)

    def expression(self) -> sp.Basic:
        # quarters as rationals, so that x^0.5 and x^0.75 are known as what they are: roots
        quarters = 4 * self.exponent
        whole = quarters.is_integer() and math.fabs(quarters) < 2**53
        return x0 ** (sp.Rational(int(quarters), 4) if whole else number(self.exponent))


@dataclass(frozen=True)
class Pow(_Binary):
    """y = x0^x1; NaN where x0 < 0 and x1 is not whole.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  floats
    Grad:    dx0 = dy · x1 · x0^(x1 - 1), 0 where x1 = 0;
             dx1 = dy · y · log(x0), 0 where x0 = 0 and x1 ≥ 0
    Source:  the conventions at 0 are torch.pow's
    """

    mnemonic: ClassVar[str] = "pow"
    formula: ClassVar[sp.Basic] = x0**x1
    through_result: ClassVar[Partials | None] = (
        sp.Piecewise((0, sp.Eq(x1, 0)), (x1 * x0 ** (x1 - 1), True)),
        sp.Piecewise((0, sp.Eq(x0, 0) & (x1 >= 0)), (Y * sp.log(x0), True)),
    )


@dataclass(frozen=True)
class Exp(_Unary):
    """y = exp(x0).

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx0 = dy · y
    """

    mnemonic: ClassVar[str] = "exp"
    formula: ClassVar[sp.Basic] = sp.exp(x0)
    through_result: ClassVar[Partials | None] = (Y,)


@dataclass(frozen=True)
class Expm1(_Unary):
    """y = exp(x0) - 1, exact near 0.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx0 = dy · exp(x0)
    """

    mnemonic: ClassVar[str] = "expm1"
    formula: ClassVar[sp.Basic] = expression.expm1(x0)


@dataclass(frozen=True)
class Log(_Unary):
    """y = log(x0); -inf at 0, NaN below.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx0 = dy / x0
    """

    mnemonic: ClassVar[str] = "log"
    formula: ClassVar[sp.Basic] = sp.log(x0)


@dataclass(frozen=True)
class Log1p(_Unary):
    """y = log(1 + x0), exact near 0.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx0 = dy / (1 + x0)
    """

    mnemonic: ClassVar[str] = "log1p"
    formula: ClassVar[sp.Basic] = expression.log1p(x0)


@dataclass(frozen=True)
class Sin(_Unary):
    """y = sin(x0).

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx0 = dy · cos(x0)
    """

    mnemonic: ClassVar[str] = "sin"
    formula: ClassVar[sp.Basic] = sp.sin(x0)


@dataclass(frozen=True)
class Cos(_Unary):
    """y = cos(x0).

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx0 = -dy · sin(x0)
    """

    mnemonic: ClassVar[str] = "cos"
    formula: ClassVar[sp.Basic] = sp.cos(x0)


@dataclass(frozen=True)
class Erf(_Unary):
    """y = erf(x0) = 2/√π · ∫₀^x0 exp(-t²) dt.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx0 = dy · 2/√π · exp(-x0²)
    """

    mnemonic: ClassVar[str] = "erf"
    formula: ClassVar[sp.Basic] = sp.erf(x0)


@dataclass(frozen=True)
class Abs(_Unary):
    """y = |x0|.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats, integers
    Grad:    dx0 = dy · sign(x0); at 0: 0
    """

    mnemonic: ClassVar[str] = "abs"
    formula: ClassVar[sp.Basic] = sp.Abs(x0)


@dataclass(frozen=True)
class Sign(_Unary):
    """y = -1, 0 or 1, as x0 is.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats, integers
    Grad:    none: 0 wherever it exists
    """

    mnemonic: ClassVar[str] = "sign"
    formula: ClassVar[sp.Basic] = sp.sign(x0)
    differentiable: ClassVar[bool] = False


@dataclass(frozen=True)
class Floor(_Unary):
    """y = the largest whole number ≤ x0.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats, integers
    Grad:    none: 0 wherever it exists
    """

    mnemonic: ClassVar[str] = "floor"
    formula: ClassVar[sp.Basic] = sp.floor(x0)
    differentiable: ClassVar[bool] = False


@dataclass(frozen=True)
class Ceil(_Unary):
    """y = the smallest whole number ≥ x0.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats, integers
    Grad:    none: 0 wherever it exists
    """

    mnemonic: ClassVar[str] = "ceil"
    formula: ClassVar[sp.Basic] = sp.ceiling(x0)
    differentiable: ClassVar[bool] = False


def add(x: Value | Number, y: Value | Number) -> Value:
    return binary(Add(), x, y)


def sub(x: Value | Number, y: Value | Number) -> Value:
    return binary(Sub(), x, y)


def mul(x: Value | Number, y: Value | Number) -> Value:
    return binary(Mul(), x, y)


def div(x: Value | Number, y: Value | Number) -> Value:
    return binary(Div(), x, y)


def pow(x: Value | Number, y: Value | Number) -> Value:
    return binary(Pow(), x, y)


def neg(x: Value) -> Value:
    return x.apply(Neg(), x)


def reciprocal(x: Value) -> Value:
    return x.apply(Reciprocal(), x)


def square(x: Value) -> Value:
    return x.apply(Square(), x)


def sqrt(x: Value) -> Value:
    return x.apply(Sqrt(), x)


def exp(x: Value) -> Value:
    return x.apply(Exp(), x)


def expm1(x: Value) -> Value:
    return x.apply(Expm1(), x)


def log(x: Value) -> Value:
    return x.apply(Log(), x)


def log1p(x: Value) -> Value:
    return x.apply(Log1p(), x)


def sin(x: Value) -> Value:
    return x.apply(Sin(), x)


def cos(x: Value) -> Value:
    return x.apply(Cos(), x)


def erf(x: Value) -> Value:
    return x.apply(Erf(), x)


def abs(x: Value) -> Value:
    return x.apply(Abs(), x)


def sign(x: Value) -> Value:
    return x.apply(Sign(), x)


def floor(x: Value) -> Value:
    return x.apply(Floor(), x)


def ceil(x: Value) -> Value:
    return x.apply(Ceil(), x)


def power(x: Value, exponent: float) -> Value:
    return x.apply(Power(float(exponent)), x)
