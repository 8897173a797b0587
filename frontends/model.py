"""A network as a whole: what it returns, what it is trained on, what is measured.

Training, evaluation and inference are three graphs of one model. Node ids agree between
them, so dumps of two can be laid side by side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..compiler.optimize.specialise import restrict, specialise
from ..errors import ImportModelError, ShapeError, UsageError
from ..ir.brick import Input, Leaf, Parameter
from ..ir.bricks.arithmetic import add
from ..ir.builder import Builder, GraphValue
from ..ir.graph import Graph
from ..ir.origin import Origin
from ..ir.types import TensorType
from . import place, trace
from .build import build_graph
from .trace import RANDOM_COUNTER, Tensor

__all__ = ["Model"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """A line of the summary."""

    layer: str
    output: str
    parameters: int


class Model:
    """Outputs by name, a scalar loss to train on, scalar metrics to watch.

    ``outputs`` is a dict, or one tensor, which is then called "output". ``updates`` says what
    states of your own become when a training step ends. ``weights`` are arrays by parameter
    or state name, as importers bring them; what they leave out starts as its ``init`` says.
    ``evaluation_only`` names metrics that training steps do not compute.
    """

    def __init__(
        self,
        outputs: Tensor | Mapping[str, Tensor],
        loss: Tensor | None = None,
        metrics: Mapping[str, Tensor] | None = None,
        *,
        updates: Mapping[Tensor, Tensor] | None = None,
        name: str = "model",
        weights: Mapping[str, npt.ArrayLike] | None = None,
        evaluation_only: Collection[str] = (),
    ) -> None:
        origin = place.here()
        named = {"output": outputs} if isinstance(outputs, Tensor) else dict(outputs)
        measured = dict(metrics or {})
        everything = dict(named)
        for key, tensor in [*([("loss", loss)] if loss is not None else []), *measured.items()]:
            if key in everything:
                raise UsageError(f"two outputs are called {key!r}", where=str(origin))
            everything[key] = tensor
        if not everything:
            raise UsageError("a model without outputs and loss", where=str(origin))
        for key, tensor in everything.items():
            trace.checked_name(key)
            if not isinstance(tensor, Tensor):
                raise UsageError(
                    f"{key} is not a tensor", where=str(origin), got=type(tensor).__name__
                )
        changes = dict(updates or {})
        for leaf, value in changes.items():
            if not isinstance(leaf.brick, Leaf) or leaf.type != value.type:
                raise UsageError(
                    "an update gives a state or parameter a value of its own type",
                    where=str(origin), got=f"{leaf!r} <- {value!r}",
                )  # fmt: skip
        unknown = sorted(set(evaluation_only) - set(measured))
        if unknown:
            raise UsageError("evaluation_only names metrics", where=str(origin), got=unknown,
                             expected=", ".join(measured) or "none")  # fmt: skip
        graph = build_graph(trace.checked_name(name), everything, changes)
        role = "loss" if loss is not None else None
        self._set(graph, tuple(named), role, tuple(measured), weights, evaluation_only)

    def _set(
        self,
        graph: Graph,
        outputs: tuple[str, ...],
        loss: str | None,
        metrics: tuple[str, ...],
        weights: Mapping[str, npt.ArrayLike] | None,
        evaluation_only: Collection[str] = (),
    ) -> None:
        self._graph = graph
        #: names of the outputs and metrics; the loss's name, or None
        self.outputs = outputs
        self.loss = loss
        self.metrics = metrics
        #: the metrics that training steps leave out
        self.evaluation_only = frozenset(evaluation_only)
        for key in (*([loss] if loss else []), *metrics):
            node = graph.node(graph.outputs[key])
            if node.type.rank != 0 or not node.type.dtype.is_float:
                raise ShapeError(
                    f"{key} must be one floating-point number", where=str(node.origin),
                    got=node.type, hint="take the mean over the examples",
                )  # fmt: skip
        #: arrays by parameter or state name; None if everything starts by its ``init``
        self.weights = self._checked(weights)
        #: for an imported model: the names under which its framework keeps tensors, each with
        #: the leaf's name here, or the array itself if no leaf of the graph is it
        self.imported: dict[str, str | Array] | None = None

    @staticmethod
    def from_graph(graph: Graph, weights: Mapping[str, npt.ArrayLike] | None = None) -> Model:
        """The model of a graph that was read from IR text or made by hand.

        The output ``loss`` is the loss; other outputs of one floating-point number each are
        metrics.
        """
        loss = "loss" if "loss" in graph.outputs else None
        rest = [name for name in graph.outputs if name != loss]
        types = {name: graph.node(graph.outputs[name]).type for name in rest}
        metrics = [n for n, t in types.items() if loss and t.rank == 0 and t.dtype.is_float]
        model = Model.__new__(Model)
        outputs = tuple(name for name in rest if name not in metrics)
        model._set(graph, outputs, loss, tuple(metrics), weights)
        return model

    def rebuilt(self, graph: Graph) -> Model:
        """The same model with another graph that has the same outputs: other sizes, say."""
        model = Model.__new__(Model)
        model._set(graph, self.outputs, self.loss, self.metrics, self.weights, self.evaluation_only)
        model.imported = self.imported
        return model

    # ── graphs ───────────────────────────────────────────────────────────────────────────

    @property
    def name(self) -> str:
        return self._graph.name

    def graph(self) -> Graph:
        """Everything, before training and inference part ways."""
        names = (*self.outputs, *([self.loss] if self.loss else []), *self.metrics)
        return restrict(self._graph, names, updates=True)

    def inference(self) -> Graph:
        """The outputs alone; inputs that only the loss reads (labels) are left out."""
        if not self.outputs:
            raise UsageError(f"model {self.name} has no outputs", expected="outputs={...}")
        return restrict(specialise(self._graph, training=False), self.outputs, updates=False)

    def evaluation(self) -> Graph:
        """Outputs, loss and metrics, computed as in inference."""
        names = (*self.outputs, *([self.loss] if self.loss else []), *self.metrics)
        return restrict(specialise(self._graph, training=False), names, updates=False)

    def training(self) -> Graph:
        """Loss and metrics as training computes them, and what the step does to states.

        Backward pass and optimizer are passes' business. Outputs, and metrics that are for
        evaluation only, are left out: nobody reads them while training, and what nobody reads
        costs neither time nor memory.
        """
        if self.loss is None:
            raise UsageError(f"model {self.name} has no loss to train on", expected="loss=…")
        graph = specialise(self._graph, training=True)
        measured = [name for name in self.metrics if name not in self.evaluation_only]
        graph = restrict(graph, (self.loss, *measured), updates=True)
        assert isinstance(RANDOM_COUNTER.brick, Leaf)
        counter = graph.states.get(RANDOM_COUNTER.brick.name)
        if counter is not None and counter not in graph.updates:
            builder = Builder(graph, Origin(note="next random numbers"))
            after = add(builder.value(counter), 1)
            assert isinstance(after, GraphValue)
            graph.updates[counter] = after.id
        return graph

    # ── what it consists of ──────────────────────────────────────────────────────────────

    @property
    def inputs(self) -> dict[str, TensorType]:
        """The inputs' types by name, labels included."""
        return self._types(self._graph.inputs)

    @property
    def parameters(self) -> dict[str, TensorType]:
        """The parameters' types by name."""
        return self._types(self._graph.parameters)

    @property
    def states(self) -> dict[str, TensorType]:
        """The states' types by name: running statistics, the random seed and counter."""
        return self._types(self._graph.states)

    def label_limit(self, name: str) -> int:
        """Every element of an integer input is below this; 0 if nothing is said."""
        brick = self._graph.node(self._graph.inputs[name]).brick
        return brick.limit if isinstance(brick, Input) else 0

    def _types(self, leaves: Mapping[str, int]) -> dict[str, TensorType]:
        return {name: self._graph.node(id).type for name, id in leaves.items()}

    def parameter_count(self) -> int:
        """The number of trained scalars."""
        return sum(_count(type) for type in self.parameters.values())

    def summary(self) -> str:
        """A table of the layers: output, parameters."""
        rows = [(r.layer, r.output, f"{r.parameters:,}") for r in self._rows()]
        head = ("layer", "output", "parameters")
        total = ("total", "", f"{self.parameter_count():,}")
        widths = [max(len(line[k]) for line in [head, *rows, total]) for k in range(3)]
        rule = "─" * (sum(widths) + 4)

        def line(cells: Sequence[str]) -> str:
            return f"{cells[0]:<{widths[0]}}  {cells[1]:<{widths[1]}}  {cells[2]:>{widths[2]}}"

        return "\n".join([line(head), rule, *map(line, rows), rule, line(total)])

    def _rows(self) -> list[Row]:
        """One row for each layer, in the order of computation: its last value is its output."""
        outputs: dict[str, TensorType] = {}
        counts: dict[str, int] = {}
        for node in self._graph.nodes():
            layer = node.origin.layer
            if isinstance(node.brick, Parameter):
                counts[layer] = counts.get(layer, 0) + _count(node.type)
            if layer and not isinstance(node.brick, Leaf):
                outputs.pop(layer, None)  # a layer stands where its last value is made
                outputs[layer] = node.type
        rows = [Row(layer, str(type), counts.pop(layer, 0)) for layer, type in outputs.items()]
        return rows + [Row(layer or "(no layer)", "", n) for layer, n in counts.items()]

    def __repr__(self) -> str:
        return f"<Model {self.name}: {self.parameter_count():,} parameters>"

    def _checked(self, weights: Mapping[str, npt.ArrayLike] | None) -> dict[str, Array] | None:
        if weights is None:
            return None
        known = {**self.parameters, **self.states}
        checked: dict[str, Array] = {}
        for name, value in weights.items():
            array = np.asarray(value)
            type = known.get(name)
            if type is None:
                raise ImportModelError(
                    f"weights for {name!r}, which the model has not", where=self.name,
                    expected=", ".join(known) or "none",
                )  # fmt: skip
            if array.shape != type.shape or not np.can_cast(
                array.dtype, type.dtype.numpy, "same_kind"
            ):
                raise ImportModelError(
                    f"the weights of {name!r} do not fit", where=self.name,
                    got=f"{array.dtype}{list(array.shape)}", expected=type,
                )  # fmt: skip
            checked[name] = array.astype(type.dtype.numpy, copy=False)
        return checked


def _count(type: TensorType) -> int:
    size = type.size
    assert isinstance(size, int)  # the trace lets no other parameter through
    return size
