"""Which tiles products of matrices get: a cost model of the GPU, and what else would be right.

The model counts cycles of a multiprocessor for one step along the sum: of the tensor cores, of
shared memory, of the second-level cache. The longest of the three is the step; tiles that run
beside each other share it. Split sums pay for their parts' way through memory and for a launch.
Not measured on a device: the numbers are data sheets', and a tuner may choose otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product as pairs

from ....ir.dims import Size, hint, product
from ....ir.dtypes import DType
from ....ir.kernel.choices import Picks
from ..options import Architecture, Options
from .common import PROGRAMS, power_of_two

__all__ = ["Blocks", "Operands", "Problem", "choose", "machine_of", "narrow_operands"]


@dataclass(frozen=True)
class Blocks:
    """Tile sizes, warps, pipeline stages, parts of the sums; ``swap``: columns are rows."""

    m: int
    n: int
    k: int
    warps: int
    stages: int
    parts: int = 1
    swap: bool = False


@dataclass(frozen=True)
class Problem:
    """Sizes of the axes behind m, n and k, and of those that every product has its own of."""

    batch: tuple[Size, ...]
    m: tuple[Size, ...]
    n: tuple[Size, ...]
    k: tuple[Size, ...]

    def sizes(self) -> tuple[int, int, int, int]:
        """Batch, m, n and k at the typical sizes."""
        batch, m, n, k = (hint(product(s)) for s in (self.batch, self.m, self.n, self.k))
        return batch, m, n, k


@dataclass(frozen=True)
class Operands:
    """How the operands lie: whether the summed positions are neighbours in memory."""

    dtype: DType
    left_along_k: bool
    right_along_k: bool
    #: why loads are below 128 bits, by operand; empty if they are not
    narrow: tuple[str, str] = ("", "")
    #: whether what follows the sums reads other values for each result
    reads_more: bool = False


@dataclass(frozen=True)
class Machine:
    """A GPU by its data sheet; rates are per cycle, and per multiprocessor unless "all"."""

    processors: int
    #: multiplications with an addition: of halves, of tf32 by tensor cores
    half: int
    tf32: int
    #: the same of instructions that a single warp issues
    half_by_warp: int
    tf32_by_warp: int
    #: bytes from shared memory, from the second-level cache, and of all from memory
    shared_rate: int
    cache_rate: int
    memory_rate: int
    #: bytes of shared memory, and what one program may use
    shared: int
    shared_most: int
    #: copies to shared memory that need no registers, so that a step's buffers are all there
    copies: bool
    #: threads of a warp
    lanes: int
    #: warps together multiply from shared memory, in which tf32 must lie along the sum
    groups: bool

    @property
    def fragments(self) -> bool:
        """Both operands of a product wait in registers that the sums do not have: CUDA before
        groups of warps."""
        return self.copies and not self.groups


_MACHINES = {
    "sm_80": Machine(108, 1024, 512, 1024, 512, 128, 26, 1200, 167_936, 166_912, True, 32, False),
    "sm_90": Machine(132, 2048, 1024, 1280, 640, 128, 32, 1700, 233_472, 232_448, True, 32, True),
    "gfx942": Machine(304, 1024, 512, 1024, 512, 128, 48, 2500, 65_536, 65_536, False, 64, False),
}

#: cycles that a launch costs, and that a program takes before its first product and after its last
_LAUNCH = 2300
_START = 1200

#: sums of 32 threads for each of them, at most; and where results need other values beside them
_SUMS = 128
_SUMS_BESIDE = 64


def machine_of(architecture: Architecture | None) -> Machine:
    """Kernels that are compiled where they run are chosen for sm_90."""
    return _MACHINES[architecture.name if architecture else "sm_90"]


def choose(problem: Problem, operands: Operands, options: Options, picks: Picks) -> Blocks:
    """The tile for a product, or what was wanted instead."""
    dtype = operands.dtype
    if dtype.is_half or (dtype is DType.F32 and options.precision == "tf32"):
        default = _for_tensor_cores(problem, operands, machine_of(options.architecture))
    else:
        default = _for_threads(problem, dtype)
    return _picked(picks, default, problem, dtype)


# -- tensor cores ----------------------------------------------------------------------------------


def _for_tensor_cores(problem: Problem, operands: Operands, machine: Machine) -> Blocks:
    """The least cycles; between equals the first, which has the smaller tile."""
    batch, m, n, k = problem.sizes()
    size = operands.dtype.itemsize
    # halves that are loaded one by one wait in registers
    bk = power_of_two(k, 16, 64 // size if any(operands.narrow) and size == 2 else 128 // size)
    swap = _swaps(operands, machine, m, n)
    rows, columns = (n, m) if swap else (m, n)
    best, least = None, float("inf")
    for bm, bn, warps in _shapes(rows, columns, bk * size, machine):
        held = bm * bn // (32 * warps)
        buffer = (bm + bn) * bk * size
        stages = 3 if 4 * buffer > machine.shared // 2 else 4
        while stages > 2 and _buffers(machine, stages) * buffer > machine.shared_most:
            stages -= 1
        if _buffers(machine, stages) * buffer > machine.shared_most:
            continue
        tiles = batch * _cdiv(rows, bm) * _cdiv(columns, bn)
        for parts in _parts(tiles, _cdiv(k, bk), machine):
            beside = operands.reads_more or machine.fragments
            if parts == 1 and (bm > 128 or (beside and held > _SUMS_BESIDE)):
                continue  # the registers must do for what follows the sums, too
            if any(operands.narrow) and held > _SUMS_BESIDE:
                continue  # more loads under way, each with an address of its own
            blocks = Blocks(bm, bn, bk, warps, stages, parts, swap)
            cycles = _cycles(blocks, tiles, _cdiv(k, bk), operands, machine)
            if parts > 1:
                moved = 4 * batch * m * n * (2 * parts)
                cycles += _LAUNCH + moved / machine.memory_rate
            if cycles < least:
                best, least = blocks, cycles
    assert best is not None
    return best


def narrow_operands(
    b: Blocks, operands: Operands, options: Options, boxed: Sequence[bool] = (False, False)
) -> list[str]:
    """Why loads of the operands are below 128 bits, where they are.

    ``boxed``: whether the left and the right one are read by descriptors, which bring whole tiles.
    """
    left, right = ("" if x else why for x, why in zip(boxed, operands.narrow, strict=True))
    first, second = (right, left) if b.swap else (left, right)
    machine = machine_of(options.architecture)
    if (
        not second and not boxed[not b.swap] and machine.groups and b.m >= 64
        and options.precision == "tf32" and operands.dtype is DType.F32
        and not _second_along_k(b, operands)
    ):  # fmt: skip
        second = "tf32 takes the second operand along the sum"
    return list(dict.fromkeys(filter(None, (first, second))))


def _swaps(operands: Operands, machine: Machine, m: int, n: int) -> bool:
    """Whether columns are better rows of the tile.

    Groups of warps multiply 64 rows at once; in tf32 their second operand must lie along the sum,
    the first one may come from registers.
    """
    if not machine.groups:
        return False
    if (m < 64) != (n < 64):
        return m < n
    across = not operands.right_along_k and operands.left_along_k
    return operands.dtype is DType.F32 and across


def _shapes(
    rows: int, columns: int, depth: int, machine: Machine
) -> Iterator[tuple[int, int, int]]:
    """Rows, columns and warps of the tiles that hold their sums in registers.

    ``depth`` is the bytes of a row that a step reads: every thread has 128 bits to load.
    """
    most = [power_of_two(size, 16, 256) for size in (rows, columns)]
    least = 64 if machine.groups and rows >= 64 else 16
    sizes = (16, 32, 64, 128, 256)
    for bm, bn in pairs(sizes, sizes):
        if bm > max(most[0], least) or bm < least or bn > most[1]:
            continue
        warps = 8 if bm * bn >= 128 * 128 else 4
        # a group of warps is four
        fewest = 4 if machine.groups and bm >= 64 else 1
        while warps > fewest and min(bm, bn) * depth < 16 * machine.lanes * warps:
            warps //= 2
        if bm * bn <= _SUMS * 32 * warps:
            yield bm, bn, warps


def _parts(tiles: int, steps: int, machine: Machine) -> list[int]:
    """Numbers of parts that give enough programs, and every one of them some steps."""
    found = [1]
    while tiles * found[-1] < 2 * machine.processors and found[-1] < 64:
        if found[-1] * 2 * 4 > steps:
            break
        found.append(found[-1] * 2)
    return found


def _cycles(b: Blocks, tiles: int, steps: int, operands: Operands, machine: Machine) -> float:
    """Estimate for one launch."""
    half, size = operands.dtype.is_half, operands.dtype.itemsize
    grouped = machine.groups and b.m >= 64
    if grouped or not machine.groups:
        rate = machine.half if half else machine.tf32
    else:
        rate = machine.half_by_warp if half else machine.tf32_by_warp
    multiply = b.m * b.n * b.k / rate
    # each group of warps reads its own rows, and all columns
    readers = max(1, b.m // 64) if grouped else b.warps // 2
    fetched = (b.m + readers * b.n) * b.k * size
    # four bytes at a time, and four of them meet in a bank
    turned = 4 if machine.groups and not half and not _second_along_k(b, operands) else 1
    stored = (b.m + turned * b.n) * b.k * size
    shared = (fetched + stored) / machine.shared_rate
    cache = (b.m + b.n) * b.k * size / machine.cache_rate
    each = _cdiv(steps, b.parts) * max(multiply, shared, cache)
    # how many programs a multiprocessor holds, and how many it gets
    held = max(1, min(machine.shared // (_buffers(machine, b.stages) * (b.m + b.n) * b.k * size),
                      16 // b.warps))  # fmt: skip
    turns = _cdiv(tiles * b.parts, machine.processors)
    return turns * each + _cdiv(turns, held) * (_START + 4 * b.m * b.n / machine.cache_rate)


def _second_along_k(b: Blocks, operands: Operands) -> bool:
    return operands.left_along_k if b.swap else operands.right_along_k


def _buffers(machine: Machine, stages: int) -> int:
    """Copies of a step's operands in shared memory; others wait in registers."""
    return stages if machine.copies else max(1, stages - 1)


# -- without tensor cores --------------------------------------------------------------------------


def _for_threads(problem: Problem, dtype: DType) -> Blocks:
    """Tiles whose sums fit into the registers beside their operands."""
    batch, m, n, k = problem.sizes()
    wide = dtype is DType.F64
    bm = power_of_two(m, 16, 64 if wide else 128)
    bn = power_of_two(n, 16, 64 if wide else 128)
    # smaller tiles while there are too few of them to go round
    while bm * bn > 64 * 64 and batch * _cdiv(m, bm) * _cdiv(n, bn) < PROGRAMS:
        bm, bn = (bm // 2, bn) if bm >= bn else (bm, bn // 2)
    bk = power_of_two(k, 16, 32)
    if bm * bn >= 128 * 128:
        bn = 64
    warps = 8 if bm * bn >= 128 * 128 else 4
    tiles, steps = batch * _cdiv(m, bm) * _cdiv(n, bn), _cdiv(k, bk)
    parts = 1
    if tiles * 2 <= PROGRAMS and steps >= 16:
        parts = max(1, min(steps // 8, PROGRAMS // tiles, 64))
    return Blocks(bm, bn, bk, warps, 3, parts)


# -- choices ---------------------------------------------------------------------------------------


def _picked(picks: Picks, default: Blocks, problem: Problem, dtype: DType) -> Blocks:
    """The tile, or another one that is wanted."""
    _, m, n, k = problem.sizes()
    most = 64 if dtype is DType.F64 else 256
    swap = bool(picks.pick("swap", int(default.swap), (0, 1)))
    rows, columns = (n, m) if swap else (m, n)

    def sizes(size: int, least: int, bound: int) -> list[int]:
        found = [least]
        while found[-1] < min(size, bound):
            found.append(found[-1] * 2)
        return found

    bm = picks.pick("m", default.m, sizes(rows, 16, most))
    # a tile that is large both ways does not fit into the registers
    bn = picks.pick("n", default.n, [x for x in sizes(columns, 16, most) if bm * x <= 256 * 128])
    bk = picks.pick("k", default.k, sizes(k, 16, 64))
    warps = picks.pick("warps", default.warps, (4, 8))
    stages = picks.pick("stages", default.stages, (2, 3, 4))
    # other numbers of parts of the sums: none, half and twice as many
    steps = _cdiv(k, bk)
    others = (1, default.parts // 2, default.parts * 2, 4)
    parts = picks.pick("parts", default.parts,
                       [p for p in others if p > 0 and p * 4 <= max(4, steps)])  # fmt: skip
    return Blocks(bm, bn, bk, warps, stages, parts, swap)


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)
