"""The chain rule as the lecture writes it: y = f3(w3, f2(w2, f1(w1, x))), E = (y - t)²/2."""

from __future__ import annotations

import pytest
import sympy as sp

from brickc.compiler.differentiate import differentiate
from brickc.errors import UnsupportedError
from brickc.ir.brick import Input, Parameter
from brickc.ir.bricks.arithmetic import mul, square, sub
from brickc.ir.bricks.elementwise import Map
from brickc.ir.bricks.loss import square_loss
from brickc.ir.bricks.reduce import ReduceSum
from brickc.ir.builder import Builder, GraphValue
from brickc.ir.dtypes import DType
from brickc.ir.expression import operand
from brickc.ir.formula import formula
from brickc.ir.graph import Graph
from brickc.ir.initializers import constant
from brickc.ir.origin import Origin
from brickc.ir.types import TensorType
from brickc.ir.value import Value

SCALAR = TensorType(DType.F64)
F1, F2, F3 = (sp.Function(f"f{k}") for k in (1, 2, 3))
W1, W2, W3, X, T = (sp.Symbol(n, real=True) for n in ("w1", "w2", "w3", "x", "t"))
Y1 = F1(W1, X)
Y2 = F2(W2, Y1)
Y3 = F3(W3, Y2)


@pytest.fixture(params=["by hand", "square_loss"])
def graph(request: pytest.FixtureRequest) -> Graph:
    graph = Graph("lecture")
    builder = Builder(graph)
    x, t = (builder.add(Input(n, SCALAR)) for n in "xt")
    w1, w2, w3 = (builder.add(Parameter(f"w{k}", SCALAR, constant(0))) for k in (1, 2, 3))
    y: Value = x
    for function, w in ((F1, w1), (F2, w2), (F3, w3)):
        y = y.apply(Map(function(operand(0), operand(1)), 2), w, y)
    loss = square_loss(y, t) if request.param == "square_loss" else mul(square(sub(y, t)), 0.5)
    assert isinstance(loss, GraphValue)
    assert isinstance(y, GraphValue)
    graph.outputs = {"y": y.id, "E": loss.id}
    return graph


def test_the_slide(graph: Graph) -> None:
    assert formula(graph, graph.outputs["y"]) == Y3
    result, gradients = differentiate(graph, "E")
    assert formula(result, result.outputs["E"]) == (Y3 - T) ** 2 / 2
    by = {name: formula(result, gradients[id]) for name, id in result.parameters.items()}
    d = sp.Derivative
    assert by["w3"] == (Y3 - T) * d(Y3, W3)
    assert by["w2"] == (Y3 - T) * d(Y3, Y2) * d(Y2, W2)
    assert by["w1"] == (Y3 - T) * d(Y3, Y2) * d(Y2, Y1) * d(Y1, W1)


def test_it_is_the_derivative(graph: Graph) -> None:
    """With functions put in for f1, f2, f3 it is what SymPy derives from E directly."""
    result, gradients = differentiate(graph, "E")
    u, v = sp.symbols("u v", real=True)
    chosen = {F1: sp.Lambda((u, v), sp.sin(u * v)), F2: sp.Lambda((u, v), u * sp.exp(v)),
              F3: sp.Lambda((u, v), u**2 + v**3)}  # fmt: skip

    def insert(e: sp.Basic) -> sp.Basic:
        if isinstance(e, sp.Derivative):
            inner, variable = e.expr, e.variables[0]
            k = inner.args.index(variable)
            lambda_ = chosen[inner.func]
            partial = sp.diff(lambda_.expr, lambda_.variables[k])
            return partial.subs(list(zip(lambda_.variables, map(insert, inner.args), strict=True)))
        if isinstance(e, sp.core.function.AppliedUndef):
            return chosen[e.func](*map(insert, e.args))
        return e.func(*map(insert, e.args)) if e.args else e

    error = insert((Y3 - T) ** 2 / 2)
    for name, weight in (("w1", W1), ("w2", W2), ("w3", W3)):
        got = insert(formula(result, gradients[result.parameters[name]]))
        assert sp.simplify(got - sp.diff(error, weight)) == 0


def test_only_scalars() -> None:
    graph = Graph("vector")
    x = graph.add(Input("x", TensorType(DType.F64, (3,))), [], Origin())
    total = graph.add(ReduceSum((0,), False), [x.id], Origin())
    for id in (x.id, total.id):
        with pytest.raises(UnsupportedError, match="has no formula"):
            formula(graph, id)
