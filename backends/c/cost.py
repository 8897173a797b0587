"""What a loop program costs: instructions, and bytes between the caches, at the typical sizes.

A model of a core, not a measurement: two loads, two multiply-adds and one store a cycle, sums
that wait for themselves, two caches. It reads the loop program alone, so it knows every strategy.
It puts candidates in order for the tuner, and ``brickc explain`` shows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...ir.dims import Dim, DimExpr, Size, hint
from ...ir.dtypes import DType
from ...ir.kernel.kernel import KernelProgram
from ...ir.kernel.loops import (
    Bound,
    Combine,
    Compute,
    Fma,
    For,
    IndexOp,
    Let,
    LetLoad,
    Load,
    LoopKernel,
    Phase,
    Reduce,
    Statement,
    Store,
    Transpose,
    When,
)
from .cpu import Cpu

__all__ = ["Estimate", "estimate"]

#: nominal core: cycles a second, and threads among which chunks are shared out
HERTZ = 3e9
THREADS = 2

#: bytes of the two caches of a core, and bytes a cycle that come in from the next level
CACHES = ((32 * 1024, 24.0), (1024 * 1024, 6.0))

#: cycles from one addition to a sum to the next, and for threads to come together
LATENCY = 4
BARRIER = 300

#: bytes that move at once between caches
LINE = 64

#: cycles of a vector of 32-bit numbers, where they are not half a cycle
_CYCLES = {
    "div": 8.0, "sqrt": 10.0, "exp": 10.0, "log": 16.0, "tanh": 14.0, "logistic": 14.0,
    "softplus": 30.0, "philox": 40.0,
}  # fmt: skip

#: what the C library does lane by lane: cycles of a lane
_LIBRARY = {"expm1", "log1p", "erf", "sin", "cos", "floor", "ceil", "pow"}
_LIBRARY_CYCLES = 15.0

#: chunks of a phase that are looked at, evenly spaced
_SAMPLES = 4


@dataclass(frozen=True)
class Estimate:
    """Cycles of one kernel: those of the core, and of bytes into the first and second cache."""

    core: float
    first: float
    second: float

    @property
    def seconds(self) -> float:
        """On a nominal core's threads."""
        return (self.core + self.first + self.second) / HERTZ

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.core + other.core, self.first + other.first, self.second + other.second
        )


def estimate(made: LoopKernel, program: KernelProgram, cpu: Cpu) -> Estimate:
    """The cost of a kernel's loop program, all threads together busy."""
    sizes = {n: float(d.typical) for n, d in program.dims.items()}
    bytes_of = {n: hint(b.nbytes) for n, b in program.buffers.items()}
    bytes_of.update({b.name: hint(b.nbytes) for b in made.scratch})
    bytes_of.update({formal: bytes_of[actual] for formal, actual in made.arguments})
    total = Estimate(0.0, 0.0, 0.0)
    for phase in made.phases:
        total += _phase(phase, sizes, bytes_of, cpu)
    return total


def _phase(
    phase: Phase, sizes: Mapping[str, float], bytes_of: Mapping[str, int], cpu: Cpu
) -> Estimate:
    work = phase.work
    own = {b.name: hint(b.nbytes) for b in phase.private}
    known = {**bytes_of, **own}
    count = max(1, int(_value(work.count, sizes)))
    start = dict(sizes)
    if work.split is not None:
        start |= {work.split.lo: 0.0, work.split.hi: _value(work.split.size, sizes)}
    samples = sorted({k * count // _SAMPLES for k in range(_SAMPLES)})
    core, touches = 0.0, []
    for number in samples:
        walk = _Walk(cpu, {**start, work.name: float(number)}, {work.name: frozenset([work.name])})
        core += walk.block(work.body, ((work.name, count, 1.0),)) / len(samples)
        touches = walk.touches
    # every thread does its part of the chunks; the longest part is what lasts
    longest = -(-count // THREADS)
    moved = [_moved(touches, known, *cache) * longest / count for cache in CACHES]
    return Estimate(core * longest + BARRIER, *moved)


# -- the core --------------------------------------------------------------------------------------

#: a loop around a statement: variable, iterations, step
_Loop = tuple[str, int, float]


@dataclass(frozen=True)
class _Touch:
    """One load or store: its index's terms by name, and the loops around it, outermost first."""

    buffer: str
    item: int
    lanes: int
    stride: float
    terms: tuple[tuple[str, float], ...]
    loops: tuple[_Loop, ...]
    #: for each name of the index the loops that it changes with
    follows: Mapping[str, frozenset[str]]


@dataclass
class _Ports:
    """Instructions of a straight piece of code."""

    loads: float = 0.0
    stores: float = 0.0
    arithmetic: float = 0.0
    other: float = 0.0
    #: multiply-adds to each sum
    sums: Counter[str] = field(default_factory=Counter)

    def cycles(self, registers: int) -> float:
        # sums that do not fit go to memory and back
        spilled = max(0, len(self.sums) + 2 - registers)
        loads, stores = self.loads + 2 * spilled, self.stores + spilled
        issued = (loads + stores + self.arithmetic + self.other) / 4
        chain = LATENCY * max(self.sums.values(), default=0)
        return max(loads / 2, stores, self.arithmetic / 2, issued, chain)


class _Walk:
    """The cycles of a block of statements, and what it touches."""

    def __init__(
        self, cpu: Cpu, values: dict[str, float], follows: dict[str, frozenset[str]]
    ) -> None:
        self.cpu = cpu
        self.values = values
        self.follows = follows
        self.touches: list[_Touch] = []

    def block(self, body: Sequence[Statement], loops: tuple[_Loop, ...]) -> float:
        ports = _Ports()
        inside = 0.0
        for s in body:
            match s:
                case For():
                    inside += self._loop(s, loops)
                case When():
                    if _value(s.a, self.values) < _value(s.b, self.values):
                        inside += self.block(s.body, loops)
                    ports.other += 2
                case Let():
                    self.values[s.name] = _value(s.value, self.values)
                    self.follows[s.name] = self._dependence(s.value)
                    ports.other += 20 if _divides(s.value) else 1
                case _:
                    self._straight(s, ports, loops)
        return inside + ports.cycles(self.cpu.registers)

    def _loop(self, s: For, loops: tuple[_Loop, ...]) -> float:
        start, stop = _value(s.start, self.values), _value(s.stop, self.values)
        step = max(1.0, _value(s.step, self.values))
        trips = max(0, int(-(-(stop - start) // step)))
        if trips == 0:
            return 0.0
        self.values[s.name] = start + step * ((trips - 1) // 2)
        bounds = self._dependence(s.start) if isinstance(s.start, Dim | DimExpr) else frozenset()
        self.follows[s.name] = bounds | {s.name}
        return trips * (self.block(s.body, (*loops, (s.name, trips, step))) + 1.5)

    def _straight(self, s: Statement, ports: _Ports, loops: tuple[_Loop, ...]) -> None:
        lanes = self.cpu.lanes
        match s:
            case Load():
                wide = _registers(s.dtype)
                if s.stride in (0, 1):
                    ports.loads += wide
                    ports.other += wide if s.part is not None else 0
                else:
                    ports.loads += lanes
                    ports.other += lanes
                self._touch(s.buffer, s.dtype, s.index, s.stride, loops)
            case LetLoad():
                ports.loads += 1
                ports.other += 3
                self.values[s.name] = 0.0
                self.follows[s.name] = frozenset()
                self._touch(s.buffer, s.dtype, s.index, 0, loops)
            case Store():
                wide = _registers(s.dtype)
                one = s.stride == 1 or s.part == 1
                ports.stores += wide if one else lanes
                ports.other += 0 if one else lanes
                self._touch(s.buffer, s.dtype, s.index, s.stride, loops)
            case Fma():
                ports.arithmetic += _registers(s.dtype)
                ports.sums[s.acc] += 1
            case Compute():
                wide = _registers(s.dtype)
                if s.op in _LIBRARY or (s.dtype is DType.F64 and s.op in _CYCLES):
                    ports.arithmetic += 2 * lanes * _LIBRARY_CYCLES
                else:
                    ports.arithmetic += 2 * wide * _CYCLES.get(s.op, 0.5)
            case Combine():
                ports.arithmetic += 2 * _registers(s.dtype)
                ports.sums[s.acc] += 1
            case Reduce():
                ports.arithmetic += 24
            case Transpose():
                ports.loads += lanes
                ports.stores += lanes
                ports.arithmetic += 8 * lanes
                for buffer, index, stride in (
                    (s.source, s.source_index, s.source_stride),
                    (s.target, s.target_index, s.target_stride),
                ):
                    self._touch(buffer, s.dtype, index, stride, loops)
            case _:
                ports.other += 1

    def _touch(
        self, buffer: str, dtype: DType, index: Size, stride: Size, loops: tuple[_Loop, ...]
    ) -> None:
        by_name: dict[str, float] = {}
        for names, factor in _terms(index):
            moving = [n for n in names if n in self.follows]
            for name in moving[:1]:
                rest = list(names)
                rest.remove(name)
                for other in rest:
                    factor *= self.values[other]
                by_name[name] = by_name.get(name, 0.0) + factor
        step = abs(_value(stride, self.values))
        self.touches.append(
            _Touch(buffer, dtype.itemsize, 1 if step == 0 else self.cpu.lanes, step,
                   tuple(by_name.items()), loops, self.follows)
        )  # fmt: skip

    def _dependence(self, bound: Bound) -> frozenset[str]:
        if isinstance(bound, IndexOp):
            return self._dependence(bound.a) | self._dependence(bound.b)
        found: frozenset[str] = frozenset()
        for names, _ in _terms(bound):
            for name in names:
                found |= self.follows.get(name, frozenset())
        return found


# -- the caches ------------------------------------------------------------------------------------


def _moved(
    touches: Sequence[_Touch], bytes_of: Mapping[str, int], cache: int, rate: float
) -> float:
    """Cycles of a whole phase's bytes into a cache.

    An access keeps in the cache what it touches in the outermost loop whose body fits into it, and
    fetches that anew in every turn of the loops around.
    """
    # accesses of one buffer at the same steps share what they fetch
    distinct = {(t.buffer, t.terms, tuple(n for n, _, _ in t.loops)): t for t in touches}
    total = 0.0
    fits: dict[tuple[str, ...], bool] = {}
    for touch in distinct.values():
        names = tuple(n for n, _, _ in touch.loops)
        turns = 1.0
        for depth in range(len(names) + 1):
            around = names[:depth]
            if around not in fits:
                inside = [t for t in distinct.values()
                          if tuple(n for n, _, _ in t.loops[:depth]) == around]  # fmt: skip
                fits[around] = sum(_footprint(t, depth, bytes_of) for t in inside) <= cache
            if fits[around] or depth == len(names):
                total += turns * _footprint(touch, depth, bytes_of)
                break
            turns *= touch.loops[depth][1]
    return total / rate


def _footprint(touch: _Touch, depth: int, bytes_of: Mapping[str, int]) -> float:
    """Bytes that an access touches in one turn of the loops around ``depth``."""
    trips = {name: count for name, count, _ in touch.loops[depth:]}
    steps = {name: step for name, _, step in touch.loops[depth:]}
    extents: dict[float, float] = {}
    if touch.lanes > 1:
        extents[touch.stride] = touch.lanes - 1
    for name, factor in touch.terms:
        count, step = 1, 1.0
        for loop in touch.follows.get(name, frozenset()):
            count *= trips.get(loop, 1)
            if loop == name:
                step = steps.get(loop, 1.0)
        extents[abs(factor)] = extents.get(abs(factor), 0.0) + (count - 1) * step
    elements = 1.0
    least = min((f for f, n in extents.items() if n), default=LINE)
    for extent in extents.values():
        elements *= extent + 1
    width = min(float(LINE), max(1.0, least) * touch.item)
    return min(max(elements * width, LINE), max(bytes_of.get(touch.buffer, LINE), LINE))


# -- integers --------------------------------------------------------------------------------------


def _terms(size: Size) -> list[tuple[tuple[str, ...], float]]:
    match size:
        case int():
            return [((), float(size))]
        case Dim():
            return [((size.name,), 1.0)]
    return [(names, float(factor)) for names, factor in size.terms]


def _value(bound: Bound, values: Mapping[str, float]) -> float:
    if isinstance(bound, IndexOp):
        a, b = _value(bound.a, values), _value(bound.b, values)
        match bound.op:
            case "min":
                return min(a, b)
            case "max":
                return max(a, b)
            case "div":
                return a // b
            case "mod":
                return a % b
            case "add":
                return a + b
            case "sub":
                return a - b
            case "mul":
                return a * b
    total = 0.0
    for names, factor in _terms(bound):
        for name in names:
            factor *= values[name]
        total += factor
    return total


def _divides(bound: Bound) -> bool:
    if not isinstance(bound, IndexOp):
        return False
    return bound.op in ("div", "mod") or _divides(bound.a) or _divides(bound.b)


def _registers(dtype: DType) -> int:
    """Registers of a vector: one has as many bytes as there are 32-bit lanes."""
    return max(1, dtype.itemsize // 4)
