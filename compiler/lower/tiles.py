"""Windows that tile: the adjoint of a non-overlapping sum is a repeated read, not an anchor."""

from __future__ import annotations

from dataclasses import replace

from ...ir.dims import Size, exact_div
from ...ir.kernel import anchors
from ...ir.kernel.kernel import Kernel, Region
from ...ir.kernel.memory import Access

__all__ = ["without_tiles"]


def without_tiles(kernel: Kernel) -> Kernel:
    """A kernel whose windows tile the result becomes a map over split axes.

    An axis of n·k places is walked as n tiles of k; the small operand is read with stride 0
    inside a tile. Whatever was fused after the anchor stays as it is.
    """
    anchor = kernel.anchor
    if not isinstance(anchor, anchors.WindowSumGrad):
        return kernel
    region, (source,) = kernel.after, kernel.operands
    for axis, (window, stride, padding) in enumerate(
        zip(anchor.window, anchor.stride, anchor.padding, strict=True)
    ):
        covered = source.shape[axis] * window == region.shape[axis]
        if window != stride or padding != (0, 0) or not covered:
            return kernel
    small = _split(source, anchor.window, repeat=True)
    loads = (small, *(_split(a, anchor.window) for a in region.loads))
    stores = tuple((k, _split(a, anchor.window)) for k, a in region.stores)
    return replace(
        kernel,
        anchor=None,
        operands=(),
        after=Region(small.shape, region.program, loads, stores),
    )


def _split(access: Access, window: tuple[int, ...], *, repeat: bool = False) -> Access:
    """Every axis with a window as (tiles, places in a tile)."""
    shape: list[Size] = []
    strides: list[Size] = []
    for size, stride, k in zip(access.shape, access.strides, window, strict=True):
        if k == 1:
            shape.append(size)
            strides.append(stride)
            continue
        tiles = size if repeat else exact_div(size, k)
        assert tiles is not None
        shape += [tiles, k]
        strides += [stride, 0] if repeat else [stride * k, stride]
    return replace(access, shape=tuple(shape), strides=tuple(strides))
