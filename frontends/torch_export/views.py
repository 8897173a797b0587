"""Operators that move elements: reshaping, slicing, joining, padding, and new tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks import arithmetic
from ...ir.bricks import shape as shapes
from ...ir.bricks.activation import logistic
from ...ir.bricks.convert import cast, stop_gradient
from ...ir.bricks.indexing import gather
from ...ir.bricks.source import iota
from ...ir.dims import Dim, DimExpr, Size, product
from ...ir.dtypes import DType
from ...ir.types import TensorType
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import (
    DEFAULT_FLOAT,
    Number,
    Out,
    Result,
    Scalar,
    axis_of,
    fixed,
    promoted,
    scalar,
    to,
)

__all__ = ["VIEWS", "halves", "part"]

of = trace.of
#: a size as an argument of an operator
Extent = int | Dim | DimExpr
#: elements of a list of indices that is written into the program
_LARGEST_LIST = 2**22
#: an integer that says "to the end"
_END = 2**63 - 1


def part(x: Value, axis: int, start: int, stop: Size, step: int = 1) -> Value:
    """start:stop:step of one axis."""
    lo, hi, by = [0] * x.rank, list(x.shape), [1] * x.rank
    lo[axis], hi[axis], by[axis] = start, stop, step
    return shapes.slice_(x, lo, hi, by)


def halves(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Both halves of an axis."""
    axis = axis_of(x, dim)
    n = fixed(x.shape[axis]) if x.rank else 1
    if n % 2:
        raise ImportModelError("an axis without halves", got=x.type)
    return of(part(x, axis, 0, n // 2)), of(part(x, axis, n // 2, n))


def glu(out: Out, x: Tensor, dim: int = -1) -> Tensor:
    a, b = halves(x, dim)
    return of(arithmetic.mul(a, logistic(b)))


# ── one tensor in another shape ──────────────────────────────────────────────────────────


def identity(out: Out, x: Tensor) -> Tensor:
    return x


def clone(out: Out, x: Tensor, *, memory_format: object = None) -> Tensor:
    return x


def contiguous(out: Out, x: Tensor, *, memory_format: object = None) -> Tensor:
    return x


def detach(out: Out, x: Tensor) -> Tensor:
    return of(stop_gradient(x))


def to_copy(
    out: Out, x: Tensor, *, dtype: DType | None = None, layout: object = None,
    device: object = None, pin_memory: bool | None = None, non_blocking: bool = False,
    memory_format: object = None,
) -> Tensor:  # fmt: skip
    return to(x, dtype or x.dtype)


def to_dtype(
    out: Out, x: Tensor, dtype: DType, non_blocking: bool = False, copy: bool = False,
    memory_format: object = None,
) -> Tensor:  # fmt: skip
    return to(x, dtype)


def type_as(out: Out, x: Tensor, other: Tensor) -> Tensor:
    return to(x, other.dtype)


def view(out: Out, x: Tensor, size: Sequence[Extent]) -> Tensor:
    return of(shapes.reshape(x, size))


def flatten(out: Out, x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    if x.rank == 0:
        return of(shapes.reshape(x, (1,)))
    a, b = axis_of(x, start_dim), axis_of(x, end_dim)
    return of(shapes.reshape(x, (*x.shape[:a], product(x.shape[a : b + 1]), *x.shape[b + 1 :])))


def unflatten(out: Out, x: Tensor, dim: int, sizes: Sequence[Extent]) -> Tensor:
    a = axis_of(x, dim)
    known = product(n for n in sizes if n != -1)
    inner = [n if n != -1 else fixed(x.shape[a]) // fixed(known) for n in sizes]
    return of(shapes.reshape(x, (*x.shape[:a], *inner, *x.shape[a + 1 :])))


def permute(out: Out, x: Tensor, dims: Sequence[int]) -> Tensor:
    return of(shapes.transpose(x, [axis_of(x, d) for d in dims])) if x.rank else x


def transpose(out: Out, x: Tensor, dim0: int, dim1: int) -> Tensor:
    if x.rank == 0:
        return x
    order = list(range(x.rank))
    a, b = axis_of(x, dim0), axis_of(x, dim1)
    order[a], order[b] = b, a
    return of(shapes.transpose(x, order))


def t(out: Out, x: Tensor) -> Tensor:
    return transpose(out, x, 0, 1) if x.rank == 2 else x


def expand(out: Out, x: Tensor, size: Sequence[Extent], *, implicit: bool = False) -> Tensor:
    lead = len(size) - x.rank
    if lead < 0:
        raise ImportModelError("expand to fewer axes", got=list(size), expected=x.type)
    full = tuple(x.shape[a - lead] if n == -1 and a >= lead else n for a, n in enumerate(size))
    return of(shapes.broadcast_to(x, full))


def broadcast(out: Out, x: Tensor, size: Sequence[Extent]) -> Tensor:
    return expand(out, x, size)


def squeeze(out: Out, x: Tensor) -> Tensor:
    return of(shapes.reshape(x, [n for n in x.shape if n != 1]))


def squeeze_dims(out: Out, x: Tensor, dim: int | Sequence[int]) -> Tensor:
    axes = [dim] if isinstance(dim, int) else dim
    gone = {axis_of(x, a) for a in axes}
    return of(shapes.reshape(x, [n for a, n in enumerate(x.shape) if a not in gone or n != 1]))


def unsqueeze(out: Out, x: Tensor, dim: int) -> Tensor:
    a = axis_of(x, dim, extra=1)
    return of(shapes.reshape(x, (*x.shape[:a], 1, *x.shape[a:])))


def slice_(
    out: Out, x: Tensor, dim: int = 0, start: Extent | None = None, end: Extent | None = None,
    step: int = 1,
) -> Tensor:  # fmt: skip
    axis = axis_of(x, dim)
    first, last = _bounds(x.shape[axis], start, end)
    return (
        x if (first, last, step) == (0, x.shape[axis], 1) else of(part(x, axis, first, last, step))
    )


def _bounds(size: Size, start: Size | None, end: Size | None) -> tuple[int, Size]:
    """Python's rules for slices, as far as a size is known."""
    if isinstance(size, int):
        first = fixed(0 if start is None else start)
        last = fixed(_END if end is None else end)
        first, last, _ = slice(first, last).indices(size)
        return first, max(first, last)
    whole = end is None or end == size or (isinstance(end, int) and end >= 2**31)
    first = fixed(0 if start is None else start)
    if first < 0:
        raise UnsupportedError("a slice that is counted from the end of a named dim", got=first)
    if whole:
        return first, size
    assert end is not None
    if isinstance(end, int) and end < 0:
        return first, size + end
    return first, end


def select(out: Out, x: Tensor, dim: int, index: int) -> Tensor:
    axis = axis_of(x, dim)
    n = x.shape[axis] if x.rank else 0
    if isinstance(n, int):
        if not -n <= index < n:
            raise ImportModelError("an index out of its axis", got=index, expected=x.type)
        index %= n
    elif index < 0:
        raise UnsupportedError("an index that is counted from the end of a named dim", got=index)
    one = part(x, axis, index, index + 1)
    return of(shapes.reshape(one, (*x.shape[:axis], *x.shape[axis + 1 :])))


def narrow(out: Out, x: Tensor, dim: int, start: Extent, length: Extent) -> Tensor:
    first = fixed(start)
    return slice_(out, x, dim, first, first + length)


# ── several tensors ──────────────────────────────────────────────────────────────────────


def cat(out: Out, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    if not tensors:
        raise ImportModelError("cat of nothing")
    dtype = promoted(*tensors)
    # torch lets an empty vector stand among tensors of any shape
    some = [x for x in tensors if x.shape != (0,)] or list(tensors[:1])
    return of(shapes.concat([to(x, dtype) for x in some], axis_of(some[0], dim)))


def stack(out: Out, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    if not tensors:
        raise ImportModelError("stack of nothing")
    return cat(out, [unsqueeze(out, x, dim) for x in tensors], axis_of(tensors[0], dim, 1))


def split_sizes(out: Out, x: Tensor, split_sizes: Sequence[Extent], dim: int = 0) -> Result:
    axis = axis_of(x, dim)
    first, parts = 0, []
    for size in split_sizes:
        last = first + fixed(size)
        parts.append(of(part(x, axis, first, last)))
        first = last
    return tuple(parts)


def split(out: Out, x: Tensor, split_size: Extent, dim: int = 0) -> Result:
    n, size = fixed(x.shape[axis_of(x, dim)]), fixed(split_size)
    if size <= 0 or n // size > 10_000:
        if n == 0 and size == 0:
            return (x,)
        raise ImportModelError("an impossible split", got=f"{n} into parts of {size}")
    starts = range(0, n, size) if n else range(1)
    return split_sizes(out, x, [min(size, n - s) for s in starts], dim)


def chunk(out: Out, x: Tensor, chunks: int, dim: int = 0) -> Result:
    n = fixed(x.shape[axis_of(x, dim)])
    if chunks < 1:
        raise ImportModelError("an impossible number of chunks", got=chunks)
    return split(out, x, max(1, -(-n // chunks)), dim)


def unbind(out: Out, x: Tensor, dim: int = 0) -> Result:
    n = fixed(x.shape[axis_of(x, dim)])
    if n > 10_000:
        raise UnsupportedError("an axis taken apart into so many tensors", got=n)
    return tuple(select(out, x, dim, k) for k in range(n))


# ── orders, repetition, padding ──────────────────────────────────────────────────────────


def flip(out: Out, x: Tensor, dims: Sequence[int]) -> Tensor:
    return of(shapes.reverse(x, sorted(axis_of(x, d) for d in dims))) if x.rank and dims else x


def roll(
    out: Out, x: Tensor, shifts: Sequence[int] | int, dims: Sequence[int] | int = ()
) -> Tensor:
    moves = [shifts] if isinstance(shifts, int) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims)
    if not axes:
        flat = of(shapes.reshape(x, (x.type.size,)))
        return of(shapes.reshape(roll(out, flat, moves, [0]), x.shape))
    y: Value = x
    for move, axis in zip(moves, axes, strict=True):
        a = axis_of(x, axis)
        n = fixed(x.shape[a]) if x.rank else 0
        cut = -move % n if n else 0
        if cut:
            y = shapes.concat([part(y, a, cut, n), part(y, a, 0, cut)], a)
    return of(y)


def repeat(out: Out, x: Tensor, repeats: Sequence[Extent]) -> Tensor:
    lead = len(repeats) - x.rank
    if lead < 0:
        raise ImportModelError("fewer repeats than axes", got=list(repeats), expected=x.type)
    shape = (*(1,) * lead, *x.shape)
    split_: list[Size] = []
    wide: list[Size] = []
    for n, k in zip(shape, repeats, strict=True):
        split_ += [1, n]
        wide += [k, n]
    spread = shapes.broadcast_to(shapes.reshape(x, split_), tuple(wide))
    return of(shapes.reshape(spread, [n * k for n, k in zip(shape, repeats, strict=True)]))


def repeat_interleave(
    out: Out, x: Tensor, repeats: int, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    if dim is None:
        x, dim = of(shapes.reshape(x, (x.type.size,))), 0
    a = axis_of(x, dim)
    thin = shapes.reshape(x, (*x.shape[: a + 1], 1, *x.shape[a + 1 :]))
    wide = shapes.broadcast_to(thin, (*x.shape[: a + 1], repeats, *x.shape[a + 1 :]))
    return of(shapes.reshape(wide, (*x.shape[:a], x.shape[a] * repeats, *x.shape[a + 1 :])))


def constant_pad(out: Out, x: Tensor, pad: Sequence[int], value: Number = 0) -> Tensor:
    lo, hi = _pairs(x, pad)
    inner: Value = x
    for axis, (a, b) in enumerate(zip(lo, hi, strict=True)):
        if a < 0 or b < 0:  # negative padding cuts off
            inner = part(inner, axis, max(0, -a), inner.shape[axis] + min(0, b))
    more = [max(0, a) for a in lo], [max(0, b) for b in hi]
    if not any((*more[0], *more[1])):
        return of(inner)
    return of(shapes.pad(inner, *more, float(value)))


def _pairs(x: Tensor, pad: Sequence[int]) -> tuple[list[int], list[int]]:
    """torch counts paddings from the last axis on."""
    count = len(pad) // 2
    if len(pad) % 2 or count > x.rank:
        raise ImportModelError("a padding that does not fit", got=list(pad), expected=x.type)
    lo, hi = [0] * x.rank, [0] * x.rank
    for k in range(count):
        lo[x.rank - 1 - k], hi[x.rank - 1 - k] = pad[2 * k], pad[2 * k + 1]
    return lo, hi


def _by_index(x: Tensor, pad: Sequence[int], place: Callable[[int, int], int]) -> Tensor:
    """Padding by elements of x: ``place`` says which one lies at a place beyond the axis."""
    lo, hi = _pairs(x, pad)
    y: Value = x
    for axis, (a, b) in enumerate(zip(lo, hi, strict=True)):
        if a or b:
            n = fixed(x.shape[axis])
            if n < 1 or n + abs(a) + abs(b) > _LARGEST_LIST:
                raise ImportModelError("an impossible padding", got=list(pad), expected=x.type)
            rows = [place(i, n) for i in range(-a, n + b)]
            y = gather(y, trace.literal(rows, "i64"), axis)
    return of(y)


def _reflected(i: int, n: int) -> int:
    if n == 1:
        return 0
    i = i % (2 * n - 2)
    return min(i, 2 * n - 2 - i)


def reflection_pad(out: Out, x: Tensor, padding: Sequence[int]) -> Tensor:
    return _by_index(x, padding, _reflected)


def replication_pad(out: Out, x: Tensor, padding: Sequence[int]) -> Tensor:
    return _by_index(x, padding, lambda i, n: min(max(i, 0), n - 1))


def pad_mode(
    out: Out, x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    match mode:
        case "constant":
            return constant_pad(out, x, pad, 0 if value is None else value)
        case "reflect":
            return reflection_pad(out, x, pad)
        case "replicate":
            return replication_pad(out, x, pad)
        case "circular":
            return _by_index(x, pad, lambda i, n: i % n)
    raise UnsupportedError("such a padding mode", got=mode)


def unfold(out: Out, x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    if x.rank == 0:
        return of(shapes.reshape(x, (1,)))
    return of(shapes.unfold(x, axis_of(x, dimension), size, step))


def nearest(factor_of: int) -> Callable[..., Tensor]:
    """Nearest neighbours on the last ``factor_of`` axes, by a whole factor or by index."""

    def convert(
        out: Out, x: Tensor, output_size: Sequence[int] | None = None,
        scale_factors: Sequence[float] | None = None,
    ) -> Tensor:  # fmt: skip
        lead = x.rank - factor_of
        sizes = list(output_size or [])
        if not sizes:
            inner = [fixed(n) for n in x.shape[lead:]]
            sizes = [
                math.floor(n * s) for n, s in zip(inner, scale_factors or [], strict=True)
            ]  # fmt: skip
        return _resized(x, lead, sizes, scale_factors)

    return convert


def _resized(
    x: Tensor, lead: int, sizes: Sequence[int], scales: Sequence[float | None] | None
) -> Tensor:
    y: Value = x
    for k, m in enumerate(sizes):
        n = fixed(x.shape[lead + k])
        if n < 1 or not 1 <= m <= _LARGEST_LIST:
            raise ImportModelError("an impossible size of an upsampling", got=m)
        given = scales[k] if scales else None
        step = 1.0 / given if given else n / m
        rows = [min(int(i * step), n - 1) for i in range(m)]
        if m % n == 0 and rows == [i // (m // n) for i in range(m)]:
            factors = [m // n if a == lead + k else 1 for a in range(x.rank)]
            y = shapes.upsample(y, factors)
        else:
            y = gather(y, trace.literal(rows, "i64"), lead + k)
    return of(y)


def nearest1d(
    out: Out, x: Tensor, output_size: Sequence[int], scales: float | None = None
) -> Tensor:
    return _resized(x, x.rank - 1, output_size, [scales])


def nearest2d(
    out: Out, x: Tensor, output_size: Sequence[int], scales_h: float | None = None,
    scales_w: float | None = None,
) -> Tensor:  # fmt: skip
    return _resized(x, x.rank - 2, output_size, [scales_h, scales_w])


def nearest3d(
    out: Out, x: Tensor, output_size: Sequence[int], scales_d: float | None = None,
    scales_h: float | None = None, scales_w: float | None = None,
) -> Tensor:  # fmt: skip
    return _resized(x, x.rank - 3, output_size, [scales_d, scales_h, scales_w])


def pixel_shuffle(out: Out, x: Tensor, upscale_factor: int) -> Tensor:
    r, lead = upscale_factor, x.shape[:-3]
    c, h, w = x.shape[-3:]
    k = len(lead)
    split_ = shapes.reshape(x, (*lead, fixed(c) // (r * r), r, r, h, w))
    order = (*range(k), k, k + 3, k + 1, k + 4, k + 2)
    moved = shapes.transpose(split_, order)
    return of(shapes.reshape(moved, (*lead, fixed(c) // (r * r), h * r, w * r)))


def pixel_unshuffle(out: Out, x: Tensor, downscale_factor: int) -> Tensor:
    r, lead = downscale_factor, x.shape[:-3]
    c, h, w = x.shape[-3:]
    k = len(lead)
    split_ = shapes.reshape(x, (*lead, c, fixed(h) // r, r, fixed(w) // r, r))
    moved = shapes.transpose(split_, (*range(k), k, k + 2, k + 4, k + 1, k + 3))
    return of(shapes.reshape(moved, (*lead, c * r * r, fixed(h) // r, fixed(w) // r)))


# ── diagonals and triangles ──────────────────────────────────────────────────────────────


def diagonal(out: Out, x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    a, b = axis_of(x, dim1), axis_of(x, dim2)
    rest = [k for k in range(x.rank) if k not in (a, b)]
    rows, cols = fixed(x.shape[a]), fixed(x.shape[b])
    count = max(0, min(rows, cols - offset) if offset >= 0 else min(rows + offset, cols))
    moved = shapes.transpose(x, [*rest, a, b])
    flat = shapes.reshape(moved, (*moved.shape[:-2], rows * cols))
    start = offset if offset >= 0 else -offset * cols
    if count == 0:
        return of(part(flat, flat.rank - 1, 0, 0))
    stop = start + (count - 1) * (cols + 1) + 1
    return of(part(flat, flat.rank - 1, start, stop, cols + 1))


def _grid(x: Tensor, diagonal: int, lower: bool) -> Value:
    """True in the lower (upper) triangle of the last two axes."""
    shape = (x.shape[-2], x.shape[-1])
    kind = TensorType(DType.I64, shape)
    gap = arithmetic.sub(iota(x, kind, 1), iota(x, kind, 0))
    return (arithmetic.less_equal if lower else arithmetic.greater_equal)(gap, diagonal)


def tril(out: Out, x: Tensor, diagonal: int = 0) -> Tensor:
    return of(arithmetic.where(_grid(x, diagonal, True), x, scalar(0, x.dtype)))


def triu(out: Out, x: Tensor, diagonal: int = 0) -> Tensor:
    return of(arithmetic.where(_grid(x, diagonal, False), x, scalar(0, x.dtype)))


def diag_embed(out: Out, x: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    rank = x.rank + 1
    a, b = axis_of(rank, dim1), axis_of(rank, dim2)
    n = fixed(x.shape[-1])
    m = n + abs(offset)
    lo = [0] * (rank - 2) + [m * -offset if offset < 0 else offset]
    # element k lies at k·(m+1) of the flattened square
    line = shapes.Pad(tuple([0] * x.rank), tuple([0] * x.rank), (*(0,) * (x.rank - 1), m), 0.0)
    wide = x.apply(line, x)
    hi = [0] * (rank - 2) + [m * m - lo[-1] - fixed(wide.shape[-1])]
    square = shapes.reshape(shapes.pad(wide, lo, hi), (*x.shape[:-1], m, m))
    rest = iter(range(rank - 2))
    order = [rank - 2 if k == a else rank - 1 if k == b else next(rest) for k in range(rank)]
    return of(shapes.transpose(square, order))


# ── new tensors ──────────────────────────────────────────────────────────────────────────

#: elements; no constant of a program is larger
_LARGEST = 2**31 - 1


def _filled(shape: Sequence[Size], value: Scalar, dtype: DType) -> Tensor:
    total = product(shape)
    if isinstance(total, int) and total > _LARGEST:
        raise ImportModelError("a constant that is too large", got=list(shape))
    return of(shapes.broadcast_to(to(value, dtype), tuple(shape)))


def full(
    out: Out, size: Sequence[Extent], fill_value: Number, *, dtype: DType | None = None,
    layout: object = None, device: object = None, pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    return _filled(size, fill_value, dtype or out.dtype(promoted(fill_value)))


def filled_with(value: Number) -> Callable[..., Tensor]:
    def convert(
        out: Out, size: Sequence[Extent], *, dtype: DType | None = None, layout: object = None,
        device: object = None, pin_memory: bool | None = None,
    ) -> Tensor:  # fmt: skip
        return _filled(size, value, dtype or out.dtype(DEFAULT_FLOAT))

    return convert


def full_like(
    out: Out, x: Tensor, fill_value: Number, *, dtype: DType | None = None,
    layout: object = None, device: object = None, pin_memory: bool | None = None,
    memory_format: object = None,
) -> Tensor:  # fmt: skip
    return _filled(x.shape, fill_value, dtype or x.dtype)


def like_with(value: Number) -> Callable[..., Tensor]:
    def convert(
        out: Out, x: Tensor, *, dtype: DType | None = None, layout: object = None,
        device: object = None, pin_memory: bool | None = None, memory_format: object = None,
    ) -> Tensor:  # fmt: skip
        return _filled(x.shape, value, dtype or x.dtype)

    return convert


def new_with(value: Number) -> Callable[..., Tensor]:
    def convert(
        out: Out, x: Tensor, size: Sequence[Extent], *, dtype: DType | None = None,
        layout: object = None, device: object = None, pin_memory: bool | None = None,
    ) -> Tensor:  # fmt: skip
        return _filled(size, value, dtype or x.dtype)

    return convert


def new_full(
    out: Out, x: Tensor, size: Sequence[Extent], fill_value: Number, *,
    dtype: DType | None = None, layout: object = None, device: object = None,
    pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    return _filled(size, fill_value, dtype or x.dtype)


def fill(out: Out, x: Tensor, value: Scalar) -> Tensor:
    return _filled(x.shape, value, x.dtype)


def empty(
    out: Out, size: Sequence[Extent], *, dtype: DType | None = None, layout: object = None,
    device: object = None, pin_memory: bool | None = None, memory_format: object = None,
) -> Tensor:  # fmt: skip
    if product(size) != 0:
        raise UnsupportedError("memory that is not set")
    return _filled(size, 0, dtype or out.dtype(DEFAULT_FLOAT))


def copy(out: Out, x: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    return of(shapes.broadcast_to(to(src, x.dtype), x.shape))


def scalar_tensor(
    out: Out, s: Number, *, dtype: DType | None = None, layout: object = None,
    device: object = None, pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    return scalar(s, dtype or out.dtype(DEFAULT_FLOAT))


def arange_step(
    out: Out, start: Number | Extent, end: Number | Extent, step: Number = 1, *,
    dtype: DType | None = None, layout: object = None, device: object = None,
    pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    whole = all(not isinstance(v, float) for v in (start, end, step))
    kind = dtype or out.dtype(DType.I64 if whole else DEFAULT_FLOAT)
    if not isinstance(end, int | float):
        if start != 0 or step != 1:
            raise UnsupportedError("an arange over a named dim with a start or step", got=end)
        return of(iota(scalar(0, kind), TensorType(kind, (end,)), 0))
    if not isinstance(start, int | float) or step == 0:
        raise UnsupportedError("such an arange", got=f"{start}, {end}, {step}")
    count = max(0, math.ceil((end - start) / step))
    if count > _LARGEST:
        raise ImportModelError("an arange that is too long", got=count)
    index = iota(scalar(0, kind), TensorType.of(kind, (count,)), 0)
    return of(_line(index, start, step, kind))


def _line(index: Value, start: Number, step: Number, kind: DType) -> Value:
    y = index if step == 1 else arithmetic.mul(index, step if kind.is_float else int(step))
    if start == 0:
        return y
    return arithmetic.add(y, start if kind.is_float else int(start))


def arange(
    out: Out, end: Number | Extent, *, dtype: DType | None = None, layout: object = None,
    device: object = None, pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    return arange_step(out, 0, end, 1, dtype=dtype)


def arange_start(
    out: Out, start: Number | Extent, end: Number | Extent, *, dtype: DType | None = None,
    layout: object = None, device: object = None, pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    return arange_step(out, start, end, 1, dtype=dtype)


def iota_(
    out: Out, length: Extent, *, start: int, step: int, dtype: DType, device: object = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    index = iota(scalar(0, dtype), TensorType.of(dtype, (length,)), 0)
    return of(_line(index, start, step, dtype))


def eye(
    out: Out, n: int, m: int | None = None, *, dtype: DType | None = None,
    layout: object = None, device: object = None, pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    kind = TensorType.of(DType.I64, (n, n if m is None else m))
    place = scalar(0, DType.I64)
    same = arithmetic.equal(iota(place, kind, 0), iota(place, kind, 1))
    return of(cast(same, dtype or out.dtype(DEFAULT_FLOAT)))


def sym_size(out: Out, x: Tensor, dim: int) -> Result:
    return x.shape[axis_of(x, dim)]


def sym_numel(out: Out, x: Tensor) -> Result:
    return x.type.size


def slice_scatter(
    out: Out, x: Tensor, src: Tensor, dim: int = 0, start: Extent | None = None,
    end: Extent | None = None, step: int = 1,
) -> Tensor:  # fmt: skip
    axis = axis_of(x, dim)
    n = fixed(x.shape[axis])
    if n > _LARGEST_LIST:
        raise UnsupportedError("a part stored into so long an axis", got=n)
    first, last = _bounds(n, start, end)
    src = to(src, x.dtype)
    rows = list(range(n))
    fresh = {r: k for k, r in enumerate(range(first, fixed(last), step))}
    if not fresh:
        return x
    both = shapes.concat([x, src], axis)
    picks = [n + fresh[r] if r in fresh else r for r in rows]
    return of(gather(both, trace.literal(picks, "i64"), axis))


def select_scatter(out: Out, x: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    a = axis_of(x, dim)
    n = fixed(x.shape[a])
    index = index % n if n else 0
    return slice_scatter(out, x, unsqueeze(out, src, a), a, index, index + 1)


def meshgrid(out: Out, tensors: Sequence[Tensor]) -> Result:
    rank = len(tensors)
    sizes = tuple(x.shape[0] if x.rank else 1 for x in tensors)
    made = []
    for k, x in enumerate(tensors):
        thin = shapes.reshape(x, [sizes[k] if a == k else 1 for a in range(rank)])
        made.append(of(shapes.broadcast_to(thin, sizes)))
    return tuple(made)


def diagonal_scatter(
    out: Out, x: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    a, b = axis_of(x, dim1), axis_of(x, dim2)
    rest = [k for k in range(x.rank) if k not in (a, b)]
    if x.rank < 2 or a == b:
        raise ImportModelError("a diagonal of such axes", got=x.type)
    square = shapes.transpose(x, [*rest, a, b])
    rows, cols = fixed(x.shape[a]), fixed(x.shape[b])
    wide = diag_embed(out, to(src, x.dtype), offset, -2, -1)
    # the diagonal's square may be larger or smaller than the matrix
    n = fixed(wide.shape[-1])
    high, broad = min(n, rows), min(n, cols)
    cut = shapes.slice_(wide, [0] * x.rank, [*wide.shape[:-2], high, broad])
    lie = [0] * x.rank
    full = shapes.pad(cut, lie, [0] * (x.rank - 2) + [rows - high, cols - broad])
    kind = TensorType(DType.I64, (rows, cols))
    on = arithmetic.equal(arithmetic.sub(iota(x, kind, 1), iota(x, kind, 0)), offset)
    merged = arithmetic.where(on, full, square)
    order = [*rest, a, b]
    return of(shapes.transpose(merged, [order.index(k) for k in range(x.rank)]))


def triangle_indices(lower: bool) -> Callable[..., Tensor]:
    def convert(
        out: Out, row: int, col: int, offset: int = 0, *, dtype: DType | None = None,
        layout: object = None, device: object = None, pin_memory: bool | None = None,
    ) -> Tensor:  # fmt: skip
        if not (row >= 0 and col >= 0 and row * col <= _LARGEST_LIST):
            raise UnsupportedError("so many indices", got=f"{row} x {col}")
        ones = np.ones((row, col), np.bool_)
        places = np.nonzero(np.tril(ones, offset) if lower else np.triu(ones, offset))
        return trace.literal(np.stack(places), dtype or DType.I64)

    return convert


VIEWS: dict[str, Callable[..., Result]] = {
    "view.default": view, "_unsafe_view.default": view, "view_copy.default": view,
    "reshape.default": view, "_reshape_copy.default": view,
    "flatten.using_ints": flatten, "unflatten.int": unflatten,
    "permute.default": permute, "permute_copy.default": permute,
    "transpose.int": transpose, "transpose_copy.int": transpose, "swapaxes.default": transpose,
    "t.default": t,
    "expand.default": expand, "expand_copy.default": expand, "broadcast_to.default": broadcast,
    "squeeze.default": squeeze, "squeeze.dim": squeeze_dims, "squeeze.dims": squeeze_dims,
    "squeeze_copy.default": squeeze, "squeeze_copy.dim": squeeze_dims,
    "squeeze_copy.dims": squeeze_dims,
    "unsqueeze.default": unsqueeze, "unsqueeze_copy.default": unsqueeze,
    "slice.Tensor": slice_, "slice_copy.Tensor": slice_, "select.int": select,
    "select_copy.int": select, "narrow.default": narrow,
    "cat.default": cat, "concat.default": cat, "stack.default": stack,
    "split.Tensor": split, "split_copy.Tensor": split, "split_with_sizes.default": split_sizes,
    "split_with_sizes_copy.default": split_sizes, "chunk.default": chunk,
    "unbind.int": unbind, "unbind_copy.int": unbind,
    "flip.default": flip, "roll.default": roll, "repeat.default": repeat, "tile.default": repeat,
    "repeat_interleave.self_int": repeat_interleave,
    "constant_pad_nd.default": constant_pad, "pad.default": pad_mode,
    **{f"reflection_pad{n}d.default": reflection_pad for n in (1, 2, 3)},
    **{f"replication_pad{n}d.default": replication_pad for n in (1, 2, 3)},
    "unfold.default": unfold, "unfold_copy.default": unfold,
    **{f"upsample_nearest{n}d.vec": nearest(n) for n in (1, 2, 3)},
    "upsample_nearest1d.default": nearest1d, "upsample_nearest2d.default": nearest2d,
    "upsample_nearest3d.default": nearest3d,
    "pixel_shuffle.default": pixel_shuffle, "pixel_unshuffle.default": pixel_unshuffle,
    "diagonal.default": diagonal, "diagonal_copy.default": diagonal,
    "diag_embed.default": diag_embed, "tril.default": tril, "triu.default": triu,
    "clone.default": clone, "alias.default": identity, "alias_copy.default": identity,
    "lift_fresh_copy.default": identity, "lift_fresh.default": identity,
    "lift.default": identity, "contiguous.default": contiguous, "detach.default": detach,
    "detach_copy.default": identity,
    "_to_copy.default": to_copy, "to.dtype": to_dtype, "type_as.default": type_as,
    "full.default": full, "zeros.default": filled_with(0), "ones.default": filled_with(1),
    "full_like.default": full_like, "zeros_like.default": like_with(0),
    "ones_like.default": like_with(1), "new_zeros.default": new_with(0),
    "new_ones.default": new_with(1), "new_full.default": new_full,
    "empty.memory_format": empty, "copy.default": copy,
    "fill.Scalar": fill, "fill.Tensor": fill, "scalar_tensor.default": scalar_tensor,
    "arange.default": arange, "arange.start": arange_start, "arange.start_step": arange_step,
    "iota.default": iota_, "eye.default": eye, "eye.m": eye,
    "sym_size.int": sym_size, "sym_numel.default": sym_numel,
    "slice_scatter.default": slice_scatter, "select_scatter.default": select_scatter,
    "diagonal_scatter.default": diagonal_scatter, "narrow_copy.default": narrow,
    "tril_indices.default": triangle_indices(True), "triu_indices.default": triangle_indices(False),
    "meshgrid.default": meshgrid, "glu.default": glu,
}  # fmt: skip
