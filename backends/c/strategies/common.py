"""What strategies share: memory for an anchor's whole value, and the epilogue after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ....ir.dims import Size, hint, product
from ....ir.kernel.kernel import Region
from ....ir.kernel.memory import Access, contiguous_strides
from ....ir.kernel.scalar import ScalarBuilder
from ....ir.kernel.spaces import order_of
from ..emitter import Block, Emitter, leader
from ..maps import map_region

__all__ = ["Walk", "anchor_target", "copied", "epilogue", "filled", "lane_axis",
           "read_before_written"]  # fmt: skip


def read_before_written(em: Emitter) -> None:
    """Copies of what the kernel reads elsewhere than where it writes the same memory.

    An element that is read at the point where it is written is safe; any other may be gone
    by the time it is read. ``em.kernel`` reads the copies afterwards.
    """
    kernel = em.kernel
    written: dict[str, set[Access]] = {}
    for access in kernel.writes():
        written.setdefault(access.buffer, set()).add(access)
    copies: dict[Access, Access] = {}

    def safe(access: Access, *, here: bool) -> Access:
        """``here``: read at the very point of the index space at which results are written."""
        stores = written.get(access.buffer)
        if stores is None or (here and stores == {access}):
            return access
        if access not in copies:
            buffer = em.scratch_buffer("before", access.dtype, product(access.shape))
            strides = contiguous_strides(access.shape, order_of(access))
            copy = Access(buffer.name, access.dtype, 0, access.shape, strides)
            copied(em, access, copy)
            copies[access] = copy
        return copies[access]

    operands = tuple(safe(a, here=False) for a in kernel.operands)
    before = kernel.before
    if before is not None:
        before = replace(before, loads=tuple(safe(a, here=False) for a in before.loads))
    after = replace(kernel.after, loads=tuple(safe(a, here=True) for a in kernel.after.loads))
    pool = kernel.pool
    if pool is not None:
        # windows are finished one after the other, while others are still made
        loads = tuple(safe(a, here=False) for a in pool.after.loads)
        pool = replace(pool, after=replace(pool.after, loads=loads))
    em.kernel = replace(kernel, operands=operands, before=before, after=after, pool=pool)


def copied(em: Emitter, source: Access, target: Access) -> None:
    """A phase that copies an access to another one of the same shape."""
    builder = ScalarBuilder()
    value = builder.input(source.dtype)
    map_region(em, Region(source.shape, builder.build([value]), (source,), ((0, target),)))


def filled(em: Emitter, target: Access, value: bool | int | float) -> None:
    """A phase that gives every element of an access one value."""
    builder = ScalarBuilder()
    number = builder.const(value, target.dtype)
    map_region(em, Region(target.shape, builder.build([number]), (), ((0, target),)))


def anchor_target(em: Emitter) -> Access:
    """Where the anchor's value goes as a whole: a result that is the value, else scratch."""
    region = em.kernel.after
    for position, access in region.stores:
        if region.program.results[position] == 0:
            return access
    order = order_of(leader(region))
    buffer = em.scratch_buffer("value", region.program.inputs[0], product(region.shape))
    strides = contiguous_strides(region.shape, order)
    return Access(buffer.name, buffer.dtype, 0, region.shape, strides)


def epilogue(em: Emitter, target: Access) -> None:
    """The epilogue as a phase of its own, over the complete value at ``target``."""
    region = em.kernel.after
    stores = tuple((p, a) for p, a in region.stores if (p, a) != _same(em, target))
    if not stores:
        return
    map_region(em, replace(region, loads=(target, *region.loads), stores=stores))


def _same(em: Emitter, target: Access) -> tuple[int, Access] | None:
    """The store that the anchor has made itself."""
    region = em.kernel.after
    for position, access in region.stores:
        if access == target and region.program.results[position] == 0:
            return position, access
    return None


def lane_axis(shape: Sequence[Size], access: Access, apart: Sequence[int]) -> int | None:
    """The axis for vectors: contiguous if possible, never one in ``apart``."""
    free = [a for a in range(len(shape)) if a not in apart and shape[a] != 1]
    if not free:
        return None
    return max(free, key=lambda a: (access.strides[a] == 1, hint(shape[a])))


class Walk:
    """Positions of the result, lanes along one axis, and loops over the taps of a window."""

    def __init__(self, em: Emitter, shape: Sequence[Size], lead: Access, apart: list[int]):
        self.em = em
        self.shape = shape
        self.lane = lane_axis(shape, lead, apart)
        order = [a for a in order_of(lead) if shape[a] != 1 and a != self.lane]
        self.axes = [*order, self.lane] if self.lane is not None else order

    def run(self, body: Callable[[list[Size], Size | None], Block], work: int) -> None:
        """One phase over all positions."""

        def at_axes(places: list[Size], part: Size | None) -> Block:
            at: list[Size] = [0] * len(self.shape)
            for a, i in zip(self.axes, places, strict=True):
                at[a] = i
            return body(at, part)

        sizes = [self.shape[a] for a in self.axes]
        vector = self.lane is not None
        self.em.phase(self.em.spread(sizes, at_axes, vector=vector, work=work))
