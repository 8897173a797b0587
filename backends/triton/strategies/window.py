"""Sliding windows. Adjoints are gathered: every element looks at the windows that cover it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from ....errors import InternalError
from ....ir.dims import Size, product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.memory import Access, contiguous_strides
from ....ir.kernel.spaces import order_of
from ..launches import Launch, TritonKernel
from ..scalars import emit_region
from ..writer import Coord, Tile, Writer, dtype_text, wide
from .common import Context, anchor_dtype, flat_tile, map_block, scratch, walk

__all__ = ["window_max", "window_max_gather", "window_max_scatter", "window_sum",
           "window_sum_grad"]  # fmt: skip

_Window = (
    anchors.WindowSum
    | anchors.WindowMax
    | anchors.WindowSumGrad
    | anchors.WindowMaxScatter
    | anchors.WindowMaxGather
)

#: a window of at most so many elements is written out, a larger one is a loop
UNROLLED = 16


def window_sum(context: Context) -> TritonKernel:
    """Each result adds up its window."""
    anchor, (x,) = context.kernel.anchor, context.kernel.operands
    assert isinstance(anchor, anchors.WindowSum)
    w, tile = _start(context)
    total = w.let("total", f"tl.zeros([{tile.block[0]}], {dtype_text(wide(x.dtype))})")
    with _loop(w, anchor.window) as taps:
        value, _ = _element(w, anchor, x, tile, taps, "0.0")
        w.line(f"{total} = {total} + {value}")
    return _finish(context, w, tile, total)


def window_max(context: Context) -> TritonKernel:
    """Each result is the largest of its window, or NaN if one is in it."""
    anchor, (x,) = context.kernel.anchor, context.kernel.operands
    assert isinstance(anchor, anchors.WindowMax)
    w, tile = _start(context)
    least = 'float("-inf")'
    best = w.let("best", f"tl.full([{tile.block[0]}], {least}, {dtype_text(wide(x.dtype))})")
    with _loop(w, anchor.window) as taps:
        value, _ = _element(w, anchor, x, tile, taps, least)
        w.line(f"{best} = tl.maximum({best}, {value}, propagate_nan=tl.PropagateNan.ALL)")
    return _finish(context, w, tile, best)


def window_max_gather(context: Context) -> TritonKernel:
    """v at the first maximum: the window is walked backwards, so that the first comes last."""
    anchor, (x, y, v) = context.kernel.anchor, context.kernel.operands
    assert isinstance(anchor, anchors.WindowMaxGather)
    w, tile = _start(context)
    top = w.load(y, tile, prefix="top")
    result = w.let("result", f"tl.zeros([{tile.block[0]}], {dtype_text(wide(v.dtype))})")
    with _loop(w, anchor.window, backwards=True) as taps:
        value, here = _element(w, anchor, x, tile, taps, 'float("-inf")')
        picked, _ = _element(w, anchor, v, tile, taps, "0.0")
        w.line(f"{result} = tl.where({_wins(value, top, here)}, {picked}, {result})")
    return _finish(context, w, tile, result)


def window_max_scatter(context: Context) -> TritonKernel:
    """First which element of each window wins; then each element looks whether it did."""
    kernel = context.kernel
    anchor, (x, y, v) = kernel.anchor, kernel.operands
    assert isinstance(anchor, anchors.WindowMaxScatter)
    strides = contiguous_strides(y.shape, order_of(y))
    buffer = scratch(context, "winner", DType.I32, product(y.shape))
    winner = Access(buffer.name, DType.I32, 0, y.shape, strides)
    first = _winners(context, anchor, x, y, winner)
    w, tile = _start(context, "_spread")
    total = w.let("total", f"tl.zeros([{tile.block[0]}], {dtype_text(wide(v.dtype))})")
    with _loop(w, _covering(anchor)) as turns:
        windows, tap, here = _window_over(w, anchor, tile, turns, v.shape)
        there = replace(tile, coords=windows, whole=(here,) if here else ())
        won = w.load(winner, there, other="-1")
        value = w.load(v, there, other="0.0")
        w.line(f"{total} = {total} + tl.where({won} == {tap}, {value}, 0.0)")
    emit_region(w, kernel.after, tile, total)
    shape, block = kernel.after.shape, tile.block[0]
    second = w.launch([(product(shape), block)], tiling=f"{block} elements", scratch=[buffer])
    return TritonKernel(kernel, (first, second), (buffer,))


def window_sum_grad(context: Context) -> TritonKernel:
    """Each element adds up what the windows that cover it give."""
    anchor, (dy,) = context.kernel.anchor, context.kernel.operands
    assert isinstance(anchor, anchors.WindowSumGrad)
    w, tile = _start(context)
    total = w.let("total", f"tl.zeros([{tile.block[0]}], {dtype_text(wide(dy.dtype))})")
    with _loop(w, _covering(anchor)) as turns:
        windows, _, here = _window_over(w, anchor, tile, turns, dy.shape)
        there = replace(tile, coords=windows, whole=(here,) if here else ())
        w.line(f"{total} = {total} + {w.load(dy, there, other='0.0')}")
    return _finish(context, w, tile, total)


# -- pieces ----------------------------------------------------------------------------------------


def _start(context: Context, suffix: str = "") -> tuple[Writer, Tile]:
    """A tile over the result's space."""
    w = context.writer(suffix)
    shape = context.kernel.after.shape
    order = walk(context.kernel.after)
    return w, flat_tile(w, shape, w.program(), map_block(shape), order)


def _finish(context: Context, w: Writer, tile: Tile, value: str) -> TritonKernel:
    shape = context.kernel.after.shape
    wanted = anchor_dtype(context.kernel)
    if not wanted.is_float:
        raise InternalError(f"windows of {wanted}")
    emit_region(w, context.kernel.after, tile, value)
    block = tile.block[0]
    launch = w.launch([(product(shape), block)], tiling=f"{block} elements")
    return TritonKernel(context.kernel, (launch,))


class _Taps(nullcontext[Sequence[Coord]]):
    """A loop over the places of a window; ``as`` gives their coordinates."""

    def __init__(self, w: Writer, window: Sequence[int], backwards: bool) -> None:
        self.w, self.window, self.backwards = w, window, backwards
        super().__init__(())

    def __enter__(self) -> Sequence[Coord]:
        count = math.prod(self.window)
        loop = "tl.static_range" if count <= UNROLLED else "range"
        name = self.w.fresh("tap")
        self.w.line(f"for {name} in {loop}(0, {count}):")
        self.w.depth += 1
        at = self.w.let("place", f"{count - 1} - {name}") if self.backwards else name
        return self.w.split(at, self.window, None, "t")

    def __exit__(self, *error: object) -> None:
        self.w.depth -= 1


def _loop(w: Writer, window: Sequence[int], *, backwards: bool = False) -> _Taps:
    return _Taps(w, window, backwards)


def _element(
    w: Writer, anchor: _Window, x: Access, tile: Tile, taps: Sequence[Coord], outside: str
) -> tuple[str, str]:
    """x at one place of every result's window, and the text of "it lies inside"."""
    coords: list[Coord] = []
    masks: list[str] = []
    for axis, (place, tap) in enumerate(zip(tile.coords, taps, strict=True)):
        (lo, hi), stride = anchor.padding[axis], anchor.stride[axis]
        if tap.text == "0" and stride == 1 and not (lo or hi):
            coords.append(place)
            continue
        text = place.text if stride == 1 else f"{place.text} * {stride}"
        at = w.let("at", f"{text} + {tap.text}" + (f" - {lo}" if lo else ""))
        coords.append(Coord(at, 0))
        if lo or hi:
            masks.append(f"({at} >= 0) & ({at} < {w.size(x.shape[axis])})")
    here = w.let("here", " & ".join(masks)) if masks else ""
    there = replace(tile, coords=tuple(coords), whole=(here,) if here else ())
    found = replace(x, shape=tuple(2 for _ in x.shape))  # a coordinate of its own on each axis
    offset, dims = w.offset(found, there, full=True)
    return w.load_at(x, offset, there.mask(dims), other=outside), here


def _wins(value: str, top: str, here: str) -> str:
    """The place holds the window's maximum, or a NaN, and is no padding."""
    wins = f"({value} == {top}) | ({value} != {value})"
    return f"({wins}) & {here}" if here else wins


def _winners(context: Context, anchor: _Window, x: Access, y: Access, winner: Access) -> Launch:
    """The number of the first maximum in every window."""
    w = context.writer("_winner")
    block = map_block(y.shape)
    tile = flat_tile(w, y.shape, w.program(), block, order_of(y))
    top = w.load(y, tile, prefix="top")
    first = w.let("first", f"tl.full([{block}], -1, tl.int32)")
    with _loop(w, anchor.window, backwards=True) as taps:
        value, here = _element(w, anchor, x, tile, taps, 'float("-inf")')
        tap = _number_of(taps, anchor.window)
        w.line(f"{first} = tl.where({_wins(value, top, here)}, {tap}, {first})")
    w.store(winner, tile, first)
    made = scratch(context, "winner", DType.I32, product(y.shape))
    return w.launch([(product(y.shape), block)], tiling=f"{block} windows", scratch=[made])


def _number_of(taps: Sequence[Coord], window: Sequence[int]) -> str:
    """The row-major number of a place in the window."""
    text = "0"
    for coord, size in zip(taps, window, strict=True):
        if size != 1:
            text = coord.text if text == "0" else f"({text} * {size} + {coord.text})"
    return text


def _covering(anchor: _Window) -> list[int]:
    """How many windows may cover one element, by axis."""
    return [-(-k // s) for k, s in zip(anchor.window, anchor.stride, strict=True)]


def _window_over(
    w: Writer, anchor: _Window, tile: Tile, turns: Sequence[Coord], count: Sequence[Size]
) -> tuple[tuple[Coord, ...], str, str]:
    """One of the windows over every element: its coordinates, the element's number in it, and
    the text of "there is such a window".
    """
    coords: list[Coord] = []
    masks: list[str] = []
    taps: list[Coord] = []
    for axis, (place, turn) in enumerate(zip(tile.coords, turns, strict=True)):
        (lo, _), stride, window = anchor.padding[axis], anchor.stride[axis], anchor.window[axis]
        plain = window == 1 and stride == 1 and anchor.padding[axis] == (0, 0)
        if plain:
            coords.append(place)
            taps.append(Coord("0", None))
            continue
        # a tensor even where the axis has a single element
        at = w.let("at", f"{place.text} + tl.full([{tile.block[0]}], {lo}, tl.int32)")
        last = at if stride == 1 else f"{at} // {stride}"
        number = w.let("window", f"{last} - {turn.text}")
        tap = w.let("tap", f"{at} - {number} * {stride}")
        coords.append(Coord(number, 0))
        taps.append(Coord(tap, 0))
        masks.append(f"({number} >= 0) & ({number} < {w.size(count[axis])}) & ({tap} < {window})")
    here = w.let("here", " & ".join(masks)) if masks else ""
    return tuple(coords), _number_of(taps, anchor.window), here
