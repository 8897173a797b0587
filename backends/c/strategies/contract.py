"""Contractions as register tiles: vectors of one operand against repeated elements of the other.

The lanes lie along the letter in which the result is contiguous. Where the operand that has
this letter is not contiguous along it, it is copied first. The sum goes in blocks, so that
the vectors of a block stay in the first cache for all rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ....ir.dims import Size, hint, product
from ....ir.kernel import anchors
from ....ir.kernel.kernel import Region
from ....ir.kernel.loops import (
    Bound,
    For,
    IndexOp,
    Let,
    Load,
    Parallel,
    Prefetch,
    Store,
    When,
)
from ....ir.kernel.memory import Access, Buffer, Space, contiguous_strides
from ..emitter import Block, Emitter, index_of, leader, round_up
from .dots import dots, is_dot
from .matvec import is_matvec, matvec
from .operand import Operand, in_panels, lanes_innermost
from .tile import Column, Tile, columns, row_count, row_options, steps, tile_columns

__all__ = ["contract"]

#: bytes of vectors that a block of the sum may keep in the first cache
BLOCK_BYTES = 24 * 1024

#: most bytes of rows that a thread copies to its stack
STACK_BYTES = 256 * 1024

#: rows in a chunk of work, about; of a large operand more, to read memory in longer pieces
CHUNK_ROWS = 32
LARGE_ROWS = 128

#: bytes of a matrix whose parts stay in the second caches of the threads that work on them
KEPT_BYTES = 4 * 2**20

#: bytes that are fetched at once
LINE = 64

#: elements of a row that are fetched ahead
MOST_AHEAD = 192

#: bytes of a matrix that a step's other kernels push out of the second cache
FAR_BYTES = 512 * 1024

#: groups of columns that make a part of such a matrix: a kilobyte of every row, to read it ahead
STRIPE = 4


def contract(em: Emitter) -> None:
    """Strategy for Contract."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Contract)
    left = Operand(em.kernel.operands[0], anchor.a)
    right = Operand(em.kernel.operands[1], anchor.b)
    after = em.kernel.after
    sizes = {c: left.size(c) for c in left.letters} | {c: right.size(c) for c in right.letters}
    lane = _lane(anchor.result, after, sizes, left, right)
    b, a = (left, right) if lane in left.letters and lane not in right.letters else (right, left)
    letters = (a.letters, b.letters)
    if is_matvec(a.access, b.access, letters, anchor.result, sizes):
        matvec(em, a.access, b.access, letters)
        return
    free = [c for c in anchor.result if c in a.letters and c not in b.letters and c != lane]
    free = [c for c in free if sizes[c] != 1]  # an axis of one element makes no rows
    row = max(free, key=lambda c: hint(sizes[c])) if free else ""
    contracted = [c for c in a.letters if c in b.letters and c not in anchor.result]
    if is_dot(a, b, sizes, lane, row, contracted):
        dots(em, a, b, sizes, lane, contracted[0])
        return
    if row and lane not in a.letters:
        lanes = sizes[lane] if lane else 1
        em.tile = tile_columns(em, -(-lanes // em.lanes) if isinstance(lanes, int) else lanes)
    if lane and b.stride(lane) != 1 and row and hint(sizes[row]) >= 4:
        panel = em.lanes * em.tile[0]
        size = sizes[lane]
        copy = "whole"
        if len(b.letters) == 2 and isinstance(size, int) and size > panel:
            copy = em.pick("copy", "panels" if size > 2 * panel else copy, ("panels", "whole"))
        if copy == "panels":
            assert isinstance(size, int)
            b = in_panels(em, b, lane, panel, size)
        else:
            b = lanes_innermost(em, b, lane)
    # the innermost loop of the sum goes where the repeated elements are contiguous
    contracted.sort(key=lambda c: -abs(hint(a.stride(c))))
    outer = [c for c in anchor.result if c not in (lane, row)]
    _tiles(em, a, b, sizes, lane, row, contracted, outer)


def _lane(result: str, after: Region, sizes: dict[str, Size], left: Operand, right: Operand) -> str:
    """The letter of the lanes: contiguous in the result, in one operand only if possible."""
    lead = leader(after)
    wide = [c for c in result if sizes[c] != 1]
    if not wide:
        return ""

    def worth(c: str) -> tuple[bool, bool, bool, int]:
        contiguous = lead.strides[result.index(c)] == 1
        single = (c in left.letters) != (c in right.letters)
        loads = left.stride(c) == 1 or right.stride(c) == 1
        return (single and hint(sizes[c]) > 1, contiguous, loads, hint(sizes[c]))

    return max(wide, key=worth)


@dataclass(frozen=True)
class Waiting:
    """Where unfinished sums wait between blocks of the contracted axis."""

    access: Access

    def at(self, position: Sequence[Size]) -> tuple[str, Size]:
        """Buffer and element of a position of the result."""
        return self.access.buffer, index_of(self.access, position)


def partial_for(em: Emitter, lane: int) -> Waiting:
    """The memory of a result if the kernel reads nothing there, else scratch.

    ``lane`` is the axis of the lanes.
    """
    after = em.kernel.after
    reads = {x.buffer for x in em.kernel.reads()}
    dtype = after.program.inputs[0]
    for _, access in after.stores:
        if access.dtype is dtype and access.buffer not in reads and access.strides[lane] == 1:
            return Waiting(access)
    order = [k for k in range(len(after.shape)) if k != lane] + [lane]
    buffer = em.scratch_buffer("sums", dtype, product(after.shape))
    strides = contiguous_strides(after.shape, tuple(order))
    return Waiting(Access(buffer.name, dtype, 0, after.shape, strides))


def _tiles(
    em: Emitter,
    a: Operand,
    b: Operand,
    sizes: dict[str, Size],
    lane: str,
    row: str,
    contracted: list[str],
    outer: list[str],
) -> None:
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Contract)
    after = em.kernel.after
    dtype = after.program.inputs[0]
    result = anchor.result
    most_columns, most_rows = em.tile
    if not row:
        most_columns *= 4  # one row: more columns, or its sums wait for each other
    if lane in a.letters:
        most_columns = 1  # both operands come as vectors: a row's element serves one column
    lanes: Size = sizes[lane] if lane else 1
    rows: Size = sizes[row] if row else 1
    chunk = em.var("c")
    at: dict[str, Size] = {}
    prologue: Block = []
    #: chunks: positions of the outer letters, times blocks of rows
    vectors = -(-lanes // em.lanes) if isinstance(lanes, int) else most_columns
    wide = min(vectors, most_columns)
    r = row_count(rows, most_rows * most_columns // wide if wide < most_columns else most_rows)
    if row and lane not in a.letters:
        r = em.pick("rows", r, row_options(em, rows, wide))
    k_outer = contracted[0] if len(contracted) == 1 else ""
    depth = sizes[k_outer] if k_outer else 1
    # rows that lie side by side are copied, a block at a time, to where they can be read in order
    packed = bool(k_outer) and bool(row) and a.stride(row) == 1 and a.stride(k_outer) != 1
    packed = packed and lane not in a.letters and isinstance(depth, int)
    step_bytes = (wide * em.lanes + (CHUNK_ROWS if packed else 0)) * dtype.itemsize
    block = max(16, BLOCK_BYTES // step_bytes)
    blocked = bool(k_outer) and bool(row) and hint(depth) > block * 3 // 2
    if k_outer and row and lane and isinstance(depth, int):
        sums = [n for n in (block // 2, block, block * 2) if n >= 16 and depth > n * 3 // 2]
        block = em.pick("block", block if blocked else depth, (*sums, depth))
        blocked = block < depth
    # a piece of the batch for each thread, unless the other operand is the larger one
    sizes_of_a, sizes_of_b = product(a.access.shape), product(b.access.shape)
    split = None
    if not isinstance(lanes, int) and hint(sizes_of_a) <= hint(sizes_of_b):
        split = em.split(lanes)
    tiles = -(-(LARGE_ROWS if hint(rows) >= 8 * LARGE_ROWS else CHUNK_ROWS) // r)
    if hint(rows) <= 2 * r * tiles:
        tiles = 1
    if isinstance(rows, int) and tiles > 1:
        # an even number of chunks, as long as each other: no thread waits for a last one
        tiles = _even(-(-rows // r), tiles)
    if isinstance(rows, int) and row:
        most_tiles = -(-rows // r)
        tiles = min(tiles, most_tiles)
        others = [n for n in (1, tiles // 2, tiles * 2, most_tiles) if 0 < n <= most_tiles]
        tiles = em.pick("tiles", tiles, others)
    row_block = r * tiles
    count_rows = round_up(rows, row_block)
    # with one row, groups of columns are what threads share
    column_groups = 1
    if not row and isinstance(lanes, int):
        column_groups = -(-vectors // most_columns)
    column_group, block_of = em.var("group"), em.var("rest")
    number, left_over = em.var("block"), em.var("outer")
    # a weight gradient: a thread has some columns, those whose products are its own going forward
    bytes_of = hint(product(after.shape)) * dtype.itemsize
    kept = bool(row) and isinstance(lanes, int) and isinstance(rows, int) and not outer
    striped = kept and vectors > 2 * most_columns and bytes_of <= KEPT_BYTES
    if striped:
        column_groups = -(-vectors // (STRIPE * most_columns))
        prologue.append(Let(number.name, IndexOp("mod", chunk, count_rows)))
        prologue.append(Let(column_group.name, IndexOp("div", chunk, count_rows)))
    else:
        prologue.append(Let(column_group.name, IndexOp("mod", chunk, column_groups)))
        prologue.append(Let(block_of.name, IndexOp("div", chunk, column_groups)))
        prologue.append(Let(number.name, IndexOp("mod", block_of, count_rows)))
        prologue.append(Let(left_over.name, IndexOp("div", block_of, count_rows)))
    count = IndexOp("mul", count_rows, column_groups)
    for c in outer:
        i, more = em.var(f"i_{c}"), em.var("outer")
        prologue.append(Let(i.name, IndexOp("mod", left_over, sizes[c])))
        prologue.append(Let(more.name, IndexOp("div", left_over, sizes[c])))
        left_over = more
        at[c] = i
        count = IndexOp("mul", count, sizes[c])
    first_row, last_row = em.var("first"), em.var("last")
    prologue.append(Let(first_row.name, number * row_block))
    prologue.append(Let(last_row.name, IndexOp("min", rows, first_row + row_block)))
    step = {c: em.var(f"k_{c}") for c in contracted}

    def place(operand: Operand, here: dict[str, Size]) -> list[Size]:
        return [here[c] for c in operand.letters]

    pitch = -(-row_block // em.lanes) * em.lanes
    longest = block + block // 2 if blocked or not isinstance(depth, int) else depth
    if packed and longest * pitch * dtype.itemsize <= STACK_BYTES:
        packed = bool(em.pick("pack", int(tiles > 1), (0, 1)))
    else:
        packed = False
    panel = Buffer(em.name("rows_here"), dtype, longest * pitch, Space.ARENA)

    def pack(lo: Size, hi: Size | IndexOp) -> Block:
        k, count = em.var("k"), em.var("count")

        def one(i: Size, part: Size | None) -> Block:
            here = {**at, row: first_row + i, k_outer: k}
            name, load = em.load(a.access, place(a, here), a.letters.index(row), part, "a")
            index = (k - lo) * pitch + i
            return [load, Store(name, dtype, panel.name, index, 1, part)]

        return [
            Let(count.name, last_row - first_row),
            For(k.name, lo, hi, tuple(em.vectors(0, count, one))),
        ]

    block_start: list[Size] = [0]

    def load_a(first: Size, number: int) -> tuple[str, Load]:
        row_at = first + number
        if packed:
            name = em.name("a")
            index = (step[k_outer] - block_start[0]) * pitch + (row_at - first_row)
            return name, Load(name, dtype, panel.name, index, 0)
        here = {**at, **step, row: row_at, lane: current[0].at}
        axis = a.letters.index(lane) if lane in a.letters else None
        return em.load(a.access, place(a, here), axis, current[0].part, "a")

    def load_b(column: Column) -> tuple[str, Load]:
        here = {**at, **step, lane: column.at}
        if b.panel:
            depth_at = column.group * depth + step[k_outer] * b.panel + (column.at - column.group)
            name = em.name("b")
            return name, Load(name, dtype, b.access.buffer, depth_at, 1, column.part)
        axis = b.letters.index(lane) if lane in b.letters else None
        return em.load(b.access, place(b, here), axis, column.part, "b")

    current: list[Column] = []

    def finish(row_at: Size, column: Column, acc: str) -> Block:
        here = {**at, row: row_at, lane: column.at}
        position = [here[c] for c in result]
        axis = result.index(lane) if lane else None
        return em.region(after, position, axis, column.part, acc)[0]

    tile = Tile(em, dtype, load_a, load_b, finish)
    partial: Callable[[Size, Column], tuple[str, Size]] | None = None
    if blocked and lane:
        waiting = partial_for(em, result.index(lane))

        def where(row_at: Size, column: Column) -> tuple[str, Size]:
            here = {**at, row: row_at, lane: column.at}
            return waiting.at([here[c] for c in result])

        partial = where

    def sum_loops(body: Block, start: Size, stop: Size | IndexOp) -> Block:
        for c in reversed(contracted):
            lo, hi = (start, stop) if c == k_outer else (0, sizes[c])
            body = [For(step[c].name, lo, hi, tuple(body))]
        return body

    def group(cols: list[Column]) -> Block:
        def rows_of(start: Size, stop: Size | IndexOp, first: bool, last: bool) -> Block:
            block_start[0] = start
            before = pack(start, stop) if packed else []
            return before + tiles_of(cols, start, stop, first, last)

        return blocks_of(rows_of)

    far_a = bool(k_outer) and bool(row) and _is_far(a.access)
    far_loads = [x for x in after.loads if row and lane and _is_far(x)
                 and x.strides[result.index(lane)] == 1]  # fmt: skip

    def ahead(
        indices: list[Size], cols: list[Column], start: Size, stop: Size | IndexOp, last: bool
    ) -> Block:
        """Fetches what is read after this tile's sum from memory that lies far away."""
        out: Block = []
        if any(c.part is not None for c in cols) or len(cols) < wide:
            return out
        places: list[tuple[Access, list[Size]]] = []
        for x in far_loads if last else ():
            for index in indices:
                here = [{**at, row: index, lane: c.at} for c in cols]
                places += [(x, [h[c] for c in result]) for h in here]
        if far_a and packed and not last and not isinstance(stop, IndexOp):
            # its share of the rows that are copied next
            share = -(-block // (tiles * r))
            for n in range(share * len(indices)):
                k = stop + (indices[0] - first_row) * share + n
                for i in range(0, row_block, LINE // dtype.itemsize):
                    places.append((a.access, place(a, {**at, row: first_row + i, k_outer: k})))
        elif far_a and not packed and a.stride(k_outer) == 1 and isinstance(depth, int):
            for index in indices:
                for k in range(0, min(block, depth, MOST_AHEAD), LINE // dtype.itemsize):
                    below = {**at, row: index + len(indices), k_outer: start + k}
                    places.append((a.access, place(a, below)))
        return [Prefetch(x.buffer, x.dtype, index_of(x, p)) for x, p in places]

    def tiles_of(
        cols: list[Column], start: Size, stop: Size | IndexOp, first: bool, last: bool
    ) -> Block:
        current[:] = cols[:1]
        return steps(
            em, first_row, last_row, r,
            lambda indices: ahead(indices, cols, start, stop, last) + tile.emit(
                indices, cols, lambda body: sum_loops(body, start, stop),
                partial=partial, first=first, last=last,
            ),
            rows,
        )  # fmt: skip

    def all_columns(start: Size, stop: Size | IndexOp, first: bool, last: bool) -> Block:
        """A block of the sum for all columns, whose rows are copied once."""
        block_start[0] = start
        out = pack(start, stop)
        for part, _ in columns(
            em, lanes, wide, lambda cols: tiles_of(cols, start, stop, first, last), split
        ):
            out += part
        return out

    def blocks_of(rows_of: Callable[[Size, Size | IndexOp, bool, bool], Block]) -> Block:
        """The sum, in blocks if partial sums can wait."""
        if partial is None:
            return rows_of(0, sizes[k_outer] if k_outer else 0, True, True)
        if isinstance(depth, int):
            cuts = list(range(0, depth, block))
            if depth - cuts[-1] < block // 2 and len(cuts) > 1:
                cuts.pop()
            ends = [*cuts[1:], depth]
            out = rows_of(0, ends[0], True, len(cuts) == 1)
            if len(cuts) > 3:
                k0 = em.var("k0")
                middle = rows_of(k0, k0 + block, False, False)
                out.append(For(k0.name, cuts[1], cuts[-1], tuple(middle), block))
            else:
                for lo, hi in zip(cuts[1:-1], ends[1:-1], strict=True):
                    out += rows_of(lo, hi, False, False)
            if len(cuts) > 1:
                out += rows_of(cuts[-1], ends[-1], False, True)
            return out
        return rows_of(0, depth, True, True)

    body: Block = list(prologue)
    if striped and isinstance(lanes, int):
        body += _wide(em, lanes, most_columns, group, (column_group, column_groups))
    elif column_groups > 1 and isinstance(lanes, int):
        width, n = em.lanes * most_columns, em.var("n")
        whole = lanes // width
        body.append(Let(n.name, column_group * width))
        full = group([Column(n + k * em.lanes, None, n) for k in range(most_columns)])
        body.append(When(column_group, whole, tuple(full)))
        if whole < column_groups:
            cols = []
            for start in range(whole * width, lanes, em.lanes):
                part = lanes - start
                cols.append(Column(start, None if part >= em.lanes else part, whole * width))
            body.append(When(whole - 1, column_group, tuple(group(cols))))
    elif lane and isinstance(lanes, int) and vectors > 2 * most_columns:
        body += _wide(em, lanes, most_columns, group)
    elif packed and lane:
        body += blocks_of(all_columns)
    else:
        for block_body, _ in columns(em, lanes, wide, group, split):
            body += block_body
    em.phase(Parallel(chunk.name, count, tuple(body), split), "" if not em.phases else "product",
             (panel,) if packed else ())  # fmt: skip


def _is_far(access: Access) -> bool:
    """A matrix too large to stay in the second cache until it is read again."""
    return hint(product(access.shape)) * access.dtype.itemsize >= FAR_BYTES


def _even(tiles: int, about: int) -> int:
    """Tiles of a chunk, about so many, with an even number of chunks that are not much longer."""

    def longest(count: int) -> int:
        chunks = -(-tiles // count)
        return (chunks + chunks % 2) * count

    near = range(max(1, about * 2 // 3), about * 3 // 2 + 1)
    return min(near, key=lambda n: (longest(n), abs(n - about)))


def _wide(
    em: Emitter,
    lanes: int,
    most: int,
    group: Callable[[list[Column]], Block],
    stripe: tuple[Size, int] = (0, 1),
) -> Block:
    """Many vectors of a fixed count: a loop over whole groups, then what is left.

    ``stripe`` is which part of the columns, and of how many.
    """
    width = em.lanes * most
    whole = lanes // width * width
    number, count = stripe
    n = em.var("n")
    inner = group([Column(n + k * em.lanes, None, n) for k in range(most)])
    start: Size = number * (STRIPE * width) if count > 1 else 0
    stop: Bound = IndexOp("min", whole, start + STRIPE * width) if count > 1 else whole
    body: Block = [For(n.name, start, stop, tuple(inner), width)]
    if whole < lanes:
        cols = []
        for at in range(whole, lanes, em.lanes):
            part = lanes - at
            cols.append(Column(at, None if part >= em.lanes else part, whole))
        last = group(cols)
        body += [When(count - 2, number, tuple(last))] if count > 1 else last
    return body
