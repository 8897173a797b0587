"""The memory plan: who shares a buffer, and at which offset of the arena each one lies.

Sizes are polynomials in the dims, so the plan is made once for every size in their ranges.
Buffers whose sizes are multiples of the same product of dims (the batch size, say) form a
class; within a class offsets are plain integers times that product, and classes lie one
after the other. Every offset is a multiple of 64 bytes at every size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import MemoryLimitError
from ..ir.dims import DimExpr, Size, dims_of, evaluate, maximum, product
from ..ir.kernel.kernel import Kernel, KernelProgram, Region
from ..ir.kernel.memory import Access, Buffer, Space

__all__ = ["ALIGNMENT", "MemoryPlan", "check_limit", "plan_memory", "share_buffers"]

#: bytes; one cache line, one AVX-512 register
ALIGNMENT = 64


@dataclass(frozen=True)
class MemoryPlan:
    """Offsets in bytes of every buffer in the arena, and what the arena needs."""

    offsets: Mapping[str, Size]
    #: name -> (first kernel, last kernel) at which the buffer is live; inputs start at -1
    lifetimes: Mapping[str, tuple[int, int]]
    peak: Size
    #: bytes that all arena buffers would need side by side
    total: Size
    #: when each kernel runs: the first and the last moment; moments are what lifetimes count
    moments: tuple[tuple[int, int], ...]
    #: buffer that every one of several steps has of its own -> bytes from one to the next
    apart: Mapping[str, Size] = field(default_factory=dict)


def lifetimes(
    program: KernelProgram,
    scratch: Mapping[int, Sequence[Buffer]],
    moments: Sequence[tuple[int, int]] | None = None,
) -> dict[str, tuple[int, int]]:
    """First and last moment at which each arena buffer is touched; kernels' positions count.

    Where several kernels run at the same time, ``moments`` says when each begins and ends.
    """
    spans: dict[str, tuple[int, int]] = {}
    when = _moments(program, moments)

    def touch(name: str, *at: int) -> None:
        buffer = program.buffers[name]
        if buffer.space in (Space.ARENA, Space.INPUT):
            known = (*at, *spans.get(name, ()))
            spans[name] = (min(known), max(known))

    for access in program.inputs.values():
        touch(access.buffer, -1)
    for kernel, at in zip(program.kernels, when, strict=True):
        for access in (*kernel.reads(), *kernel.writes()):
            touch(access.buffer, *at)
    end = 1 + max((last for _, last in when), default=-1)
    for access in program.outputs.values():
        touch(access.buffer, end)
    for position, buffers in scratch.items():
        for buffer in buffers:
            spans[buffer.name] = when[position]
    return spans


def _moments(
    program: KernelProgram, moments: Sequence[tuple[int, int]] | None
) -> tuple[tuple[int, int], ...]:
    return tuple(moments or ((k, k) for k in range(len(program.kernels))))


# -- in place ----------------------------------------------------------------------------------


def share_buffers(program: KernelProgram) -> KernelProgram:
    """Let a result take over the buffer of an operand that nobody reads afterwards.

    Only where the kernel reads the operand at the same index as it writes the result, so
    that no element is overwritten before it has been read.
    """
    spans = lifetimes(program, {})
    renamed: dict[str, str] = {}

    def name_of(name: str) -> str:
        while name in renamed:
            name = renamed[name]
        return name

    for position, kernel in enumerate(program.kernels):
        for result, store in kernel.after.stores:
            if kernel.anchor is not None and kernel.after.program.results[result] == 0:
                continue  # an anchor's whole value is there before the epilogue reads
            mine = program.buffers[store.buffer]
            if mine.space is not Space.ARENA or spans[store.buffer][0] != position:
                continue
            if store.buffer in renamed:
                continue
            for load in kernel.after.loads:
                theirs = program.buffers[load.buffer]
                if (
                    theirs.space in (Space.ARENA, Space.INPUT)
                    and spans[name_of(load.buffer)][1] == position
                    and (theirs.size, theirs.dtype) == (mine.size, mine.dtype)
                    and (load.offset, load.strides) == (store.offset, store.strides)
                    and _read_once(kernel, load, name_of)
                    and not _stores_to(kernel, name_of(load.buffer), name_of)
                    and product(store.shape) == mine.size
                ):
                    target = name_of(load.buffer)
                    renamed[store.buffer] = target
                    spans[target] = (spans[target][0], spans[store.buffer][1])
                    break
    if not renamed:
        return program

    def fix(access: Access) -> Access:
        return replace(access, buffer=name_of(access.buffer))

    return rename_accesses(program, fix, drop=set(renamed))


def _read_once(kernel: Kernel, load: Access, name_of: Callable[[str], str]) -> bool:
    """True if the kernel reads the buffer through this one access alone."""
    return sum(name_of(a.buffer) == name_of(load.buffer) for a in kernel.reads()) == 1


def _stores_to(kernel: Kernel, name: str, name_of: Callable[[str], str]) -> bool:
    return any(name_of(a.buffer) == name for a in kernel.writes())


def rename_accesses(
    program: KernelProgram, fix: Callable[[Access], Access], drop: set[str]
) -> KernelProgram:
    """The program with every access replaced by ``fix`` of it, and some buffers dropped."""

    def region(r: Region) -> Region:
        return replace(
            r,
            loads=tuple(fix(a) for a in r.loads),
            stores=tuple((k, fix(a)) for k, a in r.stores),
        )

    kernels = tuple(
        replace(
            k,
            operands=tuple(fix(a) for a in k.operands),
            before=region(k.before) if k.before else None,
            after=region(k.after),
            pool=replace(k.pool, after=region(k.pool.after)) if k.pool else None,
        )
        for k in program.kernels
    )
    return replace(
        program,
        kernels=kernels,
        buffers={n: b for n, b in program.buffers.items() if n not in drop},
        inputs={n: fix(a) for n, a in program.inputs.items()},
        outputs={n: fix(a) for n, a in program.outputs.items()},
    )


# -- offsets -----------------------------------------------------------------------------------


def plan_memory(
    program: KernelProgram,
    scratch: Mapping[int, Sequence[Buffer]] | None = None,
    moments: Sequence[tuple[int, int]] | None = None,
    steps: int = 1,
) -> MemoryPlan:
    """Offsets for inputs, intermediates and the kernels' scratch buffers.

    ``moments`` is as in ``lifetimes``. Of several ``steps`` each has arguments and results of its
    own: these lie after everything else, as often as there are steps, and share no memory.
    """
    scratch = scratch or {}
    own = _own_buffers(program) if steps > 1 else frozenset()
    spans = lifetimes(program, scratch, moments)
    buffers = {n: program.buffers[n] for n in spans if n in program.buffers}
    for extra in scratch.values():
        buffers.update({b.name: b for b in extra})
    classes: dict[Size, dict[str, int]] = {}
    for name in spans:
        if name not in own:
            unit, count = _class_of(buffers[name].nbytes)
            classes.setdefault(unit, {})[name] = count
    offsets: dict[str, Size] = {}
    base: Size = 0
    for unit in sorted(classes, key=lambda u: (not isinstance(u, int), str(u))):
        placed, height = _place(classes[unit], spans)
        for name, offset in placed.items():
            offsets[name] = base + unit * offset
        base = base + unit * height
    apart: dict[str, Size] = {}
    for name in spans:
        if name in own:
            unit, count = _class_of(buffers[name].nbytes)
            apart[name] = unit * count
            offsets[name] = base
            base = base + unit * count * steps
    total: Size = 0
    for name in spans:
        total = total + buffers[name].nbytes
    return MemoryPlan(offsets, spans, base, total, _moments(program, moments), apart)


def _own_buffers(program: KernelProgram) -> frozenset[str]:
    """The buffers that each of several steps has of its own: arguments and results.

    A result that is a parameter or state is one that no step changes: all see the same.
    """
    used = (*program.inputs.values(), *program.outputs.values())
    spaces = (Space.ARENA, Space.INPUT)
    return frozenset(a.buffer for a in used if program.buffers[a.buffer].space in spaces)


def _class_of(nbytes: Size) -> tuple[Size, int]:
    """(unit, count): count·unit covers ``nbytes`` and is a multiple of the alignment."""
    if isinstance(nbytes, int):
        return 1, _aligned(nbytes)
    dims = dims_of(nbytes)
    terms = nbytes.terms if isinstance(nbytes, DimExpr) else (((nbytes.name,), 1),)
    if len(terms) == 1:
        (monomial, coefficient) = terms[0]
        return product(dims[n] for n in monomial), _aligned(coefficient)
    unit: Size = 0
    for monomial, coefficient in terms:
        # a negative term only makes the buffer smaller; leaving it out keeps the bound
        if coefficient > 0:
            unit = unit + product(dims[n] for n in monomial) * _aligned(coefficient)
    return unit, 1


def _aligned(count: int) -> int:
    return max(1, -(-count // ALIGNMENT)) * ALIGNMENT


def _place(
    sizes: Mapping[str, int], spans: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, int], int]:
    """Greedy by size: the largest first, each at the lowest offset that is free."""
    placed: dict[str, int] = {}
    height = 0
    for name in sorted(sizes, key=lambda n: (-sizes[n], spans[n], n)):
        first, last = spans[name]
        taken = sorted(
            (placed[o], placed[o] + sizes[o])
            for o in placed
            if spans[o][0] <= last and first <= spans[o][1]
        )
        offset = 0
        for lo, hi in taken:
            if offset + sizes[name] <= lo:
                break
            offset = max(offset, hi)
        placed[name] = offset
        height = max(height, offset + sizes[name])
    return placed, height


def check_limit(program: KernelProgram, plan: MemoryPlan, limit: int) -> None:
    """Raise MemoryLimitError if the arena can exceed ``limit`` bytes within the dims' ranges."""
    peak = maximum(plan.peak)
    if peak <= limit:
        return
    largest = {n: d.hi for n, d in program.dims.items()}
    moment, live = _worst(program, plan, largest)
    culprit = max(live, key=lambda n: live[n])
    fits = _largest_that_fits(program, plan, limit)
    running = zip(program.kernels, plan.moments, strict=True)
    kernel = next((k.name for k, (a, b) in running if a <= moment <= b), "inputs")
    raise MemoryLimitError(
        f"{program.name}: the arena is over the memory limit",
        got=f"{peak} bytes at {', '.join(f'{n}={v}' for n, v in largest.items()) or 'fixed sizes'}",
        expected=f"at most {limit} bytes",
        hint=f"the peak is at kernel {kernel!r}, where {culprit!r} takes {live[culprit]} bytes; "
        + (f"{fits} would fit" if fits else "nothing in the range would fit"),
    )


def _worst(
    program: KernelProgram, plan: MemoryPlan, dims: Mapping[str, int]
) -> tuple[int, dict[str, int]]:
    best: tuple[int, int, dict[str, int]] = (-1, -1, {})
    for position in range(-1, 2 + max((last for _, last in plan.moments), default=-1)):
        live = {
            n: evaluate(program.buffers[n].nbytes, dims)
            for n, (first, last) in plan.lifetimes.items()
            if first <= position <= last and n in program.buffers
        }
        best = max(best, (sum(live.values()), position, live), key=lambda b: b[:2])
    return best[1], best[2]


def _largest_that_fits(program: KernelProgram, plan: MemoryPlan, limit: int) -> str:
    """The largest size of the only dim that fits, by bisection; text for the error."""
    if len(program.dims) != 1:
        return ""
    (dim,) = program.dims.values()
    lo, hi = dim.lo, dim.hi
    if evaluate(plan.peak, {dim.name: lo}) > limit:
        return ""
    while lo < hi:
        middle = (lo + hi + 1) // 2
        if evaluate(plan.peak, {dim.name: middle}) <= limit:
            lo = middle
        else:
            hi = middle - 1
    return f"{dim.name} <= {lo}"
