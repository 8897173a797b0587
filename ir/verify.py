"""The rules of the graph IR, checked after every pass."""

from __future__ import annotations

from ..errors import BrickcError, VerifyError
from .brick import Input, Leaf, Parameter, State, check_arity
from .dims import Dim
from .graph import Graph, Node
from .printer import dims_in, surroundings

__all__ = ["verify"]


def verify(graph: Graph) -> None:
    """Raise VerifyError unless the graph keeps every rule of the IR.

    No cycles; operands exist and agree with the edges; the number of operands is the brick's;
    the stated type is the one the brick infers; a dim's name means one dim; leaves have
    names of their own and are listed; outputs exist; an update gives a parameter or state a
    value of its type.
    """
    nodes = graph.nodes()
    _verify_edges(graph, nodes)
    for node in nodes:
        _verify_node(graph, node)
    _verify_dims(graph, nodes)
    _verify_leaves(graph, nodes)
    _verify_results(graph)


def _error(
    graph: Graph, id: int, what: str, got: object = None, expected: object = None
) -> VerifyError:
    """The rule that a node breaks, with the lines around the node."""
    origin = str(graph.node(id).origin) if id in graph else ""
    return VerifyError(
        f"%{id}: {what}", where=origin, got=got, expected=expected,
        hint="around it:\n" + surroundings(graph, id),
    )  # fmt: skip


def _verify_edges(graph: Graph, nodes: list[Node]) -> None:
    edges: dict[int, dict[int, int]] = {node.id: {} for node in nodes}
    for node in nodes:
        for user, position in graph.users(node.id):
            edges[user.id][position] = node.id
    for node in nodes:
        for operand in node.operands:
            if operand not in graph:
                raise _error(graph, node.id, f"%{operand} does not exist")
        if edges[node.id] != dict(enumerate(node.operands)):
            raise _error(
                graph, node.id, "the edges are not the operands",
                got=[edges[node.id][k] for k in sorted(edges[node.id])],
                expected=list(node.operands),
            )  # fmt: skip


def _verify_node(graph: Graph, node: Node) -> None:
    mnemonic = node.brick.mnemonic
    try:
        check_arity(node.brick, len(node.operands))
        inferred = node.brick.infer_type([graph.node(o).type for o in node.operands])
    except BrickcError as error:
        raise _error(graph, node.id, error.what, error.got, error.expected) from error
    except Exception as error:
        raise _error(
            graph, node.id, f"the attributes or operands of {mnemonic} make no sense",
            got=f"{type(error).__name__}: {error}",
        ) from error  # fmt: skip
    if inferred != node.type:
        raise _error(
            graph, node.id, f"{mnemonic} has another type", got=node.type, expected=inferred
        )


def _verify_dims(graph: Graph, nodes: list[Node]) -> None:
    known: dict[str, tuple[Dim, Node]] = {}
    for node in nodes:
        for dim in dims_in(node):
            first, where = known.setdefault(dim.name, (dim, node))
            if _range(first) != _range(dim):
                raise _error(
                    graph, node.id, f"dim {dim.name} is not the same as in {where}",
                    got=_range(dim), expected=_range(first),
                )  # fmt: skip


def _range(dim: Dim) -> str:
    return f"{dim.lo}..{dim.hi} typical {dim.typical}"


def _verify_leaves(graph: Graph, nodes: list[Node]) -> None:
    tables = {Input: graph.inputs, Parameter: graph.parameters, State: graph.states}
    names: dict[str, int] = {}
    for node in nodes:
        if not isinstance(node.brick, Leaf):
            continue
        name = node.brick.name
        if name in names:
            raise _error(graph, node.id, f"{name!r} is the name of %{names[name]} too")
        names[name] = node.id
        table = tables.get(type(node.brick), {})
        if table.get(name) != node.id:
            raise _error(
                graph, node.id, f"{node.brick.mnemonic} {name!r} is not listed as one",
                got=table.get(name, "nothing"), expected=node,
            )  # fmt: skip
    for table in tables.values():
        for name, id in table.items():
            if names.get(name) != id:
                raise VerifyError(
                    f"graph {graph.name!r} lists a leaf that it does not have", got=repr(name)
                )


def _verify_results(graph: Graph) -> None:
    for name, id in graph.outputs.items():
        if id not in graph:
            raise _missing(graph, f"output {name!r}", id)
    for leaf, id in graph.updates.items():
        if leaf not in graph:
            raise _missing(graph, "an update's leaf", leaf)
        node = graph.node(leaf)
        if not isinstance(node.brick, Parameter | State):
            raise _error(
                graph, leaf, "an update of what is neither parameter nor state",
                got=node.brick.mnemonic,
            )  # fmt: skip
        if id not in graph:
            raise _missing(graph, f"the update of {node.brick.name!r}", id)
        if graph.node(id).type != node.type:
            raise _error(
                graph, id, f"the update of {node.brick.name!r} has another type",
                got=graph.node(id).type, expected=node.type,
            )  # fmt: skip


def _missing(graph: Graph, what: str, id: int) -> VerifyError:
    return VerifyError(f"{what} is %{id}, which graph {graph.name!r} does not have")
