"""ONNX's backend interface: prepare a model, run it on arrays.

A model is imported when the first arrays are there. Inputs on which the form of the program
depends (the new shape of a Reshape, say) are then fixed at their values, as a program is made
for fixed sizes; ``fixed`` says which ones that were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ShapeError, UnsupportedError
from ...ir.brick import Array
from ...ir.graph import Graph
from ...ir.interpret import interpret
from ..model import Model
from .importer import Importer

if TYPE_CHECKING:
    import onnx

__all__ = ["Prepared", "interpreted", "prepare"]

#: runs a model on inputs by name
Runner = Callable[[Model, Mapping[str, Array]], Mapping[str, Array]]

#: rounds of finding out which inputs must be fixed
_MOST_ROUNDS = 8


def interpreted(model: Model, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """The outputs by the graph interpreter."""
    graph: Graph = model.inference()
    given = {name: inputs[name] for name in graph.inputs}
    return interpret(graph, given, weights(model)).outputs


def weights(model: Model) -> dict[str, Array]:
    """All leaves' first values."""
    return dict(model.weights or {})


class Prepared:
    """A model that can be run on arrays in the order of its graph's inputs."""

    def __init__(self, proto: onnx.ModelProto, runner: Runner = interpreted) -> None:
        self.proto = proto
        self.runner = runner
        stored = {t.name for t in proto.graph.initializer}
        self.inputs = [v.name for v in proto.graph.input if v.name not in stored]
        #: the inputs that were fixed at their values
        self.fixed: frozenset[str] = frozenset()

    def run(self, inputs: Sequence[Array] | Mapping[str, Array], **kwargs: Any) -> tuple[Any, ...]:
        """The outputs in the order of the graph. Raises BrickcError as ``from_onnx`` does."""
        if isinstance(inputs, Mapping):
            arrays = dict(inputs)
        else:
            arrays = dict(zip(self.inputs, inputs, strict=True))
        named = {k: np.asarray(v) if not isinstance(v, list) else v for k, v in arrays.items()}
        model, importer = self._imported(named)  # type: ignore[arg-type]
        clean = {importer.inputs[k].brick.name: k for k in importer.inputs}  # type: ignore[attr-defined]
        given = {name: named[key] for name, key in clean.items()}
        return tuple(self.runner(model, given).values())  # type: ignore[arg-type]

    def _imported(self, arrays: Mapping[str, Array]) -> tuple[Model, Importer]:
        fixed: dict[str, Array] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        measured = False
        for _ in range(_MOST_ROUNDS):
            importer = Importer(self.proto, "model.onnx", None, values=fixed, shapes=shapes)
            try:
                model = importer.run()
            except (UnsupportedError, ShapeError):
                wanted = importer.wanted - set(fixed)
                if wanted:
                    fixed |= {name: arrays[name] for name in wanted}
                elif not measured and (importer.dims or not all(self._has_shape())):
                    # a dim that is only named may have to be a number
                    measured = True
                    shapes = {k: v.shape for k, v in arrays.items() if isinstance(v, np.ndarray)}
                else:
                    raise
                continue
            self.fixed = frozenset(fixed)
            return model, importer
        raise UnsupportedError("too many inputs must be known", got=sorted(fixed))

    def _has_shape(self) -> list[bool]:
        return [v.type.tensor_type.HasField("shape") for v in self.proto.graph.input]


def prepare(proto: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
    """A model that can be run; ``device`` is the CPU."""
    return Prepared(proto)
