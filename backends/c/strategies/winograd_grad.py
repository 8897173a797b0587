"""The weight gradient of a 3 x 3 convolution by Winograd's transforms.

Seen from the weights, dy is the kernel: 3 x 3 of them are sums over tiles of 2 x 2 of dy and 4 x 4
of x, 16 products instead of 36. Both are transformed with tiles or examples in the lanes, and
turned around, so that the lanes of the sums are channels of x: nothing is added up across lanes.

Threads share out blocks of rows and channels of the weights. Sums of a block stay in the second
cache while a thread walks over all tiles, some columns of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ....ir.dims import Size, exact_div, hint
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.kernel import Kernel
from ....ir.kernel.loops import (
    Bound,
    Fill,
    Fma,
    For,
    IndexOp,
    Let,
    Load,
    Parallel,
    Store,
    Transpose,
)
from ....ir.kernel.memory import Access, Buffer, Space
from ..emitter import Block, Emitter
from .cook_toom import apply_square, operations, transform
from .taps import fixed
from .tiled_image import padded, patch_index
from .weight_grad import convolution_weight_grad
from .winograd_plan import GAIN, suits

__all__ = ["GradPlan", "plan_of", "weight_grad_strategy"]

#: places of dy in a tile, along each axis, and points of a transform
M = 2
POINTS = 16

#: columns that are transformed and multiplied at a time: their vectors, turned around, and the
#: sums of one point stay in the first cache
COLUMNS = 4

#: most rows of a block of weights
ROWS = 96


@dataclass(frozen=True)
class GradPlan:
    """Sizes of blocks, and what speaks for it; costs are in multiply-adds of vectors."""

    groups: int
    rows: int
    depth: int
    before: tuple[int, int]
    tiles: tuple[int, int]
    flat: bool
    #: vectors of channels and rows of a tile of registers
    width: int
    height: int
    #: rows of a block
    block: int
    cost: float
    direct: float

    @property
    def why(self) -> str:
        """What it is, and what speaks for it."""
        gain = self.direct / self.cost
        return f"F(3x3, 2x2): {gain:.2f} times faster than direct in the model"


def plan_of(kernel: Kernel, lanes: int, columns: int) -> GradPlan | None:
    """How Winograd's transforms can carry the kernel out; None if they cannot."""
    anchor = kernel.anchor
    assert isinstance(anchor, anchors.ConvolutionWeightGrad)
    x, dy = kernel.operands
    shape = kernel.after.shape
    dtype = kernel.after.program.inputs[0]
    if not suits(anchor, shape[2:], (x, dy), dtype, lanes):
        return None
    batch = x.shape[0]
    flat = isinstance(batch, int) and batch < lanes
    if x.strides[0] not in (0, 1) or dy.strides[0] not in (0, 1):
        return None
    rows, depth = exact_div(shape[0], anchor.groups), shape[1]
    assert isinstance(rows, int)
    assert isinstance(depth, int)
    tiles = (-(-fixed(dy.shape[2]) // M), -(-fixed(dy.shape[3]) // M))
    before = (anchor.padding[0][0], anchor.padding[1][0])
    vectors = -(-depth // lanes)
    c_blocks = -(-vectors // columns)
    width = -(-vectors // c_blocks)
    height = {4: 6, 3: 8, 2: 12 if columns >= 4 else 6, 1: 12}[width]
    r_blocks = -(-rows // ROWS)
    block = -(-rows // (r_blocks * height)) * height
    if r_blocks * c_blocks * anchor.groups < 2:
        return None
    per_row = -(-tiles[1] * hint(batch) // lanes) if flat else tiles[1]
    count = tiles[0] * per_row * (1 if flat else -(-hint(batch) // lanes))
    t = transform(3, M)
    turned = POINTS * (2 + 4)
    each = operations(t.data) + 2 * POINTS + turned
    other = operations(t.filter) + POINTS + 4 + turned
    cost: float = r_blocks * c_blocks * count * (
        POINTS * block * width * lanes + width * lanes * each + block * other
    )  # fmt: skip
    cost += rows * depth * (9 * 6 + (operations(t.output) + POINTS) / lanes)
    places = fixed(dy.shape[2]) * -(-fixed(dy.shape[3]) * hint(batch) // lanes)
    # loads of both operands are vectors, and sums are added up across lanes
    direct = 9.0 * rows * depth * places * 1.4
    return GradPlan(anchor.groups, rows, depth, before, tiles, flat, width, height, block,
                    cost * anchor.groups, direct * anchor.groups)  # fmt: skip


def weight_grad_strategy(em: Emitter) -> str:
    """Strategy for ConvolutionWeightGrad: what the model of costs prefers."""
    plan = plan_of(em.kernel, em.lanes, em.tile[0])
    if plan is not None:
        default = "winograd" if plan.direct >= GAIN * plan.cost else "direct"
        if em.pick("strategy", default, ("direct", "winograd")) == "winograd":
            _Gradient(em, plan).run()
            return f"Winograd, {plan.why}"
    convolution_weight_grad(em)
    return ""


class _Gradient:
    def __init__(self, em: Emitter, plan: GradPlan) -> None:
        self.em = em
        self.plan = plan
        self.x, self.dy = em.kernel.operands
        self.after = em.kernel.after
        self.dtype: DType = self.after.program.inputs[0]
        self.batch = self.x.shape[0]
        lanes = em.lanes
        ty, tx = plan.tiles
        #: columns of one row of tiles
        self.per_row = -(-tx * fixed(self.batch) // lanes) if plan.flat else tx
        self.columns = ty * self.per_row
        #: channels of a block, and rows as many as whole squares have
        self.wide = plan.width * lanes
        self.tall = -(-plan.block // lanes) * lanes

    def run(self) -> None:
        em, plan, lanes = self.em, self.plan, self.em.lanes
        self.images = padded(em, self.x, M, plan.tiles, plan.before, 2, flat=plan.flat)
        self.slopes = padded(em, self.dy, M, plan.tiles, (0, 0), 0, flat=plan.flat)
        steps = COLUMNS * lanes
        # odd numbers of vectors from one point to the next: all in one set of a cache otherwise
        self.sum_pitch = (plan.block * plan.width | 1) * lanes
        self.x_pitch = (steps * plan.width | 1) * lanes
        self.dy_pitch = (steps * self.tall // lanes | 1) * lanes
        self.square_pitch = (lanes | 1) * lanes

        def private(base: str, size: int) -> Buffer:
            return Buffer(em.name(base), self.dtype, size, Space.ARENA)

        self.sums = private("sums", POINTS * self.sum_pitch)
        self.turned_x = private("turned", POINTS * self.x_pitch)
        self.turned_dy = private("turned", POINTS * self.dy_pitch)
        self.squares = private("squares", POINTS * self.square_pitch)
        r_blocks = -(-plan.rows // plan.block)
        c_blocks = -(-plan.depth // self.wide)
        chunk, left = em.var("c"), em.var("rest")
        number, channel_block, self.group = em.var("b"), em.var("b"), em.var("g")
        self.first_row, self.first_channel = em.var("first"), em.var("first")
        zero, i, n, vector, start = (
            em.name("zero"), em.var("i"), em.var("n"), em.var("v"), em.var("q")
        )  # fmt: skip
        self.start, self.count = start, em.var("count")
        body: Block = [
            Let(number.name, IndexOp("mod", chunk, r_blocks)),
            Let(left.name, IndexOp("div", chunk, r_blocks)),
            Let(channel_block.name, IndexOp("mod", left, c_blocks)),
            Let(self.group.name, IndexOp("div", left, c_blocks)),
            Let(self.first_row.name, number * plan.block),
            Let(self.first_channel.name, channel_block * self.wide),
            Fill(zero, self.dtype, 0),
            For(i.name, 0, POINTS * self.sum_pitch,
                (Store(zero, self.dtype, self.sums.name, i, 1),), lanes),
        ]  # fmt: skip

        def blocks(base: Size) -> Block:
            """All columns of a vector of examples; ``base`` is the vector's number."""
            inside: Block = [
                Let(self.count.name, IndexOp("min", COLUMNS, self.columns - start)),
                *self._turn(self.images, base, plan.depth, self.first_channel, self.wide,
                            self.turned_x, self.x_pitch, self._data),
                *self._turn(self.slopes, base, plan.rows, self.first_row, self.tall,
                            self.turned_dy, self.dy_pitch, self._slope),
                *self._multiply(),
            ]  # fmt: skip
            return [For(start.name, 0, self.columns, tuple(inside), COLUMNS)]

        if plan.flat:
            body += blocks(0)
        else:
            each = (Let(vector.name, IndexOp("div", n, lanes)), *blocks(vector))
            body.append(For(n.name, 0, self.batch, each, lanes))
        body += self._outputs()
        em.phase(
            Parallel(chunk.name, r_blocks * c_blocks * plan.groups, tuple(body)),
            "blocks of weights: transformed, multiplied, transformed back",
            (self.sums, self.turned_x, self.turned_dy, self.squares),
        )

    # -- operands --------------------------------------------------------------------------------

    def _turn(
        self,
        source: tuple[Access, int],
        base: Size,
        size: int,
        first: Size,
        wide: int,
        target: Buffer,
        pitch: int,
        transformed: Callable[[Access, Size, Size, Size, Size], tuple[Block, list[str]]],
    ) -> Block:
        """``wide`` channels from ``first`` on, transformed: [point][column, lane][channel].

        Channels that do not exist are copies of the last one.
        """
        em, lanes = self.em, self.em.lanes
        image, per_vector = source
        t, some, k, point = em.var("t"), em.var("some"), em.var("k"), em.var("p")
        number, ty, tx, channel = em.var("col"), em.var("ty"), em.var("tx"), em.var("channel")
        body, names = transformed(image, base * per_vector, self.group * size + channel, ty, tx)
        for p, name in enumerate(names):
            index = p * self.square_pitch + k * lanes
            body.append(Store(name, self.dtype, self.squares.name, index, 1))
        there = IndexOp("min", size - 1, first + some + k)
        turn = Transpose(
            self.dtype, self.squares.name, point * self.square_pitch, lanes,
            target.name, point * pitch + t * (lanes * wide) + some, wide,
        )  # fmt: skip
        groups: Block = [
            For(k.name, 0, lanes, (Let(channel.name, there), *body)),
            For(point.name, 0, POINTS, (turn,)),
        ]
        inside: Block = [
            Let(number.name, self.start + t),
            Let(ty.name, IndexOp("div", number, self.per_row)),
            Let(tx.name, IndexOp("mod", number, self.per_row)),
            For(some.name, 0, wide, tuple(groups), lanes),
        ]
        return [For(t.name, 0, self.count, tuple(inside))]

    def _patch(
        self, image: Access, base: Size, channel: Size, ty: Size, tx: Size, size: int
    ) -> tuple[Block, list[list[str]]]:
        em = self.em
        body: Block = []
        patch: list[list[str]] = []
        for i in range(size):
            line = []
            for j in range(size):
                index = base + patch_index(
                    image, channel, ty * M + i, tx, j, M, em.lanes, flat=self.plan.flat
                )
                name = em.name("x")
                line.append(name)
                body.append(Load(name, self.dtype, image.buffer, index, 1))
            patch.append(line)
        return body, patch

    def _data(
        self, image: Access, base: Size, channel: Size, ty: Size, tx: Size
    ) -> tuple[Block, list[str]]:
        """A patch of x, transformed."""
        body, patch = self._patch(image, base, channel, ty, tx, M + 2)
        block, done = apply_square(self.em, self.dtype, transform(3, M).data, patch)
        return body + block, [name for line in done for name in line]

    def _slope(
        self, image: Access, base: Size, channel: Size, ty: Size, tx: Size
    ) -> tuple[Block, list[str]]:
        """A tile of dy, transformed."""
        body, patch = self._patch(image, base, channel, ty, tx, M)
        block, done = apply_square(self.em, self.dtype, transform(3, M).filter, patch)
        return body + block, [name for line in done for name in line]

    # -- products and results --------------------------------------------------------------------

    def _multiply(self) -> Block:
        em, plan, lanes = self.em, self.plan, self.em.lanes
        point, row, k, steps = em.var("p"), em.var("r"), em.var("k"), em.var("steps")
        accs = [[em.name("s") for _ in range(plan.width)] for _ in range(plan.height)]
        before: Block = []
        after: Block = []
        for r, line in enumerate(accs):
            for w, acc in enumerate(line):
                index = point * self.sum_pitch + ((row + r) * plan.width + w) * lanes
                before.append(Load(acc, self.dtype, self.sums.name, index, 1))
                after.append(Store(acc, self.dtype, self.sums.name, index, 1))
        step: Block = []
        vectors = []
        for w in range(plan.width):
            name = em.name("x")
            index = point * self.x_pitch + k * self.wide + w * lanes
            step.append(Load(name, self.dtype, self.turned_x.name, index, 1))
            vectors.append(name)
        for r in range(plan.height):
            name = em.name("d")
            index = point * self.dy_pitch + k * self.tall + row + r
            step.append(Load(name, self.dtype, self.turned_dy.name, index, 0))
            step += [Fma(accs[r][w], name, v, self.dtype) for w, v in enumerate(vectors)]
        tile = (*before, For(k.name, 0, steps, tuple(step)), *after)
        rows = For(row.name, 0, plan.block, tile, plan.height)
        return [Let(steps.name, self.count * lanes), For(point.name, 0, POINTS, (rows,))]

    def _outputs(self) -> Block:
        """Sums transformed back to weights, into the epilogue."""
        em, plan, lanes = self.em, self.plan, self.em.lanes
        row, w, channel, last = em.var("o"), em.var("w"), em.var("channel"), em.var("last")
        body: Block = [Let(channel.name, self.first_channel + w * lanes)]
        part: Size | None = None
        if plan.depth % lanes:
            part = em.var("part")
            body.append(Let(part.name, IndexOp("min", lanes, plan.depth - channel)))
        products: list[list[str]] = []
        for i in range(4):
            line = []
            for j in range(4):
                name = em.name("p")
                at_row = ((row - self.first_row) * plan.width + w) * lanes
                index = (i * 4 + j) * self.sum_pitch + at_row
                line.append(name)
                body.append(Load(name, self.dtype, self.sums.name, index, 1))
            products.append(line)
        block, done = apply_square(em, self.dtype, transform(3, M).output, products)
        body += block
        for y, line in enumerate(done):
            for x, name in enumerate(line):
                at = [self.group * plan.rows + row, channel, y, x]
                body += em.region(self.after, at, 1, part, name)[0]
        vectors: Bound = IndexOp(
            "min", plan.width, IndexOp("div", plan.depth - self.first_channel + (lanes - 1), lanes)
        )
        return [
            Let(last.name, IndexOp("min", plan.rows, self.first_row + plan.block)),
            For(row.name, self.first_row, last, (For(w.name, 0, vectors, tuple(body)),)),
        ]
