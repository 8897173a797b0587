"""What launches cost on a nominal large GPU: arithmetic, bytes and starts. Never measured.

It puts candidates in order for the tuner, and ``brickc explain`` shows it.
"""

from __future__ import annotations

from ...ir.dims import hint, product
from ...ir.dtypes import DType
from ...ir.kernel.kernel import KernelProgram
from .launches import Launch, TritonKernel
from .options import Options
from .strategies.common import PROGRAMS

__all__ = ["estimate"]

#: operations a second by precision, and bytes a second from memory and from the second cache
FLOPS = {"f32": 50e12, "tf32": 400e12, "bf16": 800e12, "f16": 800e12, "f64": 30e12}
MEMORY, CACHE = 3.0e12, 5.5e12

#: seconds from one launch to the next, and of one step of a tile's loop that waits for memory
LAUNCH, LOAD = 1.3e-6, 0.7e-6

#: seconds until a program can use the descriptors that it wrote
DESCRIPTORS = 0.5e-6

#: part of the arithmetic's rate that libraries reach
LIBRARY = 0.7

#: of one multiprocessor: bytes of shared memory, registers, threads
SHARED, REGISTERS, THREADS = 227 * 1024, 65_536, 2048

#: registers that a thread may have
MOST = 255


def estimate(made: TritonKernel, program: KernelProgram, options: Options) -> float:
    """Seconds of a kernel's launches at the typical sizes."""
    kernel = made.kernel
    decided = made.choice.as_dict()
    memory = hint(kernel.bytes_moved) / MEMORY
    launches = len(made.launches) * LAUNCH
    if made.library is not None:
        dtype = kernel.after.program.inputs[0]
        rate = FLOPS["f64" if dtype is DType.F64 else options.precision] * LIBRARY
        value = 2 * hint(product(kernel.after.shape)) * dtype.itemsize / MEMORY
        passes = value * len(made.launches)  # written, and read again by what follows
        return launches + LAUNCH + max(memory, kernel.flops / rate) + passes
    m, n, k = (decided.get(name) for name in ("m", "n", "k"))
    if not (isinstance(m, int) and isinstance(n, int) and isinstance(k, int)):
        return launches + memory
    dtype = kernel.after.program.inputs[0]
    item, read = dtype.itemsize, kernel.operands[0].dtype.itemsize
    warps, stages = int(decided.get("warps", 4)), int(decided.get("stages", 1))
    parts = int(decided.get("parts", 1))
    rate = FLOPS["f64" if dtype is DType.F64 else options.precision] / PROGRAMS
    # summed positions behind each result
    results = hint(product(kernel.after.shape))
    depth = max(1, kernel.flops // (2 * max(1, results)))
    steps = max(1, -(-depth // (k * parts)))
    at_once = _occupancy(m, n, k, warps, stages, item, read)
    if not at_once:
        return float("inf")
    waves = -(-_programs(made.launches[0]) // (PROGRAMS * at_once))
    # a small tile leaves the units idle between its instructions
    busy = min(1.0, m * n / (64 * 64) * 0.5 + 0.5)
    arithmetic = at_once * 2 * m * n * k / (rate * busy)
    loads = at_once * (m + n) * k * read / (CACHE / PROGRAMS)
    waiting = LOAD / (stages * at_once)
    once = at_once * m * n * item / (CACHE / PROGRAMS)
    if made.has_descriptors:
        once += DESCRIPTORS
    inside = waves * (steps * max(arithmetic, loads, waiting) + once + LOAD)
    partial = 2 * results * parts * item / MEMORY if parts > 1 else 0.0
    return launches + max(inside, memory) + partial


def _occupancy(m: int, n: int, k: int, warps: int, stages: int, item: int, read: int) -> int:
    """Programs that fit on a multiprocessor together; 0 if not even one does.

    ``item`` and ``read`` are bytes of a sum and of an operand's element.
    """
    registers = m * n * max(1, item // 4) // (32 * warps) + 40
    shared = stages * (m + n) * k * read
    if registers > MOST or shared > SHARED:
        return 0
    return min(SHARED // shared, REGISTERS // (registers * 32 * warps), THREADS // (32 * warps), 16)


def _programs(launch: Launch) -> int:
    count = 1
    for size, block in launch.grid.factors:
        count *= -(-hint(size) // block)
    return count
