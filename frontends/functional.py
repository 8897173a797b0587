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
    convolution,
    indexing,
    loss,
    normalization,
    reduce,
    shape,
    window,
)
from ..ir.value import Value
from . import trace
from .containers import Concat
from .layers import Dropout, Elementwise
from .trace import Tensor

__all__ = [
    "abs", "accuracy", "add", "arg_max", "arg_min", "batch_norm", "broadcast_to", "cast", "ceil",
    "clip", "concat", "contract_", "convolution_", "cos", "div", "dropout", "elementwise", "elu",
    "equal", "erf", "exp", "expm1", "flatten",
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
                f"{function.__name__} is applied to tensors", where=str(trace.here()),
                got=type(x).__name__, hint="make inputs with bc.input, arrays with bc.literal",
            )  # fmt: skip
        return trace.of(function(x, *args, **kwargs))

    return call
