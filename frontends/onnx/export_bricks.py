"""The one table from bricks to ONNX nodes.

Where ONNX has no operator, as for most adjoints, a brick is written as what it means: a sum or
a maximum over a window is one over shifted slices, its adjoint the same on elements spread out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import UnsupportedError
from ...ir.brick import Array, Brick
from ...ir.bricks import contract, convert, convolution, indexing, placement, reduce, source, window
from ...ir.bricks import shape as shapes
from ...ir.bricks import unfold as unfolding
from ...ir.bricks.elementwise import Elementwise
from ...ir.dims import Size
from ...ir.dtypes import DType
from ...ir.graph import Node
from ...ir.types import TensorType
from .expressions import Expression
from .writer import Writer

__all__ = ["write_brick"]


def write_brick(writer: Writer, node: Node) -> str:
    """The node's value by ONNX nodes; its name. Raises UnsupportedError if there are none."""
    operands = [writer.names[o] for o in node.operands]
    if any(o == "unsupported" for o in operands):
        return "unsupported"
    if isinstance(node.brick, Elementwise):
        return _elementwise(writer, node, operands)
    found = _TABLE.get(type(node.brick))
    if found is None:
        raise UnsupportedError("ONNX has no operator for it")
    return found(writer, node, node.brick, operands)


def _types(writer: Writer, node: Node) -> list[TensorType]:
    return [n.type for n in writer.graph.operands(node)]


def _elementwise(w: Writer, node: Node, operands: Sequence[str]) -> str:
    brick = node.brick
    assert isinstance(brick, Elementwise)
    types = _types(w, node)
    numbers = [t.dtype for t in types if t.dtype is not DType.BOOL]
    dtype = numbers[0] if numbers else node.type.dtype
    expr = brick.expression()
    expression = Expression(w, operands, [t.dtype for t in types], dtype)
    value = expression.write(expr)
    if expression.is_bool(expr) and node.type.dtype is not DType.BOOL:
        value = w.cast(value, node.type.dtype)
    used = {s.name for s in expr.free_symbols}
    if any(f"x{k}" not in used for k in range(len(operands))) or not operands:
        value = w.add("Expand", value, w.shape(node.type.shape))
    return value


# ── sources, conversions, shapes ─────────────────────────────────────────────────────────────


def _constant(w: Writer, node: Node, b: source.Constant, o: Sequence[str]) -> str:
    with np.errstate(over="ignore"):
        return w.number(b.value, b.dtype)


def _literal(w: Writer, node: Node, b: source.Literal, o: Sequence[str]) -> str:
    return w.constant(b.evaluate([], {}))


def _dim_size(w: Writer, node: Node, b: source.DimSize, o: Sequence[str]) -> str:
    return w.reshape(w.cast(w.size(b.size), b.dtype), ())


def _iota(w: Writer, node: Node, b: source.Iota, o: Sequence[str]) -> str:
    size = b.type.shape[b.axis]
    count = w.reshape(w.size(size), ())
    zero, one = w.constant(np.int64(0)), w.constant(np.int64(1))  # type: ignore[arg-type]
    line = w.cast(w.add("Range", zero, count, one), b.type.dtype)
    column = w.reshape(line, [size if k == b.axis else 1 for k in range(b.type.rank)])
    return w.add("Expand", column, w.shape(b.type.shape))


def _cast(w: Writer, node: Node, b: convert.Cast, o: Sequence[str]) -> str:
    return w.cast(o[0], b.dtype)


def _same(w: Writer, node: Node, b: Brick, o: Sequence[str]) -> str:
    return o[0]


def _reshape(w: Writer, node: Node, b: shapes.Reshape, o: Sequence[str]) -> str:
    return w.reshape(o[0], b.shape)


def _transpose(w: Writer, node: Node, b: shapes.Transpose, o: Sequence[str]) -> str:
    return w.transpose(o[0], b.permutation)


def _broadcast(w: Writer, node: Node, b: shapes.BroadcastTo, o: Sequence[str]) -> str:
    return w.add("Expand", o[0], w.shape(b.shape))


def _slice(w: Writer, node: Node, b: shapes.Slice, o: Sequence[str]) -> str:
    axes = list(range(node.type.rank))
    return w.slice(o[0], axes, b.start, b.stop, b.step)


def _reverse(w: Writer, node: Node, b: shapes.Reverse, o: Sequence[str]) -> str:
    count = len(b.axes)
    least = [-(2**62)] * count
    return w.slice(o[0], b.axes, [-1] * count, least, [-1] * count)


def _fixed(size: Size) -> int:
    if not isinstance(size, int):
        raise UnsupportedError("an axis that has no fixed size", got=str(size))
    return size


def _places(count: Size, b: unfolding.Unfold | unfolding.Fold, size: int) -> Array:
    return np.arange(_fixed(count))[:, None] * b.stride + np.arange(size) * b.dilation


def _unfold(w: Writer, node: Node, b: unfolding.Unfold, o: Sequence[str]) -> str:
    places = _places(node.type.shape[b.axis], b, b.window)
    taken = w.add("Gather", o[0], w.constant(places.astype(np.int64)), axis=b.axis)
    rank = node.type.rank
    order = [k for k in range(rank) if k != b.axis + 1]
    return w.transpose(taken, [*order, b.axis + 1])


def _fold(w: Writer, node: Node, b: unfolding.Fold, o: Sequence[str]) -> str:
    (x,) = _types(w, node)
    places = _places(x.shape[b.axis], b, _fixed(x.shape[-1])).reshape(-1)
    rest = [k for k in range(x.rank - 1) if k != b.axis]
    moved = w.transpose(o[0], [b.axis, x.rank - 1, *rest])
    outer = [x.shape[k] for k in rest]
    return _added(w, moved, places, outer, b.axis, b.size, node.type)


def _added(
    w: Writer, updates: str, places: Array | str, outer: Sequence[Size], axis: int,
    size: Size, type: TensorType,
) -> str:  # fmt: skip
    """updates [K…, *outer] added up at places on an axis of that size, which goes to ``axis``."""
    if isinstance(places, str):
        indices = w.reshape(places, [-1, 1])
    else:
        indices = w.constant(places.astype(np.int64)[:, None])
    flat = w.reshape(updates, [-1, *outer])
    zeros = w.zeros([size, *outer], type.dtype)
    total = w.add("ScatterND", zeros, indices, flat, reduction="add")
    order = list(range(1, type.rank))
    return w.transpose(total, [*order[:axis], 0, *order[axis:]])


def _pad(w: Writer, node: Node, b: shapes.Pad, o: Sequence[str]) -> str:
    (x,) = _types(w, node)
    inner = w.spread(o[0], x, b.interior, b.value)
    return w.pad(inner, b.lo, b.hi, w.number(b.value, x.dtype))


def _concat(w: Writer, node: Node, b: shapes.Concat, o: Sequence[str]) -> str:
    return w.add("Concat", *o, axis=b.axis)


def _gather(w: Writer, node: Node, b: indexing.Gather, o: Sequence[str]) -> str:
    return w.add("Gather", *o, axis=b.axis)


def _scatter_add(w: Writer, node: Node, b: indexing.ScatterAdd, o: Sequence[str]) -> str:
    indices, updates = _types(w, node)
    inner = list(range(b.axis, b.axis + indices.rank))
    rest = [k for k in range(updates.rank) if k not in inner]
    moved = w.transpose(o[1], [*inner, *rest])
    outer = [updates.shape[k] for k in rest]
    places = w.cast(o[0], DType.I64)
    return _added(w, moved, places, outer, b.axis, b.size, node.type)


# ── reductions, products ─────────────────────────────────────────────────────────────────────


def _reduction(op: str) -> Callable[..., str]:
    def write(w: Writer, node: Node, b: reduce.ReduceSum, o: Sequence[str]) -> str:
        if not b.axes:
            return o[0]
        return w.add(op, o[0], w.ints(b.axes), keepdims=int(b.keepdims))

    return write


def _arg(op: str) -> Callable[..., str]:
    def write(w: Writer, node: Node, b: reduce.ArgMax, o: Sequence[str]) -> str:
        found = w.add(op, o[0], axis=b.axis, keepdims=int(b.keepdims))
        return w.cast(found, node.type.dtype)

    return write


def _contract(w: Writer, node: Node, b: contract.Contract, o: Sequence[str]) -> str:
    return w.add("Einsum", *o, equation=b.spec)


# ── convolutions ─────────────────────────────────────────────────────────────────────────────


def _flat(padding: Sequence[tuple[int, int]]) -> list[int]:
    return [p[0] for p in padding] + [p[1] for p in padding]


def _convolution(w: Writer, node: Node, b: convolution.Convolution, o: Sequence[str]) -> str:
    return w.add("Conv", *o, strides=list(b.stride), pads=_flat(b.padding),
                 dilations=list(b.dilation), group=b.groups)  # fmt: skip


def _input_grad(w: Writer, node: Node, b: convolution.ConvolutionInputGrad,
                o: Sequence[str]) -> str:  # fmt: skip
    dy, weights = _types(w, node)
    extra = []
    for k, size in enumerate(b.input_size):
        reach = (_fixed(weights.shape[2 + k]) - 1) * b.dilation[k] + 1
        whole = (dy.shape[2 + k] - 1) * b.stride[k] + reach - sum(b.padding[k])
        extra.append(_fixed(size - whole))
    return w.add("ConvTranspose", *o, strides=list(b.stride), pads=_flat(b.padding),
                 dilations=list(b.dilation), group=b.groups, output_padding=extra)  # fmt: skip


def _weight_grad(w: Writer, node: Node, b: convolution.ConvolutionWeightGrad,
                 o: Sequence[str]) -> str:  # fmt: skip
    """A convolution of x by dy, with the examples for channels; stride and dilation swap."""
    x, dy = _types(w, node)
    rank = len(b.kernel_size)
    order = [1, 0, *range(2, 2 + rank)]
    parts = []
    for g in range(b.groups):
        images, signals = o
        if b.groups > 1:
            each, many = _fixed(x.shape[1]) // b.groups, _fixed(dy.shape[1]) // b.groups
            images = w.slice(images, [1], [g * each], [(g + 1) * each], [1])
            signals = w.slice(signals, [1], [g * many], [(g + 1) * many], [1])
        y = w.add("Conv", w.transpose(images, order), w.transpose(signals, order),
                  strides=list(b.dilation), dilations=list(b.stride),
                  pads=_flat(b.padding))  # fmt: skip
        axes = list(range(2, 2 + rank))
        y = w.slice(y, axes, [0] * rank, b.kernel_size, [1] * rank)
        parts.append(w.transpose(y, order))
    return parts[0] if len(parts) == 1 else w.add("Concat", *parts, axis=0)


# ── windows ──────────────────────────────────────────────────────────────────────────────────

Window = window.WindowSum | window.WindowMax


def _offsets(b: Window) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(k) for k in b.window)))


def _shifted(w: Writer, x: str, type: TensorType, b: Window, offset: Sequence[int],
             counts: Sequence[Size]) -> str:  # fmt: skip
    """The element at ``offset`` of every window of a padded x."""
    axes = [k for k in range(type.rank) if b.window[k] > 1 or b.stride[k] > 1 or any(b.padding[k])]
    start = [offset[k] for k in axes]
    stop = [offset[k] + (counts[k] - 1) * b.stride[k] + 1 for k in axes]
    return w.slice(x, axes, start, stop, [b.stride[k] for k in axes])


def _bordered(w: Writer, x: str, type: TensorType, b: Window, value: float) -> str:
    lo, hi = [p[0] for p in b.padding], [p[1] for p in b.padding]
    return w.pad(x, lo, hi, w.number(value, type.dtype))


def _pooling(b: Window) -> bool:
    """True if ONNX's pooling can do it: windows on spatial axes, padding below their size."""
    plain = all(b.window[k] == b.stride[k] == 1 and b.padding[k] == (0, 0) for k in (0, 1))
    small = all(max(p) < k for p, k in zip(b.padding[2:], b.window[2:], strict=True))
    return 3 <= len(b.window) <= 5 and plain and small


def _pooled(w: Writer, op: str, x: str, b: Window, **attributes: Any) -> str:
    return w.add(op, x, kernel_shape=list(b.window[2:]), strides=list(b.stride[2:]),
                 pads=_flat(b.padding[2:]), **attributes)  # fmt: skip


def _window_sum(w: Writer, node: Node, b: window.WindowSum, o: Sequence[str]) -> str:
    (x,) = _types(w, node)
    if len(b.window) >= 3 and _pooling(b):
        area = w.number(math.prod(b.window), x.dtype)
        return w.add("Mul", _pooled(w, "AveragePool", o[0], b, count_include_pad=1), area)
    padded = _bordered(w, o[0], x, b, 0.0)
    parts = [_shifted(w, padded, x, b, k, node.type.shape) for k in _offsets(b)]
    return w.add("Sum", *parts)


def _window_max(w: Writer, node: Node, b: window.WindowMax, o: Sequence[str]) -> str:
    (x,) = _types(w, node)
    if len(b.window) >= 3 and _pooling(b):
        return _pooled(w, "MaxPool", o[0], b)
    padded = _bordered(w, o[0], x, b, -math.inf)
    parts = [_shifted(w, padded, x, b, k, node.type.shape) for k in _offsets(b)]
    return w.add("Max", *parts)


def _put_back(w: Writer, part: str, type: TensorType, whole: TensorType, b: Window,
              offset: Sequence[int]) -> str:  # fmt: skip
    """Elements of windows at their places in a padded array, zeros elsewhere."""
    wide = w.spread(part, type, [s - 1 for s in b.stride], 0.0)
    lo, hi = [], []
    for k, n in enumerate(type.shape):
        size = whole.shape[k] + sum(b.padding[k])
        lo.append(offset[k])
        hi.append(_fixed(size - offset[k] - ((n - 1) * b.stride[k] + 1)))
    return w.pad(wide, lo, hi, w.number(0, type.dtype))


def _within(w: Writer, x: str, type: TensorType, b: Window) -> str:
    """A padded array without its padding."""
    axes = [k for k in range(type.rank) if any(b.padding[k])]
    start = [b.padding[k][0] for k in axes]
    stop = [b.padding[k][0] + type.shape[k] for k in axes]
    return w.slice(x, axes, start, stop, [1] * len(axes))


def _window_sum_grad(w: Writer, node: Node, b: window.WindowSumGrad, o: Sequence[str]) -> str:
    (dy,) = _types(w, node)
    parts = [_put_back(w, o[0], dy, node.type, b, k) for k in _offsets(b)]  # type: ignore[arg-type]
    total = w.add("Sum", *parts)
    return _within(w, total, node.type, b)  # type: ignore[arg-type]


def _hits(w: Writer, x: str, y: str, type: TensorType, counts: Sequence[Size],
          b: Window) -> list[tuple[tuple[int, ...], str]]:  # fmt: skip
    """For every offset in a window, whether the first maximum is there."""
    padded = _bordered(w, x, type, b, -math.inf)
    free = ""
    found = []
    for offset in _offsets(b):
        here = w.add("Equal", _shifted(w, padded, type, b, offset, counts), y)
        found.append((offset, w.add("And", here, free) if free else here))
        missed = w.add("Not", here)
        free = w.add("And", free, missed) if free else missed
    return found


def _max_scatter(w: Writer, node: Node, b: window.WindowMaxScatter, o: Sequence[str]) -> str:
    x, y, _ = _types(w, node)
    zero = w.number(0, x.dtype)
    parts = []
    for offset, hit in _hits(w, o[0], o[1], x, y.shape, b):  # type: ignore[arg-type]
        kept = w.add("Where", hit, o[2], zero)
        parts.append(_put_back(w, kept, y, x, b, offset))  # type: ignore[arg-type]
    return _within(w, w.add("Sum", *parts), x, b)  # type: ignore[arg-type]


def _max_gather(w: Writer, node: Node, b: window.WindowMaxGather, o: Sequence[str]) -> str:
    x, y, _ = _types(w, node)
    zero = w.number(0, x.dtype)
    values = _bordered(w, o[2], x, b, 0.0)  # type: ignore[arg-type]
    parts = []
    for offset, hit in _hits(w, o[0], o[1], x, y.shape, b):  # type: ignore[arg-type]
        value = _shifted(w, values, x, b, offset, y.shape)  # type: ignore[arg-type]
        parts.append(w.add("Where", hit, value, zero))
    return w.add("Sum", *parts)


_TABLE: dict[type[Brick], Callable[..., str]] = {
    source.Constant: _constant,
    source.Literal: _literal,
    source.DimSize: _dim_size,
    source.Iota: _iota,
    convert.Cast: _cast,
    convert.StopGradient: _same,
    placement.Copy: _same,
    placement.Prefer: _same,
    shapes.Reshape: _reshape,
    shapes.Transpose: _transpose,
    shapes.BroadcastTo: _broadcast,
    shapes.Slice: _slice,
    shapes.Reverse: _reverse,
    unfolding.Unfold: _unfold,
    unfolding.Fold: _fold,
    shapes.Pad: _pad,
    shapes.Concat: _concat,
    indexing.Gather: _gather,
    indexing.ScatterAdd: _scatter_add,
    reduce.ReduceSum: _reduction("ReduceSum"),
    reduce.ReduceMax: _reduction("ReduceMax"),
    reduce.ReduceMin: _reduction("ReduceMin"),
    reduce.ArgMax: _arg("ArgMax"),
    reduce.ArgMin: _arg("ArgMin"),
    contract.Contract: _contract,
    convolution.Convolution: _convolution,
    convolution.ConvolutionInputGrad: _input_grad,
    convolution.ConvolutionWeightGrad: _weight_grad,
    window.WindowSum: _window_sum,
    window.WindowSumGrad: _window_sum_grad,
    window.WindowMax: _window_max,
    window.WindowMaxScatter: _max_scatter,
    window.WindowMaxGather: _max_gather,
}
