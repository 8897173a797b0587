"""What a kernel costs, at the typical sizes of its dims: arithmetic by anchor kind."""

from __future__ import annotations

from ..dims import hint, product
from .anchors import (
    Contract,
    Convolution,
    ConvolutionInputGrad,
    ConvolutionWeightGrad,
    Fold,
    PooledInputGrad,
    PooledWeightGrad,
    RandomUniform,
    Reduce,
    WindowArgMax,
    WindowMax,
    WindowMaxGather,
    WindowMaxScatter,
    WindowSum,
    WindowSumGrad,
)
from .kernel import Kernel, Region

__all__ = ["flops"]


def flops(kernel: Kernel) -> int:
    """Arithmetic operations: a multiply-add counts two, any other instruction one."""
    total = sum(_region(r) for r in kernel.regions())
    if kernel.pool:
        total += hint(product(kernel.pool.after.shape)) * hint(product(kernel.pool.window))
    result = hint(product(kernel.after.shape))
    anchor = kernel.anchor
    match anchor:
        case Contract():
            sizes = dict(zip(anchor.a, kernel.operands[0].shape, strict=True))
            sizes |= dict(zip(anchor.b, kernel.operands[1].shape, strict=True))
            total += 2 * hint(product(sizes.values()))
        case Convolution() | ConvolutionInputGrad():
            # per output (of the forward direction): kernel size times input channels
            weights = kernel.operands[1].shape
            outputs = kernel.operands[0].shape if isinstance(anchor, ConvolutionInputGrad) else None
            points = hint(product(outputs)) if outputs else result
            total += 2 * points * hint(product(weights[1:]))
        case ConvolutionWeightGrad():
            points = hint(product(kernel.operands[1].shape))
            total += 2 * points * hint(product(kernel.after.shape[1:]))
        case PooledInputGrad():
            # one place a window: that of its winner
            points = hint(product(kernel.operands[0].shape))
            total += 2 * points * hint(product(kernel.operands[2].shape[1:]))
        case PooledWeightGrad():
            points = hint(product(kernel.operands[1].shape))
            total += 2 * points * hint(product(kernel.after.shape[1:]))
        case Reduce():
            source = kernel.before.shape if kernel.before else kernel.operands[0].shape
            total += hint(product(source))
        case WindowSum() | WindowMax() | WindowMaxGather() | WindowArgMax():
            total += result * hint(product(anchor.window))
        case WindowSumGrad() | WindowMaxScatter():
            total += hint(product(kernel.operands[-1].shape)) * hint(product(anchor.window))
        case Fold():
            total += hint(product(kernel.operands[0].shape))
        case RandomUniform():
            total += result * 40
        case _:
            pass
    return total


def _region(region: Region) -> int:
    counted = sum(i.op not in ("const", "size", "cast") for i in region.program.instrs)
    return counted * hint(product(region.shape))
