"""Elementwise bricks: a SymPy expression each, and nothing more.

The base class derives everything else from the expression: shape rule with broadcasting,
reference evaluation, derivative, and (in the compiler) kernels for every backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import sympy as sp
from sympy.logic.boolalg import Boolean

from ...errors import DtypeError, ShapeError, UnsupportedError
from .. import expression
from ..brick import Array, Brick
from ..dims import Size
from ..dtypes import DType
from ..expression import Y, operand
from ..types import Shape, TensorType
from ..value import Value

__all__ = ["Elementwise", "Map", "broadcast_shapes"]


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
             comparison gives bool
    Grad:    dxk = dy · ∂f/∂xk by sympy.diff, or through y where ``through_result`` says so
    Raises:  ShapeError if the shapes do not broadcast; DtypeError if dtypes differ
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
        if is_condition(self.expression()):
            return DType.BOOL
        return numeric.pop() if numeric else DType.BOOL

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
        from .functions import sum_to  # the functions are written in terms of this module

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
def differentiate(expr: sp.Basic, count: int) -> tuple[sp.Expr | None, ...]:
    """Partial derivatives of an expression, cached: equal layers share them."""
    if is_condition(expr):
        return (None,) * count
    found: list[sp.Expr | None] = []
    for k in range(count):
        symbol = operand(k)
        if not expr.has(symbol):
            found.append(None)
            continue
        derivative = sp.diff(expr, symbol)
        if derivative.has(sp.Heaviside, sp.DiracDelta):
            raise UnsupportedError(
                "the derivative of an expression is a distribution", got=str(derivative),
                hint="write the kink as a Piecewise with its convention",
            )  # fmt: skip
        found.append(derivative)
    return tuple(found)
