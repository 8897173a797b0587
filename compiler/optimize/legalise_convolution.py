"""Convolutions as contractions over sliding views: for targets that have a fast GEMM only.

The innermost spatial axis is unfolded by a copy; the outer ones are unfolded by strides
alone (a sliding view overlaps itself), so the copy grows by the innermost kernel size
instead of the whole kernel. The copy's order puts the contracted letters next to each
other, [outer…][k][C][inner][N], so that one batched matrix product reads it as it lies.

Forward and weight gradient build the same copy; common subexpressions make it one.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InternalError
from ...ir.bricks.contract import Contract
from ...ir.bricks.convolution import (
    Convolution,
    ConvolutionInputGrad,
    ConvolutionWeightGrad,
)
from ...ir.bricks.placement import Copy, Prefer
from ...ir.bricks.shape import Pad, Reshape, Reverse, Slice
from ...ir.bricks.unfold import Fold, Unfold
from ...ir.builder import Builder, GraphValue, rewrite
from ...ir.dims import Size, hint
from ...ir.graph import Graph, Node
from ...ir.value import Value

__all__ = ["legalise_convolution"]

Pairs = tuple[tuple[int, int], ...]

#: letters of the spatial axes (s) and of their kernel offsets (k), outermost first
_SPATIAL = "hijlm"
_OFFSET = "HIJLM"


def legalise_convolution(graph: Graph) -> Graph:
    """Replace the three convolution bricks by Pad, Unfold, Copy, Contract and Fold."""

    def rule(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
        brick = node.brick
        result: Value
        match brick:
            case Convolution():
                result = _forward(_prefer(operands[0]), operands[1], brick)
            case ConvolutionWeightGrad():
                x, dy = (_prefer(o) for o in operands)
                result = _weight_grad(x, dy, brick, node)
            case ConvolutionInputGrad():
                result = _input_grad(_prefer(operands[0]), operands[1], brick, node)
            case _:
                return None
        if not isinstance(result, GraphValue) or result.type != node.type:
            raise InternalError(
                f"legalise_convolution changed the type of {node}", got=result.type,
                expected=node.type,
            )  # fmt: skip
        return result

    return rewrite(graph, rule)


def _prefer(x: Value) -> Value:
    """Ask for [outer…][C][inner][N]: rows of the batch, channel by channel."""
    last = x.rank - 1
    return x.apply(Prefer((*range(2, last), 1, last, 0)), x)


def _pointwise(kernel: Sequence[Size], padding: Pairs) -> bool:
    return all(k == 1 for k in kernel) and all(p == (0, 0) for p in padding)


def _pad(x: Value, padding: Pairs, interior: Sequence[int] | None = None) -> Value:
    """Zeros around (and between) the elements of the spatial axes, the last ones of x."""
    gaps = tuple(interior or [0] * len(padding))
    if all(p == (0, 0) for p in padding) and not any(gaps):
        return x
    lead = (0,) * (x.rank - len(padding))
    lo = lead + tuple(p[0] for p in padding)
    hi = lead + tuple(p[1] for p in padding)
    return x.apply(Pad(lo, hi, lead + gaps, 0.0), x)


def _split_channels(x: Value, groups: int) -> Value:
    """[N, C, *S] -> [N, groups, C/groups, *S]; without groups nothing changes."""
    if groups == 1:
        return x
    n, c, *spatial = x.shape
    assert isinstance(c, int)
    return x.apply(Reshape((n, groups, c // groups, *spatial)), x)


def _split_weights(w: Value, groups: int) -> Value:
    """[O, C, *K] -> [groups, O/groups, C, *K]; without groups nothing changes."""
    if groups == 1:
        return w
    o, *rest = w.shape
    assert isinstance(o, int)
    return w.apply(Reshape((groups, o // groups, *rest)), w)


def _columns(x: Value, kernel: Sequence[int], brick: Convolution | ConvolutionWeightGrad) -> Value:
    """x [N, (g,) C, *S] as a view [N, (g,) C, *S', k_last, k_first, …] over one copy."""
    rank = len(kernel)
    x = _split_channels(_pad(x, brick.padding), brick.groups)
    first = x.rank - rank
    last = x.rank - 1
    x = x.apply(Unfold(last, kernel[-1], brick.stride[-1], brick.dilation[-1]), x)
    if kernel[-1] > 1 or brick.stride[-1] > 1:
        # axes: n (g) c s… w k -> [g][s…][k][c][w][n]
        group = (1,) if brick.groups > 1 else ()
        order = (*group, *range(first, last), last + 1, first - 1, last, 0)
        x = x.apply(Copy(order), x)
    for axis in range(rank - 1):
        view = Unfold(first + axis, kernel[axis], brick.stride[axis], brick.dilation[axis])
        x = x.apply(view, x)
    return x


def _letters(rank: int, groups: int) -> tuple[str, str, str, str]:
    """Letters of x's columns, of w, of y, and of the kernel offsets in x's order."""
    g = "g" if groups > 1 else ""
    spatial, offsets = _SPATIAL[:rank], _OFFSET[:rank]
    columns = offsets[-1] + offsets[:-1]
    return f"n{g}c{spatial}{columns}", f"{g}oc{offsets}", f"n{g}o{spatial}", columns


def _kernel(shape: Sequence[Size]) -> list[int]:
    kernel = []
    for size in shape:
        if not isinstance(size, int):
            raise InternalError("a kernel's size is not known at compile time", got=size)
        kernel.append(size)
    return kernel


def _forward(x: Value, w: Value, brick: Convolution) -> Value:
    kernel = _kernel(w.shape[2:])
    rank = len(kernel)
    if _pointwise(kernel, brick.padding) and brick.groups == 1:
        x = _strided(x, brick.stride)
        w = w.apply(Reshape(w.shape[:2]), w)
        spatial = _SPATIAL[:rank]
        return x.apply(Contract(f"nc{spatial},oc->no{spatial}"), x, w)
    xs, ws, ys, _ = _letters(rank, brick.groups)
    columns = _columns(x, kernel, brick)
    weights = _split_weights(w, brick.groups)
    y = x.apply(Contract(f"{xs},{ws}->{ys}"), columns, weights)
    return _merge(y, 1) if brick.groups > 1 else y


def _merge(y: Value, axis: int) -> Value:
    """Merge ``axis`` and the one after it."""
    shape = y.shape
    merged = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    return y.apply(Reshape(merged), y)


def _strided(x: Value, stride: Sequence[int]) -> Value:
    """Every ``stride``-th element of the spatial axes, copied so that rows are dense."""
    if all(s == 1 for s in stride):
        return x
    rank = len(stride)
    lead = x.rank - rank
    start = (0,) * x.rank
    x = x.apply(Slice(start, x.shape, (1,) * lead + tuple(stride)), x)
    return x.apply(Copy((*range(lead, x.rank - 1), 1, x.rank - 1, 0)), x)


def _weight_grad(x: Value, dy: Value, brick: ConvolutionWeightGrad, node: Node) -> Value:
    kernel = _kernel(node.type.shape[2:])
    rank = len(kernel)
    if _pointwise(kernel, brick.padding) and brick.groups == 1:
        spatial = _SPATIAL[:rank]
        x = _trim(_strided(x, brick.stride), dy, 2)
        dw = x.apply(Contract(f"no{spatial},nc{spatial}->oc"), dy, x)
        return dw.apply(Reshape(node.type.shape), dw)
    xs, ws, ys, _ = _letters(rank, brick.groups)
    columns = _trim(_columns(x, kernel, brick), dy, 3 if brick.groups > 1 else 2)
    dw = x.apply(Contract(f"{ys},{xs}->{ws}"), _split_channels(dy, brick.groups), columns)
    return _merge(dw, 0) if brick.groups > 1 else dw


def _trim(columns: Value, dy: Value, first: int) -> Value:
    """Drop window positions that the convolution's stride never reached."""
    spatial = dy.shape[2:]
    wanted = (*columns.shape[:first], *spatial, *columns.shape[first + len(spatial) :])
    if wanted == columns.shape:
        return columns
    zeros, ones = (0,) * columns.rank, (1,) * columns.rank
    return columns.apply(Slice(zeros, wanted, ones), columns)


def _input_grad(dy: Value, w: Value, brick: ConvolutionInputGrad, node: Node) -> Value:
    kernel = _kernel(w.shape[2:])
    rank = len(kernel)
    spatial = _SPATIAL[:rank]
    groups, size = brick.groups, node.type.shape[2:]
    if _pointwise(kernel, brick.padding) and groups == 1:
        weights = w.apply(Reshape(w.shape[:2]), w)
        dx = dy.apply(Contract(f"no{spatial},oc->nc{spatial}"), dy, weights)
        tail = tuple(
            (0, _extent(total - (have - 1) * s - 1))
            for total, have, s in zip(size, dy.shape[2:], brick.stride, strict=True)
        )
        return _pad(dx, tail, [s - 1 for s in brick.stride])
    padded = [total + lo + hi for total, (lo, hi) in zip(size, brick.padding, strict=True)]
    g = "g" if groups > 1 else ""
    base = 3 if groups > 1 else 2
    w = _split_weights(w, groups)
    dy = _split_channels(dy, groups)
    # Outer axes with stride 1: slide over dy, padded, with the kernel reversed, so that the
    # sum over offsets is part of the contraction. The others are folded afterwards, and so
    # are axes on which the padding would more than double the work.
    overlap = [(k - 1) * d for k, d in zip(kernel, brick.dilation, strict=True)]
    slide = [
        a
        for a in range(rank - 1)
        if brick.stride[a] == 1 and 0 < overlap[a] <= hint(dy.shape[base + a])
    ]
    reach = [overlap[a] if a in slide else 0 for a in range(rank)]
    dy = _pad(dy, tuple((r, r) for r in reach))
    for axis in slide:
        dy = dy.apply(Unfold(base + axis, kernel[axis], 1, brick.dilation[axis]), dy)
    if slide:
        first = len(w.shape) - rank
        w = w.apply(Reverse(tuple(first + a for a in slide)), w)
        # axes: (g) o c k… -> [g][k_last][c][k…][o]: contracted letters innermost, as in dy
        order = (*range(first - 2), w.rank - 1, first - 1, *range(first, w.rank - 1), first - 2)
        w = w.apply(Copy(order), w)
    slid = "".join(_OFFSET[a] for a in slide)
    kept = "".join(_OFFSET[a] for a in range(rank) if a not in slide)
    spec = f"n{g}o{spatial}{slid},{g}oc{_OFFSET[:rank]}->n{g}c{spatial}{kept}"
    dx = dy.apply(Contract(spec), dy, w)
    for a in reversed([a for a in range(rank) if a not in slide]):
        fold = Fold(base + a, padded[a], brick.stride[a], brick.dilation[a])
        dx = dx.apply(fold, dx)
    if groups > 1:
        dx = _merge(dx, 1)
    return _crop(dx, brick.padding, size)


def _extent(size: Size) -> int:
    if not isinstance(size, int):
        raise InternalError("a strided convolution over an axis of unknown size", got=size)
    return size


def _crop(x: Value, padding: Pairs, size: Sequence[Size]) -> Value:
    """Drop the padding of the spatial axes; fill what no window reached with zeros."""
    missing = [
        total + lo - have for total, (lo, _), have in zip(size, padding, x.shape[2:], strict=True)
    ]
    short = tuple((0, m) if isinstance(m, int) and m > 0 else (0, 0) for m in missing)
    x = _pad(x, short)
    start = (0, 0, *(lo for lo, _ in padding))
    stop = (*x.shape[:2], *(lo + total for total, (lo, _) in zip(size, padding, strict=True)))
    if all(s == 0 for s in start) and stop == x.shape:
        return x
    return x.apply(Slice(start, stop, (1,) * x.rank), x)
