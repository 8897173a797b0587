"""Sums, maxima and minima over axes, with an optional prologue computed block by block."""

from __future__ import annotations

import numpy as np

from ....ir.dims import Size, hint
from ....ir.dtypes import DType
from ....ir.kernel import anchors
from ....ir.kernel.memory import Access
from ....ir.kernel.spaces import Groups, coalesce, order_of, sizes_of
from ..array_program import Ref
from ..emitter import Emitter
from ..maps import block_rows, emit_region
from .common import anchor_target, epilogue, strides_in

__all__ = ["arg_reduce", "reduce"]

_UFUNC = {"sum": "add", "max": "maximum", "min": "minimum"}


def _source_strides(target: Access, axes: tuple[int, ...], rank: int, keepdims: bool) -> list[Size]:
    """The target's strides over the operand's axes; 0 on the reduced ones."""
    if keepdims:
        return [0 if k in axes else target.strides[k] for k in range(rank)]
    kept = iter(target.strides)
    return [0 if k in axes else next(kept) for k in range(rank)]


def reduce(em: Emitter) -> None:
    """Strategy for Reduce."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Reduce)
    target = anchor_target(em)
    if em.kernel.before is None:
        _plain(em, anchor, em.kernel.operands[0], target)
    else:
        _with_prologue(em, anchor, target)
    epilogue(em, target)


def _plain(em: Emitter, anchor: anchors.Reduce, source: Access, target: Access) -> None:
    shape = source.shape
    steps = _source_strides(target, anchor.axes, len(shape), anchor.keepdims)
    groups = coalesce(shape, order_of(source), [source.strides, steps], frozenset(anchor.axes))
    sizes = sizes_of(shape, groups)
    if not groups:
        em.copy(em.view(target, (1,), (1,)), em.view(source, (1,), (1,)))
        return
    view = em.view(source, sizes, strides_in(source, groups), whole=True, repeat=True)
    _emit_reduction(em, anchor, groups, sizes, view, target, steps)


def _kept(groups: Groups, anchor: anchors.Reduce) -> tuple[int, ...]:
    """Positions of the groups that are not reduced."""
    return tuple(k for k, g in enumerate(groups) if g[0] not in anchor.axes)


def _emit_reduction(
    em: Emitter,
    anchor: anchors.Reduce,
    groups: Groups,
    sizes: tuple[Size, ...],
    view: Ref,
    target: Access,
    steps: list[Size],
) -> None:
    """One call, or two where an outer and the innermost run are both reduced."""
    kept = _kept(groups, anchor)
    function = f"{_UFUNC[anchor.op]}.reduce"
    out = _target_view(em, target, groups, sizes, kept, steps)
    reduced = tuple(k for k in range(len(groups)) if k not in kept)
    if not reduced:
        em.copy(out, view)
        return
    last = len(groups) - 1
    if len(reduced) > 1 and last in reduced:
        # the contiguous run first: what is left is small
        rest = [s for k, s in enumerate(sizes) if k != last]
        partial = em.scratch_array(rest, target.dtype, "partial")
        em.call(function, view, out=partial, axis=last)
        em.call(function, partial, out=out, axis=reduced[:-1])
        return
    em.call(function, view, out=out, axis=reduced if len(reduced) > 1 else reduced[0])


def _target_view(
    em: Emitter,
    target: Access,
    groups: Groups,
    sizes: tuple[Size, ...],
    kept: tuple[int, ...],
    steps: list[Size],
    *,
    whole: bool = True,
) -> Ref:
    """The result over the groups that are kept; an array of one element if none is."""
    if not kept:
        return em.view(target, (), (), whole=True)
    return em.view(
        target,
        [sizes[k] for k in kept],
        [steps[groups[k][-1]] for k in kept],
        whole=whole,
    )


def _with_prologue(em: Emitter, anchor: anchors.Reduce, target: Access) -> None:
    region = em.kernel.before
    assert region is not None
    shape = region.shape
    steps = _source_strides(target, anchor.axes, len(shape), anchor.keepdims)
    accesses = [*region.loads, *(a for _, a in region.stores)]
    leader = max(accesses, key=lambda a: hint(a.nbytes))
    strides = [a.strides for a in accesses] + [steps]
    groups = coalesce(shape, order_of(leader), strides, frozenset(anchor.axes))
    sizes = sizes_of(shape, groups) or (1,)
    dtype = region.program.dtype(region.program.results[0])
    count = sum(i.op not in ("const", "size") for i in region.program.instrs)
    rows = block_rows(sizes, dtype.itemsize, count + 1)
    kept = _kept(groups, anchor) if groups else ()
    outer_reduced = bool(groups) and 0 not in kept
    function = f"{_UFUNC[anchor.op]}.reduce"
    axes = tuple(k for k in range(len(groups)) if k not in kept)
    if rows is None:
        value = emit_region(em, region, groups, None, keep=frozenset({0}))[0]
        if not groups:
            em.copy(em.view(target, (1,), (1,)), value)
            return
        _emit_reduction(em, anchor, groups, sizes, value, target, steps)
        return
    out = _target_view(em, target, groups, sizes, kept, steps)
    part: Ref | None = None
    if outer_reduced:
        part = em.scratch_array([sizes[k] for k in kept], dtype, "part")
        em.fill(out, _identity(anchor.op, dtype))
    with em.block(rows):
        value = emit_region(em, region, groups, rows, keep=frozenset({0}))[0]
        if outer_reduced:
            assert part is not None
            em.call(function, value, out=part, axis=axes)
            em.call(_UFUNC[anchor.op], out, part, out=out)
        else:
            block_out = _target_view(em, target, groups, sizes, kept, steps, whole=False)
            if axes:
                em.call(function, value, out=block_out, axis=axes)
            else:
                em.copy(block_out, value)


def _identity(op: str, dtype: DType) -> float:
    """The number that changes no sum, maximum or minimum of the dtype."""
    if op == "sum":
        return 0
    if dtype.is_float:
        return float("-inf") if op == "max" else float("inf")
    limits = np.iinfo(dtype.numpy)
    return int(limits.min if op == "max" else limits.max)


def arg_reduce(em: Emitter) -> None:
    """Strategy for ArgReduce: NumPy's indices are intp, the result is i32."""
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.ArgReduce)
    source = em.kernel.operands[0]
    target = anchor_target(em)
    rank = len(source.shape)
    steps = _source_strides(target, (anchor.axis,), rank, anchor.keepdims)
    order = order_of(source)
    shape = [source.shape[a] for a in order]
    # argmax wants a result of its operand's shape: repeated axes are walked in full
    strides = [source.strides[a] for a in order]
    view = em.view(source, shape, strides, whole=True, repeat=True)
    kept = [a for a in order if a != anchor.axis]
    index = em.scratch_array([source.shape[a] for a in kept], DType.I64, "index")
    em.call(f"arg{anchor.op}", view, out=index, axis=order.index(anchor.axis))
    out = em.view(target, [source.shape[a] for a in kept], [steps[a] for a in kept], whole=True)
    em.copy(out, index, cast=True)
    epilogue(em, target)
