"""The loop that contractions and convolutions share: tiles of products, summed in f32.

Rows (m), columns (n) and summed positions (k) are flat indices; what an operand's address is at
(m, k) or (k, n) is the caller's business. Where there are few tiles and long sums, the sum is
split into parts that a second launch adds in a fixed order: no atomics, the same bits each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ....ir.dims import Size, hint, product
from ....ir.dtypes import DType
from ....ir.kernel.kernel import Kernel
from ....ir.kernel.memory import contiguous_strides
from ..launches import TritonKernel
from ..scalars import emit_region
from ..writer import Coord, Tile, Writer, dtype_text
from .common import NARROW, Context, ordered_sum, scratch, walk
from .matrices import Matrix, by_descriptors
from .tiles import Blocks, Operands, Problem, choose, narrow_operands

__all__ = ["Operands", "Problem", "matmul"]


#: loads of one operand's tile: (writer, coordinates of batch, of the rows, of the columns, tile
#: with masks) -> variable
Load = Callable[[Writer, Sequence[Coord], Sequence[Coord], Sequence[Coord], Tile], str]

#: coordinates of the result's axes from those of batch, m and n
Place = Callable[[Sequence[Coord], Sequence[Coord], Sequence[Coord]], tuple[Coord, ...]]


#: tiles of rows that neighbouring programs share the columns of, where there are many of both
GROUP = 8


def matmul(
    context: Context,
    problem: Problem,
    left: Load,
    right: Load,
    place: Place,
    operands: Operands,
    matrices: tuple[Matrix | None, Matrix | None] = (None, None),
) -> TritonKernel:
    """The kernel: loop, then the region after the anchor, in the sums' registers.

    ``matrices`` are the operands as such, where they are: their places are then walked as one
    axis, and descriptors could read them.
    """
    kernel, dtype = context.kernel, operands.dtype
    precision = str(dtype) if dtype is not DType.F32 else context.options.precision
    beside = replace(operands, reads_more=_reads_more(kernel))
    b = choose(problem, beside, context.options, context.picks)
    boxed = by_descriptors(context, matrices, dtype)
    w = context.writer()
    sizes = {"m": product(problem.m), "n": product(problem.n), "k": product(problem.k)}
    m_dim, n_dim = (1, 0) if b.swap else (0, 1)
    bm, bn = (b.n, b.m) if b.swap else (b.m, b.n)
    counts = [
        *([str(b.parts)] if b.parts > 1 else []),
        *([w.size(product(problem.batch))] if product(problem.batch) != 1 else []),
        f"tl.cdiv({w.size(sizes['m'])}, {bm})",
        f"tl.cdiv({w.size(sizes['n'])}, {bn})",
    ]
    part, batch_at, m_at, n_at = _places(w, counts, b.parts > 1, problem, (bm, bn))
    batch = w.split(batch_at, problem.batch, None, "b")
    m, inside_m = _line(w, "m", m_at, bm, sizes["m"])
    n, inside_n = _line(w, "n", n_at, bn, sizes["n"])
    m_coords, n_coords = w.split(m, problem.m, m_dim, "m"), w.split(n, problem.n, n_dim, "n")
    acc_dtype = DType.F64 if dtype is DType.F64 else DType.F32
    acc = w.let("acc", f"tl.zeros([{b.m}, {b.n}], {dtype_text(acc_dtype)})")
    sides = ((m_at, bm), (n_at, bn))
    boxes = [None if x is None else x.descriptor(w, block, b.k)
             for x, (_, block) in zip(boxed, sides, strict=True)]  # fmt: skip
    flat = None not in matrices
    walked = replace(problem, k=(sizes["k"],)) if flat else problem
    begin, end = "0", w.size(sizes["k"])
    if b.parts > 1:
        share = w.let("share", f"tl.cdiv({w.size(sizes['k'])}, {b.parts * b.k}) * {b.k}")
        begin = w.let("begin", f"{part} * {share}")
        end = w.let("end", f"tl.minimum({begin} + {share}, {w.size(sizes['k'])})")
    with w.block(f"for start in range({begin}, {end}, {b.k}):"):
        k, inside_k = _summed(w, walked, b, end) if None in boxes else ([], "")
        across, down = (_along(k, dim) for dim in (1, 0))
        first = Tile((b.m, b.k), (), _masks({0: inside_n if b.swap else inside_m, 1: inside_k}))
        second = Tile((b.k, b.n), (), _masks({0: inside_k, 1: inside_m if b.swap else inside_n}))

        def operand(number: int, is_first: bool) -> str:
            """The left or the right one, as the product's first or second."""
            matrix, box, (at, block) = boxed[number], boxes[number], sides[number]
            if matrix is not None and box is not None:
                return matrix.load(w, box, f"{at} * {block}", "start", "ab"[number], is_first)
            tile, summed = (first, across) if is_first else (second, down)
            matrix = matrices[number]
            if flat and matrix is not None:
                free = Coord((m, n)[number], 0 if is_first else 1)
                return matrix.load_at(w, free, summed[0], tile, "ab"[number])
            if number == 0:
                return left(w, batch, m_coords, summed, tile)
            return right(w, batch, summed, n_coords, tile)

        x, y = operand(int(b.swap), True), operand(int(not b.swap), False)
        if dtype.is_half:
            w.helpers.add("half")
            x, y = f"half({x})", f"half({y})"
        elif precision == "tf32" and not (operands.right_along_k if b.swap else
                                          operands.left_along_k):  # fmt: skip
            # by way of registers, where it need not lie along the sum
            w.helpers.add("tf32")
            x = f"tf32({x})"
        how = "tf32" if precision == "tf32" else "ieee"
        w.line(f'{acc} = tl.dot({x}, {y}, {acc}, input_precision="{how}", '
               f"out_dtype={dtype_text(acc_dtype)})")  # fmt: skip
    tiling = f"{b.m} x {b.n} results, {b.k} products a step, {precision}"
    if b.parts > 1:
        tiling += f", {b.parts} parts"
    if any(boxes):
        tiling += ", by descriptors"
    if narrow := narrow_operands(b, operands, context.options, [x is not None for x in boxed]):
        tiling += f"; {NARROW}{'; '.join(narrow)}"
    coords = place(batch, m_coords, n_coords)
    tile = Tile((b.m, b.n), coords, _masks({m_dim: inside_m, n_dim: inside_n}))
    grid = [(sizes["m"], bm), (sizes["n"], bn), (product(problem.batch), 1)]
    if b.parts == 1:
        emit_region(w, kernel.after, tile, acc)
        launch = w.launch(grid, warps=b.warps, stages=b.stages, tiling=tiling)
        return TritonKernel(kernel, (launch,))
    total = product(kernel.after.shape)
    partial = scratch(context, "partial", acc_dtype, total * b.parts)
    order = walk(kernel.after)
    _store_part(w, kernel.after.shape, order, tile, w.pointer(partial.name), part, acc)
    launch = w.launch([*grid, (b.parts, 1)], warps=b.warps, stages=b.stages, scratch=[partial],
                      tiling=tiling)  # fmt: skip
    second_launch = ordered_sum(context, partial, b.parts, "_total", order)
    return TritonKernel(kernel, (launch, second_launch), (partial,))


def _places(
    w: Writer, counts: list[str], split: bool, problem: Problem, blocks: tuple[int, int]
) -> tuple[str, str, str, str]:
    """Which part, batch, tile of rows and tile of columns a program has.

    Columns change fastest: neighbours read the same rows. Where there are many tiles both ways,
    neighbours are a square of them, whose operands stay in the cache together.
    """
    many = all(
        -(-hint(product(shape)) // block) > GROUP
        for shape, block in zip((problem.m, problem.n), blocks, strict=True)
    )
    rows, columns = counts[-2:]
    outer = counts[:-2]
    if many:
        places = w.split_program(w.program(), [*outer, f"({rows} * {columns})"])
        tile = places.pop()
        first = w.let("first", f"{tile} // ({GROUP} * {columns}) * {GROUP}")
        height = w.let("height", f"tl.minimum({rows} - {first}, {GROUP})")
        within = w.let("within", f"{tile} % ({GROUP} * {columns})")
        m_at, n_at = f"({first} + {within} % {height})", f"({within} // {height})"
    else:
        places = w.split_program(w.program(), counts)
        n_at, m_at = places.pop(), places.pop()
    part = places.pop(0) if split else "0"
    return part, places.pop() if places else "0", m_at, n_at


def _summed(w: Writer, problem: Problem, b: Blocks, end: str) -> tuple[list[Coord], str]:
    """Coordinates of a step's summed positions, without a place in the tile; and their mask."""
    inner = problem.k[-1] if problem.k else 1
    if len(problem.k) > 1 and _even(inner, b.k):
        # a step stays within the innermost axis: all else is the same for all of it
        at = w.let("at", f"start % {w.size(inner)}")
        rest = w.let("rest", f"start // {w.size(inner)}")
        k = w.let("k", f"{at} + tl.arange(0, {b.k})")
        return [*w.split(rest, problem.k[:-1], None, "k"), Coord(k, 0)], ""
    k = w.let("k", f"start + tl.arange(0, {b.k})")
    masked = not _even(product(problem.k), b.k)  # parts are whole steps
    inside = w.let("here", f"{k} < {end}") if masked else ""
    return w.split(k, problem.k, 0, "k"), inside


def _along(coords: Sequence[Coord], dim: int) -> list[Coord]:
    return [Coord(c.text, None if c.dim is None else dim) for c in coords]


def _reads_more(kernel: Kernel) -> bool:
    """Whether the region after the sums reads values of more than one axis."""
    return any(
        sum(stride != 0 and size != 1 for stride, size in zip(a.strides, a.shape, strict=True)) > 1
        for a in kernel.after.loads
    )


def _line(w: Writer, name: str, place: str, block: int, size: Size) -> tuple[str, str]:
    """A flat index along one side of the tile, and its mask (empty if none is needed)."""
    flat = w.let(f"{name}_", f"{place} * {block} + tl.arange(0, {block})")
    if _even(size, block):
        return flat, ""
    return flat, w.let("inside", f"{flat} < {w.size(size)}")


def _masks(found: dict[int, str]) -> dict[int, str]:
    return {d: text for d, text in found.items() if text}


def _even(size: Size, block: int) -> bool:
    return isinstance(size, int) and size % block == 0


def _store_part(
    w: Writer,
    shape: Sequence[Size],
    order: Sequence[int],
    tile: Tile,
    pointer: str,
    part: str,
    value: str,
) -> None:
    """One part of a split sum, axes of the result in this order."""
    strides = contiguous_strides(tuple(shape), tuple(order))
    step = product(shape)
    terms = list(zip(tile.coords, strides, shape, strict=True))
    offset, dims = w.sum_of(tile, 0, terms, full=True)
    mask = tile.mask(dims)
    extra = f", mask={mask}" if mask else ""
    w.line(f"tl.store({pointer} + {part} * {w.size(step)} + {offset}, {value}{extra})")
