"""What strategies share: where an anchor's value goes, and the epilogue after it."""

from __future__ import annotations

from collections.abc import Sequence

from ....errors import InternalError
from ....ir.dims import Size, product
from ....ir.dtypes import DType
from ....ir.kernel.kernel import Region
from ....ir.kernel.memory import Access
from ....ir.kernel.scalar import ScalarProgram
from ....ir.kernel.spaces import Groups, coalesce, order_of, sizes_of
from ..emitter import Emitter
from ..maps import block_rows, emit_region, region_groups

__all__ = ["anchor_target", "epilogue", "leader", "value_dtype"]


def value_dtype(region: Region) -> DType:
    """Dtype of the anchor's value: input 0 of the epilogue."""
    return region.program.inputs[0]


def leader(region: Region) -> Access:
    """The access whose memory order the kernel follows."""
    if region.stores:
        return region.stores[-1][1]
    raise InternalError("a kernel without results")


def anchor_target(em: Emitter, name: str = "value") -> Access:
    """Memory for the anchor's whole value: where it is stored anyway, else scratch.

    The value goes straight to a result's memory if the epilogue only passes it on, or if
    nothing that the epilogue reads lies there.
    """
    region = em.kernel.after
    # a result may take over the memory of an operand that the epilogue has still to read
    needed = {a.buffer for a in region.loads}
    for position, access in region.stores:
        if region.program.results[position] == 0 and access.buffer not in needed:
            return access
    dtype = value_dtype(region)
    reads = {a.buffer for a in em.kernel.reads()}
    for position, access in region.stores:
        done = region.program.results[position] >= last_use(region.program, 0)
        if access.dtype is dtype and access.buffer not in reads and done:
            return access
    lead = leader(region)
    order = order_of(lead)
    shape = [region.shape[a] for a in order]
    scratch = em.scratch_access(shape, dtype, name)
    strides: list[Size] = [0] * len(shape)
    for position, axis in enumerate(order):
        strides[axis] = scratch.strides[position]
    return Access(scratch.buffer, dtype, 0, region.shape, tuple(strides))


def last_use(program: ScalarProgram, number: int) -> int:
    """The last value that is computed from a value."""
    first = len(program.inputs)
    return max(
        (first + k for k, i in enumerate(program.instrs) if number in i.args), default=number
    )


def epilogue(em: Emitter, target: Access) -> None:
    """The epilogue over the anchor's value, which lies complete at ``target``."""
    region = em.kernel.after
    if region.program.is_identity and all(
        region.program.results[position] == 0 and access == target
        for position, access in region.stores
    ):
        return
    groups = region_groups(region, extra=[target.strides])
    sizes = sizes_of(region.shape, groups) or (1,)
    steps = sum(i.op not in ("const", "size") for i in region.program.instrs)
    rows = block_rows(sizes, target.dtype.itemsize, steps)
    with em.block(rows):
        strides = strides_in(target, groups)
        ref = em.view(target, sizes if groups else (1,), strides or (1,))
        emit_region(em, region, groups, rows, ref, target.dtype, anchor_buffer=target.buffer)


def strides_in(access: Access, groups: Groups) -> tuple[Size, ...]:
    """One stride per group; the groups were merged with this access in mind."""
    return tuple(access.strides[g[-1]] for g in groups)


def merged(accesses: Sequence[Access], order: Sequence[int]) -> tuple[Groups, tuple[Size, ...]]:
    """Groups of axes over which all accesses step evenly, and their sizes."""
    shape = accesses[0].shape
    groups = coalesce(shape, order, [a.strides for a in accesses])
    return groups, sizes_of(shape, groups)


def _elements(shape: Sequence[Size]) -> Size:
    return product(shape)
