"""Weights of a convolution, copied into the order in which its tiles read them."""

from __future__ import annotations

from ....ir.dims import product
from ....ir.kernel.memory import Access, Buffer, contiguous_strides
from ..emitter import Emitter
from .common import copied
from .geometry import Geometry

__all__ = ["weight_panels"]


def weight_panels(em: Emitter, w: Access, geo: Geometry, r: int) -> tuple[Buffer, int]:
    """Weights in the order in which tiles read them: [group][rows / r][depth][taps][r].

    Returns the buffer and the number of elements of a group.
    """
    taps = int(product(geo.kernel))  # type: ignore[arg-type]
    padded = -(-geo.rows // r) * r
    per_group = padded * geo.depth * taps
    buffer = em.scratch_buffer("panels", w.dtype, geo.groups * per_group)
    # groups follow each other along the output channels, axis 0 of w
    channels = geo.rows if geo.row_stride == w.strides[0] else geo.depth
    group_stride = w.strides[0] * channels
    order = contiguous_strides(geo.kernel, tuple(range(len(geo.kernel))))
    whole, rest = divmod(geo.rows, r)
    for first, count, width in ((0, whole, r), (whole, 1, rest)):
        if not count or not width:
            continue
        shape = (geo.groups, count, width, geo.depth, *geo.kernel)
        source = Access(
            w.buffer, w.dtype, w.offset + geo.row_stride * (first * r), shape,
            (group_stride, geo.row_stride * r, geo.row_stride, geo.depth_stride, *w.strides[2:]),
        )  # fmt: skip
        target = Access(
            buffer.name, w.dtype, first * r * geo.depth * taps, shape,
            (per_group, r * geo.depth * taps, 1, taps * r, *(o * r for o in order)),
        )  # fmt: skip
        copied(em, source, target)
    return buffer, per_group
