"""How kernels are carried out in C: one function per strategy, one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....errors import UnsupportedError
from ....ir.kernel import anchors
from ....ir.kernel.choices import UNDECIDED, Choice
from ....ir.kernel.kernel import Kernel, KernelProgram
from ....ir.kernel.loops import LoopKernel
from ....ir.kernel.memory import Space
from ..emitter import Emitter
from ..maps import map_region
from .common import read_before_written
from .movement import concat, fold, gather, pad, random_uniform, scatter_add
from .pooled import pooled_input_grad, pooled_weight_grad
from .reduce import arg_reduce, reduce
from .thin import after_thin_backward, backward_pairs, product_strategy, thin_backward
from .window import (
    window_arg_max,
    window_max,
    window_max_gather,
    window_max_scatter,
    window_sum,
    window_sum_grad,
)
from .winograd import convolution_strategy
from .winograd_grad import weight_grad_strategy

__all__ = ["STRATEGIES", "carry_out", "carry_out_pair", "pairs"]

#: anchor class -> (name of the strategy, function that writes it); the function may return
#: another name where it has a choice
STRATEGIES: dict[type[anchors.Anchor], tuple[str, Callable[[Emitter], str | None]]] = {
    anchors.Contract: ("register tiles", product_strategy),
    anchors.Convolution: ("direct, register tiles", convolution_strategy),
    anchors.ConvolutionInputGrad: ("direct, register tiles", convolution_strategy),
    anchors.ConvolutionWeightGrad: ("direct, sums in registers", weight_grad_strategy),
    anchors.Reduce: ("sums in registers", reduce),
    anchors.ArgReduce: ("running best", arg_reduce),
    anchors.WindowSum: ("loops over taps", window_sum),
    anchors.WindowSumGrad: ("loops over windows", window_sum_grad),
    anchors.WindowMax: ("loops over taps", window_max),
    anchors.WindowMaxScatter: ("masks per tap", window_max_scatter),
    anchors.WindowMaxGather: ("masks per tap", window_max_gather),
    anchors.WindowArgMax: ("loops over taps", window_arg_max),
    anchors.PooledWeightGrad: ("sums over windows", pooled_weight_grad),
    anchors.PooledInputGrad: ("sums over windows", pooled_input_grad),
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
    wanted: Choice = UNDECIDED,
    *,
    fast: bool = False,
) -> LoopKernel:
    """The kernel as a loop program. ``taken`` are names that mean something already.

    ``wanted`` are decisions that the strategy does not make itself. ``fast`` allows results that
    are farther from exact ones than sums in any order are.
    """
    em = Emitter(kernel, lanes, registers, taken, wanted, fast=fast)
    read_before_written(em)
    kernel = em.kernel
    if kernel.anchor is None:
        map_region(em, kernel.after)
        return em.finish("map")
    found = STRATEGIES.get(type(kernel.anchor))
    if found is None:
        raise UnsupportedError(f"the C backend has no strategy for {kernel.kind}")
    name, strategy = found
    return em.finish(strategy(em) or name)


def pairs(program: KernelProgram, lanes: int) -> dict[int, int]:
    """Kernels that are carried out together with a later one: numbers of both."""
    lasting = {
        name for name, b in program.buffers.items() if b.space in (Space.PARAMETER, Space.STATE)
    }
    return backward_pairs(program.kernels, lanes, lasting)


def carry_out_pair(
    kernels: Sequence[Kernel],
    numbers: tuple[int, int],
    lanes: int,
    registers: int,
    taken: frozenset[str],
) -> tuple[LoopKernel, LoopKernel]:
    """A product and the update of its matrix, as ``pairs`` finds them."""
    i, j = numbers
    em = Emitter(kernels[i], lanes, registers, taken)
    read_before_written(em)
    thin_backward(em, kernels[j])
    rest = Emitter(kernels[j], lanes, registers, taken)
    read_before_written(rest)
    return em.finish("one reading, with the update"), after_thin_backward(rest, kernels[i])
