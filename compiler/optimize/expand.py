"""Composite bricks replaced by the bricks that they stand for."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InternalError
from ...ir.brick import Brick, Composite, ModeDependent
from ...ir.builder import Builder, GraphValue, rewrite
from ...ir.graph import Graph, Node

__all__ = ["expand", "has_own_vjp"]

#: expansions within expansions; a brick that expands into itself would never end
_DEPTH = 16


def has_own_vjp(brick: Brick) -> bool:
    """True if the brick's class states a derivative."""
    return type(brick).vjp is not Brick.vjp


def expand(graph: Graph, only_without_vjp: bool) -> Graph:
    """Replace composite bricks, and those in their expansions, by their expansions.

    With ``only_without_vjp`` those that state a derivative of their own are left: it is
    written to be shorter or numerically safer than that of the expansion.
    """
    for node in graph.nodes():
        if isinstance(node.brick, ModeDependent):
            raise InternalError(
                f"{node.brick.mnemonic} is still undecided between training and inference",
                where=str(node.origin), got=str(node), hint="specialise the graph first",
            )  # fmt: skip

    def wanted(brick: Brick) -> bool:
        return isinstance(brick, Composite) and not (only_without_vjp and has_own_vjp(brick))

    def rule(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
        brick = node.brick
        if not isinstance(brick, Composite) or not wanted(brick):
            return None
        builder.origin = node.origin.with_note(brick.mnemonic)
        value = brick.expand(operands)
        if not isinstance(value, GraphValue) or value.type != node.type:
            raise InternalError(
                f"the expansion of {brick.mnemonic} has another type", where=str(node.origin),
                got=value.type, expected=node.type,
            )  # fmt: skip
        return value

    for _ in range(_DEPTH):
        if not any(wanted(node.brick) for node in graph.nodes()):
            return graph
        graph = rewrite(graph, rule)
    raise InternalError("composite bricks expand without end", got=f"{_DEPTH} rounds")
