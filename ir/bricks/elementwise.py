"""Elementwise bricks: a SymPy expression each, and nothing more.

The base class derives everything else from the expression: shape rule with broadcasting,
dtype rule, reference evaluation, derivative, and (in the compiler) kernels for every backend.
``elementwise`` makes a brick of a user's own expression: the general block y = f(w, x).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.logic.boolalg import Boolean

from ...errors import DtypeError, ShapeError, UnsupportedError, UsageError
from .. import expression
from ..brick import Array, Brick
from ..dims import Size
from ..dtypes import DType
from ..expression import FUNCTIONS, RELATIONS, Y, operand
from ..types import Shape, TensorType
from ..value import Value

__all__ = ["Elementwise", "Map", "broadcast_shapes", "differentiate", "elementwise"]

#: steps: constant between their jumps, so that their derivative is 0
_STEPS = (sp.sign, sp.floor, sp.ceiling)
#: the functions that whole numbers have, too
_EXACT = (sp.Abs, *_STEPS)


def broadcast_shapes(shapes: Sequence[Shape], where: str = "") -> Shape:
    """NumPy's broadcasting: axes are matched from the right, size 1 stretches."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Size] = []
    for axis in range(-rank, 0):
        size: Size = 1
        for shape in shapes:
            if len(shape) < -axis or shape[axis] == 1:
                continue
            if size != 1 and size != shape[axis]:
                raise ShapeError(
                    f"{where}: shapes do not broadcast" if where else "shapes do not broadcast",
                    got=" and ".join(str(list(s)) for s in shapes),
                    expected="equal sizes, or 1, on every axis counted from the right",
                )
            size = shape[axis]
        result.append(size)
    return tuple(result)


def is_condition(expr: sp.Basic) -> bool:
    """True if the expression is a truth value. SymPy's symbols count as Boolean; ours are real."""
    return isinstance(expr, Boolean) and not expr.is_Symbol


class Elementwise(Brick):
    """y = f(x0, x1, …) on every element, with broadcasting.

    Shapes:  xk broadcast together -> y
    Dtypes:  all operands that are not bool share one dtype, which is the result's; a
             comparison gives bool; integers are fine where f stays with whole numbers (their
             quotients are cut towards zero), bool where nothing is computed
    Grad:    dxk = dy · ∂f/∂xk by sympy.diff, or through y where ``through_result`` says so
    Raises:  ShapeError if the shapes do not broadcast; DtypeError if dtypes differ or do
             not suit f
    """

    #: the expression in x0, x1, …; parametrised bricks override ``expression`` instead
    formula: ClassVar[sp.Basic]
    #: partial derivatives in terms of x0, x1, … and y, which the compiler prefers
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = None
    #: False for integer and bool functions, and for steps: no cotangent flows
    differentiable: ClassVar[bool] = True

    def expression(self) -> sp.Basic:
        """f, in the symbols x0, x1, …"""
        return self.formula

    def partials(self) -> tuple[sp.Expr | None, ...]:
        """∂f/∂xk in the symbols x0, x1, … and y; None where no cotangent flows."""
        if self.through_result is not None:
            return self.through_result
        return differentiate(self.expression(), self.count)

    @property
    def count(self) -> int:
        """Number of operands."""
        assert self.arity is not None
        return self.arity

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        shape = broadcast_shapes([o.shape for o in operands], self.mnemonic)
        return TensorType(self._result_dtype(operands), shape)

    def _result_dtype(self, operands: Sequence[TensorType]) -> DType:
        numeric = {o.dtype for o in operands if o.dtype is not DType.BOOL}
        if len(numeric) > 1:
            raise DtypeError(
                f"{self.mnemonic}: operands have different dtypes",
                got=", ".join(str(o.dtype) for o in operands),
                expected="one dtype",
                hint="cast one of them",
            )
        expr = self.expression()
        found = numeric.pop() if numeric else DType.BOOL
        least = requirement(expr)
        if (least == "float" and not found.is_float) or (least == "number" and found is DType.BOOL):
            raise DtypeError(
                f"{self.mnemonic} is not defined for {found}",
                got=", ".join(str(o.dtype) for o in operands),
                expected="floats" if least == "float" else "numbers",
                hint="cast first",
            )
        return DType.BOOL if is_condition(expr) else found

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        types = [TensorType(DType.of(o.dtype), o.shape) for o in operands]
        result = self.infer_type(types)
        numeric = [t.dtype for t in types if t.dtype is not DType.BOOL]
        dtype = numeric[0] if numeric else DType.BOOL
        value = expression.evaluate(self.expression(), operands, dtype.numpy)
        # a symbol may be missing from f, as x is from the derivative of a ReLU's left side
        return np.broadcast_to(value, result.concrete(dims)).astype(result.dtype.numpy)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        from .reduce import sum_to  # reductions are written in terms of this module

        if not self.differentiable or not result.dtype.is_float:
            return [None] * len(operands)
        gradients: list[Value | None] = []
        for k, partial in enumerate(self.partials()):
            if partial is None or partial == 0 or not operands[k].dtype.is_float:
                gradients.append(None)
                continue
            brick, used = compact(partial, [*operands, result], cotangent)
            gradient = cotangent if brick is None else cotangent.apply(brick, *used)
            gradients.append(sum_to(gradient, operands[k].shape))
        return gradients


@dataclass(frozen=True)
class Map(Elementwise):
    """An anonymous elementwise brick: a derivative, a user's formula, a folded constant.

    ``expr`` is in the symbols x0 … x(operands-1).
    """

    mnemonic: ClassVar[str] = "map"

    expr: sp.Basic
    operands: int

    @property
    def arity(self) -> int:  # type: ignore[override]
        return self.operands

    def expression(self) -> sp.Basic:
        return self.expr


def compact(
    partial: sp.Expr, values: Sequence[Value], cotangent: Value
) -> tuple[Map | None, list[Value]]:
    """The map ``cotangent · partial`` over only those values that ``partial`` uses.

    ``values`` are the operands, then the result (the symbol y). None stands for the
    identity: the partial derivative is 1.
    """
    if partial == 1:
        return None, [cotangent]
    symbols = [operand(k) for k in range(len(values) - 1)] + [Y]
    used = [k for k, s in enumerate(symbols) if partial.has(s)]
    renamed = partial.xreplace({symbols[k]: operand(n + 1) for n, k in enumerate(used)})
    brick = Map(operand(0) * renamed, 1 + len(used))
    return brick, [cotangent, *(values[k] for k in used)]


@lru_cache(maxsize=4096)
def requirement(expr: sp.Basic) -> str:
    """What the expression has to be computed in: "any" dtype, a "number" or a "float"."""
    found = "any"
    for e in sp.preorder_traversal(expr):
        if isinstance(e, sp.Number | sp.NumberSymbol):
            least = "any" if e.is_Integer else "float"
        elif isinstance(e, sp.Pow):
            least = "number" if e.exp.is_Integer else "float"
        elif isinstance(e, (*_EXACT, sp.Add, sp.Mul)):
            least = "number"
        else:
            least = "float" if isinstance(e, tuple(FUNCTIONS)) else "any"
        if least == "float":
            return least
        found = least if found == "any" else found
    return found


class _absolute(sp.Function):  # type: ignore[misc]  # noqa: N801 - a mathematical function's name
    """|x| of a real x, which SymPy only sees in the simplest arguments."""

    nargs = 1

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        return sp.sign(self.args[0])


@lru_cache(maxsize=4096)
def differentiate(expr: sp.Basic, count: int) -> tuple[sp.Expr | None, ...]:
    """Partial derivatives of an expression, cached: equal layers share them.

    They hold almost everywhere: sign, floor and ceiling have the derivative 0, |x| has
    sign(x), and a Piecewise that of the branch that is taken.
    """
    if is_condition(expr):
        return (None,) * count
    # a jump would become a DiracDelta, and hidden symbols keep SymPy from looking for it
    hidden = {e: sp.Dummy(real=True) for e in expr.atoms(*_STEPS)}
    shown = {dummy: e for e, dummy in hidden.items()}
    smooth = expr.xreplace(hidden).replace(sp.Abs, _absolute)
    found: list[sp.Expr | None] = []
    for k in range(count):
        symbol = operand(k)
        if not expr.has(symbol):
            found.append(None)
            continue
        derivative = sp.diff(smooth, symbol).replace(_absolute, sp.Abs)
        found.append(_tidy(derivative.xreplace(shown)))
    return tuple(found)


def _tidy(expr: sp.Expr) -> sp.Expr:
    """Powers of one base joined (a^b/a is 0/0 at 0, a^(b-1) is not), numbers worked out."""
    if any(not p.exp.is_number for p in expr.atoms(sp.Pow)):
        expr = sp.powsimp(expr, combine="exp")
    return expr.replace(
        lambda e: isinstance(e, sp.Pow | sp.NumberSymbol) and e.is_number and e.is_real,
        lambda e: sp.Float(float(e), precision=53),
    )


# ── a user's own expression ──────────────────────────────────────────────────────────────

#: what an expression may be made of, besides symbols, numbers and functions
_STRUCTURE = (sp.Add, sp.Mul, sp.Pow, sp.Piecewise, ExprCondPair, AppliedUndef,
              *FUNCTIONS, *RELATIONS)  # fmt: skip


def elementwise(
    expr: sp.Basic, *operands: Value, symbols: Sequence[sp.Symbol] | None = None
) -> Value:
    """The general block y = f(x0, x1, …): a SymPy expression on every element of the operands.

    ``symbols`` name the operands, in their order; without them, the expression's symbols in
    the order of their names do (so x0, x1, … need no list). ``sp.Max`` and ``sp.Min`` become
    Piecewise; at ties the derivative goes to their first argument. Functions about which
    nothing is known, ``sp.Function("f1")(w, x)``, can be differentiated, not evaluated.

    Shapes:  the operands broadcast together -> y
    Dtypes:  as Elementwise
    Grad:    by sympy.diff; at kinks as the Piecewise says
    Raises:  UsageError if symbols and operands do not go together; UnsupportedError for a
             function that brickc does not have
    """
    expr = sp.sympify(expr)
    names = _names(expr, len(operands), symbols)
    rename = {s: operand(k) for k, s in enumerate(names)}
    expr = expr.xreplace(rename)
    expr = expr.replace(lambda e: isinstance(e, sp.Max | sp.Min),
                        lambda e: e.rewrite(sp.Piecewise))  # fmt: skip
    expr = expr.xreplace(
        {f: sp.Float(float(f), precision=53) for f in expr.atoms(sp.Float) if f._prec != 53}
    )
    _check(expr)
    unused = [k for k in range(len(names)) if operand(k) not in expr.free_symbols]
    return _apply(expr, operands, unused)


def _names(expr: sp.Basic, count: int, symbols: Sequence[sp.Symbol] | None) -> Sequence[sp.Symbol]:
    free = sorted(expr.free_symbols, key=lambda s: (len(s.name), s.name))
    names = free if symbols is None else list(symbols)
    if count == 0:
        raise UsageError("an elementwise brick needs an operand")
    if len(names) != count or len(set(names)) != count or not set(free) <= set(names):
        raise UsageError(
            "the symbols of an expression and the operands do not go together",
            got=f"{count} operands for {', '.join(map(str, names)) or 'no symbols'}",
            expected=f"one operand for each of {', '.join(map(str, free)) or 'the symbols'}",
            hint="list the symbols in the operands' order: symbols=(w, x)",
        )
    return names


def _check(expr: sp.Basic) -> None:
    """Raise UnsupportedError unless the expression is one that brickc can handle."""
    for e in sp.preorder_traversal(expr):
        known = isinstance(e, (sp.Symbol, sp.Number, sp.NumberSymbol, *_STRUCTURE))
        if not known and e not in (sp.true, sp.false):
            raise UnsupportedError(
                "an expression uses what brickc does not have", got=f"{type(e).__name__} {e}"[:200],
                expected=", ".join(sorted(f.__name__ for f in FUNCTIONS)),
            )  # fmt: skip
        if isinstance(e, sp.Piecewise) and e.args[-1][1] != sp.true:
            raise UnsupportedError(
                "a Piecewise does not say what holds otherwise", got=str(e)[:200],
                hint="end it with (value, True)",
            )  # fmt: skip


def _apply(expr: sp.Basic, operands: Sequence[Value], unused: Sequence[int] = ()) -> Value:
    """The expression applied to values; xk stands for ``operands[k]``.

    Unspecified functions of anything but different operands get a node of their own: their
    derivatives then are f1'(x0) and so on, where SymPy would need substitutions. The
    ``unused`` operands have a say in the shape alone.
    """
    values = list(operands)

    def nodes(e: sp.Basic) -> sp.Basic:
        if not e.args:
            return e
        args = [nodes(a) for a in e.args]
        plain = all(a.is_Symbol for a in args) and len(set(args)) == len(args)
        if plain or not isinstance(e, AppliedUndef):
            return e.func(*args)
        brick = Map(e.func(*(operand(k) for k in range(len(args)))), len(args))
        values.append(values[0].apply(brick, *(_apply(a, values) for a in args)))
        return operand(len(values) - 1)

    expr = nodes(expr)
    if expr.is_Symbol and not unused:
        return values[int(expr.name[1:])]
    free = expr.free_symbols
    used = [k for k in range(len(values)) if k in unused or operand(k) in free] or [0]
    renamed = expr.xreplace({operand(k): operand(n) for n, k in enumerate(used)})
    return values[0].apply(Map(renamed, len(used)), *(values[k] for k in used))
