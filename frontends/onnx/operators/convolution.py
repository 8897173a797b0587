"""Convolutions."""

from __future__ import annotations

from ....ir.bricks import arithmetic as a
from ....ir.bricks.convert import cast
from ....ir.bricks.convolution import ConvolutionInputGrad, convolution
from ....ir.bricks.shape import reshape
from ....ir.dims import Size
from ....ir.dtypes import DType
from ....ir.value import Value
from ..node import Node
from .kind import Table
from .movement import fixed

__all__ = ["TABLE", "borders", "each"]

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


def each(node: Node, name: str, rank: int, default: Ints) -> Ints:
    """An attribute with one number for each spatial axis, all of them positive."""
    numbers = node.get_ints(name, default)
    if len(numbers) != rank or min(numbers, default=1) < 1 or max(numbers, default=1) >= 2**31:
        raise node.wrong(f"{name} is not one positive number a spatial axis", numbers, rank)
    return numbers


def borders(node: Node, sizes: tuple[Size, ...], reach: Ints, strides: Ints) -> Pairs:
    """Padding on each spatial axis, given or by ``auto_pad``; ``reach`` is a window's extent."""
    rank = len(sizes)
    mode = node.get_string("auto_pad", "NOTSET") or "NOTSET"
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for size, k, s in zip(sizes, reach, strides, strict=True):
            if s == 1:
                total = k - 1
            else:
                n = fixed(node, size, "auto_pad with a stride")
                total = max(0, (-(-n // s) - 1) * s + k - n)
            half = total // 2
            found.append((half, total - half) if mode == "SAME_UPPER" else (total - half, half))
        return tuple(found)
    if mode not in ("NOTSET", "VALID"):
        raise node.wrong("unknown auto_pad", mode)
    pads = node.get_ints("pads", (0,) * (2 * rank)) if mode == "NOTSET" else (0,) * (2 * rank)
    if len(pads) != 2 * rank or min(pads, default=0) < 0 or max(pads, default=0) >= 2**31:
        raise node.wrong("pads are not two numbers a spatial axis", pads, 2 * rank)
    return tuple(zip(pads[:rank], pads[rank:], strict=True))


def kernel(node: Node, w: Value, rank: int) -> Ints:
    sizes = tuple(fixed(node, n, "the kernel") for n in w.shape[2:])
    if len(sizes) != rank or rank < 1:
        raise node.wrong("image and kernel have other ranks", w.type, rank + 2)
    if node.given("kernel_shape") and node.get_ints("kernel_shape") != sizes:
        raise node.wrong("kernel_shape is not the kernel's", node.get_ints("kernel_shape"), sizes)
    return sizes


def _with_bias(node: Node, y: Value) -> Value:
    if not node.has(2):
        return y
    bias = node.tensor(2)
    if bias.rank != 1:
        raise node.wrong("the bias is no vector", bias.type)
    return a.add(y, reshape(bias, (bias.shape[0], *(1,) * (y.rank - 2))))


def _wide(x: Value) -> Value:
    """f16 is convolved in f32, as it accumulates there."""
    return cast(x, DType.F32) if x.dtype is DType.F16 else x


def conv(node: Node) -> Value:
    x, w = node.tensor(0), node.tensor(1)
    rank = x.rank - 2
    sizes = kernel(node, w, rank)
    strides = each(node, "strides", rank, (1,) * rank)
    dilations = each(node, "dilations", rank, (1,) * rank)
    reach = tuple((k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True))
    padding = borders(node, x.shape[2:], reach, strides)
    y = convolution(_wide(x), _wide(w), strides, padding, dilations, node.get_int("group", 1))
    return _with_bias(node, cast(y, x.dtype))


def conv_transpose(node: Node) -> Value:
    """The adjoint of a convolution, with its sizes worked out from the result's."""
    x, w = node.tensor(0), node.tensor(1)
    rank = x.rank - 2
    sizes = kernel(node, w, rank)
    strides = each(node, "strides", rank, (1,) * rank)
    dilations = each(node, "dilations", rank, (1,) * rank)
    extra = node.get_ints("output_padding", (0,) * rank)
    reach = tuple((k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True))
    whole: list[Size] = [
        s * (n - 1) + e + k for n, s, e, k in zip(x.shape[2:], strides, extra, reach, strict=True)
    ]
    mode = node.get_string("auto_pad", "NOTSET") or "NOTSET"
    wanted: list[Size]
    if node.given("output_shape"):
        wanted = list[Size](node.get_ints("output_shape"))[-rank:]
        padding = _split_total(node, [f - n for f, n in zip(whole, wanted, strict=True)], mode)
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        padding = _split_total(node, [f - n for f, n in zip(whole, wanted, strict=True)], mode)
    else:
        padding = borders(node, x.shape[2:], reach, strides)
        wanted = [f - lo - hi for f, (lo, hi) in zip(whole, padding, strict=True)]
    groups = node.get_int("group", 1)
    brick = ConvolutionInputGrad(strides, padding, dilations, groups, tuple(wanted))
    y = x.apply(brick, _wide(x), _wide(w))
    return _with_bias(node, cast(y, x.dtype))


def _split_total(node: Node, totals: list[Size], mode: str) -> Pairs:
    """Padding in total, halved: the odd one behind for SAME_UPPER, else in front."""
    found = []
    for total in totals:
        n = max(0, fixed(node, total, "the output's shape"))
        half = n // 2
        found.append((half, n - half) if mode == "SAME_UPPER" else (n - half, half))
    return tuple(found)


TABLE: Table = {"Conv": conv, "ConvTranspose": conv_transpose}
