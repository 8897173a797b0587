"""Pooling over windows of [N, C, *S]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ....ir.brick import Array
from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.convert import cast
from ....ir.bricks.reduce import arg_max, reduce_max, reduce_mean, reduce_sum
from ....ir.bricks.shape import broadcast_to, pad, reshape
from ....ir.bricks.source import dim_size, iota
from ....ir.bricks.unfold import unfold
from ....ir.bricks.window import window_max, window_sum
from ....ir.dims import Size, product
from ....ir.dtypes import DType
from ....ir.types import TensorType
from ....ir.value import Value
from ..node import Node
from .convolution import Ints, Pairs, borders, each
from .indexing import scatter_rows
from .kind import Table
from .movement import fixed

__all__ = ["TABLE"]


#: elements of an image whose elements are numbered while importing
_LARGEST_IMAGE = 2**22


@dataclass(frozen=True)
class Windows:
    """Windows on the spatial axes: ``padding`` with what ceil mode adds, ``given`` without."""

    size: Ints
    stride: Ints
    dilation: Ints
    padding: Pairs
    given: Pairs

    @property
    def reach(self) -> Ints:
        return tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True))

    def geometry(self) -> tuple[Ints, Ints, Pairs]:
        return (1, 1, *self.size), (1, 1, *self.stride), ((0, 0), (0, 0), *self.padding)


def windows(node: Node, x: Value) -> Windows:
    rank = x.rank - 2
    if rank < 1:
        raise node.wrong("no image", x.type)
    size = each(node, "kernel_shape", rank, ())
    strides = each(node, "strides", rank, (1,) * rank)
    dilations = each(node, "dilations", rank, (1,) * rank)
    reach = tuple((k - 1) * d + 1 for k, d in zip(size, dilations, strict=True))
    given = borders(node, x.shape[2:], reach, strides)
    padding = list(given)
    if node.get_flag("ceil_mode"):
        for k, n in enumerate(x.shape[2:]):
            whole = fixed(node, n, "ceil mode")
            lo, hi = given[k]
            count = -(-(whole + lo + hi - reach[k]) // strides[k]) + 1
            # the last window starts inside the image or its padding in front
            if (count - 1) * strides[k] >= whole + lo:
                count -= 1
            beyond = (count - 1) * strides[k] + reach[k] - (whole + lo + hi)
            padding[k] = (lo, hi + max(0, beyond))
    return Windows(size, strides, dilations, tuple(padding), given)


def _patches(x: Value, w: Windows, border: float) -> Value:
    """[N, C, *O, K]: the elements of every window, in row-major order."""
    rank = x.rank - 2
    lo = [0, 0, *(p[0] for p in w.padding)]
    hi = [0, 0, *(p[1] for p in w.padding)]
    y = pad(x, lo, hi, border) if any(lo) or any(hi) else x
    for k in range(rank):
        y = unfold(y, 2 + k, w.size[k], w.stride[k], w.dilation[k])
    return reshape(y, (*y.shape[: 2 + rank], math.prod(w.size)))


def _float(node: Node) -> Value:
    x = node.tensor(0)
    if not x.dtype.is_float:
        raise node.unsupported("pooling of whole numbers", x.type)
    return x


def max_pool(node: Node) -> list[Value]:
    x = _float(node)
    w = windows(node, x)
    if len([o for o in node.proto.output if o]) > 1:
        return _max_with_indices(node, x, w)
    if x.dtype is DType.F16 or any(d > 1 for d in w.dilation):
        return [reduce_max(_patches(x, w, -math.inf), -1)]
    return [window_max(x, *w.geometry())]


def _max_with_indices(node: Node, x: Value, w: Windows) -> list[Value]:
    """Indices count the elements of the whole tensor; column-major within an image if asked."""
    spatial = [fixed(node, n, "an index of the maximum") for n in x.shape[2:]]
    patches = _patches(x, w, -math.inf)
    if math.prod(spatial) > _LARGEST_IMAGE:
        raise node.unsupported("indices in so large an image", spatial)
    column_major = node.get_flag("storage_order")
    order = "F" if column_major else "C"
    numbers = np.arange(math.prod(spatial)).reshape(spatial, order=order)  # type: ignore[call-overload]
    padded = np.pad(numbers, w.padding)
    places = _numpy_patches(padded, w)
    first = reshape(cast(arg_max(patches, -1), DType.I64), (*patches.shape[:-1], 1))
    choice = iota(x, TensorType(DType.I64, (places.shape[-1],)), 0)
    inside = reduce_sum(where(a.equal(choice, first), node.literal(places), 0), -1)
    image = math.prod(spatial)
    ones = (1,) * (x.rank - 2)
    n = iota(x, TensorType(DType.I64, (x.shape[0], 1, *ones)), 0)
    c = iota(x, TensorType(DType.I64, (1, x.shape[1], *ones)), 1)
    depth = dim_size(x, x.shape[1], DType.I64)
    offset = a.mul(a.add(a.mul(n, depth), c), image)
    return [reduce_max(patches, -1), a.add(inside, offset)]


def _numpy_patches(padded: Array, w: Windows) -> Array:
    """[*O, K]: the numbers of the elements in every window."""
    y = padded
    for k, (size, stride, dilation) in enumerate(zip(w.size, w.stride, w.dilation, strict=True)):
        count = (padded.shape[k] - (size - 1) * dilation - 1) // stride + 1
        index = np.arange(count)[:, None] * stride + np.arange(size) * dilation
        y = np.moveaxis(np.take(y, index, axis=k), k + 1, -1)
    return y.reshape(*y.shape[: len(w.size)], -1)


def _sums(x: Value, w: Windows) -> Value:
    if x.dtype is DType.F16 or any(d > 1 for d in w.dilation):
        return reduce_sum(_patches(x, w, 0.0), -1)
    return window_sum(x, *w.geometry())


def average_pool(node: Node) -> Value:
    """What a window divides by: its size, or what of it lies in the image or its padding."""
    x = _float(node)
    w = windows(node, x)
    total = _sums(x, w)
    include = node.get_flag("count_include_pad")
    plain = w.padding == w.given and (include or not any(map(any, w.given)))
    if plain:
        return a.mul(total, 1.0 / math.prod(w.size))
    for k, n in enumerate(x.shape[2:]):
        size = fixed(node, n, "a mean that leaves out the padding")
        lo, hi = w.given[k]
        first, last = (-lo, size + hi) if include else (0, size)
        fixed_count = fixed(node, total.shape[2 + k], "a mean that leaves out the padding")
        if fixed_count * w.size[k] > _LARGEST_IMAGE:
            raise node.unsupported("so many windows", fixed_count)
        at = np.arange(fixed_count)[:, None] * w.stride[k] - lo
        at = at + np.arange(w.size[k]) * w.dilation[k]
        counts = ((at >= first) & (at < last)).sum(1)
        if counts.size and counts.min() < 1:
            raise node.wrong("a window sees padding alone")
        shares = (1.0 / counts).reshape([-1 if j == 2 + k else 1 for j in range(x.rank)])
        total = a.mul(total, node.literal(shares.astype(x.dtype.numpy)))
    return total


def lp_pool(node: Node) -> Value:
    x = _float(node)
    p = float(node.get_int("p", 2))
    total = _sums(a.power(a.abs(x), p), windows(node, x))
    return a.power(total, 1.0 / p)


def _spatial(node: Node) -> tuple[Value, tuple[int, ...]]:
    x = _float(node)
    if x.rank < 3:
        raise node.wrong("no image", x.type)
    return x, tuple(range(2, x.rank))


def global_max_pool(node: Node) -> Value:
    x, axes = _spatial(node)
    return reduce_max(x, axes, keepdims=True)


def global_average_pool(node: Node) -> Value:
    x, axes = _spatial(node)
    return reduce_mean(x, axes, keepdims=True)


def global_lp_pool(node: Node) -> Value:
    x, axes = _spatial(node)
    p = float(node.get_int("p", 2))
    return a.power(reduce_sum(a.power(a.abs(x), p), axes, keepdims=True), 1.0 / p)


def max_unpool(node: Node) -> Value:
    """Elements go where their indices say, in a tensor of zeros."""
    x, indices = node.tensor(0), cast(node.tensor(1), DType.I64)
    rank = x.rank - 2
    size = each(node, "kernel_shape", rank, ())
    strides = each(node, "strides", rank, (1,) * rank)
    pads = node.get_ints("pads", (0,) * (2 * rank))
    implied: list[Size] = [
        (n - 1) * s - pads[k] - pads[rank + k] + w
        for k, (n, s, w) in enumerate(zip(x.shape[2:], strides, size, strict=True))
    ]
    shape = (*x.shape[:2], *implied)
    wanted = node.sizes(2) if node.has(2) else shape
    if len(wanted) != x.rank:
        raise node.wrong("the output's shape has another rank", list(wanted), x.type)
    zeros = broadcast_to(node.number(0, x.dtype), wanted)
    if node.has(2) and wanted != shape:
        # indices count the elements of the implied shape's images
        flat_images = [fixed(node, n, "unpooling") for n in (*implied, *wanted[2:])]
        indices = _moved(indices, flat_images[:rank], flat_images[rank:])
    row = reshape(zeros, (product(wanted),))
    places = reshape(indices, (product(indices.shape),))
    return reshape(scatter_rows(node, row, places, reshape(x, places.shape), "none"), wanted)


def _moved(indices: Value, old: list[int], new: list[int]) -> Value:
    """Numbers of elements in images of one shape as numbers in images of another."""
    rest = indices
    image_old, image_new = math.prod(old), math.prod(new)
    picture = a.div(rest, image_old)
    rest = a.sub(rest, a.mul(picture, image_old))
    total = a.mul(picture, image_new)
    for k in range(len(old)):
        below_old, below_new = math.prod(old[k + 1 :]), math.prod(new[k + 1 :])
        at = a.div(rest, below_old)
        rest = a.sub(rest, a.mul(at, below_old))
        total = a.add(total, a.mul(at, below_new))
    return total


TABLE: Table = {
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalMaxPool": global_max_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalLpPool": global_lp_pool,
    "MaxUnpool": max_unpool,
}
