"""Reading an image at places that are computed, and putting columns back into an image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ....ir.bricks import arithmetic as a
from ....ir.bricks.arithmetic import where
from ....ir.bricks.contract import contract
from ....ir.bricks.convert import cast
from ....ir.bricks.indexing import gather
from ....ir.bricks.reduce import reduce_max, reduce_mean
from ....ir.bricks.shape import concat, reshape, slice_, transpose
from ....ir.bricks.source import iota
from ....ir.bricks.unfold import fold
from ....ir.dims import Size, product
from ....ir.dtypes import DType
from ....ir.types import TensorType
from ....ir.value import Value
from ..node import Node
from .arithmetic import round_even
from .convolution import each
from .kind import Table
from .movement import cut, fixed
from .shapes import squeezed, unsqueezed

__all__ = ["TABLE"]

#: elements that one result is made of
_MOST_CORNERS = 64


def rows_of(x: Value) -> Value:
    """[N, C, *S] as [N·S, C]: one row for every place of every image."""
    moved = transpose(x, (0, *range(2, x.rank), 1))
    return reshape(moved, (product(moved.shape[:-1]), x.shape[1]))


def row_numbers(x: Value, images: Value, places: Sequence[Value], sizes: Sequence[int]) -> Value:
    """Which row of ``rows_of`` the place (images, *places) is."""
    total = images
    for place, size in zip(places, sizes, strict=True):
        total = a.add(a.mul(total, size), place)
    return total


def _image_numbers(x: Value, rank: int) -> Value:
    """0, 1, … along the first of ``rank`` axes."""
    return iota(x, TensorType(DType.I64, (x.shape[0], *(1,) * (rank - 1))), 0)


# ── GridSample ───────────────────────────────────────────────────────────────────────────────


def _reflected(x: Value, low: float, high: float) -> Value:
    """x mirrored at both borders until it lies between them."""
    period = high - low
    if period <= 0:
        return a.add(a.mul(x, 0.0), low)
    below, above = a.less(x, low), a.greater(x, high)
    beyond = where(below, a.sub(low, x), a.sub(x, high))
    turns = a.floor(a.div(beyond, period))
    rest = a.sub(beyond, a.mul(turns, period))
    even = a.equal(a.mul(a.floor(a.mul(turns, 0.5)), 2.0), turns)
    from_low = a.equal(below, even)
    mirrored = where(from_low, a.add(rest, low), a.sub(high, rest))
    return where(a.logical_or(below, above), mirrored, x)


def _cubic(f: Value) -> list[Value]:
    """Weights of the elements at -1, 0, 1 and 2. Source: Keys, 1981, with a = -0.75."""
    c = -0.75

    def near(d: Value) -> Value:
        return a.add(a.mul(a.mul(a.sub(a.mul(d, c + 2), c + 3), d), d), 1.0)

    def far(d: Value) -> Value:
        inner = a.add(a.mul(a.sub(a.mul(d, c), 5 * c), d), 8 * c)
        return a.sub(a.mul(inner, d), 4 * c)

    rest = a.sub(1.0, f)
    return [far(a.add(f, 1.0)), near(f), near(rest), far(a.add(rest, 1.0))]


def grid_sample(node: Node) -> Value:
    """The grid's last axis names places from -1 to 1, the innermost axis first."""
    x, grid = node.tensor(0), node.tensor(1)
    rank = x.rank - 2
    if rank < 1 or grid.rank != x.rank or grid.shape[-1] != rank:
        raise node.wrong("the grid does not fit", grid.type, x.type)
    mode = node.get_string("mode", "linear")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    border = node.get_string("padding_mode", "zeros")
    if mode not in ("linear", "nearest", "cubic") or border not in (
        "zeros",
        "border",
        "reflection",
    ):
        raise node.wrong("unknown mode", f"{mode}, {border}")
    corners = node.get_flag("align_corners")
    sizes = [fixed(node, n, "an image that is sampled") for n in x.shape[2:]]
    outer = grid.shape[:-1]
    choices: list[list[tuple[Value, Value | None, Value | None]]] = []
    for k, size in enumerate(sizes):
        place = reshape(cut(grid, grid.rank - 1, rank - 1 - k, rank - k), outer)
        if corners:
            place = a.mul(a.mul(a.add(place, 1.0), 0.5), float(size - 1))
        else:
            place = a.mul(a.sub(a.mul(a.add(place, 1.0), float(size)), 1.0), 0.5)
        low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
        if mode == "nearest":
            place = round_even(place)
        if border == "border":
            outside = a.logical_or(a.less(place, low), a.greater(place, high))
            place = where(outside, a.clip(place, 0.0, size - 1.0), place)
        elif border == "reflection":
            place = _reflected(place, low, high)
        choices.append(_neighbours(place, mode, border, size, low, high))
    if math.prod(len(c) for c in choices) > _MOST_CORNERS:
        raise node.unsupported(f"{mode} interpolation on so many axes", rank)
    images = _image_numbers(x, grid.rank - 1)
    return _weighted(x, images, choices, sizes, outer)


def _neighbours(
    place: Value, mode: str, border: str, size: int, low: float, high: float
) -> list[tuple[Value, Value | None, Value | None]]:
    """Elements near a place on one axis: number, weight, whether it is in the image."""
    base = a.floor(place) if mode != "nearest" else place
    f = a.sub(place, base)
    weights: list[Value | None]
    match mode:
        case "nearest":
            offsets, weights = [0], [None]
        case "linear":
            offsets, weights = [0, 1], [a.sub(1.0, f), f]
        case _:
            offsets, weights = [-1, 0, 1, 2], list(_cubic(f))
    found = []
    for offset, weight in zip(offsets, weights, strict=True):
        at = a.add(base, float(offset)) if offset else base
        inside: Value | None = None
        if border == "zeros":
            inside = a.logical_and(a.greater_equal(at, 0.0), a.less_equal(at, size - 1.0))
        elif border == "reflection":
            at = _reflected(at, low, high)
        found.append((cast(a.clip(at, 0.0, size - 1.0), DType.I64), weight, inside))
    return found


def _weighted(
    x: Value,
    images: Value,
    choices: Sequence[Sequence[tuple[Value, Value | None, Value | None]]],
    sizes: Sequence[int],
    outer: Sequence[Size],
) -> Value:
    """The sum over all combinations of neighbours on the axes; [N, C, *O]."""
    rows = rows_of(x)
    total: Value | None = None
    for combination in itertools.product(*choices):
        numbers = row_numbers(x, images, [c[0] for c in combination], sizes)
        value = gather(rows, numbers, 0)
        for _, weight, inside in combination:
            if weight is not None:
                value = a.mul(value, reshape(weight, (*outer, 1)))
            if inside is not None:
                value = where(reshape(inside, (*outer, 1)), value, 0.0)
        total = value if total is None else a.add(total, value)
    assert total is not None
    return transpose(total, (0, total.rank - 1, *range(1, total.rank - 1)))


# ── RoiAlign ─────────────────────────────────────────────────────────────────────────────────


def roi_align(node: Node) -> Value:
    """Regions [R, 4] of images, each as [C, output_height, output_width]."""
    x, rois = node.tensor(0), node.tensor(1)
    if x.rank != 4 or rois.rank != 2:
        raise node.wrong("no images or regions", f"{x.type} and {rois.type}")
    height, width = (fixed(node, n, "an image that is sampled") for n in x.shape[2:])
    count = node.get_int("sampling_ratio", 0)
    if not 1 <= count <= _MOST_CORNERS:
        raise node.unsupported("a number of samples that depends on the regions", count)
    modes = {"half_pixel": True, "output_half_pixel": False}
    usual = "half_pixel" if node.opset >= 16 else "output_half_pixel"
    half = modes[node.get_string("coordinate_transformation_mode", usual)]
    scale = node.get_float("spatial_scale", 1.0)
    out = (node.get_int("output_height", 1), node.get_int("output_width", 1))
    if min(out) < 1 or max(out) * count > 2**16:
        raise node.wrong("impossible output", out)
    regions = rois.shape[0]
    edges = [a.sub(a.mul(cut(rois, 1, k, k + 1), scale), 0.5 if half else 0.0) for k in range(4)]
    axes = []
    for k, size in enumerate((height, width)):
        start, end = edges[1 - k], edges[3 - k]
        length = a.sub(end, start)
        if not half:
            length = a.maximum(length, 1.0)
        steps = (np.arange(out[k] * count) + 0.5) / (out[k] * count)
        place = a.add(start, a.mul(length, node.literal(steps.astype(x.dtype.numpy)[None])))
        axes.append(_bilinear(place, size))
    images = reshape(cast(node.tensor(2), DType.I64), (regions, 1, 1))
    rows = rows_of(x)
    parts = []
    for (i, wi, in_i), (j, wj, in_j) in itertools.product(*axes):
        tall, wide = (regions, out[0] * count, 1), (regions, 1, out[1] * count)
        numbers = row_numbers(x, images, [reshape(i, tall), reshape(j, wide)], (height, width))
        weight = a.mul(reshape(wi, (*tall, 1)), reshape(wj, (*wide, 1)))
        inside = a.logical_and(reshape(in_i, (*tall, 1)), reshape(in_j, (*wide, 1)))
        parts.append(where(inside, a.mul(gather(rows, numbers, 0), weight), 0.0))
    largest = node.get_string("mode", "avg") == "max"
    total = parts[0]
    for part in parts[1:]:
        total = a.maximum(total, part) if largest else a.add(total, part)
    split = reshape(total, (regions, out[0], count, out[1], count, x.shape[1]))
    pooled = (reduce_max if largest else reduce_mean)(split, (2, 4))
    return transpose(pooled, (0, 3, 1, 2))


def _bilinear(place: Value, size: int) -> list[tuple[Value, Value, Value]]:
    """The two elements beside a place: number, weight, whether the place counts at all."""
    inside = a.logical_and(a.greater_equal(place, -1.0), a.less_equal(place, float(size)))
    place = a.clip(place, 0.0, size - 1.0)
    low = a.floor(place)
    f = a.sub(place, low)
    first = cast(low, DType.I64)
    second = cast(a.clip(a.add(low, 1.0), None, size - 1.0), DType.I64)
    return [(first, a.sub(1.0, f), inside), (second, f, inside)]


# ── DeformConv ───────────────────────────────────────────────────────────────────────────────


def deform_conv(node: Node) -> Value:
    """A convolution whose every element is read beside its place, by offsets that are operands."""
    x, w, offsets = node.tensor(0), node.tensor(1), node.tensor(2)
    if x.rank != 4 or w.rank != 4 or offsets.rank != 4:
        raise node.unsupported("anything but images of two axes", x.type)
    height, width = (fixed(node, n, "an image that is sampled") for n in x.shape[2:])
    kernel = tuple(fixed(node, n, "the kernel") for n in w.shape[2:])
    strides = each(node, "strides", 2, (1, 1))
    dilations = each(node, "dilations", 2, (1, 1))
    pads = node.get_ints("pads", (0,) * 4)
    groups, blocks = node.get_int("group", 1), node.get_int("offset_group", 1)
    channels, results = fixed(node, x.shape[1], "channels"), fixed(node, w.shape[0], "channels")
    taps = math.prod(kernel)
    out = offsets.shape[2:]
    fits = offsets.shape[1] == 2 * blocks * taps and blocks >= 1 and groups >= 1
    if not fits or channels % blocks or channels % groups or results % groups or taps > 121:
        raise node.wrong("operands do not fit together", f"{x.type}, {w.type}, {offsets.type}")
    columns: list[Value] = []
    images = _image_numbers(x, 3)
    for block in range(blocks):
        each_block = channels // blocks
        part = cut(x, 1, block * each_block, (block + 1) * each_block)
        many = []
        for tap, (i, j) in enumerate(itertools.product(*map(range, kernel))):
            choices = []
            for k, (size, at) in enumerate(((height, i), (width, j))):
                number = 2 * (block * taps + tap) + k
                offset = squeezed(cut(offsets, 1, number, number + 1), (1,))
                shape = tuple(n if k == axis else 1 for axis, n in enumerate(out))
                line = iota(x, TensorType(DType.I64, (1, *shape)), 1 + k)
                first = float(at * dilations[k] - pads[k])
                place = a.add(a.mul(cast(line, x.dtype), float(strides[k])), first)
                place = a.add(offset, place)
                choices.append(_neighbours(place, "linear", "zeros", size, 0.0, 0.0))
            value = _weighted(part, images, choices, (height, width), (x.shape[0], *out))
            if node.has(4):
                number = block * taps + tap
                value = a.mul(value, cut(node.tensor(4), 1, number, number + 1))
            many.append(unsqueezed(value, (2,)))
        columns.append(many[0] if taps == 1 else concat(many, 2))
    joined = columns[0] if blocks == 1 else concat(columns, 1)
    parts = []
    for g in range(groups):
        own = channels // groups
        taken = cut(joined, 1, g * own, (g + 1) * own)
        weights = cut(w, 0, g * (results // groups), (g + 1) * (results // groups))
        flat = reshape(weights, (*weights.shape[:2], taps))
        parts.append(contract("nctyx,oct->noyx", taken, flat))
    y = parts[0] if groups == 1 else concat(parts, 1)
    return a.add(y, reshape(node.tensor(3), (results, 1, 1))) if node.has(3) else y


# ── Col2Im ──────────────────────────────────────────────────────────────────────────────


def col2im(node: Node) -> Value:
    """Blocks [N, C·K, L] added back where they were taken from an image."""
    x, image, block = node.tensor(0), node.integers(1), node.integers(2)
    rank = len(image)
    if x.rank != 3 or len(block) != rank or min((*image, *block), default=0) < 1:
        raise node.wrong("blocks do not fit", x.type, f"image {image}, blocks {block}")
    strides = node.get_ints("strides", (1,) * rank)
    dilations = node.get_ints("dilations", (1,) * rank)
    pads = node.get_ints("pads", (0,) * (2 * rank))
    whole = [n + pads[k] + pads[rank + k] for k, n in enumerate(image)]
    counts = [(whole[k] - (block[k] - 1) * dilations[k] - 1) // strides[k] + 1 for k in range(rank)]
    channels = fixed(node, x.shape[1], "channels")
    if channels % math.prod(block) or x.shape[2] != math.prod(counts):
        raise node.wrong("blocks do not fill the image", x.type, f"{counts} blocks {block}")
    y = reshape(x, (x.shape[0], channels // math.prod(block), *block, *counts))
    kernel, places = range(2, 2 + rank), range(2 + rank, 2 + 2 * rank)
    y = transpose(y, (0, 1, *places, *kernel))
    for k in reversed(range(rank)):
        y = fold(y, 2 + k, whole[k], strides[k], dilations[k])
    start = [0, 0, *pads[:rank]]
    stop = [*y.shape[:2], *(pads[k] + n for k, n in enumerate(image))]
    return slice_(y, start, stop)


TABLE: Table = {
    "GridSample": grid_sample,
    "RoiAlign": roi_align,
    "DeformConv": deform_conv,
    "Col2Im": col2im,
}
