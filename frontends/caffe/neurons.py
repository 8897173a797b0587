"""Layers that work on every element alone, and those that combine blobs element by element.

Source: the layers of the same names in caffe/layers
"""

from __future__ import annotations

import math

from ...ir.bricks import activation
from ...ir.initializers import constant
from .. import functional as fn
from .. import trace
from ..trace import Tensor
from .call import Call, axis_of, fixed

__all__ = [
    "absval", "axpy", "bias", "bnll", "clip", "dropout", "eltwise", "elu", "exp", "log", "power",
    "prelu", "relu", "relu6", "scale", "sigmoid", "swish", "tanh", "threshold",
]  # fmt: skip


def relu(call: Call) -> list[Tensor]:
    call.expect(1)
    slope = call.sub("relu_param").real("negative_slope")
    return [fn.relu(call.x()) if slope == 0 else fn.leaky_relu(call.x(), slope)]


def relu6(call: Call) -> list[Tensor]:
    """min(max(x, 0), 6), which forks have."""
    call.expect(1)
    return [fn.relu6(call.x())]


def sigmoid(call: Call) -> list[Tensor]:
    call.expect(1)
    return [fn.logistic(call.x())]


def tanh(call: Call) -> list[Tensor]:
    call.expect(1)
    return [fn.tanh(call.x())]


def absval(call: Call) -> list[Tensor]:
    call.expect(1)
    return [fn.abs(call.x())]


def bnll(call: Call) -> list[Tensor]:
    """log(1 + exp(x)), computed without overflow."""
    call.expect(1)
    return [fn.softplus(call.x())]


def elu(call: Call) -> list[Tensor]:
    call.expect(1)
    return [fn.elu(call.x(), call.sub("elu_param").real("alpha"))]


def swish(call: Call) -> list[Tensor]:
    call.expect(1)
    x, beta = call.x(), call.sub("swish_param").real("beta")
    return [x * fn.logistic(x * beta)]


def clip(call: Call) -> list[Tensor]:
    call.expect(1)
    given = call.sub("clip_param")
    if not given.has("min") or not given.has("max"):
        raise call.fail("clip_param needs min and max")
    return [fn.clip(call.x(), given.real("min"), given.real("max"))]


def threshold(call: Call) -> list[Tensor]:
    """1 where x > threshold, else 0; no gradient."""
    call.expect(1)
    limit = call.sub("threshold_param").real("threshold")
    return [fn.greater(call.x(), limit).astype("f32")]


def dropout(call: Call) -> list[Tensor]:
    call.expect(1)
    ratio = call.sub("dropout_param").real("dropout_ratio")
    if not 0 <= ratio < 1:
        raise call.fail("impossible dropout_ratio", got=ratio, expected="0 <= ratio < 1")
    return [fn.dropout(call.x(), ratio)]


def power(call: Call) -> list[Tensor]:
    """(shift + scale·x)^power."""
    call.expect(1)
    given = call.sub("power_param")
    exponent, factor, shift = given.real("power"), given.real("scale"), given.real("shift")
    x = call.x()
    if exponent * factor == 0:
        # a constant: 1 for power 0, and no gradient reaches x
        return [fn.stop_gradient(x) * 0.0 + (1.0 if exponent == 0 else shift**exponent)]
    inner = x if factor == 1 else x * factor
    inner = inner if shift == 0 else inner + shift
    return [inner if exponent == 1 else inner**exponent]


def exp(call: Call) -> list[Tensor]:
    """base^(shift + scale·x); base -1 stands for e."""
    call.expect(1)
    given = call.sub("exp_param")
    rate = _logarithm(call, given.real("base"))
    return [fn.exp((call.x() * given.real("scale") + given.real("shift")) * rate)]


def log(call: Call) -> list[Tensor]:
    """log_base(shift + scale·x); base -1 stands for e."""
    call.expect(1)
    given = call.sub("log_param")
    rate = _logarithm(call, given.real("base"))
    if rate == 0:
        raise call.fail("there is no logarithm of base 1")
    return [fn.log(call.x() * given.real("scale") + given.real("shift")) * (1.0 / rate)]


def _logarithm(call: Call, base: float) -> float:
    if base != -1 and base <= 0:
        raise call.fail("impossible base", got=base, expected="-1 for e, or a positive number")
    return 1.0 if base == -1 else math.log(base)


def prelu(call: Call) -> list[Tensor]:
    """x where positive, slope·x elsewhere; one slope for each channel, or one for all."""
    call.expect(1)
    given, x = call.sub("prelu_param"), call.x()
    if x.rank < 2:
        raise call.fail("the bottom has no channels", got=x.type)
    channels = fixed(call, x.shape[1], "the channel axis")
    shape = () if given.flag("channel_shared") else (channels,)
    first = None if given.has("filler") else constant(0.25)
    slope = call.parameter("slope", shape, given.sub("filler"), first)
    spread = slope.reshape(channels, *(1,) * (x.rank - 2)) if shape else slope
    return [trace.of(activation.prelu(x, spread))]


# ── two blobs ────────────────────────────────────────────────────────────────────────────


def eltwise(call: Call) -> list[Tensor]:
    """Product, sum with coefficients, or maximum of blobs of one shape."""
    call.expect(1, 10_000)
    given = call.sub("eltwise_param")
    operation, factors = given.text("operation"), given.reals("coeff")
    blobs = [call.x(k) for k in range(len(call.bottoms))]
    for blob in blobs[1:]:
        if blob.shape != blobs[0].shape:
            raise call.fail("the bottoms' shapes differ", got=f"{blobs[0].type} and {blob.type}")
    if factors and operation != "SUM":
        raise call.fail("coefficients belong to a sum", got=operation)
    if factors and len(factors) != len(blobs):
        raise call.fail("one coefficient for each bottom", got=len(factors), expected=len(blobs))
    total = blobs[0] if not factors or factors[0] == 1 else blobs[0] * factors[0]
    for k, blob in enumerate(blobs[1:], 1):
        if operation == "PROD":
            total = total * blob
        elif operation == "SUM":
            total = total + (blob if not factors or factors[k] == 1 else blob * factors[k])
        elif k == 1:
            # at ties the gradient goes to the second bottom, later ones must be greater
            total = fn.where(fn.greater(total, blob), total, blob)
        else:
            total = fn.where(fn.greater(blob, total), blob, total)
    return [total]


def _spread(call: Call, x: Tensor, axis: int, blob: Tensor) -> Tensor:
    """A blob that covers x's axes from ``axis`` on, shaped to broadcast."""
    after = x.rank - axis - blob.rank
    if after < 0 or blob.shape != x.shape[axis : axis + blob.rank]:
        raise call.fail(f"the second operand does not fit the axes from {axis} on",
                        got=blob.type, expected=x.type)  # fmt: skip
    return blob.reshape(*blob.shape, *(1,) * after) if after and blob.rank else blob


def _own_shape(call: Call, x: Tensor, axis: int, count: int) -> tuple[int, ...]:
    if count < -1 or (count >= 0 and axis + count > x.rank):
        raise call.fail("num_axes goes beyond the bottom", got=count, expected=x.type)
    stop = x.rank if count == -1 else axis + count
    return tuple(fixed(call, n, "a scaled axis") for n in x.shape[axis:stop])


def scale(call: Call) -> list[Tensor]:
    """x times a blob that is broadcast from ``axis`` on, maybe plus a bias of its shape."""
    call.expect(1, 2)
    given, x = call.sub("scale_param"), call.x()
    if len(call.bottoms) == 2:
        axis = 0 if call.x(1).rank == 0 else axis_of(call, given.integer("axis"), x.rank)
        factor = call.x(1)
        shape: tuple[int, ...] = ()
        if given.flag("bias_term"):
            shape = tuple(fixed(call, n, "a scaled axis") for n in factor.shape)
    else:
        axis = axis_of(call, given.integer("axis"), x.rank)
        shape = _own_shape(call, x, axis, given.integer("num_axes"))
        first = None if given.has("filler") else constant(1.0)
        factor = call.parameter("weight", shape, given.sub("filler"), first)
    y = x * _spread(call, x, axis, factor)
    if given.flag("bias_term"):
        offset = call.parameter("bias", shape, given.sub("bias_filler"))
        y = y + _spread(call, x, axis, offset)
    return [y]


def bias(call: Call) -> list[Tensor]:
    """x plus a blob that is broadcast from ``axis`` on."""
    call.expect(1, 2)
    given, x = call.sub("bias_param"), call.x()
    if len(call.bottoms) == 2:
        offset = call.x(1)
        axis = 0 if offset.rank == 0 else axis_of(call, given.integer("axis"), x.rank)
    else:
        axis = axis_of(call, given.integer("axis"), x.rank)
        shape = _own_shape(call, x, axis, given.integer("num_axes"))
        offset = call.parameter("bias", shape, given.sub("filler"))
    return [x + _spread(call, x, axis, offset)]


def axpy(call: Call) -> list[Tensor]:
    """a·x + y with one a for every channel, which squeeze-and-excitation networks have."""
    call.expect(3)
    a, x, y = call.x(0), call.x(1), call.x(2)
    if x.shape != y.shape or a.shape[:2] != x.shape[:2]:
        raise call.fail("the bottoms do not fit", got=f"{a.type}, {x.type}, {y.type}")
    return [a.reshape(*a.shape[:2], *(1,) * (x.rank - 2)) * x + y]
