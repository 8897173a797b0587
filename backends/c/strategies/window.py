"""Sliding windows: sums, maxima and their adjoints, in vectors along an axis without a window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ....ir.dims import Size, hint, product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.kernel import Region
from ....ir.kernel.loops import Bound, Combine, Compute, Fill, For, IndexOp, Let, Load, Store
from ....ir.kernel.memory import Access
from ....ir.kernel.spaces import order_of
from ..emitter import Block, Emitter, index_of, leader
from .common import Walk, anchor_target, epilogue, lane_axis

__all__ = ["window_arg_max", "window_max", "window_max_gather", "window_max_scatter", "window_sum",
           "window_sum_grad"]  # fmt: skip

#: elements of a window up to which loops over them are written out
UNROLLED = 16

_Window = (
    anchors.WindowSum
    | anchors.WindowMax
    | anchors.WindowSumGrad
    | anchors.WindowMaxScatter
    | anchors.WindowMaxGather
    | anchors.WindowArgMax
)


def _walked(anchor: _Window) -> list[int]:
    """Axes along which something slides."""
    return [
        a for a in range(len(anchor.window))
        if anchor.window[a] > 1 or anchor.stride[a] > 1 or anchor.padding[a] != (0, 0)
    ]  # fmt: skip


def _taps(
    em: Emitter,
    anchor: _Window,
    axes: Sequence[int],
    at: Sequence[Size],
    size: Sequence[Size],
    body: Callable[[list[Size]], Block],
) -> Block:
    """Loops over the elements of the window at ``at`` that are not padding."""

    def nest(left: Sequence[int], place: list[Size]) -> Block:
        if not left:
            return body(place)
        a = left[0]
        window, (lo, hi) = anchor.window[a], anchor.padding[a]
        origin = at[a] * anchor.stride[a] - lo
        k = em.var("k")
        first: Bound = 0
        last: Bound = window
        out: Block = []
        if lo > 0:
            low = em.var("first")
            out.append(Let(low.name, IndexOp("max", 0, 0 - origin)))
            first = low
        if hi > 0:
            high = em.var("last")
            out.append(Let(high.name, IndexOp("min", window, size[a] - origin)))
            last = high
        inner = list(place)
        inner[a] = origin + k
        out.append(For(k.name, first, last, tuple(nest(left[1:], inner))))
        return out

    return nest(axes, list(at))


def _written_out(
    em: Emitter,
    anchor: _Window,
    axes: Sequence[int],
    at: Sequence[Size],
    size: Sequence[Size],
    body: Callable[[list[Size]], Block],
) -> Block:
    """The taps of the window at ``at`` one after the other, in order, without loops.

    A tap that misses the image reads the nearest element instead, which the window holds too:
    its maximum and the first place that has it stay what they are.
    """
    out: Block = []
    places: list[list[Size]] = []
    for a in axes:
        origin = at[a] * anchor.stride[a] - anchor.padding[a][0]
        line: list[Size] = []
        for k in range(anchor.window[a]):
            place: Size = origin + k
            if anchor.padding[a] != (0, 0):
                inside = em.var("i")
                last = IndexOp("min", size[a] - 1, place)
                out.append(Let(inside.name, IndexOp("max", 0, last)))
                place = inside
            line.append(place)
        places.append(line)
    for taps in itertools.product(*places):
        position = list(at)
        for a, place in zip(axes, taps, strict=True):
            position[a] = place
        out += body(position)
    return out


def _few(anchor: _Window) -> bool:
    return math.prod(anchor.window) <= UNROLLED


def _reaches(anchor: _Window, axes: Sequence[int], image: Access, count: Sequence[Size]) -> bool:
    """True if every window holds an element of the image."""
    for a in axes:
        lo, hi = anchor.padding[a]
        if lo >= anchor.window[a]:
            return False
        size, last = image.shape[a], count[a]
        if hi and not (isinstance(size, int) and isinstance(last, int)):
            return False
        if hi and hint(last - 1) * anchor.stride[a] - lo >= hint(size):
            return False
    return True


def _merged(em: Emitter) -> None:
    """Axes that no window slides along, and that lie side by side, become one.

    The batch and the places of a row, under windows over channels: vectors are then full
    whatever the batch. Only where all sizes are known, as threads share out a batch that is not.
    """
    kernel = em.kernel
    anchor, after = kernel.anchor, kernel.after
    assert isinstance(anchor, _Window)
    axes = _walked(anchor)
    free = [a for a in range(len(after.shape)) if a not in axes]
    accesses = [*kernel.operands, *after.loads, *(a for _, a in after.stores)]
    if not all(isinstance(n, int) for n in after.shape) or len(free) < 2:
        return
    order = sorted(free, key=lambda a: -abs(hint(leader(after).strides[a])))
    while len(order) > 1:
        outer, inner = order[-2], order[-1]
        if any(a.strides[outer] != a.strides[inner] * a.shape[inner] for a in accesses):
            return
        accesses = [_one_axis(a, outer, inner) for a in accesses]
        order.pop(-2)
        count = len(kernel.operands)
        loads = count + len(after.loads)
        stores = zip(after.stores, accesses[loads:], strict=True)
        shape = _one_axis(replace(leader(after), shape=after.shape), outer, inner).shape
        after = Region(shape, after.program, tuple(accesses[count:loads]),
                       tuple((p, new) for (p, _), new in stores))  # fmt: skip
        kernel = replace(kernel, operands=tuple(accesses[:count]), after=after)
    em.kernel = kernel


def _one_axis(access: Access, outer: int, inner: int) -> Access:
    shape, strides = list(access.shape), list(access.strides)
    shape[inner] = shape[inner] * shape[outer]
    shape[outer], strides[outer] = 1, 0
    return replace(access, shape=tuple(shape), strides=tuple(strides))


def _forward(em: Emitter, op: str, empty: float) -> None:
    _merged(em)
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.WindowSum | anchors.WindowMax)
    (source,) = em.kernel.operands
    after = em.kernel.after
    dtype = after.program.inputs[0]
    axes = _walked(anchor)
    walk = Walk(em, after.shape, leader(after), axes)
    padded = any(anchor.padding[a] != (0, 0) for a in axes)
    # padding may be read as something else only where reading twice does no harm
    straight = _few(anchor) and (
        not padded or (op == "max" and _reaches(anchor, axes, source, after.shape))
    )

    def body(at: list[Size], part: Size | None) -> Block:
        acc = em.name("acc")

        def tap(place: list[Size]) -> Block:
            name, load = em.load(source, place, walk.lane, part)
            return [load, Combine(acc, name, dtype, op)]

        over = _written_out if straight else _taps
        loops = over(em, anchor, axes, at, source.shape, tap)
        store = em.region(after, at, walk.lane, part, acc)[0]
        return [Fill(acc, dtype, empty), *loops, *store]

    walk.run(body, product(anchor.window))  # type: ignore[arg-type]


def window_sum(em: Emitter) -> None:
    """Strategy for WindowSum."""
    _forward(em, "add", 0.0)


def window_max(em: Emitter) -> None:
    """Strategy for WindowMax."""
    _forward(em, "max", float("-inf"))


def better(em: Emitter, x: str, best: str, dtype: DType) -> tuple[Block, str]:
    """Mask of lanes where x comes before ``best``: it is larger, or the first NaN."""
    more, nan, number, first, wins = (em.name(n) for n in ("more", "nan", "known", "first", "wins"))
    return [
        Compute(more, DType.BOOL, "gt", (x, best), dtype),
        Compute(nan, DType.BOOL, "ne", (x, x), dtype),
        Compute(number, DType.BOOL, "eq", (best, best), dtype),
        Compute(first, DType.BOOL, "and", (nan, number), DType.BOOL),
        Compute(wins, DType.BOOL, "or", (more, first), DType.BOOL),
    ], wins


def window_arg_max(em: Emitter) -> None:
    """Strategy for WindowArgMax: the best so far, and its number."""
    _merged(em)
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.WindowArgMax)
    (x,) = em.kernel.operands
    after = em.kernel.after
    axes = _walked(anchor)
    walk = Walk(em, after.shape, leader(after), axes)

    def body(at: list[Size], part: Size | None) -> Block:
        best, winner = em.name("best"), em.name("winner")
        count = itertools.count()

        def tap(place: list[Size]) -> Block:
            here, load = em.load(x, place, walk.lane, part)
            mask, wins = better(em, here, best, x.dtype)
            number: Size = next(count)
            if not _few(anchor):
                number = 0
                for a in axes:
                    number = number * anchor.window[a] + place[a] - at[a] * anchor.stride[a]
            name = em.name("number")
            return [
                load,
                *mask,
                Compute(name, DType.I32, "size", (), DType.I32, size=number),
                Combine(best, here, x.dtype, "select", mask=wins),
                Combine(winner, name, DType.I32, "select", mask=wins),
            ]

        over = _written_out if _few(anchor) else _taps
        loops = over(em, anchor, axes, at, x.shape, tap)
        store = em.region(after, at, walk.lane, part, winner)[0]
        return [Fill(best, x.dtype, float("-inf")), Fill(winner, DType.I32, 0), *loops, *store]

    walk.run(body, 2 * int(product(anchor.window)))  # type: ignore[arg-type]


def window_sum_grad(em: Emitter) -> None:
    """Strategy for WindowSumGrad: every element sums the windows that cover it."""
    _merged(em)
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.WindowSumGrad)
    (source,) = em.kernel.operands
    after = em.kernel.after
    dtype = after.program.inputs[0]
    axes = _walked(anchor)
    walk = Walk(em, after.shape, leader(after), axes)

    def body(at: list[Size], part: Size | None) -> Block:
        acc = em.name("acc")

        def nest(left: Sequence[int], place: list[Size]) -> Block:
            if not left:
                name, load = em.load(source, place, walk.lane, part)
                return [load, Combine(acc, name, dtype, "add")]
            a = left[0]
            o, low, high = em.var("o"), em.var("first"), em.var("last")
            reach = at[a] + anchor.padding[a][0]
            stride = anchor.stride[a]
            before = IndexOp("div", reach - anchor.window[a] + stride, stride)
            inner = list(place)
            inner[a] = o
            return [
                Let(low.name, IndexOp("max", 0, before)),
                Let(high.name, IndexOp("min", source.shape[a],
                                       IndexOp("add", IndexOp("div", reach, stride), 1))),
                For(o.name, low, high, tuple(nest(left[1:], inner))),
            ]  # fmt: skip

        store = em.region(after, at, walk.lane, part, acc)[0]
        return [Fill(acc, dtype, 0), *nest(axes, list(at)), *store]

    work = product(max(1, w // s) for w, s in zip(anchor.window, anchor.stride, strict=True))
    walk.run(body, int(hint(work)))


def _hits(em: Emitter, x: str, y: str, dtype: DType) -> tuple[Block, str]:
    """Mask of lanes where x is the window's maximum y; a NaN in x is one, as y is NaN then."""
    same, nan, hit = em.name("same"), em.name("nan"), em.name("hit")
    return [
        Compute(same, DType.BOOL, "eq", (x, y), dtype),
        Compute(nan, DType.BOOL, "ne", (x, x), dtype),
        Compute(hit, DType.BOOL, "or", (same, nan), DType.BOOL),
    ], hit


def _wins(em: Emitter, x: str, y: str, done: str, dtype: DType) -> tuple[Block, str]:
    """Mask of lanes where x is the window's maximum y (or both are NaN) and none was before."""
    block, hit = _hits(em, x, y, dtype)
    fresh, wins = em.name("fresh"), em.name("wins")
    return [
        *block,
        Compute(fresh, DType.BOOL, "not", (done,), DType.BOOL),
        Compute(wins, DType.BOOL, "and", (hit, fresh), DType.BOOL),
        Combine(done, wins, DType.BOOL, "or"),
    ], wins


def window_max_gather(em: Emitter) -> None:
    """Strategy for WindowMaxGather."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.WindowMaxGather)
    x, y, v = em.kernel.operands
    after = em.kernel.after
    axes = _walked(anchor)
    walk = Walk(em, after.shape, leader(after), axes)

    def body(at: list[Size], part: Size | None) -> Block:
        best, done = em.name("best"), em.name("done")
        top, load_y = em.load(y, at, walk.lane, part)

        def tap(place: list[Size]) -> Block:
            here, load = em.load(x, place, walk.lane, part)
            mask, wins = _wins(em, here, top, done, x.dtype)
            value, load_v = em.load(v, place, walk.lane, part)
            return [load, *mask, load_v, Combine(best, value, v.dtype, "select", mask=wins)]

        loops = _taps(em, anchor, axes, at, x.shape, tap)
        store = em.region(after, at, walk.lane, part, best)[0]
        return [load_y, Fill(best, v.dtype, 0), Fill(done, DType.BOOL, False), *loops, *store]

    walk.run(body, 2 * int(product(anchor.window)))  # type: ignore[arg-type]


def window_max_scatter(em: Emitter) -> None:
    """Strategy for WindowMaxScatter: windows hand their value to the place of their maximum.

    Threads share out the axes without a window, so no two add to the same element.
    """
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.WindowMaxScatter)
    x, y, v = em.kernel.operands
    target = anchor_target(em)
    dtype = target.dtype
    axes = _walked(anchor)
    lane = lane_axis(target.shape, target, axes)
    apart = anchor.window == anchor.stride
    covered = apart and all(
        y.shape[a] * anchor.window[a] == x.shape[a] and anchor.padding[a] == (0, 0) for a in axes
    )
    taps = product(anchor.window[a] for a in axes)
    assert isinstance(taps, int)
    order = [a for a in order_of(target) if target.shape[a] != 1 and a != lane and a not in axes]
    vector = lane is not None
    places_of = [*order, lane] if lane is not None else order
    inside = [a for a in order_of(target) if a in axes]

    def body(places: list[Size], part: Size | None) -> Block:
        rest = part if vector else 1
        at: list[Size] = [0] * len(target.shape)
        for a, i in zip(places_of, places, strict=True):
            at[a] = i
        stride: Size = 1 if lane is None else target.strides[lane]

        def clear(left: Sequence[int], place: list[Size]) -> Block:
            if left:
                i = em.var("i")
                inner = list(place)
                inner[left[0]] = i
                return [For(i.name, 0, target.shape[left[0]], tuple(clear(left[1:], inner)))]
            zero = em.name("zero")
            index = index_of(target, place)
            return [Fill(zero, dtype, 0), Store(zero, dtype, target.buffer, index, stride, rest)]

        def numbered(place: list[Size], top: str, value: str) -> Block:
            """The first winner's number, then all places of the window: no window overlaps."""
            places = []
            for offset in itertools.product(*(range(anchor.window[a]) for a in axes)):
                position = list(place)
                for a, k in zip(axes, offset, strict=True):
                    position[a] = place[a] * anchor.stride[a] + k
                places.append(position)
            first, zero = em.name("first"), em.name("zero")
            numbers = [em.name("number") for _ in places]
            find: Block = [Fill(first, DType.I32, 0), Fill(zero, dtype, 0)]
            find += [Fill(n, DType.I32, k) for k, n in enumerate(numbers)]
            hand_on: Block = []
            for number, position in reversed([*zip(numbers, places, strict=True)]):
                here, load = em.load(x, position, lane, part)
                mask, hit = _hits(em, here, top, x.dtype)
                find += [load, *mask, Combine(first, number, DType.I32, "select", mask=hit)]
            for number, position in zip(numbers, places, strict=True):
                wins, chosen = em.name("wins"), em.name("chosen")
                index = index_of(target, position)
                hand_on += [
                    Compute(wins, DType.BOOL, "eq", (first, number), DType.I32),
                    Compute(chosen, dtype, "select", (wins, value, zero), dtype),
                    Store(chosen, dtype, target.buffer, index, stride, rest),
                ]
            return [*find, *hand_on]

        def windows(left: Sequence[int], place: list[Size]) -> Block:
            if left:
                i = em.var("o")
                inner = list(place)
                inner[left[0]] = i
                return [For(i.name, 0, y.shape[left[0]], tuple(windows(left[1:], inner)))]
            top, load_y = em.load(y, place, lane, part)
            value, load_v = em.load(v, place, lane, part)
            if covered and taps <= UNROLLED:
                return [load_y, load_v, *numbered(place, top, value)]
            done = em.name("done")

            def tap(position: list[Size]) -> Block:
                here, load = em.load(x, position, lane, part)
                mask, wins = _wins(em, here, top, done, x.dtype)
                index = index_of(target, position)
                total = em.name("total")
                if apart:
                    start: Block = [Fill(total, dtype, 0)]
                else:
                    start = [Load(total, dtype, target.buffer, index, stride, rest)]
                chosen, zero = em.name("chosen"), em.name("zero")
                add: Block = [
                    Fill(zero, dtype, 0),
                    Compute(chosen, dtype, "select", (wins, value, zero), dtype),
                    Combine(total, chosen, dtype, "add"),
                    Store(total, dtype, target.buffer, index, stride, rest),
                ]
                return [load, *mask, *start, *add]

            straight = taps <= UNROLLED and _reaches(anchor, axes, x, y.shape)
            over = _written_out if straight else _taps
            loops = over(em, anchor, axes, place, x.shape, tap)
            return [load_y, load_v, Fill(done, DType.BOOL, False), *loops]

        start = [] if covered else clear(inside, at)
        return [*start, *windows(inside, at)]

    work = hint(product(target.shape[a] for a in inside)) * 3
    sizes = [target.shape[a] for a in places_of]
    em.phase(em.spread(sizes, body, vector=vector, work=work), "windows to their maxima")
    epilogue(em, target)
