"""Anchors that move data: pad, concat, gather, scatter, fold, random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ....ir.dims import Size, hint, product
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.loops import Compute, Fill, For, LetLoad, Load, Ramp, Statement, Store
from ....ir.kernel.memory import Access, contiguous_strides
from ....ir.kernel.spaces import order_of
from ..emitter import Block, Emitter, index_of, leader
from .common import Walk, anchor_target, copied, epilogue, filled, lane_axis

__all__ = ["concat", "fold", "gather", "pad", "random_uniform", "scatter_add"]


def _part(access: Access, axis: int, start: Size, count: Size, step: int) -> Access:
    """Every ``step``-th element along an axis."""
    shape, strides = list(access.shape), list(access.strides)
    offset = access.offset + strides[axis] * start
    shape[axis], strides[axis] = count, strides[axis] * step
    return replace(access, offset=offset, shape=tuple(shape), strides=tuple(strides))


def pad(em: Emitter) -> None:
    """Strategy for Pad: everything gets the value, then the inside its elements."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Pad)
    (source,) = em.kernel.operands
    target = anchor_target(em)
    if any((*anchor.lo, *anchor.hi, *anchor.interior)):
        filled(em, target, anchor.value)
    inside = target
    for axis, (lo, gap) in enumerate(zip(anchor.lo, anchor.interior, strict=True)):
        inside = _part(inside, axis, lo, source.shape[axis], gap + 1)
    copied(em, source, inside)
    epilogue(em, target)


def concat(em: Emitter) -> None:
    """Strategy for Concat: one copy an operand."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Concat)
    target = anchor_target(em)
    start: Size = 0
    for source in em.kernel.operands:
        size = source.shape[anchor.axis]
        copied(em, source, _part(target, anchor.axis, start, size, 1))
        start = start + size
    epilogue(em, target)


def gather(em: Emitter) -> None:
    """Strategy for Gather. An index out of range makes the call fail."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Gather)
    source, indices = em.kernel.operands
    after = em.kernel.after
    axis, count = anchor.axis, len(indices.shape)
    walk = Walk(em, after.shape, leader(after), list(range(axis, axis + count)))

    def body(at: list[Size], part: Size | None) -> Block:
        number = em.var("index")
        where = index_of(indices, at[axis : axis + count])
        find = LetLoad(number.name, indices.buffer, indices.dtype, where, source.shape[axis])
        place = [*at[:axis], number, *at[axis + count :]]
        lane = walk.lane
        along = lane if lane is None or lane < axis else lane - count + 1
        name, load = em.load(source, place, along, part)
        return [find, load, *em.region(after, at, lane, part, name)[0]]

    walk.run(body, 1)


def _added(
    em: Emitter,
    target: Access,
    apart: Sequence[int],
    source: Callable[
        [list[Size], Size | None, Callable[[list[Size], str], Block], int | None], Block
    ],
) -> None:
    """Clear the target and add to it. Threads share out the axes that are not in ``apart``."""
    lane = lane_axis(target.shape, target, apart)
    free = [a for a in order_of(target) if target.shape[a] != 1 and a != lane and a not in apart]
    axes = [*free, lane] if lane is not None else free
    dtype = target.dtype
    stride: Size = 1 if lane is None else target.strides[lane]

    def body(places: list[Size], part: Size | None) -> Block:
        rest = part if lane is not None else 1
        at: list[Size] = [0] * len(target.shape)
        for a, i in zip(axes, places, strict=True):
            at[a] = i

        def clear(left: Sequence[int], place: list[Size]) -> Block:
            if left:
                i = em.var("i")
                inner = list(place)
                inner[left[0]] = i
                return [For(i.name, 0, target.shape[left[0]], tuple(clear(left[1:], inner)))]
            zero = em.name("zero")
            index = index_of(target, place)
            return [Fill(zero, dtype, 0), Store(zero, dtype, target.buffer, index, stride, rest)]

        def add(place: list[Size], value: str) -> Block:
            old, total = em.name("old"), em.name("total")
            index = index_of(target, place)
            return [
                Load(old, dtype, target.buffer, index, stride, rest),
                Compute(total, dtype, "add", (old, value), dtype),
                Store(total, dtype, target.buffer, index, stride, rest),
            ]

        return [*clear(apart, at), *source(at, part, add, lane)]

    work = hint(product(target.shape[a] for a in apart)) * 2
    sizes = [target.shape[a] for a in axes]
    em.phase(em.spread(sizes, body, vector=lane is not None, work=work))
    epilogue(em, target)


def scatter_add(em: Emitter) -> None:
    """Strategy for ScatterAdd: in the order of the indices, so the sums are always the same."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.ScatterAdd)
    indices, updates = em.kernel.operands
    target = anchor_target(em)
    axis, count = anchor.axis, len(indices.shape)

    def source(
        at: list[Size],
        part: Size | None,
        add: Callable[[list[Size], str], Block],
        lane: int | None,
    ) -> Block:
        def nest(left: int, where: list[Size]) -> Block:
            if left:
                i = em.var("k")
                size = indices.shape[len(where)]
                return [For(i.name, 0, size, tuple(nest(left - 1, [*where, i])))]
            number = em.var("index")
            find: Statement = LetLoad(
                number.name, indices.buffer, indices.dtype, index_of(indices, where), anchor.size
            )
            place = [*at[:axis], *where, *at[axis + 1 :]]
            along = lane if lane is None or lane < axis else lane + count - 1
            name, load = em.load(updates, place, along, part)
            return [find, load, *add([*at[:axis], number, *at[axis + 1 :]], name)]

        return nest(count, [])

    _added(em, target, [axis], source)


def fold(em: Emitter) -> None:
    """Strategy for Fold: window after window is added where it came from."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Fold)
    (operand,) = em.kernel.operands
    target = anchor_target(em)
    axis = anchor.axis

    def source(
        at: list[Size],
        part: Size | None,
        add: Callable[[list[Size], str], Block],
        lane: int | None,
    ) -> Block:
        o, k = em.var("o"), em.var("k")
        name, load = em.load(operand, [*at[:axis], o, *at[axis + 1 :], k], lane, part)
        place = [*at[:axis], o * anchor.stride + k * anchor.dilation, *at[axis + 1 :]]
        inner = For(k.name, 0, operand.shape[-1], (load, *add(place, name)))
        return [For(o.name, 0, operand.shape[axis], (inner,))]

    _added(em, target, [axis], source)


def random_uniform(em: Emitter) -> None:
    """Strategy for RandomUniform: each element from its own position in row-major order."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.RandomUniform)
    seed, counter = em.kernel.operands
    after = em.kernel.after
    walk = Walk(em, after.shape, leader(after), [])
    order = tuple(range(len(after.shape)))
    steps = contiguous_strides(after.shape, order)
    dtype = after.program.inputs[0]

    def body(at: list[Size], part: Size | None) -> Block:
        index, value = em.name("index"), em.name("u")
        start: Size = 0
        for i, step in zip(at, steps, strict=True):
            start = start + i * step
        step = 0 if walk.lane is None else steps[walk.lane]
        key, load_key = em.load(seed, (), None)
        count, load_count = em.load(counter, (), None)
        return [
            load_key,
            load_count,
            Ramp(index, DType.I64, start, step),
            Compute(value, dtype, "philox", (index, key, count), DType.I64, anchor.stream),
            *em.region(after, at, walk.lane, part, value)[0],
        ]

    walk.run(body, 20)
