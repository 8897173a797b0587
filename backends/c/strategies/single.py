"""Convolution of a single example: the lanes are output channels.

One example leaves one lane in sixteen of a vector of examples. Where its image lies with the
channels innermost, a tile is some vectors of channels at some neighbouring places: vectors of
weights times repeated elements of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....ir.dims import Size, product
from ....ir.kernel.loops import Bound, For, IndexOp, Let, Load, Parallel, When
from ....ir.kernel.memory import Access, contiguous_strides
from ..emitter import Block, Emitter, leader
from .common import copied
from .geometry import Geometry
from .taps import Axis, fixed, over_taps, tap_of
from .tile import Column, Tile, row_count, steps

__all__ = ["channels_are_lanes", "sums_over_channels"]


def channels_are_lanes(em: Emitter) -> bool:
    """True for one example of an image whose result has its channels innermost."""
    after = em.kernel.after
    return after.shape[0] == 1 and len(after.shape) > 3 and leader(after).strides[1] == 1


def sums_over_channels(em: Emitter, x: Access, w: Access, geo: Geometry) -> None:
    """The phases of such a convolution."""
    _Channels(em, x, w, geo).run()


class _Channels:
    def __init__(self, em: Emitter, x: Access, w: Access, geo: Geometry) -> None:
        self.em, self.x, self.geo = em, x, geo
        after = em.kernel.after
        self.dtype = after.program.inputs[0]
        self.spatial = after.shape[2:]
        self.weights = self._panels(w)
        vectors = -(-geo.rows // em.lanes)
        most, rows = em.tile
        # places first: the fewer vectors, the fewer bytes of weights a row of places goes over
        first, end = geo.inside or (0, 1)
        self.places = row_count(end - first, most * rows)
        #: vectors of channels in a tile
        most = min(vectors, most, max(1, most * rows // self.places))
        self.wide = -(-vectors // -(-vectors // most))
        self.groups_of = -(-vectors // self.wide)
        self.k, self.g, self.y = em.var("k_c"), em.var("g"), em.var("y")

    def _panels(self, w: Access) -> Access:
        """Weights with the output channels innermost: as they lie, or a copy."""
        if w.strides[0] == 1:
            return w
        strides = contiguous_strides(w.shape, (*range(1, len(w.shape)), 0))
        buffer = self.em.scratch_buffer("panels", w.dtype, product(w.shape))
        target = Access(buffer.name, w.dtype, 0, w.shape, strides)
        copied(self.em, w, target)
        return target

    def run(self) -> None:
        em, geo = self.em, self.geo
        chunk, number, more = em.var("c"), em.var("block"), em.var("rest")
        body: Block = [
            Let(self.y.name, IndexOp("mod", chunk, self.spatial[0])),
            Let(more.name, IndexOp("div", chunk, self.spatial[0])),
            Let(number.name, IndexOp("mod", more, self.groups_of)),
            Let(self.g.name, IndexOp("div", more, self.groups_of)),
        ]
        width = self.wide * em.lanes
        whole = geo.rows // width
        rest = geo.rows - whole * width
        full = [Column(number * width + k * em.lanes, None) for k in range(self.wide)]
        last = [
            Column(whole * width + k, None if rest - k >= em.lanes else rest - k)
            for k in range(0, rest, em.lanes)
        ]
        if whole and last:
            body.append(When(number, whole, tuple(self._rows(full))))
            body.append(When(whole - 1, number, tuple(self._rows(last))))
        else:
            body += self._rows(full if whole else last)
        count: Bound = IndexOp("mul", self.spatial[0], self.groups_of * geo.groups)
        em.phase(Parallel(chunk.name, count, tuple(body)), "sums over channels and taps")

    def _rows(self, columns: list[Column]) -> Block:
        """All places of a row of the image: the edges, where taps are missing, and the inside."""
        em, geo = self.em, self.geo
        middle = [em.var("x") for _ in range(len(self.spatial) - 2)]
        start: list[Size] = [self.y, *middle]
        size = self.spatial[-1]

        def single(x: Size) -> Block:
            return self._tile(columns, start, [x], geo.axes([*start, x]))

        if geo.inside is None:
            x = em.var("x")
            out: Block = [For(x.name, 0, size, tuple(single(x)))]
        else:
            first, end = geo.inside
            out = []
            for lo, hi in ((0, first), (end, fixed(size))):
                if hi > lo:
                    x = em.var("x")
                    out.append(For(x.name, lo, hi, tuple(single(x))))

            def inside(places: list[Size]) -> Block:
                axes = [*geo.axes([*start, places[0]])[:-1], geo.whole(places[0])]
                return self._tile(columns, start, places, axes)

            out += steps(em, first, end, self.places, inside, end - first, "x")
        for variable, count in zip(reversed(middle), reversed(self.spatial[1:-1]), strict=True):
            out = [For(variable.name, 0, count, tuple(out))]
        return out

    def _tile(
        self, columns: list[Column], start: list[Size], places: list[Size], axes: Sequence[Axis]
    ) -> Block:
        em, geo = self.em, self.geo

        def load_x(first: Size, number: int) -> tuple[str, Load]:
            image = [a.image for a in axes]
            image[-1] = image[-1] + number * axes[-1].stride
            return em.load(self.x, [0, self.g * geo.depth + self.k, *image], None, None, "x")

        def load_w(column: Column) -> tuple[str, Load]:
            at = [self.g * geo.rows + column.at, self.k, *(tap_of(a) for a in axes)]
            return em.load(self.weights, at, 0, column.part, "w")

        def finish(place: Size, column: Column, acc: str) -> Block:
            at = [0, self.g * geo.rows + column.at, *start, place]
            return em.region(em.kernel.after, at, 1, column.part, acc)[0]

        def loops(step: Block) -> Block:
            return [For(self.k.name, 0, geo.depth, tuple(over_taps(axes, step)))]

        tile = Tile(em, self.dtype, load_x, load_w, finish)
        before: Block = [s for a in axes for s in a.before]
        return before + tile.emit(places, columns, loops)
