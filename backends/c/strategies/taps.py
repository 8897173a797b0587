"""Loops over the taps of a kernel at one place: which taps there are, and what they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....ir.dims import Dim, Size
from ....ir.kernel.loops import Bound, For, IndexOp, Let, When
from ..emitter import Block, Emitter

__all__ = ["Axis", "adjoint_axis", "fixed", "forward_axis", "over_taps", "tap_of"]


@dataclass(frozen=True)
class Axis:
    """One spatial axis: the loop over its taps at an output place."""

    tap: Dim
    kernel: int
    #: index on the image that is read
    image: Size
    #: statements before the loop, and its bounds
    before: tuple[Let, ...]
    first: Bound
    last: Bound
    step: int = 1
    #: steps of the image between neighbouring places
    stride: int = 1


def fixed(size: Size) -> int:
    assert isinstance(size, int)
    return size


def forward_axis(
    em: Emitter,
    at: Size,
    size: Size,
    kernel: int,
    stride: int,
    lo: int,
    hi: int,
    dilation: int,
    shift: int | None = None,
) -> Axis:
    """Taps of the window at a place. ``lo`` and ``hi`` say where taps may miss the image.

    ``shift`` is the padding before the image; by default it is ``lo``.
    """
    tap = em.var("k")
    origin = at * stride - (lo if shift is None else shift)
    before: list[Let] = []
    first: Bound = 0
    last: Bound = kernel
    if lo > 0:
        low = em.var("first")
        least = IndexOp("div", dilation - 1 - origin, dilation)
        before.append(Let(low.name, IndexOp("max", 0, least)))
        first = low
    if hi > 0:
        high = em.var("last")
        most = IndexOp("div", size - origin + (dilation - 1), dilation)
        before.append(Let(high.name, IndexOp("min", kernel, most)))
        last = high
    image = origin + tap * dilation
    return Axis(tap, kernel, image, tuple(before), first, last, 1, stride)


def adjoint_axis(
    em: Emitter, at: Size, size: Size, kernel: int, stride: int, lo: int, dilation: int
) -> Axis:
    """Taps through which ``at`` of the input reaches places of the output, of ``size``.

    Place o and tap k meet at o·stride + k·dilation − lo. Without dilation every stride-th tap
    does, without a stride every one. With both, the tap is tried and left out inside the loop.
    """
    reach = at + lo
    low, high = em.var("first"), em.var("last")
    if stride == 1:
        tap = em.var("k")
        least = IndexOp("div", reach - size + dilation, dilation)
        most = IndexOp("add", IndexOp("div", reach, dilation), 1)
        before: tuple[Let, ...] = (
            Let(low.name, IndexOp("max", 0, least)),
            Let(high.name, IndexOp("min", kernel, most)),
        )
        return Axis(tap, kernel, reach - tap * dilation, before, low, high)
    if dilation == 1:
        # tap = phase + stride·j meets place (reach − phase)/stride − j
        j, phase, top = em.var("j"), em.var("phase"), em.var("top")
        before = (
            Let(phase.name, IndexOp("mod", reach, stride)),
            Let(top.name, IndexOp("div", reach, stride)),
            Let(low.name, IndexOp("max", 0, top - size + 1)),
            Let(high.name, IndexOp("min", top + 1,
                                   IndexOp("div", IndexOp("sub", kernel + stride - 1, phase),
                                           stride))),
        )  # fmt: skip
        return _Strided(j, kernel, top - j, before, low, high, number=phase + j * stride)
    tap, place = em.var("k"), em.var("place")
    offset = reach - tap * dilation
    return _Tried(tap, kernel, place, (), 0, kernel, offset=offset, every=stride, size=size)


@dataclass(frozen=True)
class _Strided(Axis):
    """The loop's variable counts taps of one phase; ``number`` is the tap."""

    number: Size = 0


@dataclass(frozen=True)
class _Tried(Axis):
    """``offset`` must be a multiple of ``every`` and the quotient, ``image``, in the image."""

    offset: Size = 0
    every: int = 1
    size: Size = 0


def tap_of(axis: Axis) -> Size:
    return axis.number if isinstance(axis, _Strided) else axis.tap


def over_taps(axes: Sequence[Axis], body: Block) -> Block:
    """The body inside the loops over all taps; the innermost axis runs fastest."""
    for axis in reversed(axes):
        if isinstance(axis, _Tried):
            assert isinstance(axis.image, Dim)
            inside = IndexOp("min", axis.size - 1 - axis.image, axis.image)
            body = [
                When(IndexOp("mod", axis.offset, axis.every), 1, (
                    Let(axis.image.name, IndexOp("div", axis.offset, axis.every)),
                    When(-1, inside, tuple(body)),
                ))
            ]  # fmt: skip
        body = [For(axis.tap.name, axis.first, axis.last, tuple(body), axis.step)]
    return body
