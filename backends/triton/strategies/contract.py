"""Contractions: products of matrices, any letters, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ....ir.dims import Size
from ....ir.kernel import anchors
from ....ir.kernel.memory import Access
from ....ir.kernel.spaces import coalesce, project, sizes_of
from ..launches import TritonKernel
from ..writer import Coord, Tile, Writer
from .common import Context, narrow_loads
from .matmul import Load, Operands, Problem, matmul
from .matrices import matrix_of

__all__ = ["contract"]


def contract(context: Context) -> TritonKernel:
    """Letters of one operand are rows or columns, common ones are summed or in the batch."""
    kernel = context.kernel
    anchor = kernel.anchor
    assert isinstance(anchor, anchors.Contract)
    a, b = kernel.operands
    left, right, result = anchor.a, anchor.b, anchor.result
    # what lies innermost in the result is walked by columns, neighbours in memory
    if result and result[-1] in left and result[-1] not in right:
        a, b, left, right = b, a, right, left
    batch = [c for c in result if c in left and c in right]
    m = [c for c in result if c in left and c not in right]
    n = [c for c in result if c in right and c not in left]
    k = [c for c in right if c not in result]
    sizes = dict(zip(left, a.shape, strict=True)) | dict(zip(right, b.shape, strict=True))
    steps = [dict(zip(left, a.strides, strict=True)), dict(zip(right, b.strides, strict=True))]
    shape = [sizes[c] for c in k]
    merged = coalesce(shape, range(len(k)), [[s[c] for c in k] for s in steps])
    summed = sizes_of(shape, merged)
    strides = [project(shape, [s[c] for c in k], merged) or () for s in steps]

    def narrow(operand: Access) -> str:
        strides = operand.strides
        fastest = [x for x, s in enumerate(strides) if s == 1 and operand.shape[x] != 1]
        return narrow_loads(context, operand, fastest[-1] if fastest else len(strides) - 1)

    def load_of(operand: Access, mine: dict[str, Size], over: Sequence[Size], free: Sequence[str],
                rows_are_free: bool) -> Load:  # fmt: skip
        """Loads of one operand, whose other side are the summed positions."""

        def load(w: Writer, outer: Sequence[Coord], rows: Sequence[Coord],
                 columns: Sequence[Coord], tile: Tile) -> str:  # fmt: skip
            kept, inner = (rows, columns) if rows_are_free else (columns, rows)
            flat = replace(
                operand,
                shape=(*(sizes[c] for c in batch), *(sizes[c] for c in free), *summed),
                strides=(*(mine[c] for c in batch), *(mine[c] for c in free), *over),
            )
            there = replace(tile, coords=(*outer, *kept, *inner))
            return w.load(flat, there, full=True, other="0.0", prefix="ab"[not rows_are_free],
                          raw=True)  # fmt: skip

        return load

    def place(
        outer: Sequence[Coord], rows: Sequence[Coord], columns: Sequence[Coord]
    ) -> tuple[Coord, ...]:
        found = dict(zip([*batch, *m, *n], [*outer, *rows, *columns], strict=True))
        return tuple(found[c] for c in result)

    problem = Problem(
        tuple(sizes[c] for c in batch), tuple(sizes[c] for c in m), tuple(sizes[c] for c in n),
        tuple(summed),
    )  # fmt: skip
    along = [bool(x) and x[-1] == 1 for x in strides]
    matrices = [
        None if batch else matrix_of(context, operand, [(sizes[c], mine[c]) for c in free],
                                     list(zip(summed, over, strict=True)))
        for operand, mine, free, over in zip((a, b), steps, (m, n), strides, strict=True)
    ]  # fmt: skip
    return matmul(
        context, problem, load_of(a, steps[0], strides[0], m, True),
        load_of(b, steps[1], strides[1], n, False), place,
        Operands(a.dtype, along[0], along[1], (narrow(a), narrow(b))), (matrices[0], matrices[1]),
    )  # fmt: skip
