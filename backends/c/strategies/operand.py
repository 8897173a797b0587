"""Operands of products, their axes named by letters, and copies in the order that tiles read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ....ir.dims import Size, hint, product
from ....ir.kernel.memory import Access, contiguous_strides
from ..emitter import Emitter
from .common import copied

__all__ = ["Operand", "in_panels", "lanes_innermost"]


@dataclass(frozen=True)
class Operand:
    access: Access
    letters: str
    #: columns of a panel, if the operand lies in panels: [lane / panel][contracted][panel]
    panel: int = 0

    def stride(self, letter: str) -> Size:
        return self.access.strides[self.letters.index(letter)] if letter in self.letters else 0

    def size(self, letter: str) -> Size:
        return self.access.shape[self.letters.index(letter)]


def lanes_innermost(em: Emitter, operand: Operand, lane: str) -> Operand:
    """A copy of the operand with the lanes innermost."""
    access = operand.access
    order = [k for k, c in enumerate(operand.letters) if c != lane]
    order.sort(key=lambda k: -abs(hint(access.strides[k])))
    order.append(operand.letters.index(lane))
    buffer = em.scratch_buffer("packed", access.dtype, product(access.shape))
    strides = contiguous_strides(access.shape, tuple(order))
    target = Access(buffer.name, access.dtype, 0, access.shape, strides)
    copied(em, access, target)
    return Operand(target, operand.letters)


def in_panels(em: Emitter, operand: Operand, lane: str, panel: int, size: int) -> Operand:
    """A copy in panels of ``panel`` columns, each in one piece for all of the sum."""
    access = operand.access
    along = operand.letters.index(lane)
    depth, step = access.shape[1 - along], access.strides[1 - along]
    stride = access.strides[along]
    groups = -(-size // panel)
    buffer = em.scratch_buffer("panels", access.dtype, depth * (groups * panel))
    whole, rest = divmod(size, panel)
    for first, count, width in ((0, whole, panel), (whole, 1, rest)):
        if not count or not width:
            continue
        shape = (count, width, depth)
        source = Access(
            access.buffer, access.dtype, access.offset + stride * (first * panel), shape,
            (stride * panel, stride, step),
        )  # fmt: skip
        target = Access(
            buffer.name, access.dtype, depth * (first * panel), shape,
            (depth * panel, 1, panel),
        )  # fmt: skip
        copied(em, source, target)
    return Operand(replace(access, buffer=buffer.name), operand.letters, panel)
