"""The weight gradient of a convolution: sums over places and examples, lane by lane."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ....ir.dims import Size, exact_div, hint, product
from ....ir.kernel import anchors
from ....ir.kernel.kernel import Region
from ....ir.kernel.loops import Bound, Fill, Fma, For, IndexOp, Let, Load, Parallel, Reduce, Store
from ....ir.kernel.memory import Access, Buffer, Space, contiguous_strides
from ....ir.kernel.scalar import ScalarBuilder
from ..emitter import Block, Emitter, index_of, round_up
from ..maps import map_region
from .common import anchor_target, epilogue
from .contract import BLOCK_BYTES
from .flatten import flatten_weight_grad
from .taps import fixed
from .tile import row_count, row_options, steps

__all__ = ["convolution_weight_grad"]

#: bytes of sums of a chunk
SUM_BYTES = 64 * 1024

#: so few chunks are too few for the threads
FEW_CHUNKS = 4


def convolution_weight_grad(em: Emitter) -> None:
    """Strategy for ConvolutionWeightGrad: sums over places and examples, lane by lane.

    A tile is some output channels times the taps of the last axis (or some input channels,
    where there is one tap). Sums wait in a small array between blocks of rows of the image,
    so that the rows of dy that a block reads stay in the first cache for all tiles.
    """
    flattened = flatten_weight_grad(em)
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.ConvolutionWeightGrad)
    _WeightGrad(em, anchor, flattened=flattened).run()


class _WeightGrad:
    def __init__(
        self, em: Emitter, anchor: anchors.ConvolutionWeightGrad, *, flattened: bool
    ) -> None:
        self.em = em
        #: vectors along the last axis, not along the examples
        self.flattened = flattened
        self.anchor = anchor
        self.x, self.dy = em.kernel.operands
        self.target = anchor_target(em)
        self.dtype = self.target.dtype
        self.depth = self.target.shape[1]
        rows = exact_div(self.target.shape[0], anchor.groups)
        assert rows is not None
        self.rows: Size = rows
        self.kernel = [fixed(k) for k in self.target.shape[2:]]
        self.lanes = self.x.shape[0]
        last = self.kernel[-1]
        #: columns of a tile: taps of the last axis, or channels where there is one tap
        self.by_taps = last > 1
        self.taps = -(-last // -(-last // 6)) if self.by_taps else 1
        self.channels = 1 if self.by_taps else row_count(self.depth, 5)
        wide = self.taps * self.channels
        registers = 8 * em.tile[0]
        self.r = row_count(rows, max(1, (registers - 1 - wide) // wide))
        self.r = em.pick("rows", self.r, row_options(em, rows, wide))
        self.place = [em.var("o") for _ in self.kernel]

    def run(self) -> None:
        em, anchor = self.em, self.anchor
        taps = math.prod(self.kernel)
        # channels of a chunk: their sums must fit into the second cache, with room to spare
        per_channel = self.r * taps * em.lanes * self.dtype.itemsize
        block = max(1, SUM_BYTES // per_channel // self.channels) * self.channels
        depth = hint(self.depth)
        whole = -(-depth // self.channels) * self.channels
        block = min(block, whole)
        half = -(-block // 2 // self.channels) * self.channels
        others = [n for n in (half, block * 2) if 0 < n <= whole]
        block = em.pick("channels", block, others)
        row_blocks, c_blocks = round_up(self.rows, self.r), round_up(self.depth, block)
        chunks = -(-hint(self.rows) // self.r) * -(-depth // block) * anchor.groups
        # few chunks: the rows of the image are cut into parts, each with sums of its own, so
        # that a thread reads the rows that it wrote
        height = self.dy.shape[2] if len(self.kernel) > 1 else 1
        parts = 1
        if chunks < FEW_CHUNKS and isinstance(height, int):
            parts = min(height, -(-2 * FEW_CHUNKS // chunks))
        if isinstance(height, int):
            parts = em.pick("parts", parts, [n for n in (1, 2, 4, 8) if n <= height])
        self.image_bytes = em.pick("image", BLOCK_BYTES, (BLOCK_BYTES // 2, BLOCK_BYTES * 2))
        chunk, left = em.var("c"), [em.var("rest") for _ in range(3)]
        number, group, c_number = em.var("block"), em.var("g"), em.var("block")
        first_row, last_row = em.var("first"), em.var("last")
        c_first, c_last = em.var("first"), em.var("last")
        self.group = group
        body: Block = [
            Let(number.name, IndexOp("mod", chunk, row_blocks)),
            Let(left[0].name, IndexOp("div", chunk, row_blocks)),
            Let(group.name, IndexOp("mod", left[0], anchor.groups)),
            Let(left[1].name, IndexOp("div", left[0], anchor.groups)),
            Let(c_number.name, IndexOp("mod", left[1], c_blocks)),
            Let(left[2].name, IndexOp("div", left[1], c_blocks)),
            Let(first_row.name, number * self.r),
            Let(last_row.name, IndexOp("min", self.rows, first_row + self.r)),
            Let(c_first.name, c_number * block),
            Let(c_last.name, IndexOp("min", self.depth, c_first + block)),
        ]
        count: Bound = IndexOp("mul", IndexOp("mul", row_blocks, anchor.groups), c_blocks)
        self.first_y: Size = 0
        self.last_y: Size = height
        if parts > 1:
            assert isinstance(height, int)
            y_first, y_last = em.var("first"), em.var("last")
            body += [
                Let(y_first.name, IndexOp("div", left[2] * height, parts)),
                Let(y_last.name, IndexOp("div", left[2] * height + height, parts)),
            ]
            count = IndexOp("mul", count, parts)
            self.first_y, self.last_y = y_first, y_last
        size = self.r * taps * block * em.lanes
        self.sums = Buffer(em.name("sums"), self.dtype, size, Space.ARENA)
        self.c_first, self.c_last = c_first, c_last
        weights = product(self.target.shape)
        self.result = self.target
        self.result_offset: Size = 0
        if parts > 1:
            buffer = em.scratch_buffer("parts", self.dtype, weights * parts)
            strides = contiguous_strides(self.target.shape, tuple(range(len(self.target.shape))))
            self.result = Access(buffer.name, self.dtype, 0, self.target.shape, strides)
            self.result_offset = weights * left[2]
        body += steps(em, first_row, last_row, self.r, self._chunk, self.rows)
        em.phase(
            Parallel(chunk.name, count, tuple(body)), "sums over places and examples",
            (self.sums,),
        )  # fmt: skip
        if parts > 1:
            self._add_parts(parts, weights)
        epilogue(em, self.target)

    def _add_parts(self, parts: int, weights: Size) -> None:
        """The sums of all parts, added up in their order."""
        builder = ScalarBuilder()
        values = [builder.input(self.dtype) for _ in range(parts)]
        total = values[0]
        for value in values[1:]:
            total = builder.op("add", total, value)
        loads = tuple(replace(self.result, offset=weights * k) for k in range(parts))
        region = Region(self.target.shape, builder.build([total]), loads, ((0, self.target),))
        map_region(self.em, region)

    # -- one chunk -----------------------------------------------------------------------------

    def _chunk(self, rows: list[Size]) -> Block:
        em = self.em
        zero, i = em.name("zero"), em.var("i")
        used = self.r * math.prod(self.kernel) * em.lanes
        clear: Block = [
            Fill(zero, self.dtype, 0),
            For(i.name, 0, (self.c_last - self.c_first) * used,
                (Store(zero, self.dtype, self.sums.name, i, 1),), em.lanes),
        ]  # fmt: skip
        y = em.var("y")
        height, stop = em.var("height"), em.var("stop")
        row: Size = product(self.dy.shape[3:]) * self.lanes * (self.dtype.itemsize * len(rows))
        block: Block = [Let(stop.name, IndexOp("min", self.last_y, y + height))]
        block += self._taps(lambda c, tap: self._tile(rows, c, tap, (y, stop)))
        ends = self._taps(lambda c, tap: self._finish(rows, c, tap))
        return [
            *clear,
            Let(height.name, IndexOp("max", 1, IndexOp("div", self.image_bytes, row))),
            For(y.name, self.first_y, self.last_y, tuple(block), height),
            *ends,
        ]

    def _taps(self, body: Callable[[list[Size], list[Size]], Block]) -> Block:
        """Loops over channels and over the taps of all axes but the last."""
        em = self.em
        tap = [em.var("k") for _ in self.kernel[:-1]]

        def channels(c: list[Size]) -> Block:
            inner = body(c, list(tap))
            for k in reversed(range(len(tap))):
                inner = [For(tap[k].name, 0, self.kernel[k], tuple(inner))]
            return inner

        return steps(em, self.c_first, self.c_last, self.channels, channels, self.depth, "k_c")

    def _columns(self, c: list[Size], first: int) -> list[tuple[Size, int]]:
        """Channel and tap of the last axis for each column of a tile."""
        if not self.by_taps:
            return [(x, 0) for x in c]
        return [(c[0], k) for k in range(first, min(first + self.taps, self.kernel[-1]))]

    def _slot(self, row: int, c: Size, tap: list[Size], last: int) -> Size:
        """Where a sum waits."""
        index: Size = c - self.c_first
        for t, size in zip(tap, self.kernel[:-1], strict=True):
            index = index * size + t
        index = (index * self.kernel[-1] + last) * self.r + row
        return index * self.em.lanes

    def _tile(
        self, rows: list[Size], c: list[Size], tap: list[Size], y: tuple[Size, Size]
    ) -> Block:
        out: Block = []
        for first in range(0, self.kernel[-1], self.taps) if self.by_taps else (0,):
            out += self._sums(rows, self._columns(c, first), tap, y)
        return out

    def _sums(
        self,
        rows: list[Size],
        cols: list[tuple[Size, int]],
        tap: list[Size],
        y: tuple[Size, Size],
    ) -> Block:
        em, anchor, place = self.em, self.anchor, self.place
        accs = [[em.name("s") for _ in cols] for _ in rows]
        before: Block = []
        after: Block = []
        for i, line in enumerate(accs):
            for acc, (c, last) in zip(line, cols, strict=True):
                slot = self._slot(i, c, tap, last)
                before.append(Load(acc, self.dtype, self.sums.name, slot, 1))
                after.append(Store(acc, self.dtype, self.sums.name, slot, 1))

        def image(last: int, place: list[Size]) -> list[Size]:
            at: list[Size] = []
            for a, o in enumerate(place):
                t = last if a == len(place) - 1 else tap[a]
                at.append(o * anchor.stride[a] + t * anchor.dilation[a] - anchor.padding[a][0])
            return at

        def products(valid: list[bool] | None) -> Block:
            """All products at a place; columns that are not valid there are left out."""

            def step(n: Size, part: Size | None) -> Block:
                inner: Block = []
                where: list[Size] = list(place)
                axis = 0
                if self.flattened:
                    n, where[-1], axis = 0, n, len(place) + 1
                vectors: list[str | None] = []
                for k, (c, last) in enumerate(cols):
                    if valid is not None and not valid[k]:
                        vectors.append(None)
                        continue
                    at = [n, self.group * self.depth + c, *image(last, where)]
                    name, load = em.load(self.x, at, axis, part, "x")
                    vectors.append(name)
                    inner.append(load)
                for i, o in enumerate(rows):
                    at = [n, self.group * self.rows + o, *where]
                    name, load = em.load(self.dy, at, axis, part, "d")
                    inner.append(load)
                    inner += [
                        Fma(accs[i][k], name, v, self.dtype)
                        for k, v in enumerate(vectors) if v is not None
                    ]  # fmt: skip
                return inner

            return em.vectors(0, self.dy.shape[-1] if self.flattened else self.lanes, step, "n")

        lets: Block = []
        inside = self._along_last(cols, products, lets)
        for a in reversed(range(len(place) - 1)):
            lo, hi = self._range(a, tap[a], lets, y if a == 0 else None)
            inside = [For(place[a].name, lo, hi, tuple(inside))]
        return [*before, *lets, *inside, *after]

    def _range(
        self, axis: int, tap: Size, lets: Block, inside: tuple[Size, Size] | None
    ) -> tuple[Bound, Bound]:
        """Places at which the tap meets the image."""
        em, anchor = self.em, self.anchor
        stride, (lo, hi) = anchor.stride[axis], anchor.padding[axis]
        first, last = inside or (0, self.dy.shape[2 + axis])
        shift = tap * anchor.dilation[axis] - lo
        low: Bound = first
        high: Bound = last
        if lo > 0:
            name = em.var("first")
            least = IndexOp("div", (stride - 1) - shift, stride)
            lets.append(Let(name.name, IndexOp("max", first, least)))
            low = name
        if hi > 0:
            name = em.var("last")
            most = IndexOp("div", self.x.shape[2 + axis] - shift + (stride - 1), stride)
            lets.append(Let(name.name, IndexOp("min", last, most)))
            high = name
        return low, high

    def _along_last(
        self,
        cols: list[tuple[Size, int]],
        products: Callable[[list[bool] | None], Block],
        lets: Block,
    ) -> Block:
        """The loop over the last axis: where all taps meet the image, and the edges."""
        anchor, o = self.anchor, self.place[-1]
        size, out = self.x.shape[-1], self.dy.shape[-1]
        stride, dilation = anchor.stride[-1], anchor.dilation[-1]
        lo, hi = anchor.padding[-1]
        if self.flattened:
            return products(None)
        if not (lo or hi):
            return [For(o.name, 0, out, tuple(products(None)))]
        if not (isinstance(size, int) and isinstance(out, int)):
            # the edges are not known: tap by tap
            body: Block = []
            for k, (_, last) in enumerate(cols):
                low, high = self._range(len(self.place) - 1, last, lets, None)
                only = [j == k for j in range(len(cols))]
                body.append(For(o.name, low, high, tuple(products(only))))
            return body

        def meets(at: int, last: int) -> bool:
            return 0 <= at * stride + last * dilation - lo < size

        whole = [at for at in range(out) if all(meets(at, k) for _, k in cols)]
        first, end = (whole[0], whole[-1] + 1) if whole else (out, out)
        body = []
        for lo_, hi_ in ((0, first), (end, out)):
            at = lo_
            while at < hi_:
                # neighbouring places with the same valid taps share one loop
                valid = [meets(at, k) for _, k in cols]
                stop = at + 1
                while stop < hi_ and [meets(stop, k) for _, k in cols] == valid:
                    stop += 1
                if any(valid):
                    body.append(For(o.name, at, stop, tuple(products(valid))))
                at = stop
        if whole:
            body.append(For(o.name, first, end, tuple(products(None))))
        return body

    def _finish(self, rows: list[Size], c: list[Size], tap: list[Size]) -> Block:
        """The lanes of every sum added up, and stored."""
        em = self.em
        out: Block = []
        for first in range(0, self.kernel[-1], self.taps) if self.by_taps else (0,):
            for i, o in enumerate(rows):
                for channel, last in self._columns(c, first):
                    acc, total = em.name("s"), em.name("total")
                    slot = self._slot(i, channel, tap, last)
                    at = [self.group * self.rows + o, channel, *tap, last]
                    out += [
                        Load(acc, self.dtype, self.sums.name, slot, 1),
                        Reduce(total, acc, self.dtype, "add"),
                        Store(total, self.dtype, self.result.buffer,
                              index_of(self.result, at) + self.result_offset, 1, 1),
                    ]  # fmt: skip
        return out
