"""Every elementwise brick against torch, and the conventions at its kinks, exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp
import torch
from ladder import check_brick, derivatives
from torch.nn import functional

from brickc.errors import DtypeError, ShapeError, UsageError
from brickc.ir.brick import Brick
from brickc.ir.bricks import CATALOGUE
from brickc.ir.bricks import activation as act
from brickc.ir.bricks import arithmetic as ar
from brickc.ir.bricks.elementwise import Elementwise, Map, broadcast_shapes
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.expression import Y, operand
from brickc.ir.expression_text import parse_expression, print_expression
from brickc.ir.types import Shape, TensorType
from brickc.ir.value import Abstract, Eager, Value

x0, x1 = operand(0), operand(1)
Array = Any


def label(value: object) -> str:
    return str(value) if isinstance(value, Brick) else ""


def normal(*shape: int, seed: int = 0) -> Array:
    """Normal numbers that keep 0.05 away from 0 and from ±1, where the kinks are."""
    a = np.random.default_rng(seed).normal(size=shape)
    for kink in (-1.0, 0.0, 1.0):
        a = np.where(np.abs(a - kink) < 0.05, a + 0.1, a)
    return a


def positive(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(0.3, 3.0, shape)


def bools(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(shape) < 0.5


UNARY: list[tuple[Brick, Callable[..., Any], Callable[..., Array]]] = [
    (ar.Neg(), torch.neg, normal),
    (ar.Exp(), torch.exp, normal),
    (ar.Expm1(), torch.expm1, normal),
    (ar.Log(), torch.log, positive),
    (ar.Log1p(), torch.log1p, positive),
    (ar.Sqrt(), torch.sqrt, positive),
    (ar.Abs(), torch.abs, normal),
    (ar.Sign(), torch.sign, normal),
    (ar.Square(), torch.square, normal),
    (ar.Reciprocal(), torch.reciprocal, normal),
    (ar.Power(3.0), lambda x: x**3, normal),
    (ar.Power(1.0), lambda x: x * 1.0, normal),
    (ar.Power(0.0), lambda x: x**0.0, normal),
    (ar.Power(-2.0), lambda x: x**-2, normal),
    (ar.Power(0.5), lambda x: x**0.5, positive),
    (ar.Power(-0.5), lambda x: x**-0.5, positive),
    (ar.Power(0.75), lambda x: x**0.75, positive),
    (ar.Power(-0.75), lambda x: x**-0.75, positive),
    (ar.Power(1.7), lambda x: x**1.7, positive),
    (ar.Floor(), torch.floor, normal),
    (ar.Ceil(), torch.ceil, normal),
    (ar.Sin(), torch.sin, normal),
    (ar.Cos(), torch.cos, normal),
    (ar.Erf(), torch.erf, normal),
    (ar.Clip(-1.0, 1.0), lambda x: torch.clamp(x, -1, 1), normal),
    (ar.Clip(None, 1.0), lambda x: torch.clamp(x, max=1), normal),
    (ar.Clip(-1.0, None), lambda x: torch.clamp(x, min=-1), normal),
    (ar.Clip(-math.inf, 1.0), lambda x: torch.clamp(x, max=1), normal),
    (act.Tanh(), torch.tanh, normal),
    (act.Logistic(), torch.sigmoid, normal),
    (act.ReLU(), torch.relu, normal),
    (act.LeakyReLU(0.1), lambda x: functional.leaky_relu(x, 0.1), normal),
    (act.LeakyReLU(0.0), lambda x: functional.leaky_relu(x, 0.0), normal),
    (act.LeakyReLU(-0.3), lambda x: functional.leaky_relu(x, -0.3), normal),
    (act.ELU(1.0), functional.elu, normal),
    (act.ELU(0.3), lambda x: functional.elu(x, 0.3), normal),
    (act.ELU(-0.3), lambda x: functional.elu(x, -0.3), normal),
    (act.GELU(False), functional.gelu, normal),
    (act.GELU(True), lambda x: functional.gelu(x, approximate="tanh"), normal),
    (act.SiLU(), functional.silu, normal),
    (act.Softplus(), lambda x: functional.softplus(x, threshold=1000), normal),
]

BINARY: list[tuple[Brick, Callable[..., Any], Callable[..., Array]]] = [
    (ar.Add(), torch.add, normal),
    (ar.Sub(), torch.sub, normal),
    (ar.Mul(), torch.mul, normal),
    (ar.Div(), torch.div, normal),
    (ar.Pow(), torch.pow, positive),
    (ar.Maximum(), torch.maximum, normal),
    (ar.Minimum(), torch.minimum, normal),
    (act.PReLU(), lambda x, w: torch.where(x > 0, x, w * x), normal),
]

COMPARE: list[tuple[Brick, Callable[..., Any]]] = [
    (ar.Less(), torch.lt),
    (ar.LessEqual(), torch.le),
    (ar.Greater(), torch.gt),
    (ar.GreaterEqual(), torch.ge),
    (ar.Equal(), torch.eq),
    (ar.NotEqual(), torch.ne),
]


@pytest.mark.parametrize(("brick", "theirs", "draw"), UNARY, ids=label)
def test_unary(brick: Brick, theirs: Any, draw: Any) -> None:
    check_brick(brick, [draw(3, 5)], theirs)
    check_brick(brick, [draw()], theirs, second=False)
    assert brick.evaluate([draw(0, 3)], {}).shape == (0, 3)


@pytest.mark.parametrize(("brick", "theirs", "draw"), BINARY, ids=label)
@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((2, 3, 4), (3, 1)), ((4,), (2, 1, 4)),
                                    ((), (2, 3)), ((1, 3), (2, 1))])  # fmt: skip
def test_binary_with_broadcasting(brick: Brick, theirs: Any, draw: Any, shapes: Any) -> None:
    check_brick(brick, [draw(*shapes[0], seed=1), draw(*shapes[1], seed=2)], theirs)


@pytest.mark.parametrize(("brick", "theirs"), COMPARE, ids=label)
def test_comparisons(brick: Brick, theirs: Any) -> None:
    a, b = np.array([1.0, 2.0, 3.0, np.nan]), np.array([[2.0], [np.nan]])
    check_brick(brick, [a, b], theirs, kinks=True)
    ints = [np.array([1, 2, 3], np.int32), np.array(2, np.int32)]
    check_brick(brick, ints, theirs)
    check_brick(brick, [bools(5), bools(5, seed=1)], theirs)


def test_logic_and_choice() -> None:
    a, b = bools(3, 4), bools(4, seed=1)
    check_brick(ar.LogicalAnd(), [a, b], torch.logical_and)
    check_brick(ar.LogicalOr(), [a, b], torch.logical_or)
    check_brick(ar.LogicalNot(), [a], torch.logical_not)
    check_brick(ar.Where(), [a, normal(4), normal(2, 1, 1)], torch.where)
    check_brick(ar.Where(), [a, b, a], torch.where)
    check_brick(ar.Where(), [a, np.arange(4), np.int64(7).reshape(1)], torch.where)


def test_every_elementwise_brick_is_tested() -> None:
    tested = {type(b) for b, *_ in [*UNARY, *BINARY, *COMPARE]}
    tested |= {ar.LogicalAnd, ar.LogicalOr, ar.LogicalNot, ar.Where, Map}
    assert {c for c in CATALOGUE.values() if issubclass(c, Elementwise)} == tested


# ── kinks, ties, borders ─────────────────────────────────────────────────────────────────

KINKS: list[tuple[Brick, Callable[..., Any], list[list[float]]]] = [
    (act.ReLU(), torch.relu, [[-0.0, 0.0, 1e-300, -1e-300, 5e-324]]),
    (act.LeakyReLU(0.1), lambda x: functional.leaky_relu(x, 0.1), [[-0.0, 0.0, -2.0]]),
    (act.LeakyReLU(0.0), lambda x: functional.leaky_relu(x, 0.0), [[-0.0, 0.0, -2.0]]),
    (act.LeakyReLU(-1.0), lambda x: functional.leaky_relu(x, -1.0), [[-0.0, 0.0, -2.0, 2.0]]),
    (act.PReLU(), functional.prelu, [[-0.0, 0.0, -2.0], [0.25]]),
    (act.ELU(1.0), functional.elu, [[-0.0, 0.0, -1e-300, 800.0, -800.0]]),
    (act.ELU(2.0), lambda x: functional.elu(x, 2.0), [[-0.0, 0.0, -1e-300, 800.0, -800.0]]),
    (ar.Abs(), torch.abs, [[-0.0, 0.0, 1e-300, -1e-300]]),
    (ar.Clip(-1.0, 2.0), lambda x: torch.clamp(x, -1, 2), [[-1.0, 2.0, -1.1, 2.1, 0.0]]),
    (ar.Clip(-1.0, None), lambda x: torch.clamp(x, min=-1), [[-1.0, -1.1, 0.0]]),
    (ar.Clip(None, 2.0), lambda x: torch.clamp(x, max=2), [[2.0, 2.1, 0.0]]),
    (ar.Clip(1.0, 1.0), lambda x: torch.clamp(x, 1, 1), [[0.0, 1.0, 2.0]]),
    (ar.Maximum(), torch.maximum, [[0.0, 1.0, 2.0, -0.0], [0.0, 2.0, 1.0, 0.0]]),
    (ar.Minimum(), torch.minimum, [[0.0, 1.0, 2.0, -0.0], [0.0, 2.0, 1.0, 0.0]]),
    (ar.Sqrt(), torch.sqrt, [[0.0, 4.0]]),
    (ar.Power(2.0), lambda x: x**2, [[0.0, -0.0]]),
    (ar.Power(1.5), lambda x: x**1.5, [[0.0, 1.0]]),
    (ar.Pow(), torch.pow, [[0.0, 0.0, 0.0, 0.0, -2.0, -2.0], [0.0, 1.0, 2.5, 0.5, 2.0, 0.0]]),
]  # fmt: skip


@pytest.mark.parametrize(("brick", "theirs", "values"), KINKS, ids=label)
def test_at_kinks_bit_for_bit(brick: Brick, theirs: Any, values: Any) -> None:
    arrays = [np.array(v) for v in values]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    expected = theirs(*tensors)
    value = brick.evaluate(arrays, {})
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-15)
    ones = np.ones(value.shape)
    grads = torch.autograd.grad(expected, tensors, torch.from_numpy(ones))
    for ours, wanted in zip(derivatives(brick, arrays, ones), grads, strict=True):
        np.testing.assert_allclose(ours, wanted.numpy(), rtol=1e-15, equal_nan=True)


def test_relu_is_zero_at_zero_and_its_derivative_is_a_step() -> None:
    x = np.array([-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(derivatives(act.ReLU(), [x], np.full(3, 3.0))[0], [0, 0, 3])


@pytest.mark.parametrize("brick", [act.ReLU(), ar.Clip(0.0, 6.0), ar.Clip(0.0, None), act.ELU(1.0),
                                   act.LeakyReLU(0.1), ar.Abs(), ar.Sign(), act.GELU(True)],
                         ids=str)  # fmt: skip
def test_nan_stays_nan(brick: Brick) -> None:
    assert np.isnan(brick.evaluate([np.array([np.nan])], {})).all()


def test_nan_wins_maximum_and_minimum() -> None:
    for brick in (ar.Maximum(), ar.Minimum()):
        for pair in ([np.nan, 1.0], [1.0, np.nan]):
            assert np.isnan(brick.evaluate([np.array(v) for v in pair], {}))


def test_what_is_not_taken_gets_an_exact_zero() -> None:
    condition = np.array([True, False])
    dy = np.array([2.0, np.inf])
    _, dx, _ = derivatives(ar.Where(), [condition, np.zeros(2), np.zeros(2)], dy)
    np.testing.assert_array_equal(dx, [2.0, 0.0])
    (dx,) = derivatives(act.ReLU(), [np.array([1.0, -1.0])], dy)
    np.testing.assert_array_equal(dx, [2.0, 0.0])


# ── digits ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("brick", "theirs"), [
    (act.Logistic(), torch.sigmoid), (act.SiLU(), functional.silu),
    (act.Softplus(), lambda x: functional.softplus(x, threshold=100)),
    (act.Tanh(), torch.tanh), (act.ELU(1.0), functional.elu),
    (ar.Expm1(), torch.expm1), (ar.Log1p(), torch.log1p), (ar.Erf(), torch.erf),
], ids=label)  # fmt: skip
def test_far_out_and_close_to_zero(brick: Brick, theirs: Any, dtype: Any) -> None:
    x = np.array([1e-30, -1e-20, 1e-10, -1e-6, 0.0, 20.0, 88.0, 1000.0, -1000.0, -88.0], dtype)
    if isinstance(brick, ar.Log1p):
        x = np.abs(x)
    with np.errstate(all="raise"):
        found = brick.evaluate([x], {})
    tensor = torch.tensor(x, requires_grad=True)
    expected = theirs(tensor)
    rtol = 1e-6 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=rtol, atol=1e-38)
    (gradient,) = torch.autograd.grad(expected.sum(), [tensor])
    (ours,) = derivatives(brick, [x], np.ones_like(x))
    np.testing.assert_allclose(ours, gradient.numpy(), rtol=rtol, atol=2e-7)


def test_written_out_forms_keep_their_digits() -> None:
    x = np.array([1e-12, -3e-15])
    for expr, expected in [
        (sp.log(1 + x0), np.log1p(x)),
        (sp.log(1 + x0**2), np.log1p(x**2)),
        (sp.exp(x0) - 1, np.expm1(x)),
    ]:
        np.testing.assert_allclose(Map(expr, 1).evaluate([x], {}), expected, rtol=1e-15)


def test_a_quotient_divides_once() -> None:
    a, b = np.float32(3.0).reshape(1), np.float32(49.0).reshape(1)
    assert ar.Div().evaluate([a, b], {})[0] == np.float32(3.0) / np.float32(49.0)
    tiny = np.array([1e-30], np.float32)
    _, db = derivatives(ar.Div(), [tiny, tiny], np.ones(1, np.float32))
    assert db[0] == pytest.approx(-1e30, rel=1e-6)  # the square of the divisor is 0


def test_integers() -> None:
    i = [np.array([7, -7, 49, 0], np.int32), np.array([2, 2, 49, 5], np.int32)]
    np.testing.assert_array_equal(ar.Div().evaluate(i, {}), [3, -3, 1, 0])
    big = np.array([2**62 + 1])
    np.testing.assert_array_equal(ar.Div().evaluate([big, np.array([1])], {}), big)
    for brick, expected in [(ar.Add(), [9, -5, 98, 5]), (ar.Mul(), [14, -14, 49 * 49, 0]),
                            (ar.Maximum(), [7, 2, 49, 5])]:  # fmt: skip
        check_brick(brick, i)
        np.testing.assert_array_equal(brick.evaluate(i, {}), expected)
    for unary, expected in [(ar.Abs(), [7, 7, 49, 0]), (ar.Sign(), [1, -1, 1, 0]),
                            (ar.Square(), [49, 49, 2401, 0]), (ar.Clip(0.0, 9.0), [7, 0, 9, 0]),
                            (act.ReLU(), [7, 0, 49, 0]),
                            (ar.Power(2.0), [49, 49, 2401, 0])]:  # fmt: skip
        np.testing.assert_array_equal(unary.evaluate(i[:1], {}), expected)


# ── types ────────────────────────────────────────────────────────────────────────────────

F32, F64, I32, BOOL = (TensorType(d, (3,)) for d in (DType.F32, DType.F64, DType.I32, DType.BOOL))


@pytest.mark.parametrize(("brick", "types"), [
    (ar.Add(), [F32, F64]), (ar.Add(), [F32, I32]), (ar.Less(), [F32, I32]),
    (ar.Add(), [BOOL, BOOL]), (ar.Neg(), [BOOL]), (ar.Abs(), [BOOL]),
    (ar.Exp(), [I32]), (ar.Exp(), [BOOL]), (act.Tanh(), [I32]), (ar.Sqrt(), [I32]),
    (ar.Power(0.5), [I32]), (ar.Clip(0.5, None), [I32]), (act.LeakyReLU(0.1), [I32]),
    (ar.Pow(), [I32, I32]), (ar.LogicalAnd(), [BOOL, F32]), (ar.LogicalNot(), [I32]),
    (ar.Where(), [F32, F32, F32]), (ar.Where(), [BOOL, F32, I32]),
    (Map(x0 * sp.pi, 1), [I32]), (Map(x0 / 2 + x0, 1), [I32]),
], ids=str)  # fmt: skip
def test_dtypes_that_do_not_fit(brick: Brick, types: Any) -> None:
    with pytest.raises(DtypeError, match="expected"):
        brick.infer_type(types)


def test_results_of_dtypes() -> None:
    assert ar.Less().infer_type([F32, F32]).dtype is DType.BOOL
    assert ar.Mul().infer_type([BOOL, F32]).dtype is DType.F32
    assert ar.Where().infer_type([BOOL, I32, I32]).dtype is DType.I32
    half = TensorType(DType.F16, (3,))
    assert ar.Exp().infer_type([half]).dtype is DType.F16
    assert ar.Exp().evaluate([np.ones(3, np.float16)], {}).dtype == np.float16


def test_shapes_that_do_not_broadcast() -> None:
    n, m = Dim("N", 1, 8), Dim("M", 1, 8)
    assert broadcast_shapes([(n, 3), (1, 3), (3,)]) == (n, 3)
    assert broadcast_shapes([(2 * n,), (2 * n,), ()]) == (2 * n,)
    pairs: list[list[Shape]] = [[(2,), (3,)], [(n,), (m,)], [(n,), (4,)], [(n,), (2 * n,)]]
    for shapes in pairs:
        with pytest.raises(ShapeError, match="do not broadcast"):
            broadcast_shapes(shapes)
    type = ar.Add().infer_type([TensorType(DType.F32, (n, 4)), TensorType(DType.F32, (4,))])
    assert str(type) == "f32[N,4]"


def test_derivatives_of_symbolic_shapes() -> None:
    n = Dim("N", 1, 8)
    x, b = (Abstract(TensorType(DType.F32, s)) for s in ((n, 4), (1, 4)))
    y = ar.mul(x, b)
    dx, db = ar.Mul().vjp([x, b], y, y)
    assert dx is not None
    assert db is not None
    assert (dx.type, db.type) == (x.type, b.type)


def test_numbers_among_operands() -> None:
    x = Eager.of(np.array([1.0, 2.0], np.float32), {})
    for value, expected in [
        (ar.add(x, 1), [2, 3]), (ar.sub(1.5, x), [0.5, -0.5]), (ar.div(x, 2.0), [0.5, 1]),
        (ar.where(ar.less(x, 1.5), x, 0.0), [1, 0]), (ar.pow(2, x), [2, 4]),
    ]:  # fmt: skip
        assert isinstance(value, Eager)
        assert value.dtype is DType.F32
        np.testing.assert_array_equal(value.array, expected)
    with pytest.raises(UsageError, match="no tensor"):
        ar.add(1.0, 2.0)
    i = Eager.of(np.array([1]), {})
    with pytest.raises(DtypeError, match="does not fit"):
        ar.mul(i, 0.5)


@pytest.mark.parametrize("make", [
    lambda: ar.Clip(2.0, 1.0), lambda: ar.Clip(math.nan, None),
    lambda: ar.Power(math.inf), lambda: ar.Power(math.nan),
])  # fmt: skip
def test_attributes_that_make_no_sense(make: Callable[[], Brick]) -> None:
    with pytest.raises(UsageError):
        make()


def test_functions_made_of_bricks() -> None:
    x = np.array([-4.0, -0.5, 0.2, 7.0])
    v = Eager.of(x, {})
    pairs: list[tuple[Value, Callable[..., Any]]] = [
        (act.relu6(v), functional.relu6), (act.hard_tanh(v), functional.hardtanh),
        (act.hard_sigmoid(v), functional.hardsigmoid),
    ]  # fmt: skip
    for found, theirs in pairs:
        assert isinstance(found, Eager)
        np.testing.assert_allclose(found.array, theirs(torch.tensor(x)).numpy(), rtol=1e-15)


def everything() -> list[Elementwise]:
    bricks = [b for b, *_ in [*UNARY, *BINARY, *COMPARE]]
    return [b for b in bricks if isinstance(b, Elementwise)] + [ar.Where(), ar.LogicalNot()]


@pytest.mark.parametrize("brick", everything(), ids=str)
def test_formulas_and_derivatives_have_a_text_form(brick: Elementwise) -> None:
    for expr in (brick.expression(), *brick.partials()):
        if expr is not None:
            assert parse_expression(print_expression(expr)) == expr
            assert not expr.has(sp.DiracDelta, sp.Derivative, sp.Subs, sp.I)


@pytest.mark.parametrize("brick", everything(), ids=str)
def test_bricks_are_values(brick: Elementwise) -> None:
    twin = type(brick)(**brick.attributes())
    assert twin == brick
    assert hash(twin) == hash(brick)
    assert type(brick).__doc__
    for word in ("Shapes:", "Dtypes:", "Grad:"):
        assert word in str(type(brick).__doc__)


def test_the_result_saves_the_operand() -> None:
    """What the passes gain: the derivative reads y, and x need not be kept."""
    for brick in (act.Tanh(), act.Logistic(), act.ReLU(), ar.Exp(), ar.Sqrt(), ar.Reciprocal(),
                  act.LeakyReLU(0.1), act.ELU(1.0)):  # fmt: skip
        (partial,) = brick.partials()
        assert partial is not None
        assert partial.has(Y)
        assert not partial.has(x0)
