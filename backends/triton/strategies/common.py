"""Choices that several strategies share: tile sizes, merged axes, split sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ....ir.dims import Size, exact_div, hint, product
from ....ir.dtypes import DType
from ....ir.kernel.choices import Picks
from ....ir.kernel.kernel import Kernel, Region
from ....ir.kernel.memory import Access, Buffer, Space
from ....ir.kernel.spaces import coalesce, order_of, project, sizes_of
from ..launches import Launch
from ..options import Options
from ..scalars import emit_region
from ..writer import Tile, Writer, dtype_text, is_aligned

__all__ = ["NARROW", "PROGRAMS", "Context", "anchor_dtype", "flat_tile", "merge_region",
           "narrow_loads", "ordered_sum", "power_of_two", "scratch", "walk"]  # fmt: skip

#: programs that keep a large GPU busy: about one per multiprocessor
PROGRAMS = 132

#: in the comment above a kernel, before why some of its loads are shorter
NARROW = "loads below 128 bits: "

#: elements that a program of a map works on: 8 a thread, two 128-bit loads of f32
MAP_BLOCK = 1024


@dataclass(frozen=True)
class Context:
    """What a strategy is given."""

    kernel: Kernel
    buffers: Mapping[str, Buffer]
    options: Options
    #: number of the kernel in its function, for names of scratch memory
    number: int
    #: every decision that could be another one goes through here, by name
    picks: Picks = field(default_factory=Picks)

    def writer(self, suffix: str = "") -> Writer:
        return Writer(self.kernel, self.buffers, suffix)


def power_of_two(n: int, least: int, most: int) -> int:
    """The least power of two that is at least ``n``, within bounds that are powers of two."""
    size = least
    while size < n and size < most:
        size *= 2
    return size


def merge_region(
    shape: Sequence[Size], accesses: Sequence[Access], order: Sequence[int]
) -> tuple[tuple[Size, ...], list[Access]]:
    """Axes merged where all accesses allow: the sizes, and the accesses over them."""
    groups = coalesce(shape, order, [a.strides for a in accesses])
    sizes = sizes_of(shape, groups)
    found = []
    for access in accesses:
        strides = project(shape, access.strides, groups)
        assert strides is not None
        found.append(replace(access, shape=sizes, strides=strides))
    return sizes, found


def merged(region: Region) -> Region:
    """A region walked in the order in which its last result lies in memory."""
    accesses = [*region.loads, *(a for _, a in region.stores)]
    sizes, found = merge_region(region.shape, accesses, walk(region))
    loads = tuple(found[: len(region.loads)])
    stores = tuple((k, a) for (k, _), a in zip(region.stores, found[len(loads) :], strict=True))
    return Region(sizes, region.program, loads, stores)


def walk(region: Region) -> tuple[int, ...]:
    """Axes, outermost first, as the region's last result lies in memory."""
    accesses = [a for _, a in region.stores] or region.loads
    return order_of(accesses[-1]) if accesses else tuple(range(len(region.shape)))


def flat_tile(
    w: Writer,
    shape: Sequence[Size],
    pid: str,
    block: int,
    order: Sequence[int] | None = None,
    prefix: str = "i",
) -> Tile:
    """One-dimensional tile over the flat index of a space, axes in this order."""
    order = range(len(shape)) if order is None else order
    flat = w.let(prefix, f"{pid} * {block} + tl.arange(0, {block})")
    total = product(shape)
    masks = {}
    if not (isinstance(total, int) and total % block == 0):
        masks[0] = w.let("inside", f"{flat} < {w.size(total)}")
    split = dict(zip(order, w.split(flat, [shape[a] for a in order], 0), strict=True))
    return Tile((block,), tuple(split[a] for a in range(len(shape))), masks)


def map_block(shape: Sequence[Size]) -> int:
    return power_of_two(hint(product(shape)), 64, MAP_BLOCK)


def anchor_dtype(kernel: Kernel) -> DType:
    """Dtype of the anchor's value: input 0 of the program after it."""
    return kernel.after.program.inputs[0]


def scratch(context: Context, name: str, dtype: DType, size: Size) -> Buffer:
    return Buffer(f"{name}_{context.number}", dtype, size, Space.ARENA)


def narrow_loads(context: Context, access: Access, axis: int) -> str:
    """Why a tile that walks this axis fastest cannot be loaded by 128 bits; empty if it can."""
    vector = 16 // access.dtype.itemsize
    buffer = context.buffers.get(access.buffer)
    if buffer is not None and not is_aligned(buffer):
        return "a parameter between others"
    if access.strides[axis] != 1:
        return "neighbours in the tile are none in memory"
    run = access.shape[axis]
    if exact_div(run, vector) is None:
        return f"{run} neighbours in memory"
    others = [s for a, s in enumerate(access.strides) if a != axis and access.shape[a] != 1]
    for step in (access.offset, *others):
        if exact_div(step, vector) is None:
            return f"rows that start at multiples of {step}"
    return ""


def ordered_sum(
    context: Context,
    partial: Buffer,
    parts: int,
    suffix: str,
    order: Sequence[int],
    op: str = "sum",
) -> Launch:
    """Adds the parts of a split sum one after the other, then the region after the anchor.

    ``partial`` holds ``parts`` times the result with its axes in ``order``, the part outermost.
    """
    kernel = context.kernel
    w = context.writer(suffix)
    region = kernel.after
    block = map_block(region.shape)
    tile = flat_tile(w, region.shape, w.program(), block, order)
    total = product(region.shape)
    dtype = dtype_text(partial.dtype)
    w.comment(f"the {parts} parts, always in the same order")
    flat = "i0"
    mask = f", mask={tile.masks[0]}" if tile.masks else ""
    pointer = w.pointer(partial.name)
    identity = {"sum": "0.0", "max": 'float("-inf")', "min": 'float("inf")'}[op]
    if not partial.dtype.is_float:
        identity = "0"
    value = w.let("total", f"tl.full([{block}], {identity}, {dtype})")
    if op != "sum":
        w.line(f"{value} = tl.load({pointer} + {flat}{mask})")
    first = 0 if op == "sum" else 1
    with w.block(f"for part in range({first}, {parts}):"):
        more = w.let("x", f"tl.load({pointer} + part * {w.size(total)} + {flat}{mask})")
        w.line(f"{value} = {combine(op, value, more, partial.dtype)}")
    emit_region(w, region, tile, value)
    return w.launch([(total, block)], scratch=[partial], tiling=f"{block} results, {parts} parts")


def combine(op: str, a: str, b: str, dtype: DType) -> str:
    """The text of a reduction's step."""
    if op == "sum":
        return f"{a} + {b}"
    nan = ", propagate_nan=tl.PropagateNan.ALL" if dtype.is_float else ""
    return f"tl.{'maximum' if op == 'max' else 'minimum'}({a}, {b}{nan})"
