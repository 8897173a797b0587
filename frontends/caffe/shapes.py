"""Layers that move elements, and reductions.

Source: the layers of the same names in caffe/layers
"""

from __future__ import annotations

from itertools import pairwise

from ...ir.bricks import indexing, shape
from ...ir.dims import Size, exact_div, product
from .. import functional as fn
from .. import trace
from ..trace import Tensor
from .call import LARGEST_BLOB, Call, axis_of, fixed

__all__ = [
    "argmax", "batch_reindex", "concat", "crop", "embed", "filter_", "flatten", "permute",
    "reduction", "reshape", "silence", "slice_", "split", "tile",
]  # fmt: skip

#: the largest top_k: each step looks at everything once
_MOST_MAXIMA = 64


def split(call: Call) -> list[Tensor]:
    call.expect(1)
    return [call.bottoms[0]] * len(call.tops)


def silence(call: Call) -> list[Tensor]:
    """Bottoms that nobody wants; also what HDF5Output is here: nothing is written."""
    return []


def filter_(call: Call) -> list[Tensor]:
    """The examples whose selector, the last bottom, is not 0.

    Sizes are fixed when a program is compiled, so the others stay, as zeros, and every loss and
    accuracy behind leaves them out: their values and gradients are Caffe's.
    """
    call.expect(2, 10_000)
    selector = call.bottoms[-1]
    if selector.rank < 1 or product(selector.shape) != selector.shape[0]:
        raise call.fail("the selector has one number for each example", got=selector.type)
    if len(call.tops) != len(call.bottoms) - 1:
        raise call.fail("one top for each bottom but the selector", got=len(call.tops))
    zero = 0 if selector.dtype.is_integer else 0.0
    mask = fn.not_equal(fn.stop_gradient(selector).reshape(selector.shape[0]), zero)
    if call.mask is not None:
        mask = fn.logical_and(mask, call.mask)
    tops = []
    for bottom in call.bottoms[:-1]:
        if bottom.rank < 1 or bottom.shape[0] != selector.shape[0]:
            raise call.fail("the bottoms differ in their number of examples", got=bottom.type,
                            expected=selector.type)  # fmt: skip
        wide = mask.reshape(bottom.shape[0], *(1,) * (bottom.rank - 1))
        tops.append(fn.where(wide, bottom, 0 if bottom.dtype.is_integer else 0.0))
    for top in tops:
        call.net.masks[top] = mask
    return tops


def flatten(call: Call) -> list[Tensor]:
    call.expect(1)
    given, x = call.sub("flatten_param"), call.bottoms[0]
    start = axis_of(call, given.integer("axis"), x.rank)
    end = axis_of(call, given.integer("end_axis"), x.rank)
    if end < start:
        raise call.fail("end_axis is before axis", got=f"{start}..{end}")
    return [x.reshape(*x.shape[:start], product(x.shape[start : end + 1]), *x.shape[end + 1 :])]


def reshape(call: Call) -> list[Tensor]:
    """Some axes replaced: 0 copies a size, -1 is worked out."""
    call.expect(1)
    given, x = call.sub("reshape_param"), call.bottoms[0]
    start = axis_of(call, given.integer("axis"), x.rank, end=True)
    count = given.integer("num_axes")
    end = x.rank if count == -1 else start + count
    if count < -1 or end > x.rank:
        raise call.fail("num_axes goes beyond the bottom", got=count, expected=x.type)
    sizes: list[Size] = []
    for k, dim in enumerate(given.sub("shape").integers("dim")):
        if dim == 0 and start + k >= x.rank:
            raise call.fail(f"dim {k} copies an axis that is not there", expected=x.type)
        if dim < -1:
            raise call.fail("impossible dim", got=dim)
        sizes.append(x.shape[start + k] if dim == 0 else dim)
    if sizes.count(-1) > 1:
        raise call.fail("two dims are -1", got=sizes)
    outside = product([*x.shape[:start], *x.shape[end:]])
    if -1 in sizes:
        rest = product([s for s in sizes if s != -1]) * outside
        found = exact_div(product(x.shape), rest) if rest != 0 else None
        if found is None:
            raise call.fail("no size makes this fit", got=sizes, expected=x.type)
        sizes[sizes.index(-1)] = found
    wanted = [*x.shape[:start], *sizes, *x.shape[end:]]
    if product(wanted) != product(x.shape):
        raise call.fail("the number of elements changes", got=wanted, expected=x.type)
    return [x.reshape(*wanted)]


def concat(call: Call) -> list[Tensor]:
    call.expect(1, 10_000)
    given, first = call.sub("concat_param"), call.bottoms[0]
    legacy = given.has("concat_dim")
    if legacy and given.has("axis"):
        raise call.fail("both axis and concat_dim are given")
    axis = axis_of(call, given.integer("concat_dim" if legacy else "axis"), first.rank)
    if len(call.bottoms) == 1:
        return [first]
    if axis == 0:
        for bottom in call.bottoms:
            fixed(call, bottom.shape[0], "an axis that is joined")
    floats = any(b.dtype.is_float for b in call.bottoms)
    parts = [call.x(k) if floats else b for k, b in enumerate(call.bottoms)]
    return [fn.concat(parts, axis)]


def slice_(call: Call) -> list[Tensor]:
    call.expect(1)
    given, x = call.sub("slice_param"), call.bottoms[0]
    legacy = given.has("slice_dim")
    if legacy and given.has("axis"):
        raise call.fail("both axis and slice_dim are given")
    axis = axis_of(call, given.integer("slice_dim" if legacy else "axis"), x.rank)
    size, points, count = fixed(call, x.shape[axis], "a sliced axis"), given.integers(
        "slice_point"
    ), len(call.tops)  # fmt: skip
    if points:
        if len(points) != count - 1:
            raise call.fail("slice_point needs one number less than there are tops",
                            got=len(points), expected=count - 1)  # fmt: skip
    elif count == 0 or size % count:
        raise call.fail("the axis does not divide into the tops", got=f"{size} into {count}")
    else:
        points = [k * (size // count) for k in range(1, count)]
    bounds = [0, *points, size]
    if any(a >= b for a, b in pairwise(bounds)):
        raise call.fail("slice points must rise within the axis", got=points, expected=size)
    tops = []
    for a, b in pairwise(bounds):
        start, stop = [0] * x.rank, list(x.shape)
        start[axis], stop[axis] = a, b
        tops.append(trace.call(shape.slice_, x, start, stop))
    return tops


def crop(call: Call) -> list[Tensor]:
    """The first bottom cut to the sizes of the second, from ``axis`` on."""
    call.expect(2)
    given, x, like = call.sub("crop_param"), call.x(0), call.bottoms[1]
    axis = axis_of(call, given.integer("axis"), x.rank)
    offsets = given.integers("offset")
    if len(offsets) > 1 and axis + len(offsets) != x.rank:
        raise call.fail("one offset, or one for each cropped axis", got=offsets)
    if like.rank < x.rank:
        raise call.fail("the second bottom has fewer axes", got=like.type, expected=x.type)
    start, stop = [0] * x.rank, list(x.shape)
    for k in range(axis, x.rank):
        offset = offsets[k - axis] if len(offsets) > 1 else (offsets or [0])[0]
        if x.shape[k] == like.shape[k] and offset == 0:
            continue
        size, wanted = fixed(call, x.shape[k], "a cropped axis"), fixed(
            call, like.shape[k], "a cropped axis"
        )  # fmt: skip
        if offset < 0 or offset + wanted > size:
            raise call.fail(f"the crop of axis {k} is out of bounds",
                            got=f"{wanted} from {offset}", expected=f"within {size}")  # fmt: skip
        start[k], stop[k] = offset, offset + wanted
    return [trace.call(shape.slice_, x, start, stop)]


def tile(call: Call) -> list[Tensor]:
    """Copies of the blob one after the other along an axis."""
    call.expect(1)
    given, x = call.sub("tile_param"), call.bottoms[0]
    axis, count = axis_of(call, given.integer("axis"), x.rank), given.integer("tiles")
    if count < 1:
        raise call.fail("tiles must be 1 or more", got=count)
    if count * fixed(call, x.shape[axis], "a tiled axis") > LARGEST_BLOB:
        raise call.fail("too many tiles", got=count)
    wide = (*x.shape[:axis], count, *x.shape[axis:])
    one = x.reshape(*x.shape[:axis], 1, *x.shape[axis:])
    final = (*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :])
    return [trace.call(shape.broadcast_to, one, wide).reshape(*final)]


def permute(call: Call) -> list[Tensor]:
    """Axes in another order, which forks have. Axes that are left out follow."""
    call.expect(1)
    x, order = call.bottoms[0], call.sub("permute_param").integers("order")
    full = [*order, *(a for a in range(x.rank) if a not in order)]
    if sorted(full) != list(range(x.rank)):
        raise call.fail("no order of the axes", got=order, expected=x.type)
    return [x.transpose(*full)]


def reduction(call: Call) -> list[Tensor]:
    """Sum, sum of magnitudes, sum of squares or mean over the axes from ``axis`` on."""
    call.expect(1)
    given, x = call.sub("reduction_param"), call.x()
    axis = axis_of(call, given.integer("axis"), x.rank) if x.rank else 0
    axes, factor = tuple(range(axis, x.rank)), given.real("coeff")
    match given.text("operation"):
        case "SUM":
            y = fn.reduce_sum(x, axes)
        case "ASUM":
            y = fn.reduce_sum(fn.abs(x), axes)
        case "SUMSQ":
            y = fn.reduce_sum(fn.square(x), axes)
        case _:
            y = fn.reduce_mean(x, axes)
    return [y if factor == 1 else y * factor]


def argmax(call: Call) -> list[Tensor]:
    """Indices (or values) of the k largest elements; equal ones count from the last."""
    call.expect(1)
    given, x = call.sub("argmax_param"), fn.stop_gradient(call.x())
    count, values = given.integer("top_k"), given.flag("out_max_val")
    along = given.has("axis")
    if along:
        axis = axis_of(call, given.integer("axis"), x.rank)
    else:
        x, axis = x.reshape(x.shape[0], product(x.shape[1:])), 1
    size = fixed(call, x.shape[axis], "the searched axis")
    if not 1 <= count <= min(size, _MOST_MAXIMA):
        raise call.fail("impossible top_k", got=count, expected=f"1..{min(size, _MOST_MAXIMA)}")
    places, largest = [], []
    for _ in range(count):
        # Caffe sorts pairs of value and index downwards: of equal values the last comes first
        backwards = fn.arg_max(fn.reverse(x, (axis,)), axis, True)
        place = (size - 1) - backwards
        places.append(place.astype("f32"))
        largest.append(fn.reduce_max(x, (axis,), True))
        here = fn.equal(_counter(x, axis), place)
        x = fn.where(here, -3.4028234663852886e38, x) if len(places) < count else x
    index, value = _joined(places, axis), _joined(largest, axis)
    if along:
        return [value if values else index]
    batch = x.shape[0]
    if values:
        rows = [index.reshape(batch, 1, count), value.reshape(batch, 1, count)]
        return [fn.concat(rows, 1)]
    return [index.reshape(batch, 1, count)]


def _counter(x: Tensor, axis: int) -> Tensor:
    from ...ir.bricks.source import iota
    from ...ir.dtypes import DType
    from ...ir.types import TensorType

    ones = tuple(n if a == axis else 1 for a, n in enumerate(x.shape))
    return trace.call(iota, x, TensorType(DType.I32, ones), axis)


def _joined(parts: list[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else fn.concat(parts, axis)


def embed(call: Call) -> list[Tensor]:
    """Rows of a table by their number, plus a bias."""
    call.expect(1)
    given = call.sub("embed_param")
    rows, width = given.integer("input_dim"), given.integer("num_output")
    if rows < 1 or width < 1:
        raise call.fail("input_dim and num_output must be positive", got=f"{rows}, {width}")
    places = call.indices(0, rows)
    table = call.parameter("weight", (rows, width), given.sub("weight_filler"))
    y = trace.call(indexing.gather, table, _within(call, places, rows), 0)
    if given.flag("bias_term"):
        y = y + call.parameter("bias", (width,), given.sub("bias_filler"))
    return [y]


def _within(call: Call, places: Tensor, size: int) -> Tensor:
    """Indices that were computed are kept in range; those of inputs are checked when called."""
    source = places
    while len(source.operands) == 1 and source.dtype.is_integer:
        source = source.operands[0]
    if source.dtype.is_integer and not source.operands:
        return places
    return fn.minimum(fn.maximum(places, 0), size - 1)


def batch_reindex(call: Call) -> list[Tensor]:
    """Examples by their number, in any order and number."""
    call.expect(2)
    x = call.x(0)
    size = fixed(call, x.shape[0], "the batch that is picked from")
    places = call.indices(1, size)
    if places.rank != 1:
        raise call.fail("the indices have one axis", got=places.type)
    return [trace.call(indexing.gather, x, _within(call, places, size), 0)]
