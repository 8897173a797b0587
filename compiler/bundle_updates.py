"""Horizontal fusion: many small equal updates become one kernel over one piece of memory.

Biases and other small parameters are updated by the same scalar program. If their values,
gradients and momenta lie one after the other, one kernel updates them all. Gradients then
live until the last of them is known, so only small parameters are bundled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..ir.dims import Size
from ..ir.kernel.kernel import Kernel, KernelProgram, Region
from ..ir.kernel.memory import Access, Buffer, Space
from .plan_memory import rename_accesses

__all__ = ["bundle_updates"]


@dataclass(frozen=True)
class _Candidate:
    position: int
    kernel: Kernel
    #: buffers read in full, and buffers written, as columns
    loads: tuple[str | None, ...]
    stores: tuple[str, ...]
    nbytes: int


def bundle_updates(program: KernelProgram, limit: int) -> KernelProgram:
    """Merge equal update kernels whose parameters take at most ``limit`` bytes together."""
    families: dict[object, list[_Candidate]] = {}
    for position, kernel in enumerate(program.kernels):
        found = _candidate(program, position, kernel)
        if found is not None and found.nbytes <= limit // 4:
            families.setdefault(_signature(program, found), []).append(found)
    for members in families.values():
        chosen = _compatible(program, members, limit)
        if len(chosen) > 1:
            return bundle_updates(_merge(program, chosen), limit)
    return program


def _dense(program: KernelProgram, access: Access) -> bool:
    buffer = program.buffers[access.buffer]
    return access.offset == 0 and access.is_dense and _count(access.shape) == buffer.size


def _count(shape: Sequence[Size]) -> Size:
    total: Size = 1
    for n in shape:
        total = total * n
    return total


def _candidate(program: KernelProgram, position: int, kernel: Kernel) -> _Candidate | None:
    if kernel.anchor is not None or not kernel.after.stores:
        return None
    region = kernel.after
    stores = [a for _, a in region.stores]
    strides = {a.strides for a in stores}
    if len(strides) != 1 or not all(isinstance(n, int) for n in region.shape):
        return None
    for a in stores:
        if program.buffers[a.buffer].space not in (Space.PARAMETER, Space.STATE):
            return None
        if not _dense(program, a):
            return None
    columns: list[str | None] = []
    for a in region.loads:
        if all(s == 0 or n == 1 for s, n in zip(a.strides, a.shape, strict=True)):
            columns.append(None)  # a scalar, the learning rate: the same for all
        elif a.strides in strides and _dense(program, a):
            columns.append(a.buffer)
        else:
            return None
    used = [c for c in columns if c is not None]
    if len(set(used)) != len(used):
        return None
    nbytes = program.buffers[stores[0].buffer].nbytes
    if not isinstance(nbytes, int) or not used:
        return None
    return _Candidate(position, kernel, tuple(columns), tuple(a.buffer for a in stores), nbytes)


def _signature(program: KernelProgram, c: _Candidate) -> object:
    def kind(name: str) -> object:
        buffer = program.buffers[name]
        return buffer.space, buffer.dtype

    scalars = tuple(
        (a.buffer, a.offset) if column is None else kind(column)
        for a, column in zip(c.kernel.after.loads, c.loads, strict=True)
    )
    # where a column is written in place, it must be for all members
    same = tuple(c.loads.index(s) if s in c.loads else -1 for s in c.stores)
    positions = tuple(k for k, _ in c.kernel.after.stores)
    return c.kernel.after.program, scalars, same, positions, tuple(kind(s) for s in c.stores)


def _compatible(
    program: KernelProgram, members: Sequence[_Candidate], limit: int
) -> list[_Candidate]:
    """Members that can all run where the last of them does."""
    taken = {label for group in program.adjacent for label in group}
    chosen: list[_Candidate] = []
    total = 0
    used: set[str] = set()
    for c in members:
        names = {n for n in (*c.loads, *c.stores) if n is not None}
        labels = {program.buffers[n].label for n in names if program.buffers[n].label}
        if total + c.nbytes > limit or names & used or labels & taken:
            continue
        chosen.append(c)
        used |= names
        total += c.nbytes
    if not chosen:
        return []
    last = chosen[-1].position
    return [c for c in chosen if c.position == last or _can_wait(program, c, last)]


def _can_wait(program: KernelProgram, c: _Candidate, until: int) -> bool:
    """No kernel in between sees the update or changes what it reads."""
    mine = set(c.stores)
    inputs = {n for n in c.loads if n is not None}
    for kernel in program.kernels[c.position + 1 : until + 1]:
        if any(a.buffer in mine for a in kernel.reads()):
            return False
        if any(a.buffer in mine | inputs for a in kernel.writes()):
            return False
    return True


def _merge(program: KernelProgram, chosen: Sequence[_Candidate]) -> KernelProgram:
    """One kernel over the columns laid end to end.

    Those whose elements come in sixteens lie first, so that every one of them starts where vectors
    of any dtype may be loaded.
    """
    last = chosen[-1]
    chosen = sorted(chosen, key=lambda c: _fixed(program.buffers[c.stores[0]].size) % 16 != 0)
    first = chosen[0]
    sizes = [_fixed(program.buffers[c.stores[0]].size) for c in chosen]
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    total = sum(sizes)
    buffers = dict(program.buffers)
    adjacent = list(program.adjacent)
    moved: dict[str, tuple[str, int]] = {}

    def column(names: Sequence[str]) -> str:
        head = program.buffers[names[0]]
        if head.space is not Space.ARENA:
            labels = tuple(program.buffers[n].label for n in names)
            if labels not in adjacent:
                adjacent.append(labels)
            return head.name
        bundle = f"bundle_{head.name}"
        buffers[bundle] = Buffer(bundle, head.dtype, total, Space.ARENA)
        for name, start in zip(names, starts, strict=True):
            moved[name] = (bundle, start)
        return bundle

    def flat(access: Access, name: str) -> Access:
        return Access(name, access.dtype, 0, (total,), (1,))

    region = first.kernel.after
    loads = []
    for k, access in enumerate(region.loads):
        names = [c.loads[k] for c in chosen]
        if names[0] is None:
            loads.append(Access(access.buffer, access.dtype, access.offset, (total,), (0,)))
        else:
            loads.append(flat(access, column([n for n in names if n is not None])))
    stores = []
    for k, (position, access) in enumerate(region.stores):
        stores.append((position, flat(access, column([c.stores[k] for c in chosen]))))
    merged = Kernel(
        f"update_{len(chosen)}_parameters_{first.kernel.name}",
        None,
        (),
        None,
        Region((total,), region.program, tuple(loads), tuple(stores)),
        tuple(n for c in chosen for n in c.kernel.notes),
        tuple(n for c in chosen for n in c.kernel.nodes),
    )
    gone = {c.position for c in chosen}
    kernels = tuple(
        merged if k == last.position else kernel
        for k, kernel in enumerate(program.kernels)
        if k not in gone or k == last.position
    )
    program = replace(program, kernels=kernels, buffers=buffers, adjacent=tuple(adjacent))

    def fix(access: Access) -> Access:
        if access.buffer not in moved:
            return access
        bundle, start = moved[access.buffer]
        return replace(access, buffer=bundle, offset=access.offset + start)

    return rename_accesses(program, fix, drop=set(moved))


def _fixed(size: Size) -> int:
    assert isinstance(size, int)
    return size
