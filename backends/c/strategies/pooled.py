"""Gradients of a convolution that is max-pooled: sums over windows, not over places.

Each window has one place whose gradient is not zero, another one in every example: there is no
vector of examples to be had. The lanes are taps and channels instead, which lie side by side in
an image with its channels innermost: a window adds its gradient times a patch of the image to the
weights', or times the weights to a patch of the image's. With windows of 2 × 2 that is a quarter
of the products, and neither the image nor its gradient is ever stored before the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from ....ir.dims import Dim, Size, product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.loops import (
    Compute,
    Fill,
    Fma,
    For,
    IndexOp,
    Let,
    LetLoad,
    Load,
    Parallel,
    Ramp,
    Store,
)
from ....ir.kernel.memory import Access, contiguous_strides
from ..emitter import Block, Emitter, index_of
from .common import anchor_target, copied, epilogue, filled
from .pooled_taps import cycles, pooled_weight_grad_by_taps
from .taps import fixed
from .tile import steps

__all__ = ["pooled_input_grad", "pooled_weight_grad"]

#: bytes that are read again and again, and stay in the first cache
NEAR_BYTES = 24 * 1024

#: chunks of output channels
CHUNKS = (8, 6, 4)


class _Windows:
    """Sizes of the two kernels, and where in an image a window's winner lies."""

    def __init__(
        self,
        em: Emitter,
        anchor: anchors.PooledWeightGrad | anchors.PooledInputGrad,
        index: Access,
        v: Access,
        image: tuple[Size, ...],
    ) -> None:
        self.em, self.anchor, self.index, self.v = em, anchor, index, v
        self.dtype = v.dtype
        self.batch = v.shape[0]
        self.outputs = fixed(v.shape[1])
        #: windows on both axes
        self.count = (fixed(v.shape[2]), fixed(v.shape[3]))
        self.channels = fixed(image[1])
        sizes = zip(image[2:], anchor.padding, strict=True)
        #: the image with its padding
        self.height, self.width = (fixed(n) + lo + hi for n, (lo, hi) in sizes)
        self.row = self.width * self.channels
        self.image = self.height * self.row
        #: sums that are held in registers at once
        self.held = em.vectors_held - 3

    def plain(self, buffer: str, shape: tuple[Size, ...]) -> Access:
        """All of a buffer, in order."""
        strides = contiguous_strides(shape, tuple(range(len(shape))))
        return Access(buffer, self.dtype, 0, shape, strides)

    def inside(self, buffer: str, shape: tuple[Size, ...]) -> Access:
        """The image without its padding, channels innermost."""
        (top, _), (left, _) = self.anchor.padding
        strides = (self.image, 1, self.row, self.channels)
        return Access(buffer, self.dtype, top * self.row + left * self.channels, shape, strides)

    def offsets(
        self,
        order: tuple[int, ...],
        start: Callable[[list[Size]], Size],
        step: Size,
        row: int,
        column: int,
    ) -> Access:
        """A list of places, one a window, with its axes in that order.

        A place is ``start`` of the window's position with example 0, ``step`` further on with every
        example, and a ``row`` and a ``column`` for every place of the winner down and to the right.
        """
        em, index = self.em, self.index
        high, wide = self.anchor.window
        buffer = em.scratch_buffer("at", DType.I32, product(index.shape))
        first = Access(buffer.name, DType.I32, 0, index.shape,
                       contiguous_strides(index.shape, (1, 2, 3, 0)))  # fmt: skip

        def body(at: list[Size], part: Size | None) -> Block:
            position = [at[3], at[0], at[1], at[2]]
            number, load = em.load(index, position, 0, part, "number")
            out: Block = [load]

            def op(name: str, *args: str, dtype: DType = DType.I32) -> str:
                result = em.name("v")
                out.append(Compute(result, dtype, name, args, DType.I32))
                return result

            def const(value: int) -> str:
                result = em.name("v")
                out.append(Compute(result, DType.I32, "const", (), DType.I32, value))
                return result

            place = em.name("v")
            out.append(Ramp(place, DType.I32, start([0, *at[:3]]) + step * at[3], step))
            place = op("add", place, op("mul", number, const(column)))
            for k in range(wide, high * wide, wide):
                # one row further down, and back to its beginning
                below = op("ge", number, const(k), dtype=DType.BOOL)
                moved = em.name("v")
                jump, stay = const(row - wide * column), const(0)
                out.append(Compute(moved, DType.I32, "select", (below, jump, stay), DType.I32))
                place = op("add", place, moved)
            out.append(Store(place, DType.I32, buffer.name, index_of(first, position), 1, part))
            return out

        sizes = [*index.shape[1:], index.shape[0]]
        em.phase(em.spread(sizes, body, work=4))
        return self.listed(first, order)

    def listed(self, access: Access, order: tuple[int, ...]) -> Access:
        """The access with its axes in that order in memory, outermost first."""
        strides = contiguous_strides(access.shape, order)
        if access.strides == strides:
            return access
        buffer = self.em.scratch_buffer("list", access.dtype, product(access.shape))
        target = Access(buffer.name, access.dtype, 0, access.shape, strides)
        copied(self.em, access, target)
        return target


def _groups(count: int, most: int) -> list[range]:
    """``count`` vectors in groups as even as possible."""
    groups = -(-count // most)
    bounds = [count * g // groups for g in range(groups + 1)]
    return [range(a, b) for a, b in pairwise(bounds)]


# -- weights -----------------------------------------------------------------------------------


def pooled_weight_grad(em: Emitter) -> str | None:
    """Strategy for PooledWeightGrad."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.PooledWeightGrad)
    x, index, v = em.kernel.operands
    if em.pick("lanes", *_lanes(em, anchor)) == "examples":
        pooled_weight_grad_by_taps(em)
        return "masks per place of a window"
    _WeightGrad(em, anchor, x, index, v).run()
    return None


def _lanes(em: Emitter, anchor: anchors.PooledWeightGrad) -> tuple[str, tuple[str, ...]]:
    """What lies side by side in a vector, taps and channels or examples; and what else could."""
    if any(a.strides[0] != 1 for a in em.kernel.operands):
        return "taps", ()
    channels = fixed(em.kernel.operands[0].shape[1])
    high, wide = (fixed(k) for k in em.kernel.after.shape[2:])
    # a row of taps is read from where a line begins only by chance: each vector is two loads
    by_taps = high * -(-wide * channels // em.lanes) + 4
    by_examples = cycles(em, anchor.window[0] * anchor.window[1], high * wide, channels)
    return "examples" if by_examples < by_taps else "taps", ("taps", "examples")


class _WeightGrad:
    def __init__(
        self,
        em: Emitter,
        anchor: anchors.PooledWeightGrad,
        x: Access,
        index: Access,
        v: Access,
    ) -> None:
        self.em = em
        self.x = x
        self.w = w = _Windows(em, anchor, index, v, x.shape)
        _, _, high, wide = em.kernel.after.shape
        self.high, self.wide = fixed(high), fixed(wide)
        #: a row of taps: elements side by side in the image
        self.line = self.wide * w.channels
        self.vectors = -(-self.line // em.lanes)
        self.columns = _groups(self.vectors, w.held)
        widest = max(len(g) for g in self.columns)
        #: rows of taps, and output channels, of a tile
        rows = max(1, min(self.high, w.held // widest))
        self.rows = -(-self.high // -(-self.high // rows))
        self.r = max(1, min(2, w.held // (widest * self.rows)))
        items = w.image * w.dtype.itemsize
        #: examples, or rows of windows of a large one, whose patches stay in the first cache
        self.examples = max(1, NEAR_BYTES // items)
        down = anchor.window[0] * anchor.stride[0]
        fits = (NEAR_BYTES // (w.row * w.dtype.itemsize) - self.high) // down
        self.lines = w.count[0] if items <= 2 * NEAR_BYTES else max(1, min(w.count[0], fits))
        self.image = em.scratch_buffer("image", w.dtype, w.batch * w.image + em.lanes)
        self.sums = em.scratch_buffer("sums", w.dtype,
            w.outputs * self.high * self.line + em.lanes)  # fmt: skip

    def run(self) -> None:
        em, w = self.em, self.w
        if any(p != (0, 0) for p in w.anchor.padding):
            filled(em, w.plain(self.image.name, (w.batch, w.image)), 0.0)
        copied(em, self.x, w.inside(self.image.name, self.x.shape))
        (high, wide), (down, right) = w.anchor.window, w.anchor.stride
        self.v = w.listed(w.v, (1, 0, 2, 3))
        self.at = w.offsets(
            (1, 0, 2, 3),
            lambda at: at[2] * (high * down * w.row) + at[3] * (wide * right * w.channels),
            w.image, w.row * down, w.channels * right,
        )  # fmt: skip
        chunk, first, last = em.var("c"), em.var("first"), em.var("last")
        tiles = -(-w.outputs // self.r)
        sizes = sorted({-(-tiles // n) * self.r for n in CHUNKS})
        # an even number of chunks, as long as each other
        size = min(sizes, key=lambda s: (
            -(-w.outputs // s) % 2, -(-w.outputs // s) * s, s))  # fmt: skip
        size = em.pick("rows", size, sizes)
        per_row = self.high * self.line
        zero = em.name("zero")

        def clear(i: Size, part: Size | None) -> Block:
            return [Store(zero, w.dtype, self.sums.name, first * per_row + i, 1, part)]

        body: Block = [
            Let(first.name, chunk * size),
            Let(last.name, IndexOp("min", w.outputs, first + size)),
            Fill(zero, w.dtype, 0),
            *em.vectors(0, (last - first) * per_row, clear),
        ]
        n, stop = em.var("n0"), em.var("n1")
        y, end = em.var("y0"), em.var("y1")
        inner = steps(
            em, first, last, self.r,
            lambda rows: steps(
                em, 0, self.high, self.rows,
                lambda taps: self._columns(rows, taps, (n, stop), (y, end)), self.high, "k",
            ),
            w.outputs, "o",
        )  # fmt: skip
        inner = [Let(end.name, IndexOp("min", w.count[0], y + self.lines)), *inner]
        block: Block = [
            Let(stop.name, IndexOp("min", w.batch, n + self.examples)),
            For(y.name, 0, w.count[0], tuple(inner), self.lines),
        ]
        body.append(For(n.name, 0, w.batch, tuple(block), self.examples))
        em.phase(Parallel(chunk.name, -(-w.outputs // size), tuple(body)), "sums over windows")
        shape = em.kernel.after.shape
        strides = (per_row, 1, self.line, w.channels)
        target = anchor_target(em)
        copied(em, Access(self.sums.name, w.dtype, 0, shape, strides), target)
        epilogue(em, target)

    def _columns(
        self,
        rows: list[Size],
        taps: list[Size],
        examples: tuple[Size, Size],
        lines: tuple[Size, Size],
    ) -> Block:
        out: Block = []
        for group in self.columns:
            out += self._tile(rows, taps, group, examples, lines)
        return out

    def _tile(
        self,
        rows: list[Size],
        taps: list[Size],
        columns: range,
        examples: tuple[Size, Size],
        lines: tuple[Size, Size],
    ) -> Block:
        em, w = self.em, self.w
        before: Block = []
        after: Block = []
        inner: Block = []
        j = em.var("j")
        for o in rows:
            at = em.var("at")
            value, load_v = em.load(self.v, [0, o, 0, j], None, base="d")
            index = index_of(self.at, [0, o, 0, j])
            inner += [LetLoad(at.name, self.at.buffer, DType.I32, index, None), load_v]
            for tap in taps:
                for column in columns:
                    acc, patch = em.name("s"), em.name("x")
                    slot = (o * self.high + tap) * self.line + column * em.lanes
                    left = self.line - column * em.lanes
                    part = left if left < em.lanes else None
                    before.append(Load(acc, w.dtype, self.sums.name, slot, 1))
                    after.append(Store(acc, w.dtype, self.sums.name, slot, 1, part))
                    place = at + tap * w.row + column * em.lanes
                    inner += [
                        Load(patch, w.dtype, self.image.name, place, 1),
                        Fma(acc, patch, value, w.dtype),
                    ]
        # windows of a block lie side by side in the lists
        (first, stop), (top, end) = examples, lines
        per_line = w.count[1]
        per_image = per_line * w.count[0]
        start = first * per_image + top * per_line
        last = (stop - 1) * per_image + end * per_line
        return [*before, For(j.name, start, last, tuple(inner)), *after]


# -- images ------------------------------------------------------------------------------------


def pooled_input_grad(em: Emitter) -> None:
    """Strategy for PooledInputGrad."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.PooledInputGrad)
    index, v, weights = em.kernel.operands
    _InputGrad(em, anchor, index, v, weights).run()


class _InputGrad:
    """A patch of the image, all that a window's winner can reach, is summed row by row.

    The weights have zeros around them, so that a row of the patch meets a row of every output
    channel's weights wherever its winner lies. For every column that the winner can be in there is
    a copy of the weights, moved that far to the right: all vectors of it start where lines do.
    """

    def __init__(
        self,
        em: Emitter,
        anchor: anchors.PooledInputGrad,
        index: Access,
        v: Access,
        weights: Access,
    ) -> None:
        self.em = em
        self.weights = weights
        self.w = w = _Windows(em, anchor, index, v, em.kernel.after.shape)
        high, wide = fixed(weights.shape[2]), fixed(weights.shape[3])
        #: how far winners are apart
        self.down, self.right = (
            (k - 1) * s for k, s in zip(anchor.window, anchor.stride, strict=True)
        )
        self.rows = high + self.down
        self.line = (wide + self.right) * w.channels
        vectors = -(-self.line // em.lanes)
        self.pitch = vectors * em.lanes
        self.per_output = (high + 2 * self.down) * self.pitch
        #: copies of the weights, and how far each is from the one before
        self.shifts = anchor.window[1]
        self.step = anchor.stride[1] * w.channels
        self.columns = _groups(vectors, min(w.held, 8 if em.vectors_held <= 16 else 16))
        reach = max(len(g) for g in self.columns) * em.lanes
        near = reach * anchor.window[0] * self.shifts * w.dtype.itemsize
        # blocks of output channels, as long as each other
        self.block = -(-w.outputs // -(-w.outputs // max(4, NEAR_BYTES // near)))
        self.panels = em.scratch_buffer("panels", w.dtype,
            self.shifts * w.outputs * self.per_output)  # fmt: skip
        self.image = em.scratch_buffer("image", w.dtype, w.batch * w.image + em.lanes)

    def run(self) -> None:
        em, w = self.em, self.w
        after = em.kernel.after
        whole = w.outputs * self.per_output
        filled(em, w.plain(self.panels.name, (self.shifts, whole)), 0.0)
        first = self.down * self.pitch
        strides = (self.per_output, 1, self.pitch, w.channels)
        # first the axes' order, then the zeros: squares need axes that lie side by side
        ordered = w.listed(self.weights, (0, 2, 3, 1))
        for shift in range(self.shifts):
            begin = shift * (whole + self.step) + first
            copied(em, ordered,
                Access(self.panels.name, w.dtype, begin, self.weights.shape, strides))  # fmt: skip
        self.at = w.offsets(
            (0, 2, 3, 1), lambda at: at[1] * self.per_output + first, 0,
            -self.pitch * w.anchor.stride[0], whole,
        )  # fmt: skip
        self.v = w.listed(w.v, (0, 2, 3, 1))
        n, zero = em.var("n"), em.name("zero")
        body: Block = [Fill(zero, w.dtype, 0)]
        base = n * w.image
        body += em.vectors(0, w.image, lambda at, part: [
            Store(zero, w.dtype, self.image.name, base + at, 1, part)])  # fmt: skip
        k, start, stop = em.var("k"), em.var("o0"), em.var("o1")
        inner: Block = []
        for columns in self.columns:
            inner += self._patches(n, k, columns, (start, stop))
        block: Block = [
            Let(stop.name, IndexOp("min", w.outputs, start + self.block)),
            For(k.name, 0, self.rows, tuple(inner)),
        ]
        body.append(For(start.name, 0, w.outputs, tuple(block), self.block))
        em.phase(Parallel(n.name, w.batch, tuple(body)), "sums over windows")
        target = anchor_target(em)
        copied(em, w.inside(self.image.name, after.shape), target)
        epilogue(em, target)

    def _patches(self, n: Dim, k: Dim, columns: range, outputs: tuple[Size, Size]) -> Block:
        """One row of every window's patch, some vectors of it."""
        em, w = self.em, self.w
        y, x, o = em.var("y"), em.var("x"), em.var("o")
        at = em.var("at")
        (high, wide), (down, right) = w.anchor.window, w.anchor.stride
        place = n * w.image + (y * (high * down) + k) * w.row + x * (wide * right * w.channels)
        value, load_v = em.load(self.v, [n, o, y, x], None, base="d")
        before: Block = []
        after: Block = []
        inner: Block = [
            LetLoad(at.name, self.at.buffer, DType.I32, index_of(self.at, [n, o, y, x]), None),
            load_v,
        ]
        for column in columns:
            acc, weights = em.name("s"), em.name("w")
            slot = place + column * em.lanes
            left = self.line - column * em.lanes
            part = left if left < em.lanes else None
            before.append(Load(acc, w.dtype, self.image.name, slot, 1))
            after.append(Store(acc, w.dtype, self.image.name, slot, 1, part))
            inner += [
                Load(
                    weights, w.dtype, self.panels.name, at + k * self.pitch + column * em.lanes, 1
                ),
                Fma(acc, weights, value, w.dtype),
            ]
        loops: Block = [*before, For(o.name, *outputs, tuple(inner)), *after]
        # neighbours along a row share places: a window must not read what the last one just stored
        loops = [For(y.name, 0, w.count[0], tuple(loops))]
        return [For(x.name, 0, w.count[1], tuple(loops))]
