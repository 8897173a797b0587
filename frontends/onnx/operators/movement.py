"""Operators that move elements: parts, joins, borders, repetitions."""

from __future__ import annotations

import numpy as np

from ....errors import UnsupportedError
from ....ir.brick import Array
from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.convert import cast
from ....ir.bricks.indexing import gather
from ....ir.bricks.shape import (
    broadcast_to,
    concat,
    pad,
    reshape,
    reverse,
    slice_,
    transpose,
)
from ....ir.bricks.source import iota
from ....ir.dims import Size, maximum, minimum
from ....ir.dtypes import DType
from ....ir.types import TensorType
from ....ir.value import Value
from ..node import Node
from .indexing import linear_gather
from .kind import Table

__all__ = ["TABLE", "cut", "fixed", "padded"]


def fixed(node: Node, size: Size, what: str) -> int:
    """The size as an integer. Raises UnsupportedError if it is a named dim."""
    if not isinstance(size, int):
        raise node.unsupported(f"{what} needs a fixed size", size)
    return size


def cut(x: Value, axis: int, start: int, stop: Size, step: int = 1) -> Value:
    first, last, steps = [0] * x.rank, list(x.shape), [1] * x.rank
    first[axis], last[axis], steps[axis] = start, stop, step
    return slice_(x, first, last, steps)


# ── joins and parts ──────────────────────────────────────────────────────────────────────


def join(node: Node) -> Value:
    parts = node.tensors()
    axis = node.axis(node.get_int("axis"), parts[0].rank)
    return parts[0] if len(parts) == 1 else concat(parts, axis)


def split(node: Node) -> list[Value]:
    x = node.tensor(0)
    axis = node.axis(node.get_int("axis", 0), x.rank)
    size = fixed(node, x.shape[axis], "the axis that is split")
    if node.has(1):
        sizes = node.integers(1)
    elif node.given("split"):
        sizes = node.get_ints("split")
    else:
        count = node.get_int("num_outputs", len(node.proto.output))
        if count < 1 or count > 10_000:
            raise node.wrong("impossible number of parts", count)
        each = -(-size // count)
        sizes = tuple(max(0, min(each, size - k * each)) for k in range(count))
    if sum(sizes) != size or min(sizes, default=0) < 0:
        raise node.wrong("the parts do not fill the axis", sizes, size)
    ends = np.cumsum(sizes)
    return [cut(x, axis, int(e) - n, int(e)) for n, e in zip(sizes, ends, strict=True)]


def slice_before_10(node: Node) -> Value:
    starts, ends = node.get_ints("starts"), node.get_ints("ends")
    axes = node.get_ints("axes", tuple(range(len(starts))))
    return _sliced(node, node.tensor(0), starts, ends, axes, (1,) * len(starts))


def slice_from_10(node: Node) -> Value:
    x = node.tensor(0)
    starts, ends = node.integers(1), node.sizes(2)
    axes = node.integers(3) if node.has(3) else tuple(range(len(starts)))
    steps = node.integers(4) if node.has(4) else (1,) * len(starts)
    return _sliced(node, x, starts, ends, axes, steps)


def _sliced(
    node: Node,
    x: Value,
    starts: tuple[int, ...],
    ends: tuple[Size, ...],
    axes: tuple[int, ...],
    steps: tuple[int, ...],
) -> Value:
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise node.wrong("starts, ends, axes and steps are not equally many")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = _slice_one(node, x, node.axis(axis, x.rank), start, end, step)
    return x


def _slice_one(node: Node, x: Value, axis: int, start: int, end: Size, step: int) -> Value:
    size = x.shape[axis]
    if step == 0:
        raise node.wrong("a step is 0")
    if not isinstance(size, int) or not isinstance(end, int):
        return _slice_named(node, x, axis, start, end, step)
    first, last, _ = slice(start, end, step).indices(size)
    if step > 0:
        return cut(x, axis, first, max(first, last), step)
    # walked backwards: the same elements, forwards, of the reversed axis
    turned = reverse(x, (axis,))
    first, last = size - 1 - first, size - 1 - last
    return cut(turned, axis, first, max(first, last), -step)


def _slice_named(node: Node, x: Value, axis: int, start: int, end: Size, step: int) -> Value:
    """On an axis that is a named dim: from the front, or leaving out some at the end."""
    size = x.shape[axis]
    if isinstance(end, int):
        stop = size if end >= maximum(size) else size + end if end < 0 else end
    else:
        stop = end
    legal = step > 0 and 0 <= start <= minimum(stop) and minimum(size - stop) >= 0
    if not legal:
        raise node.unsupported(
            "these bounds on an axis without a fixed size", f"{start}:{end}:{step} of {size}"
        )
    try:
        return cut(x, axis, start, stop, step)
    except UnsupportedError:
        raise node.unsupported("a step on an axis without a fixed size", size) from None


# ── borders ──────────────────────────────────────────────────────────────────────────────


def padded(node: Node, x: Value, before: list[int], after: list[int], mode: str,
           value: float | Value) -> Value:  # fmt: skip
    """Borders of a constant, of mirrored elements, of the edge, or of the other end."""
    # negative borders cut
    for axis in range(x.rank):
        low, high = max(0, -before[axis]), max(0, -after[axis])
        if low or high:
            size = fixed(node, x.shape[axis], "a negative border")
            if low + high > size:
                raise node.wrong("negative borders leave nothing", [before[axis], after[axis]])
            x = cut(x, axis, low, size - high)
    before, after = [max(0, n) for n in before], [max(0, n) for n in after]
    if mode == "constant":
        if isinstance(value, Value):
            zeros = pad(x, before, after, 0.0)
            ones = broadcast_to(node.literal(np.ones((), np.bool_)), x.shape)
            return where(cast(pad(cast(ones, DType.I32), before, after), DType.BOOL), zeros, value)
        if x.dtype is DType.BOOL:
            return cast(pad(cast(x, DType.I32), before, after, value), DType.BOOL)
        return pad(x, before, after, value)
    for axis, (low, high) in enumerate(zip(before, after, strict=True)):
        if low or high:
            size = fixed(node, x.shape[axis], f"padding of mode {mode}")
            x = gather(x, node.literal(_border(node, size, low, high, mode)), axis)
    return x


def _border(node: Node, size: int, low: int, high: int, mode: str) -> Array:
    if low + size + high > 2**24:
        raise node.wrong("a border is too wide", low + high)
    places = np.arange(-low, size + high)
    if size == 0:
        raise node.wrong("a border of nothing", mode)
    match mode:
        case "edge":
            return np.clip(places, 0, size - 1)
        case "wrap":
            return places % size
        case "reflect":
            if size == 1:
                return np.zeros_like(places)
            period = 2 * (size - 1)
            folded = np.abs(places) % period
            return np.where(folded < size, folded, period - folded)
    raise node.unsupported("a padding mode", mode)


def pad_before_11(node: Node) -> Value:
    x = node.tensor(0)
    pads = node.get_ints("pads")
    if len(pads) != 2 * x.rank:
        raise node.wrong("two borders an axis are needed", len(pads), 2 * x.rank)
    return padded(node, x, list(pads[: x.rank]), list(pads[x.rank :]),
                  node.get_string("mode", "constant"), node.get_float("value", 0.0))  # fmt: skip


def pad_from_11(node: Node) -> Value:
    """From opset 18 for some axes only."""
    x, pads = node.tensor(0), node.integers(1)
    axes = node.axes(x.rank, 3) or tuple(range(x.rank))
    if len(pads) != 2 * len(axes):
        raise node.wrong("two borders an axis are needed", len(pads), 2 * len(axes))
    before, after = [0] * x.rank, [0] * x.rank
    for k, axis in enumerate(axes):
        before[axis], after[axis] = pads[k], pads[len(axes) + k]
    mode = node.get_string("mode", "constant")
    value: float | Value = 0.0
    if node.has(2) and mode == "constant":
        value = node.scalar(2) if node.is_known(2) else reshape(node.tensor(2), ())
    return padded(node, x, before, after, mode, value)


# ── repetitions and blocks ───────────────────────────────────────────────────────────────


def tile(node: Node) -> Value:
    x, repeats = node.tensor(0), node.sizes(1)
    if len(repeats) != x.rank:
        raise node.wrong("one number an axis is needed", list(repeats), x.rank)
    split_shape: list[Size] = []
    wide: list[Size] = []
    final: list[Size] = []
    for size, count in zip(x.shape, repeats, strict=True):
        split_shape += [1, size]
        wide += [count, size]
        final.append(size * count)
    return reshape(broadcast_to(reshape(x, split_shape), tuple(wide)), final)


def depth_to_space(node: Node) -> Value:
    x, block = node.tensor(0), node.get_int("blocksize")
    n, c, h, w = x.shape
    depth = fixed(node, c, "channels")
    if block < 1 or depth % (block * block):
        raise node.wrong("the channels do not divide into blocks", x.type, block)
    rest = depth // (block * block)
    if node.get_string("mode", "DCR") == "CRD":
        y = transpose(reshape(x, (n, rest, block, block, h, w)), (0, 1, 4, 2, 5, 3))
    else:
        y = transpose(reshape(x, (n, block, block, rest, h, w)), (0, 3, 4, 1, 5, 2))
    return reshape(y, (n, rest, h * block, w * block))


def space_to_depth(node: Node) -> Value:
    x, block = node.tensor(0), node.get_int("blocksize")
    crd = node.get_string("mode", "DCR") == "CRD"
    n, c, h, w = x.shape
    height, width = fixed(node, h, "height"), fixed(node, w, "width")
    if block < 1 or height % block or width % block:
        raise node.wrong("the image does not divide into blocks", x.type, block)
    y = reshape(x, (n, c, height // block, block, width // block, block))
    y = transpose(y, (0, 1, 3, 5, 2, 4) if crd else (0, 3, 5, 1, 2, 4))
    return reshape(y, (n, c * block * block, height // block, width // block))


def reverse_sequence(node: Node) -> Value:
    """The first ``lengths`` elements of each example turned round."""
    x, lengths = node.tensor(0), cast(node.tensor(1), DType.I64)
    time = node.axis(node.get_int("time_axis", 0), x.rank)
    batch = node.axis(node.get_int("batch_axis", 1), x.rank)

    def along(axis: int) -> tuple[Size, ...]:
        return tuple(n if k == axis else 1 for k, n in enumerate(x.shape))

    steps = iota(x, TensorType(DType.I64, along(time)), time)
    ends = reshape(lengths, along(batch))
    turned = where(a.less(steps, ends), a.sub(a.sub(ends, 1), steps), steps)
    return linear_gather(node, x, broadcast_to(turned, x.shape), time)


TABLE: Table = {
    "Concat": join,
    "Split": split,
    "Slice": {1: slice_before_10, 10: slice_from_10},
    "Pad": {1: pad_before_11, 11: pad_from_11},
    "Tile": tile,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "ReverseSequence": reverse_sequence,
}
