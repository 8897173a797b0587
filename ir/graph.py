"""The graph: static single assignment over a networkx multigraph.

A node is the use of a brick and at the same time the one value it makes. Operand ``k``
of a node is the edge with key ``k``, so ``x*x`` has two edges. Passes build new graphs;
node ids survive where a node does, so that dumps of two stages can be compared.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from ..errors import VerifyError
from .brick import Brick, Input, Leaf, Parameter, State, check_arity
from .dims import Dim, dims_of
from .origin import Origin
from .types import TensorType

__all__ = ["Graph", "Node"]


@dataclass(frozen=True, slots=True)
class Node:
    """One use of a brick, and the value it makes."""

    id: int
    brick: Brick
    operands: tuple[int, ...]
    type: TensorType
    origin: Origin

    def __str__(self) -> str:
        return f"%{self.id}"


class Graph:
    """A program: nodes, named outputs, and updates of parameters and states.

    Adding nodes is the only change; whoever needs another graph builds another.
    """

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self._dag: nx.MultiDiGraph[int] = nx.MultiDiGraph()
        self._nodes: dict[int, Node] = {}
        self._order: list[Node] | None = None
        self._next = 0
        #: name -> id, in the order of addition
        self.inputs: dict[str, int] = {}
        self.parameters: dict[str, int] = {}
        self.states: dict[str, int] = {}
        self.outputs: dict[str, int] = {}
        #: id of a parameter or state -> id of its value after the step
        self.updates: dict[int, int] = {}

    def add(
        self,
        brick: Brick,
        operands: Sequence[int],
        origin: Origin,
        *,
        id: int | None = None,
        type: TensorType | None = None,
    ) -> Node:
        """A new node. ``id`` keeps a node's number across passes; ``type`` skips inference."""
        for operand in operands:
            if operand not in self._nodes:
                raise VerifyError(f"{brick.mnemonic} uses %{operand}, which does not exist")
        number = self._next if id is None else id
        if number in self._nodes:
            raise VerifyError(f"%{number} is defined twice")
        if type is None:
            check_arity(brick, len(operands))
            type = brick.infer_type([self._nodes[o].type for o in operands])
        node = Node(number, brick, tuple(operands), type, origin)
        if isinstance(brick, Leaf):
            self._add_leaf(number, brick)
        self._nodes[number] = node
        self._dag.add_node(number)
        for position, operand in enumerate(operands):
            self._dag.add_edge(operand, number, key=position)
        self._next = max(self._next, number + 1)
        self._order = None
        return node

    def _add_leaf(self, number: int, brick: Leaf) -> None:
        for leaves in (self.inputs, self.parameters, self.states):
            if brick.name in leaves:
                raise VerifyError(f"two leaves are called {brick.name!r}")
        match brick:
            case Input():
                self.inputs[brick.name] = number
            case Parameter():
                self.parameters[brick.name] = number
            case State():
                self.states[brick.name] = number

    def reserve(self, next_id: int) -> None:
        """New nodes get ids from ``next_id`` on: keeps them apart from an older graph's."""
        self._next = max(self._next, next_id)

    @property
    def next_id(self) -> int:
        return self._next

    def node(self, id: int) -> Node:
        try:
            return self._nodes[id]
        except KeyError:
            raise VerifyError(f"%{id} does not exist in graph {self.name!r}") from None

    def __contains__(self, id: int) -> bool:
        return id in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def nodes(self) -> list[Node]:
        """All nodes, operands first, ties broken by id. Raises VerifyError on a cycle."""
        if self._order is None:
            missing = dict(self._dag.in_degree())
            ready = [n for n, d in missing.items() if d == 0]
            heapq.heapify(ready)
            order: list[Node] = []
            while ready:
                number = heapq.heappop(ready)
                order.append(self._nodes[number])
                for _, user, _ in self._dag.out_edges(number, keys=True):
                    missing[user] -= 1
                    if missing[user] == 0:
                        heapq.heappush(ready, user)
            if len(order) != len(self._nodes):
                raise VerifyError(f"graph {self.name!r} has a cycle")
            self._order = order
        return self._order

    def users(self, id: int) -> list[tuple[Node, int]]:
        """The uses of a value: (node, operand position), by node id and position."""
        edges = self._dag.out_edges(id, keys=True)
        return [(self._nodes[user], key) for _, user, key in sorted(edges, key=lambda e: e[1:])]

    def operands(self, node: Node) -> list[Node]:
        return [self._nodes[o] for o in node.operands]

    def roots(self) -> list[int]:
        """What the graph is for: its outputs and the new values of its updates."""
        return list(dict.fromkeys([*self.outputs.values(), *self.updates.values()]))

    def live(self, roots: Iterable[int] | None = None) -> set[int]:
        """Ids of the values that the roots depend on, themselves included."""
        found: set[int] = set()
        stack = list(self.roots() if roots is None else roots)
        while stack:
            number = stack.pop()
            if number not in found:
                found.add(number)
                stack.extend(self._nodes[number].operands)
        return found

    @property
    def dims(self) -> Mapping[str, Dim]:
        """The named dims of the graph."""
        return dims_of(*(s for n in self._nodes.values() for s in n.type.shape))
