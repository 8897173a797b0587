"""Times of kernels on this machine, beside what the machine can do at most."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.dims import hint
from ...ir.kernel.kernel import Kernel
from ...ir.kernel.loops import LoopKernel
from .build import prelude, shared_library
from .cpu import Cpu

__all__ = ["PROFILE", "KernelTime", "Limits", "kernel_times", "measured_limits"]

#: makes functions note the time before and after each phase
PROFILE = "-DPROFILE"


@dataclass(frozen=True)
class Limits:
    """Floating-point operations and bytes from memory, a second, on all threads."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class KernelTime:
    """One kernel at the typical sizes: seconds, and what it did in them."""

    name: str
    seconds: float
    flops: int
    bytes: int

    def share(self, limits: Limits) -> float:
        """The larger part of a limit that it reaches; 1 is all that the machine can do."""
        if self.seconds <= 0:
            return 0.0
        return max(self.flops / limits.flops, self.bytes / limits.bytes) / self.seconds


def measured_limits(cpu: Cpu, threads: int) -> Limits:
    """The best of some runs of multiply-adds in registers and of reading 256 MiB."""
    here = Path(__file__).parent
    text = prelude(cpu)
    text += (here / "limits.c").read_text(encoding="utf-8")
    built = shared_library([text], cpu, extra=(PROFILE,))
    with tempfile.TemporaryDirectory(prefix="brickc-limits-") as folder:
        path = Path(folder) / "limits.so"
        path.write_bytes(built)
        library = ctypes.CDLL(str(path))
        library.multiply_time.restype = library.stream_time.restype = ctypes.c_long
        memory = np.ones(64 * 2**20, np.float32)
        size = ctypes.c_long(memory.nbytes)
        at = ctypes.c_void_p(memory.ctypes.data)
        best = min(library.multiply_time(threads) for _ in range(5))
        read = min(library.stream_time(at, size, threads) for _ in range(5))
    chains = 24 if cpu.lanes == 16 else 8
    operations = 2 * cpu.lanes * chains * 2_000_000 * threads
    return Limits(operations / best * 1e9, memory.nbytes / read * 1e9)


def kernel_times(
    library: Any,
    function: str,
    staged: Sequence[str],
    kernels: Sequence[LoopKernel],
    run: Callable[[], object],
    repeats: int,
) -> list[KernelTime]:
    """Median times of a function's kernels. ``library`` was built with ``PROFILE``."""
    owners: list[Kernel | str] = list(staged)
    for k in kernels:
        owners += [k.kernel] * len(k.phases)
    stamps = (ctypes.c_long * (len(owners) + 1)).in_dll(library, f"{function}_stamps")
    rows = []
    for _ in range(repeats):
        run()
        rows.append(np.diff(np.array(list(stamps))))
    median = np.median(np.array(rows), axis=0) / 1e9
    found: dict[int, KernelTime] = {}
    for owner, seconds in zip(owners, median, strict=True):
        flops, moved, name = 0, 0, f"stage {owner}"
        if isinstance(owner, Kernel):
            flops, moved, name = owner.flops, hint(owner.bytes_moved), owner.name
        old = found.get(id(owner))
        total = float(seconds) + (old.seconds if old else 0.0)
        found[id(owner)] = KernelTime(name, total, flops, moved)
    return list(found.values())
