"""Bricks that become anchors of kernels: the one table from bricks to anchors."""

from __future__ import annotations

from ..ir.brick import Brick
from ..ir.bricks.contract import Contract
from ..ir.bricks.convolution import (
    Convolution,
    ConvolutionInputGrad,
    ConvolutionWeightGrad,
)
from ..ir.bricks.indexing import Gather, ScatterAdd
from ..ir.bricks.pooled import PooledInputGrad, PooledWeightGrad, WindowArgMax
from ..ir.bricks.random import RandomUniform
from ..ir.bricks.reduce import ArgMax, ArgMin, ReduceMax, ReduceMin, ReduceSum
from ..ir.bricks.shape import Concat, Pad
from ..ir.bricks.unfold import Fold
from ..ir.bricks.window import (
    WindowMax,
    WindowMaxGather,
    WindowMaxScatter,
    WindowSum,
    WindowSumGrad,
)
from ..ir.graph import Node
from ..ir.kernel import anchors

__all__ = ["anchor_kind", "anchor_of"]


def anchor_of(brick: Brick) -> anchors.Anchor | None:
    """The anchor that carries the brick out; None if it is no anchor."""
    match brick:
        case Contract():
            return anchors.Contract(*brick.letters())
        case ReduceSum():
            return anchors.Reduce("sum", brick.axes, brick.keepdims)
        case ReduceMax():
            return anchors.Reduce("max", brick.axes, brick.keepdims)
        case ReduceMin():
            return anchors.Reduce("min", brick.axes, brick.keepdims)
        case ArgMax():
            return anchors.ArgReduce("max", brick.axis, brick.keepdims)
        case ArgMin():
            return anchors.ArgReduce("min", brick.axis, brick.keepdims)
        case WindowSum():
            return anchors.WindowSum(brick.window, brick.stride, brick.padding)
        case WindowSumGrad():
            return anchors.WindowSumGrad(brick.window, brick.stride, brick.padding)
        case WindowMax():
            return anchors.WindowMax(brick.window, brick.stride, brick.padding)
        case WindowMaxScatter():
            return anchors.WindowMaxScatter(brick.window, brick.stride, brick.padding)
        case WindowMaxGather():
            return anchors.WindowMaxGather(brick.window, brick.stride, brick.padding)
        case Convolution():
            return anchors.Convolution(brick.stride, brick.padding, brick.dilation, brick.groups)
        case ConvolutionInputGrad():
            return anchors.ConvolutionInputGrad(
                brick.stride, brick.padding, brick.dilation, brick.groups
            )
        case ConvolutionWeightGrad():
            return anchors.ConvolutionWeightGrad(
                brick.stride, brick.padding, brick.dilation, brick.groups
            )
        case WindowArgMax():
            return anchors.WindowArgMax(brick.window, brick.window, ((0, 0),) * len(brick.window))
        case PooledWeightGrad():
            return anchors.PooledWeightGrad(
                brick.stride, brick.padding, brick.dilation, brick.groups, brick.window,
                brick.pooled_size,
            )  # fmt: skip
        case PooledInputGrad():
            return anchors.PooledInputGrad(
                brick.stride, brick.padding, brick.dilation, brick.groups, brick.window,
                brick.pooled_size,
            )  # fmt: skip
        case Fold():
            return anchors.Fold(brick.axis, brick.stride, brick.dilation)
        case Pad():
            return anchors.Pad(brick.lo, brick.hi, brick.interior, brick.value)
        case Concat():
            return anchors.Concat(brick.axis)
        case Gather():
            return anchors.Gather(brick.axis)
        case ScatterAdd():
            return anchors.ScatterAdd(brick.axis, brick.size)
        case RandomUniform():
            return anchors.RandomUniform(brick.stream)
    return None


def anchor_kind(node: Node) -> str | None:
    """Kind of the node's anchor; None if it is no anchor."""
    anchor = anchor_of(node.brick)
    return None if anchor is None else anchor.kind
