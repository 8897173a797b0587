"""Reductions with what is computed before and after them, and first maxima."""

from __future__ import annotations

from dataclasses import replace

from ....ir.dims import Size, hint, product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.kernel import Region
from ....ir.kernel.memory import Access
from ....ir.kernel.scalar import ScalarBuilder
from ....ir.kernel.spaces import coalesce, order_of, project, sizes_of
from ..launches import TritonKernel
from ..scalars import emit_region
from ..writer import Coord, Tile, Writer, dtype_text, wide
from .common import PROGRAMS, Context, combine, ordered_sum, power_of_two, scratch

__all__ = ["arg_reduce", "reduce_kernel"]

#: elements of a tile: 8 a thread for four warps
TILE = 1024


def reduce_kernel(context: Context) -> TritonKernel:
    """Rows of kept elements times columns of reduced ones; long columns are split."""
    kernel = context.kernel
    anchor = kernel.anchor
    assert isinstance(anchor, anchors.Reduce)
    original = _source(kernel.before, kernel.operands)
    lead = order_of(original.loads[0]) if original.loads else range(len(original.shape))
    kept = [a for a in lead if a not in anchor.axes]
    source = _merged(original, kept, [a for a in lead if a in anchor.axes])
    axes = tuple(range(len(kept), len(source.shape)))
    rows, columns = product(source.shape[: len(kept)]), product(source.shape[len(kept) :])
    br, bc = _blocks(rows, columns, source.loads[0] if source.loads else None, axes)
    parts = _parts(rows, columns, br, bc)
    w = context.writer()
    counts = [_count(w, rows, br)] + ([str(parts)] if parts > 1 else [])
    places = w.split_program(w.program(), counts)
    row = w.let("row", f"{places[0]} * {br} + tl.arange(0, {br})")
    masks = {} if _even(rows, br) else {0: w.let("inside", f"{row} < {w.size(rows)}")}
    coords = dict(enumerate(w.split(row, source.shape[: len(kept)], 0)))
    dtype = source.program.dtype(source.program.results[0])
    start = _identity(anchor.op, dtype)
    acc = w.let("acc", f"tl.full([{br}, {bc}], {start}, {dtype_text(dtype)})")
    begin, end = "0", w.size(columns)
    if parts > 1:
        share = w.let("share", f"tl.cdiv({w.size(columns)}, {parts * bc}) * {bc}")
        begin = w.let("begin", f"{places[1]} * {share}")
        end = w.let("end", f"tl.minimum({begin} + {share}, {w.size(columns)})")
    with w.block(f"for start in range({begin}, {end}, {bc}):"):
        column = w.let("column", f"start + tl.arange(0, {bc})")
        tile, inside = _inner(w, source, axes, coords, column, (br, bc), masks, end,
                              parts > 1)  # fmt: skip
        value = emit_region(w, source, tile)[0]
        whole = f"tl.broadcast_to({value}, [{br}, {bc}])"
        if inside:
            whole = f"tl.where({inside}[None, :], {value}, {start})"
        w.line(f"{acc} = {combine(anchor.op, acc, whole, dtype)}")
    result = _across(w, anchor.op, acc, dtype)
    if parts > 1:
        partial = scratch(context, "partial", dtype, rows * parts)
        pointer = w.pointer(partial.name)
        mask = f", mask={masks[0]}" if masks else ""
        w.line(f"tl.store({pointer} + {places[1]} * {w.size(rows)} + {row}, {result}{mask})")
        first = w.launch([(rows, br), (parts, 1)], scratch=[partial],
                         tiling=f"{br} rows, {bc} columns, {parts} parts")  # fmt: skip
        order = _result_order(kernel.after, kept)
        second = ordered_sum(context, partial, parts, "_total", order, anchor.op)
        return TritonKernel(kernel, (first, second), (partial,))
    after = Tile((br,), _kept_coords(kernel.after, kept, list(coords.values())), masks)
    emit_region(w, kernel.after, after, result)
    launch = w.launch([(rows, br)], tiling=f"{br} rows, {bc} columns")
    return TritonKernel(kernel, (launch,))


def _source(before: Region | None, operands: tuple[Access, ...]) -> Region:
    """What is reduced, as a region whose result 0 it is."""
    if before is not None:
        return before
    (operand,) = operands
    builder = ScalarBuilder()
    value = builder.input(wide(operand.dtype))
    return Region(operand.shape, builder.build([value]), (operand,), ())


def _kept_coords(after: Region, kept: list[int], coords: list[Coord]) -> tuple[Coord, ...]:
    """Coordinates of the result's axes: reduced axes are gone, or stay with size 1."""
    places = dict(zip(kept, coords, strict=True))
    if len(after.shape) == len(kept):
        return tuple(places[a] for a in sorted(kept))
    return tuple(places.get(a, Coord("0", None)) for a in range(len(after.shape)))


def _result_order(after: Region, kept: list[int]) -> list[int]:
    """The result's axes in the order in which the kept ones are walked."""
    if len(after.shape) == len(kept):
        return [sorted(kept).index(a) for a in kept]
    return [*(a for a in range(len(after.shape)) if a not in kept), *kept]


def _blocks(
    rows: Size, columns: Size, lead: Access | None, axes: tuple[int, ...]
) -> tuple[int, int]:
    """Tile sizes: long along whatever lies side by side in memory."""
    innermost_reduced = lead is None or any(
        lead.strides[a] == 1 and lead.shape[a] != 1 for a in axes
    )
    if innermost_reduced:
        bc = power_of_two(hint(columns), 16, TILE)
        br = power_of_two(hint(rows), 1, max(1, TILE // bc))
    else:
        br = power_of_two(hint(rows), 16, 64)
        bc = power_of_two(hint(columns), 1, max(1, TILE // br))
    return br, bc


def _parts(rows: Size, columns: Size, br: int, bc: int) -> int:
    """Into how many sums a row is split, so that enough programs run."""
    programs = -(-hint(rows) // br)
    steps = -(-hint(columns) // bc)
    if programs >= PROGRAMS or steps < 16:
        return 1
    return max(1, min(steps // 4, PROGRAMS // programs, 64))


def _count(w: Writer, size: Size, block: int) -> str:
    return f"tl.cdiv({w.size(size)}, {block})"


def _even(size: Size, block: int) -> bool:
    return isinstance(size, int) and size % block == 0


def _identity(op: str, dtype: DType) -> str:
    if op == "sum":
        return "0.0" if dtype.is_float else "0"
    if dtype.is_float:
        return 'float("-inf")' if op == "max" else 'float("inf")'
    bits = 8 * dtype.itemsize - 1
    return str(-(2**bits) if op == "max" else 2**bits - 1)


def _across(w: Writer, op: str, acc: str, dtype: DType) -> str:
    """One value a row from a tile; ``tl.max`` alone would lose a NaN."""
    if op == "sum":
        return w.let("result", f"tl.sum({acc}, 1)")
    if not dtype.is_float:
        return w.let("result", f"tl.{op}({acc}, 1)")
    odd = w.let("odd", f"tl.max(({acc} != {acc}).to(tl.int32), 1)")
    clean = f"tl.where({acc} != {acc}, {_identity(op, dtype)}, {acc})"
    best = w.let("best", f"tl.{op}({clean}, 1)")
    return w.let("result", f'tl.where({odd} != 0, float("nan"), {best})')


def _inner(
    w: Writer,
    source: Region,
    axes: tuple[int, ...],
    coords: dict[int, Coord],
    column: str,
    block: tuple[int, int],
    masks: dict[int, str],
    end: str,
    split: bool,
) -> tuple[Tile, str]:
    """The tile of one step, and the mask of its columns (empty if none is needed)."""
    size = product(source.shape[a] for a in axes)
    inside = ""
    if split or not _even(size, block[1]):
        inside = w.let("here", f"{column} < {end}")
    found = dict(coords)
    found.update(zip(axes, w.split(column, [source.shape[a] for a in axes], 1, "j"), strict=True))
    all_masks = dict(masks) | ({1: inside} if inside else {})
    return Tile(block, tuple(found[a] for a in range(len(source.shape))), all_masks), inside


def _merged(source: Region, kept: list[int], axes: list[int]) -> Region:
    """The region with the kept axes first, then the reduced ones, merged where they can be."""
    accesses = [*source.loads, *(a for _, a in source.stores)]
    groups = coalesce(source.shape, axes, [a.strides for a in accesses])
    sizes = (*(source.shape[a] for a in kept), *sizes_of(source.shape, groups))

    def over(access: Access) -> Access:
        strides = project(source.shape, access.strides, groups)
        assert strides is not None
        both = (*(access.strides[a] for a in kept), *strides)
        return replace(access, shape=sizes, strides=both)

    return Region(sizes, source.program, tuple(map(over, source.loads)),
                  tuple((k, over(a)) for k, a in source.stores))  # fmt: skip


def arg_reduce(context: Context) -> TritonKernel:
    """Index of the first maximum or minimum of every row; the first NaN wins, as in NumPy."""
    kernel = context.kernel
    anchor = kernel.anchor
    assert isinstance(anchor, anchors.ArgReduce)
    (operand,) = kernel.operands
    axis, dtype = anchor.axis, wide(operand.dtype)
    kept = [a for a in range(len(operand.shape)) if a != axis]
    rows, columns = product(operand.shape[a] for a in kept), operand.shape[axis]
    br, bc = _blocks(rows, columns, operand, (axis,))
    w = context.writer()
    row = w.let("row", f"{w.program()} * {br} + tl.arange(0, {br})")
    masks = {} if _even(rows, br) else {0: w.let("inside", f"{row} < {w.size(rows)}")}
    coords = dict(zip(kept, w.split(row, [operand.shape[a] for a in kept], 0), strict=True))
    start = _identity(anchor.op, dtype)
    best = w.let("best", f"tl.full([{br}, {bc}], {start}, {dtype_text(dtype)})")
    last = 2**31 - 1
    where = w.let("where", f"tl.full([{br}, {bc}], {last}, tl.int32)")
    sign = ">" if anchor.op == "max" else "<"
    with w.block(f"for start in range(0, {w.size(columns)}, {bc}):"):
        column = w.let("column", f"start + tl.arange(0, {bc})")
        here = w.let("here", f"{column} < {w.size(columns)}")
        found = {**coords, axis: Coord(column, 1)}
        tile = Tile((br, bc), tuple(found[a] for a in range(len(operand.shape))),
                    {**masks, 1: here})  # fmt: skip
        x = w.load(operand, tile, full=True)
        better = f"({x} {sign} {best}) | ({where} == {last})"
        if dtype.is_float:
            better += f" | (({x} != {x}) & ({best} == {best}))"
        better = w.let("better", f"({better}) & {here}[None, :]")
        w.line(f"{best} = tl.where({better}, {x}, {best})")
        w.line(f"{where} = tl.where({better}, {column}[None, :], {where})")
    if dtype.is_float:
        top = _across(w, anchor.op, best, dtype)
        same = (f"(({best} == {top}[:, None]) | (({top} != {top})[:, None] & ({best} != {best})))"
                f" & ({where} < {last})")  # fmt: skip
    else:
        top = w.let("top", f"tl.{anchor.op}({best}, 1)")
        same = f"({best} == {top}[:, None]) & ({where} < {last})"
    first = f"tl.min(tl.where({same}, {where}, {last}), 1)"
    result_dtype = kernel.after.program.inputs[0]
    index = w.let("index", f"{first}.to({dtype_text(result_dtype)})")
    after = Tile((br,), _kept_coords(kernel.after, kept, list(coords.values())), masks)
    emit_region(w, kernel.after, after, index)
    return TritonKernel(kernel, (w.launch([(rows, br)], tiling=f"{br} rows, {bc} columns"),))
