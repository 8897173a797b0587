"""Kernels that move elements: padding, joining, looking up, adding up at indices, folding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ....ir.dims import product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.memory import Access
from ..launches import TritonKernel
from ..scalars import emit_region, number
from ..writer import Coord, Tile, Writer, dtype_text, wide
from .common import Context, anchor_dtype, flat_tile, map_block, walk

__all__ = ["concat", "fold", "gather", "pad", "random_uniform", "scatter_add"]


def _each(
    context: Context, value: Callable[[Writer, Tile], str], *, row_major: bool = False
) -> TritonKernel:
    """One launch over the result's space, whose elements ``value`` makes."""
    w = context.writer()
    shape = context.kernel.after.shape
    block = map_block(shape)
    order = None if row_major else walk(context.kernel.after)
    tile = flat_tile(w, shape, w.program(), block, order)
    emit_region(w, context.kernel.after, tile, value(w, tile))
    launch = w.launch([(product(shape), block)], tiling=f"{block} elements")
    return TritonKernel(context.kernel, (launch,))


def _vector(w: Writer, tile: Tile, text: str) -> str:
    """An index as a tensor of the tile's shape, whatever it varies along."""
    return w.let("at", f"{text} + tl.zeros([{tile.block[0]}], tl.int32)")


def _look(w: Writer, x: Access, tile: Tile, coords: Sequence[Coord], here: str) -> str:
    """x at coordinates, where ``here`` holds."""
    there = replace(tile, coords=tuple(coords), whole=(here,) if here else ())
    offset, dims = w.offset(replace(x, shape=(2,) * len(x.shape)), there, full=True)
    return w.load_at(x, offset, there.mask(dims), other="0")


def pad(context: Context) -> TritonKernel:
    """The element that an index shows, or the value around and between them."""
    anchor, (x,) = context.kernel.anchor, context.kernel.operands
    assert isinstance(anchor, anchors.Pad)

    def value(w: Writer, tile: Tile) -> str:
        coords, masks = [], []
        for axis, place in enumerate(tile.coords):
            step = anchor.interior[axis] + 1
            at = _vector(w, tile, f"{place.text} - {anchor.lo[axis]}")
            from_ = at if step == 1 else w.let("from_", f"{at} // {step}")
            masks.append(f"({at} >= 0) & ({from_} < {w.size(x.shape[axis])})")
            if step > 1:
                masks.append(f"({at} % {step} == 0)")
            coords.append(Coord(from_, 0))
        here = w.let("here", " & ".join(masks)) if masks else ""
        found = _look(w, x, tile, coords, here)
        other = w.let("other", number(anchor.value, wide(x.dtype)))
        return w.let("padded", f"tl.where({here}, {found}, {other})") if here else found

    return _each(context, value)


def concat(context: Context) -> TritonKernel:
    """Each element comes from the operand whose range its index lies in."""
    anchor, operands = context.kernel.anchor, context.kernel.operands
    assert isinstance(anchor, anchors.Concat)

    def value(w: Writer, tile: Tile) -> str:
        index = _vector(w, tile, tile.coords[anchor.axis].text)
        start, result = "0", ""
        for operand in operands:
            length = w.size(operand.shape[anchor.axis])
            at = w.let("at", f"{index} - {start}")
            here = w.let("here", f"({at} >= 0) & ({at} < {length})")
            coords = list(tile.coords)
            coords[anchor.axis] = Coord(at, 0)
            found = _look(w, operand, tile, coords, here)
            result = found if not result else w.let("y", f"tl.where({here}, {found}, {result})")
            start = w.let("start", f"{start} + {length}") if start != "0" else length
        return result

    return _each(context, value)


def gather(context: Context) -> TritonKernel:
    """x at the index; zero where an index is out of range."""
    anchor, (x, indices) = context.kernel.anchor, context.kernel.operands
    assert isinstance(anchor, anchors.Gather)
    rank = len(indices.shape)

    def value(w: Writer, tile: Tile) -> str:
        picked = tile.coords[anchor.axis : anchor.axis + rank]
        index = w.load(indices, replace(tile, coords=tuple(picked)), full=True, other="0")
        size = w.size(x.shape[anchor.axis])
        here = w.let("here", f"({index} >= 0) & ({index} < {size})")
        outer, inner = tile.coords[: anchor.axis], tile.coords[anchor.axis + rank :]
        return _look(w, x, tile, (*outer, Coord(index, 0), *inner), here)

    return _each(context, value)


def scatter_add(context: Context) -> TritonKernel:
    """Each place goes through all indices and adds up those that name it, in their order."""
    anchor, (indices, updates) = context.kernel.anchor, context.kernel.operands
    assert isinstance(anchor, anchors.ScatterAdd)

    def value(w: Writer, tile: Tile) -> str:
        dtype = anchor_dtype(context.kernel)
        total = w.let("total", f"tl.zeros([{tile.block[0]}], {dtype_text(dtype)})")
        place = _vector(w, tile, tile.coords[anchor.axis].text)
        with w.block(f"for position in range(0, {w.size(product(indices.shape))}):"):
            at = w.split("position", indices.shape, None, "k")
            index = w.load(indices, replace(tile, coords=tuple(at)))
            here = w.let("here", f"{place} == {index}")
            coords = (*tile.coords[: anchor.axis], *at, *tile.coords[anchor.axis + 1 :])
            w.line(f"{total} = {total} + {_look(w, updates, tile, coords, here)}")
        return total

    return _each(context, value)


def fold(context: Context) -> TritonKernel:
    """Each element adds up the places of all windows that show it."""
    anchor, (x,) = context.kernel.anchor, context.kernel.operands
    assert isinstance(anchor, anchors.Fold)

    def value(w: Writer, tile: Tile) -> str:
        total = w.let("total", f"tl.zeros([{tile.block[0]}], {dtype_text(wide(x.dtype))})")
        place = tile.coords[anchor.axis].text
        with w.block(f"for tap in range(0, {w.size(x.shape[-1])}):"):
            at = _vector(w, tile, f"{place} - tap * {anchor.dilation}")
            window = w.let("window", f"{at} // {anchor.stride}")
            here = w.let("here", f"({at} >= 0) & ({at} % {anchor.stride} == 0) & "
                                 f"({window} < {w.size(x.shape[anchor.axis])})")  # fmt: skip
            coords = list(tile.coords)
            coords[anchor.axis] = Coord(window, 0)
            found = _look(w, x, tile, [*coords, Coord("tap", None)], here)
            w.line(f"{total} = {total} + {found}")
        return total

    return _each(context, value)


def random_uniform(context: Context) -> TritonKernel:
    """Word ``i % 4`` of Philox block ``i // 4``; its upper 24 bits are the number."""
    anchor, (seed, counter) = context.kernel.anchor, context.kernel.operands
    assert isinstance(anchor, anchors.RandomUniform)

    def value(w: Writer, tile: Tile) -> str:
        w.helpers.add("philox")
        one = replace(tile, coords=(), masks={})
        key = f"{w.load(seed, one)}.to(tl.uint64)"
        count = f"{w.load(counter, one)}.to(tl.uint64)"
        words = [w.fresh("word") for _ in range(4)]
        w.line(f"{', '.join(words)} = philox(i0 // 4, {anchor.stream}, {count}, {key})")
        pick = f"tl.where(i0 % 4 == 2, {words[2]}, {words[3]})"
        pick = f"tl.where(i0 % 4 == 1, {words[1]}, {pick})"
        word = w.let("word", f"tl.where(i0 % 4 == 0, {words[0]}, {pick})")
        dtype = dtype_text(anchor_dtype(context.kernel))
        whole = f"({word} >> 8).to(tl.int32).to({dtype})"
        return w.let("u", f"{whole} * {2.0**-24!r}")

    assert anchor_dtype(context.kernel) in (DType.F32, DType.F64)
    return _each(context, value, row_major=True)
