"""Pools in the kernel of the convolution that makes their operand.

The places of a window are finished one after the other, and meet in a small array of the thread:
the window's value so far, and the number of its first maximum, for every output channel of a
chunk. What the convolution makes is stored before the pool only if somebody else reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ....ir.dims import Size, product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.kernel import Kernel, Pool, Region
from ....ir.kernel.loops import Combine, Compute, Fill, For, Load, Store
from ....ir.kernel.memory import Access, Buffer, Space, contiguous_strides
from ....ir.kernel.scalar import ScalarBuilder
from ....ir.kernel.spaces import order_of
from ..emitter import Block, Emitter
from .flatten import idle_lanes
from .window import better, window_arg_max, window_max, window_sum

__all__ = ["Windows", "apart", "fits"]


def fits(em: Emitter) -> bool:
    """True if the lanes are examples, in whole vectors: then a window's places are one tile's."""
    kernel = em.kernel
    assert kernel.pool is not None
    batch = kernel.after.shape[0]
    if isinstance(batch, int) and (batch < em.lanes or idle_lanes(em, batch)):
        return False
    accesses = [kernel.operands[0], *kernel.after.loads, *kernel.pool.after.loads]
    accesses += [a for r in (kernel.after, kernel.pool.after) for _, a in r.stores]
    return len(kernel.after.shape) == 4 and all(a.strides[0] in (0, 1) for a in accesses)


def apart(em: Emitter, convolution: Callable[[Emitter], str]) -> str:
    """The convolution, then its pool, as phases of their own."""
    kernel = em.kernel
    pool = kernel.pool
    assert pool is not None
    after, program = pool.after, pool.after.program
    image = next((a for p, a in kernel.after.stores if p == pool.source), None)
    stores = kernel.after.stores
    if image is None:
        image = _scratch(em, kernel.after.program.dtype(kernel.after.program.results[pool.source]),
                         kernel.after.shape, order_of(after.stores[-1][1]))  # fmt: skip
        stores = (*stores, (pool.source, image))
    em.kernel = replace(kernel, pool=None, after=replace(kernel.after, stores=stores))
    name = convolution(em)
    none = ((0, 0),) * len(pool.window)
    loads, rest = after.loads, after.stores
    if pool.numbered:
        number = next((a for p, a in rest if program.results[p] == 1), None)
        rest = tuple((p, a) for p, a in rest if a != number)
        number = number or _scratch(em, DType.I32, after.shape, order_of(after.stores[-1][1]))
        builder = ScalarBuilder()
        value = builder.input(DType.I32)
        region = Region(after.shape, builder.build([value]), (), ((0, number),))
        em.kernel = Kernel(kernel.name, anchors.WindowArgMax(pool.window, pool.window, none),
                           (image,), None, region)  # fmt: skip
        window_arg_max(em)
        loads = (number, *loads)
    if rest:
        anchor = anchors.WindowSum if pool.op == "sum" else anchors.WindowMax
        em.kernel = Kernel(kernel.name, anchor(pool.window, pool.window, none), (image,), None,
                           replace(after, loads=loads, stores=rest))  # fmt: skip
        (window_sum if pool.op == "sum" else window_max)(em)
    em.kernel = kernel
    return f"{name or 'direct, register tiles'}; then the pool"


def _scratch(em: Emitter, dtype: DType, shape: tuple[Size, ...], order: tuple[int, ...]) -> Access:
    buffer = em.scratch_buffer("value", dtype, product(shape))
    return Access(buffer.name, dtype, 0, shape, contiguous_strides(shape, order))


class Windows:
    """Values of windows that are not finished: ``rows`` output channels, ``columns`` vectors."""

    def __init__(self, em: Emitter, pool: Pool, rows: int, columns: int) -> None:
        self.em, self.pool, self.columns = em, pool, columns
        self.dtype = pool.after.program.inputs[0]
        size = rows * columns * em.lanes
        self.best = Buffer(em.name("best"), self.dtype, size, Space.ARENA)
        self.winner = Buffer(em.name("winner"), DType.I32, size, Space.ARENA)

    @property
    def private(self) -> tuple[Buffer, ...]:
        """Arrays that a thread has for itself."""
        return (self.best, self.winner) if self.pool.numbered else (self.best,)

    def _slot(self, row: Size, column: int) -> Size:
        return (row * self.columns + column) * self.em.lanes

    def begin(self, rows: Size) -> Block:
        """Windows of so many output channels that hold nothing yet."""
        em = self.em
        i, empty, zero = em.var("i"), em.name("empty"), em.name("zero")
        value = 0.0 if self.pool.op == "sum" else float("-inf")
        out: Block = [Fill(empty, self.dtype, value)]
        body: Block = [Store(empty, self.dtype, self.best.name, i, 1)]
        if self.pool.numbered:
            out.append(Fill(zero, DType.I32, 0))
            body.append(Store(zero, DType.I32, self.winner.name, i, 1))
        return [*out, For(i.name, 0, rows * (self.columns * em.lanes), tuple(body), em.lanes)]

    def add(self, row: Size, column: int, value: str, number: Size) -> Block:
        """One more place, of that number in its window."""
        em, at = self.em, self._slot(row, column)
        best = em.name("best")
        out: Block = [Load(best, self.dtype, self.best.name, at, 1)]
        if not self.pool.numbered:
            op = "add" if self.pool.op == "sum" else "max"
            out.append(Combine(best, value, self.dtype, op))
        else:
            winner, mine = em.name("winner"), em.name("number")
            mask, wins = better(em, value, best, self.dtype)
            out += [
                *mask,
                Load(winner, DType.I32, self.winner.name, at, 1),
                Compute(mine, DType.I32, "size", (), DType.I32, size=number),
                Combine(best, value, self.dtype, "select", mask=wins),
                Combine(winner, mine, DType.I32, "select", mask=wins),
                Store(winner, DType.I32, self.winner.name, at, 1),
            ]
        return [*out, Store(best, self.dtype, self.best.name, at, 1)]

    def finish(self, row: Size, column: int, at: Sequence[Size], part: Size | None) -> Block:
        """What happens to a finished window, whose place among all is ``at``."""
        em, slot = self.em, self._slot(row, column)
        best = em.name("best")
        values = [best]
        out: Block = [Load(best, self.dtype, self.best.name, slot, 1)]
        if self.pool.numbered:
            values.append(em.name("winner"))
            out.append(Load(values[1], DType.I32, self.winner.name, slot, 1))
        return out + em.region(self.pool.after, at, 0, part, *values)[0]
