"""Activations: elementwise bricks with the conventions of their kinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import sympy as sp

from .. import expression
from ..expression import Y, operand
from ..value import Value
from .arithmetic import clip, number
from .elementwise import Elementwise

__all__ = ["elu", "gelu", "leaky_relu", "logistic", "prelu", "relu", "relu6", "silu", "softplus",
           "tanh"]  # fmt: skip

x0, x1 = operand(0), operand(1)


class _Activation(Elementwise):
    arity: ClassVar[int | None] = 1


@dataclass(frozen=True)
class Tanh(_Activation):
    """y = tanh(x). Grad: dx = dy · (1 - y²)"""

    mnemonic: ClassVar[str] = "tanh"
    formula: ClassVar[sp.Basic] = sp.tanh(x0)
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (1 - Y**2,)


@dataclass(frozen=True)
class Logistic(_Activation):
    """y = 1/(1 + exp(-x)). Grad: dx = dy · y(1 - y)"""

    mnemonic: ClassVar[str] = "logistic"
    formula: ClassVar[sp.Basic] = expression.logistic(x0)
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (Y * (1 - Y),)


@dataclass(frozen=True)
class ReLU(_Activation):
    """y = max(x, 0). Grad: dx = dy · [x > 0], 0 at 0"""

    mnemonic: ClassVar[str] = "relu"
    formula: ClassVar[sp.Basic] = sp.Piecewise((x0, x0 > 0), (0, True))
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (sp.Piecewise((1, Y > 0), (0, True)),)


@dataclass(frozen=True)
class LeakyReLU(_Activation):
    """y = x where x > 0, else slope · x. Grad: slope at 0"""

    mnemonic: ClassVar[str] = "leaky_relu"

    slope: float

    def expression(self) -> sp.Basic:
        return sp.Piecewise((x0, x0 > 0), (number(self.slope) * x0, True))


@dataclass(frozen=True)
class PReLU(Elementwise):
    """y = x0 where x0 > 0, else x1 · x0; x1 is a trained slope. Source: He et al., 2015"""

    mnemonic: ClassVar[str] = "prelu"
    arity: ClassVar[int | None] = 2
    formula: ClassVar[sp.Basic] = sp.Piecewise((x0, x0 > 0), (x1 * x0, True))


@dataclass(frozen=True)
class ELU(_Activation):
    """y = x where x > 0, else alpha (exp(x) - 1). Source: Clevert et al., 2015"""

    mnemonic: ClassVar[str] = "elu"

    alpha: float

    def expression(self) -> sp.Basic:
        # exp only sees what is not positive, so that it cannot overflow
        low = sp.Piecewise((0, x0 > 0), (x0, True))
        return sp.Piecewise((x0, x0 > 0), (number(self.alpha) * (sp.exp(low) - 1), True))

    def partials(self) -> tuple[sp.Expr | None, ...]:
        low = sp.Piecewise((0, x0 > 0), (x0, True))
        return (sp.Piecewise((1, x0 > 0), (number(self.alpha) * sp.exp(low), True)),)


@dataclass(frozen=True)
class GELU(_Activation):
    """y = x · Φ(x), by erf or by its tanh approximation. Source: Hendrycks and Gimpel, 2016"""

    mnemonic: ClassVar[str] = "gelu"

    approximate: bool

    def expression(self) -> sp.Basic:
        if self.approximate:
            inner = sp.Float(0.7978845608028654, precision=53) * (
                x0 + sp.Float(0.044715, precision=53) * x0**3
            )
            return x0 * (1 + sp.tanh(inner)) / 2
        return x0 * (1 + sp.erf(x0 * sp.Float(0.7071067811865476, precision=53))) / 2


@dataclass(frozen=True)
class SiLU(_Activation):
    """y = x · logistic(x). Source: Elfwing et al., 2017"""

    mnemonic: ClassVar[str] = "silu"
    formula: ClassVar[sp.Basic] = x0 * expression.logistic(x0)


@dataclass(frozen=True)
class Softplus(_Activation):
    """y = log(1 + exp(x)), without overflow. Grad: dx = dy · logistic(x)"""

    mnemonic: ClassVar[str] = "softplus"
    formula: ClassVar[sp.Basic] = expression.softplus(x0)


def tanh(x: Value) -> Value:
    return x.apply(Tanh(), x)


def logistic(x: Value) -> Value:
    return x.apply(Logistic(), x)


def relu(x: Value) -> Value:
    return x.apply(ReLU(), x)


def leaky_relu(x: Value, slope: float = 0.01) -> Value:
    return x.apply(LeakyReLU(float(slope)), x)


def prelu(x: Value, slope: Value) -> Value:
    return x.apply(PReLU(), x, slope)


def elu(x: Value, alpha: float = 1.0) -> Value:
    return x.apply(ELU(float(alpha)), x)


def gelu(x: Value, approximate: bool = False) -> Value:
    return x.apply(GELU(approximate), x)


def silu(x: Value) -> Value:
    return x.apply(SiLU(), x)


def softplus(x: Value) -> Value:
    return x.apply(Softplus(), x)


def relu6(x: Value) -> Value:
    """min(max(x, 0), 6)"""
    return clip(x, 0.0, 6.0)
