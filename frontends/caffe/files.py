"""Files: which kind a prototxt is, where the files lie that it names, and the whole import."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...errors import ImportModelError, UsageError
from ..model import Model
from .message import Message
from .net import Imported, Settings, build
from .phases import NetState, selected
from .text import read_text
from .upgrade import layers_of
from .weights import weights_for

__all__ = ["finder", "load", "load_net", "net_layers", "read_solver_or_net"]

#: fields that only a solver has
_SOLVER_FIELDS = ("net", "net_param", "train_net", "train_net_param", "base_lr", "max_iter",
                  "lr_policy", "solver_mode", "test_net", "solver_type")  # fmt: skip


def finder(*roots: Path) -> Callable[[str], Path | None]:
    """Looks for files that a model names: below the roots, then in them by the last part alone.

    What lies elsewhere is not touched, links that lead out of a root included.
    """
    bases = list(dict.fromkeys(root.resolve() for root in roots))

    def find(name: str) -> Path | None:
        if not name or len(name) > 4096 or "\0" in name:
            return None
        parts = Path(name)
        tries = [(base, base / parts.name) for base in bases]
        if not parts.is_absolute() and ".." not in parts.parts:
            tries[:0] = [(base, base / parts) for base in bases]
        for base, candidate in tries:
            try:
                real = candidate.resolve()
                if real.exists() and real.is_relative_to(base) and real != base:
                    return real
            except (OSError, RuntimeError, ValueError):
                continue
        return None

    return find


def read_solver_or_net(path: Path) -> Message:
    """The SolverParameter or NetParameter in a file, told apart by their fields."""
    net = read_text(path, "NetParameter")
    if net.values and not net.unknown:
        return net
    solver = read_text(path, "SolverParameter")
    if any(solver.has(field) for field in _SOLVER_FIELDS):
        _known(solver)
        return solver
    if not net.values and not net.unknown:
        raise ImportModelError("the file is empty", where=path.name)
    _known(net)
    return net


def _known(message: Message) -> None:
    """Raise ImportModelError for fields that Caffe does not have."""
    if message.unknown:
        name, line = message.unknown[0]
        raise ImportModelError(f"no field {name!r:.80} in a {message.kind}",
                               where=f"{message.file}:{line}")  # fmt: skip


def net_layers(
    net: Message, stages: Sequence[str] = (), level: int = 0
) -> dict[str, list[Message]]:
    """The layers of each phase. A phase that the net's own state names is the only one."""
    layers = layers_of(net)
    own = net.sub("state")
    phases = [own.text("phase")] if own.has("phase") else ["TRAIN", "TEST"]
    found = {}
    for phase in phases:
        state = NetState.of(phase, own)
        whole = NetState(state.phase, state.level or level, (*state.stages, *stages))
        found[phase] = selected(layers, whole)
    return found


def load_net(
    path: Path,
    *,
    weights: Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    example: tuple[int, ...] | None = None,
    root: Path | None = None,
    stages: Sequence[str] = (),
    level: int = 0,
) -> Imported:
    """The network of a prototxt file.

    ``weights`` is a .caffemodel or HDF5 file. ``shapes`` are sizes of inputs after the batch.
    ``root`` is where files lie that the network names, beside its own folder.
    Raises ImportModelError, UnsupportedError.
    """
    message = read_solver_or_net(path)
    if message.kind != "NetParameter":
        raise UsageError(
            f"{path.name} is a solver, not a network", hint="train it: brickc train SOLVER.prototxt"
        )
    settings = Settings(finder(*([root] if root else []), path.parent), shapes or {}, example)
    phases = net_layers(message, stages, level)
    return with_weights(build(path.name, message.text("name"), phases, settings), weights)


def with_weights(imported: Imported, path: Path | None) -> Imported:
    """The import with the weights of a file."""
    if path is None:
        return imported
    model = imported.model
    types = {**model.parameters, **model.states}
    found = weights_for(path, imported.blobs, {n: t.shape for n, t in types.items()})
    model.weights = {**(model.weights or {}), **found}
    return imported


def load(path: Path) -> Model:
    """The model of a network's prototxt; for ``frontends.load``."""
    return load_net(path).model
