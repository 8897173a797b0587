"""``brickc train SOLVER.prototxt``: a solver, its network, its data and a compiled program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .compiler.optimizers import Optimizer
from .errors import DataError, UsageError
from .frontends.caffe.data import DATA_LAYERS, batch_of
from .frontends.caffe.files import finder
from .frontends.caffe.net import Imported
from .frontends.caffe.solver import Solver, read_solver
from .program import Program, compile
from .runtime.data import Dataset, load
from .runtime.data.caffe import layer_stream
from .runtime.data.source import Split
from .runtime.data.stream import Joined, SplitExamples, Stream
from .runtime.iterations import Batches, Iterations
from .training import input_names

__all__ = ["Training", "prepare", "runs_solver", "solver_optimizer"]

#: examples in a batch of a network without data layers
_BATCH = 64


@dataclass(frozen=True)
class Training:
    """A solver that is ready to run."""

    program: Program
    iterations: Iterations
    #: where the examples come from, for people
    data: str


def runs_solver(spec: str) -> bool:
    """True if the text names a solver's prototxt. Raises what reading it raises."""
    if not spec.endswith(".prototxt") or not Path(spec).is_file():
        return False
    from .frontends.caffe import read_solver_or_net

    return read_solver_or_net(Path(spec)).kind == "SolverParameter"


def solver_optimizer(spec: str) -> Optimizer:
    """The optimizer that a solver's prototxt asks for."""
    return read_solver(Path(spec)).optimizer


def prepare(
    path: Path,
    *,
    data: str | None = None,
    net: Path | None = None,
    root: Path | None = None,
    weights: Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    max_iter: int | None = None,
    seed: int | None = None,
    target: str = "numpy",
    folder: Path | None = None,
) -> Training:
    """Read a solver and its network, open the data, compile.

    ``data`` replaces what the network's data layers read: ``mnist:FOLDER`` and the like. ``net``
    is used instead of the network that the solver names; ``root`` is where the files lie that
    both name; ``folder`` is for snapshots and to go on from. ``seed`` goes before the solver's.
    Raises ImportModelError, UnsupportedError, DataError, UsageError.
    """
    solver = read_solver(path, net=net, root=root, weights=weights)
    dataset = load(data) if data is not None else None
    example = tuple(dataset.train.x.shape[1:]) if dataset is not None else None
    imported = solver.net(example, shapes or {})
    if imported.model.loss is None:
        raise UsageError(f"{path.name}: the network {imported.model.name} has no loss to train on",
                         hint="a solver trains a network with a loss layer")  # fmt: skip
    chosen = seed if seed is not None else (solver.seed or 0)
    plan = solver.plan if max_iter is None else replace(solver.plan, max_iter=max_iter)
    if dataset is not None:
        train, test, text = _of_dataset(imported, dataset, chosen)
    else:
        find = finder(*([root] if root else []), path.parent)
        train, test, text = _of_layers(imported, solver, find, chosen)
    program = compile(imported.model, target, optimizer=solver.optimizer, seed=chosen)
    run = Iterations(program, train, test, plan, solver.rate, folder)
    return Training(program, run, text)


def _sizes(imported: Imported) -> dict[str, int]:
    """Batch size by phase; that of training where testing has none of its own."""
    found: dict[str, int] = {}
    for phase, layers in imported.layers.items():
        for layer in layers:
            if layer.text("type") in DATA_LAYERS:
                found.setdefault(phase, batch_of(layer))
    train = found.get("TRAIN", found.get("TEST", _BATCH))
    sizes = {"TRAIN": train, "TEST": found.get("TEST", train)}
    for type in imported.model.inputs.values():
        if type.rank and isinstance(type.shape[0], int):
            return dict.fromkeys(sizes, type.shape[0])  # the network needs this number
    return sizes


def _of_dataset(
    imported: Imported, dataset: Dataset, seed: int
) -> tuple[Batches, Sequence[Batches], str]:
    model, sizes = imported.model, _sizes(imported)
    names = input_names(model)
    shape = [n for n in model.inputs[names[0]].shape[1:] if isinstance(n, int)]
    limit = model.label_limit(names[1]) if names[1] is not None else 0
    if limit and dataset.classes > limit:
        raise DataError(f"{dataset.name} has more classes than {model.name}", got=dataset.classes,
                        expected=f"at most {limit}")  # fmt: skip
    fitted = dataset.fit_to(shape)

    def stream(split: Split, size: int, *, shuffle: bool) -> Stream:
        return Stream(SplitExamples(split, names), size, seed, shuffle)

    train = stream(fitted.train, sizes["TRAIN"], shuffle=True)
    held = fitted.held_out
    test = [stream(held, min(sizes["TEST"], len(held)), shuffle=False)] if len(held) else []
    text = f"{dataset.name}: {len(fitted.train):,} examples, {len(held):,} held out"
    return train, test, text


def _of_layers(
    imported: Imported, solver: Solver, find: Callable[[str], Path | None], seed: int
) -> tuple[Batches, Sequence[Batches], str]:
    model = imported.model
    dtypes = {name: type.dtype.numpy for name, type in model.inputs.items()}
    found: dict[str, Joined] = {}
    for phase, layers in imported.layers.items():
        streams = [
            layer_stream(layer, find, training=phase == "TRAIN", seed=seed, dtypes=dtypes)
            for layer in layers
            if layer.text("type") in (*DATA_LAYERS, "Input")
        ]
        if streams:
            found[phase] = Joined(streams)
    if "TRAIN" not in found and model.inputs:
        raise UsageError(f"{solver.file}: the network reads no data in phase TRAIN",
                         hint="give some: --data …")  # fmt: skip
    count = sum(len(s.examples) for s in found["TRAIN"].streams) if found else 0
    tests = [joined for phase, joined in found.items() if phase != "TRAIN"]
    return found.get("TRAIN", Joined([])), tests, f"{count:,} examples"
