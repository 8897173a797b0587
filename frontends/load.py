"""One way to name a model on the command line: the zoo, a Python file, a file of another kind.

    zoo:lenet5              a network of the zoo
    network.py:make         a Model in your file, or a function that returns one
    network.ir              IR text, as brickc saves it (also .brickc)
    network.onnx            an ONNX model
    network.pt2             a PyTorch program, as torch.export.save writes it
    net.prototxt            a network of Caffe; with net.prototxt:net.caffemodel its weights, too

Importers have one entry each in ``IMPORTERS``, by the file name's suffix.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ..errors import BrickcError, ImportModelError, UsageError
from ..ir.bricks import CATALOGUE
from ..ir.parser import parse
from . import zoo
from .model import Model
from .onnx import read_file as read_onnx
from .torch_export import from_archive, refuse_pickle

__all__ = ["IMPORTERS", "input_sizes", "load_model"]

#: bytes; the parser refuses longer texts, this keeps them from being read at all
_LARGEST_TEXT = 256 * 2**20


def load_model(spec: str, shapes: Sequence[str] = ()) -> Model:
    """The model that ``spec`` names.

    A Python file is run, as ``python file.py`` would run it: name only files you trust.
    ``shapes`` are texts such as ``data=N,3,32,32`` for inputs whose shape a file does not tell.
    Raises UsageError if the spec or the file is not there, ImportModelError if it holds no
    model.
    """
    if spec.startswith("zoo:"):
        return zoo.model(spec.removeprefix("zoo:"))
    head, _, tail = spec.rpartition(":")
    if head.endswith(".py"):
        return _python(_existing(head), tail)
    if head.endswith(".prototxt"):
        return _prototxt(_existing(head), _existing(tail), shapes)
    if spec.endswith(".prototxt"):
        return _prototxt(_existing(spec), None, shapes)
    path = Path(spec)
    if path.suffix == ".py":
        raise UsageError(
            "which model of the file?", got=spec, expected=f"{spec}:NAME",
            hint="NAME is a Model or a function that returns one",
        )  # fmt: skip
    if path.suffix not in IMPORTERS:
        raise UsageError(
            "not a model", got=repr(spec)[:200],
            expected=f"zoo:NAME, file.py:NAME, or a file ending in {', '.join(IMPORTERS)}",
            hint=f"the zoo has {', '.join(zoo.ZOO)}",
        )  # fmt: skip
    return IMPORTERS[path.suffix](_existing(spec))


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise UsageError("no such file", got=name)
    return path


def _ir_text(path: Path) -> Model:
    size = path.stat().st_size
    if size > _LARGEST_TEXT:
        raise ImportModelError(
            "IR text is too large", where=path.name, got=f"{size} bytes", expected=_LARGEST_TEXT
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ImportModelError("not IR text", where=path.name, got=str(error)) from None
    return Model.from_graph(parse(text, CATALOGUE, path.name))


def _prototxt(path: Path, weights: Path | None = None, shapes: Sequence[str] = ()) -> Model:
    """A network of Caffe, a solver's too, with the weights of a file if there is one."""
    from .caffe import load_net, read_solver_or_net
    from .caffe.solver import read_solver

    if read_solver_or_net(path).kind == "SolverParameter":
        return read_solver(path, weights=weights).net(None, input_sizes(shapes)).model
    return load_net(path, weights=weights, shapes=input_sizes(shapes)).model


def input_sizes(shapes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``data=N,3,32,32`` as sizes after the batch; shapes with other named sizes say nothing."""
    found = {}
    for text in shapes:
        name, equals, axes = text.partition("=")
        parts = [a.strip() for a in axes.split(",")][1:]
        if equals and all(p.isdecimal() and len(p) < 10 for p in parts):
            found[name] = tuple(int(p) for p in parts)
    return found


#: suffix -> the function that reads such a file
IMPORTERS: dict[str, Callable[[Path], Model]] = {
    ".ir": _ir_text,
    ".brickc": _ir_text,
    ".onnx": read_onnx,
    ".pt2": from_archive,
    ".pt": refuse_pickle,
    ".pth": refuse_pickle,
    ".prototxt": _prototxt,
}


def _python(path: Path, name: str) -> Model:
    """The model ``name`` of a Python file, which is run on purpose."""
    module_name = f"brickc_model_{path.stem}" if path.stem.isidentifier() else "brickc_model"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportModelError("not a Python file", where=path.name)
    module = importlib.util.module_from_spec(spec)
    # while the file runs it is a module like any other (dataclasses look themselves up), and
    # may import what lies beside it
    sys.modules[module_name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        _guarded(path, partial(spec.loader.exec_module, module))
        if not hasattr(module, name):
            models = [k for k, v in vars(module).items() if _may_be_model(v, module_name)]
            raise ImportModelError(
                f"{path.name} has no {name!r}", where=path.name,
                expected=", ".join(models) or "a Model or a function that returns one",
            )  # fmt: skip
        found = getattr(module, name)
        if not isinstance(found, Model) and callable(found):
            found = _guarded(path, found)
    finally:
        sys.modules.pop(module_name, None)
        if folder in sys.path:
            sys.path.remove(folder)
    if not isinstance(found, Model):
        raise ImportModelError(
            f"{name} is no model", where=path.name, got=type(found).__name__,
            expected="a Model or a function that returns one",
        )  # fmt: skip
    return found


def _may_be_model(value: object, module: str) -> bool:
    if isinstance(value, Model):
        return True
    return inspect.isfunction(value) and value.__module__ == module


def _guarded(path: Path, run: Callable[[], object]) -> object:
    """What ``run`` returns; whatever the user's code raises names the user's line."""
    try:
        return run()
    except BrickcError:
        raise
    except (Exception, SystemExit) as error:
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__))
             if Path(f.filename) == path),
            getattr(error, "lineno", None),
        )  # fmt: skip
        raise ImportModelError(
            f"the file raised {type(error).__name__}: {error}",
            where=f"{path.name}:{line}" if line else path.name,
        ) from error
