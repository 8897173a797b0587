"""The scalar expressions of elementwise bricks: their functions, text form and evaluation.

Operands are the real symbols ``x0``, ``x1``, …; the result, where a derivative is stated
through it, is ``y``. Only the functions listed in FUNCTIONS may occur, and functions about
which nothing is known (``sp.Function("f1")``), which can be differentiated but not evaluated.

Evaluation keeps digits where the written form would lose them, exactly as the kernels do:
log(1 + u) and exp(u) - 1 are log1p and expm1, a quotient divides once, a Piecewise that picks
the larger or smaller of its two branches is a maximum or minimum, so that NaN stays NaN, and
a factor [c] (``mask``) clears what it hides, NaN included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy as sp

from ..errors import UnsupportedError

__all__ = ["Y", "evaluate", "expm1", "extremum", "log1p", "logistic", "mask", "number", "operand",
           "softplus"]  # fmt: skip

Array = npt.NDArray[Any]

#: the brick's own result, in derivatives that are stated through it
Y: sp.Symbol = sp.Symbol("y", real=True)


@cache
def operand(k: int) -> sp.Symbol:
    """The symbol of operand ``k``."""
    return sp.Symbol(f"x{k}", real=True)


def number(value: float) -> sp.Expr:
    """A float as an exact SymPy number: whole ones as integers, by which SymPy simplifies."""
    value = float(value)
    if value.is_integer() and abs(value) <= 2**53:
        return sp.Integer(int(value))
    return sp.Float(value, precision=53)


class logistic(sp.Function):  # type: ignore[misc]  # noqa: N801 - a mathematical function's name
    """1/(1 + exp(-x)), computed without overflow."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return self * (1 - self)

    def _eval_evalf(self, prec: int) -> sp.Expr:
        return (1 / (1 + sp.exp(-self.args[0])))._eval_evalf(prec)


class softplus(sp.Function):  # type: ignore[misc]  # noqa: N801
    """log(1 + exp(x)), computed as max(x, 0) + log1p(exp(-|x|))."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return logistic(self.args[0])

    def _eval_evalf(self, prec: int) -> sp.Expr:
        return sp.log(1 + sp.exp(self.args[0]))._eval_evalf(prec)


class log1p(sp.Function):  # type: ignore[misc]  # noqa: N801
    """log(1 + x), exact near 0."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return 1 / (1 + self.args[0])

    def _eval_evalf(self, prec: int) -> sp.Expr:
        return sp.log(1 + self.args[0])._eval_evalf(prec)


class expm1(sp.Function):  # type: ignore[misc]  # noqa: N801
    """exp(x) - 1, exact near 0."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.exp(self.args[0])

    def _eval_evalf(self, prec: int) -> sp.Expr:
        return (sp.exp(self.args[0]) - 1)._eval_evalf(prec)


def _logistic(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small))


def _softplus(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def _erf(x: Array) -> Array:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x), np.asarray(x).dtype)


#: the functions that may occur in an expression, with their meaning on arrays
FUNCTIONS: dict[type[sp.Basic], Any] = {
    sp.tanh: np.tanh,
    sp.exp: np.exp,
    sp.log: np.log,
    sp.Abs: np.abs,
    sp.sign: np.sign,
    sp.sin: np.sin,
    sp.cos: np.cos,
    sp.erf: _erf,
    sp.floor: np.floor,
    sp.ceiling: np.ceil,
    logistic: _logistic,
    softplus: _softplus,
    log1p: np.log1p,
    expm1: np.expm1,
}

#: comparisons and connectives; their results are booleans
RELATIONS: dict[type[sp.Basic], Any] = {
    sp.StrictLessThan: np.less,
    sp.LessThan: np.less_equal,
    sp.StrictGreaterThan: np.greater,
    sp.GreaterThan: np.greater_equal,
    sp.Equality: np.equal,
    sp.Unequality: np.not_equal,
    sp.And: np.logical_and,
    sp.Or: np.logical_or,
    sp.Not: np.logical_not,
}


def extremum(e: sp.Basic) -> tuple[str, sp.Expr, sp.Expr] | None:
    """("max" or "min", a, b) for a Piecewise that picks a or b by comparing them."""
    if not isinstance(e, sp.Piecewise) or len(e.args) != 2 or e.args[1][1] != sp.true:
        return None
    (then, condition), (other, _) = e.args
    ordered = sp.StrictGreaterThan | sp.GreaterThan | sp.StrictLessThan | sp.LessThan
    if not isinstance(condition, ordered):
        return None
    if (then, other) == (condition.gts, condition.lts):
        return "max", then, other
    if (then, other) == (condition.lts, condition.gts):
        return "min", then, other
    return None


def mask(e: sp.Basic) -> sp.Basic | None:
    """The condition c of Piecewise((1, c), (0, True)): as a factor it keeps or clears."""
    if isinstance(e, sp.Piecewise) and len(e.args) == 2:
        (then, condition), (other, otherwise) = e.args
        if then == 1 and other == 0 and otherwise == sp.true:
            return condition
    return None


def evaluate(expr: sp.Basic, operands: Sequence[Array], dtype: np.dtype[Any]) -> Array:
    """The expression on arrays, node by node; numbers take ``dtype``, and so do conditions
    where numbers are meant.

    Raises UnsupportedError for what is not in FUNCTIONS, and for a Piecewise that does not say
    what holds otherwise.
    """
    with np.errstate(all="ignore"):  # both branches of a Piecewise are computed
        return _Evaluation(operands, dtype).visit(expr)


class _Evaluation:
    def __init__(self, operands: Sequence[Array], dtype: np.dtype[Any]) -> None:
        self.operands = operands
        self.dtype = dtype
        self.memo: dict[sp.Basic, Array] = {}

    def visit(self, e: sp.Basic) -> Array:
        if e not in self.memo:
            self.memo[e] = self.compute(e)
        return self.memo[e]

    def numeric(self, e: sp.Basic) -> Array:
        value = self.visit(e)
        return value.astype(self.dtype) if value.dtype.kind == "b" else value

    def compute(self, e: sp.Basic) -> Array:
        if isinstance(e, sp.Symbol):
            return np.asarray(self.operands[int(e.name[1:])])
        if e in (sp.true, sp.false):
            return np.asarray(bool(e))
        if isinstance(e, sp.Number | sp.NumberSymbol):
            return np.asarray(_number(e, self.dtype))
        match e:
            case sp.Add():
                return self.sum(e)
            case sp.Mul() | sp.Pow():
                return self.product(e)
            case sp.Piecewise():
                return self.piecewise(e)
            case sp.log() if isinstance(e.args[0], sp.Add) and sp.S.One in e.args[0].args:
                rest = [a for a in e.args[0].args if a != 1]
                return np.asarray(np.log1p(self.fold(np.add, rest)))
        if isinstance(e, sp.Not):
            return np.asarray(np.logical_not(self.visit(e.args[0])))
        if type(e) in RELATIONS:
            return _fold(RELATIONS[type(e)], [self.visit(a) for a in e.args])
        if type(e) in FUNCTIONS:
            return np.asarray(FUNCTIONS[type(e)](self.numeric(e.args[0])))
        raise UnsupportedError(
            "an expression uses a function that brickc cannot evaluate",
            got=str(type(e).__name__),
            expected=", ".join(sorted(f.__name__ for f in FUNCTIONS)),
        )

    def fold(self, function: Any, args: Sequence[sp.Basic]) -> Array:
        return _fold(function, [self.numeric(a) for a in args])

    def sum(self, e: sp.Add) -> Array:
        if len(e.args) == 2 and sp.S.NegativeOne in e.args:
            (other,) = (a for a in e.args if a != -1)
            if isinstance(other, sp.exp):
                return np.asarray(np.expm1(self.numeric(other.args[0])))
        return self.fold(np.add, e.args)

    def product(self, e: sp.Expr) -> Array:
        """A divisor is a power with a negative exponent: divide, as one would write it."""
        over: list[Array] = []
        under: list[Array] = []
        masks: list[Array] = []
        for a in sp.Mul.make_args(e):
            condition = mask(a)
            if condition is not None:
                masks.append(self.visit(condition))
            elif isinstance(a, sp.Pow) and a.exp.is_Number and a.exp.is_negative:
                under.append(self.power(a.base, -a.exp))
            else:
                over.append(self.power(*a.args) if isinstance(a, sp.Pow) else self.numeric(a))
        value = _fold(np.multiply, over) if over else np.asarray(_number(sp.S.One, self.dtype))
        if under:
            value = _divide(value, _fold(np.multiply, under))
        for kept in masks:
            value = np.where(kept, value, np.zeros_like(value))
        return value

    def power(self, base: sp.Expr, exponent: sp.Expr) -> Array:
        x = self.numeric(base)
        if exponent == 1:
            return x
        if exponent.is_number and exponent in (sp.S.Half, sp.Float(0.5)):
            return np.asarray(np.sqrt(x))
        if exponent.is_Integer and exponent >= 0:
            return np.asarray(np.power(x, int(exponent)))
        return np.asarray(np.power(x, self.numeric(exponent)))

    def piecewise(self, e: sp.Piecewise) -> Array:
        found = extremum(e)
        if found is not None:
            kind, *branches = found
            return self.fold(np.maximum if kind == "max" else np.minimum, branches)
        *pairs, (otherwise, last) = e.args
        if last != sp.true:
            raise UnsupportedError(
                "a Piecewise does not say what holds otherwise", got=str(e),
                hint="end it with (value, True)",
            )  # fmt: skip
        result = self.visit(otherwise)
        for value, condition in reversed(pairs):
            result = np.where(self.visit(condition), self.visit(value), result)
        return result


def _divide(a: Array, b: Array) -> Array:
    """a/b; integers are cut towards zero, as C does."""
    if np.result_type(a, b).kind == "f":
        return np.asarray(a / b)
    return np.asarray((a - np.fmod(a, b)) // b)


def _fold(function: Any, args: Sequence[Array]) -> Array:
    total = args[0]
    for a in args[1:]:
        total = np.asarray(function(total, a))
    return total


def _number(e: sp.Expr, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        dtype = np.dtype(np.int64 if e.is_Integer else np.float64)
    return dtype.type(float(e) if dtype.kind == "f" else int(e))
