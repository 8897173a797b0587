"""Halves between kernels: what is stored becomes bf16 or f16, what is computed stays f32.

The target fuses the graph once to see which values reach memory. An activation or gradient that
another kernel reads is rounded by the kernel that makes it and widened by those that read it;
readers in its own kernel take the f32 value, so nothing is rounded on the way. Products read
halves and sum them in f32; a parameter is rounded once for all products of a step, and remains
in f32 for its update.

In f32 stay: what the caller sees; parameters, states and their new values; sums and maxima;
what a loss is computed from behind the last product; gradients that only an optimizer reads;
random numbers, and what is compared for equality, which rounding would decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import sympy as sp

from ...errors import InternalError
from ...ir.brick import Brick, Input, View
from ...ir.bricks.contract import Contract
from ...ir.bricks.convert import Cast
from ...ir.bricks.convolution import Convolution, ConvolutionInputGrad, ConvolutionWeightGrad
from ...ir.bricks.elementwise import Elementwise
from ...ir.bricks.random import RandomUniform
from ...ir.bricks.reduce import ReduceMax, ReduceMin, ReduceSum
from ...ir.builder import Builder, GraphValue
from ...ir.dtypes import DType
from ...ir.expression import operand
from ...ir.graph import Graph, Node
from ...ir.kernel.capabilities import Capabilities
from ..fuse import SOURCES, Group, fuse
from ..layouts import choose_layouts

__all__ = ["keep_halves"]

PRODUCTS = (Contract, Convolution, ConvolutionInputGrad, ConvolutionWeightGrad)
_REDUCTIONS = (ReduceSum, ReduceMax, ReduceMin)


def keep_halves(graph: Graph, capabilities: Capabilities) -> Graph:
    """The graph with casts to the target's half dtype and back; ids of its nodes stay."""
    half = capabilities.half
    if half is None:
        return graph
    if not half.is_half:
        raise InternalError("activations are kept in another dtype", got=half, expected="f16, bf16")
    layouts = choose_layouts(graph, {}, capabilities.layout, widens=True)
    groups = fuse(graph, layouts, capabilities).groups
    return _Rounding(graph, half, groups).run()


class _Rounding:
    def __init__(self, graph: Graph, half: DType, groups: Iterable[Group]) -> None:
        self.graph = graph
        self.half = half
        self.group_of = {m: g for g in groups for m in g.members}
        self.new = Graph(graph.name)
        self.new.reserve(graph.next_id)
        self.builder = Builder(self.new)
        #: id of a node -> its value in f32 as it is computed, in half, and widened again
        self.exact: dict[int, GraphValue] = {}
        self.rounded: dict[int, GraphValue] = {}
        self.widened: dict[int, GraphValue] = {}
        self.kept = self._kept()

    def run(self) -> Graph:
        graph, new = self.graph, self.new
        for node in graph.nodes():
            if not isinstance(node.brick, View):
                self._copy(node)  # views follow when somebody asks for them
        new.outputs = {name: self._exact(id).id for name, id in graph.outputs.items()}
        new.updates = {leaf: self._exact(id).id for leaf, id in graph.updates.items()}
        return new

    # -- which values ----------------------------------------------------------------------------

    def _kept(self) -> set[int]:
        """Values that are half in memory."""
        graph = self.graph
        products = [n for n in graph.nodes() if self._is_product(n)]
        needed = graph.live({o for n in products for o in n.operands})
        excluded = self._behind(graph.roots()) | self._heads() | self._compared()
        found = set()
        for node in graph.nodes():
            if node.id not in needed or node.id in excluded or not self._may_round(node):
                continue
            group = self.group_of.get(node.id)
            if group is not None and any(r not in group.members for r in self._readers(node.id)):
                found.add(node.id)
        return found

    def _is_product(self, node: Node) -> bool:
        return isinstance(node.brick, PRODUCTS) and node.type.dtype is DType.F32

    def _may_round(self, node: Node) -> bool:
        if node.type.dtype is not DType.F32 or node.type.rank == 0:
            return False
        if isinstance(node.brick, (*SOURCES, View)):
            return False
        group = self.group_of.get(node.id)
        if group is None or group.anchor is None or node.id in group.before:
            return True
        anchor = self.graph.node(group.anchor).brick
        return not isinstance(anchor, (*_REDUCTIONS, RandomUniform))

    def _readers(self, id: int) -> set[int]:
        """Nodes that read the value, through views too."""
        found: set[int] = set()
        stack = [id]
        while stack:
            for user, _ in self.graph.users(stack.pop()):
                if isinstance(user.brick, View):
                    stack.append(user.id)
                else:
                    found.add(user.id)
        return found

    def _behind(self, ids: Iterable[int]) -> set[int]:
        """The values, and those that they are views of."""
        found: set[int] = set()
        for id in ids:
            while id not in found:
                found.add(id)
                node = self.graph.node(id)
                if not isinstance(node.brick, View):
                    break
                (id,) = node.operands
        return found

    def _heads(self) -> set[int]:
        """What scalar outputs (the loss, metrics) are made of, back to the last products."""
        scalars = [o for o in self.graph.outputs.values() if self.graph.node(o).type.rank == 0]
        found: set[int] = set()
        stack = scalars
        while stack:
            node = self.graph.node(stack.pop())
            if node.id not in found:
                found.add(node.id)
                if not isinstance(node.brick, PRODUCTS):
                    stack.extend(node.operands)
        return found

    def _compared(self) -> set[int]:
        """Operands of equalities: an element and its maximum must stay equal."""
        found: set[int] = set()
        for node in self.graph.nodes():
            if isinstance(node.brick, Elementwise):
                for equality in node.brick.expression().atoms(sp.Eq, sp.Ne):
                    for k, operand_id in enumerate(node.operands):
                        if operand(k) in equality.free_symbols:
                            found |= self._behind([operand_id])
        return found

    # -- the new graph -----------------------------------------------------------------------------

    def _copy(self, node: Node) -> None:
        brick: Brick
        if self._is_product(node):
            assert isinstance(node.brick, PRODUCTS)
            brick = replace(node.brick, sums=DType.F32)
            operands = [self._half(o) for o in node.operands]
        else:
            brick = node.brick
            operands = [self._read(o, node.id) for o in node.operands]
        numbers = [o.id for o in operands]
        copied = self.new.add(brick, numbers, node.origin, id=node.id, type=node.type)
        self.exact[node.id] = GraphValue(self.builder, copied)

    def _read(self, id: int, reader: int) -> GraphValue:
        """An operand: as it is computed inside its own kernel, as it is stored elsewhere."""
        roots = self._behind([id]) & self.kept
        if all(self.group_of[r] is self.group_of.get(reader) for r in roots):
            return self._exact(id)
        if id not in self.widened:
            half = self._half(id)
            self.builder.origin = self.graph.node(id).origin
            self.widened[id] = half.apply(Cast(DType.F32), half)
        return self.widened[id]

    def _exact(self, id: int) -> GraphValue:
        if id not in self.exact:
            node = self.graph.node(id)  # a view; the others are there before their readers
            (operand_id,) = node.operands
            numbers = [self._exact(operand_id).id]
            copied = self.new.add(node.brick, numbers, node.origin, id=id, type=node.type)
            self.exact[id] = GraphValue(self.builder, copied)
        return self.exact[id]

    def _half(self, id: int) -> GraphValue:
        """The value in half; a view of a value is a view of its half."""
        if id not in self.rounded:
            node = self.graph.node(id)
            view = isinstance(node.brick, View)
            source = self._half(node.operands[0]) if view else self._exact(id)
            self.builder.origin = node.origin
            if isinstance(node.brick, Input) and not node.origin.layer:
                self.builder.origin = replace(node.origin, layer=node.brick.name)
            self.rounded[id] = source.apply(node.brick if view else Cast(self.half), source)
        return self.rounded[id]
