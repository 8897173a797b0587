"""Activations: elementwise bricks whose kinks have conventions (those of torch).

Where the derivative is known from y alone it is stated so, and the layer's input need not be
kept: it can be overwritten by y.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import sympy as sp

from .. import expression
from ..expression import Y, number, operand
from ..value import Value
from .arithmetic import add, clip, mul
from .elementwise import Elementwise

__all__ = ["ELU", "GELU", "LeakyReLU", "Logistic", "PReLU", "ReLU", "SiLU", "Softplus", "Tanh",
           "elu", "gelu", "hard_sigmoid", "hard_tanh", "leaky_relu", "logistic", "prelu",
           "relu", "relu6", "silu", "softplus", "tanh"]  # fmt: skip

x0, x1 = operand(0), operand(1)
Partials = tuple[sp.Expr | None, ...]


class _Activation(Elementwise):
    arity: ClassVar[int | None] = 1


@dataclass(frozen=True)
class Tanh(_Activation):
    """y = tanh(x).

    Shapes:  x [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx = dy · (1 - y²)
    """

    mnemonic: ClassVar[str] = "tanh"
    formula: ClassVar[sp.Basic] = sp.tanh(x0)
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (1 - Y**2,)


@dataclass(frozen=True)
class Logistic(_Activation):
    """y = 1/(1 + exp(-x)), without overflow.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx = dy · y · (1 - y)
    """

    mnemonic: ClassVar[str] = "logistic"
    formula: ClassVar[sp.Basic] = expression.logistic(x0)
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (Y * (1 - Y),)


@dataclass(frozen=True)
class ReLU(_Activation):
    """y = max(x, 0); NaN stays NaN.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  floats, integers
    Grad:    dx = dy · [y > 0]; at 0: 0
    Source:  Nair & Hinton, Rectified linear units improve restricted Boltzmann machines, 2010
    """

    mnemonic: ClassVar[str] = "relu"
    formula: ClassVar[sp.Basic] = sp.Piecewise((x0, x0 > 0), (0, True))
    through_result: ClassVar[tuple[sp.Expr, ...] | None] = (sp.Piecewise((1, Y > 0), (0, True)),)


@dataclass(frozen=True)
class LeakyReLU(_Activation):
    """y = x where x > 0, slope · x elsewhere.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  floats; integers if the slope is whole
    Grad:    dx = dy where x > 0, slope · dy elsewhere; at 0: slope · dy
    Source:  Maas et al., Rectifier nonlinearities improve neural network acoustic models, 2013
    """

    mnemonic: ClassVar[str] = "leaky_relu"

    slope: float

    def expression(self) -> sp.Basic:
        return sp.Piecewise((x0, x0 > 0), (number(self.slope) * x0, True))

    def partials(self) -> Partials:
        # y > 0 says x > 0, unless the slope turns signs around
        side = Y if self.slope >= 0 else x0
        return (sp.Piecewise((1, side > 0), (number(self.slope), True)),)


@dataclass(frozen=True)
class PReLU(Elementwise):
    """y = x0 where x0 > 0, x1 · x0 elsewhere; the slope x1 is trained.

    Shapes:  x0, x1 broadcast together -> y
    Dtypes:  floats
    Grad:    dx0 = dy where x0 > 0, x1 · dy elsewhere; at 0: x1 · dy
             dx1 = 0 where x0 > 0, x0 · dy elsewhere
    Source:  He et al., Delving deep into rectifiers, 2015, equation 1
    """

    mnemonic: ClassVar[str] = "prelu"
    arity: ClassVar[int | None] = 2
    formula: ClassVar[sp.Basic] = sp.Piecewise((x0, x0 > 0), (x1 * x0, True))


@dataclass(frozen=True)
class ELU(_Activation):
    """y = x where x > 0, alpha · (exp(x) - 1) elsewhere.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx = dy where x > 0, (y + alpha) · dy elsewhere; at 0: alpha · dy
    Source:  Clevert et al., Fast and accurate deep network learning by exponential linear
             units, 2016, equation 15
    """

    mnemonic: ClassVar[str] = "elu"

    alpha: float

    def expression(self) -> sp.Basic:
        # exp sees only what is not positive, so that it cannot overflow
        low = sp.Piecewise((x0, x0 < 0), (0, True))
        return sp.Piecewise((x0, x0 > 0), (number(self.alpha) * expression.expm1(low), True))

    def partials(self) -> Partials:
        alpha = number(self.alpha)
        side = Y if self.alpha >= 0 else x0
        return (sp.Piecewise((1, side > 0), (Y + alpha, True)),)


@dataclass(frozen=True)
class GELU(_Activation):
    """y = x · Φ(x), Φ(x) = (1 + erf(x/√2))/2; or approximately, by tanh:
    Φ(x) ≈ (1 + tanh(√(2/π) · (x + 0.044715 · x³)))/2.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx = dy · (Φ(x) + x · Φ'(x))
    Source:  Hendrycks & Gimpel, Gaussian error linear units, 2016
    """

    mnemonic: ClassVar[str] = "gelu"

    approximate: bool

    def expression(self) -> sp.Basic:
        if self.approximate:
            inner = number(0.7978845608028654) * (x0 + number(0.044715) * x0**3)
            return x0 * (1 + sp.tanh(inner)) / 2
        return x0 * (1 + sp.erf(number(0.7071067811865476) * x0)) / 2

    def partials(self) -> Partials:
        if self.approximate:
            return super().partials()
        # by hand, as exp(-x²/2) has no rounded factor in its exponent
        density = number(0.3989422804014327) * sp.exp(-(x0**2) / 2)
        return ((1 + sp.erf(number(0.7071067811865476) * x0)) / 2 + x0 * density,)


@dataclass(frozen=True)
class SiLU(_Activation):
    """y = x · logistic(x).

    Shapes:  x [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx = dy · (s + x · s · (1 - s)), s = logistic(x)
    Source:  Elfwing et al., Sigmoid-weighted linear units, 2018
    """

    mnemonic: ClassVar[str] = "silu"
    formula: ClassVar[sp.Basic] = x0 * expression.logistic(x0)


@dataclass(frozen=True)
class Softplus(_Activation):
    """y = log(1 + exp(x)), without overflow.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  floats
    Grad:    dx = dy · logistic(x)
    """

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
    """The slope broadcasts: reshape one per channel to [C, 1, 1] before an image [N, C, H, W]."""
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
    """min(max(x, 0), 6). On the bounds the derivative is clip's, 1, where torch's relu6 has 0."""
    return clip(x, 0.0, 6.0)


def hard_tanh(x: Value, lo: float = -1.0, hi: float = 1.0) -> Value:
    """x between lo and hi. On the bounds the derivative is clip's, 1, where torch's has 0."""
    return clip(x, lo, hi)


def hard_sigmoid(x: Value, slope: float = 1 / 6, offset: float = 0.5) -> Value:
    """slope · x + offset, between 0 and 1. On the bounds the derivative is clip's."""
    return clip(add(mul(x, slope), offset), 0.0, 1.0)
