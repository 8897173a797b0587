"""Winograd's convolutions: fewer products, for more sums.

A convolution with a kernel of 3 x 3 and a stride of 1 makes 2 x 2 (or, where numerics are "fast",
4 x 4) outputs of a channel from 4 x 4 (6 x 6) transformed inputs: 16 products where there were 36.
The gradient of the input is the same with the kernel turned around.

A column is one vector: the same tile of neighbouring examples or, where the batch is smaller than a
vector and divides it, neighbouring tiles of all examples. Threads share out blocks of columns. For
each block, all channels are transformed into a small array, the products of a block of rows go to a
second one, and the inverse transform runs into the epilogue: nothing of it leaves the second cache.
Filters are transformed once a call; the image is copied once, with zeros around it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....ir.dims import Size
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.loops import (
    Bound,
    Fill,
    Fma,
    For,
    IndexOp,
    Let,
    Load,
    Parallel,
    Prefetch,
    Store,
    When,
    var,
)
from ....ir.kernel.memory import Buffer, Space
from ..emitter import Block, Emitter
from .convolution import convolution, convolution_input_grad
from .cook_toom import apply_square
from .pooling import apart, fits
from .taps import fixed
from .tiled_image import padded, patch_index
from .winograd_plan import GAIN, Plan, plans_of

__all__ = ["convolution_strategy"]

#: rows of a block of products: a multiple of vectors and of the rows of every tile
BLOCK_ROWS = 48

#: channels of the sum whose inputs, filters and sums fit into the first cache, for 4 columns
DEPTH = 80

#: blocks of columns under which rows are shared out, too
FEW_BLOCKS = 32


def convolution_strategy(em: Emitter) -> str:
    """Strategy for Convolution and ConvolutionInputGrad: what the model of costs prefers."""
    if em.kernel.pool is not None and not fits(em):
        return apart(em, convolution_strategy)
    plans = {p.name: p for p in plans_of(em.kernel, em.lanes, em.tile[0], fast=em.fast)}
    best = min(plans.values(), key=lambda p: p.cost, default=None)
    default = best.name if best and best.direct >= GAIN * best.cost else "direct"
    chosen = default
    if em.kernel.pool is not None:
        chosen = "direct"
    elif plans:
        chosen = em.pick("strategy", default, ("direct", *plans))
    if chosen in plans:
        _Winograd(em, plans[chosen]).run()
        return f"Winograd, {plans[chosen].why}"
    if isinstance(em.kernel.anchor, anchors.Convolution):
        convolution(em)
    else:
        convolution_input_grad(em)
    return ""


class _Winograd:
    def __init__(self, em: Emitter, plan: Plan) -> None:
        self.em = em
        self.plan = plan
        anchor = em.kernel.anchor
        self.backward = isinstance(anchor, anchors.ConvolutionInputGrad)
        self.image, self.w = em.kernel.operands
        self.after = em.kernel.after
        self.dtype: DType = self.after.program.inputs[0]
        self.batch = self.image.shape[0]
        self.size = plan.m + 2
        self.points = self.size**2
        self.blocks = -(-plan.rows // BLOCK_ROWS)
        ty, tx = plan.tiles
        lanes = em.lanes
        #: columns of one row of tiles
        self.per_row = -(-tx * fixed(self.batch) // lanes) if plan.flat else tx
        self.columns = ty * self.per_row

    def run(self) -> None:
        self.filters = self._filters()
        plan = self.plan
        self.padded, self.per_vector = padded(
            self.em, self.image, plan.m, plan.tiles, plan.before, 2, flat=plan.flat
        )
        self._products()

    # -- filters ---------------------------------------------------------------------------------

    def _filters(self) -> Buffer:
        """[group][rows / 48][point][depth][48]: transformed, in the order of their use."""
        em, plan, w = self.em, self.plan, self.w
        per_group = self.points * self.blocks * plan.depth * BLOCK_ROWS
        buffer = em.scratch_buffer("filters", self.dtype, plan.groups * per_group)
        # axis of w along which the lanes lie, in a group: what the convolution makes
        axis = 1 if self.backward else 0

        def vector(group: Size, channel: Size, row: Size, part: Size | None) -> Block:
            """Filters of a vector of rows and one channel of the sum."""
            body: Block = []
            taps: list[list[str]] = []
            for i in range(3):
                line = []
                for j in range(3):
                    y, x = (2 - i, 2 - j) if self.backward else (i, j)
                    at: list[Size] = [row, channel, y, x]
                    if self.backward:
                        at = [group * plan.depth + channel, row, y, x]
                    else:
                        at[0] = group * plan.rows + row
                    name, load = em.load(w, at, axis, part, "w")
                    line.append(name)
                    body.append(load)
                taps.append(line)
            block, made = apply_square(em, self.dtype, plan.transform.filter, taps)
            body += block
            number, lane = em.var("b"), em.var("l")
            body += [
                Let(number.name, IndexOp("div", row, BLOCK_ROWS)),
                Let(lane.name, IndexOp("mod", row, BLOCK_ROWS)),
            ]
            for k, name in enumerate(v for line in made for v in line):
                at_block = (number * self.points + k) * plan.depth + channel
                index = group * per_group + at_block * BLOCK_ROWS + lane
                body.append(Store(name, self.dtype, buffer.name, index, 1))
            return body

        def nothing(group: Size, channel: Size, row: int) -> Block:
            """Zeros for rows of the last tile that do not exist."""
            zero = em.name("zero")
            body: Block = [Fill(zero, self.dtype, 0)]
            for k in range(self.points):
                at_block = (row // BLOCK_ROWS * self.points + k) * plan.depth + channel
                index = group * per_group + at_block * BLOCK_ROWS + row % BLOCK_ROWS
                body.append(Store(zero, self.dtype, buffer.name, index, 1))
            return body

        chunk, group, channel, row = em.var("c"), em.var("g"), em.var("k"), em.var("r")
        first, whole, stop = em.var("first"), plan.rows // em.lanes * em.lanes, em.var("stop")
        # a chunk: some channels of one group, for all rows
        some = max(1, 2048 // plan.rows)
        number = -(-plan.depth // some)
        inside: Block = []
        if whole:
            inside.append(
                For(row.name, 0, whole, tuple(vector(group, channel, row, None)), em.lanes)
            )
        if whole < plan.rows:
            inside += vector(group, channel, whole, plan.rows - whole)
        covered = -(-plan.rows // em.lanes) * em.lanes
        for beyond in range(covered, -(-plan.rows // plan.height) * plan.height, em.lanes):
            inside += nothing(group, channel, beyond)
        body: Block = [
            Let(group.name, IndexOp("div", chunk, number)),
            Let(first.name, IndexOp("mul", IndexOp("mod", chunk, number), some)),
            Let(stop.name, IndexOp("min", plan.depth, first + some)),
            For(channel.name, first, stop, tuple(inside)),
        ]
        em.phase(Parallel(chunk.name, plan.groups * number, tuple(body)), "filters transformed")
        return buffer

    # -- products --------------------------------------------------------------------------------

    def _products(self) -> None:
        em, plan = self.em, self.plan
        width, lanes = plan.width, em.lanes
        col_blocks = -(-self.columns // width)
        shares = 1
        if col_blocks * plan.groups < FEW_BLOCKS and self.blocks > 1:
            shares = 2 if col_blocks * plan.groups >= 8 else min(self.blocks, 4) // 2 * 2
        share_rows = -(-self.blocks // shares) * BLOCK_ROWS
        shares = -(-plan.rows // share_rows)
        chunk, left, block = em.var("c"), em.var("rest"), em.var("b")
        self.group, share = em.var("g"), em.var("share")
        row_first, row_last = em.var("first"), em.var("last")
        split = None if isinstance(self.batch, int) else em.split(self.batch)
        # vectors from one point to the next: odd, or all points fall into one set of a cache
        self.input_pitch = plan.depth * width | 1
        self.made_pitch = BLOCK_ROWS * width | 1
        inputs = Buffer(
            em.name("inputs"), self.dtype, self.points * self.input_pitch * lanes, Space.ARENA
        )
        made = Buffer(
            em.name("made"), self.dtype, self.points * self.made_pitch * lanes, Space.ARENA
        )
        self.inputs, self.made = inputs, made
        self.slots = Buffer(em.name("outputs"), self.dtype, plan.m**2 * lanes, Space.ARENA)
        private = (inputs, made, self.slots) if plan.flat else (inputs, made)
        head: Block = [
            Let(block.name, IndexOp("mod", chunk, col_blocks)),
            Let(left.name, IndexOp("div", chunk, col_blocks)),
            Let(share.name, IndexOp("mod", left, shares)),
            Let(self.group.name, IndexOp("div", left, shares)),
            Let(row_first.name, share * share_rows),
            Let(row_last.name, IndexOp("min", plan.rows, row_first + share_rows)),
        ]
        self.block = block

        body: Block
        if plan.flat:
            body = [*self._inputs(0), *self._rows([(0, None)], row_first, row_last)]
        else:
            lo: Size = 0 if split is None else var(split.lo)
            hi: Size = self.batch if split is None else var(split.hi)
            n, vector = em.var("n"), em.var("v")
            outputs: list[tuple[Size, Size | None]] = [(n, None)]
            if split is not None:
                outputs.append((n, hi - n))
            body = [For(n.name, lo, hi, (
                Let(vector.name, IndexOp("div", n, lanes)),
                *self._inputs(vector * self.per_vector),
                *self._rows(outputs, row_first, row_last),
            ), lanes)]  # fmt: skip
        count: Bound = col_blocks * shares * plan.groups
        em.phase(
            Parallel(chunk.name, count, (*head, *body), split),
            "blocks of columns: transformed, multiplied, transformed back", private,
        )  # fmt: skip

    def _inputs(self, base: Size) -> Block:
        """All channels of the block's columns, transformed: [point][channel][column].

        ``base`` is where the vector's images start.
        """
        em, plan = self.em, self.plan
        m, size, lanes = plan.m, self.size, em.lanes
        channel, t = em.var("k"), em.var("t")
        lets, ty, tx = self._column(t)
        body: Block = []
        patch: list[list[str]] = []
        for i in range(size):
            line = []
            for j in range(size):
                index = base + patch_index(
                    self.padded, self.group * plan.depth + channel, ty * m + i, tx, j, m, lanes,
                    flat=plan.flat,
                )  # fmt: skip
                name = em.name("x")
                line.append(name)
                body.append(Load(name, self.dtype, self.padded.buffer, index, 1))
            patch.append(line)
        block, done = apply_square(em, self.dtype, plan.transform.data, patch)
        body += block
        for k, name in enumerate(v for line in done for v in line):
            index = (k * self.input_pitch + channel * plan.width + t) * lanes
            body.append(Store(name, self.dtype, self.inputs.name, index, 1))
        inside = For(channel.name, 0, plan.depth, tuple(body))
        return [For(t.name, 0, plan.width, (*lets, inside))]

    def _column(self, t: Size) -> tuple[Block, Size, Size]:
        """Where a column of the block lies; the last block repeats its last column."""
        em = self.em
        number, ty, tx = em.var("col"), em.var("ty"), em.var("tx")
        lets: Block = [
            Let(number.name, IndexOp("min", self.columns - 1, self.block * self.plan.width + t)),
            Let(ty.name, IndexOp("div", number, self.per_row)),
            Let(tx.name, IndexOp("mod", number, self.per_row)),
        ]
        return lets, ty, tx

    def _rows(self, examples: Sequence[tuple[Size, Size | None]], first: Size, last: Size) -> Block:
        """Blocks of rows: their products for all points, then outputs.

        ``examples`` are the first one of the lanes and how many there are: all, or a rest.
        """
        em = self.em
        start, stop, padded = em.var("row"), em.var("stop"), em.var("padded")
        point = em.var("p")
        # whole tiles of rows: the filters of the last ones are there, if only as garbage
        body: Block = [
            Let(stop.name, IndexOp("min", last, start + BLOCK_ROWS)),
            Let(padded.name, IndexOp("sub", stop, start)),
            For(point.name, 0, self.points, tuple(self._depth(point, start, padded))),
        ]  # fmt: skip
        for n, part in examples:
            outputs = self._outputs(n, part, start, stop)
            if len(examples) == 1:
                body += outputs
            elif part is None:
                (_, rest) = examples[1]
                assert rest is not None
                body.append(When(em.lanes - 1, rest, tuple(outputs)))
            else:
                body.append(When(part, em.lanes, tuple(outputs)))
        return [For(start.name, first, last, tuple(body), BLOCK_ROWS)]

    def _depth(self, point: Size, start: Size, stop: Size) -> Block:
        """The sum in blocks of channels that stay in the first cache for all rows."""
        em, plan = self.em, self.plan
        count = -(-plan.depth * plan.width // (DEPTH * 4))
        block = -(-plan.depth // count)

        def rows(lo: Size, hi: Bound, *, first: bool) -> For:
            row = em.var("r")
            return For(row.name, 0, stop, tuple(self._tile(
                point, start, row, lo, hi, block, first=first)), plan.height)  # fmt: skip

        out: Block = [rows(0, min(block, plan.depth), first=True)]
        if count > 1:
            k0, k1 = em.var("k0"), em.var("k1")
            end = Let(k1.name, IndexOp("min", plan.depth, k0 + block))
            out.append(For(k0.name, block, plan.depth, (end, rows(k0, k1, first=False)), block))
        return out

    def _tile(
        self, point: Size, start: Size, row: Size, lo: Size, hi: Bound, block: int, *, first: bool
    ) -> Block:
        em, plan, lanes = self.em, self.plan, self.em.lanes
        number, k = em.var("b"), em.var("k")
        accs = [[em.name("s") for _ in range(plan.width)] for _ in range(plan.height)]
        per_group = self.points * self.blocks * plan.depth * BLOCK_ROWS
        step: Block = []
        vectors = []
        for t in range(plan.width):
            name = em.name("x")
            index = (point * self.input_pitch + k * plan.width + t) * lanes
            step.append(Load(name, self.dtype, self.inputs.name, index, 1))
            vectors.append(name)
        for r in range(plan.height):
            name = em.name("u")
            at = ((number * self.points + point) * plan.depth + k) * BLOCK_ROWS + row + r
            step.append(Load(name, self.dtype, self.filters.name, self.group * per_group + at, 0))
            step += [Fma(accs[r][t], name, v, self.dtype) for t, v in enumerate(vectors)]
        # the filters of the next block of channels, or of the next point
        index = ((number * self.points + point) * plan.depth + k) * BLOCK_ROWS + row
        ahead = self.group * per_group + index + block * BLOCK_ROWS
        step.append(Prefetch(self.filters.name, self.dtype, ahead))
        before: Block = [Let(number.name, IndexOp("div", start, BLOCK_ROWS))]
        after: Block = []
        for r, line in enumerate(accs):
            for t, acc in enumerate(line):
                index = (point * self.made_pitch + (row + r) * plan.width + t) * lanes
                if first:
                    before.append(Fill(acc, self.dtype, 0))
                else:
                    before.append(Load(acc, self.dtype, self.made.name, index, 1))
                after.append(Store(acc, self.dtype, self.made.name, index, 1))
        return [*before, For(k.name, lo, hi, tuple(step)), *after]

    # -- outputs ---------------------------------------------------------------------------------

    def _outputs(self, n: Size, part: Size | None, start: Size, stop: Size) -> Block:
        em, plan, lanes = self.em, self.plan, self.em.lanes
        row, t = em.var("o"), em.var("t")
        lets, ty, tx = self._column(t)
        body: Block = []
        products: list[list[str]] = []
        for i in range(self.size):
            line = []
            for j in range(self.size):
                name = em.name("p")
                at = (i * self.size + j) * self.made_pitch + (row - start) * plan.width + t
                line.append(name)
                body.append(Load(name, self.dtype, self.made.name, at * lanes, 1))
            products.append(line)
        block, done = apply_square(em, self.dtype, plan.transform.output, products)
        channel = self.group * plan.rows + row
        store = self._store_flat if plan.flat else self._store
        body += [*block, *store((ty, tx), channel, done, n, part)]
        inside: Block = [For(row.name, start, stop, tuple(body))]
        there = self.columns - self.block * plan.width
        columns: Bound = plan.width
        if self.columns % plan.width:
            columns = IndexOp("min", plan.width, there)
        return [For(t.name, 0, columns, (*lets, *inside))]

    def _store(
        self,
        tile: tuple[Size, Size],
        channel: Size,
        done: Sequence[Sequence[str]],
        n: Size,
        part: Size | None,
    ) -> Block:
        """The outputs of a column whose lanes are examples."""
        em, m = self.em, self.plan.m
        y, x = tile[0] * m, tile[1] * m
        out: Block = []
        for i, line in enumerate(done):
            inside: Block = []
            for j, name in enumerate(line):
                at = [n, channel, y + i, x + j]
                stored = em.region(self.after, at, 0, part, name)[0]
                inside += self._if_inside(3, x + j, j, stored)
            out += self._if_inside(2, y + i, i, inside)
        return out

    def _if_inside(self, axis: int, at: Size, offset: int, body: Block) -> Block:
        """The body, under a condition if the last tile reaches beyond the image there."""
        size = fixed(self.after.shape[axis])
        if size % self.plan.m == 0 or offset < size % self.plan.m:
            return body
        return [When(at, size, tuple(body))]

    def _store_flat(
        self,
        column: tuple[Size, Size],
        channel: Size,
        done: Sequence[Sequence[str]],
        n: Size,
        part: Size | None,
    ) -> Block:
        """The outputs of a column whose lanes are tiles and examples: through a small array."""
        em, plan, m = self.em, self.plan, self.plan.m
        batch, lanes = fixed(self.batch), em.lanes
        y, vector = column[0] * m, column[1]
        out: Block = []
        count = lanes // batch
        tile, end = em.var("t"), em.var("end")
        first = vector * count
        # tiles of this vector that exist
        out.append(Let(end.name, IndexOp("min", count, plan.tiles[1] - first)))
        for i, line in enumerate(done):
            for j, name in enumerate(line):
                out.append(Store(name, self.dtype, self.slots.name, (i * m + j) * lanes, 1))
        inside: Block = []
        for i in range(m):
            row: Block = []
            for j in range(m):
                x = (first + tile) * m + j
                name = em.name("y")
                part_here = None if batch == lanes else batch
                load = Load(name, self.dtype, self.slots.name, (i * m + j) * lanes + tile * batch,
                            1, part_here)  # fmt: skip
                stored = em.region(
                    self.after, [0, channel, y + i, x], 0, part_here, name
                )[0]  # fmt: skip
                row += self._if_inside(3, x, j, [load, *stored])
            inside += self._if_inside(2, y + i, i, row)
        out.append(For(tile.name, 0, end, tuple(inside)))
        return out
