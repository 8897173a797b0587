"""How the Triton backend carries out each kind of kernel: the one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ....errors import UnsupportedError
from ....ir.kernel import anchors
from ..launches import TritonKernel
from . import contract, convolution, maps, movement, reduce, vendor, window
from .common import Context

__all__ = ["Context", "carry_out"]

_TABLE: dict[type[anchors.Anchor], Callable[[Context], TritonKernel]] = {
    anchors.ArgReduce: reduce.arg_reduce,
    anchors.Concat: movement.concat,
    anchors.Contract: contract.contract,
    anchors.Convolution: convolution.convolution,
    anchors.ConvolutionInputGrad: convolution.input_grad,
    anchors.ConvolutionWeightGrad: convolution.weight_grad,
    anchors.Fold: movement.fold,
    anchors.Gather: movement.gather,
    anchors.Pad: movement.pad,
    anchors.RandomUniform: movement.random_uniform,
    anchors.Reduce: reduce.reduce_kernel,
    anchors.ScatterAdd: movement.scatter_add,
    anchors.WindowMax: window.window_max,
    anchors.WindowMaxGather: window.window_max_gather,
    anchors.WindowMaxScatter: window.window_max_scatter,
    anchors.WindowSum: window.window_sum,
    anchors.WindowSumGrad: window.window_sum_grad,
}


def carry_out(context: Context) -> TritonKernel:
    """The launches of one kernel, with what was decided.

    Raises UnsupportedError for an anchor without a strategy.
    """
    anchor = context.kernel.anchor
    strategy = maps.map_kernel if anchor is None else _TABLE.get(type(anchor))
    if strategy is None:
        raise UnsupportedError("triton has no kernel for this anchor", got=context.kernel.kind)
    made = _by_library(context) or strategy(context)
    choice, options = context.picks.finish()
    return replace(made, choice=choice, options=options)


def _by_library(context: Context) -> TritonKernel | None:
    """The kernel with torch's help, if that is allowed, possible and chosen."""
    if not context.options.vendor:
        return None
    call = vendor.possible(context)
    if call is None:
        return None
    usual = "torch" if vendor.pays(context) else "triton"
    if context.picks.pick("library", usual, ("torch", "triton")) == "triton":
        return None
    return vendor.library_kernel(context, call)
