"""The loop that contractions and convolutions share: tiles of products, summed in f32.

Rows (m), columns (n) and summed positions (k) are flat indices; what an operand's address is at
(m, k) or (k, n) is the caller's business. Where there are few tiles and long sums, the sum is
split into parts that a second launch adds in a fixed order: no atomics, the same bits each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ....ir.dims import Size, hint, product
from ....ir.dtypes import DType
from ....ir.kernel.choices import Picks
from ....ir.kernel.memory import contiguous_strides
from ..launches import TritonKernel
from ..scalars import emit_region
from ..writer import Coord, Tile, Writer, dtype_text
from .common import PROGRAMS, Context, ordered_sum, power_of_two, scratch, walk

__all__ = ["Blocks", "Problem", "matmul"]


@dataclass(frozen=True)
class Blocks:
    """Tile sizes, warps and pipeline stages."""

    m: int
    n: int
    k: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Problem:
    """Sizes of the axes behind m, n and k, and of those that every product has its own of."""

    batch: tuple[Size, ...]
    m: tuple[Size, ...]
    n: tuple[Size, ...]
    k: tuple[Size, ...]


#: loads of one operand's tile: (writer, coordinates of batch, of the rows, of the columns, tile
#: with masks) -> variable
Load = Callable[[Writer, Sequence[Coord], Sequence[Coord], Sequence[Coord], Tile], str]

#: coordinates of the result's axes from those of batch, m and n
Place = Callable[[Sequence[Coord], Sequence[Coord], Sequence[Coord]], tuple[Coord, ...]]


def choose_blocks(problem: Problem, dtype: DType, precision: str) -> Blocks:
    """By the typical sizes alone; not measured on a device."""
    m, n, k = (hint(product(s)) for s in (problem.m, problem.n, problem.k))
    wide = dtype is DType.F64
    bm = power_of_two(m, 16, 64 if wide else 128)
    bn = power_of_two(n, 16, 64 if wide else 128)
    batch = hint(product(problem.batch))
    # smaller tiles while there are too few of them to go round
    while bm * bn > 64 * 64 and batch * _cdiv(m, bm) * _cdiv(n, bn) < PROGRAMS:
        bm, bn = (bm // 2, bn) if bm >= bn else (bm, bn // 2)
    bk = power_of_two(k, 16, 64 if dtype.is_half else 32)
    if bm * bn >= 128 * 128 and precision == "f32":
        bn = 64  # without tensor cores the sums of a larger tile do not fit the registers
    warps = 8 if bm * bn >= 128 * 128 else 4
    return Blocks(bm, bn, bk, warps, 3)


def choose_parts(problem: Problem, blocks: Blocks) -> int:
    """Into how many parts the sums are split."""
    m, n, k = (hint(product(s)) for s in (problem.m, problem.n, problem.k))
    tiles = hint(product(problem.batch)) * _cdiv(m, blocks.m) * _cdiv(n, blocks.n)
    steps = _cdiv(k, blocks.k)
    if tiles * 2 > PROGRAMS or steps < 16:
        return 1
    return max(1, min(steps // 8, PROGRAMS // tiles, 64))


def pick_blocks(picks: Picks, default: Blocks, problem: Problem, dtype: DType) -> Blocks:
    """The tile, or another one that is wanted."""
    m, n, k = (hint(product(s)) for s in (problem.m, problem.n, problem.k))
    most = 64 if dtype is DType.F64 else 256

    def sizes(size: int, least: int, bound: int) -> list[int]:
        found = [least]
        while found[-1] < min(size, bound):
            found.append(found[-1] * 2)
        return found

    bm = picks.pick("m", default.m, sizes(m, 16, most))
    # a tile that is large both ways does not fit into the registers
    bn = picks.pick("n", default.n, [x for x in sizes(n, 16, most) if bm * x <= 256 * 128])
    bk = picks.pick("k", default.k, sizes(k, 16, 64))
    return Blocks(
        bm, bn, bk,
        picks.pick("warps", default.warps, (4, 8)),
        picks.pick("stages", default.stages, (2, 3, 4)),
    )  # fmt: skip


def part_options(problem: Problem, blocks: Blocks, default: int) -> list[int]:
    """Other numbers of parts of the sums: none, half and twice as many."""
    steps = _cdiv(hint(product(problem.k)), blocks.k)
    return [p for p in (1, default // 2, default * 2, 4) if p > 0 and p * 4 <= max(4, steps)]


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def matmul(
    context: Context, problem: Problem, left: Load, right: Load, place: Place, dtype: DType
) -> TritonKernel:
    """The kernel: loop, then the region after the anchor, in the sums' registers."""
    kernel = context.kernel
    precision = str(dtype) if dtype is not DType.F32 else context.options.precision
    b = pick_blocks(context.picks, choose_blocks(problem, dtype, precision), problem, dtype)
    parts = choose_parts(problem, b)
    parts = context.picks.pick("parts", parts, part_options(problem, b, parts))
    w = context.writer()
    sizes = {"m": product(problem.m), "n": product(problem.n), "k": product(problem.k)}
    counts = [
        *([str(parts)] if parts > 1 else []),
        *([w.size(product(problem.batch))] if product(problem.batch) != 1 else []),
        f"tl.cdiv({w.size(sizes['m'])}, {b.m})",
        f"tl.cdiv({w.size(sizes['n'])}, {b.n})",
    ]
    places = w.split_program(w.program(), counts)
    part = places.pop(0) if parts > 1 else "0"
    batch = w.split(places.pop(0), problem.batch, None, "b") if len(places) == 3 else [
        Coord("0", None)] * len(problem.batch)  # fmt: skip
    m, inside_m = _line(w, "m", places[0], b.m, sizes["m"])
    n, inside_n = _line(w, "n", places[1], b.n, sizes["n"])
    rows, columns = w.split(m, problem.m, 0, "m"), w.split(n, problem.n, 1, "n")
    acc_dtype = DType.F64 if dtype is DType.F64 else DType.F32
    acc = w.let("acc", f"tl.zeros([{b.m}, {b.n}], {dtype_text(acc_dtype)})")
    begin, end = "0", w.size(sizes["k"])
    if parts > 1:
        share = w.let("share", f"tl.cdiv({w.size(sizes['k'])}, {parts * b.k}) * {b.k}")
        begin = w.let("begin", f"{part} * {share}")
        end = w.let("end", f"tl.minimum({begin} + {share}, {w.size(sizes['k'])})")
    with w.block(f"for start in range({begin}, {end}, {b.k}):"):
        k = w.let("k", f"start + tl.arange(0, {b.k})")
        masked = parts > 1 or not _even(sizes["k"], b.k)
        inside_k = w.let("here", f"{k} < {end}") if masked else ""
        down = w.split(k, problem.k, 0, "k")
        across = [Coord(c.text, None if c.dim is None else 1) for c in down]
        mk = _masks({0: inside_m, 1: inside_k})
        kn = _masks({0: inside_k, 1: inside_n})
        x = left(w, batch, rows, across, Tile((b.m, b.k), (), mk))
        y = right(w, batch, down, columns, Tile((b.k, b.n), (), kn))
        if dtype.is_half:
            w.helpers.add("half")
            x, y = f"half({x})", f"half({y})"
        how = "tf32" if precision == "tf32" else "ieee"
        w.line(f'{acc} = tl.dot({x}, {y}, {acc}, input_precision="{how}", '
               f"out_dtype={dtype_text(acc_dtype)})")  # fmt: skip
    tiling = f"{b.m} x {b.n} results, {b.k} products a step, {precision}"
    coords = place(batch, rows, columns)
    tile = Tile((b.m, b.n), coords, _masks({0: inside_m, 1: inside_n}))
    grid = [(sizes["m"], b.m), (sizes["n"], b.n), (product(problem.batch), 1)]
    if parts == 1:
        emit_region(w, kernel.after, tile, acc)
        launch = w.launch(grid, warps=b.warps, stages=b.stages, tiling=tiling)
        return TritonKernel(kernel, (launch,))
    total = product(kernel.after.shape)
    partial = scratch(context, "partial", acc_dtype, total * parts)
    order = walk(kernel.after)
    _store_part(w, kernel.after.shape, order, tile, w.pointer(partial.name), part, acc)
    first = w.launch([*grid, (parts, 1)], warps=b.warps, stages=b.stages, scratch=[partial],
                     tiling=f"{tiling}, {parts} parts")  # fmt: skip
    second = ordered_sum(context, partial, parts, "_total", order)
    return TritonKernel(kernel, (first, second), (partial,))


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
