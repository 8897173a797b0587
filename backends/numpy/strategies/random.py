"""Counter-based random numbers."""

from __future__ import annotations

from ....ir.dims import product
from ....ir.kernel import anchors
from ..array_program import Num
from ..emitter import Emitter
from .common import anchor_target, epilogue
from .shifted import pair

__all__ = ["random_uniform"]


def random_uniform(em: Emitter) -> None:
    """Strategy for RandomUniform: numbers in row-major order, moved if the layout differs."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.RandomUniform)
    seed, counter = em.kernel.operands
    target = anchor_target(em)
    dense = em.scratch_access(target.shape, target.dtype, "random")
    em.helpers.add("philox_uniform")
    flat = em.view(dense, (product(dense.shape),), (1,), whole=True)
    em.call(
        "philox_uniform",
        flat,
        em.view(seed, (), (), whole=True),
        em.view(counter, (), (), whole=True),
        Num(anchor.stream),
    )
    out, view = pair(em, target, dense)
    em.copy(out, view)
    epilogue(em, target)
