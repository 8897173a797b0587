"""Anchors that only move data: pad, concat, gather, scatter."""

from __future__ import annotations

from ....ir.dims import Size
from ....ir.kernel import anchors
from ....ir.kernel.memory import Access
from ..emitter import Emitter
from .common import anchor_target, epilogue
from .shifted import cut, pair

__all__ = ["concat", "gather", "pad", "scatter_add"]


def pad(em: Emitter) -> None:
    """Strategy for Pad: the borders are filled, the inside is copied once."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Pad)
    source = em.kernel.operands[0]
    target = anchor_target(em)
    value = anchor.value if target.dtype.is_float else int(anchor.value)
    inside = target
    # NumPy does not store a float among integers, not even a whole one
    value = anchor.value if target.dtype.is_float else int(anchor.value)
    for axis, (lo, hi, gap) in enumerate(zip(anchor.lo, anchor.hi, anchor.interior, strict=True)):
        size = source.shape[axis]
        if gap:
            # holes between the elements: clear everything that is left of the axis
            em.fill(pair(em, inside)[0], value)
        else:
            for start, count in ((0, lo), (size + lo, hi)):
                if count:
                    border = _shift(inside, axis, start, count, 1)
                    em.fill(pair(em, border)[0], value)
        inside = _shift(inside, axis, lo, size, gap + 1)
    out, view = pair(em, inside, source)
    em.copy(out, view)
    epilogue(em, target)


def _shift(access: Access, axis: int, start: Size, count: Size, step: int) -> Access:
    """Like ``cut``, with a start that may depend on dims."""
    moved = cut(access, axis, 0, count, step)
    offset = access.offset + access.strides[axis] * start
    return Access(moved.buffer, moved.dtype, offset, moved.shape, moved.strides)


def concat(em: Emitter) -> None:
    """Strategy for Concat: one copy an operand."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Concat)
    target = anchor_target(em)
    start: Size = 0
    for source in em.kernel.operands:
        size = source.shape[anchor.axis]
        out, view = pair(em, _shift(target, anchor.axis, start, size, 1), source)
        em.copy(out, view)
        start = start + size
    epilogue(em, target)


def gather(em: Emitter) -> None:
    """Strategy for Gather. An index out of range raises IndexError when the kernel runs."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Gather)
    source, indices = em.kernel.operands
    target = anchor_target(em)
    view = em.view(source, source.shape, source.strides, whole=True, repeat=True)
    index = em.view(indices, indices.shape, indices.strides, whole=True, repeat=True)
    out = em.view(target, target.shape, target.strides, whole=True)
    em.helpers.add("take_into")
    em.call("take_into", out, view, index, axis=anchor.axis)
    epilogue(em, target)


def scatter_add(em: Emitter) -> None:
    """Strategy for ScatterAdd: indices may repeat, so the adds go one by one."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.ScatterAdd)
    indices, updates = em.kernel.operands
    target = anchor_target(em)
    index = em.view(indices, indices.shape, indices.strides, whole=True, repeat=True)
    view = em.view(updates, updates.shape, updates.strides, whole=True, repeat=True)
    out = em.view(target, target.shape, target.strides, whole=True)
    em.fill(out, 0)
    em.helpers.add("scatter_add_into")
    em.call("scatter_add_into", out, index, view, axis=anchor.axis)
    epilogue(em, target)
