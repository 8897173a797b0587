"""Equal kernels are one loop program: what differs is which buffers they are given.

A loop program is stated over formal buffers. Layers of one shape, and the forward pass in
``infer``, ``evaluate`` and ``train_step``, then need one strategy's run, one C function, and the
C compiler's time for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ...ir.dims import Dim, dims_of
from ...ir.kernel.anchors import Pad, ScatterAdd
from ...ir.kernel.kernel import Kernel, Region
from ...ir.kernel.loops import LoopKernel
from ...ir.kernel.memory import Access

__all__ = ["formal_kernel", "kernel_dims", "numbered", "shared"]


def formal_kernel(kernel: Kernel) -> tuple[Kernel, tuple[tuple[str, str], ...]]:
    """The kernel over formal buffers, without its own name; and (formal, actual) buffers."""
    names: dict[str, str] = {}

    def fix(access: Access) -> Access:
        return replace(access, buffer=names.setdefault(access.buffer, f"b{len(names)}"))

    def fix_region(region: Region) -> Region:
        loads = tuple(fix(a) for a in region.loads)
        return replace(region, loads=loads, stores=tuple((p, fix(a)) for p, a in region.stores))

    operands = tuple(fix(a) for a in kernel.operands)
    before = None if kernel.before is None else fix_region(kernel.before)
    after = fix_region(kernel.after)
    pool = kernel.pool
    pool = None if pool is None else replace(pool, after=fix_region(pool.after))
    formal = Kernel(kernel.kind, kernel.anchor, operands, before, after, pool=pool)
    return formal, tuple((b, a) for a, b in names.items())


def kernel_dims(kernel: Kernel) -> dict[str, Dim]:
    """The named sizes that a kernel depends on."""
    sizes = []
    for access in (*kernel.reads(), *kernel.writes()):
        sizes += [access.offset, *access.shape, *access.strides]
    for region in kernel.regions():
        sizes += region.shape
        sizes += [i.size for i in region.program.instrs if i.size is not None]
    if isinstance(kernel.anchor, ScatterAdd):
        sizes.append(kernel.anchor.size)
    return dict(sorted(dims_of(*sizes).items()))


def _key(kernel: Kernel) -> tuple[object, ...]:
    """What makes two kernels the same. Equality sees neither ranges of dims nor a zero's sign."""
    literals = [i.literal for r in kernel.regions() for i in r.program.instrs]
    if isinstance(kernel.anchor, Pad):
        literals.append(kernel.anchor.value)
    signs = tuple(math.copysign(1, x) for x in literals if isinstance(x, float))
    ranges = tuple((d.name, d.lo, d.hi, d.typical) for d in kernel_dims(kernel).values())
    return kernel, signs, ranges


def shared(
    made: dict[object, LoopKernel],
    kernel: Kernel,
    number: int,
    make: Callable[[Kernel, frozenset[str]], LoopKernel],
    taken: frozenset[str],
    *more: object,
) -> LoopKernel:
    """The kernel's loop program, from ``made`` if an equal kernel has one.

    ``make`` carries out a formal kernel, given the names that mean something in it. ``taken``
    are the names of the function, which scratch memory must not have. ``more`` is what else the
    program depends on.
    """
    formal, arguments = formal_kernel(kernel)
    key = (_key(formal), *more)
    found = made.get(key)
    if found is None:
        names = frozenset(b for b, _ in arguments) | frozenset(kernel_dims(formal))
        found = made[key] = make(formal, names)
    return numbered(replace(found, kernel=kernel, arguments=arguments), number, taken)


def numbered(made: LoopKernel, number: int, taken: frozenset[str]) -> LoopKernel:
    """The loop program with names of its own in the function for its scratch memory."""
    scratch = []
    arguments = made.arguments
    for buffer in made.scratch:
        name = f"{buffer.name}_{number}"
        while name in taken:
            name += "_"
        scratch.append(replace(buffer, name=name))
        arguments = (*arguments, (buffer.name, name))
    return replace(made, scratch=tuple(scratch), arguments=arguments)
