"""Activations of every element; kinks have torch's derivatives."""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp

from ...errors import UnsupportedError
from ...ir.bricks import activation, arithmetic
from ...ir.bricks.elementwise import elementwise
from ...ir.expression import expm1, number, operand, softplus
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import Number, Out, columns, floats, scalar
from .choices import clamp
from .pointwise import scaled

__all__ = ["ACTIVATIONS"]

x0 = operand(0)
of = trace.of


def gelu(out: Out, x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate not in ("none", "tanh"):
        raise UnsupportedError("such an approximation of gelu", got=approximate)
    return of(activation.gelu(x, approximate == "tanh"))


def elu(
    out: Out, x: Tensor, alpha: Number = 1, scale: Number = 1, input_scale: Number = 1
) -> Tensor:
    if input_scale == 1:
        return scaled(of(activation.elu(x, float(alpha))), scale)
    inner = sp.Piecewise((number(input_scale) * x0, x0 < 0), (0, True))
    expr = sp.Piecewise((x0, x0 > 0), (number(alpha) * expm1(inner), True))
    return scaled(of(elementwise(expr, x, symbols=(x0,))), scale)


def selu(out: Out, x: Tensor) -> Tensor:
    return elu(out, x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


def celu(out: Out, x: Tensor, alpha: Number = 1.0) -> Tensor:
    return elu(out, x, alpha, 1, 1.0 / alpha)


def leaky_relu(out: Out, x: Tensor, negative_slope: Number = 0.01) -> Tensor:
    return of(activation.leaky_relu(x, float(negative_slope)))


def softplus_(out: Out, x: Tensor, beta: Number = 1, threshold: Number = 20) -> Tensor:
    b = number(float(beta))
    expr = sp.Piecewise((x0, x0 * b > number(float(threshold))), (softplus(x0 * b) / b, True))
    return of(elementwise(expr, x, symbols=(x0,)))


def hardtanh(out: Out, x: Tensor, min_val: Number = -1, max_val: Number = 1) -> Tensor:
    """x between the bounds; on them the derivative is 0."""
    lo, hi = number(float(min_val)), number(float(max_val))
    expr = sp.Piecewise((lo, x0 <= lo), (hi, x0 >= hi), (x0, True))
    return of(elementwise(expr, x, symbols=(x0,)))


def relu6(out: Out, x: Tensor) -> Tensor:
    return hardtanh(out, x, 0, 6)


def threshold(out: Out, x: Tensor, threshold: Number, value: Number) -> Tensor:
    kept = arithmetic.greater(x, scalar(threshold, x.dtype))
    if x.dtype.is_float:
        kept = arithmetic.logical_or(kept, arithmetic.not_equal(x, x))
    return of(arithmetic.where(kept, x, scalar(value, x.dtype)))


def shrink(out: Out, x: Tensor, lambd: Number = 0.5) -> Tensor:
    """0 between ±lambda; beyond, x moved towards 0 by lambda."""
    edge = number(float(lambd))
    expr = sp.Piecewise((x0 - edge, x0 > edge), (x0 + edge, x0 < -edge), (x0 * 0, True))
    return of(elementwise(expr, x, symbols=(x0,)))


def hardshrink(out: Out, x: Tensor, lambd: Number = 0.5) -> Tensor:
    edge = number(float(lambd))
    inside = (x0 >= -edge) & (x0 <= edge)
    return of(elementwise(sp.Piecewise((0, inside), (x0, True)), x, symbols=(x0,)))


def prelu(out: Out, x: Tensor, weight: Tensor) -> Tensor:
    if x.rank > 1 and weight.rank == 1:
        weight = columns(weight, x.rank)
    return of(activation.prelu(x, weight))


def logit(out: Out, x: Tensor, eps: float | None = None) -> Tensor:
    (p,) = floats(x)
    y: Value = p
    if eps is not None:
        y = clamp(out, p, eps, 1.0 - eps)
    return of(arithmetic.log(arithmetic.div(y, arithmetic.sub(1.0, y))))


ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "gelu.default": gelu, "elu.default": elu, "selu.default": selu, "celu.default": celu,
    "leaky_relu.default": leaky_relu, "softplus.default": softplus_,
    "hardtanh.default": hardtanh, "relu6.default": relu6, "threshold.default": threshold,
    "softshrink.default": shrink, "hardshrink.default": hardshrink, "prelu.default": prelu,
    "_prelu_kernel.default": prelu, "logit.default": logit,
}  # fmt: skip
