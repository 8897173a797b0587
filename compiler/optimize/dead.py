"""Nodes that no output and no update depends on are dropped."""

from __future__ import annotations

from ...ir.brick import Leaf
from ...ir.builder import rewrite
from ...ir.graph import Graph

__all__ = ["drop_dead"]


def drop_dead(graph: Graph) -> Graph:
    """The graph without dead nodes. Inputs, parameters and states stay: they are its interface."""
    live = graph.live()
    if all(node.id in live or isinstance(node.brick, Leaf) for node in graph.nodes()):
        return graph
    return rewrite(graph, lambda builder, node, operands: None)
