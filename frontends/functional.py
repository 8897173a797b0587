"""The bricks as functions of tensors: one explicit list of what ``bc.name`` offers.

Each is the function of the same name beside its brick, where its meaning, derivative and
source are written down; here it takes and gives tensors, and says so where it is given
something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec

import sympy as sp

from ..errors import UsageError
from ..ir.bricks import (
    activation,
    arithmetic,
    contract,
    convert,
    indexing,
    loss,
    normalization,
    reduce,
    shape,
    window,
)
from ..ir.bricks import convolution as convolutions
from ..ir.value import Value
from . import place, trace
from .layers import Dropout, Elementwise
from .trace import Tensor

__all__ = [
    "abs", "accuracy", "add", "arg_max", "arg_min", "broadcast_to", "cast", "ceil", "clip",
    "concat", "convolution", "cos", "div", "dropout", "einsum", "elementwise", "elu", "equal",
    "erf", "exp", "expm1", "flatten", "floor", "gather", "gelu", "greater", "greater_equal",
    "leaky_relu", "less", "less_equal", "linear", "log", "log1p", "log_softmax", "logical_and",
    "logical_not", "logical_or", "logistic", "lrn", "matmul", "max_pool", "maximum",
    "mean_pool", "minimum", "mul", "neg", "not_equal", "one_hot", "pad", "pow", "power", "prelu",
    "reciprocal", "reduce_max", "reduce_mean", "reduce_min", "reduce_sum", "relu", "relu6",
    "reshape", "reverse", "sigmoid", "sign", "silu", "sin", "softmax", "softmax_loss",
    "softplus", "sqrt", "square", "square_loss", "stop_gradient", "sub", "tanh", "transpose",
    "upsample", "where",
]  # fmt: skip

P = ParamSpec("P")


def _on_tensors(
    function: Callable[Concatenate[Value, P], Value],
) -> Callable[Concatenate[Tensor, P], Tensor]:
    """The function on values as one on tensors."""

    @wraps(function)
    def call(x: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        if not isinstance(x, Tensor):
            raise UsageError(
                f"{function.__name__} is applied to tensors", where=str(place.here()),
                got=type(x).__name__, hint="make inputs with bc.input, arrays with bc.literal",
            )  # fmt: skip
        return trace.call(function, x, *args, **kwargs)

    return call


# ── arithmetic: on every element, with broadcasting; numbers among the operands are fine ─

add = _on_tensors(arithmetic.add)
sub = _on_tensors(arithmetic.sub)
mul = _on_tensors(arithmetic.mul)
div = _on_tensors(arithmetic.div)
neg = _on_tensors(arithmetic.neg)
pow = _on_tensors(arithmetic.pow)
power = _on_tensors(arithmetic.power)
exp = _on_tensors(arithmetic.exp)
expm1 = _on_tensors(arithmetic.expm1)
log = _on_tensors(arithmetic.log)
log1p = _on_tensors(arithmetic.log1p)
sqrt = _on_tensors(arithmetic.sqrt)
square = _on_tensors(arithmetic.square)
reciprocal = _on_tensors(arithmetic.reciprocal)
abs = _on_tensors(arithmetic.abs)
sign = _on_tensors(arithmetic.sign)
maximum = _on_tensors(arithmetic.maximum)
minimum = _on_tensors(arithmetic.minimum)
clip = _on_tensors(arithmetic.clip)
floor = _on_tensors(arithmetic.floor)
ceil = _on_tensors(arithmetic.ceil)
sin = _on_tensors(arithmetic.sin)
cos = _on_tensors(arithmetic.cos)
erf = _on_tensors(arithmetic.erf)
less = _on_tensors(arithmetic.less)
less_equal = _on_tensors(arithmetic.less_equal)
greater = _on_tensors(arithmetic.greater)
greater_equal = _on_tensors(arithmetic.greater_equal)
equal = _on_tensors(arithmetic.equal)
not_equal = _on_tensors(arithmetic.not_equal)
logical_and = _on_tensors(arithmetic.logical_and)
logical_or = _on_tensors(arithmetic.logical_or)
logical_not = _on_tensors(arithmetic.logical_not)
where = _on_tensors(arithmetic.where)

# ── activations ──────────────────────────────────────────────────────────────────────────

tanh = _on_tensors(activation.tanh)
logistic = _on_tensors(activation.logistic)
sigmoid = logistic
relu = _on_tensors(activation.relu)
relu6 = _on_tensors(activation.relu6)
leaky_relu = _on_tensors(activation.leaky_relu)
prelu = _on_tensors(activation.prelu)
elu = _on_tensors(activation.elu)
gelu = _on_tensors(activation.gelu)
silu = _on_tensors(activation.silu)
softplus = _on_tensors(activation.softplus)
softmax = _on_tensors(normalization.softmax)
log_softmax = _on_tensors(normalization.log_softmax)
lrn = _on_tensors(normalization.lrn)

# ── products, windows, indices ───────────────────────────────────────────────────────────

linear = _on_tensors(contract.linear)
matmul = _on_tensors(contract.matmul)
convolution = _on_tensors(convolutions.convolution)
max_pool = _on_tensors(window.max_pool)
mean_pool = _on_tensors(window.mean_pool)
gather = _on_tensors(indexing.gather)
one_hot = _on_tensors(indexing.one_hot)

# ── reductions and shapes ────────────────────────────────────────────────────────────────

reduce_sum = _on_tensors(reduce.reduce_sum)
reduce_mean = _on_tensors(reduce.reduce_mean)
reduce_max = _on_tensors(reduce.reduce_max)
reduce_min = _on_tensors(reduce.reduce_min)
arg_max = _on_tensors(reduce.arg_max)
arg_min = _on_tensors(reduce.arg_min)
reshape = _on_tensors(shape.reshape)
transpose = _on_tensors(shape.transpose)
reverse = _on_tensors(shape.reverse)
upsample = _on_tensors(shape.upsample)
broadcast_to = _on_tensors(shape.broadcast_to)
pad = _on_tensors(shape.pad)
cast = _on_tensors(convert.cast)
stop_gradient = _on_tensors(convert.stop_gradient)

# ── losses ───────────────────────────────────────────────────────────────────────────────

softmax_loss = _on_tensors(loss.softmax_loss)
square_loss = _on_tensors(loss.square_loss)
accuracy = _on_tensors(loss.accuracy)

# ── what is not the function of a brick ──────────────────────────────────────────────────


def concat(tensors: Sequence[Tensor], axis: int = 1) -> Tensor:
    """The tensors joined along one axis."""
    for each in tensors:
        if not isinstance(each, Tensor):
            raise UsageError(
                "concat joins tensors", where=str(place.here()), got=type(each).__name__,
                expected="a list of tensors",
            )  # fmt: skip
    return trace.call(shape.concat, tensors, axis)


def dropout(x: Tensor, rate: float) -> Tensor:
    """x with a share ``rate`` of its elements set to zero in training, as the layer does."""
    return Dropout(rate).forward(x)


def einsum(spec: str, a: Tensor, b: Tensor) -> Tensor:
    """A product of two tensors by letters, ``einsum("nk,ok->no", x, w)``."""
    return trace.call(contract.contract, spec, a, b)


def elementwise(function: Callable[..., sp.Basic] | sp.Basic, *operands: Tensor) -> Tensor:
    """Your own SymPy function on every element: ``elementwise(lambda u: u * sp.tanh(u), x)``."""
    return Elementwise(function).forward(*operands)


def flatten(x: Tensor, start: int = 1) -> Tensor:
    """The axes from ``start`` on as one."""
    return x.flatten(start)
