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
from ...ir.interpret import interpret
from ..model import Model
from .importer import Importer

if TYPE_CHECKING:
    import onnx

__all__ = ["Prepared", "Runner", "interpreted"]

#: runs a model on inputs by name
Runner = Callable[[Model, Mapping[str, Array]], Mapping[str, Array]]

#: rounds of finding out which inputs must be fixed
_MOST_ROUNDS = 8


def interpreted(model: Model, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """The outputs by the graph interpreter."""
    graph = model.inference()
    given = {name: inputs[name] for name in graph.inputs}
    return interpret(graph, given, model.weights).outputs


class Prepared:
    """A model that can be run on arrays in the order of its graph's inputs."""

    def __init__(self, proto: onnx.ModelProto, runner: Runner = interpreted) -> None:
        self.proto = proto
        self.runner = runner
        stored = {t.name for t in proto.graph.initializer}
        self.inputs = [v.name for v in proto.graph.input if v.name not in stored]
        #: the inputs that were fixed at their values
        self.fixed: frozenset[str] = frozenset()
        #: what the last run ran
        self.model: Model | None = None

    def run(self, inputs: Sequence[Any], **kwargs: Any) -> tuple[Array, ...]:
        """The outputs in the order of the graph. Raises BrickcError as ``from_onnx`` does."""
        arrays = dict(zip(self.inputs, inputs, strict=False))
        importer = self._imported(arrays)
        assert self.model is not None
        given = {importer.names_of[k]: np.asarray(arrays[k]) for k in importer.inputs}
        return tuple(self.runner(self.model, given).values())

    def _imported(self, arrays: Mapping[str, Any]) -> Importer:
        fixed: dict[str, Array] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        measured = False
        for _ in range(_MOST_ROUNDS):
            importer = Importer(self.proto, "model.onnx", None, values=fixed, shapes=shapes)
            try:
                self.model = importer.run()
            except (UnsupportedError, ShapeError):
                wanted = importer.wanted - set(fixed)
                if wanted:
                    fixed |= {name: np.asarray(arrays[name]) for name in wanted}
                elif not measured and importer.dims:
                    # a dim that is only named may have to be a number
                    measured = True
                    shapes = {k: v.shape for k, v in arrays.items() if isinstance(v, np.ndarray)}
                else:
                    raise
                continue
            self.fixed = frozenset(fixed)
            return importer
        raise UnsupportedError("too many inputs must be known", got=sorted(fixed))
