"""How kernels are carried out in C: one function per strategy, one table."""

from __future__ import annotations

from collections.abc import Callable

from ....errors import UnsupportedError
from ....ir.kernel import anchors
from ....ir.kernel.choices import UNDECIDED, Choice
from ....ir.kernel.kernel import Kernel
from ....ir.kernel.loops import LoopKernel
from ..emitter import Emitter
from ..maps import map_region
from .common import read_before_written
from .contract import contract
from .convolution import convolution, convolution_input_grad
from .movement import concat, fold, gather, pad, random_uniform, scatter_add
from .reduce import arg_reduce, reduce
from .weight_grad import convolution_weight_grad
from .window import window_max, window_max_gather, window_max_scatter, window_sum, window_sum_grad

__all__ = ["STRATEGIES", "carry_out"]

#: anchor class -> (name of the strategy, function that writes it)
STRATEGIES: dict[type[anchors.Anchor], tuple[str, Callable[[Emitter], None]]] = {
    anchors.Contract: ("register tiles", contract),
    anchors.Convolution: ("direct, register tiles", convolution),
    anchors.ConvolutionInputGrad: ("direct, register tiles", convolution_input_grad),
    anchors.ConvolutionWeightGrad: ("direct, sums in registers", convolution_weight_grad),
    anchors.Reduce: ("sums in registers", reduce),
    anchors.ArgReduce: ("running best", arg_reduce),
    anchors.WindowSum: ("loops over taps", window_sum),
    anchors.WindowSumGrad: ("loops over windows", window_sum_grad),
    anchors.WindowMax: ("loops over taps", window_max),
    anchors.WindowMaxScatter: ("masks per tap", window_max_scatter),
    anchors.WindowMaxGather: ("masks per tap", window_max_gather),
    anchors.Fold: ("adds in order", fold),
    anchors.Pad: ("fill and copy", pad),
    anchors.Concat: ("copies", concat),
    anchors.Gather: ("indexed loads", gather),
    anchors.ScatterAdd: ("adds in order", scatter_add),
    anchors.RandomUniform: ("Philox", random_uniform),
}


def carry_out(
    kernel: Kernel,
    lanes: int,
    registers: int,
    taken: frozenset[str],
    number: int,
    wanted: Choice = UNDECIDED,
) -> LoopKernel:
    """The kernel as a loop program. ``taken`` are names that mean something already.

    ``wanted`` are decisions that the strategy does not make itself.
    """
    em = Emitter(kernel, lanes, registers, taken, number, wanted)
    read_before_written(em)
    kernel = em.kernel
    if kernel.anchor is None:
        map_region(em, kernel.after)
        return em.finish("map")
    found = STRATEGIES.get(type(kernel.anchor))
    if found is None:
        raise UnsupportedError(f"the C backend has no strategy for {kernel.kind}")
    name, strategy = found
    strategy(em)
    return em.finish(name)
