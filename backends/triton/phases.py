"""Whether the launches of a function become phases of one kernel, and which run side by side.

A persistent kernel has as many programs as run at the same time. Its phases are grouped into
stages: phases of one stage touch nothing that another of them writes, so that a barrier of the
whole grid is needed between stages alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import UnsupportedError
from ...ir.dims import Size, minimum
from ...ir.kernel.kernel import Kernel, KernelProgram
from ...ir.kernel.memory import Access, Space
from ..base import Launching
from .launches import TritonKernel
from .options import Options

__all__ = ["LEAST", "MOST_BYTES", "MOST_FLOPS", "MOST_LAUNCHES", "decide", "stages"]

#: what a function's launches must be for one persistent kernel to take their place, on average at
#: the typical sizes: so little work that starting a kernel counts. By reckoning, not measured.
MOST_FLOPS, MOST_BYTES = 100_000_000, 8_000_000

#: fewer launches have nothing to gain, more make a text that takes minutes to compile
LEAST, MOST_LAUNCHES = 4, 100

#: arguments of a kernel, 8 bytes each; CUDA passes 4096 bytes
MOST_BUFFERS = 400


def decide(program: KernelProgram, kernels: Sequence[TritonKernel], options: Options) -> Launching:
    """How a function is started, with the reason.

    Raises UnsupportedError if it was to be persistent and cannot be.
    """
    persistent, reason = _persistent(program, kernels, options)
    if not persistent:
        if options.form == "persistent" and kernels:
            raise UnsupportedError(f"{program.name} cannot be one persistent kernel", got=reason,
                                   hint="leave the option out")  # fmt: skip
        numbers = iter(range(sum(k.starts for k in kernels)))
        in_order = tuple(tuple(next(numbers) for _ in range(k.starts)) for k in kernels)
        return Launching("launches", reason, in_order)
    return Launching("persistent", reason, stages(program, kernels))


def _persistent(
    program: KernelProgram, kernels: Sequence[TritonKernel], options: Options
) -> tuple[bool, str]:
    count = sum(len(k.launches) for k in kernels)
    if options.form == "launches":
        return False, "asked for"
    if any(k.library for k in kernels):
        return False, "vendor libraries are called in between"
    if any(k.has_descriptors for k in kernels):
        return False, "descriptors do not see what the same kernel has written"
    if options.architecture is not None and options.architecture.api != "cuda":
        return False, "graphs of HIP take no cooperative launches"
    forced = options.form == "persistent" and count > 0
    flops = sum(k.kernel.flops for k in kernels) // max(count, 1)
    moved = program.bytes_moved // max(count, 1)
    sizes = ", ".join(f"{n}={d.typical}" for n, d in program.dims.items())
    found = (f"{count} launches of {flops / 1e6:.1f} MFLOP and {moved / 1e6:.2f} MB on average"
             f"{' at ' if sizes else ''}{sizes}")  # fmt: skip
    if not forced and count < LEAST:
        return False, f"fewer than {LEAST} launches have nothing to gain"
    if not forced and (flops > MOST_FLOPS or moved > MOST_BYTES):
        limits = f"{MOST_FLOPS / 1e6:.0f} MFLOP or {MOST_BYTES / 1e6:.0f} MB"
        return False, f"{found}: over {limits} starting them does not count"
    if not forced and count > MOST_LAUNCHES:
        return False, f"{count} launches, more than {MOST_LAUNCHES}"
    buffers = {b.name for k in kernels for x in k.launches for b in x.pointers}
    if len(buffers) > MOST_BUFFERS:
        return False, f"{len(buffers)} buffers, more than the {MOST_BUFFERS} that a kernel may take"
    return True, "asked for" if forced else f"{found}: little beside what starting them costs"


# -- stages ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Touch:
    """Part of a memory that a phase reads or writes; without bounds all of it."""

    memory: str
    writes: bool
    bounds: tuple[Size, Size] | None

    def meets(self, other: _Touch) -> bool:
        """One of them writes what the other one touches."""
        if self.memory != other.memory or not (self.writes or other.writes):
            return False
        if self.bounds is None or other.bounds is None:
            return True
        (a, b), (c, d) = self.bounds, other.bounds
        return not (minimum(c - b) > 0 or minimum(a - d) > 0)


def stages(program: KernelProgram, kernels: Sequence[TritonKernel]) -> tuple[tuple[int, ...], ...]:
    """For each launch of each kernel the earliest stage in which all is there that it needs.

    Launches that meet in memory keep their order, be it that one reads what the other writes, or
    that it writes what the other still has to read.
    """
    joined = {label: group[0] for group in program.adjacent for label in group}
    placed: list[tuple[int, list[_Touch]]] = []
    found = []
    for position, kernel in enumerate(kernels):
        mine: list[int] = []
        others = itertools.takewhile(lambda k: not k.launches, kernels[position + 1 :])
        carried = [kernel.kernel, *(k.kernel for k in others)]
        for number in range(len(kernel.launches)):
            touches = _touches(program, kernel, carried, number, joined)
            stage = mine[-1] + 1 if mine else 0
            for other, theirs in placed:
                if other >= stage and any(a.meets(b) for a in touches for b in theirs):
                    stage = other + 1
            placed.append((stage, touches))
            mine.append(stage)
        found.append(tuple(mine))
    return tuple(found)


def _touches(
    program: KernelProgram,
    kernel: TritonKernel,
    carried: Sequence[Kernel],
    number: int,
    joined: dict[str, str],
) -> list[_Touch]:
    """What one launch reads and writes, of those buffers that it is given.

    ``carried`` are the kernels that it carries out: its own, and those without launches after it.
    """
    given = {b.name for b in kernel.launches[number].pointers}
    found = [_Touch(b.name, True, None) for b in kernel.scratch if b.name in given]
    for each, writes in itertools.product(carried, (False, True)):
        for access in each.writes() if writes else each.reads():
            if access.buffer not in given:
                continue
            buffer = program.buffers[access.buffer]
            if buffer.space in (Space.PARAMETER, Space.STATE):
                # an update may walk over several that lie one after the other
                name = f"{buffer.space.value} {joined.get(buffer.label, buffer.label)}"
                found.append(_Touch(name, writes, None))
            else:
                found.append(_Touch(access.buffer, writes, _bounds(access)))
    return found


def _bounds(access: Access) -> tuple[Size, Size] | None:
    """First and last element of an access; None if a stride may be negative."""
    lo: Size = access.offset
    hi: Size = access.offset
    for n, stride in zip(access.shape, access.strides, strict=True):
        if minimum(stride) < 0:
            return None
        hi = hi + (n - 1) * stride
    return lo, hi
