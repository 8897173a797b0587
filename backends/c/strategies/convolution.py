"""Convolutions without a matrix of patches: loops over taps around register tiles.

The lanes are neighbouring examples, so that nothing depends on how wide an image or how many
the channels are. Forward and input gradient are sums over channels and taps of weights,
repeated, times vectors of the image; the weight gradient sums products of vectors and adds up
the lanes at the end. Padding is never stored: the loops over taps leave it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ....ir.dims import Dim, Size, exact_div, hint, product
from ....ir.kernel import anchors
from ....ir.kernel.kernel import Region
from ....ir.kernel.loops import (
    Bound,
    Fill,
    Fma,
    For,
    IndexOp,
    Let,
    Load,
    Parallel,
    Reduce,
    Store,
    When,
)
from ....ir.kernel.memory import Access, contiguous_strides
from ....ir.kernel.scalar import ScalarBuilder
from ..emitter import Block, Emitter, index_of, round_up
from ..maps import map_region
from .common import anchor_target, epilogue
from .contract import BLOCK_BYTES, partial_for
from .tile import Column, Tile, columns, row_count, steps

__all__ = ["convolution", "convolution_input_grad", "convolution_weight_grad"]


@dataclass(frozen=True)
class _Axis:
    """One spatial axis: the loop over its taps at an output place."""

    tap: Dim
    kernel: int
    #: index on the image that is read
    image: Size
    #: statements before the loop, and its bounds
    before: tuple[Let, ...]
    first: Bound
    last: Bound
    step: int = 1


def _fixed(size: Size) -> int:
    assert isinstance(size, int)
    return size


def _forward_axis(
    em: Emitter, at: Size, size: Size, kernel: int, stride: int, lo: int, hi: int, dilation: int
) -> _Axis:
    tap = em.var("k")
    origin = at * stride - lo
    before: list[Let] = []
    first: Bound = 0
    last: Bound = kernel
    if lo > 0:
        low = em.var("first")
        least = IndexOp("div", dilation - 1 - origin, dilation)
        before.append(Let(low.name, IndexOp("max", 0, least)))
        first = low
    if hi > 0:
        high = em.var("last")
        most = IndexOp("div", size - origin + (dilation - 1), dilation)
        before.append(Let(high.name, IndexOp("min", kernel, most)))
        last = high
    return _Axis(tap, kernel, origin + tap * dilation, tuple(before), first, last)


def _adjoint_axis(
    em: Emitter, at: Size, size: Size, kernel: int, stride: int, lo: int, dilation: int
) -> _Axis:
    """Taps through which ``at`` of the input reaches places of the output, of ``size``.

    Place o and tap k meet at o·stride + k·dilation − lo. Without dilation every stride-th tap
    does, without a stride every one. With both, the tap is tried and left out inside the loop.
    """
    reach = at + lo
    low, high = em.var("first"), em.var("last")
    if stride == 1:
        tap = em.var("k")
        least = IndexOp("div", reach - size + dilation, dilation)
        most = IndexOp("add", IndexOp("div", reach, dilation), 1)
        before: tuple[Let, ...] = (
            Let(low.name, IndexOp("max", 0, least)),
            Let(high.name, IndexOp("min", kernel, most)),
        )
        return _Axis(tap, kernel, reach - tap * dilation, before, low, high)
    if dilation == 1:
        # tap = phase + stride·j meets place (reach − phase)/stride − j
        j, phase, top = em.var("j"), em.var("phase"), em.var("top")
        before = (
            Let(phase.name, IndexOp("mod", reach, stride)),
            Let(top.name, IndexOp("div", reach, stride)),
            Let(low.name, IndexOp("max", 0, top - size + 1)),
            Let(high.name, IndexOp("min", top + 1,
                                   IndexOp("div", IndexOp("sub", kernel + stride - 1, phase),
                                           stride))),
        )  # fmt: skip
        return _Strided(j, kernel, top - j, before, low, high, 1, phase + j * stride)
    tap, place = em.var("k"), em.var("place")
    return _Tried(tap, kernel, place, (), 0, kernel, 1, reach - tap * dilation, stride, size)


@dataclass(frozen=True)
class _Strided(_Axis):
    """The loop's variable counts taps of one phase; ``number`` is the tap."""

    number: Size = 0


@dataclass(frozen=True)
class _Tried(_Axis):
    """``offset`` must be a multiple of ``stride`` and the quotient, ``image``, in the image."""

    offset: Size = 0
    stride: int = 1
    size: Size = 0


def _tap(axis: _Axis) -> Size:
    return axis.number if isinstance(axis, _Strided) else axis.tap


def _over_taps(axes: Sequence[_Axis], body: Block) -> Block:
    """The body inside the loops over all taps; the innermost axis runs fastest."""
    for axis in reversed(axes):
        if isinstance(axis, _Tried):
            assert isinstance(axis.image, Dim)
            inside = IndexOp("min", axis.size - 1 - axis.image, axis.image)
            body = [
                When(IndexOp("mod", axis.offset, axis.stride), 1, (
                    Let(axis.image.name, IndexOp("div", axis.offset, axis.stride)),
                    When(-1, inside, tuple(body)),
                ))
            ]  # fmt: skip
        body = [For(axis.tap.name, axis.first, axis.last, tuple(body), axis.step)]
    return body


def _sum_over_taps(
    em: Emitter,
    x: Access,
    w: Access,
    groups: int,
    rows: Size,
    depth: Size,
    row_of_w: Callable[[Size, Size, Sequence[Size]], list[Size]],
    axes_at: Callable[[Sequence[Size]], list[_Axis]],
) -> None:
    """Forward convolution and input gradient: for each place, rows times vectors of examples.

    ``rows`` and ``depth`` are output and input channels of one group; ``row_of_w`` gives the
    position in ``w`` of a row, a channel and the taps; ``axes_at`` the loops over taps.
    """
    after = em.kernel.after
    dtype = after.program.inputs[0]
    rank = len(after.shape) - 2
    spatial = after.shape[2:]
    lanes = after.shape[0]
    most_columns, most_rows = em.tile
    vectors = -(-lanes // em.lanes) if isinstance(lanes, int) else most_columns
    split = None if isinstance(lanes, int) else em.split(lanes)
    wide = min(vectors, most_columns)
    # few columns leave registers for more rows
    r = row_count(rows, most_rows if wide > 1 else 2 * most_rows)
    taps = int(hint(product(w.shape[2:])))
    step_bytes = wide * em.lanes * dtype.itemsize * taps
    block = max(1, BLOCK_BYTES // step_bytes)
    blocked = hint(depth) > block * 3 // 2 and hint(rows) > 2 * r and isinstance(depth, int)

    # a chunk: one group, one place on the outermost spatial axis, all rows
    row_blocks = 1
    chunk, y = em.var("c"), em.var("y")
    number, group, more = em.var("block"), em.var("g"), em.var("rest")
    places_left = hint(spatial[0]) * groups if rank else groups
    if places_left < 8:
        row_blocks = max(1, min(8, -(-int(hint(rows)) // (2 * r))))
    row_block = -(-int(hint(rows)) // row_blocks)
    row_block = -(-row_block // r) * r
    row_blocks_of = round_up(rows, row_block)
    first_row, last_row = em.var("first"), em.var("last")
    body: Block = [
        Let(number.name, IndexOp("mod", chunk, row_blocks_of)),
        Let(more.name, IndexOp("div", chunk, row_blocks_of)),
        Let(group.name, IndexOp("mod", more, groups)),
        Let(y.name, IndexOp("div", more, groups)),
        Let(first_row.name, number * row_block),
        Let(last_row.name, IndexOp("min", rows, first_row + row_block)),
    ]
    others = [em.var("x") for _ in range(max(0, rank - 1))]
    place: list[Size] = [y, *others] if rank else []
    axes = axes_at(place)
    k = em.var("k_c")

    def load_w(row: Size) -> tuple[str, Load]:
        position = row_of_w(group, row, [k, *(_tap(a) for a in axes)])
        return em.load(w, position, None, None, "w")

    def load_x(column: Column) -> tuple[str, Load]:
        at = [column.at, group * depth + k, *(a.image for a in axes)]
        return em.load(x, at, 0, column.part, "x")

    def finish(row: Size, column: Column, acc: str) -> Block:
        at = [column.at, group * rows + row, *place]
        return em.region(after, at, 0, column.part, acc)[0]

    tile = Tile(em, dtype, load_w, load_x, finish)
    partial = None
    if blocked:
        rest = {2 + i: p for i, p in enumerate(place)}
        found = partial_for(em, (1, 0), rest)
        partial = type(found)(
            found.buffer, lambda row, column: found.index(group * rows + row, column)
        )

    def group_of(cols: list[Column]) -> Block:
        def rows_of(lo: Size, hi: Size, first: bool, last: bool) -> Block:
            def loops(step: Block) -> Block:
                return [For(k.name, lo, hi, tuple(_over_taps(axes, step)))]

            return steps(
                em, first_row, last_row, r,
                lambda indices: tile.emit(
                    indices, cols, loops, partial=partial, first=first, last=last
                ),
                rows,
            )  # fmt: skip

        if partial is None:
            return rows_of(0, depth, True, True)
        size = _fixed(depth)
        cuts = list(range(0, size, block))
        if size - cuts[-1] < (block + 1) // 2 and len(cuts) > 1:
            cuts.pop()
        out = rows_of(0, cuts[1], True, False)
        if len(cuts) > 2:
            k0 = em.var("k0")
            middle = rows_of(k0, k0 + block, False, False)
            out.append(For(k0.name, cuts[1], cuts[-1], tuple(middle), block))
        return out + rows_of(cuts[-1], size, False, True)

    inner: Block = []
    for lets in axes[1:]:
        inner += lets.before
    for columns_body, _ in columns(em, lanes, wide, group_of, split):
        inner += columns_body
    for variable, size in zip(reversed(others), reversed(spatial[1:]), strict=True):
        inner = [For(variable.name, 0, size, tuple(inner))]
    if axes:
        body += axes[0].before
    count: Bound = IndexOp("mul", row_blocks_of, groups)
    if rank:
        count = IndexOp("mul", count, spatial[0])
    em.phase(Parallel(chunk.name, count, (*body, *inner), split),
             "" if not em.phases else "sums over channels and taps")  # fmt: skip


def convolution(em: Emitter) -> None:
    """Strategy for Convolution."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Convolution)
    x, w = em.kernel.operands
    rows = exact_div(w.shape[0], anchor.groups)
    assert rows is not None

    def axes_at(place: Sequence[Size]) -> list[_Axis]:
        return [
            _forward_axis(em, at, size, _fixed(kernel), s, lo, hi, d)
            for at, size, kernel, s, (lo, hi), d in zip(
                place, x.shape[2:], w.shape[2:], anchor.stride, anchor.padding, anchor.dilation,
                strict=True,
            )
        ]  # fmt: skip

    def position(group: Size, row: Size, rest: Sequence[Size]) -> list[Size]:
        return [group * rows + row, *rest]

    _sum_over_taps(em, x, w, anchor.groups, rows, w.shape[1], position, axes_at)


def convolution_input_grad(em: Emitter) -> None:
    """Strategy for ConvolutionInputGrad: weights are turned so that a row lies in one piece."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.ConvolutionInputGrad)
    dy, w = em.kernel.operands
    depth = exact_div(w.shape[0], anchor.groups)
    assert depth is not None
    # [O, C, *K] as [C, O, *K] in memory
    order = (1, 0, *range(2, len(w.shape)))
    buffer = em.scratch_buffer("turned", w.dtype, product(w.shape))
    turned = Access(buffer.name, w.dtype, 0, w.shape, contiguous_strides(w.shape, order))
    builder = ScalarBuilder()
    value = builder.input(w.dtype)
    map_region(em, Region(w.shape, builder.build([value]), (w,), ((0, turned),)))

    def axes_at(place: Sequence[Size]) -> list[_Axis]:
        return [
            _adjoint_axis(em, at, size, _fixed(kernel), s, lo, d)
            for at, size, kernel, s, (lo, _), d in zip(
                place, dy.shape[2:], w.shape[2:], anchor.stride, anchor.padding, anchor.dilation,
                strict=True,
            )
        ]  # fmt: skip

    def position(group: Size, row: Size, rest: Sequence[Size]) -> list[Size]:
        return [group * depth + rest[0], row, *rest[1:]]

    _sum_over_taps(em, dy, turned, anchor.groups, w.shape[1], depth, position, axes_at)


def convolution_weight_grad(em: Emitter) -> None:
    """Strategy for ConvolutionWeightGrad: for each tap, sums over places and examples."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.ConvolutionWeightGrad)
    x, dy = em.kernel.operands
    target = anchor_target(em)
    dtype = target.dtype
    depth = target.shape[1]
    rows = exact_div(target.shape[0], anchor.groups)
    assert rows is not None
    kernel = [_fixed(k) for k in target.shape[2:]]
    rank = len(kernel)
    lanes = x.shape[0]
    registers = em.tile[0] * em.tile[1]
    unpadded = rank > 0 and anchor.padding[-1] == (0, 0)
    # columns: neighbouring channels, or the taps of the last axis where channels are few
    by_taps = unpadded and hint(depth) < 3 and kernel[-1] > 1
    most = kernel[-1] if by_taps else 5
    c_count = row_count(kernel[-1], 6) if by_taps else row_count(depth, most)
    r = row_count(rows, max(1, registers // c_count))

    chunk, number, more = em.var("c"), em.var("block"), em.var("rest")
    group = em.var("g")
    row_blocks = round_up(rows, r)
    body: Block = [
        Let(number.name, IndexOp("mod", chunk, row_blocks)),
        Let(more.name, IndexOp("div", chunk, row_blocks)),
        Let(group.name, IndexOp("mod", more, anchor.groups)),
    ]
    first_row, last_row, c_first, c_last = (
        em.var("first"), em.var("last"), em.var("first"), em.var("last"),
    )  # fmt: skip
    left = em.var("rest")
    body += [
        Let(left.name, IndexOp("div", more, anchor.groups)),
        Let(first_row.name, number * r),
        Let(last_row.name, IndexOp("min", rows, first_row + r)),
    ]
    c_size: Size = kernel[-1] if by_taps else depth
    c_blocks = round_up(c_size, c_count)
    c_number, taps_left = em.var("block"), em.var("rest")
    body += [
        Let(c_number.name, IndexOp("mod", left, c_blocks)),
        Let(taps_left.name, IndexOp("div", left, c_blocks)),
        Let(c_first.name, c_number * c_count),
        Let(c_last.name, IndexOp("min", c_size, c_first + c_count)),
    ]
    loops = kernel[:-1] if by_taps else kernel
    tap: list[Dim] = [em.var("k") for _ in loops]
    channel: Size = 0
    rest = taps_left
    for variable, size in zip(reversed(tap), reversed(loops), strict=True):
        following = em.var("rest")
        body.append(Let(variable.name, IndexOp("mod", rest, size)))
        body.append(Let(following.name, IndexOp("div", rest, size)))
        rest = following
    if by_taps:
        channel = rest
    # places at which the tap meets the image
    place = [em.var("o") for _ in range(rank)]
    bounds: list[tuple[Bound, Bound]] = []
    for a in range(rank):
        out = dy.shape[2 + a]
        if by_taps and a == rank - 1:
            bounds.append((0, out))
            continue
        s, (lo, _), d = anchor.stride[a], anchor.padding[a], anchor.dilation[a]
        low, high = em.var("first"), em.var("last")
        shift = tap[a] * d - lo
        body.append(Let(low.name, IndexOp("max", 0, IndexOp("div", (s - 1) - shift, s))))
        body.append(
            Let(high.name, IndexOp("min", out, IndexOp("div", x.shape[2 + a] - shift + (s - 1), s)))
        )
        bounds.append((low, high))

    def image(column: Size) -> list[Size]:
        at: list[Size] = []
        for a in range(rank):
            t = column if by_taps and a == rank - 1 else tap[a]
            at.append(place[a] * anchor.stride[a] + t * anchor.dilation[a] - anchor.padding[a][0])
        return at

    def tile(row_indices: list[Size], column_indices: list[Size]) -> Block:
        accs = [[em.name("s") for _ in column_indices] for _ in row_indices]
        out: Block = [Fill(acc, dtype, 0) for line in accs for acc in line]

        def step(n: Size, part: Size | None) -> Block:
            inner: Block = []
            images = []
            for c in column_indices:
                of = channel if by_taps else c
                name, load = em.load(x, [n, group * depth + of, *image(c)], 0, part, "x")
                images.append(name)
                inner.append(load)
            for i, o in enumerate(row_indices):
                name, load = em.load(dy, [n, group * rows + o, *place], 0, part, "d")
                inner.append(load)
                inner += [Fma(accs[i][j], name, v, dtype) for j, v in enumerate(images)]
            return inner

        inside: Block = em.vectors(0, lanes, step, "n")
        for variable, (lo, hi) in zip(reversed(place), reversed(bounds), strict=True):
            inside = [For(variable.name, lo, hi, tuple(inside))]
        out += inside
        for i, o in enumerate(row_indices):
            for j, c in enumerate(column_indices):
                total = em.name("total")
                taps: list[Size] = [*tap, c] if by_taps else list(tap)
                at = [group * rows + o, channel if by_taps else c, *taps]
                out.append(Reduce(total, accs[i][j], dtype, "add"))
                out.append(Store(total, dtype, target.buffer, index_of(target, at), 1, 1))
        return out

    def all_columns(row_indices: list[Size]) -> Block:
        return steps(em, c_first, c_last, c_count, lambda c: tile(row_indices, c), c_size, "c")

    body += steps(em, first_row, last_row, r, all_columns, rows)
    count: Bound = IndexOp("mul", IndexOp("mul", row_blocks, anchor.groups), c_blocks)
    count = IndexOp("mul", count, int(hint(product(loops))))
    if by_taps:
        count = IndexOp("mul", count, depth)
    em.phase(Parallel(chunk.name, count, tuple(body)), "sums over places and examples")
    epilogue(em, target)
