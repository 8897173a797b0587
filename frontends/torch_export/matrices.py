"""Operators on the last two axes as a matrix: diagonals and triangles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks import arithmetic
from ...ir.bricks import shape as shapes
from ...ir.bricks.source import iota
from ...ir.dims import Dim, DimExpr
from ...ir.dtypes import DType
from ...ir.types import TensorType
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import (
    Out,
    Result,
    axis_of,
    fixed,
    scalar,
    to,
)
from .views import LARGEST_LIST, part

__all__ = ["MATRICES"]

of = trace.of
#: a size as an argument of an operator
Extent = int | Dim | DimExpr


def _axes(rank: int, dim1: int, dim2: int) -> tuple[int, int]:
    """Both axes of the matrices, from 0."""
    a, b = axis_of(rank, dim1), axis_of(rank, dim2)
    if rank < 2 or a == b:
        raise ImportModelError("a diagonal of such axes", got=f"{dim1}, {dim2} of {rank} axes")
    return a, b


def diagonal(out: Out, x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    a, b = _axes(x.rank, dim1, dim2)
    rest = [k for k in range(x.rank) if k not in (a, b)]
    rows, cols = fixed(x.shape[a]), fixed(x.shape[b])
    count = max(0, min(rows, cols - offset) if offset >= 0 else min(rows + offset, cols))
    moved = shapes.transpose(x, [*rest, a, b])
    flat = shapes.reshape(moved, (*moved.shape[:-2], rows * cols))
    start = offset if offset >= 0 else -offset * cols
    if count == 0:
        return of(part(flat, flat.rank - 1, 0, 0))
    stop = start + (count - 1) * (cols + 1) + 1
    return of(part(flat, flat.rank - 1, start, stop, cols + 1))


def _grid(x: Tensor, diagonal: int, lower: bool) -> Value:
    """True in the lower (upper) triangle of the last two axes."""
    shape = (x.shape[-2], x.shape[-1])
    kind = TensorType(DType.I64, shape)
    gap = arithmetic.sub(iota(x, kind, 1), iota(x, kind, 0))
    return (arithmetic.less_equal if lower else arithmetic.greater_equal)(gap, diagonal)


def tril(out: Out, x: Tensor, diagonal: int = 0) -> Tensor:
    return of(arithmetic.where(_grid(x, diagonal, True), x, scalar(0, x.dtype)))


def triu(out: Out, x: Tensor, diagonal: int = 0) -> Tensor:
    return of(arithmetic.where(_grid(x, diagonal, False), x, scalar(0, x.dtype)))


def diag_embed(out: Out, x: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    rank = x.rank + 1
    a, b = _axes(rank, dim1, dim2)
    n = fixed(x.shape[-1])
    m = n + abs(offset)
    lo = [0] * (rank - 2) + [m * -offset if offset < 0 else offset]
    # element k lies at k·(m+1) of the flattened square
    line = shapes.Pad(tuple([0] * x.rank), tuple([0] * x.rank), (*(0,) * (x.rank - 1), m), 0.0)
    wide = x.apply(line, x)
    hi = [0] * (rank - 2) + [m * m - lo[-1] - fixed(wide.shape[-1])]
    square = shapes.reshape(shapes.pad(wide, lo, hi), (*x.shape[:-1], m, m))
    rest = iter(range(rank - 2))
    order = [rank - 2 if k == a else rank - 1 if k == b else next(rest) for k in range(rank)]
    return of(shapes.transpose(square, order))


def diagonal_scatter(
    out: Out, x: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    a, b = _axes(x.rank, dim1, dim2)
    rest = [k for k in range(x.rank) if k not in (a, b)]
    square = shapes.transpose(x, [*rest, a, b])
    rows, cols = fixed(x.shape[a]), fixed(x.shape[b])
    wide = diag_embed(out, to(src, x.dtype), offset, -2, -1)
    # the diagonal's square may be larger or smaller than the matrix
    n = fixed(wide.shape[-1])
    high, broad = min(n, rows), min(n, cols)
    cut = shapes.slice_(wide, [0] * x.rank, [*wide.shape[:-2], high, broad])
    lie = [0] * x.rank
    full = shapes.pad(cut, lie, [0] * (x.rank - 2) + [rows - high, cols - broad])
    kind = TensorType(DType.I64, (rows, cols))
    on = arithmetic.equal(arithmetic.sub(iota(x, kind, 1), iota(x, kind, 0)), offset)
    merged = arithmetic.where(on, full, square)
    order = [*rest, a, b]
    return of(shapes.transpose(merged, [order.index(k) for k in range(x.rank)]))


def triangle_indices(lower: bool) -> Callable[..., Tensor]:
    def convert(
        out: Out, row: int, col: int, offset: int = 0, *, dtype: DType | None = None,
        layout: object = None, device: object = None, pin_memory: bool | None = None,
    ) -> Tensor:  # fmt: skip
        if min(row, col) < 0 or max(row, col, row * col) > LARGEST_LIST:
            raise UnsupportedError("so many indices", got=f"{row} x {col}")
        ones = np.ones((row, col), np.bool_)
        places = np.nonzero(np.tril(ones, offset) if lower else np.triu(ones, offset))
        return trace.literal(np.stack(places), dtype or DType.I64)

    return convert


MATRICES: dict[str, Callable[..., Result]] = {
    "diagonal.default": diagonal, "diagonal_copy.default": diagonal,
    "diag_embed.default": diag_embed, "tril.default": tril, "triu.default": triu,
    "diagonal_scatter.default": diagonal_scatter,
    "tril_indices.default": triangle_indices(True),
    "triu_indices.default": triangle_indices(False),
}  # fmt: skip
