"""From a model to a program: the one place where all floors meet.

``compile`` runs the pass lists of ``compiler/pipelines.py`` for each function of a model,
then layouts, fusion, schedule, lowering and the memory plan, and hands the result to a
backend. Every decision is kept on the way, so that it can be dumped and explained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .backends.base import NO_CHOICES, Backend, Choices, Launching, Leaf, PlannedFunction
from .backends.c import CBackend
from .backends.numpy import NumpyBackend
from .backends.triton import TritonBackend
from .compiler.bundle_updates import bundle_updates
from .compiler.fuse import Fusion, Group, fuse
from .compiler.layouts import Layouts, choose_layouts
from .compiler.loss_scaling import LossScale
from .compiler.lower.kernels import lower
from .compiler.names import Namer
from .compiler.optimizers import SGD, Optimizer
from .compiler.pipelines import inference_pipeline, target_pipeline, training_pipeline
from .compiler.plan_memory import MemoryPlan, check_limit, plan_memory, share_buffers
from .compiler.round_first import round_first
from .compiler.schedule import schedule
from .errors import UnsupportedError, UsageError
from .frontends.model import Model
from .ir.brick import Parameter, State
from .ir.dtypes import DType
from .ir.graph import Graph
from .ir.kernel.choices import Made
from .ir.kernel.kernel import KernelProgram
from .ir.kernel.memory import Buffer, Space
from .ir.substitute import substitute

__all__ = ["BACKENDS", "Compiled", "Function", "compile_functions", "compile_graph",
           "compile_model", "planned"]  # fmt: skip

#: target name -> the backend for an option, the text after the colon of ``name:option``
BACKENDS: dict[str, Callable[[str], Backend]] = {
    "c": CBackend.of,
    "numpy": NumpyBackend.of,
    "triton": TritonBackend.of,
}

#: how exact results are: see ``backend``
NUMERICS = ("strict", "fast")

#: called with (function, stage, graph) after every pass
Observer = Callable[[str, str, Graph], None]

#: decides beforehand how kernels are carried out, given all functions as the cost model has them
Tune = Callable[[Backend, Mapping[str, "Function"]], Choices]

#: bytes; every leaf starts on a cache line unless an update needs it next to another
LEAF_ALIGNMENT = 64

#: training steps that may be started at once: a graph has as many copies of every launch
MOST_STEPS = 1024


@dataclass(frozen=True)
class Function:
    """One compiled function with the decisions that led to it."""

    name: str
    #: stage name -> graph, in the order of the passes
    stages: Mapping[str, Graph]
    graph: Graph
    layouts: Layouts
    fusion: Fusion
    order: tuple[Group, ...]
    program: KernelProgram
    kernels: Sequence[Made]
    plan: MemoryPlan
    launching: Launching | None = None
    #: training steps that are started at once
    steps: int = 1


@dataclass(frozen=True)
class Compiled:
    """All functions of a model for one target, and their source text."""

    model: Model
    target: str
    functions: Mapping[str, Function]
    leaves: tuple[Leaf, ...]
    memory_bytes: int
    #: file name -> text, or bytes of a binary file
    sources: Mapping[str, str | bytes]
    #: function -> the same for a batch of one, where the target compiles it apart
    singles: Mapping[str, Function] = field(default_factory=dict)
    #: stage -> seconds, summed over the functions
    seconds: Mapping[str, float] = field(default_factory=dict)
    #: training steps that ``train_steps`` carries out at a time
    steps_per_launch: int = 1
    #: what was decided beforehand
    choices: Choices = field(default_factory=dict)
    #: strict or fast
    numerics: str = "strict"
    #: what was compiled for and why, where the target was "auto"; else empty
    target_note: str = ""


def backend(target: str, numerics: str = "strict") -> Backend:
    """The backend of ``name`` or ``name:option``; "auto" is C where a compiler is, else NumPy.

    ``numerics`` "fast" allows results that are farther from exact ones than sums in any order
    are, up to the tolerance in the manifest; a target may have no use for it. Raises
    UnsupportedError with the targets there are, UsageError for other numerics.
    """
    if numerics not in NUMERICS:
        raise UsageError("unknown numerics", got=numerics, expected=" or ".join(NUMERICS))
    if target == "auto":
        return backend(_auto()[0], numerics)
    name, _, option = target.partition(":")
    try:
        found = BACKENDS[name](option)
    except KeyError:
        raise UnsupportedError(
            "unknown target", got=target, expected=", ".join(("auto", *sorted(BACKENDS)))
        ) from None
    if isinstance(found, CBackend) and numerics == "fast":
        return CBackend(found.options, fast=True)
    return found


def compile_model(
    model: Model,
    target: str = "numpy",
    *,
    optimizer: Optimizer | None = None,
    functions: Sequence[str] | None = None,
    memory_limit: int | None = None,
    steps_per_launch: int = 1,
    observer: Observer | None = None,
    tune: Tune | None = None,
    numerics: str = "strict",
) -> Compiled:
    """Compile a model's functions: infer, evaluate and (if it has a loss) train_step.

    ``memory_limit`` is in bytes, for the arena of each function at the largest sizes. ``tune``
    gives choices that the strategies' rules then do not make. ``steps_per_launch`` is how many
    training steps a target with launches starts at once. ``numerics`` is strict or fast.
    Raises MemoryLimitError, UnsupportedError, UsageError, or what the passes raise.
    """
    chosen = backend(target, numerics)
    wanted = tuple(functions) if functions else _default_functions(model)
    _check_steps(steps_per_launch, wanted)
    optimizer = optimizer or SGD(0.01)
    if chosen.capabilities.half is DType.F16 and optimizer.loss_scale is None:
        optimizer = replace(optimizer, loss_scale=LossScale())  # f16 has no room for small slopes
    seconds: dict[str, float] = {}
    compiled: dict[str, Function] = {}
    orders: dict[str, tuple[int, ...]] = {}
    names: dict[str, str] = {}
    namer = Namer()
    # training first: it decides how parameters lie, and the others read them as they are
    for name in sorted(wanted, key=lambda n: n != "train_step"):
        stages, graph = _graph(model, name, optimizer, chosen, observer, seconds)
        _name_leaves(graph, names, namer)
        steps = steps_per_launch if name == "train_step" else 1
        function = _lower(name, stages, graph, chosen, orders, names, seconds, steps)
        if memory_limit is not None and tune is None:
            check_limit(function.program, function.plan, memory_limit)
        for leaf, order in leaf_orders(graph, function.layouts).items():
            orders.setdefault(leaf, order)
        compiled[name] = function
    singles: dict[str, Function] = {}
    if chosen.capabilities.single and "infer" in compiled:
        single = _single(model, chosen, orders, names, seconds)
        if single is not None:
            singles["infer"] = single
    choices = NO_CHOICES
    if tune is not None:
        started = time.perf_counter()
        choices = tune(chosen, {**compiled, **{f.name: f for f in singles.values()}})
        _count(seconds, "tune", started)
        compiled = {n: _decided(f, chosen, choices) for n, f in compiled.items()}
        singles = {n: _decided(f, chosen, choices) for n, f in singles.items()}
        if memory_limit is not None:
            for f in compiled.values():
                check_limit(f.program, f.plan, memory_limit)
    ordered = {n: compiled[n] for n in wanted}
    leaves, memory = _place_leaves([*compiled.values(), *singles.values()])
    started = time.perf_counter()
    sources = chosen.print(model.name, planned(ordered, singles), leaves, memory)
    _count(seconds, "print", started)
    resolved = chosen.name if target == "auto" else target
    note = f"target auto: {resolved}; {_auto()[1]}" if target == "auto" else ""
    return Compiled(model, resolved, ordered, leaves, memory, sources, singles, seconds,
                    steps_per_launch, choices, numerics, note)  # fmt: skip


def _auto() -> tuple[str, str]:
    """What target "auto" is here, and why."""
    here = CBackend.of("").availability()
    return "c" if here.compiles else "numpy", here.note


def _check_steps(steps: int, wanted: Sequence[str]) -> None:
    if not 1 <= steps <= MOST_STEPS:
        raise UsageError("not a number of steps", got=steps, expected=f"1..{MOST_STEPS}")
    if steps > 1 and "train_step" not in wanted:
        raise UsageError(
            "steps_per_launch is for training steps", got=f"functions {', '.join(wanted)}",
            hint="compile train_step too, which needs a loss",
        )  # fmt: skip


def _decided(function: Function, chosen: Backend, choices: Choices) -> Function:
    """The function with its kernels carried out as a table says."""
    kernels, launching, plan = _select(function.program, chosen, choices, function.steps)
    return replace(function, kernels=kernels, launching=launching, plan=plan)


def _select(
    program: KernelProgram, chosen: Backend, choices: Choices, steps: int
) -> tuple[Sequence[Made], Launching | None, MemoryPlan]:
    """How each kernel is carried out, how all of them are started, and where buffers lie then."""
    kernels, scratch = chosen.select(program, choices)
    launching = chosen.launching(program, kernels)
    at_once = steps if chosen.capabilities.several_steps else 1
    plan = plan_memory(program, scratch, launching.spans if launching else None, at_once)
    return kernels, launching, plan


def _single(
    model: Model,
    chosen: Backend,
    orders: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str],
    seconds: dict[str, float],
) -> Function | None:
    """``infer`` with every dim 1; None if there is none, or 1 is out of a range."""
    graph = model.inference()
    if not graph.dims or any(d.lo > 1 for d in graph.dims.values()):
        return None
    graph = substitute(graph, dict.fromkeys(graph.dims, 1))
    stages = {"graph": graph}
    for part in (inference_pipeline(), target_pipeline(chosen.capabilities)):
        graph = part.run(graph)
    return _lower("infer_single", stages, graph, chosen, orders, names, seconds)


def _default_functions(model: Model) -> tuple[str, ...]:
    names = []
    if model.outputs:
        names.append("infer")
    if model.loss is not None:
        names += ["evaluate", "train_step"]
    return tuple(names)


def _graph(
    model: Model,
    name: str,
    optimizer: Optimizer,
    chosen: Backend,
    observer: Observer | None,
    seconds: dict[str, float],
) -> tuple[dict[str, Graph], Graph]:
    """The graph of a function after all graph passes, and the graphs on the way."""
    match name:
        case "infer":
            graph, pipeline = model.inference(), inference_pipeline()
        case "evaluate":
            graph, pipeline = model.evaluation(), inference_pipeline()
        case "train_step":
            graph, pipeline = model.training(), training_pipeline(model.loss or "loss", optimizer)
        case _:
            raise UsageError("unknown function", got=name, expected="infer, evaluate or train_step")
    stages: dict[str, Graph] = {"graph": graph}

    def watch(stage: str, result: Graph) -> None:
        stages[stage] = result
        if observer is not None:
            observer(name, stage, result)

    for part in (pipeline, target_pipeline(chosen.capabilities)):
        started = time.perf_counter()
        graph = part.run(graph, observers=[watch])
        _count(seconds, part.name, started)
    return stages, graph


def compile_graph(
    name: str,
    graph: Graph,
    chosen: Backend,
    *,
    orders: Mapping[str, tuple[int, ...]] | None = None,
    leaf_names: Mapping[str, str] | None = None,
) -> Function:
    """Layouts, fusion, schedule, lowering and memory plan of one finished graph."""
    return _lower(name, {"graph": graph}, graph, chosen, orders or {}, leaf_names or {}, {})


def compile_functions(
    title: str, graphs: Mapping[str, Graph], target: str = "numpy"
) -> tuple[dict[str, Function], Mapping[str, str | bytes]]:
    """Finished graphs by function name as functions of one program, and its source text.

    "Finished" means after the target's pipeline. The functions share parameters and states
    by name; the first graph that has one decides how it lies in memory.
    """
    chosen = backend(target)
    namer = Namer()
    names: dict[str, str] = {}
    orders: dict[str, tuple[int, ...]] = {}
    functions: dict[str, Function] = {}
    for name, graph in graphs.items():
        _name_leaves(graph, names, namer)
        functions[name] = compile_graph(name, graph, chosen, orders=orders, leaf_names=names)
        for leaf, order in leaf_orders(graph, functions[name].layouts).items():
            orders.setdefault(leaf, order)
    leaves, memory = _place_leaves(list(functions.values()))
    return functions, chosen.print(title, planned(functions), leaves, memory)


def _name_leaves(graph: Graph, names: dict[str, str], namer: Namer) -> None:
    """Identifiers for parameters and states that have none yet."""
    for node in graph.nodes():
        if isinstance(node.brick, Parameter | State) and node.brick.name not in names:
            names[node.brick.name] = namer.name(node.brick.name)


def planned(
    functions: Mapping[str, Function], singles: Mapping[str, Function] | None = None
) -> list[PlannedFunction]:
    """What a backend's printer needs to know of the functions."""
    every = [(f, "") for f in functions.values()]
    every += [(f, name) for name, f in (singles or {}).items()]
    return [
        PlannedFunction(
            f.name, f.program, f.kernels, f.plan.offsets, f.plan.peak, single_of, f.launching,
            f.steps, f.plan.apart,
        )
        for f, single_of in every
    ]  # fmt: skip


def _lower(
    name: str,
    stages: Mapping[str, Graph],
    graph: Graph,
    chosen: Backend,
    orders: Mapping[str, tuple[int, ...]],
    names: Mapping[str, str],
    seconds: dict[str, float],
    steps: int = 1,
) -> Function:
    started = time.perf_counter()
    abilities = chosen.capabilities
    layouts = choose_layouts(
        graph,
        orders,
        abilities.layout,
        widens=abilities.half is not None,
        apart_bytes=abilities.apart_bytes,
    )
    started = _count(seconds, "layouts", started)
    fusion = fuse(graph, layouts, chosen.capabilities)
    started = _count(seconds, "fuse", started)
    order = schedule(graph, layouts, fusion)
    started = _count(seconds, "schedule", started)
    program = lower(graph, layouts, fusion, order, names)
    if chosen.capabilities.bundle_bytes:
        program = bundle_updates(program, chosen.capabilities.bundle_bytes)
    if abilities.half is not None:
        program = round_first(program)
    program = share_buffers(program)
    started = _count(seconds, "lower", started)
    kernels, launching, plan = _select(program, chosen, NO_CHOICES, steps)
    _count(seconds, "select", started)
    return Function(
        name, stages, graph, layouts, fusion, order, program, kernels, plan, launching, steps
    )


def _count(seconds: dict[str, float], stage: str, started: float) -> float:
    now = time.perf_counter()
    seconds[stage] = seconds.get(stage, 0.0) + now - started
    return now


def leaf_orders(graph: Graph, layouts: Layouts) -> dict[str, tuple[int, ...]]:
    """How the parameters and states of a graph lie in memory: label -> order of axes."""
    found = {}
    for node in graph.nodes():
        if isinstance(node.brick, Parameter | State):
            found[node.brick.name] = layouts.placed[node.id].order(node.type)
    return found


def _place_leaves(functions: Sequence[Function]) -> tuple[tuple[Leaf, ...], int]:
    """Offsets of all parameters and states; neighbours that a kernel needs come first."""
    buffers: dict[str, Buffer] = {}
    inits: dict[str, tuple[str, float, float]] = {}
    for f in functions:
        for buffer in f.program.buffers.values():
            if buffer.space in (Space.PARAMETER, Space.STATE):
                buffers.setdefault(buffer.label, buffer)
        for node in f.graph.nodes():
            if isinstance(node.brick, Parameter | State):
                init = node.brick.init
                inits.setdefault(node.brick.name, (init.kind, init.a, init.b))
    runs = [list(group) for f in functions for group in f.program.adjacent]
    grouped = {label for run in runs for label in run}
    runs += [[label] for label in buffers if label not in grouped]
    offsets: dict[str, int] = {}
    position = 0
    for run in runs:
        position += -position % LEAF_ALIGNMENT
        for label in run:
            offsets[label] = position
            nbytes = buffers[label].nbytes
            assert isinstance(nbytes, int)
            position += nbytes
    leaves = tuple(
        Leaf(label, buffer.space.value, buffer, offsets[label], inits[label])
        for label, buffer in buffers.items()
    )
    return leaves, position
