"""Batches that fill no vector: examples and places of the last axis become one axis.

The batch lies innermost, so N neighbouring places of N examples are contiguous. With a stride
of 1 along the last axis W, a convolution of N examples is a convolution of one whose last axis
has N·W elements, with N times the dilation and padding: element x·N + n meets tap k at
(x + k·dilation − padding)·N + n. Vectors then run over places and examples alike, and none of
their lanes is idle. Padding of that axis becomes zeros in memory, as a vector may cross it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from ....ir.dims import Size
from ....ir.kernel import anchors
from ....ir.kernel.kernel import Region
from ....ir.kernel.loops import Fill, Load, Store
from ....ir.kernel.memory import Access, contiguous_strides
from ..emitter import Block, Emitter, index_of

__all__ = ["flatten_convolution", "flatten_input_grad", "flatten_weight_grad",
           "idle_lanes"]  # fmt: skip

_Convolution = anchors.Convolution | anchors.ConvolutionInputGrad | anchors.ConvolutionWeightGrad
_Anchor = TypeVar(
    "_Anchor",
    anchors.Convolution,
    anchors.ConvolutionInputGrad,
    anchors.ConvolutionWeightGrad,
)


def flatten_convolution(em: Emitter) -> bool:
    """The kernel of ``em`` on flattened examples, if that pays and is possible."""
    x, w = em.kernel.operands
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.Convolution)
    flat = _flat_region(em.kernel.after)
    if not _pays(em, x, anchor) or flat is None or not _is_flat(x):
        return False
    batch = _whole(x.shape[0])
    lo, hi = anchor.padding[-1]
    x = _padded(em, x, lo, hi) if lo or hi else _flat(x)
    new = _stretched(anchor, batch, 0, 0)
    em.kernel = replace(em.kernel, anchor=new, operands=(x, w), after=flat)
    return True


def flatten_input_grad(em: Emitter) -> bool:
    """The same for the gradient of the input."""
    dy, w = em.kernel.operands
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.ConvolutionInputGrad)
    flat = _flat_region(em.kernel.after)
    if not _pays(em, dy, anchor) or flat is None or not _is_flat(dy):
        return False
    batch = _whole(dy.shape[0])
    # zeros around dy, so that every tap of every place meets something
    reach = (_whole(w.shape[-1]) - 1) * anchor.dilation[-1]
    lo, hi = (reach - p for p in anchor.padding[-1])
    if lo < 0 or hi < 0:
        return False
    dy = _padded(em, dy, lo, hi) if lo or hi else _flat(dy)
    new = _stretched(anchor, batch, reach, reach)
    em.kernel = replace(em.kernel, anchor=new, operands=(dy, w), after=flat)
    return True


def flatten_weight_grad(em: Emitter) -> bool:
    """The same for the gradient of the weights, whose sums run over the flattened axis."""
    x, dy = em.kernel.operands
    anchor = em.kernel.anchor
    assert isinstance(anchor, anchors.ConvolutionWeightGrad)
    if not _pays(em, x, anchor, single=True) or not (_is_flat(x) and _is_flat(dy)):
        return False
    batch = _whole(x.shape[0])
    lo, hi = anchor.padding[-1]
    x = _padded(em, x, lo, hi) if lo or hi else _flat(x)
    new = _stretched(anchor, batch, 0, 0)
    em.kernel = replace(em.kernel, anchor=new, operands=(x, _flat(dy)))
    return True


def _whole(size: Size) -> int:
    assert isinstance(size, int)
    return size


def idle_lanes(em: Emitter, batch: int) -> bool:
    """True if a known batch leaves so many lanes idle that it is worth flattening."""
    return batch < 2 * em.lanes and batch % em.lanes != 0


def _pays(em: Emitter, image: Access, anchor: _Convolution, *, single: bool = False) -> bool:
    """True for a known small batch that leaves lanes idle, and no stride to step over."""
    batch = image.shape[0]
    return (
        isinstance(batch, int)
        and batch >= (1 if single else 2)
        and idle_lanes(em, batch)
        and len(image.shape) > 3
        and anchor.stride[-1] == 1
        and isinstance(image.shape[-1], int)
    )


def _is_flat(access: Access) -> bool:
    """True if examples and last axis are contiguous together, or the element is repeated."""
    batch = access.shape[0]
    first, last = access.strides[0], access.strides[-1]
    if first == 0 and last == 0:
        return True
    return last == batch and (first == 1 or batch == 1)


def _flat(access: Access) -> Access:
    batch = access.shape[0]
    repeated = access.strides[-1] == 0
    return replace(
        access,
        shape=(1, *access.shape[1:-1], access.shape[-1] * batch),
        strides=(0, *access.strides[1:-1], 0 if repeated else 1),
    )


def _flat_region(region: Region) -> Region | None:
    accesses = [*region.loads, *(a for _, a in region.stores)]
    if not all(_is_flat(a) for a in accesses):
        return None
    batch = region.shape[0]
    return Region(
        (1, *region.shape[1:-1], region.shape[-1] * batch),
        region.program,
        tuple(_flat(a) for a in region.loads),
        tuple((p, _flat(a)) for p, a in region.stores),
    )


def _stretched(anchor: _Anchor, batch: int, lo: int, hi: int) -> _Anchor:
    """The convolution's attributes on the flattened axis, with new padding."""
    return replace(
        anchor,
        dilation=(*anchor.dilation[:-1], anchor.dilation[-1] * batch),
        padding=(*anchor.padding[:-1], (lo * batch, hi * batch)),
    )


def _padded(em: Emitter, image: Access, lo: int, hi: int) -> Access:
    """A flattened copy of an image with zeros at both ends of its last axis."""
    flat = _flat(image)
    batch, size = _whole(image.shape[0]), _whole(image.shape[-1])
    shape = (1, *flat.shape[1:-1], (lo + size + hi) * batch)
    strides = contiguous_strides(shape, tuple(range(len(shape))))
    total: Size = 1
    for n in shape:
        total = total * n
    buffer = em.scratch_buffer("padded", image.dtype, total)
    target = Access(buffer.name, image.dtype, 0, shape, strides)
    end = (lo + size) * batch

    def row(at: list[Size], part: Size | None) -> Block:
        def zero(i: Size, rest: Size | None) -> Block:
            name = em.name("zero")
            index = index_of(target, [0, *at, i])
            return [Fill(name, image.dtype, 0),
                    Store(name, image.dtype, target.buffer, index, 1, rest)]  # fmt: skip

        def copy(i: Size, rest: Size | None) -> Block:
            name = em.name("x")
            source = index_of(flat, [0, *at, i])
            index = index_of(target, [0, *at, i + lo * batch])
            return [Load(name, image.dtype, flat.buffer, source, 1, rest),
                    Store(name, image.dtype, target.buffer, index, 1, rest)]  # fmt: skip

        return [
            *em.vectors(0, lo * batch, zero),
            *em.vectors(0, size * batch, copy),
            *em.vectors(end, end + hi * batch, zero),
        ]

    em.phase(em.spread(list(shape[1:-1]), row, vector=False, work=size * batch), "zeros around")
    return target
