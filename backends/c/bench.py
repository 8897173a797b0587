"""Candidates of kernels side by side in one library, on arrays of their own."""

from __future__ import annotations

import ctypes
import math
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InternalError
from ...ir.dims import Size, evaluate
from ...ir.dtypes import DType
from ...ir.kernel.kernel import Kernel, KernelProgram
from ...ir.kernel.loops import LoopKernel
from ...ir.kernel.memory import Buffer, Space
from ..base import Timed, Trial
from ..trials import difference, first_numbers, generator, sizes_to_compare, text_hash
from .build import compiler_version, prelude, shared_library
from .cpu import Cpu, processor
from .functions import Base, Function, Literals, Place
from .profile import PROFILE
from .source import print_source

__all__ = ["CBench"]

Array = npt.NDArray[Any]


class CBench:
    """Implements ``backends.base.Bench`` on this machine's processor."""

    def __init__(
        self,
        cpu: Cpu,
        threads: int,
        alone: Callable[[KernelProgram], bool],
        *,
        fast: bool = False,
    ) -> None:
        self.cpu = cpu
        self.threads = threads
        self._alone = alone
        self.environment: Mapping[str, str] = {
            "target": "c",
            "processor": processor(),
            "instructions": cpu.name,
            "lanes": str(cpu.lanes),
            "threads": str(threads),
            "numerics": "fast" if fast else "strict",
            "compiler": compiler_version(),
            "code": text_hash(Path(__file__).parent),
        }

    def build(self, trials: Sequence[Trial]) -> list[Timed]:
        """One library for all, so that they share one pool of threads.

        Every way is a function that gets its buffers as arguments.
        """
        functions = []
        for number, trial in enumerate(trials):
            buffers = _buffers(trial)
            places = {name: Place(Base.INPUT, k) for k, name in enumerate(buffers)}
            for way, made in enumerate(trial.ways):
                assert isinstance(made, LoopKernel)
                name = f"trial{number}_{way}"
                functions.append(Function(name, trial.program, (made,), buffers, places, 0))
        source = print_source(prelude(self.cpu), functions, Literals())
        built = shared_library(source.units(), self.cpu, extra=(PROFILE,))
        with tempfile.TemporaryDirectory(prefix="brickc-tune-") as folder:
            path = Path(folder) / "trials.so"
            path.write_bytes(built)
            library = _Library(path)
        return [
            _Runs(library, n, trial, 1 if self._alone(trial.program) else self.threads)
            for n, trial in enumerate(trials)
        ]


class _Library:
    """A library of trials, whose threads end with it."""

    def __init__(self, path: Path) -> None:
        self.functions: Any = ctypes.CDLL(str(path))
        weakref.finalize(self, self.functions.end_pool)


class _Runs:
    """Implements ``backends.base.Timed`` for one trial."""

    def __init__(self, library: _Library, number: int, trial: Trial, threads: int) -> None:
        self.library = library
        self.trial = trial
        self.threads = ctypes.c_int(threads)
        functions = library.functions
        self.calls = [getattr(functions, f"trial{number}_{w}") for w in range(len(trial.ways))]
        self.stamps = []
        for way, made in enumerate(trial.ways):
            assert isinstance(made, LoopKernel)
            kind = ctypes.c_long * (len(made.phases) + 1)
            self.stamps.append(kind.in_dll(functions, f"trial{number}_{way}_stamps"))
        self._arrays: _Arrays | None = None

    def seconds(self, way: int) -> float:
        if self._arrays is None:
            typical = {n: d.typical for n, d in self.trial.program.dims.items()}
            self._arrays = _Arrays(self.trial, typical, whole=False)
        arrays = self._arrays
        arrays.restore()
        if self._call(way, arrays):
            return math.inf
        stamps = self.stamps[way]
        return float(stamps[len(stamps) - 1] - stamps[0]) / 1e9

    def error(self, way: int) -> dict[str, float]:
        self._arrays = None  # the memory may be needed
        worst: dict[str, float] = {}
        for sizes in sizes_to_compare(self.trial.program.dims):
            arrays = _Arrays(self.trial, sizes, whole=True)
            found = []
            for each in (0, way):
                arrays.restore()
                if self._call(each, arrays):
                    return {"f32": math.inf}
                found.append(arrays.results())
            for buffer, right in found[0].items():
                dtype = str(arrays.buffers[buffer].dtype)
                worst[dtype] = max(worst.get(dtype, 0.0), difference(found[1][buffer], right))
        return worst

    def _call(self, way: int, arrays: _Arrays) -> int:
        call = self.calls[way]
        return int(call(None, None, arrays.sizes, arrays.pointers, self.threads))


@dataclass(frozen=True)
class _Held:
    array: Array
    #: what it holds before a run, if that is put back
    before: Array | None


class _Arrays:
    """The buffers of a trial at some sizes: random numbers, the same each time.

    ``whole`` puts back all that a run writes, so that what it leaves out can be seen; else only
    what it also reads, which would drift from run to run.
    """

    def __init__(self, trial: Trial, sizes: Mapping[str, int], *, whole: bool) -> None:
        self.buffers = _buffers(trial)
        kernel = trial.program.kernels[trial.number]
        written = {a.buffer for a in kernel.writes()}
        read = {a.buffer for a in kernel.reads()}
        rng = generator()
        self.held: dict[str, _Held] = {}
        for name, buffer in self.buffers.items():
            array = _aligned(evaluate(buffer.size, sizes), buffer.dtype)
            array[...] = first_numbers(buffer, len(array), rng)
            put_back = name in written and (whole or name in read)
            self.held[name] = _Held(array, array.copy() if put_back else None)
        self.written = sorted(written)
        self.sizes = (ctypes.c_int64 * max(1, len(sizes)))(*sizes.values())
        addresses = [held.array.ctypes.data for held in self.held.values()]
        self.pointers = (ctypes.c_void_p * max(1, len(addresses)))(*addresses)

    def restore(self) -> None:
        """The numbers of before."""
        for held in self.held.values():
            if held.before is not None:
                held.array[...] = held.before

    def results(self) -> dict[str, Array]:
        return {name: self.held[name].array.copy() for name in self.written}


def _buffers(trial: Trial) -> dict[str, Buffer]:
    """All memory that a trial's ways touch, in a fixed order."""
    kernel: Kernel = trial.program.kernels[trial.number]
    names = dict.fromkeys(a.buffer for a in (*kernel.reads(), *kernel.writes()))
    found = {name: trial.program.buffers[name] for name in names}
    sizes: dict[str, list[Buffer]] = {}
    for made in trial.ways:
        assert isinstance(made, LoopKernel)
        for buffer in made.scratch:
            sizes.setdefault(buffer.name, []).append(buffer)
    for name, buffers in sizes.items():
        if len({b.dtype for b in buffers}) > 1:
            raise InternalError(f"ways of {kernel.name} mean different things by {name}")
        # ways may want different amounts under one name: never less than the sum
        total: Size = 0
        for buffer in buffers:
            total = total + buffer.size
        found[name] = Buffer(name, buffers[0].dtype, total, Space.ARENA)
    return found


def _aligned(count: int, dtype: DType) -> Array:
    """Zeros that start on a cache line."""
    nbytes = count * dtype.itemsize
    memory = np.zeros(nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + nbytes].view(dtype.numpy)
