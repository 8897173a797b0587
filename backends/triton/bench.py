"""Candidates of kernels on a GPU: compiled by Triton, pruned by what they take, timed as graphs."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import UnsupportedError
from ...ir.dims import evaluate
from ...ir.dtypes import DType
from ...ir.kernel.memory import Buffer
from ..base import Timed, Trial
from ..trials import difference, first_numbers, generator, sizes_to_compare, text_hash
from .device import LibraryFunction, start_all
from .launches import Launch, LibraryCall, TritonKernel
from .options import Options
from .printer import Kernels

__all__ = ["GpuTimer", "Timer", "TritonBench", "open_bench"]

#: runs inside one recorded graph
RUNS = 20

#: seconds that some launches take, given a function that starts them
Timer = Callable[[Callable[[], None]], float]


def open_bench(options: Options) -> TritonBench:
    """The bench of the GPU that is here. Raises UnsupportedError, with the reason, without one."""
    hint = "tune on a machine with the GPU; without --tune the cost model decides"
    missing = [n for n in ("torch", "triton") if importlib.util.find_spec(n) is None]
    if missing:
        raise UnsupportedError(
            "there is no device to time on", got=f"no {' and no '.join(missing)}", hint=hint
        )
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise UnsupportedError(
            "there is no device to time on", got="Triton's interpreter (TRITON_INTERPRET=1)",
            hint=hint,
        )  # fmt: skip
    import torch

    if not torch.cuda.is_available():
        raise UnsupportedError("there is no device to time on", got="no GPU", hint=hint)
    major, minor = torch.cuda.get_device_capability()
    wanted = options.architecture
    if wanted is not None and (wanted.api != "cuda" or wanted.number != 10 * major + minor):
        raise UnsupportedError(
            "the device is another one than the kernels are for",
            got=f"sm_{major}{minor}", expected=wanted.name, hint=hint,
        )  # fmt: skip
    device = f"{torch.cuda.get_device_name()}, sm_{major}{minor}"
    return TritonBench(options, "cuda", device, GpuTimer(torch))


class GpuTimer:
    """Replays one graph of the launches, some times over, and reads the device's clock."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        # a graph goes, and the memory of its kernels with it, when its trial goes
        self.graphs: weakref.WeakKeyDictionary[Callable[[], None], Any]
        self.graphs = weakref.WeakKeyDictionary()

    def __call__(self, start: Callable[[], None]) -> float:
        cuda = self.torch.cuda
        if start not in self.graphs:
            start()  # compiles
            cuda.synchronize()
            graph = cuda.CUDAGraph()
            with cuda.graph(graph):
                for _ in range(RUNS):
                    start()
            self.graphs[start] = graph
            graph.replay()
        before, after = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        before.record()
        self.graphs[start].replay()
        after.record()
        after.synchronize()
        return float(before.elapsed_time(after)) / 1e3 / RUNS


class TritonBench:
    """Implements ``backends.base.Bench`` with torch's memory at ``place``."""

    def __init__(self, options: Options, place: str, device: str, timer: Timer) -> None:
        import triton

        self.options = options
        self.place = place
        self.timer = timer
        self.environment: Mapping[str, str] = {
            "target": "triton",
            "device": device,
            "precision": options.precision,
            "triton": str(triton.__version__),
            "code": text_hash(Path(__file__).parent),
        }

    def build(self, trials: Sequence[Trial]) -> list[Timed]:
        kernels = Kernels()
        named: list[list[list[tuple[str, Launch]]]] = []
        for trial in trials:
            ways = []
            for made in trial.ways:
                assert isinstance(made, TritonKernel)
                ways.append([(kernels.name(x, made.kernel.kind).name, x) for x in made.launches])
            named.append(ways)
        module = _imported(kernels.module("candidates"))
        return [_Runs(self, trial, module, ways) for trial, ways in zip(trials, named, strict=True)]


class _Runs:
    """Implements ``backends.base.Timed`` for one trial."""

    def __init__(
        self,
        bench: TritonBench,
        trial: Trial,
        module: ModuleType,
        ways: Sequence[Sequence[tuple[str, Launch]]],
    ) -> None:
        self.bench = bench
        self.trial = trial
        self.module = module
        self.ways = ways
        self._starts: dict[int, Callable[[], None] | None] = {}
        self._typical: _Tensors | None = None

    def seconds(self, way: int) -> float:
        dims = self.trial.program.dims
        if self._typical is None:
            self._typical = _Tensors(self.trial, {n: d.typical for n, d in dims.items()},
                                     self.bench.place)  # fmt: skip
        if way not in self._starts:
            self._starts[way] = self._start(way, self._typical)
        start = self._starts[way]
        return math.inf if start is None else self.bench.timer(start)

    def error(self, way: int) -> dict[str, float]:
        worst: dict[str, float] = {}
        for sizes in sizes_to_compare(self.trial.program.dims):
            found = []
            for each in (0, way):
                tensors = _Tensors(self.trial, sizes, self.bench.place)
                start = self._start(each, tensors)
                if start is None:
                    return {"f32": math.inf}
                # compiling has run it once: what it changes is put back
                tensors.fill()
                start()
                found.append(tensors.results())
            for name, right in found[0].items():
                dtype = str(self.trial.program.buffers[name].dtype)
                worst[dtype] = max(worst.get(dtype, 0.0), difference(found[1][name], right))
        return worst

    def _start(self, way: int, tensors: _Tensors) -> Callable[[], None] | None:
        """A function that starts the way's launches; None if they do not fit the device."""
        ready = []
        for name, launch in self.ways[way]:
            grid = 1
            for size, block in launch.grid.factors:
                grid *= -(-evaluate(size, tensors.sizes) // block)
            arguments = [tensors.of(b) for b in launch.pointers]
            arguments += [tensors.sizes[d] for d in launch.dims]
            options = {"num_warps": launch.warps, "num_stages": launch.stages,
                       "enable_fp_fusion": True}  # fmt: skip
            kernel = getattr(self.module, name)
            one = (kernel, (grid,), arguments, options)
            try:
                (compiled,) = start_all(tensors.torch, self.bench.place, [one])
            except Exception as error:
                if type(error).__name__ == "OutOfResources":
                    return None
                raise
            if getattr(compiled, "n_spills", 0):
                return None
            ready.append(one)
        made = self.trial.ways[way]
        assert isinstance(made, TritonKernel)
        if made.library is not None:
            ready.insert(0, self._library(made, made.library, tensors))

        def start() -> None:
            start_all(tensors.torch, self.bench.place, ready)

        return start

    def _library(
        self, made: TritonKernel, call: LibraryCall, tensors: _Tensors
    ) -> tuple[Any, tuple[int], list[Any], dict[str, Any]]:
        """A library's call in the form of a launch."""
        held = {**self.trial.program.buffers, **{b.name: b for b in made.scratch}}
        views = []
        for access in (*call.operands, call.result):
            shape = [evaluate(n, tensors.sizes) for n in access.shape]
            strides = [evaluate(n, tensors.sizes) for n in access.strides]
            start = evaluate(access.offset, tensors.sizes)
            whole = tensors.of(held[access.buffer])
            views.append(tensors.torch.as_strided(whole, shape, strides, start))
        tf32 = self.bench.options.precision == "tf32"
        function = LibraryFunction(tensors.torch, call.function, tf32, dict(call.settings))
        return function, (1,), views, {}


class _Tensors:
    """The buffers of a trial at some sizes: random numbers, the same each time."""

    def __init__(self, trial: Trial, sizes: Mapping[str, int], place: str) -> None:
        import torch

        self.torch = torch
        self.sizes = sizes
        kernel = trial.program.kernels[trial.number]
        names = dict.fromkeys(a.buffer for a in (*kernel.reads(), *kernel.writes()))
        self.buffers: dict[str, Buffer] = {name: trial.program.buffers[name] for name in names}
        self.written = sorted({a.buffer for a in kernel.writes()})
        self._place = place
        self._tensors: dict[tuple[str, int], Any] = {}
        for buffer in self.buffers.values():
            self.of(buffer)
        self.fill()

    def of(self, buffer: Buffer) -> Any:
        """The buffer's memory; scratch of the ways is made when it is asked for."""
        count = evaluate(buffer.size, self.sizes)
        key = (buffer.name, 0 if buffer.name in self.buffers else count)
        if key not in self._tensors:
            dtype = buffer.dtype
            names = {DType.BOOL: "int8", DType.BF16: "bfloat16"}
            kind = getattr(self.torch, names.get(dtype) or dtype.numpy.name)
            self._tensors[key] = self.torch.zeros(max(1, count), dtype=kind, device=self._place)
        return self._tensors[key]

    def fill(self) -> None:
        """The first numbers again."""
        rng = generator()
        for name, buffer in self.buffers.items():
            tensor = self.of(buffer)
            values = first_numbers(buffer, len(tensor), rng)
            values = values.view(np.int8) if buffer.dtype is DType.BOOL else values
            tensor.copy_(self.torch.from_numpy(values))
            self._tensors[name, 0] = tensor

    def results(self) -> dict[str, Any]:
        found = {name: self._tensors[name, 0].cpu() for name in self.written}
        bf16 = self.torch.bfloat16
        return {n: (t.float() if t.dtype is bf16 else t).numpy().copy() for n, t in found.items()}


def _imported(source: str) -> ModuleType:
    """A module of Triton kernels; Triton reads its functions' source again from the file."""
    folder = tempfile.TemporaryDirectory(prefix="brickc-tune-")
    path = Path(folder.name) / "kernels.py"
    path.write_text(source, encoding="utf-8")
    name = f"brickc_candidates_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    weakref.finalize(module, folder.cleanup)
    spec.loader.exec_module(module)
    return module
