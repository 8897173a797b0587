"""Losses for models that came without one: an inference model gains training.

``tensors`` gives a model's outputs as tensors again, so that anything can be built on them;
``with_loss`` adds the usual losses by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import ShapeError, UsageError
from ..ir.brick import Leaf
from ..ir.bricks import activation, arithmetic, loss, reduce
from ..ir.bricks.normalization import Softmax
from ..ir.dtypes import DType
from ..ir.graph import Graph
from ..ir.origin import Origin
from . import trace
from .model import Model
from .place import at
from .trace import RANDOM_COUNTER, RANDOM_SEED, Tensor

__all__ = ["LOSSES", "Reopened", "tensors", "with_loss"]


@dataclass(frozen=True, eq=False)
class Reopened:
    """A model's values as tensors: its outputs (loss and metrics too) and its updates."""

    outputs: dict[str, Tensor]
    updates: dict[Tensor, Tensor]


def tensors(model: Model) -> dict[str, Tensor]:
    """The outputs as tensors, on which more can be built:

    y = bc.tensors(model)["logits"]
    bc.Model({"logits": y}, loss=bc.softmax_loss(y, t), weights=model.weights)
    """
    return reopened(model.graph()).outputs


def reopened(graph: Graph) -> Reopened:
    """The graph's nodes as tensors with the same places."""
    shared = {t.brick.name: t for t in (RANDOM_SEED, RANDOM_COUNTER) if isinstance(t.brick, Leaf)}
    found: dict[int, Tensor] = {}
    for node in graph.nodes():
        brick = node.brick
        if isinstance(brick, Leaf) and brick.name in shared:
            found[node.id] = shared[brick.name]
        else:
            operands = tuple(found[o] for o in node.operands)
            found[node.id] = Tensor(brick, operands, node.origin)
    return Reopened(
        {name: found[id] for name, id in graph.outputs.items()},
        {found[leaf]: found[id] for leaf, id in graph.updates.items()},
    )


#: what a loss is made of: the output, the input it is compared with; then what is measured
Built = tuple[Tensor, dict[str, Tensor]]


def _softmax(y: Tensor, name: str) -> Built:
    if y.rank < 2:
        raise ShapeError("the output has no classes", got=y.type, expected="[N, C, *S]")
    # chances are taken back to what they were made of: their logarithm is more exact there
    logits = y.operands[0] if isinstance(y.brick, Softmax) and y.brick.axis == 1 else y
    classes = logits.shape[1]
    limit = classes if isinstance(classes, int) else 0
    labels = trace.input(name, (logits.shape[0], *logits.shape[2:]), "i32", limit)
    accuracy = trace.call(loss.accuracy, logits, labels)
    return trace.call(loss.softmax_loss, logits, labels), {"accuracy": accuracy}


def _square(y: Tensor, name: str) -> Built:
    return trace.call(loss.square_loss, y, trace.input(name, y.shape, y.dtype)), {}


def _logistic(y: Tensor, name: str) -> Built:
    """Mean of log(1 + exp(y)) - t·y: every element is a question of its own, t in [0, 1]."""
    target = trace.input(name, y.shape, y.dtype)
    gaps = arithmetic.sub(activation.softplus(y), arithmetic.mul(target, y))
    return trace.of(reduce.reduce_mean(gaps)), {}


#: name -> (the loss of an output, the usual name of what it is compared with)
LOSSES: dict[str, tuple[Callable[[Tensor, str], Built], str]] = {
    "softmax": (_softmax, "label"),
    "square": (_square, "target"),
    "logistic": (_logistic, "target"),
}


def with_loss(model: Model, kind: str = "softmax", *, output: str = "", labels: str = "") -> Model:
    """The model with a loss on one of its outputs, and an input for what is wanted.

    ``softmax``: cross entropy of the softmax of [N, C, *S] with class numbers [N, *S]; an
    output that is itself a softmax over axis 1 is taken before it. Accuracy becomes a metric.
    ``square``: half the squared distance to a target of the same shape, per example.
    ``logistic``: mean cross entropy of the logistic of every element with a target in [0, 1].

    ``output`` is the output's name (not needed if there is one), ``labels`` the new input's.
    Parameters, states and weights stay as they are; a loss that the model had is replaced.
    Raises UsageError for names that are not there, ShapeError if the output does not fit.
    """
    if kind not in LOSSES:
        raise UsageError("unknown loss", got=kind, expected=", ".join(LOSSES))
    build, usual = LOSSES[kind]
    chosen = output or (model.outputs[0] if len(model.outputs) == 1 else "")
    if chosen not in model.outputs:
        raise UsageError(
            "which output is the loss of?", got=output or None,
            expected=", ".join(model.outputs) or "a model with outputs",
        )  # fmt: skip
    graph = model.graph()
    opened = reopened(graph)
    name = labels or usual
    taken = {*graph.inputs, *graph.parameters, *graph.states}
    if name in taken:
        raise UsageError("the model has that name already", got=name, expected="another one")
    y = opened.outputs[chosen]
    if y.dtype not in (DType.F32, DType.F64):
        raise ShapeError("the output is no number to train on", got=y.type)
    with at(Origin(note=f"{kind} loss of {chosen}")):
        total, metrics = build(y, name)
    outputs: Mapping[str, Tensor] = {k: opened.outputs[k] for k in model.outputs}
    trained = Model(
        outputs, total, metrics, updates=opened.updates, name=model.name, weights=model.weights
    )
    trained.imported = model.imported
    return trained
