"""Pooling: windows over the last axes, with or without a batch axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks import arithmetic, contract, reduce, window
from ...ir.bricks import shape as shapes
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import Out, Result, each, fixed
from .exported import Unused
from .views import part

__all__ = ["WINDOWS"]

of = trace.of
Ints = int | Sequence[int]


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
        if any(d != 1 for d in each(dilation, rank)):
            raise UnsupportedError("a pooling window with holes", got=dilation, expected=1)
        sizes = each(kernel_size, rank)
        steps = sizes if not isinstance(stride, int) and not stride else each(stride, rank)
        wide, missing = _framed(x, rank)
        y = window.max_pool(wide, sizes, steps, each(padding, rank), ceil_mode)
        return _unframed(y, missing)

    return convert


def max_pool_with_indices(rank: int) -> Callable[..., Result]:
    pool = max_pool(rank)

    def convert(
        out: Out, x: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] = (),
        padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
    ) -> Result:  # fmt: skip
        y = pool(out, x, kernel_size, stride, padding, dilation, ceil_mode)
        return y, Unused("the places of a pooling's maxima")

    return convert


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
            if ceil_mode or divisor_override == 0:
                raise UnsupportedError("a mean pooling with a divisor, in ceil mode")
            pairs = ((0, 0), (0, 0), *((p, p) for p in pads))
            total = window.window_sum(wide, (1, 1, *sizes), (1, 1, *steps), pairs)
            y = arithmetic.mul(total, 1.0 / divisor_override)
        return _unframed(y, missing)

    return convert


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
            if m < 1 or m > 2**20 or n * m > 2**24:
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
                if m < 1 or m > 4096:
                    raise UnsupportedError("such a size of a pooling", got=m)
                rows = [
                    reduce.reduce_max(part(y, 2 + k, a, b), (2 + k,), keepdims=True)
                    for a, b in _bins(sizes[k], m)
                ]
                y = shapes.concat(rows, 2 + k)
        return _unframed(y, missing), Unused("the places of a pooling's maxima")

    return convert


WINDOWS: dict[str, Callable[..., Result]] = {
    **{f"max_pool{n}d.default": max_pool(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices.default": max_pool_with_indices(n) for n in (1, 2, 3)},
    **{f"avg_pool{n}d.default": mean_pool(n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d.default": adaptive_mean(n) for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d.default": adaptive_mean(n) for n in (2, 3)},
    **{f"adaptive_max_pool{n}d.default": adaptive_max(n) for n in (1, 2, 3)},
}  # fmt: skip
