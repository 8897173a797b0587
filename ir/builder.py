"""Checked construction of graphs, and the one way in which passes rewrite them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import BrickcError, InternalError
from .brick import Brick, Leaf
from .graph import Graph, Node
from .origin import Origin
from .types import TensorType
from .value import Value

__all__ = ["Builder", "GraphValue", "Rewriter", "rewrite"]


class GraphValue(Value):
    """A value of a graph under construction."""

    __slots__ = ("builder", "node")

    def __init__(self, builder: Builder, node: Node) -> None:
        self.builder = builder
        self.node = node

    @property
    def id(self) -> int:
        return self.node.id

    @property
    def type(self) -> TensorType:
        return self.node.type

    def apply(self, brick: Brick, *operands: Value) -> GraphValue:
        return self.builder.add(brick, *operands)

    def __repr__(self) -> str:
        return f"%{self.node.id}: {self.node.type}"


class Builder:
    """Adds nodes to a graph; every new node gets the builder's current ``origin``."""

    def __init__(self, graph: Graph, origin: Origin | None = None) -> None:
        self.graph = graph
        self.origin = origin or Origin()

    def add(self, brick: Brick, *operands: Value) -> GraphValue:
        """Apply a brick. Errors in shapes and dtypes name the current origin."""
        numbers = []
        for operand in operands:
            if not isinstance(operand, GraphValue) or operand.builder is not self:
                raise InternalError(
                    f"{brick.mnemonic}: an operand belongs to another graph", where=str(self.origin)
                )
            numbers.append(operand.node.id)
        try:
            return GraphValue(self, self.graph.add(brick, numbers, self.origin))
        except BrickcError as error:
            raise error.at(str(self.origin)) from None

    def value(self, id: int) -> GraphValue:
        """The value of an existing node."""
        return GraphValue(self, self.graph.node(id))


#: called for each node with its rewritten operands; returns the node's replacement in the
#: new graph, or None to copy the node
Rewriter = Callable[[Builder, Node, Sequence[GraphValue]], GraphValue | None]


def rewrite(graph: Graph, rule: Rewriter, *, live_only: bool = True) -> Graph:
    """A new graph in which ``rule`` has replaced nodes, operands first.

    Nodes that nothing depends on are left out, except inputs, parameters and states, which
    are the program's interface. Outputs and updates follow their replacements.
    """
    new = Graph(graph.name)
    new.reserve(graph.next_id)
    builder = Builder(new)
    live = graph.live() if live_only else None
    mapping: dict[int, GraphValue] = {}
    for node in graph.nodes():
        if live is not None and node.id not in live and not isinstance(node.brick, Leaf):
            continue
        operands = [mapping[o] for o in node.operands]
        builder.origin = node.origin
        replacement = rule(builder, node, operands)
        if replacement is None:
            numbers = [o.id for o in operands]
            same = all(
                o.type == graph.node(old).type
                for o, old in zip(operands, node.operands, strict=True)
            )
            copied = new.add(
                node.brick, numbers, node.origin, id=node.id, type=node.type if same else None
            )
            replacement = GraphValue(builder, copied)
        mapping[node.id] = replacement
    new.outputs = {name: mapping[id].id for name, id in graph.outputs.items()}
    new.updates = {mapping[leaf].id: mapping[id].id for leaf, id in graph.updates.items()}
    return new
