"""The scalar expressions of elementwise bricks: their functions, text form and evaluation.

Operands are the real symbols ``x0``, ``x1``, …; the result, where a derivative is stated
through it, is ``y``. Only the functions listed in FUNCTIONS may occur.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import sympy as sp
from sympy.core.function import UndefinedFunction

from ..errors import UnsupportedError

__all__ = ["Y", "evaluate", "logistic", "operand", "softplus"]

Array = npt.NDArray[Any]

#: the brick's own result, in derivatives that are stated through it
Y: sp.Symbol = sp.Symbol("y", real=True)


@lru_cache(maxsize=None)
def operand(k: int) -> sp.Symbol:
    """The symbol of operand ``k``."""
    return sp.Symbol(f"x{k}", real=True)


class logistic(sp.Function):  # type: ignore[misc]  # noqa: N801 - a mathematical function's name
    """1/(1 + exp(-x)), computed without overflow."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return self * (1 - self)


class softplus(sp.Function):  # type: ignore[misc]  # noqa: N801
    """log(1 + exp(x)), computed as max(x, 0) + log1p(exp(-|x|))."""

    nargs = 1
    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return logistic(self.args[0])


def _logistic(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(np.asarray(x).dtype)


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


def evaluate(expr: sp.Basic, operands: Sequence[Array], dtype: np.dtype[Any]) -> Array:
    """The expression on arrays, node by node; numbers take ``dtype``."""
    memo: dict[sp.Basic, Array] = {}

    def visit(e: sp.Basic) -> Array:
        if e not in memo:
            memo[e] = compute(e)
        return memo[e]

    def compute(e: sp.Basic) -> Array:
        if isinstance(e, sp.Symbol):
            return operands[int(e.name[1:])]
        if e in (sp.true, sp.false):
            return np.asarray(bool(e))
        if isinstance(e, sp.Number | sp.NumberSymbol):
            return np.asarray(_number(e, dtype))
        args = [visit(a) for a in e.args] if not isinstance(e, sp.Piecewise) else []
        match e:
            case sp.Add():
                return _fold(np.add, args)
            case sp.Mul():
                # a divisor is a power with a negative exponent: divide, as one would write it
                return _fold(np.multiply, args)
            case sp.Pow():
                return _power(args[0], e.exp, args[1])
            case sp.Piecewise():
                result = None
                for value, condition in reversed(e.args):
                    branch = visit(value)
                    if result is None:
                        result = branch
                    else:
                        result = np.where(visit(condition), branch, result)
                assert result is not None
                return result
            case sp.And() | sp.Or():
                return _fold(RELATIONS[type(e)], args)
        function = FUNCTIONS.get(type(e)) or RELATIONS.get(type(e))
        if function is None or isinstance(type(e), UndefinedFunction):
            raise UnsupportedError(
                "an expression uses a function that brickc cannot evaluate",
                got=str(type(e).__name__),
                expected=", ".join(sorted(f.__name__ for f in FUNCTIONS)),
            )
        return np.asarray(function(*args))

    with np.errstate(all="ignore"):  # both branches of a Piecewise are computed
        return visit(expr)


def _fold(function: Any, args: Sequence[Array]) -> Array:
    total = args[0]
    for a in args[1:]:
        total = function(total, a)
    return total


def _power(base: Array, exponent: sp.Expr, value: Array) -> Array:
    if exponent == sp.Rational(1, 2):
        return np.sqrt(base)
    if exponent == sp.Rational(-1, 2):
        return 1 / np.sqrt(base)
    if exponent.is_Integer:
        n = int(exponent)
        return np.power(base, n) if n >= 0 else 1 / np.power(base, -n)
    return np.power(base, value)


def _number(e: sp.Expr, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        dtype = np.dtype(np.int64 if e.is_Integer else np.float64)
    return dtype.type(float(e) if dtype.kind == "f" else int(e))
