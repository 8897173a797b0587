"""From tensors to a graph: names for the layers, numbers for the random streams, nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ..errors import UsageError
from ..ir.brick import Brick, Input, Leaf, Parameter, State
from ..ir.bricks.random import Dropout, RandomUniform
from ..ir.graph import Graph
from ..ir.origin import Origin
from .place import Scope
from .trace import Tensor

__all__ = ["build_graph"]


def build_graph(
    name: str, outputs: Mapping[str, Tensor], updates: Mapping[Tensor, Tensor]
) -> Graph:
    """The graph that computes these outputs and updates.

    Nodes are added operands first, in the order in which the outputs need them, so the same
    program gives the same graph. Layers without a name are numbered in that order too.
    """
    order = list(_operands_first([*outputs.values(), *updates, *updates.values()]))
    names = _LayerNames(order)
    streams = _free_streams(order)
    graph = Graph(name)
    numbers: dict[Tensor, int] = {}
    leaves: dict[str, Tensor] = {}
    for tensor in order:
        layer = names.of(tensor.scope)
        origin = replace(tensor.origin, layer=layer) if layer else tensor.origin
        brick = tensor.brick
        if isinstance(brick, Leaf):
            # a layer's parameter is called layer.weight; the random state belongs to no layer
            own = f"{layer}.{brick.name}" if layer and not isinstance(brick, Input) else brick.name
            brick = _renamed(brick, own)
            _refuse_second(leaves, own, tensor, origin)
        elif isinstance(brick, Dropout):
            brick = replace(brick, stream=next(streams))
        node = graph.add(brick, [numbers[o] for o in tensor.operands], origin, type=tensor.type)
        numbers[tensor] = node.id
    graph.outputs = {key: numbers[tensor] for key, tensor in outputs.items()}
    graph.updates = {numbers[leaf]: numbers[value] for leaf, value in updates.items()}
    return graph


def _operands_first(roots: Iterable[Tensor]) -> Iterator[Tensor]:
    """Every tensor that the roots depend on, once, after its operands."""
    seen: set[Tensor] = set()
    for root in roots:
        # depth first without recursion: networks may be deeper than Python's stack
        stack = [(root, iter(root.operands))] if root not in seen else []
        seen.add(root)
        while stack:
            tensor, rest = stack[-1]
            for operand in rest:
                if operand not in seen:
                    seen.add(operand)
                    stack.append((operand, iter(operand.operands)))
                    break
            else:
                stack.pop()
                yield tensor


class _LayerNames:
    """The final name of each layer: its own, or its kind with the next free number."""

    def __init__(self, order: Iterable[Tensor]) -> None:
        self._names: dict[Scope, str] = {}
        scopes = list(dict.fromkeys(s for t in order for s in _outermost_first(t.scope)))
        # a number never takes a name that was given: what was given comes first
        taken = {(scope.parent, scope.name) for scope in scopes if scope.name is not None}
        counts: dict[tuple[Scope | None, str], int] = {}
        for scope in scopes:
            own = scope.name
            while own is None:
                key = (scope.parent, scope.kind)
                counts[key] = counts.get(key, 0) + 1
                numbered = f"{scope.kind}{counts[key]}"
                own = numbered if (scope.parent, numbered) not in taken else None
            above = f"{self._names[scope.parent]}." if scope.parent else ""
            self._names[scope] = above + own

    def of(self, scope: Scope | None) -> str:
        return "" if scope is None else self._names[scope]


def _outermost_first(scope: Scope | None) -> Iterator[Scope]:
    if scope is not None:
        yield from _outermost_first(scope.parent)
        yield scope


def _renamed(brick: Leaf, name: str) -> Brick:
    return brick if brick.name == name else replace(brick, name=name)


def _refuse_second(leaves: dict[str, Tensor], name: str, tensor: Tensor, origin: Origin) -> None:
    first = leaves.setdefault(name, tensor)
    if first is tensor:
        return
    kinds = {Input: "inputs", Parameter: "parameters", State: "states"}
    kind = kinds.get(type(tensor.brick), "leaves")
    if type(first.brick) is not type(tensor.brick):
        kind = "inputs, parameters or states"
    raise UsageError(
        f"two {kind} are called {name!r}", where=str(origin),
        got=f"another one at {first.origin}",
        hint="rename one; to share parameters, call one layer object twice",
    )  # fmt: skip


def _free_streams(order: Iterable[Tensor]) -> Iterator[int]:
    """Numbers for the dropouts, in order, apart from streams that were chosen by hand."""
    chosen = {t.brick.stream for t in order if isinstance(t.brick, RandomUniform)}
    stream = 0
    while True:
        if stream not in chosen:
            yield stream
        stream += 1
