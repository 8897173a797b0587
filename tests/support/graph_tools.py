"""Small graphs by hand, and what the interpreter says they compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brickc.ir.brick import Input, Parameter, State
from brickc.ir.builder import Builder, GraphValue
from brickc.ir.dims import Size
from brickc.ir.dtypes import DType
from brickc.ir.graph import Graph
from brickc.ir.initializers import constant
from brickc.ir.interpret import interpret
from brickc.ir.origin import Origin
from brickc.ir.types import TensorType

Arrays = Mapping[str, Any]


class Net:
    """A builder with short names for leaves and outputs."""

    def __init__(self, dtype: DType = DType.F64) -> None:
        self.graph = Graph("test")
        self.builder = Builder(self.graph, Origin("test.py", 1))
        self.dtype = dtype

    def at(self, line: int, layer: str = "") -> None:
        self.builder.origin = Origin("test.py", line, layer)

    def input(
        self, name: str, shape: Sequence[Size], dtype: DType | None = None, limit: int = 0
    ) -> GraphValue:
        type = TensorType.of(dtype or self.dtype, shape)
        return self.builder.add(Input(name, type, limit))

    def parameter(
        self,
        name: str,
        shape: Sequence[Size],
        lr_scale: float = 1.0,
        decay_scale: float = 1.0,
        dtype: DType | None = None,
    ) -> GraphValue:
        type = TensorType.of(dtype or self.dtype, shape)
        return self.builder.add(Parameter(name, type, constant(0.0), lr_scale, decay_scale))

    def state(self, name: str, shape: Sequence[Size]) -> GraphValue:
        return self.builder.add(State(name, TensorType.of(self.dtype, shape), constant(0.0)))

    def output(self, name: str, value: object) -> None:
        assert isinstance(value, GraphValue)
        self.graph.outputs[name] = value.id


def _fitting(graph: Graph, arrays: Arrays) -> dict[str, Any]:
    """The arrays of the graph's leaves, in the leaves' dtypes."""
    leaves = graph.inputs | graph.parameters | graph.states
    return {
        name: np.asarray(arrays[name], graph.node(number).type.dtype.numpy)
        for name, number in leaves.items()
        if name in arrays
    }


def values(graph: Graph, arrays: Arrays) -> dict[int, Any]:
    """Every node's value, by id; ``arrays`` are those of the leaves, by name."""
    everything = [node.id for node in graph.nodes()]
    return interpret(graph, _fitting(graph, arrays), keep=everything).values


def outputs(graph: Graph, arrays: Arrays) -> dict[str, Any]:
    return interpret(graph, _fitting(graph, arrays)).outputs


def step(graph: Graph, arrays: Arrays) -> dict[str, Any]:
    """The parameters and states after one step."""
    return interpret(graph, _fitting(graph, arrays)).updates


def initial(graph: Graph) -> dict[str, Any]:
    """The states before the first step."""
    found = {}
    for name, number in graph.states.items():
        brick = graph.node(number).brick
        assert isinstance(brick, State)
        shape = tuple(int(str(s)) for s in brick.type.shape)
        found[name] = brick.init.sample(name, shape, brick.type.dtype, 0)
    return found


def count(graph: Graph) -> Counter[str]:
    """Live nodes by mnemonic."""
    live = graph.live()
    return Counter(n.brick.mnemonic for n in graph.nodes() if n.id in live)
