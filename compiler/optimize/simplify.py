"""The clean-up passes in turn, until nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.bricks.convert import StopGradient
from ...ir.builder import Builder, GraphValue
from ...ir.graph import Graph, Node
from .canonicalise import canonicalise
from .cse import merge_equal
from .dead import drop_dead
from .fold import fold
from .merge_views import merge_views
from .patterns import rewritten
from .pool_gradients import shrink_pool_gradients

__all__ = ["simplify"]

#: a chain of n rewrites that enable each other takes n rounds; networks need three or four
_ROUNDS = 12

#: fold before merge_equal, since equal constants and maps are merged after they are made
_PASSES: tuple[Callable[[Graph], Graph], ...] = (
    canonicalise, merge_views, shrink_pool_gradients, fold, merge_equal,
)  # fmt: skip


def simplify(graph: Graph) -> Graph:
    """The same values by fewer nodes. It runs after differentiation: gradient stops go first."""
    graph = drop_stop_gradients(graph)
    for _ in range(_ROUNDS):
        before = graph
        for step in _PASSES:
            graph = step(graph)
        if graph is before:
            break
    return drop_dead(graph)


def drop_stop_gradients(graph: Graph) -> Graph:
    """Once the gradients are there, a gradient stop is the identity."""

    def rule(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
        return operands[0] if isinstance(node.brick, StopGradient) else None

    return rewritten(graph, rule)
