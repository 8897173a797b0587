"""Kernels without an anchor: the scalar program at every point."""

from __future__ import annotations

from ....ir.dims import product
from ..launches import TritonKernel
from ..scalars import emit_region
from .common import NARROW, Context, flat_tile, map_block, merged, narrow_loads

__all__ = ["map_kernel"]


def map_kernel(context: Context) -> TritonKernel:
    """One launch; neighbouring elements of the (last) result are neighbours in a tile."""
    w = context.writer()
    region = merged(context.kernel.after)
    block = map_block(region.shape)
    tile = flat_tile(w, region.shape, w.program(), block)
    emit_region(w, region, tile)
    tiling = f"{block} elements"
    narrow = [narrow_loads(context, a, len(region.shape) - 1) for a in region.loads
              if a.strides and a.strides[-1] != 0]  # fmt: skip
    if reasons := list(dict.fromkeys(filter(None, narrow))):
        tiling += f"; {NARROW}{'; '.join(reasons)}"
    launch = w.launch([(product(region.shape), block)], tiling=tiling)
    return TritonKernel(context.kernel, (launch,))
