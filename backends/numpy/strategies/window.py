"""Sliding windows: sums and maxima axis by axis, and their adjoints."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from ....errors import UnsupportedError
from ....ir.dims import Size, hint, product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.memory import Access
from ....ir.kernel.spaces import coalesce, order_of, sizes_of
from ..array_program import Num, Ref
from ..emitter import Emitter
from ..maps import BLOCK_BYTES, WHOLE_BYTES
from .common import anchor_target, epilogue
from .shifted import Shifted, cut, emit_adjoint, pair

__all__ = ["window_max", "window_max_gather", "window_max_scatter", "window_sum",
           "window_sum_grad"]  # fmt: skip

_Window = (
    anchors.WindowSum
    | anchors.WindowMax
    | anchors.WindowSumGrad
    | anchors.WindowMaxScatter
    | anchors.WindowMaxGather
)


def window_sum(em: Emitter) -> None:
    """Strategy for WindowSum."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.WindowSum)
    target = anchor_target(em)
    _forward(em, anchor, em.kernel.operands[0], target, "add", 0.0)
    epilogue(em, target)


def window_max(em: Emitter) -> None:
    """Strategy for WindowMax."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.WindowMax)
    target = anchor_target(em)
    _forward(em, anchor, em.kernel.operands[0], target, "maximum", float("-inf"))
    epilogue(em, target)


def _walked(anchor: _Window, order: Sequence[int]) -> list[int]:
    """Axes with a window or a stride, the outermost in memory first."""
    return [a for a in order if anchor.window[a] > 1 or anchor.stride[a] > 1
            or anchor.padding[a] != (0, 0)]  # fmt: skip


def _forward(
    em: Emitter, anchor: _Window, source: Access, target: Access, function: str, empty: float
) -> None:
    order = order_of(source)
    axes = _walked(anchor, order)
    current = source
    for k, axis in enumerate(axes):
        last = k == len(axes) - 1
        shape = (*current.shape[:axis], target.shape[axis], *current.shape[axis + 1 :])
        result = target if last else _like(em, shape, order, source.dtype)
        _one_axis(em, anchor, axis, current, result, function, empty)
        current = result
    if not axes:
        out, view = pair(em, target, source)
        em.copy(out, view)


def _like(em: Emitter, shape: Sequence[Size], order: Sequence[int], dtype: DType) -> Access:
    """Dense scratch memory whose axes lie in ``order``."""
    dense = em.scratch_access([shape[a] for a in order], dtype, "window")
    strides: list[Size] = [0] * len(shape)
    for position, axis in enumerate(order):
        strides[axis] = dense.strides[position]
    return Access(dense.buffer, dtype, 0, tuple(shape), tuple(strides))


def _one_axis(
    em: Emitter,
    anchor: _Window,
    axis: int,
    source: Access,
    target: Access,
    function: str,
    empty: float,
) -> None:
    window, stride = anchor.window[axis], anchor.stride[axis]
    lo, hi = anchor.padding[axis]
    if (lo, hi) == (0, 0):
        count = target.shape[axis]
        parts = [cut(source, axis, j, count, stride) for j in range(window)]
        out, first, *rest = pair(em, target, *parts)
        if not rest:
            em.copy(out, first)
            return
        em.call(function, first, rest[0], out=out)
        for part in rest[1:]:
            em.call(function, out, part, out=out)
        return
    size, count = source.shape[axis], target.shape[axis]
    if not isinstance(size, int) or not isinstance(count, int):
        raise _unknown_size(em, size)
    ranges = [(j, *_valid(j - lo, stride, size, count)) for j in range(window)]
    whole = next((r for r in ranges if r[1:] == (0, count)), None)
    if whole is None:
        em.fill(pair(em, target)[0], empty)
    else:
        out, part = pair(em, target, cut(source, axis, whole[0] - lo, count, stride))
        em.copy(out, part)
    for valid in ranges:
        j, start, number = valid
        if number <= 0 or valid == whole:
            continue
        place = cut(target, axis, start, number)
        part_access = cut(source, axis, start * stride + j - lo, number, stride)
        out, part = pair(em, place, part_access)
        em.call(function, out, part, out=out)


def _unknown_size(em: Emitter, size: Size) -> UnsupportedError:
    """How many windows padding cuts off must be known when the kernel is written."""
    return UnsupportedError(
        f"{em.kernel.name}: a padded window over an axis of unknown size", got=size,
        hint="give the axis a fixed size",
    )  # fmt: skip


def _valid(start: int, stride: int, size: int, count: int) -> tuple[int, int]:
    """Outputs o with 0 <= o·stride + start < size: the first one and how many."""
    first = (stride - 1 - start) // stride if start < 0 else 0
    last = min(count - 1, (size - 1 - start) // stride)
    return first, last - first + 1


def window_sum_grad(em: Emitter) -> None:
    """Strategy for WindowSumGrad: the adjoint, axis by axis, the innermost first."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.WindowSumGrad)
    source = em.kernel.operands[0]
    target = anchor_target(em)
    order = order_of(target)
    axes = list(reversed(_walked(anchor, order)))
    current = source
    for k, axis in enumerate(axes):
        last = k == len(axes) - 1
        shape = (*current.shape[:axis], target.shape[axis], *current.shape[axis + 1 :])
        result = target if last else _like(em, shape, order, source.dtype)
        if anchor.padding[axis] != (0, 0) and not isinstance(target.shape[axis], int):
            raise _unknown_size(em, target.shape[axis])
        parts = [
            Shifted(current, axis, j - anchor.padding[axis][0], anchor.stride[axis],
                    current.shape[axis])
            for j in range(anchor.window[axis])
        ]  # fmt: skip
        emit_adjoint(em, parts, result)
        current = result
    if not axes:
        out, view = pair(em, target, source)
        em.copy(out, view)
    epilogue(em, target)


# -- maxima and where they came from -------------------------------------------------------------


def _offsets(
    em: Emitter, anchor: _Window, source: Access, count: Sequence[Size]
) -> list[tuple[Access, tuple[tuple[int, int, int], ...]]]:
    """For every offset in the window: the elements of the large array, and which outputs.

    The second part lists (axis, first, number) for axes where padding cuts outputs off.
    """
    found = []
    for offset in itertools.product(*(range(w) for w in anchor.window)):
        part = source
        limits = []
        for axis, j in enumerate(offset):
            lo, hi = anchor.padding[axis]
            stride = anchor.stride[axis]
            size, number = source.shape[axis], count[axis]
            if anchor.window[axis] == 1 and stride == 1 and (lo, hi) == (0, 0):
                continue
            first = 0
            if (lo, hi) != (0, 0):
                if not isinstance(size, int) or not isinstance(number, int):
                    raise _unknown_size(em, size)
                first, number = _valid(j - lo, stride, size, number)
                limits.append((axis, first, number))
            part = cut(part, axis, first * stride + j - lo, number, stride)
        if all(number > 0 for _, _, number in limits):
            found.append((part, tuple(limits)))
    return found


def _limited(access: Access, limits: Sequence[tuple[int, int, int]]) -> Access:
    for axis, first, number in limits:
        access = cut(access, axis, first, number)
    return access


def window_max_scatter(em: Emitter) -> None:
    """Strategy for WindowMaxScatter: for every offset, the outputs whose maximum it is."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.WindowMaxScatter)
    x, y, dy = em.kernel.operands
    target = anchor_target(em)
    tiles = all(
        w == s and p == (0, 0) and x.shape[a] == dy.shape[a] * w
        for a, (w, s, p) in enumerate(
            zip(anchor.window, anchor.stride, anchor.padding, strict=True)
        )
    )
    if not tiles:
        em.fill(pair(em, target)[0], 0)
    sources = _offsets(em, anchor, x, dy.shape)
    places = _offsets(em, anchor, target, dy.shape)

    def body(refs: Sequence[Ref], picked: Ref) -> None:
        _, dy_ref, _, place = refs
        if tiles:
            em.call("bitwise_and", em.bits(dy_ref), em.bits(picked), out=em.bits(place))
        else:
            em.call("bitwise_and", em.bits(dy_ref), em.bits(picked), out=em.bits(picked))
            em.call("add", place, picked, out=place)

    _per_offset(em, y, dy, sources, [p for p, _ in places], body)
    _nan_windows(em, anchor, x, y, dy, target)
    epilogue(em, target)


def window_max_gather(em: Emitter) -> None:
    """Strategy for WindowMaxGather."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.WindowMaxGather)
    x, y, v = em.kernel.operands
    target = anchor_target(em)
    em.fill(pair(em, target)[0], 0)
    sources = _offsets(em, anchor, x, target.shape)
    values = _offsets(em, anchor, v, target.shape)

    def body(refs: Sequence[Ref], picked: Ref) -> None:
        _, out, _, value = refs
        em.call("bitwise_and", em.bits(value), em.bits(picked), out=em.bits(picked))
        em.call("bitwise_or", em.bits(out), em.bits(picked), out=em.bits(out))

    _per_offset(em, y, target, sources, [p for p, _ in values], body)
    _nan_windows(em, anchor, x, y, v, target)
    epilogue(em, target)


def _nan_windows(
    em: Emitter,
    anchor: anchors.WindowMaxScatter | anchors.WindowMaxGather,
    x: Access,
    y: Access,
    source: Access,
    target: Access,
) -> None:
    """No element equals a maximum that is NaN: those windows come last, if there are any."""
    em.helpers.add("nan_windows")
    refs = [em.view(a, a.shape, a.strides, whole=True, repeat=True) for a in (x, y, source, target)]
    em.call(
        "nan_windows", *refs, window=anchor.window, stride=anchor.stride,
        start=tuple(-lo for lo, _ in anchor.padding),
        gather=isinstance(anchor, anchors.WindowMaxGather),
    )  # fmt: skip


def _per_offset(
    em: Emitter,
    y: Access,
    small: Access,
    sources: Sequence[tuple[Access, tuple[tuple[int, int, int], ...]]],
    places: Sequence[Access],
    body: Callable[[Sequence[Ref], Ref], None],
) -> None:
    """Run ``body`` for every offset with a mask of bits: all set where the first maximum is.

    A window is *free* until its maximum was found; an element *loses* if it is not equal to it.
    """
    if any(limits for _, limits in sources):
        _per_padded_offset(em, y, small, sources, places, body)
        return
    order = order_of(small)
    strides = [y.strides, small.strides]
    strides += [p.strides for p, _ in sources] + [p.strides for p in places]
    groups = coalesce(small.shape, order, strides)
    sizes = sizes_of(small.shape, groups) or (1,)
    row = hint(product(sizes[1:])) * small.dtype.itemsize
    rows: int | None = None
    if row * hint(sizes[0]) > WHOLE_BYTES:
        rows = max(1, BLOCK_BYTES // max(1, row))
    with em.block(rows):

        def room(dtype: DType, name: str) -> Ref:
            if rows is not None:
                return em.temp(rows, sizes[1:], dtype, name)
            return em.scratch_array(sizes, dtype, name)

        def see(access: Access) -> Ref:
            steps = tuple(access.strides[g[-1]] for g in groups) or (1,)
            return em.view(access, sizes, steps)

        free, left = room(DType.BOOL, "free"), room(DType.BOOL, "left")
        loses, picked = room(DType.BOOL, "loses"), room(small.dtype, "picked")
        for k, ((source, _), place) in enumerate(zip(sources, places, strict=True)):
            refs = (see(y), see(small), see(source), see(place))
            if k == 0:
                em.call("not_equal", refs[2], refs[0], out=free)
                em.call("subtract", em.bits(free), Num(1), out=em.bits(picked))
            else:
                em.call("not_equal", refs[2], refs[0], out=loses)
                em.call("logical_and", free, loses, out=left)
                em.call("subtract", em.bits(left), em.bits(free), out=em.bits(picked))
                free, left = left, free
            body(refs, picked)


def _per_padded_offset(
    em: Emitter,
    y: Access,
    small: Access,
    sources: Sequence[tuple[Access, tuple[tuple[int, int, int], ...]]],
    places: Sequence[Access],
    body: Callable[[Sequence[Ref], Ref], None],
) -> None:
    """The same where padding cuts some outputs off, other ones for every offset."""
    order = order_of(small)
    free_access = _like(em, small.shape, order, DType.BOOL)
    em.fill(pair(em, free_access)[0], True)
    for k, ((source, limits), place) in enumerate(zip(sources, places, strict=True)):
        cut_small, cut_y = _limited(small, limits), _limited(y, limits)
        cut_free = _limited(free_access, limits)
        dense = [_like(em, cut_small.shape, order, DType.BOOL) for _ in range(2)]
        picked_access = _like(em, cut_small.shape, order, small.dtype)
        y_ref, small_ref, source_ref, place_ref, free, wins, loses, picked = pair(
            em, cut_y, cut_small, source, place, cut_free, *dense, picked_access
        )
        em.call("not_equal", source_ref, y_ref, out=loses)
        em.call("greater", free, loses, out=wins)
        if k < len(sources) - 1:
            em.call("logical_and", free, loses, out=free)
        em.call("subtract", Num(0), em.bits(wins), out=em.bits(picked))
        body((y_ref, small_ref, source_ref, place_ref), picked)
