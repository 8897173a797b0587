"""How anchors are carried out in NumPy: one function per strategy, one table."""

from __future__ import annotations

from collections.abc import Callable

from ....errors import UnsupportedError
from ....ir.kernel import anchors
from ....ir.kernel.kernel import Kernel
from ....ir.kernel.memory import Buffer
from ..array_program import ArrayKernel
from ..emitter import Emitter
from ..maps import emit_map
from .contract import contract
from .fold import fold
from .movement import concat, gather, pad, scatter_add
from .random import random_uniform
from .reduce import arg_reduce, reduce
from .window import window_max, window_max_gather, window_max_scatter, window_sum, window_sum_grad

__all__ = ["STRATEGIES", "carry_out"]

#: anchor class -> (name of the strategy, function that writes it)
STRATEGIES: dict[type[anchors.Anchor], tuple[str, Callable[[Emitter], None]]] = {
    anchors.Contract: ("batched matrix product over strided views", contract),
    anchors.Reduce: ("ufunc reduction", reduce),
    anchors.ArgReduce: ("argmax", arg_reduce),
    anchors.WindowSum: ("separable sums of shifted views", window_sum),
    anchors.WindowSumGrad: ("separable adds to shifted views", window_sum_grad),
    anchors.WindowMax: ("separable maxima of shifted views", window_max),
    anchors.WindowMaxScatter: ("masks per window offset", window_max_scatter),
    anchors.WindowMaxGather: ("masks per window offset", window_max_gather),
    anchors.Fold: ("adds to shifted views", fold),
    anchors.Pad: ("border fills and one copy", pad),
    anchors.Concat: ("copies", concat),
    anchors.Gather: ("take", gather),
    anchors.ScatterAdd: ("add.at", scatter_add),
    anchors.RandomUniform: ("vectorised Philox", random_uniform),
}


def carry_out(kernel: Kernel, buffers: dict[str, Buffer]) -> ArrayKernel:
    """The kernel as an array program. ``buffers`` gains the kernel's scratch memory."""
    em = Emitter(kernel, buffers)
    if kernel.anchor is None:
        emit_map(em, kernel.after)
        return em.finish("blocked ufunc chain")
    found = STRATEGIES.get(type(kernel.anchor))
    if found is None:
        raise UnsupportedError(f"the NumPy backend has no strategy for {kernel.kind}")
    name, strategy = found
    strategy(em)
    return em.finish(name)
