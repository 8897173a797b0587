"""The matrices of Winograd's convolutions, and their application to vectors.

F(m, r) makes m outputs of a filter with r taps from n = m + r - 1 products: the input goes
through ``data``, the filter through ``filter``, products through ``output`` (Cook-Toom with n - 1
finite points and infinity, transposed). In two dimensions every matrix is applied to rows, then
to columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from ....ir.dtypes import DType
from ....ir.kernel.loops import Compute
from ..emitter import Block, Emitter

__all__ = ["Transform", "apply", "apply_square", "operations", "transform"]

Matrix = tuple[tuple[Fraction, ...], ...]

#: small numbers lose the fewest bits; each comes with its opposite, which halves the work
POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))


@dataclass(frozen=True)
class Transform:
    """One-dimensional F(m, r)."""

    m: int
    r: int
    data: Matrix
    filter: Matrix
    output: Matrix

    @property
    def size(self) -> int:
        return self.m + self.r - 1


def _times(a: Sequence[Fraction], root: Fraction) -> list[Fraction]:
    """A polynomial times (x - root), lowest power first."""
    out = [Fraction(0)] * (len(a) + 1)
    for k, c in enumerate(a):
        out[k + 1] += c
        out[k] -= root * c
    return out


@cache
def transform(m: int, r: int) -> Transform:
    """F(m, r) at the first points of ``POINTS``."""
    n = m + r - 1
    points = [Fraction(p) for p in POINTS[: n - 1]]
    data, filters, output = [], [], []
    for j, point in enumerate(points):
        basis, scale = [Fraction(1)], Fraction(1)
        for k, other in enumerate(points):
            if k != j:
                basis = _times(basis, other)
                scale *= point - other
        data.append((*basis, Fraction(0)))
        filters.append(tuple(point**k / scale for k in range(r)))
        output.append(tuple(point**k for k in range(m)))
    last = [Fraction(1)]
    for point in points:
        last = _times(last, point)
    data.append(tuple(last))
    filters.append((*(Fraction(0),) * (r - 1), Fraction(1)))
    output.append((*(Fraction(0),) * (m - 1), Fraction(1)))
    return Transform(m, r, tuple(data), tuple(filters), tuple(zip(*output, strict=True)))


# ── application ──────────────────────────────────────────────────────────────────────────────


def _terms(row: Sequence[Fraction]) -> int:
    return sum(c != 0 for c in row)


def _plan(matrix: Matrix) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs of rows, and pairs of columns, that cost less as sum and difference."""
    rows: list[tuple[int, int]] = []
    used: set[int] = set()
    for i, u in enumerate(matrix):
        for j in range(i + 1, len(matrix)):
            v = matrix[j]
            if {i, j} & used:
                continue
            half = [(a + b) / 2 for a, b in zip(u, v, strict=True)]
            rest = [(a - b) / 2 for a, b in zip(u, v, strict=True)]
            if _terms(half) + _terms(rest) + 2 < _terms(u) + _terms(v):
                rows.append((i, j))
                used |= {i, j}
    if rows:
        return rows, []
    columns = list(zip(*matrix, strict=True))
    pairs: list[tuple[int, int]] = []
    used = set()
    for i, u in enumerate(columns):
        for j in range(i + 1, len(columns)):
            v = columns[j]
            if {i, j} & used or _terms(u) < 2:
                continue
            if all(abs(a) == abs(b) for a, b in zip(u, v, strict=True)):
                pairs.append((i, j))
                used |= {i, j}
    return [], pairs


class _Writer:
    def __init__(self, em: Emitter, dtype: DType) -> None:
        self.em = em
        self.dtype = dtype
        self.body: Block = []
        self.count = 0

    def op(self, op: str, *args: str) -> str:
        name = self.em.name("v")
        self.body.append(Compute(name, self.dtype, op, args, self.dtype))
        self.count += 1
        return name

    def constant(self, value: Fraction) -> str:
        name = self.em.name("v")
        self.body.append(Compute(name, self.dtype, "const", (), self.dtype, float(value)))
        return name

    def combination(self, row: Sequence[Fraction], values: Sequence[str]) -> str:
        """Σ row·values; terms with factors ±1 first."""
        terms = [(c, v) for c, v in zip(row, values, strict=True) if c != 0]
        terms.sort(key=lambda t: (abs(t[0]) != 1, t[0] < 0))
        total = ""
        for c, v in terms:
            factor = v if abs(c) == 1 else self.op("mul", self.constant(abs(c)), v)
            if not total:
                total = factor if c > 0 else self.op("neg", factor)
            else:
                total = self.op("add" if c > 0 else "sub", total, factor)
        assert total
        return total

    def apply(self, matrix: Matrix, values: Sequence[str]) -> list[str]:
        rows, columns = _plan(matrix)
        if columns:
            # sums and differences of columns serve all rows
            values = list(values)
            for i, j in columns:
                both = self.op("add", values[i], values[j]), self.op("sub", values[i], values[j])
                values[i], values[j] = both
            paired = []
            for row in matrix:
                new = list(row)
                for i, j in columns:
                    a, b = row[i], row[j]
                    new[i], new[j] = (a + b) / 2, (a - b) / 2
                paired.append(new)
            return [self.combination(row, values) for row in paired]
        out = [""] * len(matrix)
        for i, j in rows:
            u, v = matrix[i], matrix[j]
            half = self.combination([(a + b) / 2 for a, b in zip(u, v, strict=True)], values)
            rest = self.combination([(a - b) / 2 for a, b in zip(u, v, strict=True)], values)
            out[i], out[j] = self.op("add", half, rest), self.op("sub", half, rest)
        for k, row in enumerate(matrix):
            if not out[k]:
                out[k] = self.combination(row, values)
        return out


def apply(
    em: Emitter, dtype: DType, matrix: Matrix, values: Sequence[str]
) -> tuple[Block, list[str]]:
    """Statements for matrix · values, and the names of the results."""
    writer = _Writer(em, dtype)
    out = writer.apply(matrix, values)
    return writer.body, out


def apply_square(
    em: Emitter, dtype: DType, matrix: Matrix, values: Sequence[Sequence[str]]
) -> tuple[Block, list[list[str]]]:
    """matrix · values · matrixᵀ, for values[row][column]."""
    writer = _Writer(em, dtype)
    columns = [writer.apply(matrix, column) for column in zip(*values, strict=True)]
    rows = list(zip(*columns, strict=True))
    return writer.body, [writer.apply(matrix, row) for row in rows]


@cache
def operations(matrix: Matrix) -> int:
    """Instructions of one application to a square of values, for cost models."""
    rows, columns = _plan(matrix)
    n, m = len(matrix[0]), len(matrix)
    single = sum(max(0, 2 * _terms(r) - 1) for r in matrix)
    single -= 2 * (len(rows) + len(columns))
    return max(1, single) * (n + m)
