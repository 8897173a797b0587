"""Layers that work on every element alone, and softmax."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import sympy as sp

from ..errors import UnsupportedError, UsageError
from ..ir import expression
from ..ir.brick import Brick
from ..ir.bricks import activation, elementwise, normalization
from ..ir.initializers import constant
from . import trace
from .layer import Init, Layer, expect_float, per_channel
from .trace import Tensor

__all__ = ["ELU", "GELU", "Elementwise", "LeakyReLU", "LogSoftmax", "Logistic", "PReLU", "ReLU",
           "SiLU", "Sigmoid", "Softmax", "Softplus", "Tanh", "Unary"]  # fmt: skip


class Unary(Layer, ABC):
    """A brick on its one operand."""

    @abstractmethod
    def _brick(self, x: Tensor) -> Brick: ...

    def forward(self, x: Tensor) -> Tensor:
        expect_float(x)
        return x.apply(self._brick(x), x)


class Tanh(Unary):
    """tanh(x)."""

    kind: ClassVar[str] = "tanh"

    def _brick(self, x: Tensor) -> Brick:
        return activation.Tanh()


class Logistic(Unary):
    """1/(1 + exp(-x)); ``Sigmoid`` is another name."""

    kind: ClassVar[str] = "logistic"

    def _brick(self, x: Tensor) -> Brick:
        return activation.Logistic()


Sigmoid = Logistic


class ReLU(Unary):
    """max(x, 0); the derivative at 0 is 0."""

    kind: ClassVar[str] = "relu"

    def _brick(self, x: Tensor) -> Brick:
        return activation.ReLU()


@dataclass(eq=False, repr=False)
class LeakyReLU(Unary):
    """x where positive, slope·x elsewhere."""

    kind: ClassVar[str] = "relu"

    slope: float = 0.01

    def _brick(self, x: Tensor) -> Brick:
        return activation.LeakyReLU(float(self.slope))


@dataclass(eq=False, repr=False)
class PReLU(Layer):
    """x where positive, slope·x elsewhere, with a trained slope for every channel.

    Source: He et al., Delving deep into rectifiers, 2015 (slopes start at 0.25)
    """

    kind: ClassVar[str] = "relu"

    init: Init = constant(0.25)  # noqa: RUF009 - immutable

    def forward(self, x: Tensor) -> Tensor:
        expect_float(x)
        return trace.of(activation.prelu(x, per_channel(self, "slope", self.init, x)))


@dataclass(eq=False, repr=False)
class ELU(Unary):
    """x where positive, alpha·(exp(x) - 1) elsewhere."""

    kind: ClassVar[str] = "elu"

    alpha: float = 1.0

    def _brick(self, x: Tensor) -> Brick:
        return activation.ELU(float(self.alpha))


@dataclass(eq=False, repr=False)
class GELU(Unary):
    """x·Φ(x), or its approximation by tanh."""

    kind: ClassVar[str] = "gelu"

    approximate: bool = False

    def _brick(self, x: Tensor) -> Brick:
        return activation.GELU(self.approximate)


class SiLU(Unary):
    """x·logistic(x)."""

    kind: ClassVar[str] = "silu"

    def _brick(self, x: Tensor) -> Brick:
        return activation.SiLU()


class Softplus(Unary):
    """log(1 + exp(x))."""

    kind: ClassVar[str] = "softplus"

    def _brick(self, x: Tensor) -> Brick:
        return activation.Softplus()


@dataclass(eq=False, repr=False)
class Softmax(Unary):
    """exp(x) / sum exp(x) along ``axis``, the last unless given."""

    kind: ClassVar[str] = "softmax"

    axis: int = -1

    def _brick(self, x: Tensor) -> Brick:
        return normalization.Softmax(trace.axes_of(x, self.axis)[0])


@dataclass(eq=False, repr=False)
class LogSoftmax(Unary):
    """x - log sum exp(x) along ``axis``, the last unless given."""

    kind: ClassVar[str] = "logsoftmax"

    axis: int = -1

    def _brick(self, x: Tensor) -> Brick:
        return normalization.LogSoftmax(trace.axes_of(x, self.axis)[0])


@dataclass(eq=False, repr=False)
class Elementwise(Layer):
    """Your own function on every element, as a SymPy expression.

    Give a function of SymPy symbols, ``Elementwise(lambda x: x * sp.tanh(x))``, or an
    expression in one symbol. Derivatives and kernels follow from it; kinks are written as
    ``sp.Piecewise`` (``sp.Max`` and ``sp.Min`` are, too).
    """

    kind: ClassVar[str] = "elementwise"

    expr: sp.Basic | Callable[..., sp.Basic]

    def forward(self, *operands: Tensor) -> Tensor:
        return operands[0].apply(elementwise.Map(self._expression(len(operands)), len(operands)),
                                 *operands)  # fmt: skip

    def _expression(self, count: int) -> sp.Basic:
        symbols = [expression.operand(k) for k in range(count)]
        if isinstance(self.expr, sp.Basic):
            free = sorted(self.expr.free_symbols, key=str)
            if len(free) > 1 or count != 1:
                raise UsageError(
                    "an expression in one symbol takes one operand",
                    got=f"{len(free)} symbols, {count} operands",
                    hint="for more, give a function: lambda a, b: a * b",
                )
            expr = self.expr.xreplace(dict(zip(free, symbols, strict=False)))
        else:
            wanted = len(inspect.signature(self.expr).parameters)
            if wanted != count:
                raise UsageError("another number of operands", got=count, expected=wanted)
            expr = sp.sympify(self.expr(*symbols))
        expr = expr.replace(lambda e: isinstance(e, sp.Max | sp.Min),
                            lambda e: e.rewrite(sp.Piecewise))  # fmt: skip
        strange = {type(f).__name__ for f in expr.atoms(sp.Function)
                   if not isinstance(f, (sp.Piecewise, *expression.FUNCTIONS))}  # fmt: skip
        if strange:
            raise UnsupportedError(
                "no such function on elements", got=", ".join(sorted(strange)),
                expected=", ".join(sorted(f.__name__ for f in expression.FUNCTIONS)),
            )  # fmt: skip
        return expr
