"""Halves of parameters are made first, side by side: targets can make them all in one launch."""

from __future__ import annotations

from dataclasses import replace

from ..ir.kernel.kernel import Kernel, KernelProgram

__all__ = ["round_first"]


def round_first(program: KernelProgram) -> KernelProgram:
    """The program with these kernels at its start, except after an update of their leaf."""
    first: list[Kernel] = []
    rest: list[Kernel] = []
    written: set[str] = set()
    for kernel in program.kernels:
        if program.rounds_leaf(kernel) and kernel.after.loads[0].buffer not in written:
            first.append(kernel)
        else:
            rest.append(kernel)
        written |= {a.buffer for a in kernel.writes()}
    return replace(program, kernels=(*first, *rest))
