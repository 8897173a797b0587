"""Pooling: windows over the last axes, with or without a batch axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks import arithmetic, contract, reduce, window
from ...ir.bricks import shape as shapes
from ...ir.bricks import unfold as unfolding
from ...ir.bricks.shape import Reshape
from ...ir.bricks.source import iota
from ...ir.bricks.window import WindowMax, WindowMaxGather
from ...ir.dims import Size, product
from ...ir.dtypes import DType
from ...ir.types import TensorType
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import Out, Result, each, fixed, to
from .exported import Unused
from .views import part

__all__ = ["WINDOWS"]

of = trace.of
Ints = int | Sequence[int]


#: sizes that axes are brought to, and elements of the weights that say how
_LARGEST, _LARGEST_TABLE = 2**14, 2**23


def _framed(x: Tensor, rank: int) -> tuple[Tensor, int]:
    """x as [N, C, *S], and how many axes were added in front."""
    missing = rank + 2 - x.rank
    if missing < 0 or missing > 2:
        raise ImportModelError("pooling of such a tensor", got=x.type)
    return of(shapes.reshape(x, (*(1,) * missing, *x.shape))), missing


def _unframed(y: Value, missing: int) -> Tensor:
    return of(shapes.reshape(y, y.shape[missing:]))


def max_pool(rank: int) -> Callable[..., Tensor]:
    def convert(
        out: Out, x: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] = (),
        padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
    ) -> Tensor:  # fmt: skip
        sizes = each(kernel_size, rank)
        steps = sizes if not isinstance(stride, int) and not stride else each(stride, rank)
        wide, missing = _framed(x, rank)
        holes = each(dilation, rank)
        if any(d != 1 for d in holes):
            y = _holed(wide, sizes, steps, each(padding, rank), holes, ceil_mode)
            return _unframed(y, missing)
        y = window.max_pool(wide, sizes, steps, each(padding, rank), ceil_mode)
        return _unframed(y, missing)

    return convert


def _holed(
    x: Tensor, sizes: Sequence[int], steps: Sequence[int], pads: Sequence[int],
    holes: Sequence[int], ceil_mode: bool,
) -> Value:  # fmt: skip
    """Maxima of windows with holes, one axis after the other; at ties all share the gradient."""
    y: Value = x
    for axis, (k, s, p, d) in enumerate(zip(sizes, steps, pads, holes, strict=True), 2):
        lo, hi = _reach(y.shape[axis], d * (k - 1) + 1, s, p) if ceil_mode else (p, p)
        before, after = [0] * y.rank, [0] * y.rank
        before[axis], after[axis] = lo, hi
        y = unfolding.unfold(shapes.pad(y, before, after, -math.inf), axis, k, s, d)
        y = reduce.reduce_max(y, (y.rank - 1,), False)
    return y


def max_pool_with_indices(rank: int) -> Callable[..., Result]:
    pool = max_pool(rank)

    def convert(
        out: Out, x: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] = (),
        padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
    ) -> Result:  # fmt: skip
        y = pool(out, x, kernel_size, stride, padding, dilation, ceil_mode)
        return y, _places_of_maxima(y, x, rank)

    return convert


def _places_of_maxima(y: Tensor, x: Tensor, rank: int) -> Tensor | Unused:
    """Where in the image each maximum lies: rows and columns counted as one.

    ``y`` is a pooling of x. The places join the graph only if somebody reads them.
    """
    maxima = y.operands[0] if isinstance(y.brick, Reshape) else y
    sizes = x.shape[x.rank - rank :]
    if not isinstance(maxima.brick, WindowMax) or not all(isinstance(n, int) for n in sizes):
        return Unused("the places of a pooling's maxima")
    brick = maxima.brick
    (wide,) = maxima.operands
    # float64 counts exactly as far as memory reaches, and the bricks take one dtype
    kind = TensorType(DType.F64, (*(1,) * (wide.rank - rank), *sizes))
    count: Value | None = None
    for axis in range(wide.rank - rank, wide.rank):
        step = product(wide.shape[axis + 1 :])
        along = arithmetic.mul(iota(wide, kind, axis), float(fixed(step)))
        count = along if count is None else arithmetic.add(count, along)
    assert count is not None
    places = shapes.broadcast_to(count, wide.shape)
    exact = to(wide, DType.F64)
    gather = WindowMaxGather(brick.window, brick.stride, brick.padding)
    found = exact.apply(gather, exact, to(maxima, DType.F64), places)
    return to(of(shapes.reshape(found, y.shape)), DType.I64)


def mean_pool(rank: int) -> Callable[..., Tensor]:
    def convert(
        out: Out, x: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] = (),
        padding: int | Sequence[int] = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Tensor:  # fmt: skip
        sizes = each(kernel_size, rank)
        steps = sizes if not isinstance(stride, int) and not stride else each(stride, rank)
        wide, missing = _framed(x, rank)
        pads = each(padding, rank)
        if divisor_override is None:
            y = window.mean_pool(wide, sizes, steps, pads, ceil_mode, count_include_pad)
        else:
            if divisor_override == 0:
                raise ImportModelError("a mean pooling that divides by 0")
            geometry = zip(wide.shape[2:], sizes, steps, pads, strict=True)
            pairs = ((0, 0), (0, 0), *(_reach(*g) if ceil_mode else (g[3], g[3]) for g in geometry))
            total = window.window_sum(wide, (1, 1, *sizes), (1, 1, *steps), pairs)
            y = arithmetic.mul(total, 1.0 / divisor_override)
        return _unframed(y, missing)

    return convert


def _reach(size: Size, window: int, stride: int, padding: int) -> tuple[int, int]:
    """Padding with what a last window in ceil mode hangs over."""
    n = fixed(size)
    count = -(-(n + 2 * padding - window) // stride) + 1
    if (count - 1) * stride >= n + padding:
        count -= 1  # it would see nothing but padding
    return padding, padding + max(0, (count - 1) * stride + window - n - 2 * padding)


def _bins(n: int, m: int) -> list[tuple[int, int]]:
    """torch's adaptive windows: from floor(i·n/m) to ceil((i+1)·n/m)."""
    return [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def adaptive_mean(rank: int) -> Callable[..., Tensor]:
    """Means over windows that cut every axis into as many parts."""

    def convert(out: Out, x: Tensor, output_size: int | Sequence[int]) -> Tensor:
        wide, missing = _framed(x, rank)
        targets = each(output_size, rank)
        y: Value = wide
        for k, m in enumerate(targets):
            axis = 2 + k
            if m == 1:
                y = reduce.reduce_mean(y, (axis,), keepdims=True)
                continue
            n = fixed(y.shape[axis])
            if m == n:
                continue
            if not 1 <= m <= _LARGEST or n * m > _LARGEST_TABLE:
                raise ImportModelError("an impossible size of a pooling", got=m)
            weights = np.zeros((m, n))
            for i, (a, b) in enumerate(_bins(n, m)):
                weights[i, a:b] = 1.0 / (b - a)
            letters = "abcdefg"[: y.rank]
            into = letters.replace(letters[axis], "z")
            share = trace.literal(weights, x.dtype)
            y = contract.contract(f"{letters},z{letters[axis]}->{into}", y, share)
        return _unframed(y, missing)

    return convert


def adaptive_max(rank: int) -> Callable[..., Result]:
    """Maxima over windows that cut every axis into as many parts."""

    def convert(out: Out, x: Tensor, output_size: int | Sequence[int]) -> Result:
        wide, missing = _framed(x, rank)
        targets = each(output_size, rank)
        sizes = [fixed(n) for n in wide.shape[2:]]
        if all(m >= 1 and n % m == 0 for n, m in zip(sizes, targets, strict=True)):
            steps = [n // m for n, m in zip(sizes, targets, strict=True)]
            y: Value = window.max_pool(wide, steps, steps)
        else:
            y = wide
            for k, m in enumerate(targets):
                if not 1 <= m <= 4096:
                    raise UnsupportedError("such a size of a pooling", got=m)
                rows = [
                    reduce.reduce_max(part(y, 2 + k, a, b), (2 + k,), keepdims=True)
                    for a, b in _bins(sizes[k], m)
                ]
                y = shapes.concat(rows, 2 + k)
        pooled = _unframed(y, missing)
        return pooled, _places_of_maxima(pooled, x, rank)

    return convert


# ── interpolation ────────────────────────────────────────────────────────────────────────


def _linear(n: int, m: int, align: bool, scale: float | None) -> np.ndarray[Any, Any]:
    """Weights [m, n] of linear interpolation between neighbours."""
    weights = np.zeros((m, n))
    for i, place in enumerate(_places(n, m, align, scale)):
        place = max(place, 0.0)
        low = min(int(place), n - 1)
        share = min(max(place - low, 0.0), 1.0)
        weights[i, low] += 1.0 - share
        weights[i, min(low + 1, n - 1)] += share
    return weights


def _cubic(n: int, m: int, align: bool, scale: float | None) -> np.ndarray[Any, Any]:
    """Weights [m, n] of cubic convolution between four neighbours.

    Source: Keys, Cubic convolution interpolation, 1981, with torch's a = -3/4
    """
    a = -0.75
    weights = np.zeros((m, n))
    for i, place in enumerate(_places(n, m, align, scale)):
        low = math.floor(place)
        for k in range(-1, 3):
            d = abs(place - low - k)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            weights[i, min(max(low + k, 0), n - 1)] += near if d <= 1 else far
    return weights


def _places(n: int, m: int, align: bool, scale: float | None) -> list[float]:
    """Where the new elements lie between the old ones."""
    if align:
        step = (n - 1) / (m - 1) if m > 1 else 0.0
        return [i * step for i in range(m)]
    step = 1.0 / scale if scale else n / m
    return [(i + 0.5) * step - 0.5 for i in range(m)]


Rule = Callable[[int, int, bool, float | None], "np.ndarray[Any, Any]"]


def _resampled(
    x: Tensor, sizes: Sequence[int], align: bool, scales: Sequence[float | None], rule: Rule
) -> Tensor:
    y: Value = x
    for k, (m, scale) in enumerate(zip(sizes, scales, strict=True)):
        axis = x.rank - len(sizes) + k
        n = fixed(y.shape[axis])
        if n < 1 or not 1 <= m <= _LARGEST or n * m > _LARGEST_TABLE:
            raise ImportModelError("an impossible size of an interpolation", got=m)
        letters = "abcdefg"[: y.rank]
        share = trace.literal(rule(n, m, align, scale), x.dtype)
        into = letters.replace(letters[axis], "z")
        y = contract.contract(f"{letters},z{letters[axis]}->{into}", y, share)
    return of(y)


def interpolate(rank: int, rule: Rule) -> Callable[..., Tensor]:
    """Interpolation on the last axes, to a size or by factors."""

    def convert(
        out: Out, input: Tensor, output_size: Sequence[int] | None, align_corners: bool,
        scale_factors: Sequence[float] | None,
    ) -> Tensor:  # fmt: skip
        scales: list[float | None] = [*scale_factors] if scale_factors else [None] * rank
        inner = [fixed(n) for n in input.shape[input.rank - rank :]]
        sizes = output_size or [
            math.floor(n * s) for n, s in zip(inner, scale_factors or [], strict=True)
        ]
        return _resampled(input, sizes, align_corners, scales, rule)

    return convert


def interpolate_to(rank: int, rule: Rule) -> Callable[..., Tensor]:
    """The same with one number for each factor, as core ATen has it."""

    def convert(
        out: Out, x: Tensor, output_size: Sequence[int], align_corners: bool,
        scale_1: float | None = None, scale_2: float | None = None,
        scale_3: float | None = None,
    ) -> Tensor:  # fmt: skip
        scales = [scale_1, scale_2, scale_3][:rank]
        return _resampled(x, output_size, align_corners, scales, rule)

    return convert


_INTERPOLATIONS = (
    ("upsample_linear1d", 1, _linear), ("upsample_bilinear2d", 2, _linear),
    ("upsample_trilinear3d", 3, _linear), ("upsample_bicubic2d", 2, _cubic),
)  # fmt: skip

WINDOWS: dict[str, Callable[..., Result]] = {
    **{f"max_pool{n}d.default": max_pool(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices.default": max_pool_with_indices(n) for n in (1, 2, 3)},
    **{f"avg_pool{n}d.default": mean_pool(n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d.default": adaptive_mean(n) for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d.default": adaptive_mean(n) for n in (2, 3)},
    **{f"adaptive_max_pool{n}d.default": adaptive_max(n) for n in (1, 2, 3)},
    **{f"{name}.vec": interpolate(n, rule) for name, n, rule in _INTERPOLATIONS},
    **{f"{name}.default": interpolate_to(n, rule) for name, n, rule in _INTERPOLATIONS},
}  # fmt: skip
