"""``bc.compile`` and what it returns."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .backends.base import Backend, Choices
from .backends.c import CBackend
from .backends.c.profile import PROFILE, KernelTime, Limits, kernel_times, measured_limits
from .backends.c.report import overall, report_of, results_of
from .backends.triton import RESOURCES
from .backends.triton.options import VENDOR
from .compiler.explain import explain, fusion_text, kernels_text, schedule_text
from .compiler.optimizers import Optimizer
from .driver import Compiled, Function, Observer, backend, compile_model, planned
from .errors import UnsupportedError, UsageError
from .frontends.model import Model
from .frontends.torch_export.state import torch_state
from .ir.dims import evaluate, maximum, minimum
from .ir.dtypes import DType
from .ir.interpret import interpret
from .ir.kernel.choices import Choice, Made, kernel_key
from .ir.kernel.loops import LoopKernel
from .ir.printer import print_graph
from .runtime import artifact
from .runtime.artifact import Golden
from .runtime.executable import Executable
from .tuning import Memory, Outcome, Progress, Tuner, task_list

__all__ = ["STAGES", "Program", "compile", "dump_text", "load"]

Array = npt.NDArray[Any]

#: what ``brickc dump --stage`` can show
STAGES = ("graph", "backward", "optimized", "fused", "schedule", "kernels")

#: the seed of the golden vectors' inputs
GOLDEN_SEED = 20


class Program(Executable):
    """A compiled model: call it, inspect it, save it.

    ``compiled`` holds every stage and decision of the compilation.
    """

    compiled: Compiled
    #: what target "auto" is here, and why; else empty
    target_note: str = ""
    #: what the tuner found, if there was one
    tuning: Outcome | None = None

    @staticmethod
    def of(compiled: Compiled, seed: int = 0) -> Program:
        sources, chosen = compiled.sources, backend(compiled.target)
        if isinstance(chosen, CBackend) and chosen.cannot_run():
            sources = chosen.stand_in(sources)
        program = Program.from_sources(sources, seed)
        program.compiled = compiled
        program.target_note = compiled.target_note
        # a function that was not asked for may be the only one that needs a state
        there = {leaf.name for leaf in compiled.leaves}
        weights = {k: v for k, v in (compiled.model.weights or {}).items() if k in there}
        if weights:
            program.load_state_dict(weights, strict=False)
        return program

    def state_dict(self, framework: str = "numpy") -> dict[str, Any]:
        """Copies of all parameters and states by name, axes in the model's order.

        ``"numpy"`` gives arrays of all that the program keeps. ``"torch"`` gives tensors under
        the names of the module that the model came from, what belongs to the optimizer left
        out: ``module.load_state_dict(program.state_dict("torch"))``.
        """
        arrays = super().state_dict()
        if framework == "numpy":
            return arrays
        if framework != "torch":
            raise UsageError("unknown framework", got=framework, expected="numpy, torch")
        return torch_state(self.compiled.model, arrays)

    def explain(self, function: str | None = None) -> dict[str, Any]:
        """Kernels, bytes, FLOPs, peak memory, edges and reasons; target c: errors of kernels."""
        wanted = [function] if function else list(self.compiled.functions)
        found = {}
        report = self.self_test
        for name in wanted:
            f = self.compiled.functions[name]
            found[name] = explain(name, f.graph, f.fusion, f.program, f.plan, launching(f))
            for row, made in zip(found[name]["table"], f.kernels, strict=True):
                row["choice"] = str(made.choice)
                row["strategy"] = made.strategy if isinstance(made, LoopKernel) else ""
            found[name]["self_test"] = overall(report, name)
            for row, test in results_of(report, name, found[name]["table"]):
                row.update(error=test["error"], elements=test["elements"])
        return found

    def choices(self, function: str, rejected: int = 3) -> list[dict[str, Any]]:
        """How each kernel that could be carried out otherwise is: chosen by whom, and at what cost.

        ``rejected`` are so many of the others that differ in one decision, those first that the
        cost model thinks best. Costs are seconds on a nominal machine, for comparison only.
        """
        compiled = self.compiled
        chosen = backend(compiled.target, compiled.numerics)
        f = compiled.functions[function]
        rows: list[dict[str, Any]] = []
        known: dict[str, list[dict[str, Any]]] = {}
        for number, made in enumerate(f.kernels):
            if not any(others for _, others in made.options):
                continue
            key = kernel_key(made.kernel)
            if key not in known:
                others = chosen.candidates(f.program, number, made.choice)[1:]
                costs = sorted((chosen.estimate(f.program, m), str(m.choice)) for m in others)
                known[key] = [{"choice": c, "cost": cost} for cost, c in costs[:rejected]]
            rows.append({
                "kernel": made.kernel.name,
                "by": _decided_by(made, compiled.choices, chosen.shipped),
                "choice": str(made.choice),
                "cost": chosen.estimate(f.program, made),
                "rejected": known[key],
            })  # fmt: skip
        return rows

    @property
    def self_test(self) -> dict[str, Any]:
        """Which kernels were compared with their definitions when the library was built.

        ``tested``; by function ``kernels``, ``sizes`` and ``results`` (largest error as a part of
        the largest element, elements compared); ``tolerances`` by dtype; or the ``reason`` why not.
        Empty for targets that build nothing.
        """
        return report_of(self.compiled.sources)

    @property
    def gpu_kernels(self) -> dict[str, dict[str, Any]]:
        """What every kernel that was compiled ahead of time for a GPU takes; else empty.

        By the kernel's name in ``kernels.py``: warps, stages, threads, registers of a thread,
        bytes of shared memory, spilled bytes, what its tiles are and why loads are short, its
        name in the binary (what profilers show), loads from global memory by bits (all, and those
        in loops), and tensor-core instructions by kind. All of it is read from the binaries,
        without a GPU.
        """
        text = self.compiled.sources.get(RESOURCES)
        return {} if text is None else dict(json.loads(text))

    def profile(self, function: str, repeats: int = 50) -> tuple[list[KernelTime], Limits]:
        """Median seconds of each kernel at the typical sizes, and this machine's limits.

        The program is built once more with clocks in it; this one's weights stay as they are.
        Raises UnsupportedError unless the target is C.
        """
        compiled = self.compiled
        chosen = backend(compiled.target, compiled.numerics)
        if not isinstance(chosen, CBackend):
            raise UnsupportedError("only target c times its kernels", got=compiled.target)
        f = compiled.functions[function]
        sources = dict(compiled.sources)
        source = chosen.source(
            compiled.model.name, planned(compiled.functions, compiled.singles), compiled.leaves
        )
        sources["libmodel.so"] = chosen.build(source, PROFILE)
        timed = Executable.from_sources(sources)
        timed.load_state_dict(self.state_dict())
        inputs = example_inputs(f, {n: d.typical for n, d in f.program.dims.items()})
        times = kernel_times(
            timed._module.LIBRARY,
            function,
            list(f.program.inputs),
            [k for k in f.kernels if isinstance(k, LoopKernel)],
            lambda: timed.call(function, inputs),
            repeats,
        )
        return times, measured_limits(chosen.cpu, timed._module.THREADS.value)

    def emit_source(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write ``model.c``, ``model.h`` and ``weights.bin``: a program for C alone.

        It builds with ``cc -O3 model.c main.c -lm -lpthread``, allocates nothing and needs no
        Python. Raises UnsupportedError unless the target is C, ArtifactError if the folder
        cannot be written.
        """
        compiled = self.compiled
        chosen = backend(compiled.target, compiled.numerics)
        if not isinstance(chosen, CBackend):
            raise UnsupportedError("only target c is emitted as C source", got=compiled.target)
        texts = chosen.standalone(
            compiled.model.name, planned(compiled.functions), compiled.leaves,
            compiled.memory_bytes,
        )  # fmt: skip
        files = {name: text.encode() for name, text in texts.items()}
        files["weights.bin"] = self._program.memory[: compiled.memory_bytes].tobytes()
        with self._errors():
            self._module.write_files(os.fspath(folder), files)
        return [Path(folder) / name for name in files]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the artifact: a folder that runs where only Python and NumPy are.

        The folder appears complete or not at all. Raises ArtifactError if it cannot be
        written or holds something else.
        """
        compiled = self.compiled
        chosen = backend(compiled.target)
        if isinstance(chosen, CBackend) and not chosen.options.built:
            raise UnsupportedError(
                "a program that is source alone has no artifact", got=compiled.target,
                hint="emit_source writes it; a target without 'source' builds the library",
            )  # fmt: skip
        texts: dict[str, str] = {}
        for name, f in compiled.functions.items():
            for number, (stage, graph) in enumerate(f.stages.items()):
                texts[f"ir/{name}.{number:02}.{_file_name(stage)}.txt"] = print_graph(graph)
            texts[f"kernels/{name}.fusion.txt"] = fusion_text(f.graph, f.fusion)
            texts[f"kernels/{name}.schedule.txt"] = schedule_text(
                f.program, f.plan, f.layouts, f.graph, launching(f)
            )
            texts[f"kernels/{name}.kernels.txt"] = kernels_text(f.program, _choices(f))
        artifact.write(
            Path(folder),
            sources=compiled.sources,
            texts=texts,
            weights=self.state_dict(),
            golden=self._golden(),
            description=describe(compiled),
        )

    def _golden(self) -> Golden:
        """Inputs of the smallest sizes, and what the functions make of them now.

        The program's own weights are put back afterwards. Where the target cannot run, the
        reference interpreter says what it would give.
        """
        before = self.state_dict()
        inputs: dict[str, dict[str, Array]] = {}
        outputs: dict[str, dict[str, Array]] = {}
        for name, f in self.compiled.functions.items():
            sizes = {n: min(max(2, d.lo), d.hi) for n, d in f.program.dims.items()}
            inputs[name] = example_inputs(f, sizes)
            if self.cannot_run:
                leaves = f.graph.parameters | f.graph.states
                known = {n: a for n, a in before.items() if n in leaves}
                outputs[name] = dict(interpret(f.graph, {**inputs[name], **known}).outputs)
            else:
                outputs[name] = self.call(name, inputs[name])
                self.load_state_dict(before)
        return Golden(inputs, outputs)


def example_inputs(function: Function, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Reproducible inputs: normal floats, integers within their limits."""
    rng = np.random.Generator(np.random.Philox(key=GOLDEN_SEED))
    found: dict[str, Array] = {}
    for name, access in function.program.inputs.items():
        shape = tuple(evaluate(s, sizes) for s in access.shape)
        dtype = access.dtype.numpy
        if access.dtype.is_float:
            found[name] = rng.standard_normal(shape).astype(dtype)
        elif access.dtype is DType.BOOL:
            found[name] = rng.random(shape) < 0.5
        else:
            limit = function.program.limits.get(name, 0) or 2
            found[name] = rng.integers(0, limit, shape).astype(dtype)
    return found


def launching(function: Function) -> dict[str, Any] | None:
    """How a function's kernels are started, and why so; None where they are merely called."""
    found = function.launching
    if found is None:
        return None
    return {
        "form": found.form,
        "reason": found.reason,
        "launches": sum(map(len, found.stages)),
        "stages": found.count,
    }


def describe(compiled: Compiled) -> dict[str, Any]:
    """What the manifest says about a compiled model."""
    functions: dict[str, Any] = {}
    for name, f in compiled.functions.items():
        dims = {n: {"lo": d.lo, "hi": d.hi} for n, d in f.program.dims.items()}
        functions[name] = {
            "inputs": {
                n: {"dtype": str(a.dtype), "shape": [_size(s) for s in a.shape], "role": "input"}
                for n, a in f.program.inputs.items()
            },
            "outputs": {
                n: {"dtype": str(a.dtype), "shape": [_size(s) for s in a.shape]}
                for n, a in f.program.outputs.items()
            },
            "dims": dims,
            "kernels": len(f.program.kernels),
            "peak_bytes": {
                "formula": str(f.plan.peak),
                "least": minimum(f.plan.peak),
                "most": maximum(f.plan.peak),
            },
        }
        if f.launching is not None:
            functions[name]["launching"] = launching(f)
        if f.steps > 1:
            functions[name]["steps_per_launch"] = f.steps
    parameters = [x for x in compiled.leaves if x.role == "parameter"]
    dtypes = {x.buffer.dtype for x in parameters} or {DType.F32}
    tuned = {
        f"{f.name}/{number} {made.kernel.name}": str(made.choice)
        for f in (*compiled.functions.values(), *compiled.singles.values())
        for number, made in enumerate(f.kernels)
        if kernel_key(made.kernel) in compiled.choices
    }
    # what came of each kernel is in a file of its own
    tested = {k: v for k, v in report_of(compiled.sources).items() if k != "results"}
    return {
        **({"tuned": tuned} if tuned else {}),
        "brickc": _version(),
        "model": compiled.model.name,
        "target": compiled.target,
        "precision": backend(compiled.target).precision,
        "numerics": compiled.numerics,
        "tolerances": dict(backend(compiled.target, compiled.numerics).tolerances),
        **({"self_test": tested} if tested else {}),
        "dtype": "f64" if dtypes == {DType.F64} else "f32",
        "functions": functions,
        "leaves": {
            x.name: {
                "role": x.role,
                "dtype": str(x.buffer.dtype),
                "shape": [_size(s) for s in x.buffer.shape],
            }
            for x in compiled.leaves
        },
        "memory_bytes": compiled.memory_bytes,
        "parameters": sum(int(maximum(x.buffer.size)) for x in parameters),
    }


def _version() -> str:
    from . import __version__

    return __version__


def _size(size: object) -> int | str:
    return size if isinstance(size, int) else str(size)


def _decided_by(made: Made, tuned: Choices, shipped: Choices) -> str:
    key = kernel_key(made.kernel)
    if key in tuned:
        return "tuner"
    return "table" if shipped.get(key) == made.choice else "rules"


def _choices(function: Function) -> list[Choice]:
    return [made.choice for made in function.kernels]


def _file_name(stage: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in stage)


def compile(
    model: Model,
    target: str = "numpy",
    *,
    optimizer: Optimizer | None = None,
    functions: Sequence[str] | None = None,
    memory_limit: int | None = None,
    steps_per_launch: int = 1,
    seed: int = 0,
    threads: int | None = None,
    observer: Observer | None = None,
    tune: float | None = None,
    tune_progress: Progress | None = None,
    numerics: str = "strict",
    vendor_libraries: bool = False,
) -> Program:
    """Compile a model ahead of time.

    ``functions`` names some of infer, evaluate and train_step (default: all that the model
    has). ``optimizer`` is what train_step updates with (default: SGD(0.01)).
    ``memory_limit`` (bytes) fails the compilation if an arena could exceed it.
    ``steps_per_launch`` is how many training steps ``train_steps`` carries out at a time: on a GPU
    they are started at once, elsewhere one after the other. ``seed``
    draws the first parameters and, step by step, what dropout keeps. ``threads`` is for target
    c; by default $BRICKC_THREADS, else as many as there are cores. ``observer`` is called with
    (function, pass, graph).

    ``tune`` times other ways to carry out the kernels for so many seconds and takes the fastest,
    by what it measures and what is in the cache of earlier runs; 0 takes what is there. The
    program's ``tuning`` says what came of it, ``tune_progress`` is told (seconds, what) meanwhile.
    Without ``tune`` rules decide, and the same model gives the same program everywhere.

    Target "auto" is C where a compiler is found, else NumPy with a warning (``target_note``).

    ``numerics`` "fast" allows results that are farther from exact ones than sums in any order
    are, up to the tolerance in the manifest: larger tiles of Winograd's convolutions (target c).
    ``vendor_libraries`` lets target triton, where it is compiled as it runs, hand products and
    convolutions to cuBLAS and cuDNN through torch: those for which the tuner finds it faster, and
    without timings those of 2 GFLOP and more.
    Raises ShapeError, UnsupportedError, MemoryLimitError.
    """
    if vendor_libraries:
        target = with_vendor_libraries(target)
    found: list[Outcome] = []

    def choose(chosen: Backend, all_functions: Mapping[str, Function]) -> Choices:
        found.append(_tuned(chosen, all_functions, tune or 0, threads, tune_progress))
        return found[0].choices

    compiled = compile_model(
        model,
        target,
        optimizer=optimizer,
        functions=functions,
        memory_limit=memory_limit,
        steps_per_launch=steps_per_launch,
        observer=observer,
        numerics=numerics,
        tune=None if tune is None else choose,
    )
    if compiled.target_note and compiled.target == "numpy":
        warnings.warn(compiled.target_note, stacklevel=2)
    program = Program.of(compiled, seed)
    program.tuning = found[0] if found else None
    if threads is not None:
        program.set_threads(threads)
    return program


def with_vendor_libraries(target: str) -> str:
    """The target with leave to call vendor libraries. Raises UsageError if it has none."""
    name, _, option = target.partition(":")
    if name != "triton":
        raise UsageError("only target triton calls vendor libraries", got=target)
    words = [*filter(None, option.split(",")), VENDOR]
    return f"{name}:{','.join(dict.fromkeys(words))}"


def _tuned(
    chosen: Backend,
    functions: Mapping[str, Function],
    seconds: float,
    threads: int | None,
    progress: Progress | None,
) -> Outcome:
    """The fastest ways to carry out the functions' kernels that are found in some seconds."""
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise UsageError("tuning takes a number of seconds", got=seconds, expected="0 or more")
    bench = chosen.bench(threads)
    environment = {**bench.environment, "brickc": _version()}
    tolerances = {**artifact.TOLERANCES, **chosen.tolerances}
    tuner = Tuner(chosen, bench, Memory(environment), tolerances, progress=progress)
    programs = ((n, f.program, f.kernels) for n, f in functions.items())
    return tuner.run(task_list(chosen, programs), seconds)


def load(folder: str | os.PathLike[str]) -> Executable:
    """A saved artifact as a program. Raises ArtifactError if it is corrupt."""
    return artifact.load(folder)


def stage_graph(function: Function, stage: str) -> Any:
    """The graph of a stage that is a graph: graph, backward or optimized."""
    wanted = {"graph": "graph", "backward": "join optimizer"}
    if stage == "optimized":
        return function.graph
    key = wanted[stage]
    if key not in function.stages:
        raise UsageError(f"{function.name} has no backward pass", hint="ask for train_step")
    return function.stages[key]


def dump_text(function: Function, stage: str) -> str:
    """One stage of a function as text. Raises UsageError for an unknown stage."""
    match stage:
        case "graph" | "backward" | "optimized":
            return print_graph(stage_graph(function, stage))
        case "fused":
            return fusion_text(function.graph, function.fusion)
        case "schedule":
            return schedule_text(function.program, function.plan, function.layouts,
                                 function.graph, launching(function))  # fmt: skip
        case "kernels":
            return kernels_text(function.program, _choices(function))
    raise UsageError("unknown stage", got=stage, expected=", ".join(STAGES))
