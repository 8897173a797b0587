"""A large matrix times one vector: threads share out the sum.

Every element of the matrix is used once, so nothing counts but where it comes from. A thread that
had some columns of each row would read pieces a power of two apart, which share few sets of its
second cache; some rows are one piece of memory, and stay there from call to call.
"""

from __future__ import annotations

from collections.abc import Mapping

from ....ir.dims import Size, hint, product
from ....ir.kernel import anchors
from ....ir.kernel.loops import Compute, Fill, Fma, For, IndexOp, Let, Load, Parallel, Store
from ....ir.kernel.memory import Access
from ..emitter import Block, Emitter

__all__ = ["is_matvec", "matvec"]

#: parts of the sum, and bytes of a matrix from which they pay
PARTS = 4
LARGE = 2**18

#: vectors of sums in registers
WIDE = 16


def is_matvec(
    a: Access, b: Access, letters: tuple[str, str], result: str, sizes: Mapping[str, Size]
) -> bool:
    """True for a vector ``a`` and a large matrix ``b`` that is contiguous along the result."""
    wide = [c for c in result if sizes[c] != 1]
    summed = [c for c in letters[1] if c not in result]
    return (
        len(wide) == 1
        and len(summed) == 1
        and wide[0] in letters[1]
        and wide[0] not in letters[0]
        and b.strides[letters[1].index(wide[0])] == 1
        and isinstance(sizes[wide[0]], int)
        and isinstance(sizes[summed[0]], int)
        and hint(product(b.shape)) * b.dtype.itemsize >= LARGE
    )


def matvec(em: Emitter, a: Access, b: Access, letters: tuple[str, str]) -> None:
    """Sums over parts of the contracted axis, then the sum of the parts and the epilogue."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Contract)
    after = em.kernel.after
    dtype = after.program.inputs[0]
    result = anchor.result
    lane = next(k for k, n in enumerate(after.shape) if n != 1)
    columns = after.shape[lane]
    summed = next(c for c in letters[1] if c not in result)
    depth = b.shape[letters[1].index(summed)]
    assert isinstance(columns, int)
    assert isinstance(depth, int)
    pitch = -(-columns // em.lanes) * em.lanes
    sums = em.scratch_buffer("parts", dtype, PARTS * pitch)
    part, k = em.var("c"), em.var("k")
    first, last = em.var("first"), em.var("last")

    def place(operand: int, at: Mapping[str, Size]) -> list[Size]:
        return [at.get(c, 0) for c in letters[operand]]

    def group(start: Size, vectors: list[int]) -> Block:
        """``vectors`` are their numbers of lanes, side by side from column ``start`` on."""
        accs = [em.name("s") for _ in vectors]
        name, load = em.load(a, place(0, {summed: k}), None, None, "a")
        step: Block = [load]
        for j, (acc, lanes) in enumerate(zip(accs, vectors, strict=True)):
            at = {summed: k, result[lane]: start + j * em.lanes}
            rest = None if lanes == em.lanes else lanes
            row, load = em.load(b, place(1, at), letters[1].index(result[lane]), rest, "b")
            step += [load, Fma(acc, name, row, dtype)]
        return [
            *(Fill(acc, dtype, 0) for acc in accs),
            For(k.name, first, last, tuple(step)),
            *(
                Store(acc, dtype, sums.name, part * pitch + start + j * em.lanes, 1)
                for j, acc in enumerate(accs)
            ),
        ]

    body: Block = [
        Let(first.name, IndexOp("div", part * depth, PARTS)),
        Let(last.name, IndexOp("div", part * depth + depth, PARTS)),
    ]
    width = WIDE * em.lanes
    whole = columns // width * width
    if whole:
        n = em.var("n")
        body.append(For(n.name, 0, whole, tuple(group(n, [em.lanes] * WIDE)), width))
    if whole < columns:
        body += group(whole, [min(em.lanes, columns - c) for c in range(whole, columns, em.lanes)])
    em.phase(Parallel(part.name, PARTS, tuple(body)), "sums over parts of the axis")

    def total(places: list[Size], rest: Size | None) -> Block:
        at: list[Size] = [0] * len(after.shape)
        at[lane] = places[0]
        out: Block = []
        found = ""
        for p in range(PARTS):
            name = em.name("s")
            out.append(Load(name, dtype, sums.name, places[0] + p * pitch, 1, rest))
            if found:
                added = em.name("s")
                out.append(Compute(added, dtype, "add", (found, name), dtype))
                name = added
            found = name
        return [*out, *em.region(after, at, lane, rest, found)[0]]

    work = em.spread([columns], total, work=PARTS)
    em.phase(work, "the parts together", cost=columns * (PARTS + len(after.program.instrs)))
