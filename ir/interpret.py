"""The graph interpreter: slow, obvious, in NumPy. It is the oracle of every other test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BrickcError, DataError, DtypeError, InternalError, ShapeError
from .brick import Array, Input, Leaf
from .dtypes import DType, round_to
from .graph import Graph, Node
from .types import TensorType, bind_dims

__all__ = ["Results", "interpret"]


@dataclass(frozen=True, eq=False)
class Results:
    """What a graph computes: ``results["loss"]`` is the output of that name."""

    outputs: dict[str, Array]
    #: name of a parameter or state -> its value after the step
    updates: dict[str, Array] = field(default_factory=dict)
    #: node id -> value, for the nodes that were asked for
    values: dict[int, Array] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)


def interpret(
    graph: Graph,
    inputs: Mapping[str, npt.ArrayLike],
    parameters: Mapping[str, npt.ArrayLike] | None = None,
    states: Mapping[str, npt.ArrayLike] | None = None,
    *,
    keep: Iterable[int] = (),
) -> Results:
    """Evaluate outputs, updates and the nodes in ``keep``, each brick by its ``evaluate``.

    ``inputs`` may hold parameters and states too. What nothing needs may be missing;
    ``parameters`` and ``states`` may hold more than the graph has. Nothing is computed in
    halves: they are widened to f32, and a result that is one is rounded. Arrays of bf16 are f32.

    Raises ShapeError, DtypeError or DataError if the values do not fit the graph's types, and
    InternalError if a brick's result is not of the type that the graph states.
    """
    wanted = set(keep)
    live = graph.live([*graph.roots(), *wanted])
    values = _leaves(graph, live, inputs, {**(parameters or {}), **(states or {})})
    types = {_name(graph.node(i)): graph.node(i).type for i in values}
    shapes = {_name(graph.node(i)): a.shape for i, a in values.items()}
    dims = bind_dims(types, shapes)
    # values are dropped after their last use: a whole network's would not fit in memory
    uses = dict.fromkeys(live, 0)
    for id in live:
        for operand in graph.node(id).operands:
            uses[operand] += 1
    for id in [*graph.roots(), *wanted]:
        uses[id] += 1
    for node in graph.nodes():
        if node.id not in live:
            continue
        if node.id not in values:
            values[node.id] = _evaluate(node, [values[o] for o in node.operands], dims)
        for operand in node.operands:
            uses[operand] -= 1
            if uses[operand] == 0:
                values.pop(operand, None)
    return Results(
        {name: values[id] for name, id in graph.outputs.items()},
        {_name(graph.node(leaf)): values[id] for leaf, id in graph.updates.items()},
        {id: values[id] for id in sorted(wanted)},
    )


def _name(node: Node) -> str:
    assert isinstance(node.brick, Leaf)
    return node.brick.name


def _leaves(
    graph: Graph,
    live: set[int],
    inputs: Mapping[str, npt.ArrayLike],
    others: Mapping[str, npt.ArrayLike],
) -> dict[int, Array]:
    """Checked arrays of the leaves; shapes are left to ``bind_dims``."""
    numbers = graph.inputs | graph.parameters | graph.states
    for name in inputs:
        if name not in numbers:
            raise ShapeError(
                f"graph {graph.name!r} has no input of that name", got=repr(name),
                expected=", ".join(map(repr, graph.inputs)) or "no inputs",
            )  # fmt: skip
    found: dict[int, Array] = {}
    for name, number in numbers.items():
        node = graph.node(number)
        given = inputs.get(name, others.get(name))
        if given is not None:
            found[number] = _checked(node, np.asarray(given))
        elif number in live:
            raise ShapeError(
                f"{node.brick.mnemonic} {name!r} was given no value", where=str(node.origin),
                expected=node.type,
            )  # fmt: skip
    return found


def _checked(node: Node, array: Array) -> Array:
    name = _name(node)
    if array.dtype != node.type.dtype.held:
        raise DtypeError(
            f"{node.brick.mnemonic} {name!r} has another dtype", where=str(node.origin),
            got=array.dtype, expected=node.type.dtype,
        )  # fmt: skip
    limit = node.brick.limit if isinstance(node.brick, Input) else 0
    if limit and array.size and not (array.min() >= 0 and array.max() < limit):
        raise DataError(
            f"an element of input {name!r} is out of range", where=str(node.origin),
            got=f"{array.min()}..{array.max()}", expected=f"0..{limit - 1}",
        )  # fmt: skip
    return array


def _evaluate(node: Node, operands: list[Array], dims: Mapping[str, int]) -> Array:
    try:
        wide = [o.astype(np.float32) if o.dtype == np.float16 else o for o in operands]
        result: npt.NDArray[Any] = np.asarray(node.brick.evaluate(wide, dims))
    except BrickcError as error:
        raise error.at(f"{node} {node.origin}".rstrip()) from None
    if node.type.dtype.is_half and result.dtype == np.float32:
        result = round_to(result, node.type.dtype)
    shape = node.type.concrete(dims)
    if result.shape != shape or result.dtype != node.type.dtype.held:
        raise InternalError(
            f"{node.brick.mnemonic}: the value is not of the stated type",
            where=f"{node} {node.origin}".rstrip(),
            got=TensorType(DType.of(result.dtype), result.shape),
            expected=TensorType(node.type.dtype, shape),
        )
    return result
