"""Convolution and its two gradients as products of matrices whose operands are never built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ....ir.dims import Size, exact_div, hint
from ....ir.kernel import anchors
from ....ir.kernel.memory import Access
from ..launches import TritonKernel
from ..writer import Coord, Tile, Writer
from .common import Context, narrow_loads
from .matmul import Operands, Problem, matmul
from .matrices import Matrix, matrix_of

__all__ = ["convolution", "input_grad", "weight_grad"]

_Any = anchors.Convolution | anchors.ConvolutionInputGrad | anchors.ConvolutionWeightGrad
Coords = Sequence[Coord]


def convolution(context: Context) -> TritonKernel:
    """Rows are output places of all examples, columns output channels, sums over the window."""
    anchor = context.kernel.anchor
    assert isinstance(anchor, anchors.Convolution)
    image, weights = context.kernel.operands
    x, w_ = _grouped(image, 1, anchor.groups), _grouped(weights, 0, anchor.groups)
    out = context.kernel.after.shape
    # channel, then places of the window, in the order in which the image has them
    summed = _Order(tuple(w_.shape[2:]), x.strides[2:])
    problem = Problem((anchor.groups,), (out[0], *out[2:]), (w_.shape[1],), summed.shape)

    def left(w: Writer, group: Coords, rows: Coords, columns: Coords, tile: Tile) -> str:
        channel, *taps = summed.back(columns)
        return _image(w, anchor, x, (rows[0], group[0], channel), rows[1:], taps, tile)

    def right(w: Writer, group: Coords, rows: Coords, columns: Coords, tile: Tile) -> str:
        return _plain(w, w_, (group[0], columns[0], *summed.back(rows)), tile, "b")

    def place(group: Coords, rows: Coords, columns: Coords) -> tuple[Coord, ...]:
        return (rows[0], _joined(group[0], columns[0], w_.shape[1]), *rows[1:])

    narrow = (narrow_loads(context, x, 2), narrow_loads(context, w_, summed.axes[-1] + 2))
    lie = Operands(image.dtype, summed.innermost(x.strides[2:]),
                   summed.innermost(w_.strides[2:]), narrow)  # fmt: skip
    rows = (0, *range(3, len(x.shape)))
    return matmul(context, problem, left, right, place, lie,
                  _matrices(context, w_.shape[3:], (x, rows, (2,)), (w_, (1,), (2,))))  # fmt: skip


def input_grad(context: Context) -> TritonKernel:
    """Rows are places of the image, sums over output channels and the places they come from."""
    anchor = context.kernel.anchor
    assert isinstance(anchor, anchors.ConvolutionInputGrad)
    cotangent, weights = context.kernel.operands
    dy, w_ = _grouped(cotangent, 1, anchor.groups), _grouped(weights, 0, anchor.groups)
    out = context.kernel.after.shape
    summed = _Order((w_.shape[1], *w_.shape[3:]), dy.strides[2:])
    problem = Problem((anchor.groups,), (out[0], *out[2:]), (w_.shape[2],), summed.shape)

    def left(w: Writer, group: Coords, rows: Coords, columns: Coords, tile: Tile) -> str:
        channel, *taps = summed.back(columns)
        outer = (rows[0], group[0], channel)
        return _cotangent(w, anchor, dy, outer, rows[1:], taps, tile, w_.shape[3:])

    def right(w: Writer, group: Coords, rows: Coords, columns: Coords, tile: Tile) -> str:
        channel, *taps = summed.back(rows)
        return _plain(w, w_, (group[0], channel, columns[0], *taps), tile, "b")

    def place(group: Coords, rows: Coords, columns: Coords) -> tuple[Coord, ...]:
        return (rows[0], _joined(group[0], columns[0], w_.shape[2]), *rows[1:])

    along = summed.innermost(dy.strides[2:])
    lie = Operands(cotangent.dtype, along, summed.innermost((w_.strides[1], *w_.strides[3:])),
                   (narrow_loads(context, dy, 2), narrow_loads(context, w_, 2)))  # fmt: skip
    rows = (0, *range(3, len(dy.shape)))
    return matmul(context, problem, left, right, place, lie,
                  _matrices(context, w_.shape[3:], (dy, rows, (2,)), (w_, (2,), (1,))))  # fmt: skip


def weight_grad(context: Context) -> TritonKernel:
    """Rows are output channels, columns the window's places, sums over all examples' places."""
    anchor = context.kernel.anchor
    assert isinstance(anchor, anchors.ConvolutionWeightGrad)
    image, cotangent = context.kernel.operands
    x, dy = _grouped(image, 1, anchor.groups), _grouped(cotangent, 1, anchor.groups)
    out = context.kernel.after.shape
    across = _Order((out[1], *out[2:]), x.strides[2:])
    problem = Problem((anchor.groups,), (dy.shape[2],), across.shape, (dy.shape[0], *dy.shape[3:]))

    def left(w: Writer, group: Coords, rows: Coords, columns: Coords, tile: Tile) -> str:
        return _plain(w, dy, (columns[0], group[0], rows[0], *columns[1:]), tile, "a")

    def right(w: Writer, group: Coords, rows: Coords, columns: Coords, tile: Tile) -> str:
        channel, *taps = across.back(columns)
        return _image(w, anchor, x, (rows[0], group[0], channel), rows[1:], taps, tile)

    def place(group: Coords, rows: Coords, columns: Coords) -> tuple[Coord, ...]:
        return (_joined(group[0], rows[0], dy.shape[2]), *across.back(columns))

    # the sum goes over places, of which the innermost are the columns of the images
    lie = Operands(image.dtype, dy.strides[-1] == 1, x.strides[-1] == 1 == anchor.stride[-1],
                   (narrow_loads(context, dy, 2), narrow_loads(context, x, 2)))  # fmt: skip
    places = (0, *range(3, len(dy.shape)))
    return matmul(context, problem, left, right, place, lie,
                  _matrices(context, out[2:], (dy, (2,), places), (x, (2,), places)))  # fmt: skip


class _Order:
    """Axes sorted by falling stride, so that neighbours in memory are neighbours in a tile."""

    def __init__(self, shape: tuple[Size, ...], strides: Sequence[Size]) -> None:
        self.axes = sorted(range(len(shape)), key=lambda a: (-abs(hint(strides[a])), a))
        self.shape = tuple(shape[a] for a in self.axes)

    def back(self, coords: Coords) -> list[Coord]:
        """Coordinates of the sorted axes, in the axes' own order."""
        found = dict(zip(self.axes, coords, strict=True))
        return [found[a] for a in range(len(coords))]

    def innermost(self, strides: Sequence[Size]) -> bool:
        """Whether the last of the sorted axes has neighbours in memory, by these strides."""
        return strides[self.axes[-1]] == 1


# -- operands --------------------------------------------------------------------------------------


def _grouped(access: Access, axis: int, groups: int) -> Access:
    """The access with its channel axis split into groups and channels of a group."""
    share = exact_div(access.shape[axis], groups)
    assert share is not None
    stride = access.strides[axis]
    return replace(
        access,
        shape=(*access.shape[:axis], groups, share, *access.shape[axis + 1 :]),
        strides=(*access.strides[:axis], stride * share, stride, *access.strides[axis + 1 :]),
    )


def _matrices(
    context: Context,
    window: Sequence[Size],
    left: tuple[Access, Sequence[int], Sequence[int]],
    right: tuple[Access, Sequence[int], Sequence[int]],
) -> tuple[Matrix | None, Matrix | None]:
    """Operands by free and by summed axes, as matrices where the window is a single place."""
    anchor = context.kernel.anchor
    assert isinstance(anchor, _Any)
    steps = {*anchor.stride, *window, anchor.groups}
    if steps != {1} or any(lo or hi for lo, hi in anchor.padding):
        return None, None

    def axes(access: Access, which: Sequence[int]) -> list[tuple[Size, Size]]:
        return [(access.shape[a], access.strides[a]) for a in which]

    first, second = (matrix_of(context, x, axes(x, free), axes(x, summed))
                     for x, free, summed in (left, right))  # fmt: skip
    return first, second


def _joined(group: Coord, channel: Coord, share: Size) -> Coord:
    """The channel's index among those of all groups."""
    if group.text == "0":
        return channel
    if channel.text == "0":
        return Coord(f"({group.text} * {share})", None)
    return Coord(f"({group.text} * {share} + {channel.text})", channel.dim)


def _plain(w: Writer, access: Access, coords: Coords, tile: Tile, prefix: str) -> str:
    there = replace(tile, coords=tuple(coords))
    return w.load(access, there, full=True, other="0.0", prefix=prefix, raw=True)


def _at(w: Writer, tile: Tile, start: int, terms: Sequence[tuple[Coord, int]]) -> str:
    """``start + Σ coordinate·factor`` over the tile, as a variable."""
    parts = [str(start)] if start else []
    for coord, factor in terms:
        if coord.text != "0":
            text = coord.text if factor == 1 else f"({coord.text} * {factor})"
            parts.append(tile.expand(text, coord.dim))
    if len(parts) == (1 if start else 0):
        parts.append(f"tl.zeros({[1] * len(tile.block)}, tl.int32)")
    return w.let("at", " + ".join(parts))


def _image(
    w: Writer, anchor: _Any, x: Access, outer: Coords, places: Coords, taps: Coords, tile: Tile
) -> str:
    """x [N, G, C, *S] at output places and taps of the window; zero outside the image."""
    terms: list[tuple[Coord, Size, Size]] = list(zip(outer, x.strides[:3], (2, 2, 2), strict=True))
    start = x.offset
    masks: list[str] = []
    for axis, (lo, hi) in enumerate(anchor.padding):
        step, stride, dilation = x.strides[3 + axis], anchor.stride[axis], anchor.dilation[axis]
        start = start - step * lo
        terms += [(places[axis], step * stride, 2), (taps[axis], step * dilation, 2)]
        if lo or hi:
            at = _at(w, tile, -lo, [(places[axis], stride), (taps[axis], dilation)])
            masks.append(f"({at} >= 0) & ({at} < {w.size(x.shape[3 + axis])})")
    offset, _ = w.sum_of(tile, start, terms, full=True)
    mask = replace(tile, whole=tuple(masks)).mask([0, 1])
    return w.load_at(x, offset, mask, other="0.0", prefix="a", raw=True)


def _cotangent(
    w: Writer,
    anchor: _Any,
    dy: Access,
    outer: Coords,
    places: Coords,
    taps: Coords,
    tile: Tile,
    window: Sequence[Size],
) -> str:
    """dy [N, G, O, *P] at the output places that see a place of the image through a tap."""
    terms: list[tuple[Coord, Size, Size]] = list(zip(outer, dy.strides[:3], (2, 2, 2), strict=True))
    start = dy.offset
    masks: list[str] = []
    extra: list[str] = []
    for axis, (lo, _) in enumerate(anchor.padding):
        step, stride, dilation = dy.strides[3 + axis], anchor.stride[axis], anchor.dilation[axis]
        count = w.size(dy.shape[3 + axis])
        if stride == window[axis] == 1 and lo == 0:  # every place comes from itself
            terms.append((places[axis], step, 2))
            continue
        at = _at(w, tile, lo, [(places[axis], 1), (taps[axis], -dilation)])
        if stride == 1:
            start = start + step * lo
            terms += [(places[axis], step, 2), (taps[axis], step * -dilation, 2)]
            masks.append(f"({at} >= 0) & ({at} < {count})")
            continue
        seen = w.let("seen", f"{at} // {stride}")
        masks.append(f"({at} >= 0) & ({at} % {stride} == 0) & ({seen} < {count})")
        extra.append(f"{seen} * {w.size(step)}")
    offset, _ = w.sum_of(tile, start, terms, full=True)
    mask = replace(tile, whole=tuple(masks)).mask([0, 1])
    return w.load_at(dy, " + ".join([offset, *extra]), mask, other="0.0", prefix="a", raw=True)
