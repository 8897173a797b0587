"""Register tiles: outer products of repeated elements and vectors, summed in registers.

A tile has rows, each a repeated element of one operand, and columns, each a vector of the
other; an accumulator stands where they cross. Per step of the sum a tile of r rows and c
columns loads r + c values for r·c multiply-adds, which is why tiles are as large as the
registers allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ....ir.dims import Size
from ....ir.dtypes import DType
from ....ir.kernel.loops import (
    Bound,
    Fill,
    Fma,
    For,
    IndexOp,
    Let,
    Load,
    Split,
    Statement,
    Store,
    When,
    var,
)
from ..emitter import Block, Emitter

__all__ = ["Column", "Tile", "columns", "row_count", "row_options", "steps", "tile_columns"]


@dataclass(frozen=True)
class Column:
    """A vector of columns: its position on the axis of the lanes, and how many lanes exist.

    ``group`` is where its group of columns starts.
    """

    at: Size
    part: Size | None
    group: Size = 0
    #: how many places further on the last axis of an image
    shift: int = 0


@dataclass(frozen=True)
class Tile:
    """Emits tiles of one kernel.

    ``a`` loads an element of the tile's k-th row, given its first row, and ``b`` a column's
    vector, at the current step.
    ``finish`` gives what happens to a finished sum.
    """

    em: Emitter
    dtype: DType
    a: Callable[[Size, int], tuple[str, Load]]
    b: Callable[[Column], tuple[str, Load]]
    finish: Callable[[Size, Column, str], Block]

    def emit(
        self,
        rows: Sequence[Size],
        columns: Sequence[Column],
        steps: Callable[[Block], Block],
        *,
        partial: Callable[[Size, Column], tuple[str, Size]] | None = None,
        first: bool = True,
        last: bool = True,
    ) -> Block:
        """One tile. ``steps`` wraps the body of one step in the loops of the sum.

        ``partial`` gives buffer and element where a sum waits: the sums start from there
        unless ``first``, and go back there unless ``last``.
        """
        em = self.em
        body: Block = []
        accs = [[em.name("s") for _ in columns] for _ in rows]
        for r, row in enumerate(rows):
            for c, column in enumerate(columns):
                if first or partial is None:
                    body.append(Fill(accs[r][c], self.dtype, 0))
                else:
                    waiting = partial(row, column)
                    body.append(Load(accs[r][c], self.dtype, *waiting, 1, column.part))
        step: Block = []
        vectors = []
        for column in columns:
            name, load = self.b(column)
            vectors.append(name)
            step.append(load)
        for r in range(len(rows)):
            name, load = self.a(rows[0], r)
            step.append(load)
            step += [Fma(accs[r][c], name, v, self.dtype) for c, v in enumerate(vectors)]
        body += steps(step)
        for r, row in enumerate(rows):
            for c, column in enumerate(columns):
                if last or partial is None:
                    body += self.finish(row, column, accs[r][c])
                else:
                    waiting = partial(row, column)
                    body.append(Store(accs[r][c], self.dtype, *waiting, 1, column.part))
        return body


#: cycles that a step of a tile takes beside its multiply-adds, of which two start in one cycle, and
#: cycles that a sum waits for its last product
STEP_CYCLES = 1.5
LATENCY = 4


def row_count(rows: Size, most: int, columns: int = 0) -> int:
    """Rows of a tile: the most that divide the axis, if that wastes little; else the most.

    With ``columns`` the most are taken as well where they take clearly fewer cycles.
    """
    if not isinstance(rows, int):
        return most
    if rows <= most:
        return rows
    for count in range(most, max(1, most * 2 // 3) - 1, -1):
        if rows % count == 0:
            if columns and _cycles(rows, most, columns) < 0.97 * _cycles(rows, count, columns):
                return most
            return count
    # as even as possible: 500 rows with at most 12 are 41 tiles of 12 and one of 8
    return most


def _cycles(rows: int, count: int, columns: int) -> float:
    """Cycles of a step of all tiles of so many rows, and of what they leave."""
    tiles = [count] * (rows // count) + ([rows % count] if rows % count else [])
    return sum(max(LATENCY, r * columns / 2) + STEP_CYCLES for r in tiles)


def row_options(em: Emitter, rows: Size, columns: int) -> list[int]:
    """Rows of a tile of so many columns that leave registers for its vectors and an element.

    From the most that there are to half of it, in few steps.
    """
    most = max(1, (em.vectors_held - 1 - columns) // columns)
    if isinstance(rows, int):
        most = min(most, rows)
    step = max(1, most // 8)
    return list(range(most, max(1, most // 2) - 1, -step))


def tile_columns(em: Emitter, vectors: Size) -> tuple[int, int]:
    """Columns of a tile and about how many rows it then has; ``vectors`` is what there is."""
    columns, rows = em.tile
    held = em.vectors_held
    others = [c for c in (1, 2, 3, 4, 6) if 3 * c < held]
    if isinstance(vectors, int):
        others = [c for c in others if c <= vectors]
    taken = em.pick("columns", columns, others)
    return taken, rows * columns // taken


def steps(
    em: Emitter,
    start: Bound,
    stop: Bound,
    count: int,
    body: Callable[[list[Size]], Block],
    size: Size,
    base: str = "r",
) -> Block:
    """[start, stop) in groups of ``count`` indices; ``body`` gets the indices of one group.

    The interval is a part of an axis of ``size`` that starts at a multiple of ``count``, and
    ends at one unless it ends with the axis.
    """
    if isinstance(start, int) and isinstance(stop, int):
        whole = start + (stop - start) // count * count
        out: Block = []
        if whole - start == count:
            out += body([start + k for k in range(count)])
        elif whole > start:
            i = em.var(base)
            out.append(For(i.name, start, whole, tuple(body([i + k for k in range(count)])), count))
        if whole < stop:
            out += body([whole + k for k in range(stop - whole)])
        return out
    i, j, end = em.var(base), em.var(base), em.var("whole")
    if isinstance(size, int) and size % count == 0:
        group = body([i + k for k in range(count)])
        return [For(i.name, start, stop, tuple(group), count)]
    rest: Bound = IndexOp("mod", IndexOp("sub", stop, start), count)
    out = [Let(end.name, IndexOp("sub", stop, rest))]
    out.append(For(i.name, start, end, tuple(body([i + k for k in range(count)])), count))
    if isinstance(size, int):
        tail = body([end + k for k in range(size % count)])
        left: Bound = IndexOp("sub", stop, end)
        out.append(When(0, left, tuple(tail)))
        if size < count:
            return [Let(end.name, start), When(0, IndexOp("sub", stop, start), tuple(tail))]
    elif count > 1:
        out.append(For(j.name, end, stop, tuple(body([j]))))
    return out


def columns(
    em: Emitter,
    size: Size,
    most: int,
    body: Callable[[list[Column]], Block],
    split: Split | None = None,
) -> list[tuple[Block, int]]:
    """The axis of the lanes, or a piece of it, in groups of up to ``most`` vectors.

    Returns blocks of statements with the number of columns in their widest group, one block
    for each group of a fixed size, or one for all of a symbolic one.
    """
    width = em.lanes
    lo: Size = 0 if split is None else var(split.lo)
    hi: Size = size if split is None else var(split.hi)
    if isinstance(size, int) and split is None:
        vectors = -(-size // width)
        groups = -(-vectors // most)
        out: list[tuple[Block, int]] = []
        start = 0
        for g in range(groups):
            count = vectors // groups + (g < vectors % groups)
            cols = []
            for k in range(start, start + count):
                part = size - k * width
                cols.append(Column(k * width, None if part >= width else part))
            out.append((body(cols), count))
            start += count
        return out
    rest, end, whole = em.var("rest"), em.var("wide"), em.var("whole")
    i, j = em.var("n"), em.var("n")
    many = body([Column(i + k * width, None) for k in range(most)])
    one = body([Column(j, None)])
    tail = body([Column(whole, rest)])
    statements: list[Statement] = [
        Let(rest.name, IndexOp("mod", hi - lo, width)),
        Let(whole.name, hi - rest),
        Let(end.name, IndexOp("sub", hi, IndexOp("mod", hi - lo, width * most))),
        For(i.name, lo, end, tuple(many), width * most),
        For(j.name, end, whole, tuple(one), width),
        When(0, rest, tuple(tail)),
    ]
    return [(statements, most)]
