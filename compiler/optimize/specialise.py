"""One mode for everything: bricks that differ between training and inference are replaced.

It runs before any other pass. In training a brick may also say what a state of its own
becomes when the step ends (running statistics); these join the graph's updates.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InternalError
from ...ir.brick import ModeDependent, State
from ...ir.builder import Builder, GraphValue, rewrite
from ...ir.graph import Graph, Node

__all__ = ["restrict", "specialise"]


def specialise(graph: Graph, training: bool) -> Graph:
    """The graph in one mode. Inference has no updates at all; training keeps the graph's own."""
    #: state -> its value when the step ends. A brick that is used twice updates twice, the
    #: second time from where the first left off.
    pending: dict[int, GraphValue] = {}

    def rule(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
        if not isinstance(node.brick, ModeDependent):
            return None
        latest = [pending.get(o.id, o) for o in operands]
        value, updates = node.brick.specialise(latest, training)
        if not isinstance(value, GraphValue):
            raise InternalError(f"specialise: {node.brick.mnemonic} made a value of another kind")
        for position, new in updates.items():
            state = operands[position].node
            if not isinstance(state.brick, State) or not isinstance(new, GraphValue):
                raise InternalError(
                    f"specialise: {node.brick.mnemonic} updates operand {position}, "
                    "which is no state", where=str(node.origin), got=state.brick.mnemonic,
                )  # fmt: skip
            pending[state.id] = new
        return value

    result = rewrite(graph, rule)
    if not training:
        result.updates = {}
        return result
    for state, new in pending.items():
        # what the graph itself says about a state goes before what a brick says
        result.updates.setdefault(state, new.id)
    return result


def restrict(graph: Graph, outputs: Sequence[str], *, updates: bool) -> Graph:
    """The part of a graph that some of its outputs (and its updates) need, ids unchanged.

    Inputs, parameters and states that nothing there needs are left out.
    """
    new = Graph(graph.name)
    kept = dict(graph.updates) if updates else {}
    roots = [graph.outputs[name] for name in outputs]
    live = graph.live([*roots, *kept, *kept.values()])
    for node in graph.nodes():
        if node.id in live:
            new.add(node.brick, node.operands, node.origin, id=node.id, type=node.type)
    new.reserve(graph.next_id)
    new.outputs = {name: graph.outputs[name] for name in outputs}
    new.updates = kept
    return new
