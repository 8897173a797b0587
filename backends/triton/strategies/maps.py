"""Kernels without an anchor: the scalar program at every point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ....errors import InternalError
from ....ir.dims import product
from ..launches import TritonKernel
from ..scalars import emit_region
from .common import NARROW, Context, flat_tile, map_block, merged, narrow_loads

__all__ = ["map_kernel", "map_kernels"]


def map_kernel(context: Context) -> TritonKernel:
    """One launch; neighbouring elements of the (last) result are neighbours in a tile."""
    w = context.writer()
    region = merged(context.kernel.after)
    block = map_block(region.shape)
    tile = flat_tile(w, region.shape, w.program(), block)
    emit_region(w, region, tile)
    tiling = f"{block} elements"
    walked = [a for a in region.loads if a.strides and a.strides[-1] != 0]
    narrow = [narrow_loads(context, a, len(region.shape) - 1) for a in walked]
    if region.loads and not walked:
        narrow = ["neighbours in the tile are one in memory"]
    if reasons := list(dict.fromkeys(filter(None, narrow))):
        tiling += f"; {NARROW}{'; '.join(reasons)}"
    launch = w.launch([(product(region.shape), block)], tiling=tiling)
    return TritonKernel(context.kernel, (launch,))


def map_kernels(contexts: Sequence[Context]) -> list[TritonKernel]:
    """Maps of fixed sizes that do not read each other's results, in one launch of the first."""
    first = contexts[0].kernel
    w = contexts[0].writer("_several")
    w.wide = any(c.writer().wide for c in contexts)
    pid, start = w.program(), 0
    for context in contexts:
        region = merged(context.kernel.after)
        block, total = map_block(region.shape), product(region.shape)
        if not isinstance(total, int):
            raise InternalError("maps of one launch have fixed sizes", got=total)
        end = start - (-total // block)
        with w.block(
            f"if ({pid} >= {start}) & ({pid} < {end}):" if start else f"if {pid} < {end}:"
        ):
            place = w.let("place", f"{pid} - {start}") if start else pid
            emit_region(w, region, flat_tile(w, region.shape, place, block))
        start = end
    launch = w.launch([(start, 1)], tiling=f"{len(contexts)} maps")
    notes = tuple(note for c in contexts for note in c.kernel.notes)
    rest = [TritonKernel(c.kernel, ()) for c in contexts[1:]]
    return [TritonKernel(replace(first, notes=notes), (launch,)), *rest]
