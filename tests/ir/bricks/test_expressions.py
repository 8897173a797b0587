"""Expressions: their derivatives, their numbers, and those that users bring along."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch
from ladder import Taped, backward, check_brick, derivatives

from brickc.errors import UnsupportedError, UsageError
from brickc.ir import expression
from brickc.ir.brick import Brick
from brickc.ir.bricks import activation as act
from brickc.ir.bricks import arithmetic as ar
from brickc.ir.bricks.elementwise import Map, elementwise
from brickc.ir.dtypes import DType
from brickc.ir.expression import operand
from brickc.ir.expression_text import parse_expression, print_expression
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract, Eager

x0, x1 = operand(0), operand(1)
Array = Any


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


# ── derivatives of expressions ───────────────────────────────────────────────────────────


def test_steps_have_derivative_zero_inside_expressions() -> None:
    x = np.array([-1.7, 0.4, 2.3])
    for expr, slope in [
        (x0 - sp.floor(x0), np.ones(3)),
        (x0 * sp.sign(x0), np.sign(x)),
        (sp.ceiling(x0) * x0, np.ceil(x)),
        (x0 * sp.floor(x0 * sp.sign(x0)), np.floor(np.abs(x))),
        (sp.Abs(x0) ** 3, 3 * x * np.abs(x)),
        (sp.Abs(sp.log(x0**2)), np.sign(np.log(x**2)) * 2 / x),
        (sp.floor(x0), np.zeros(3)),
    ]:
        np.testing.assert_allclose(derivatives(Map(expr, 1), [x], np.ones(3))[0], slope)


def test_third_derivatives() -> None:
    x = Taped.of(np.array([0.3, -1.2]))
    v = act.tanh(x)
    for _ in range(3):
        assert isinstance(v, Taped)
        (v,) = backward(v, Taped.of(np.ones(2)), [x])  # type: ignore[assignment]
    t = torch.tensor(x.array, requires_grad=True)
    w = torch.tanh(t)
    for _ in range(3):
        (w,) = torch.autograd.grad(w.sum(), [t], create_graph=True)
    assert isinstance(v, Taped)
    np.testing.assert_allclose(v.array, w.detach().numpy(), rtol=1e-12)


# ── a user's own expression ──────────────────────────────────────────────────────────────

w, x = sp.symbols("w x")


def test_an_expression_of_ones_own() -> None:
    values = [Taped.of(normal(3, 4)), Taped.of(normal(4, seed=1))]
    expr = w * sp.tanh(x) + sp.exp(-(w**2))
    found = elementwise(expr, *values, symbols=(x, w))
    assert isinstance(found, Taped)
    xs, ws = values[0].array, values[1].array
    np.testing.assert_allclose(found.array, ws * np.tanh(xs) + np.exp(-(ws**2)), rtol=1e-14)
    assert isinstance(found.brick, Map)
    check_brick(found.brick, [xs, ws], lambda x, w: w * torch.tanh(x) + torch.exp(-(w**2)))


def test_operands_by_the_names_of_symbols() -> None:
    a, b = Eager.of(np.array([6.0]), {}), Eager.of(np.array([2.0]), {})
    for expr in (w / x, x0 / x1):
        found = elementwise(expr, a, b)
        assert isinstance(found, Eager)
        assert found.array == 3.0
    found = elementwise(x / w, a, b, symbols=(x, w))
    assert isinstance(found, Eager)
    assert found.array == 3.0


def test_maximum_of_an_expression() -> None:
    a = np.array([-1.0, 0.0, 2.0])
    found = elementwise(sp.Max(x, 0) + sp.Min(x, 1, 5), Taped.of(a))
    assert isinstance(found, Taped)
    np.testing.assert_array_equal(found.array, np.maximum(a, 0) + np.minimum(a, 1))


def test_operands_that_the_expression_does_not_use_still_broadcast() -> None:
    a, b = Eager.of(np.ones((2, 1)), {}), Eager.of(np.ones(3), {})
    assert elementwise(2 * x, a, b, symbols=(x, w)).shape == (2, 3)
    assert elementwise(x, a, b, symbols=(x, w)).shape == (2, 3)
    assert elementwise(x, a) is a
    found = elementwise(sp.Integer(3), a, symbols=(x,))
    assert isinstance(found, Eager)
    np.testing.assert_array_equal(found.array, np.full((2, 1), 3.0))


def test_floats_of_many_digits_become_double() -> None:
    found = elementwise(x * sp.Float("0.1", 40), Taped.of(np.ones(1)))
    assert isinstance(found, Taped)
    assert found.brick == Map(x0 * sp.Float(0.1), 1)


@pytest.mark.parametrize(("expr", "count", "symbols"), [
    (w * x, 1, None), (x, 2, None), (w * x, 2, (x,)), (w * x, 2, (x, x)), (x, 0, None),
    (w * x, 2, (x, sp.Symbol("z"))),
])  # fmt: skip
def test_symbols_and_operands_that_do_not_go_together(expr: Any, count: int, symbols: Any) -> None:
    operands = [Eager.of(np.ones(2), {})] * count
    with pytest.raises(UsageError):
        elementwise(expr, *operands, symbols=symbols)


@pytest.mark.parametrize("expr", [
    sp.gamma(x), sp.Heaviside(x), sp.I * x, sp.Piecewise((x, x > 0)), sp.Integral(x, (x, 0, 1)),
    sp.Derivative(sp.Function("f")(x), x), sp.zoo * x, sp.Sum(x, (x, 0, 3)),
], ids=str)  # fmt: skip
def test_expressions_that_brickc_does_not_have(expr: Any) -> None:
    with pytest.raises((UnsupportedError, UsageError)):
        elementwise(expr, Eager.of(np.ones(2), {}), symbols=(x,))


def test_an_unspecified_function_is_differentiated_but_not_evaluated() -> None:
    """The general block y = f1(w, x): what a chain rule on paper needs."""
    f1 = sp.Function("f1")
    scalar = Abstract(TensorType(DType.F64, ()))
    y = elementwise(f1(w, x), scalar, scalar, symbols=(w, x))
    assert y.type == scalar.type
    brick = Map(f1(x0, x1), 2)
    partials = brick.partials()
    assert partials == (sp.Derivative(f1(x0, x1), x0), sp.Derivative(f1(x0, x1), x1))
    for p in partials:
        assert p is not None
        assert parse_expression(print_expression(p)) == p
    with pytest.raises(UnsupportedError, match="f1"):
        brick.evaluate([np.ones(()), np.ones(())], {})
    with pytest.raises(UnsupportedError, match="Derivative"):
        Map(partials[0], 2).evaluate([np.ones(()), np.ones(())], {})


class Recorder(Abstract):
    """A value that notes which bricks are applied."""

    notes: list[Any] = []  # noqa: RUF012 - cleared by the test

    def apply(self, brick: Brick, *operands: Any) -> Recorder:
        Recorder.notes.append(brick)
        return Recorder(brick.infer_type([o.type for o in operands]))


def test_unspecified_functions_of_something_get_nodes_of_their_own() -> None:
    """f2(w·f1(x)) as three blocks, so that each derivative is that of a function of symbols."""
    f1, f2 = sp.Function("f1"), sp.Function("f2")
    scalar = Recorder(TensorType(DType.F64, ()))
    Recorder.notes.clear()
    elementwise(2 * f2(w * f1(x)), scalar, scalar, symbols=(w, x))
    assert Recorder.notes == [Map(x0 * f1(x1), 2), Map(f2(x0), 1), Map(2 * x0, 1)]
    Recorder.notes.clear()
    elementwise(f1(x, x), scalar)
    assert Recorder.notes == [Map(f1(x0, x1), 2)]


# ── numbers of expressions ───────────────────────────────────────────────────────────────


def test_numbers_are_exact() -> None:
    assert expression.number(0.1) == sp.Float(0.1)
    assert expression.number(0.1)._prec == 53
    assert expression.number(2.0) is sp.Integer(2)
    assert expression.number(-3.0) == -3
    assert float(expression.number(1e300)) == 1e300
    assert ar.Power(0.5).expression() == sp.sqrt(x0)
    assert float(ar.Power(0.1).expression().exp) == 0.1


def test_the_functions_that_sympy_lacks() -> None:
    pairs: list[tuple[Any, Any]] = [
        (expression.log1p, sp.log(1 + x0)), (expression.expm1, sp.exp(x0) - 1),
        (expression.logistic, 1 / (1 + sp.exp(-x0))), (expression.softplus, sp.log(1 + sp.exp(x0))),
    ]  # fmt: skip
    for f, theirs in pairs:
        assert float(f(sp.Rational(1, 3))) == pytest.approx(
            float(theirs.subs(x0, sp.Rational(1, 3)))
        )
        difference = sp.diff(f(x0), x0) - sp.diff(theirs, x0)
        for value in (-0.7, 0.2, 1.9):
            assert float(difference.subs(x0, value)) == pytest.approx(0, abs=1e-12)
