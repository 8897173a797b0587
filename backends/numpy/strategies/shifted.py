"""Views of an array shifted along one axis: how windows are summed and spread in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ....ir.dims import Size
from ....ir.kernel.memory import Access
from ....ir.kernel.spaces import coalesce, order_of, sizes_of
from ..array_program import Ref
from ..emitter import Emitter

__all__ = ["Shifted", "cut", "emit_adjoint", "pair"]


@dataclass(frozen=True)
class Shifted:
    """``part[…, o, …]`` belongs to place ``start + o·step`` of the large array's axis."""

    part: Access
    axis: int
    start: int
    step: int
    count: Size


def cut(access: Access, axis: int, start: Size, count: Size, step: int = 1) -> Access:
    """``count`` elements of an axis from ``start`` on, every ``step``-th."""
    shape = (*access.shape[:axis], count, *access.shape[axis + 1 :])
    strides = (*access.strides[:axis], access.strides[axis] * step, *access.strides[axis + 1 :])
    return replace(
        access, offset=access.offset + access.strides[axis] * start, shape=shape, strides=strides
    )


def pair(em: Emitter, *accesses: Access) -> list[Ref]:
    """Views of equal shape over commonly merged axes, in the order of the first."""
    first = accesses[0]
    groups = coalesce(first.shape, order_of(first), [a.strides for a in accesses])
    sizes = sizes_of(first.shape, groups) or (1,)
    refs = []
    for a in accesses:
        strides = tuple(a.strides[g[-1]] for g in groups) or (1,)
        refs.append(em.view(a, sizes, strides, whole=True))
    return refs


def emit_adjoint(em: Emitter, parts: Sequence[Shifted], target: Access) -> None:
    """target = Σ parts, each at its shifted places; places outside the target are dropped.

    With step 1 and known sizes, the first part is copied and the places that it does not reach
    are cleared, so that no full clear and no extra pass are needed.
    """
    rest: Sequence[Shifted]
    first, *rest = parts
    axis = first.axis
    size = target.shape[axis]
    if first.step == 1 and isinstance(size, int):
        lo, part = _inside(first, size)
        if part is None:
            em.fill(pair(em, target)[0], 0)
        else:
            count = part.shape[axis]
            out, source = pair(em, cut(target, axis, lo, count), part)
            em.copy(out, source)
            assert isinstance(count, int)
            if lo > 0:
                em.fill(pair(em, cut(target, axis, 0, lo))[0], 0)
            if lo + count < size:
                tail = cut(target, axis, lo + count, size - lo - count)
                em.fill(pair(em, tail)[0], 0)
    else:
        # a step leaves holes between the first part's places, one clear reaches them all
        em.fill(pair(em, target)[0], 0)
        rest = parts
    for shifted in rest:
        if isinstance(size, int):
            lo, part = _inside(shifted, size)
        else:
            lo, part = shifted.start, shifted.part
        if part is None:
            continue
        place = cut(target, axis, lo, part.shape[axis], shifted.step)
        out, source = pair(em, place, part)
        em.call("add", out, source, out=out)


def _inside(shifted: Shifted, size: int) -> tuple[int, Access | None]:
    """The elements of the part whose place lies within 0 … size-1, and the first place."""
    count = shifted.count
    assert isinstance(count, int)
    skip = max(0, -(shifted.start // shifted.step)) if shifted.start < 0 else 0
    start = shifted.start + skip * shifted.step
    fitting = min(count - skip, (size - 1 - start) // shifted.step + 1 if start < size else 0)
    if fitting <= 0:
        return 0, None
    return start, cut(shifted.part, shifted.axis, skip, fitting)
