"""Contractions as one batched matrix product over strided views.

Letters of the result that belong to one operand make the rows (M) and columns (N) of a
matrix, contracted letters its depth (K), as far as strides merge; the others become axes of
a batch. A sliding view needs no copy: its overlapping rows are just another stride.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ....ir.dims import Size, hint, product
from ....ir.kernel import anchors
from ....ir.kernel.memory import Access
from ....ir.kernel.spaces import project
from ..array_program import Ref
from ..emitter import Emitter
from ..maps import block_rows, emit_region
from .common import anchor_target, epilogue, leader, value_dtype
from .prescale import prescale

__all__ = ["contract"]

#: partial products that are summed afterwards may take this much scratch memory
PARTIAL_BYTES = 4 * 1024 * 1024

#: a single product is cut into blocks of rows for its epilogue only above this many bytes:
#: BLAS loses more by small products than the epilogue gains by a warm cache
WHOLE_PRODUCT_BYTES = 4 * 1024 * 1024

#: bytes of such a block
PRODUCT_BLOCK_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True)
class _Side:
    """An operand as [batch…, rows, columns]: an array and its strides."""

    access: Access
    letters: str

    def stride(self, letter: str) -> Size:
        return self.access.strides[self.letters.index(letter)] if letter in self.letters else 0

    def size(self, letter: str) -> Size:
        return self.access.shape[self.letters.index(letter)]


@dataclass(frozen=True)
class _Shape:
    """The letters of each part, outermost first."""

    batch: str
    sums: str  # contracted letters that do not merge into K
    m: str
    n: str
    k: str


def contract(em: Emitter) -> None:
    """Strategy for Contract."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Contract)
    prescale(em)
    a = _Side(em.kernel.operands[0], anchor.a)
    b = _Side(em.kernel.operands[1], anchor.b)
    region = em.kernel.after
    out = leader(region)
    stride = dict(zip(anchor.result, out.strides, strict=True))
    sizes: dict[str, Size] = {}
    for side in (a, b):
        sizes.update(zip(side.letters, side.access.shape, strict=True))
    letters = [c for c in sizes if sizes[c] != 1]
    by_result = sorted(
        (c for c in letters if c in anchor.result), key=lambda c: -abs(hint(stride[c]))
    )
    # the columns of the result are contiguous: they belong to the right operand
    if by_result and by_result[-1] in a.letters and by_result[-1] not in b.letters:
        a, b = b, a
    shape = _split(letters, by_result, a, b, stride, sizes)
    if shape.sums or not _fused(em, a, b, shape, sizes, anchor.result):
        target = anchor_target(em)
        _whole(em, a, b, shape, sizes, anchor.result, target)
        epilogue(em, target)


def _split(
    letters: Sequence[str],
    by_result: Sequence[str],
    a: _Side,
    b: _Side,
    stride: dict[str, Size],
    sizes: dict[str, Size],
) -> _Shape:
    """Distribute the letters: which merge, which become a batch."""
    rows = [c for c in by_result if c in a.letters and c not in b.letters]
    columns = [c for c in by_result if c in b.letters and c not in a.letters]
    depth = sorted(
        (c for c in letters if c in a.letters and c in b.letters and c not in stride),
        key=lambda c: (-abs(hint(b.stride(c))), -abs(hint(a.stride(c)))),
    )
    result = _Result(stride)
    m, rest_m = _best_run(rows, [a.stride, result.stride], sizes)
    n, rest_n = _best_run(columns, [b.stride, result.stride], sizes)
    k, rest_k = _best_run(depth, [a.stride, b.stride], sizes)
    both = [c for c in by_result if c in a.letters and c in b.letters]
    batch = [c for c in by_result if c in both or c in rest_m or c in rest_n]
    return _Shape("".join(batch), "".join(rest_k), "".join(m), "".join(n), "".join(k))


@dataclass(frozen=True)
class _Result:
    strides: dict[str, Size]

    def stride(self, letter: str) -> Size:
        return self.strides[letter]


def _best_run(
    letters: Sequence[str], strides: Sequence[Callable[[str], Size]], sizes: dict[str, Size]
) -> tuple[list[str], list[str]]:
    """The largest run of neighbours that merge in all arrays, and the letters left over."""
    runs: list[list[str]] = []
    for c in letters:
        if runs:
            outer = runs[-1][-1]
            if all(s(outer) == s(c) * sizes[c] for s in strides):
                runs[-1].append(c)
                continue
        runs.append([c])
    if not runs:
        return [], []

    def worth(run: list[str]) -> tuple[bool, int]:
        # a run that is contiguous in memory first: BLAS reads and writes along it
        contiguous = any(stride(run[-1]) == 1 for stride in strides)
        return contiguous, hint(product(sizes[c] for c in run))

    best = max(runs, key=worth)
    return best, [c for r in runs if r is not best for c in r]


def _total(letters: str, sizes: dict[str, Size]) -> Size:
    return product(sizes[c] for c in letters)


@dataclass(frozen=True)
class _Matrix:
    """[lead…, rows, columns] of an operand, ready to be viewed inside or outside a loop."""

    access: Access
    shape: tuple[Size, ...]
    strides: tuple[Size, ...]

    def view(self, em: Emitter, *, whole: bool = False) -> Ref:
        return em.view(self.access, self.shape, self.strides, whole=whole)

    def terms(self, start: int, stop: int) -> _Matrix:
        """Those of the outermost axis."""
        access = replace(self.access, offset=self.access.offset + start * self.strides[0])
        return _Matrix(access, (stop - start, *self.shape[1:]), self.strides)


def _matrix(
    em: Emitter, side: _Side, lead: str, rows: str, columns: str, sizes: dict[str, Size]
) -> _Matrix:
    """An operand as a stack of matrices, copied first if BLAS cannot read it as it lies."""
    row, column = _step(side, rows), _step(side, columns)
    count_rows, count_columns = _total(rows, sizes), _total(columns, sizes)
    shape = (*(sizes[c] for c in lead), count_rows, count_columns)
    if _readable(row, column, count_rows, count_columns):
        return _Matrix(side.access, shape, (*(side.stride(c) for c in lead), row, column))
    own = [c for c in lead if c in side.letters]
    kept = (*(sizes[c] for c in own), count_rows, count_columns)
    dense = em.scratch_access(kept, side.access.dtype, "dense")
    source = em.view(side.access, kept, (*(side.stride(c) for c in own), row, column))
    em.copy(em.view(dense, kept, dense.strides), source)
    # axes of the batch that the operand lacks are repeated
    by_letter = dict(zip(own, dense.strides, strict=False))
    steps = (*(by_letter.get(c, 0) for c in lead), *dense.strides[-2:])
    return _Matrix(dense, shape, steps)


def _step(side: _Side, letters: str) -> Size:
    return side.stride(letters[-1]) if letters else 0


def _readable(row: Size, column: Size, rows: Size, columns: Size) -> bool:
    """BLAS reads a matrix if one axis is contiguous and the other does not overlap it."""

    def fits(step: Size, unit: Size, along: Size, across: Size) -> bool:
        return unit == 1 and (across == 1 or hint(step) >= hint(along))

    if rows == 1 or columns == 1:
        step, count = (column, columns) if rows == 1 else (row, rows)
        return count == 1 or (hint(step) == 1)
    return fits(row, column, columns, rows) or fits(column, row, rows, columns)


def _fused(
    em: Emitter, a: _Side, b: _Side, shape: _Shape, sizes: dict[str, Size], result: str
) -> bool:
    """Product and epilogue block by block, if all arrays share the product's axes."""
    region = em.kernel.after
    axes = {c: result.index(c) for c in result}
    groups = tuple(tuple(axes[c] for c in part) for part in (*shape.batch, shape.m, shape.n))
    accesses = [*region.loads, *(s for _, s in region.stores)]
    if any(project(region.shape, x.strides, groups) is None for x in accesses):
        return False
    counts = (*(sizes[c] for c in shape.batch), _total(shape.m, sizes), _total(shape.n, sizes))
    dtype = value_dtype(region)
    steps = sum(i.op not in ("const", "size") for i in region.program.instrs) + 1
    rows = block_rows(counts, dtype.itemsize, steps)
    if rows is not None and not shape.batch:
        row = hint(counts[1]) * dtype.itemsize
        whole = row * hint(counts[0]) <= WHOLE_PRODUCT_BYTES
        rows = None if whole else max(1, PRODUCT_BLOCK_BYTES // row)
    if rows is not None and rows >= hint(counts[0]):
        rows = None
    # copies that make an operand dense come before the loop
    left = _matrix(em, a, shape.batch, shape.m, shape.k, sizes)
    right = _matrix(em, b, shape.batch, shape.k, shape.n, sizes)
    with em.block(rows):

        def product_into(target: Ref) -> None:
            # without a batch the loop cuts the rows, and the right operand stays whole
            right_view = right.view(em, whole=not shape.batch)
            em.call("matmul", left.view(em), right_view, out=target)

        emit_region(em, region, groups, rows, product_into, dtype)
    return True


def _whole(
    em: Emitter,
    a: _Side,
    b: _Side,
    shape: _Shape,
    sizes: dict[str, Size],
    result: str,
    target: Access,
) -> None:
    """The product alone, into ``target``; partial products are summed."""
    left = _matrix(em, a, shape.sums + shape.batch, shape.m, shape.k, sizes)
    right = _matrix(em, b, shape.sums + shape.batch, shape.k, shape.n, sizes)
    steps = dict(zip(result, target.strides, strict=True))
    counts = (*(sizes[c] for c in shape.batch), _total(shape.m, sizes), _total(shape.n, sizes))
    strides = (
        *(steps[c] for c in shape.batch),
        steps[shape.m[-1]] if shape.m else 0,
        steps[shape.n[-1]] if shape.n else 0,
    )
    out = em.view(target, counts, strides)
    if not shape.sums:
        em.call("matmul", left.view(em), right.view(em), out=out)
        return
    dtype = target.dtype
    terms = tuple(sizes[c] for c in shape.sums)
    axes = tuple(range(len(terms)))
    row = hint(product((*terms[1:], *counts))) * dtype.itemsize
    if row * hint(terms[0]) <= PARTIAL_BYTES:
        partial = em.scratch_array((*terms, *counts), dtype, "partial")
        em.call("matmul", left.view(em), right.view(em), out=partial)
        em.call("add.reduce", partial, out=out, axis=axes)
        return
    rows = max(1, PARTIAL_BYTES // row)
    if rows == 1 and len(terms) == 1 and isinstance(terms[0], int):
        # one product at a time: the first lands in the result, the others are added to it
        total = em.view(target, (1, *counts), (0, *strides))
        em.call("matmul", left.terms(0, 1).view(em), right.terms(0, 1).view(em), out=total)
        with em.block(1):
            term = em.temp(1, counts, dtype, "term")
            others = (side.terms(1, terms[0]).view(em) for side in (left, right))
            em.call("matmul", *others, out=term)
            em.call("add", total, term, out=total)
        return
    sum_ = em.scratch_array(counts, dtype, "sum")
    em.fill(out, 0)
    with em.block(rows):
        partial = em.temp(rows, (*terms[1:], *counts), dtype, "partial")
        em.call("matmul", left.view(em), right.view(em), out=partial)
        em.call("add.reduce", partial, out=sum_, axis=axes)
        em.call("add", out, sum_, out=out)
