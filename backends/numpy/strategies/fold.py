"""Fold: the windows of a sliding view are added back where they came from."""

from __future__ import annotations

from ....ir.kernel import anchors
from ....ir.kernel.memory import Access
from ..emitter import Emitter
from .common import anchor_target, epilogue
from .shifted import Shifted, emit_adjoint

__all__ = ["fold"]


def fold(em: Emitter) -> None:
    """Strategy for Fold: one add per offset, over whole shifted views."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Fold)
    source = em.kernel.operands[0]
    target = anchor_target(em)
    window = source.shape[-1]
    count = source.shape[anchor.axis]
    assert isinstance(window, int)
    base = Access(source.buffer, source.dtype, source.offset, source.shape[:-1],
                  source.strides[:-1])  # fmt: skip
    parts = [
        Shifted(
            Access(base.buffer, base.dtype, base.offset + source.strides[-1] * k, base.shape,
                   base.strides),
            anchor.axis, k * anchor.dilation, anchor.stride, count,
        )
        for k in range(window)
    ]  # fmt: skip
    emit_adjoint(em, parts, target)
    epilogue(em, target)
