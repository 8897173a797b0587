"""Operators that change the order or number of elements: flips, repetition, padding, resizing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks import shape as shapes
from ...ir.bricks import unfold as unfolding
from ...ir.bricks.indexing import gather
from ...ir.dims import Dim, DimExpr, Size
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import (
    Number,
    Out,
    Result,
    axis_of,
    fixed,
)
from .views import LARGEST_LIST, part

__all__ = ["REARRANGE"]

of = trace.of
#: a size as an argument of an operator
Extent = int | Dim | DimExpr


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
            if n < 1 or n + abs(a) + abs(b) > LARGEST_LIST:
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
    return of(unfolding.unfold(x, axis_of(x, dimension), size, step))


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
    if lead < 0 or len(sizes) != x.rank - lead:
        raise ImportModelError("an upsampling of such axes", got=x.type, expected=list(sizes))
    y: Value = x
    for k, m in enumerate(sizes):
        n = fixed(x.shape[lead + k])
        if n < 1 or m < 1:
            raise ImportModelError("an impossible size of an upsampling", got=m)
        given = scales[k] if scales else None
        if m % n == 0 and given in (None, m // n):
            y = shapes.upsample(y, [m // n if a == lead + k else 1 for a in range(x.rank)])
            continue
        if m > 2**16:
            raise UnsupportedError("an upsampling to such a size by no whole factor", got=m)
        step = 1.0 / given if given else n / m
        rows = [min(int(i * step), n - 1) for i in range(m)]
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


REARRANGE: dict[str, Callable[..., Result]] = {
    "flip.default": flip, "roll.default": roll, "repeat.default": repeat,
    "tile.default": repeat, "repeat_interleave.self_int": repeat_interleave,
    "constant_pad_nd.default": constant_pad, "pad.default": pad_mode,
    **{f"reflection_pad{n}d.default": reflection_pad for n in (1, 2, 3)},
    **{f"replication_pad{n}d.default": replication_pad for n in (1, 2, 3)},
    "unfold.default": unfold, "unfold_copy.default": unfold,
    **{f"upsample_nearest{n}d.vec": nearest(n) for n in (1, 2, 3)},
    "upsample_nearest1d.default": nearest1d, "upsample_nearest2d.default": nearest2d,
    "upsample_nearest3d.default": nearest3d, "pixel_shuffle.default": pixel_shuffle,
    "pixel_unshuffle.default": pixel_unshuffle,
}  # fmt: skip
