"""Every kernel of a built library on random numbers, against what the kernel means.

Compilers have bugs: one of GCC 12's deletes calls of functions that store. So each kernel is
run in the library that is shipped, by the very call that its function makes, on memory laid out
as planned: its operands are random, what it is to write is garbage. Some of the elements that it
writes, the corners of its index space among them, are compared with ``ir.kernel.evaluate``, and
the bytes around what it writes must stay as they were.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InternalError
from ...ir.dims import evaluate
from ...ir.dtypes import DType
from ...ir.kernel import anchors
from ...ir.kernel.evaluate import cost_of, elements_of, stored
from ...ir.kernel.kernel import Kernel
from ...ir.kernel.loops import LoopKernel
from ...ir.kernel.memory import Access, Buffer, Space
from .functions import Base, Function

__all__ = ["TOLERANCES", "SelfTest", "self_test"]

Array = npt.NDArray[Any]

#: largest difference from the definition, by dtype, as a part of the largest element
TOLERANCES: dict[DType, float] = {DType.F32: 1e-4, DType.F64: 1e-9}

#: threads whose shares a kernel's work is cut into
_THREADS = 3

#: elements that are read to compute the expected ones: of a kernel, and of one like another
_READ, _READ_AGAIN = 150_000, 10_000

#: elements that are compared at most
_COMPARED = 1024

#: the sizes of a test are small ones, above this many bytes of memory or operations
_BYTES, _FLOPS = 256 * 2**20, 20e9

#: random numbers that buffers are filled with over and over; a prime, so that no stride repeats it
_PERIOD = 65521

#: bytes before and behind a buffer that must stay as they are
_AROUND = 64

#: nobody has written here: a NaN, or a number that stands out
_GARBAGE = 0xFF


@dataclass
class SelfTest:
    """What was tested: sizes of the dims and number of kernels by function."""

    sizes: dict[str, dict[str, int]] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)
    #: function -> what came of each kernel, in their order
    results: dict[str, list[Result]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A kernel's largest difference from its definition, as a part of the largest element."""

    kernel: str
    error: float
    #: how many elements were compared
    elements: int

    def as_dict(self) -> dict[str, object]:
        """Two digits of the error say what it is; more would differ between compilers."""
        return {"kernel": self.kernel, "error": float(f"{self.error:.1e}"),
                "elements": self.elements}  # fmt: skip


class _MismatchError(Exception):
    """What a kernel did wrong; ``rounding`` may be the reason."""

    def __init__(self, what: str, *, rounding: bool = False) -> None:
        self.rounding = rounding
        super().__init__(what)


def self_test(
    library: Any,
    functions: Sequence[Function],
    memory_bytes: int,
    lanes: int,
    built_by: str,
    tolerances: Mapping[DType, float] = TOLERANCES,
) -> SelfTest:
    """Test all kernels of a library that was built with TESTED.

    Raises InternalError for the first that is wrong: its name, its bricks, the largest difference
    and ``built_by``, the compiler and its flags.
    """
    done = SelfTest()
    memory = _aligned(memory_bytes)
    seen: set[int] = set()
    for f in functions:
        dims = _sizes(f, lanes)
        bench = _Bench(library, f, dims, memory, tolerances)
        phase = 0
        spans = []
        for kernel in f.kernels:
            spans.append(range(phase, phase + len(kernel.phases)))
            phase = spans[-1].stop
        results: dict[int, Result] = {}
        for number, kernel in enumerate(f.kernels):
            if number in f.pairs.values():
                continue  # with the kernel that does some of its work
            members = [number, f.pairs[number]] if number in f.pairs else [number]
            group = [(f.kernels[n], spans[n]) for n in members]
            budget = _READ_AGAIN if id(kernel.phases) in seen else _READ
            seen.add(id(kernel.phases))
            try:
                try:
                    found = bench.test(group, budget, seed=0)
                except _MismatchError as wrong:
                    if not wrong.rounding:
                        raise
                    # it can turn a comparison that is nearly a tie; not twice
                    found = bench.test(group, budget, seed=1)
            except _MismatchError as wrong:
                raise InternalError(
                    f"kernel {kernel.kernel.name!r} of {f.name} does not compute what it means",
                    got=str(wrong),
                    expected="the values of its definition",
                    hint=f"sizes {dims}, strategy {kernel.strategy}; built by {built_by}; "
                    "bricks: " + " | ".join(kernel.kernel.notes),
                ) from None
            results.update(zip(members, found, strict=True))
        done.results[f.name] = [results[n] for n in range(len(f.kernels))]
        done.sizes[f.name] = dims
        done.kernels[f.name] = len(f.kernels)
    return done


def _sizes(f: Function, lanes: int) -> dict[str, int]:
    """A vector and a tail, if that costs little; else the smallest sizes."""
    dims = f.program.dims
    wanted = {n: min(max(lanes + 1, d.lo), d.hi) for n, d in dims.items()}
    scale = 1.0
    for n, d in dims.items():
        scale *= wanted[n] / d.typical
    flops = sum(k.flops for k in f.program.kernels) * scale
    if evaluate(f.peak, wanted) > _BYTES or flops > _FLOPS:
        return {n: d.lo for n, d in dims.items()}
    return wanted


def _aligned(size: int) -> Array:
    """Zeros that begin at a multiple of 64 bytes, with some behind that are nobody's."""
    whole = np.zeros(size + _AROUND + 64, np.uint8)
    start = -whole.ctypes.data % 64
    return whole[start : start + size + _AROUND]


class _Bench:
    """Memory of one function, in which its kernels are run one by one."""

    def __init__(
        self,
        library: Any,
        f: Function,
        dims: Mapping[str, int],
        memory: Array,
        tolerances: Mapping[DType, float],
    ) -> None:
        self.f = f
        self.dims = dims
        self.tolerances = tolerances
        self.call = getattr(library, f"{f.name}_phase")
        self.shade = _Shade(library)
        self.arena = _aligned(evaluate(f.peak, dims))
        self.memory = memory
        given = [b for b in f.buffers.values() if f.places[b.name].base is Base.INPUT]
        given.sort(key=lambda b: evaluate(f.places[b.name].at, {}))
        self.inputs = {b.name: _aligned(evaluate(b.nbytes, dims)) for b in given}
        sizes = [dims[d] for d in f.program.dims]
        self.sizes = (ctypes.c_int64 * max(1, len(sizes)))(*sizes)
        addresses = [a.ctypes.data for a in self.inputs.values()]
        self.given = (ctypes.c_void_p * max(1, len(addresses)))(*addresses)

    def view(self, name: str, least: int = 0) -> Array:
        """A buffer's elements, flat; more, if ``least`` are wanted."""
        buffer, place = self.f.buffers[name], self.f.places[name]
        dtype = buffer.dtype.numpy
        if place.base is Base.LITERAL:
            return np.frombuffer(buffer.data, dtype)
        if place.base is Base.INPUT:
            return self.inputs[name][: evaluate(buffer.nbytes, self.dims)].view(dtype)
        base = self.arena if place.base is Base.ARENA else self.memory
        start = evaluate(place.at, self.dims)
        size = max(evaluate(buffer.size, self.dims), least)
        return base[start : start + size * dtype.itemsize].view(dtype)

    def views(self, kernels: Sequence[Kernel], scratch: Sequence[Buffer]) -> dict[str, Array]:
        """All buffers of kernels. A bundle of updates goes on into the parameters behind."""
        least = {b.name: 0 for b in scratch}
        for kernel in kernels:
            for access in (*kernel.reads(), *kernel.writes()):
                shape = [evaluate(n, self.dims) for n in access.shape]
                last = [np.asarray(n - 1) for n in shape]
                size = int(elements_of(access, self.dims, last)) + 1 if 0 not in shape else 0
                least[access.buffer] = max(least.get(access.buffer, 0), size)
        return {name: self.view(name, size) for name, size in least.items()}

    def test(
        self, group: Sequence[tuple[LoopKernel, range]], budget: int, seed: int
    ) -> list[Result]:
        """Run kernels, of which none reads what another writes, phase by phase, and compare.

        Raises _MismatchError.
        """
        kernels = [k.kernel for k, _ in group]
        reads = dict.fromkeys(a.buffer for k in kernels for a in k.reads())
        writes = dict.fromkeys(a.buffer for k in kernels for a in k.writes())
        common = self.views(kernels, ())
        for name in writes:
            if name not in reads:
                common[name].view(np.uint8)[:] = _GARBAGE
        self.fill(kernels, {n: common[n] for n in reads}, seed)
        expected = [list(self.expected(k, common, budget, seed)) for k in kernels]
        results = []
        for (kernel, phases), wanted in zip(group, expected, strict=True):
            # scratch of a later kernel may lie where this one's is, or its results
            views = self.views(kernels, kernel.scratch)
            scratch = [b.name for b in kernel.scratch]
            for name in scratch:
                views[name].view(np.uint8)[:] = _GARBAGE
            around = [(part, part.copy()) for part in self.around([*writes, *scratch], views)]
            self.run(views, phases)
            for part, before in around:
                if not np.array_equal(part, before):
                    raise _MismatchError("it writes outside its results")
            errors = [self.compare(a, views[a.buffer][index], v) for a, index, v in wanted]
            elements = sum(values.size for _, _, values in wanted)
            results.append(Result(kernel.kernel.name, max(errors, default=0.0), elements))
        return results

    def run(self, views: Mapping[str, Array], phases: Sequence[int]) -> None:
        pools = [self.arena, self.memory, *self.inputs.values()]
        with self.shade.over(pools, list(views.values())):
            for phase in phases:
                failed = self.call(
                    ctypes.c_void_p(self.arena.ctypes.data),
                    ctypes.c_void_p(self.memory.ctypes.data),
                    self.sizes, self.given, _THREADS, phase,
                )  # fmt: skip
                if failed:
                    raise _MismatchError("it calls an index out of range that is not")

    # -- operands ------------------------------------------------------------------------------

    def fill(self, kernels: Sequence[Kernel], views: Mapping[str, Array], seed: int) -> None:
        """Random operands that the kernels' operations are defined for."""
        ops = {i.op for k in kernels for r in k.regions() for i in r.program.instrs}
        pools = _pools(seed, _kind(ops))
        indices = {n: limit for k in kernels for n, limit in _index_limits(k, self.dims).items()}
        for number, (name, view) in enumerate(views.items()):
            buffer = self.f.buffers[name]
            if buffer.space is Space.LITERAL:
                continue
            pool = pools[buffer.dtype]
            if name in indices:
                pool = (pools[DType.I64] * 7919 + 13) % indices[name]
            _repeat(view, pool[number * 7919 % _PERIOD :])
        for kernel in kernels:
            if isinstance(kernel.anchor, anchors.WindowMaxScatter | anchors.WindowMaxGather):
                self._maxima(kernel, views)

    def _maxima(self, kernel: Kernel, views: Mapping[str, Array]) -> None:
        """The operand that holds the windows' maxima, from the image."""
        anchor = kernel.anchor
        assert isinstance(anchor, anchors.WindowMaxScatter | anchors.WindowMaxGather)
        x, y = (self.strided(a, views[a.buffer]) for a in kernel.operands[:2])
        y[...] = -np.inf
        for tap in itertools.product(*(range(n) for n in anchor.window)):
            inside, window = [], []
            for a, k in enumerate(tap):
                stride, lo = anchor.stride[a], anchor.padding[a][0]
                first = max(0, -((k - lo) // stride))
                last = min(y.shape[a], -((k - lo - x.shape[a]) // stride))
                start = first * stride + k - lo
                count = max(0, last - first)
                inside.append(slice(start, start + max(0, (count - 1) * stride + 1), stride))
                window.append(slice(first, first + count))
            part = y[tuple(window)]
            if part.size:
                np.maximum(part, x[tuple(inside)], out=part)

    def strided(self, access: Access, flat: Array) -> Array:
        """The access as an array over its buffer."""
        flat = flat[evaluate(access.offset, self.dims) :]
        shape = [evaluate(n, self.dims) for n in access.shape]
        strides = [evaluate(s, self.dims) * flat.itemsize for s in access.strides]
        return np.lib.stride_tricks.as_strided(flat, shape, strides)

    # -- results -------------------------------------------------------------------------------

    def expected(
        self, kernel: Kernel, views: Mapping[str, Array], budget: int, seed: int
    ) -> Iterator[tuple[Access, Array, Array]]:
        """Stores, elements of their buffers, and the values that must be there afterwards."""
        rng = np.random.Generator(np.random.Philox(key=seed))
        parts = [(kernel, cost_of(kernel, self.dims))]
        if kernel.before is not None and kernel.before.stores:
            # what the prologue stores is a map of its own
            parts.append((Kernel(kernel.name, None, (), None, kernel.before), 1))
        if kernel.pool is not None and kernel.after.stores:
            whole = replace(kernel, pool=None)
            parts.append((whole, cost_of(whole, self.dims)))
        for part, cost in parts:
            region = part.regions()[-1]
            shape = [evaluate(n, self.dims) for n in region.shape]
            count = min(max(budget // max(cost, 1), 4), _COMPARED)
            at = _positions(rng, shape, count)
            if at is None:
                continue
            values = stored(part, views, self.dims, at)
            for (_, access), value in zip(region.stores, values, strict=True):
                index = elements_of(access, self.dims, at)
                yield access, np.broadcast_to(index, value.shape), value

    def compare(self, access: Access, found: Array, wanted: Array) -> float:
        """The largest difference as a part of the largest element. Raises _MismatchError."""
        dtype = access.dtype
        if dtype is DType.BOOL:
            found, wanted = found != 0, wanted != 0
        if not dtype.is_float:
            if not np.array_equal(found, wanted):
                count = int((found != wanted).sum())
                raise _MismatchError(
                    f"{count} of {found.size} elements of {access.buffer} differ", rounding=True
                )
            return 0.0
        with np.errstate(all="ignore"):
            wanted = wanted.astype(dtype.numpy)
            same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
            scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
            difference = np.where(same, 0, np.abs(found - wanted))
        worst = float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))
        if worst > self.tolerances[dtype] * scale:
            raise _MismatchError(
                f"a difference of {worst:.2e} in {access.buffer}, whose largest is {scale:.2e}",
                rounding=True,
            )
        return worst / scale if scale else 0.0

    def around(self, written: Sequence[str], views: Mapping[str, Array]) -> Iterator[Array]:
        """Bytes before and behind what is written, as far as the kernel has no business there."""
        spans = {}
        for name, view in views.items():
            place = self.f.places[name]
            if place.base in (Base.ARENA, Base.MEMORY):
                start = evaluate(place.at, self.dims)
                spans[name] = (place.base, start, start + view.nbytes)
        for name in written:
            base, start, stop = spans[name]
            pool = self.arena if base is Base.ARENA else self.memory
            others = [s for n, s in spans.items() if n != name and s[0] is base]
            before = max([0, start - _AROUND, *(b for _, _, b in others if b <= start)])
            behind = min([pool.size, stop + _AROUND, *(a for _, a, _ in others if a >= stop)])
            yield pool[before:start]
            yield pool[stop:behind]


def _positions(rng: np.random.Generator, shape: Sequence[int], count: int) -> list[Array] | None:
    """Corners and other places of an index space; all of a small one; None of an empty one."""
    total = 1
    for n in shape:
        total *= n
    if total == 0:
        return None
    if total <= count:
        return [i.reshape(-1) for i in np.indices(shape)] if shape else []
    corners = list(itertools.islice(itertools.product(*({0, n - 1} for n in shape)), count))
    found = [rng.integers(0, n, count) for n in shape]
    for axis, places in enumerate(zip(*corners, strict=True)):
        found[axis][: len(places)] = places
    return found


def _kind(ops: set[str]) -> str:
    if ops & {"log", "sqrt", "pow", "log1p"}:
        return "positive"
    return "nonzero" if "div" in ops else "any"


@lru_cache(maxsize=8)
def _pools(seed: int, kind: str) -> dict[DType, Array]:
    """Two periods of random numbers of every dtype."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    floats = rng.standard_normal(_PERIOD)
    if kind != "any":
        floats = rng.uniform(0.25, 1.25, _PERIOD)
    if kind == "nonzero":
        floats *= rng.integers(0, 2, _PERIOD) * 2 - 1
    integers = rng.integers(1 if kind == "nonzero" else 0, 8, _PERIOD)
    once: dict[DType, Array] = {
        DType.F32: floats.astype(np.float32), DType.F64: floats,
        DType.I32: integers.astype(np.int32), DType.I64: integers,
        DType.BOOL: (integers % 2).astype(np.bool_),
    }  # fmt: skip
    return {d: np.concatenate([a, a]) for d, a in once.items()}


def _repeat(view: Array, pool: Array) -> None:
    """Fill a buffer with one period after the other."""
    whole = view.size // _PERIOD * _PERIOD
    view[:whole].reshape(-1, _PERIOD)[:] = pool[:_PERIOD]
    view[whole:] = pool[: view.size - whole]


def _index_limits(kernel: Kernel, dims: Mapping[str, int]) -> dict[str, int]:
    """Buffers that hold indices, and what they stay below."""
    match kernel.anchor:
        case anchors.Gather(axis=axis):
            x, indices = kernel.operands
            return {indices.buffer: evaluate(x.shape[axis], dims)}
        case anchors.PooledWeightGrad(window=window):
            return {kernel.operands[1].buffer: math.prod(window)}
        case anchors.PooledInputGrad(window=window):
            return {kernel.operands[0].buffer: math.prod(window)}
        case anchors.ScatterAdd(size=size):
            return {kernel.operands[0].buffer: evaluate(size, dims)}
    return {}


class _Shade:
    """All memory but a kernel's own made unreadable, in a library with the address sanitizer."""

    def __init__(self, library: Any) -> None:
        self.poison = getattr(library, "__asan_poison_memory_region", None)
        self.clear = getattr(library, "__asan_unpoison_memory_region", None)
        self.pools: list[Array] = []

    def over(self, pools: Sequence[Array], own: Sequence[Array]) -> _Shade:
        if self.poison is not None:
            self.pools = list(pools)
            for array in pools:
                self._mark(self.poison, array)
            for array in own:
                self._mark(self.clear, array)
        return self

    def _mark(self, function: Any, array: Array) -> None:
        function(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for array in self.pools:
            self._mark(self.clear, array)
