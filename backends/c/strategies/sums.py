"""Register tiles of a convolution: for each place, rows of weights times vectors of examples.

Forward and input gradient are the same sums over channels and taps; ``Geometry`` says in what they
differ. Where one vector of examples is all there is, neighbouring places fill the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....ir.dims import Size, hint, product
from ....ir.kernel import anchors
from ....ir.kernel.loops import Bound, For, IndexOp, Let, Load, Parallel, When, var
from ....ir.kernel.memory import Access, Buffer, Space
from ..emitter import Block, Emitter, index_of
from .contract import BLOCK_BYTES, Waiting, partial_for
from .geometry import Geometry
from .near import NEAR_BYTES, Near, near
from .panels import weight_panels
from .pooling import Windows
from .taps import Axis, fixed, over_taps, tap_of
from .tile import Column, Tile, row_count, row_options, steps, tile_columns

__all__ = ["Sums"]

#: bytes from which an image is read as few times as possible, if its weights are smaller than
LARGE_IMAGE = 4 * 2**20
SMALL_WEIGHTS = 2**19

#: fewer chunks than these leave a thread waiting for a good part of the whole, if they are odd
FEW_CHUNKS = 17


class Sums:
    """For each place, rows of weights times vectors of examples."""

    def __init__(
        self, em: Emitter, x: Access, w: Access, geo: Geometry, *, flattened: bool
    ) -> None:
        self.em = em
        self.x = x
        self.geo = geo
        after = em.kernel.after
        self.dtype = after.program.inputs[0]
        self.spatial = after.shape[2:]
        self.rank = len(self.spatial)
        self.lanes = after.shape[0]
        self.most, most_rows = tile_columns(em, 8)
        self.pool = em.kernel.pool
        #: windows that are not finished, and arrays of a thread's own
        self.windows: Windows | None = None
        self.private: tuple[Buffer, ...] = ()
        self.r = row_count(geo.rows, most_rows, self.most)
        self.r = em.pick("rows", self.r, row_options(em, geo.rows, self.most))
        self.panels, self.per_group = weight_panels(em, w, geo, self.r)
        self.taps = int(product(geo.kernel))  # type: ignore[arg-type]
        step_bytes = self.most * em.lanes * self.dtype.itemsize * self.taps
        #: vectors along the last axis of a single example, or of a flattened batch
        self.lines = self.lanes == 1 and self.rank > 1 and geo.inside is not None
        self.near: Near | None = None
        anchor = em.kernel.anchor
        if isinstance(anchor, anchors.Convolution) and not (flattened or self.lines):
            lines = 1 if self.pool is None else self.pool.window[2]
            self.near = near(em, anchor, geo.depth, geo.rows, self.most, lines)
        if self.near is not None:
            self.private = (self.near.buffer,)
        block = max(1, (BLOCK_BYTES if self.near is None else NEAR_BYTES) // step_bytes)
        blocked = geo.depth > block * 3 // 2 and geo.rows > 2 * self.r
        self.block = block if blocked else geo.depth
        if self.lanes == 1 and not flattened:
            # a single example fits into the caches, and its lanes may lie along either axis
            self.block = geo.depth
        else:
            sums = [n for n in (block // 2, block, block * 2) if n and geo.depth > n * 3 // 2]
            self.block = em.pick("block", self.block, (*sums, geo.depth))
        self.waiting: Waiting | None = None
        if self.block < geo.depth and self.pool is None:
            self.waiting = partial_for(em, self.rank + 1 if self.lines else 0)
        self.k = em.var("k_c")
        self.group, self.first_row, self.last_row = em.var("g"), em.var("first"), em.var("last")
        self.piece = em.var("piece")
        self.place: list[Size] = [em.var("y")] if self.rank else []

    def run(self) -> None:
        em, geo = self.em, self.geo
        # a chunk: one group, one place on the outermost spatial axis, a block of rows
        #: places on the outermost spatial axis, or windows
        lines: Size = 1
        if self.rank:
            lines = self.spatial[0] if self.pool is None else self.pool.after.shape[2]
        places = hint(lines) * geo.groups
        row_blocks = max(1, min(8 if places < 8 else 4, geo.rows // (2 * self.r)))
        tiles = -(-geo.rows // self.r)
        if row_blocks > 1:
            # an even number of blocks, as long as each other: no thread waits for a last one
            row_blocks = min(
                range(2, row_blocks + 1, 2), key=lambda n: (-(-tiles // n) * n - tiles, -n)
            )
        others = [n for n in (1, 2, 4, 8) if n <= tiles]
        row_blocks = em.pick("row blocks", row_blocks, others)
        row_block = -(-tiles // row_blocks) * self.r
        row_blocks = -(-geo.rows // row_block)
        #: pieces of the chunk's line of windows
        self.pieces = 1
        if self.pool is not None and self.near is None and self.pool.after.shape[3] != 1:
            # an odd number of chunks leaves one thread waiting for the last
            chunks = places * row_blocks
            pieces = 2 if chunks % 2 and chunks < FEW_CHUNKS else 1
            self.pieces = em.pick("pieces", pieces, (1, 2))
        if self.pool is not None:
            self.windows = Windows(em, self.pool, row_block, self.most)
            self.private += self.windows.private
            if self.block < geo.depth:
                size = row_block * self.most * em.lanes
                self.sums = Buffer(em.name("sums"), self.dtype, size, Space.ARENA)
                self.private += (self.sums,)
        split = None if isinstance(self.lanes, int) else em.split(self.lanes)
        chunk, number, more = em.var("c"), em.var("block"), em.var("rest")
        places_inside: Bound = geo.groups * self.pieces
        if self.rank:
            places_inside = IndexOp("mul", lines, places_inside)
        order = "places" if self._by_places() else "rows"
        if row_blocks > 1:
            order = em.pick("order", order, ("places", "rows"))
        if order == "places":
            body: Block = [
                Let(number.name, IndexOp("mod", chunk, row_blocks)),
                Let(more.name, IndexOp("div", chunk, row_blocks)),
            ]
        else:
            body = [
                Let(number.name, IndexOp("div", chunk, places_inside)),
                Let(more.name, IndexOp("mod", chunk, places_inside)),
            ]
        place = more
        if self.pieces > 1:
            place = em.var("rest")
            body += [
                Let(self.piece.name, IndexOp("mod", more, self.pieces)),
                Let(place.name, IndexOp("div", more, self.pieces)),
            ]
        body += [
            Let(self.group.name, IndexOp("mod", place, geo.groups)),
            Let(self.first_row.name, number * row_block),
            Let(self.last_row.name, IndexOp("min", geo.rows, self.first_row + row_block)),
        ]
        count: Bound = row_blocks * geo.groups * self.pieces
        if self.rank:
            (y,) = self.place
            body.append(Let(y.name, IndexOp("div", place, geo.groups)))  # type: ignore[union-attr]
            count = IndexOp("mul", count, lines)
        lo: Size = 0 if split is None else var(split.lo)
        hi: Size = self.lanes if split is None else var(split.hi)
        em.phase(
            Parallel(chunk.name, count, (*body, *self._examples(lo, hi)), split),
            "sums over channels and taps",
            self.private,
        )

    def _by_places(self) -> bool:
        """Are blocks of rows innermost in the order of chunks?

        Outermost, a thread's rows are the channels that it handles in other kernels, but the
        image is read once for every block. That is worse where the image outgrows the second
        cache and the weights fit in beside it.
        """
        item = self.dtype.itemsize
        image, weights = hint(product(self.x.shape)) * item, self.geo.groups * self.per_group * item
        return image > LARGE_IMAGE and weights < SMALL_WEIGHTS

    # -- examples ------------------------------------------------------------------------------

    def _examples(self, lo: Size, hi: Size) -> Block:
        """Groups of vectors, then single ones, then what is left of the batch."""
        em, width, most = self.em, self.em.lanes, self.most
        if self.lines:
            return self._lines()
        if isinstance(lo, int) and isinstance(hi, int):
            out: Block = []
            at = lo
            while hi - at >= width * most:
                out += self._places([at + k * width for k in range(most)], None)
                at += width * most
            while hi - at >= width:
                out += self._places([at], None)
                at += width
            return out + (self._places([at], hi - at) if at < hi else [])
        rest, wide, whole = em.var("rest"), em.var("wide"), em.var("whole")
        i, j = em.var("n"), em.var("n")
        return [
            Let(rest.name, IndexOp("mod", hi - lo, width)),
            Let(whole.name, hi - rest),
            Let(wide.name, IndexOp("sub", hi, IndexOp("mod", hi - lo, width * most))),
            For(i.name, lo, wide,
                tuple(self._places([i + k * width for k in range(most)], None)), width * most),
            For(j.name, wide, whole, tuple(self._places([j], None)), width),
            When(0, rest, tuple(self._places([whole], rest))),
        ]  # fmt: skip

    # -- places --------------------------------------------------------------------------------

    def _places(self, at: list[Size], part: Size | None) -> Block:
        """Loops over all places but the chunk's own axis."""
        before: Block = []
        if self.near is not None:
            first = self.group * self.geo.depth
            before = self.near.fill(first, self.place[0], at, part)
        return before + (self._alone if self.pool is None else self._pooled)(at, part)

    def _alone(self, at: list[Size], part: Size | None) -> Block:
        em, geo = self.em, self.geo
        middle = [em.var("x") for _ in range(max(0, self.rank - 2))]
        start = [*self.place, *middle]
        if self.rank < 2:
            columns = [Column(n, part) for n in at]
            axes = geo.axes(start)
            body = self._before(axes, 0) + self._tiles(columns, start, axes)
        else:
            body = self._last_axis(at, part, start)
        for variable, size in zip(reversed(middle), reversed(self.spatial[1:-1]), strict=True):
            body = [For(variable.name, 0, size, tuple(body))]
        return body

    @staticmethod
    def _before(axes: Sequence[Axis], first: int) -> Block:
        out: Block = []
        for axis in axes[first:]:
            out += axis.before
        return out

    def _last_axis(self, at: list[Size], part: Size | None, start: list[Size]) -> Block:
        em, geo = self.em, self.geo
        size = self.spatial[-1]
        spread = self.most if len(at) == 1 and part is None and geo.inside is not None else 1
        if spread == 1:
            x = em.var("x")
            axes = geo.axes([*start, x])
            columns = [Column(n, part) for n in at]
            body = self._before(axes, 0) + self._tiles(columns, [*start, x], axes)
            return [For(x.name, 0, size, tuple(body))]
        assert geo.inside is not None
        first, end = geo.inside
        total = fixed(size)
        out: Block = []
        # places at the edges, where some taps are missing
        edges = first + total - end
        if edges:
            e, x = em.var("e"), em.var("x")
            skip: Bound = end - first
            if first:
                beyond = IndexOp("min", 1, IndexOp("div", e, first))
                skip = IndexOp("mul", beyond, end - first)
            axes = geo.axes([*start, x])
            body = self._before(axes, 0)
            body += self._tiles([Column(at[0], part)], [*start, x], axes)
            jump = Let(x.name, IndexOp("add", e, skip))
            out.append(For(e.name, 0, edges, (jump, *body)))

        def inside(places: list[Size]) -> Block:
            axes = [*geo.axes([*start, places[0]])[:-1], geo.whole(places[0])]
            columns = [Column(at[0], part, shift=k) for k in range(len(places))]
            return self._before(axes, 0) + self._tiles(columns, [*start, places[0]], axes)

        return out + steps(em, first, end, spread, inside, end - first, "x")

    def _pooled(self, at: list[Size], part: Size | None) -> Block:
        """Loops over the windows of the chunk's line, and over the places of each."""
        em, geo, windows = self.em, self.geo, self.windows
        assert windows is not None
        high, wide = windows.pool.window[2:]
        (line,) = self.place
        w, ky, kx = em.var("w"), em.var("ky"), em.var("kx")
        y, x = em.var("y"), em.var("x")
        rows = self.last_row - self.first_row
        columns = [Column(n, part) for n in at]
        together = len(at) == 1 and part is None and wide <= self.most
        if together and geo.inside == (0, self.spatial[-1]):
            # one vector of examples: the places of a row of the window fill the tile
            columns = [Column(at[0], part, shift=k) for k in range(wide)]
            axes = [*geo.axes([y, x])[:-1], geo.whole(x)]
            tiles = self._before(axes, 0) + self._tiles(columns, [y, x], axes, number=ky * wide)
            inner: Block = [Let(x.name, w * wide), *tiles]
        else:
            axes = geo.axes([y, x])
            tiles = self._before(axes, 0) + self._tiles(
                columns, [y, x], axes, number=ky * wide + kx
            )
            inner = [For(kx.name, 0, wide, (Let(x.name, w * wide + kx), *tiles))]
        inner = [For(ky.name, 0, high, (Let(y.name, line * high + ky), *inner))]
        row = em.var("r")
        ends: Block = []
        for k, n in enumerate(at):
            channel = self.group * geo.rows + self.first_row + row
            ends += windows.finish(row, k, [n, channel, line, w], part)
        inner = [*windows.begin(rows), *inner, For(row.name, 0, rows, tuple(ends))]
        count = windows.pool.after.shape[3]
        first: Bound = 0
        last: Bound = count
        if self.pieces > 1:
            first = IndexOp("div", self.piece * count, self.pieces)
            last = IndexOp("div", (self.piece + 1) * count, self.pieces)
        return [For(w.name, first, last, tuple(inner))]

    def _lines(self) -> Block:
        """A single example: vectors along the last axis, where all taps meet the image."""
        em, geo = self.em, self.geo
        assert geo.inside is not None
        first, end = geo.inside
        middle = [em.var("x") for _ in range(self.rank - 2)]
        start = [*self.place, *middle]
        out: Block = []
        for x in (*range(first), *range(end, fixed(self.spatial[-1]))):
            axes = geo.axes([*start, x])
            out += self._before(axes, 0) + self._tiles([Column(0, 1)], [*start, x], axes)

        def group(place: Size, vectors: Sequence[int]) -> Block:
            """``vectors`` are their numbers of lanes, side by side from ``place`` on."""
            axes = [*geo.axes([*start, place])[:-1], geo.whole(place)]
            cols = [
                Column(k * em.lanes, None if part == em.lanes else part)
                for k, part in enumerate(vectors)
            ]
            return self._before(axes, 0) + self._tiles(cols, [*start, place], axes, line=True)

        width = em.lanes * self.most
        whole = first + (end - first) // width * width
        if whole > first:
            i = em.var("x")
            inner = group(i, [em.lanes] * self.most)
            out.append(For(i.name, first, whole, tuple(inner), width))
        if whole < end:
            vectors = [min(em.lanes, end - x) for x in range(whole, end, em.lanes)]
            out += group(whole, vectors)
        for variable, size in zip(reversed(middle), reversed(self.spatial[1:-1]), strict=True):
            out = [For(variable.name, 0, size, tuple(out))]
        return out

    # -- tiles ---------------------------------------------------------------------------------

    def _tiles(
        self,
        cols: list[Column],
        place: list[Size],
        axes: list[Axis],
        *,
        line: bool = False,
        number: Size = 0,
    ) -> Block:
        """All rows at one place (or some neighbouring ones), the sum in blocks of channels.

        The lanes are examples, or with ``line`` places from ``place`` on of the last axis.
        ``number`` is that of the first place in its window, if there is a pool.
        """
        em, geo, r = self.em, self.geo, self.r
        after = em.kernel.after

        def at(row: Size, column: Column) -> list[Size]:
            where = list(place)
            if line:
                where[-1] = where[-1] + column.at
                return [0, self.group * geo.rows + row, *where]
            if where:
                where[-1] = where[-1] + column.shift
            return [column.at, self.group * geo.rows + row, *where]

        def load_w(first: Size, k: int) -> tuple[str, Load]:
            tap: Size = 0
            for axis, size in zip(axes, geo.kernel, strict=True):
                tap = tap * size + tap_of(axis)
            index = self.group * self.per_group + first * (geo.depth * self.taps)
            index = index + (self.k * self.taps + tap) * r + k
            name = em.name("w")
            return name, Load(name, self.dtype, self.panels.name, index, 0)

        def load_x(column: Column) -> tuple[str, Load]:
            image = [a.image for a in axes]
            if column.shift:
                image[-1] = image[-1] + column.shift * axes[-1].stride
            if line:
                image[-1] = image[-1] + column.at * axes[-1].stride
                position = [0, self.group * geo.depth + self.k, *image]
                stride = self.x.strides[-1] * axes[-1].stride
                name, index = em.name("x"), index_of(self.x, position)
                return name, Load(name, self.dtype, self.x.buffer, index, stride, column.part)
            if self.near is not None:
                slot = 0 if cols[-1].shift else cols.index(column)
                return self.near.load(self.k, image, slot)
            position = [column.at, self.group * geo.depth + self.k, *image]
            return em.load(self.x, position, 0, column.part, "x")

        def finish(row: Size, column: Column, acc: str) -> Block:
            axis = self.rank + 1 if line else 0
            out, results = em.region(after, at(row, column), axis, column.part, acc)
            if self.windows is None:
                return out
            value = results[self.windows.pool.source]
            slot = 0 if cols[-1].shift else cols.index(column)
            return out + self.windows.add(row - self.first_row, slot, value, number + column.shift)

        tile = Tile(em, self.dtype, load_w, load_x, finish)
        partial: Callable[[Size, Column], tuple[str, Size]] | None = None
        if self.waiting is not None:
            waiting = self.waiting

            def where(row: Size, column: Column) -> tuple[str, Size]:
                return waiting.at(at(row, column))

            partial = where
        elif self.block < geo.depth:

            def here(row: Size, column: Column) -> tuple[str, Size]:
                slot = cols.index(column)
                return self.sums.name, ((row - self.first_row) * self.most + slot) * em.lanes

            partial = here

        def rows_of(lo: Size, hi: Size, first: bool, last: bool) -> Block:
            def loops(step: Block) -> Block:
                return [For(self.k.name, lo, hi, tuple(over_taps(axes, step)))]

            return steps(
                em, self.first_row, self.last_row, r,
                lambda indices: tile.emit(
                    indices, cols, loops, partial=partial, first=first, last=last
                ),
                geo.rows,
            )  # fmt: skip

        if partial is None:
            return rows_of(0, geo.depth, True, True)
        cuts = list(range(0, geo.depth, self.block))
        if geo.depth - cuts[-1] < (self.block + 1) // 2:
            cuts.pop()
        out = rows_of(0, cuts[1], True, False)
        if len(cuts) > 2:
            k0 = em.var("k0")
            middle = rows_of(k0, k0 + self.block, False, False)
            out.append(For(k0.name, cuts[1], cuts[-1], tuple(middle), self.block))
        return out + rows_of(cuts[-1], geo.depth, False, True)
