"""Common subexpressions: equal bricks on equal operands become one node."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir.brick import Brick, Leaf
from ...ir.bricks.source import Constant
from ...ir.builder import Builder, GraphValue
from ...ir.graph import Graph, Node
from .patterns import rewritten

__all__ = ["merge_equal"]

_Key = tuple[type[Brick], Brick, tuple[int, ...], float]


def merge_equal(graph: Graph) -> Graph:
    """One node for each different (brick, operands); the earliest keeps number and origin.

    Leaves are never merged: each is a place of its own. Bricks are pure, random numbers
    included, since seed, counter and stream are operands and attributes.
    """
    seen: dict[_Key, int] = {}

    def rule(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
        brick = node.brick
        if isinstance(brick, Leaf):
            return None
        key = (type(brick), brick, tuple(o.id for o in operands), _sign(brick))
        first = seen.setdefault(key, node.id)
        return None if first == node.id else builder.value(first)

    return rewritten(graph, rule)


def _sign(brick: Brick) -> float:
    """Tells the constants 0.0 and -0.0 apart, which are equal as Python numbers."""
    if isinstance(brick, Constant) and isinstance(brick.value, float):
        return math.copysign(1.0, brick.value)
    return 1.0
