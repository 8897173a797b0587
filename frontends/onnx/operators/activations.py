"""Activation functions."""

from __future__ import annotations

from ....ir.bricks import activation as f
from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.convert import cast
from ....ir.bricks.normalization import log_softmax, softmax
from ....ir.bricks.reduce import arg_max
from ....ir.bricks.shape import reshape
from ....ir.bricks.source import iota
from ....ir.dims import product
from ....ir.dtypes import DType
from ....ir.types import TensorType
from ....ir.value import Value
from ..node import Node
from .arithmetic import unary
from .kind import Convert, Table

__all__ = ["TABLE"]


def _over_rows(last: str) -> Convert:
    """Before opset 13 the axes from ``axis`` (1) on count as one, and so are normalised."""

    def convert(node: Node) -> Value:
        x = node.tensor(0)
        axis = node.axis(node.get_int("axis", 1), max(x.rank, 1))
        rows = reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))
        return reshape(_FUNCTIONS[last](rows, 1), x.shape)

    return convert


def _along(last: str) -> Convert:
    def convert(node: Node) -> Value:
        x = node.tensor(0)
        return _FUNCTIONS[last](x, node.axis(node.get_int("axis", -1), x.rank))

    return convert


def hardmax(x: Value, axis: int) -> Value:
    """1 at the first maximum, else 0."""
    first = arg_max(x, axis, keepdims=True)
    shape = tuple(n if k == axis else 1 for k, n in enumerate(x.shape))
    places = iota(x, TensorType(DType.I32, shape), axis)
    return cast(a.equal(places, first), x.dtype)


_FUNCTIONS = {"softmax": softmax, "log_softmax": log_softmax, "hardmax": hardmax}


def hard_sigmoid(node: Node) -> Value:
    slope, offset = node.get_float("alpha", 0.2), node.get_float("beta", 0.5)
    return a.clip(a.add(a.mul(node.tensor(0), slope), offset), 0.0, 1.0)


def selu(node: Node) -> Value:
    alpha = node.get_float("alpha", 1.67326319217681884765625)
    gamma = node.get_float("gamma", 1.05070102214813232421875)
    return a.mul(f.elu(node.tensor(0), alpha), gamma)


def celu(node: Node) -> Value:
    alpha = node.get_float("alpha", 1.0)
    return a.mul(f.elu(a.mul(node.tensor(0), 1.0 / alpha)), alpha)


def thresholded_relu(node: Node) -> Value:
    x = node.tensor(0)
    return where(a.greater(x, node.get_float("alpha", 1.0)), x, 0.0)


def shrink(node: Node) -> Value:
    x, bias, bound = node.tensor(0), node.get_float("bias", 0.0), node.get_float("lambd", 0.5)
    rest = where(a.greater(x, bound), a.sub(x, bias), 0.0)
    return where(a.less(x, -bound), a.add(x, bias), rest)


def swish(node: Node) -> Value:
    x, alpha = node.tensor(0), node.get_float("alpha", 1.0)
    return f.silu(x) if alpha == 1.0 else a.mul(x, f.logistic(a.mul(x, alpha)))


def gelu(node: Node) -> Value:
    return f.gelu(node.tensor(0), node.get_string("approximate", "none") == "tanh")


def hard_swish(x: Value) -> Value:
    return a.mul(x, a.clip(a.add(a.mul(x, 1 / 6), 0.5), 0.0, 1.0))


def softsign(x: Value) -> Value:
    return a.div(x, a.add(a.abs(x), 1.0))


def mish(x: Value) -> Value:
    return a.mul(x, f.tanh(f.softplus(x)))


def prelu(node: Node) -> Value:
    x, slope = node.tensor(0), node.tensor(1)
    if node.opset < 7 and slope.rank == 1 and x.rank > 1:
        # one slope a channel
        slope = reshape(slope, (slope.shape[0], *(1,) * (x.rank - 2)))
    if not x.dtype.is_float:
        return where(a.less(x, 0), a.mul(x, slope), x)
    return f.prelu(x, slope)


TABLE: Table = {
    "Relu": unary(f.relu),
    "Sigmoid": unary(f.logistic),
    "Tanh": unary(f.tanh),
    "LeakyRelu": lambda n: f.leaky_relu(n.tensor(0), n.get_float("alpha", 0.01)),
    "PRelu": prelu,
    "Elu": lambda n: f.elu(n.tensor(0), n.get_float("alpha", 1.0)),
    "Selu": selu,
    "Celu": celu,
    "Gelu": gelu,
    "Swish": swish,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": unary(hard_swish),
    "Softplus": unary(f.softplus),
    "Softsign": unary(softsign),
    "Mish": unary(mish),
    "ThresholdedRelu": thresholded_relu,
    "Shrink": shrink,
    "Softmax": {1: _over_rows("softmax"), 13: _along("softmax")},
    "LogSoftmax": {1: _over_rows("log_softmax"), 13: _along("log_softmax")},
    "Hardmax": {1: _over_rows("hardmax"), 13: _along("hardmax")},
}
