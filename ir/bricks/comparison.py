"""Comparisons, logic and choice on every element; arithmetic.py offers them, too.

Where a choice has a kink, the derivative there is written down: the conventions are torch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import sympy as sp

from ...errors import DtypeError, UsageError
from ..dtypes import DType
from ..expression import number, operand
from ..types import TensorType
from ..value import Value
from .elementwise import Elementwise
from .source import Number, lift

__all__ = [
    "Clip", "Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "LogicalAnd", "LogicalNot",
    "LogicalOr", "Maximum", "Minimum", "NotEqual", "Where", "binary", "clip", "equal",
    "greater", "greater_equal", "less", "less_equal", "logical_and", "logical_not",
    "logical_or", "maximum", "minimum", "not_equal", "where",
]  # fmt: skip

x0, x1, x2 = operand(0), operand(1), operand(2)


class _Comparison(Elementwise):
    arity: ClassVar[int | None] = 2
    differentiable: ClassVar[bool] = False


@dataclass(frozen=True)
class Less(_Comparison):
    """y = [x0 < x1]; false where one is NaN.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  any -> bool
    Grad:    none
    """

    mnemonic: ClassVar[str] = "less"
    formula: ClassVar[sp.Basic] = sp.StrictLessThan(x0, x1)


@dataclass(frozen=True)
class LessEqual(_Comparison):
    """y = [x0 ≤ x1]; false where one is NaN.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  any -> bool
    Grad:    none
    """

    mnemonic: ClassVar[str] = "less_equal"
    formula: ClassVar[sp.Basic] = sp.LessThan(x0, x1)


@dataclass(frozen=True)
class Greater(_Comparison):
    """y = [x0 > x1]; false where one is NaN.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  any -> bool
    Grad:    none
    """

    mnemonic: ClassVar[str] = "greater"
    formula: ClassVar[sp.Basic] = sp.StrictGreaterThan(x0, x1)


@dataclass(frozen=True)
class GreaterEqual(_Comparison):
    """y = [x0 ≥ x1]; false where one is NaN.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  any -> bool
    Grad:    none
    """

    mnemonic: ClassVar[str] = "greater_equal"
    formula: ClassVar[sp.Basic] = sp.GreaterThan(x0, x1)


@dataclass(frozen=True)
class Equal(_Comparison):
    """y = [x0 = x1]; false where one is NaN.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  any -> bool
    Grad:    none
    """

    mnemonic: ClassVar[str] = "equal"
    formula: ClassVar[sp.Basic] = sp.Equality(x0, x1)


@dataclass(frozen=True)
class NotEqual(_Comparison):
    """y = [x0 ≠ x1]; true where one is NaN.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  any -> bool
    Grad:    none
    """

    mnemonic: ClassVar[str] = "not_equal"
    formula: ClassVar[sp.Basic] = sp.Unequality(x0, x1)


class _Logical(Elementwise):
    differentiable: ClassVar[bool] = False

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        _expect_bool(self.mnemonic, operands)
        return super().infer_type(operands)


def _expect_bool(what: str, operands: Sequence[TensorType]) -> None:
    for o in operands:
        if o.dtype is not DType.BOOL:
            raise DtypeError(
                f"{what} asks for truth values", got=o.dtype, expected=DType.BOOL,
                hint="compare first: not_equal(x, 0)",
            )  # fmt: skip


@dataclass(frozen=True)
class LogicalAnd(_Logical):
    """y = x0 and x1.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  bool
    Grad:    none
    Raises:  DtypeError for anything but bool
    """

    mnemonic: ClassVar[str] = "logical_and"
    arity: ClassVar[int | None] = 2
    formula: ClassVar[sp.Basic] = sp.And(sp.Ne(x0, 0), sp.Ne(x1, 0))


@dataclass(frozen=True)
class LogicalOr(_Logical):
    """y = x0 or x1.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  bool
    Grad:    none
    Raises:  DtypeError for anything but bool
    """

    mnemonic: ClassVar[str] = "logical_or"
    arity: ClassVar[int | None] = 2
    formula: ClassVar[sp.Basic] = sp.Or(sp.Ne(x0, 0), sp.Ne(x1, 0))


@dataclass(frozen=True)
class LogicalNot(_Logical):
    """y = not x0.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  bool
    Grad:    none
    Raises:  DtypeError for anything but bool
    """

    mnemonic: ClassVar[str] = "logical_not"
    arity: ClassVar[int | None] = 1
    formula: ClassVar[sp.Basic] = sp.Eq(x0, 0)


@dataclass(frozen=True)
class Where(Elementwise):
    """y = x1 where x0, x2 elsewhere.

    Shapes:  x0, x1, x2 broadcast together -> y
    Dtypes:  x0 bool; x1 and x2 any, the same -> y
    Grad:    dx1 = dy where x0, else 0; dx2 the other way round; what was not taken gets an
             exact 0, whatever its value
    Raises:  DtypeError if x0 is not bool or x1 and x2 differ
    """

    mnemonic: ClassVar[str] = "where"
    arity: ClassVar[int | None] = 3
    formula: ClassVar[sp.Basic] = sp.Piecewise((x1, sp.Ne(x0, 0)), (x2, True))

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        _expect_bool("the condition of where", operands[:1])
        return super().infer_type(operands)

    def partials(self) -> tuple[sp.Expr | None, ...]:
        taken, other = sp.Ne(x0, 0), sp.Eq(x0, 0)
        return None, sp.Piecewise((1, taken), (0, True)), sp.Piecewise((1, other), (0, True))


#: dx0 of a maximum: 1, at ties 1/2, or 0
_HALF_AT_TIES = sp.Piecewise((1, x0 > x1), (sp.S.Half, sp.Eq(x0, x1)), (0, True))


@dataclass(frozen=True)
class Maximum(Elementwise):
    """y = the larger of x0 and x1; NaN where one is NaN.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  any
    Grad:    dy to the larger one; at ties: half of it to each
    Source:  torch.maximum
    """

    mnemonic: ClassVar[str] = "maximum"
    arity: ClassVar[int | None] = 2
    formula: ClassVar[sp.Basic] = sp.Piecewise((x0, x0 > x1), (x1, True))
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (
        _HALF_AT_TIES,
        _HALF_AT_TIES.xreplace({x0: x1, x1: x0}),
    )


@dataclass(frozen=True)
class Minimum(Elementwise):
    """y = the smaller of x0 and x1; NaN where one is NaN.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  any
    Grad:    dy to the smaller one; at ties: half of it to each
    Source:  torch.minimum
    """

    mnemonic: ClassVar[str] = "minimum"
    arity: ClassVar[int | None] = 2
    formula: ClassVar[sp.Basic] = sp.Piecewise((x0, x0 < x1), (x1, True))
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (
        _HALF_AT_TIES.xreplace({x0: x1, x1: x0}),
        _HALF_AT_TIES,
    )


@dataclass(frozen=True)
class Clip(Elementwise):
    """y = x0, but lo where x0 < lo and hi where x0 > hi; None is no bound. NaN stays NaN.

    Shapes:  x0 [*S] -> y [*S]
    Dtypes:  floats; integers if the bounds are whole
    Grad:    dx0 = dy · [lo ≤ x0 ≤ hi]: 1 on the bounds
    Raises:  UsageError if lo > hi or a bound is NaN
    Source:  torch.clamp
    """

    mnemonic: ClassVar[str] = "clip"
    arity: ClassVar[int | None] = 1

    lo: float | None
    hi: float | None

    def __post_init__(self) -> None:
        lo = -math.inf if self.lo is None else self.lo
        hi = math.inf if self.hi is None else self.hi
        if not lo <= hi:
            raise UsageError("clip: no number is between the bounds", got=f"{self.lo}, {self.hi}")

    def expression(self) -> sp.Basic:
        cases = []
        if self.lo is not None:
            cases.append((number(self.lo), x0 < number(self.lo)))
        if self.hi is not None:
            cases.append((number(self.hi), x0 > number(self.hi)))
        return sp.Piecewise(*cases, (x0, True))

    def partials(self) -> tuple[sp.Expr | None, ...]:
        above = sp.true if self.lo is None else x0 >= number(self.lo)
        below = sp.true if self.hi is None else x0 <= number(self.hi)
        return (sp.Piecewise((1, sp.And(above, below)), (0, True)),)


def binary(brick: Elementwise, x: Value | Number, y: Value | Number) -> Value:
    """The brick on two operands; a number becomes a constant of the other's dtype."""
    left, right = _lifted(x, y)
    return left.apply(brick, left, right)


def _lifted(x: Value | Number, y: Value | Number) -> tuple[Value, Value]:
    if isinstance(x, Value):
        return x, lift(y, x)
    if isinstance(y, Value):
        return lift(x, y), y
    raise UsageError(
        "two numbers and no tensor", got=f"{x!r} and {y!r}",
        hint="make one of them a constant of a dtype",
    )  # fmt: skip


def less(x: Value | Number, y: Value | Number) -> Value:
    return binary(Less(), x, y)


def less_equal(x: Value | Number, y: Value | Number) -> Value:
    return binary(LessEqual(), x, y)


def greater(x: Value | Number, y: Value | Number) -> Value:
    return binary(Greater(), x, y)


def greater_equal(x: Value | Number, y: Value | Number) -> Value:
    return binary(GreaterEqual(), x, y)


def equal(x: Value | Number, y: Value | Number) -> Value:
    return binary(Equal(), x, y)


def not_equal(x: Value | Number, y: Value | Number) -> Value:
    return binary(NotEqual(), x, y)


def logical_and(x: Value | Number, y: Value | Number) -> Value:
    return binary(LogicalAnd(), x, y)


def logical_or(x: Value | Number, y: Value | Number) -> Value:
    return binary(LogicalOr(), x, y)


def logical_not(x: Value) -> Value:
    return x.apply(LogicalNot(), x)


def where(condition: Value, x: Value | Number, y: Value | Number) -> Value:
    left, right = _lifted(x, y)
    return condition.apply(Where(), condition, left, right)


def maximum(x: Value | Number, y: Value | Number) -> Value:
    return binary(Maximum(), x, y)


def minimum(x: Value | Number, y: Value | Number) -> Value:
    return binary(Minimum(), x, y)


def clip(x: Value, lo: float | None = None, hi: float | None = None) -> Value:
    return x.apply(Clip(None if lo is None else float(lo), None if hi is None else float(hi)), x)
