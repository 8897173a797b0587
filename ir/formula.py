"""A scalar graph as one SymPy expression: what differentiation has really built."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import sympy as sp
from sympy.core.function import AppliedUndef

from ..errors import UnsupportedError
from .brick import Leaf, View
from .expression import Y, operand
from .graph import Graph, Node

__all__ = ["formula"]


@runtime_checkable
class _Elementwise(Protocol):
    """The elementwise bricks, which lie on a higher floor."""

    def expression(self) -> sp.Basic: ...


def formula(graph: Graph, id: int) -> sp.Basic:
    """The value as an expression in the leaves, which are real symbols of the leaves' names.

    Every node that it depends on must be a scalar: a leaf, a constant, an elementwise brick
    or a view. Integers and short binary fractions become exact numbers.

    Raises UnsupportedError for anything else.
    """
    found: dict[int, sp.Basic] = {}
    live = graph.live([id])
    for node in graph.nodes():
        if node.id in live:
            found[node.id] = _value(node, [found[o] for o in node.operands])
    return found[id]


def _value(node: Node, operands: list[sp.Basic]) -> sp.Basic:
    brick = node.brick
    if node.type.rank == 0:
        if isinstance(brick, Leaf):
            return sp.Symbol(brick.name, real=True)
        if brick.mnemonic == "constant":
            return _number(brick.attributes()["value"])
        if isinstance(brick, _Elementwise):
            return _substitute(brick.expression(), operands)
        if isinstance(brick, View) or brick.mnemonic in ("copy", "stop_gradient"):
            return operands[0]
    raise UnsupportedError(
        f"{brick.mnemonic} has no formula",
        where=str(node.origin),
        got=f"{node}: {node.type}",
        expected="scalars and elementwise bricks",
    )


def _number(value: bool | int | float) -> sp.Basic:
    if isinstance(value, bool):
        return sp.true if value else sp.false
    over, under = float(value).as_integer_ratio()
    return sp.Rational(over, under) if under <= 1024 else sp.Float(value)


def _substitute(expr: sp.Basic, operands: list[sp.Basic]) -> sp.Basic:
    """The expression of the operands.

    The derivative of an unspecified function by its k-th argument stays one: by the argument
    itself if that is a symbol or again such a function, else through a placeholder.
    """
    values = {operand(k): value for k, value in enumerate(operands)}
    derivatives = {}
    for d in expr.atoms(sp.Derivative):
        held, points = {}, {}
        for variable in d.variables:
            value = values[variable]
            if not isinstance(value, sp.Symbol | AppliedUndef):
                held[variable] = sp.Dummy(variable.name, real=True)
                points[held[variable]] = value
        derivatives[d] = d.xreplace(values | held)
        if points:
            derivatives[d] = sp.Subs(derivatives[d], tuple(points), tuple(points.values()))
    if Y in expr.free_symbols:
        raise UnsupportedError("a derivative through the result has no formula of its own")
    return expr.xreplace(values | derivatives)
