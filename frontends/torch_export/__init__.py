"""PyTorch programs: ``from_torch`` takes a module, ``from_archive`` a file of torch.export.save.

Both end in the same calls of ATen operators, and one table of converters makes bricks of
them. torch is imported when ``from_torch`` runs; reading a .pt2 file does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from .. import functional, trace
from ..model import Model
from ..trace import Tensor
from .convert import Converted, convert

if TYPE_CHECKING:
    import torch

__all__ = ["Loss", "from_archive", "from_torch", "refuse_pickle"]

#: a loss by name, the name of the output that is the loss, or a function of the outputs
Loss = str | Callable[..., Tensor]


def from_torch(
    module: torch.nn.Module,
    example_inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    train: bool | None = None,
    loss: Loss | None = None,
    name: str | None = None,
) -> Model:
    """A PyTorch module as a Model with the module's weights.

    ``example_inputs`` are the positional arguments of ``forward`` (a tuple), ``kwargs`` the
    named ones. ``dynamic_shapes`` is torch.export's: ``({0: torch.export.Dim("N", max=64)},)``
    makes axis 0 of the first input a dim N; one without an upper bound ends at 1024.

    Submodules in training mode (``module.train()``) get bricks that depend on the mode, as
    dropout and batch normalisation do; those in inference mode stay frozen when the model is
    trained. ``train`` sets the mode of all of them for the export alone.

    ``loss`` is what is trained on: "softmax" adds an input ``t`` of class numbers, and the
    accuracy as a metric; "square" an input ``t`` of the first output's shape; the name of an
    output says that this one is the loss; a function is called with the outputs in order and
    returns a scalar tensor. Outputs are called by their key if ``forward`` returns a dict, else
    "output", or "output0" and so on.

    Raises UnsupportedError with every operator that brickc does not have, and its place;
    ImportModelError if torch.export fails; UsageError if torch is missing.
    """
    from . import live

    program = live.export(module, example_inputs, kwargs, dynamic_shapes, train)
    title = name or type(module).__name__
    symbols = _symbols(program, dynamic_shapes)
    return model_of(convert(live.read(program, title, symbols)), title, loss)


def from_archive(path: Path) -> Model:
    """The model of a .pt2 file: weights as they are in the file, no loss.

    The file's JSON and raw tensors are read; nothing in it is unpickled, evaluated or
    imported. Raises ImportModelError for a damaged file, UnsupportedError as ``from_torch``.
    """
    from . import archive

    program = archive.read(path)
    return model_of(convert(program), program.name, None)


def refuse_pickle(path: Path) -> Model:
    """Files of torch.save are pickles, which run code when they are read."""
    raise UsageError(
        "a pickle, which could run any code when it is read", where=path.name,
        expected="a .pt2 file",
        hint="in Python: torch.export.save(torch.export.export(module, example_inputs), "
        '"model.pt2")',
    )  # fmt: skip


def model_of(found: Converted, title: str, loss: Loss | None) -> Model:
    """The model of a converted program, with a loss if one is asked for."""
    outputs = dict(found.outputs)
    wanted, metrics = _loss(outputs, loss)
    if isinstance(loss, str) and loss in outputs:
        del outputs[loss]
    model = Model(outputs, wanted, metrics, updates=found.updates, name=title)
    known = {**model.parameters, **model.states}
    kept = {k: v for k, v in found.weights.items() if k in known}
    model = Model(outputs, wanted, metrics, updates=found.updates, name=title, weights=kept)
    model.imported = {k: v if v in known else found.weights[v] for k, v in found.leaves.items()}
    return model


def _loss(
    outputs: Mapping[str, Tensor], loss: Loss | None
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The loss, and what can be measured beside it."""
    if loss is None:
        return None, {}
    if not isinstance(loss, str):
        made = loss(*outputs.values())
        if not isinstance(made, Tensor):
            raise UsageError("loss must return a tensor", got=type(made).__name__)
        return made, {}
    if loss in outputs:
        return outputs[loss], {}
    y = next(iter(outputs.values()))
    if loss == "softmax":
        classes = y.shape[1] if y.rank > 1 else 0
        if not isinstance(classes, int) or classes < 1:
            raise UsageError("no classes for a softmax loss", got=y.type, expected="[N, C, …]")
        t = trace.input("t", (y.shape[0], *y.shape[2:]), "i32", limit=classes)
        return functional.softmax_loss(y, t), {"accuracy": functional.accuracy(y, t)}
    if loss == "square":
        return functional.square_loss(y, trace.input("t", y.shape, y.dtype)), {}
    raise UsageError(
        "unknown loss", got=loss,
        expected=f'"softmax", "square", a function, or an output: {", ".join(outputs)}',
    )  # fmt: skip


def _symbols(program: Any, dynamic_shapes: Any) -> dict[str, str]:
    """torch's symbol -> the name that the user gave the dim in ``dynamic_shapes``."""
    if not dynamic_shapes:
        return {}
    named: dict[str, str] = {}
    users = {s.arg.name for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"}
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in users]
    specs: list[Any] = []
    _flatten(dynamic_shapes, specs)
    for node, spec in zip(nodes, specs, strict=False):
        shape = getattr(node.meta.get("val"), "shape", ())
        given = spec.items() if isinstance(spec, dict) else enumerate(spec or ())
        for axis, dim in given:
            label = getattr(dim, "__name__", None)
            symbol = str(shape[axis]) if axis < len(shape) else ""
            if label and symbol.isalnum() and not symbol.isdigit():
                named[symbol] = str(label)
    good = {k: v for k, v in named.items() if _is_dim_name(v)}
    return good if len(set(good.values())) == len(good) else {}


def _flatten(spec: Any, found: list[Any]) -> None:
    """The specs of the inputs in order: what has axes as keys, or dims as elements."""
    if isinstance(spec, dict) and not all(isinstance(k, int) for k in spec):
        for each in spec.values():
            _flatten(each, found)
    elif isinstance(spec, list | tuple) and any(isinstance(v, dict | list | tuple) for v in spec):
        for each in spec:
            _flatten(each, found)
    else:
        found.append(spec)


def _is_dim_name(name: str) -> bool:
    return name.isascii() and name.isidentifier() and name[0] != "_" and len(name) <= 64
