"""Products of a large matrix and few columns: memory decides, so it is read once, in long pieces.

A fully connected layer of a small batch multiplies its weights with one vector of examples. The
general strategy of ``contract`` goes through blocks of the sum, which reads short pieces of
many rows; here a few rows of the matrix are read from end to end. In the backward direction
the gradient of the input and the update of the matrix share one reading of it: rows are used
for the one, and changed while they are still in the first cache.

A batch of unknown size decides when the program runs: the phases of the form that does not
apply have no chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ....ir.dims import Dim, Size, hint, product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.kernel import Kernel, Region
from ....ir.kernel.loops import (
    Bound,
    Fill,
    Fma,
    For,
    IndexOp,
    Let,
    Load,
    LoopKernel,
    Parallel,
    Store,
)
from ....ir.kernel.memory import Access
from ..emitter import Block, Emitter, index_of, round_up
from .common import copied
from .contract import contract
from .tile import Column, Tile, steps

__all__ = ["Thin", "after_thin_backward", "backward_pairs", "product_strategy", "thin_backward",
           "thin_of"]  # fmt: skip

#: a matrix of fewer bytes stays in the caches anyway
LARGE = 4 * 2**20

#: rows of the matrix that are read side by side: rows a power of two apart fall into the same
#: set of the first cache, which has 8 places or more
SIDE = 8

#: bytes of a row that are read in one piece at least
PIECE = 4096


@dataclass(frozen=True)
class Thin:
    """result[row, lane] = Σ matrix[row, depth] · columns[depth, lane]."""

    matrix: Access
    columns: Access
    #: axis of the result along which the lanes lie, and that of the rows
    lane: int
    row: int

    @property
    def rows(self) -> int:
        size = self.matrix.shape[0]
        assert isinstance(size, int)
        return size

    @property
    def depth(self) -> int:
        size = self.matrix.shape[1]
        assert isinstance(size, int)
        return size

    @property
    def lanes(self) -> Size:
        return self.columns.shape[1]

    def at(self, row: Size, lane: Size = 0) -> list[Size]:
        """A position of the result."""
        return [lane, row] if self.lane == 0 else [row, lane]


def thin_of(kernel: Kernel, lanes: int) -> Thin | None:
    """The product as a thin one, if it is, or may be when the batch is known."""
    anchor = kernel.anchor
    if not isinstance(anchor, anchors.Contract):
        return None
    operands = list(zip((anchor.a, anchor.b), kernel.operands, strict=True))
    if any(len(set(x)) != 2 or len(x) != 2 for x in (anchor.a, anchor.b, anchor.result)):
        return None
    for (letters, matrix), (others, columns) in (operands, operands[::-1]):
        shared = set(letters) & set(others)
        if len(shared) != 1 or shared & set(anchor.result):
            continue
        (deep,) = shared
        (row,) = set(letters) - shared
        (lane,) = set(others) - shared
        matrix = matrix.permuted((letters.index(row), letters.index(deep)))
        columns = columns.permuted((others.index(deep), others.index(lane)))
        few = columns.shape[1]
        least, most = (few, few) if isinstance(few, int) else (1, lanes)
        if isinstance(few, Dim):
            least, most = few.lo, max(2, min(few.hi, lanes))
        if least > lanes or not 2 <= most <= lanes:
            continue
        fixed = all(isinstance(n, int) and n >= 2 * SIDE for n in matrix.shape)
        if not fixed or hint(product(matrix.shape)) * matrix.dtype.itemsize < LARGE:
            continue
        if columns.strides[1] != 1 or 1 not in matrix.strides:
            continue
        return Thin(matrix, columns, anchor.result.index(lane), anchor.result.index(row))
    return None


def product_strategy(em: Emitter) -> str:
    """Strategy for Contract: thin where it is, else register tiles."""
    thin = thin_of(em.kernel, em.lanes)
    if thin is None:
        contract(em)
        return ""
    start = len(em.phases)
    _product(em, thin)
    if isinstance(thin.lanes, int):
        return "one reading"
    _only(em, start, _few(em, thin))
    start = len(em.phases)
    contract(em)
    _only(em, start, _many(em, thin))
    return "one reading of few columns, else register tiles"


# ── for batches that are known when the program runs ─────────────────────────────────────────


def _few(em: Emitter, thin: Thin) -> Bound:
    """1 if the columns fit into one vector, else 0."""
    return IndexOp("max", 0, IndexOp("min", 1, (em.lanes + 1) - thin.lanes))


def _many(em: Emitter, thin: Thin) -> Bound:
    return IndexOp("sub", 1, _few(em, thin))


def _only(em: Emitter, start: int, condition: Bound) -> None:
    """The phases from ``start`` on have chunks only where ``condition`` is 1."""
    for k in range(start, len(em.phases)):
        phase = em.phases[k]
        count = IndexOp("mul", phase.work.count, condition)
        em.phases[k] = replace(phase, work=replace(phase.work, count=count))


# ── one product ──────────────────────────────────────────────────────────────────────────────


def _product(em: Emitter, thin: Thin) -> None:
    if thin.matrix.strides[1] == 1:
        _along_sum(em, thin)
    else:
        _along_rows(em, thin)


def _side(dtype: DType) -> int:
    return SIDE if dtype is not DType.F64 else SIDE // 2


def _part(em: Emitter, thin: Thin) -> Size | None:
    return None if thin.lanes == em.lanes else thin.lanes


def _along_sum(em: Emitter, thin: Thin) -> None:
    """Rows lie along the sum: some of them at a time, each from end to end."""
    after = em.kernel.after
    dtype = after.program.inputs[0]
    side, rows = _side(dtype), thin.rows
    chunk, first, last, k = em.var("c"), em.var("first"), em.var("last"), em.var("k")
    many = side * 4
    tile = Tile(
        em,
        dtype,
        lambda row, j: em.load(thin.matrix, [row + j, k], None, None, "w"),
        lambda column: em.load(thin.columns, [k, 0], 1, column.part, "x"),
        lambda row, column, acc: em.region(
            after, thin.at(row), thin.lane, column.part, acc
        )[0],
    )  # fmt: skip
    column = Column(0, _part(em, thin))

    def group(indices: list[Size]) -> Block:
        return tile.emit(indices, [column], lambda step: [For(k.name, 0, thin.depth, tuple(step))])

    body: Block = [
        Let(first.name, chunk * many),
        Let(last.name, IndexOp("min", rows, first + many)),
        *steps(em, first, last, side, group, rows),
    ]
    em.phase(Parallel(chunk.name, round_up(rows, many), tuple(body)), "few rows at a time")


def _along_rows(em: Emitter, thin: Thin) -> None:
    """Rows lie side by side: sums wait in memory, some steps of the sum are added at a time."""
    after = em.kernel.after
    dtype = after.program.inputs[0]
    side, rows, depth = _side(dtype), thin.rows, thin.depth
    # in whole vectors: loads that overlap the masked store of a neighbour would wait for it
    waiting = em.scratch_buffer("sums", dtype, rows * em.lanes)
    part = _part(em, thin)
    # an even number of chunks, as long as each other, of long pieces
    count = max(1, rows * dtype.itemsize // PIECE)
    count = min(count + count % 2, 8)
    block = -(-rows // count)
    chunk, first, last = em.var("c"), em.var("first"), em.var("last")

    def added(ks: Sequence[Size], *, begin: bool, end: bool) -> Block:
        """The products of some steps added to all sums of the chunk."""
        row = em.var("r")
        out: Block = []
        vectors = []
        for k in ks:
            name, load = em.load(thin.columns, [k, 0], 1, part, "x")
            vectors.append(name)
            out.append(load)
        acc = em.name("s")
        place = row * em.lanes
        inner: Block = [
            Fill(acc, dtype, 0) if begin else Load(acc, dtype, waiting.name, place, 1),
        ]
        for k, vector in zip(ks, vectors, strict=True):
            name, load = em.load(thin.matrix, [row, k], None, None, "w")
            inner += [load, Fma(acc, name, vector, dtype)]
        if end:
            inner += em.region(after, thin.at(row), thin.lane, part, acc)[0]
        else:
            inner.append(Store(acc, dtype, waiting.name, place, 1))
        return [*out, For(row.name, first, last, tuple(inner))]

    rest = depth % side or side
    final = depth - rest
    k = em.var("k")
    body: Block = [
        Let(first.name, chunk * block),
        Let(last.name, IndexOp("min", rows, first + block)),
        *added(list(range(side)), begin=True, end=False),
        For(k.name, side, final, tuple(added([k + j for j in range(side)], begin=False, end=False)),
            side),
        *added([final + j for j in range(rest)], begin=False, end=True),
    ]  # fmt: skip
    em.phase(Parallel(chunk.name, round_up(rows, block), tuple(body)), "few steps at a time")


# ── the gradient of the input and the update of the matrix ───────────────────────────────────


def backward_pairs(kernels: Sequence[Kernel], lanes: int, parameters: set[str]) -> dict[int, int]:
    """Products that can take the update of their matrix with them: number -> the update's.

    The update runs where the product does, so between the two nothing may touch what the
    update writes or make what it reads, and it writes nothing but ``parameters`` (and
    states), whose memory is nobody else's.
    """
    found: dict[int, int] = {}
    for i, kernel in enumerate(kernels):
        thin = thin_of(kernel, lanes)
        if thin is None or thin.matrix.strides[1] != 1 or thin.matrix.buffer not in parameters:
            continue
        made = {a.buffer for a in kernel.writes()}
        touched = {a.buffer for a in kernel.after.loads}
        for j in range(i + 1, len(kernels)):
            other = kernels[j]
            reads = {a.buffer for a in other.reads()}
            writes = {a.buffer for a in other.writes()}
            if thin.matrix.buffer in writes:
                if (
                    _updates(other, thin)
                    and writes <= parameters
                    and not writes & touched
                    and not reads & made
                ):
                    found[i] = j
                break
            made |= writes
            touched |= reads | writes
            if thin.matrix.buffer in reads:
                break
    return found


def _updates(kernel: Kernel, thin: Thin) -> bool:
    """Does the kernel add products of the columns and rows of a matrix to this one?"""
    anchor = kernel.anchor
    if not isinstance(anchor, anchors.Contract) or kernel.before is not None:
        return False
    if any(len(x) != 2 for x in (anchor.a, anchor.b, anchor.result)):
        return False
    if set(anchor.a) & set(anchor.b) & set(anchor.result) or len({*anchor.a, *anchor.b}) != 3:
        return False
    stored = {a for _, a in kernel.after.stores}
    for access in kernel.after.loads:
        # an element may be read where it is written, and nowhere else
        if access.buffer in {a.buffer for a in stored} and access not in stored:
            return False
    return _update_operands(kernel, thin) is not None


def _update_operands(kernel: Kernel, thin: Thin) -> tuple[Access, bool] | None:
    """The rows' operand as [row, example], and whether the result is [row, depth].

    The other operand must be the product's columns.
    """
    anchor = kernel.anchor
    assert isinstance(anchor, anchors.Contract)
    both = list(zip((anchor.a, anchor.b), kernel.operands, strict=True))
    for (letters, rows), (others, columns) in (both, both[::-1]):
        (n,) = set(letters) & set(others)
        row, deep = letters.replace(n, ""), others.replace(n, "")
        rows = rows.permuted((letters.index(row), letters.index(n)))
        columns = columns.permuted((others.index(deep), others.index(n)))
        straight = anchor.result == row + deep
        order = (0, 1) if straight else (1, 0)
        matrices = [a.permuted(order) for _, a in kernel.after.stores]
        if columns == thin.columns and thin.matrix in matrices and rows.strides[1] == 1:
            return rows, straight
    return None


def thin_backward(em: Emitter, update: Kernel) -> None:
    """Both kernels of a pair. The update's own phases are those of ``after_thin_backward``."""
    thin = thin_of(em.kernel, em.lanes)
    assert thin is not None
    start = len(em.phases)
    _both(em, thin, update)
    if isinstance(thin.lanes, int):
        return
    _only(em, start, _few(em, thin))
    start = len(em.phases)
    contract(em)
    _only(em, start, _many(em, thin))


def after_thin_backward(em: Emitter, first: Kernel) -> LoopKernel:
    """What is left of the update: nothing, or the form for large batches."""
    thin = thin_of(first, em.lanes)
    assert thin is not None
    if not isinstance(thin.lanes, int):
        contract(em)
        _only(em, 0, _many(em, thin))
    return em.finish(f"with {first.name}")


def _both(em: Emitter, thin: Thin, update: Kernel) -> None:
    found = _update_operands(update, thin)
    assert found is not None
    given, straight = found
    after: Region = em.kernel.after
    dtype = after.program.inputs[0]
    side, width, rows, depth = _side(dtype), em.lanes, thin.rows, thin.depth
    part = _part(em, thin)
    # the columns turned around, so that vectors lie along the matrix's rows
    turned = em.scratch_buffer("turned", dtype, thin.lanes * depth)
    target = Access(turned.name, dtype, 0, (depth, thin.lanes), (1, depth))
    copied(em, thin.columns, target)

    chunk, first, last = em.var("c"), em.var("first"), em.var("last")
    many = side * 4

    def group(indices: list[Size]) -> Block:
        accs = [em.name("s") for _ in indices]

        def block(k: Size, rest: Size | None) -> Block:
            """One vector of each row: used for the sums, then updated."""
            i, n = em.var("k"), em.var("n")
            name, load = em.load(thin.columns, [k + i, 0], 1, part, "d")
            used: Block = [load]
            for row, acc in zip(indices, accs, strict=True):
                w, broadcast = em.load(thin.matrix, [row, k + i], None, None, "w")
                used += [broadcast, Fma(acc, w, name, dtype)]
            sums = [em.name("g") for _ in indices]
            vector = em.name("d")
            products: Block = [
                Load(vector, dtype, target.buffer, index_of(target, [k, n]), 1, rest)
            ]
            for row, total in zip(indices, sums, strict=True):
                x, broadcast = em.load(given, [row, n], None, None, "x")
                products += [broadcast, Fma(total, x, vector, dtype)]
            out: Block = [
                For(i.name, 0, width if rest is None else rest, tuple(used)),
                *(Fill(total, dtype, 0) for total in sums),
                For(n.name, 0, thin.lanes, tuple(products)),
            ]
            for row, total in zip(indices, sums, strict=True):
                at, axis = ([row, k], 1) if straight else ([k, row], 0)
                out += em.region(update.after, at, axis, rest, total)[0]
            return out

        out: Block = [Fill(acc, dtype, 0) for acc in accs]
        out += em.vectors(0, depth, block, "k")
        for row, acc in zip(indices, accs, strict=True):
            out += em.region(after, thin.at(row), thin.lane, part, acc)[0]
        return out

    body: Block = [
        Let(first.name, chunk * many),
        Let(last.name, IndexOp("min", rows, first + many)),
        *steps(em, first, last, side, group, rows),
    ]
    em.phase(Parallel(chunk.name, round_up(rows, many), tuple(body)),
             f"few rows at a time, and {update.name}")  # fmt: skip
