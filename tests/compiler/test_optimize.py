"""What each clean-up pass does, counted in nodes; values stay what they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import sympy as sp
from graph_tools import Net, count, outputs
from hypothesis import given
from hypothesis import strategies as st

from brickc.compiler.differentiate import with_gradients
from brickc.compiler.optimize.canonicalise import canonicalise
from brickc.compiler.optimize.cse import merge_equal
from brickc.compiler.optimize.dead import drop_dead
from brickc.compiler.optimize.expand import expand
from brickc.compiler.optimize.fold import fold
from brickc.compiler.optimize.merge_views import merge_views
from brickc.compiler.optimize.simplify import drop_stop_gradients, simplify
from brickc.errors import InternalError
from brickc.ir.bricks.activation import relu, tanh
from brickc.ir.bricks.arithmetic import (
    Add,
    Mul,
    add,
    div,
    exp,
    less,
    logical_and,
    maximum,
    mul,
    neg,
    square,
    sub,
    where,
)
from brickc.ir.bricks.convert import Cast, cast, stop_gradient
from brickc.ir.bricks.elementwise import Map
from brickc.ir.bricks.loss import softmax_loss
from brickc.ir.bricks.normalization import lrn, softmax
from brickc.ir.bricks.random import dropout
from brickc.ir.bricks.reduce import ReduceMax, ReduceSum, reduce_sum
from brickc.ir.bricks.shape import (
    BroadcastTo,
    Concat,
    Pad,
    Reshape,
    Reverse,
    Slice,
    Transpose,
)
from brickc.ir.bricks.source import Constant, DimSize, Literal
from brickc.ir.builder import GraphValue
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.expression import operand
from brickc.ir.graph import Graph
from brickc.ir.types import TensorType

Build = Callable[[Net, GraphValue], Any]


def graph_of(build: Build, shape: Sequence[int] = (2, 3, 4)) -> Graph:
    net = Net()
    net.output("y", build(net, net.input("x", shape)))
    return net.graph


def put(brick: Any, *operands: GraphValue) -> GraphValue:
    return operands[0].apply(brick, *operands)


def full(net: Net, value: float, shape: Sequence[Any], dtype: DType | None = None) -> GraphValue:
    c = net.builder.add(Constant(value, dtype or net.dtype))
    return put(BroadcastTo(tuple(shape)), c) if shape else c


def check(graph: Graph, step: Callable[[Graph], Graph], rng: np.random.Generator) -> Graph:
    """The new graph, which must compute the same and be a fixed point of the pass."""
    new = step(graph)
    arrays = {
        name: rng.normal(size=tuple(graph.node(i).type.concrete({"N": 6})))
        for name, i in graph.inputs.items()
    }
    for name, value in outputs(graph, arrays).items():
        found = outputs(new, arrays)[name]
        assert found.shape == value.shape
        assert found.dtype == value.dtype
        np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-14)
    assert step(new) is new
    return new


def kinds(graph: Graph) -> list[str]:
    live = graph.live()
    return [n.brick.mnemonic for n in graph.nodes() if n.id in live]


# ── canonicalise ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "brick",
    [
        Reshape((2, 3, 4)),
        Transpose((0, 1, 2)),
        BroadcastTo((2, 3, 4)),
        Slice((0, 0, 0), (2, 3, 4), (1, 1, 1)),
        Reverse(()),
        Pad((0, 0, 0), (0, 0, 0), (0, 0, 0), 0.0),
        Cast(DType.F64),
        Concat(0),
        ReduceSum((), False),
        ReduceMax((), True),
    ],
    ids=lambda b: type(b).__name__,
)
def test_identities_are_dropped(brick: Any, rng: np.random.Generator) -> None:
    new = check(graph_of(lambda net, x: put(brick, x)), canonicalise, rng)
    assert kinds(new) == ["input"]


def test_a_sum_over_axes_of_size_one_is_a_reshape(rng: np.random.Generator) -> None:
    graph = graph_of(lambda net, x: put(ReduceSum((1,), False), x), (2, 1, 4))
    assert kinds(check(graph, canonicalise, rng)) == ["input", "reshape"]


def test_what_only_looks_like_an_identity_stays(rng: np.random.Generator) -> None:
    for brick in (
        Transpose((0, 2, 1)), Reverse((1,)), Slice((0, 0, 0), (2, 3, 4), (1, 1, 2)),
        Pad((0, 0, 0), (0, 0, 0), (0, 0, 1), 0.0),
    ):  # fmt: skip
        graph = graph_of(lambda net, x, b=brick: put(b, x), (2, 3, 4))  # type: ignore[misc]
        assert canonicalise(graph) is graph


def test_broadcasts_before_elementwise_bricks_are_dropped(rng: np.random.Generator) -> None:
    def build(net: Net, x: GraphValue) -> Any:
        b = net.input("b", (4,))
        return mul(x, put(BroadcastTo((2, 3, 4)), put(Reshape((1, 1, 4)), b)))

    assert kinds(check(graph_of(build), canonicalise, rng)) == ["input", "input", "mul"]


def test_stretching_moves_behind_elementwise_bricks(rng: np.random.Generator) -> None:
    def build(net: Net, x: GraphValue) -> Any:
        b = put(BroadcastTo((5, 4)), net.input("b", (4,)))
        return exp(neg(mul(b, b)))

    new = check(graph_of(build), canonicalise, rng)
    assert kinds(new)[-1] == "broadcast_to"
    assert all(n.type.shape == (4,) for n in new.nodes() if n.brick.mnemonic in ("mul", "exp"))


def test_operands_in_one_order(rng: np.random.Generator) -> None:
    def build(net: Net, x: GraphValue) -> Any:
        y = exp(x)
        return sub(add(x, y), add(y, x))

    graph = check(graph_of(build), canonicalise, rng)
    adds = [n.operands for n in graph.nodes() if isinstance(n.brick, Add)]
    assert adds[0] == adds[1]
    assert count(merge_equal(graph))["add"] == 1


# ── merge views ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("bricks", "expected"),
    [
        ([Reshape((6, 4)), Reshape((24,))], ["reshape"]),
        ([Reshape((6, 4)), Reshape((2, 3, 4))], []),
        ([Transpose((2, 0, 1)), Transpose((0, 2, 1))], ["transpose"]),
        ([Transpose((2, 0, 1)), Transpose((1, 2, 0))], []),
        ([BroadcastTo((5, 2, 3, 4)), BroadcastTo((7, 5, 2, 3, 4))], ["broadcast_to"]),
        ([Reshape((1, 2, 3, 4)), BroadcastTo((5, 2, 3, 4))], ["broadcast_to"]),
        ([Reverse((0, 1)), Reverse((1, 2))], ["reverse"]),
        ([Reverse((0, 1)), Reverse((0, 1))], []),
        (
            [Slice((0, 0, 1), (2, 3, 4), (1, 1, 1)), Slice((0, 1, 0), (2, 3, 3), (1, 1, 2))],
            ["slice"],
        ),
        (
            [Slice((0, 0, 0), (2, 3, 4), (1, 2, 2)), Slice((1, 1, 1), (2, 2, 2), (1, 1, 1))],
            ["slice"],
        ),
        ([Cast(DType.F32), Cast(DType.F64)], ["cast", "cast"]),  # f32 rounds
        ([Cast(DType.I32), Cast(DType.I64)], ["cast", "cast"]),
    ],
)
def test_chains_of_views(bricks: list[Any], expected: list[str], rng: np.random.Generator) -> None:
    def build(net: Net, x: GraphValue) -> Any:
        for brick in bricks:
            x = put(brick, x)
        return x

    assert kinds(check(graph_of(build), merge_views, rng)) == ["input", *expected]


def test_a_cast_over_a_wider_type_is_dropped(rng: np.random.Generator) -> None:
    def build(net: Net, x: GraphValue) -> Any:
        small = put(Cast(DType.F32), x)
        return put(Cast(DType.F32), put(Cast(DType.F64), small))

    assert kinds(check(graph_of(build), merge_views, rng)) == ["input", "cast"]


@given(st.data())
def test_slices_of_slices(data: st.DataObject) -> None:
    def cut(size: int) -> Slice:
        start = data.draw(st.integers(0, size - 1))
        stop = data.draw(st.integers(start + 1, size))
        return Slice((start,), (stop,), (data.draw(st.integers(1, 4)),))

    net = Net()
    x = net.input("x", (23,))
    first = put(cut(23), x)
    size = first.shape[0]
    assert isinstance(size, int)
    second = put(cut(size), first)
    net.output("y", second)
    new = merge_views(net.graph)
    assert len([k for k in kinds(new) if k == "slice"]) <= 1
    array = np.arange(23.0)
    np.testing.assert_array_equal(
        outputs(new, {"x": array})["y"], outputs(net.graph, {"x": array})["y"]
    )


# ── fold ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "build",
    [
        lambda net, x: add(x, 0.0),
        lambda net, x: sub(x, 0.0),
        lambda net, x: mul(x, 1.0),
        lambda net, x: div(x, 1.0),
        lambda net, x: mul(full(net, 1.0, (2, 3, 4)), x),
        lambda net, x: add(x, full(net, 0.0, (1, 3, 1))),
        lambda net, x: where(less(full(net, 1.0, ()), full(net, 2.0, ())), x, exp(x)),
        lambda net, x: maximum(x, x),
    ],
)
def test_arithmetic_that_does_nothing(build: Build, rng: np.random.Generator) -> None:
    new = simplify(check(graph_of(build), fold_twice, rng))
    assert kinds(new) == ["input"]


def fold_twice(graph: Graph) -> Graph:
    return fold(fold(graph))


def test_times_zero_is_zero_of_that_shape(rng: np.random.Generator) -> None:
    new = check(graph_of(lambda net, x: mul(x, 0.0)), fold, rng)
    assert kinds(new) == ["constant", "broadcast_to"]


def test_a_number_joins_the_expression(rng: np.random.Generator) -> None:
    new = check(graph_of(lambda net, x: add(mul(x, 0.1), 2.0)), fold, rng)
    bricks = [n.brick for n in new.nodes() if isinstance(n.brick, Map)]
    x0 = operand(0)
    # two nodes stay two: fusing them is another pass's business
    assert bricks == [Map(x0 * sp.Float(0.1), 1), Map(x0 + 2, 1)]
    assert float(bricks[0].expr.args[0]) == 0.1


def test_a_stretched_number_that_gives_the_shape(rng: np.random.Generator) -> None:
    new = check(graph_of(lambda net, x: mul(x, full(net, 3.0, (5, 4))), (4,)), fold, rng)
    assert kinds(new) == ["input", "map", "broadcast_to"]


def test_constants_are_computed(rng: np.random.Generator) -> None:
    def build(net: Net, x: GraphValue) -> Any:
        return exp(add(full(net, 1.0, (3,)), full(net, 2.0, ())))

    graph = simplify(check(graph_of(build), fold, rng))
    assert kinds(graph) == ["constant", "broadcast_to"]
    (value,) = [n.brick.value for n in graph.nodes() if isinstance(n.brick, Constant)]
    assert value == float(np.exp(3.0))


def test_constants_in_their_own_arithmetic() -> None:
    net = Net(DType.F32)
    a, b = full(net, 16777216.0, ()), full(net, 1.0, ())
    net.output("y", add(a, b))
    (node,) = drop_dead(fold(net.graph)).nodes()
    assert node.brick == Constant(16777216.0, DType.F32)  # not ...217, which f32 has not


def test_integers_are_not_divided_as_fractions(rng: np.random.Generator) -> None:
    net = Net()
    x = net.input("x", (3,), DType.I32)
    net.output("y", div(x, 2))
    net.output("z", mul(add(x, 1), 3))
    new = fold(net.graph)
    assert count(new)["div"] == 1
    assert count(new)["map"] == 2
    arrays = {"x": np.array([5, 6, -7])}
    for name, value in outputs(net.graph, arrays).items():
        np.testing.assert_array_equal(outputs(new, arrays)[name], value)


def test_a_choice_between_numbers_keeps_its_dtype(rng: np.random.Generator) -> None:
    def build(net: Net, x: GraphValue) -> Any:
        return where(less(x, 0.0), full(net, 1.5, ()), full(net, -2.0, ()))

    check(graph_of(build), fold, rng)


def test_a_conjunction_with_true_is_its_operand() -> None:
    net = Net()
    x = net.input("x", (3,), DType.BOOL)
    net.output("y", logical_and(x, full(net, True, (3,), DType.BOOL)))
    net.output("z", logical_and(x, full(net, False, (), DType.BOOL)))
    new = simplify(net.graph)
    assert new.outputs["y"] == x.id
    assert new.node(new.outputs["z"]).brick == BroadcastTo((3,))


def test_a_number_made_of_truth_values_alone_stays_a_choice() -> None:
    net = Net()
    x = net.input("x", (3,), DType.BOOL)
    net.output("y", where(x, full(net, 1.0, ()), full(net, 0.0, ())))
    new = simplify(net.graph)
    arrays = {"x": np.array([True, False, True])}
    np.testing.assert_array_equal(outputs(new, arrays)["y"], [1.0, 0.0, 1.0])


def test_what_is_not_finite_is_left_alone(rng: np.random.Generator) -> None:
    def build(net: Net, x: GraphValue) -> Any:
        return add(maximum(x, full(net, -np.inf, ())), div(full(net, 1.0, ()), 2.0))

    check(graph_of(build), fold, rng)
    graph = graph_of(lambda net, x: div(full(net, 1.0, ()), full(net, 0.0, ())))
    assert fold(graph) is graph


@pytest.mark.parametrize(
    ("brick", "value"),
    [
        (Reshape((6,)), 2.0),
        (Transpose((1, 0)), 2.0),
        (Slice((0, 0), (1, 3), (1, 2)), 2.0),
        (Reverse((0,)), 2.0),
        (Cast(DType.I32), 2),
        (Cast(DType.BOOL), True),
        (ReduceSum((0,), False), 4.0),
        (ReduceMax((0, 1), False), 2.0),
        (Pad((1, 0), (0, 0), (0, 1), 2.0), 2.0),
    ],
    ids=lambda b: type(b).__name__,
)
def test_constants_go_through_what_rearranges(
    brick: Any, value: object, rng: np.random.Generator
) -> None:
    new = drop_dead(check(graph_of(lambda net, x: put(brick, full(net, 2.0, (2, 3)))), fold, rng))
    constants = [n.brick for n in new.nodes() if isinstance(n.brick, Constant)]
    assert [c.value for c in constants] == [value]
    assert set(kinds(new)) <= {"constant", "broadcast_to"}


def test_padding_with_another_value_stays() -> None:
    graph = graph_of(lambda net, x: put(Pad((1,), (0,), (0,), 0.0), full(net, 2.0, (3,))))
    assert fold(graph) is graph


def test_the_size_of_a_dim_that_is_known() -> None:
    net = Net()
    net.output("y", net.builder.add(DimSize(7, DType.F64)))
    net.output("n", net.builder.add(DimSize(Dim("N", 1, 9), DType.F64)))
    assert sorted(kinds(fold(net.graph))) == ["constant", "dim_size"]


def test_literals_of_equal_elements() -> None:
    net = Net()
    for name, array in (("y", np.full((2, 3), 0.5)), ("z", np.array([0.0, -0.0]))):
        type = TensorType(DType.F64, array.shape)
        net.output(name, net.builder.add(Literal(array.tobytes(), type)))
    assert sorted(kinds(fold(net.graph))) == ["broadcast_to", "constant", "literal"]


# ── common subexpressions, dead nodes, gradient stops, expansion ─────────────────────────


def test_equal_nodes_become_the_earliest(rng: np.random.Generator) -> None:
    net = Net()
    x = net.input("x", (3,))
    net.at(5, "first")
    a = exp(x)
    net.at(6, "second")
    b = exp(x)
    net.output("y", add(tanh(a), tanh(b)))
    new = check(net.graph, merge_equal, rng)
    assert kinds(new) == ["input", "exp", "tanh", "add"]
    (node,) = [n for n in new.nodes() if n.brick.mnemonic == "exp"]
    assert isinstance(a, GraphValue)
    assert node.id == a.id
    assert node.origin.layer == "first"


def test_leaves_and_signed_zeros_are_never_merged() -> None:
    net = Net()
    a, b = net.parameter("a", (3,)), net.parameter("b", (3,))
    net.output("y", add(a, b))
    net.output("p", full(net, 0.0, ()))
    net.output("m", full(net, -0.0, ()))
    assert merge_equal(net.graph) is net.graph


def test_dead_nodes_go_and_leaves_stay() -> None:
    net = Net()
    x, w = net.input("x", (3,)), net.parameter("w", (3,))
    exp(add(x, w))
    net.output("y", neg(x))
    new = drop_dead(net.graph)
    assert [n.brick.mnemonic for n in new.nodes()] == ["input", "parameter", "neg"]
    assert drop_dead(new) is new


def test_gradient_stops_vanish(rng: np.random.Generator) -> None:
    graph = graph_of(lambda net, x: neg(stop_gradient(x)))
    assert kinds(check(graph, drop_stop_gradients, rng)) == ["input", "neg"]


def composite() -> Net:
    net = Net()
    x = net.input("x", (2, 5, 3, 3))
    net.at(3, "norm")
    net.output("y", lrn(softmax(x, 1), 3, 1e-2, 0.75, 1.0))
    return net


def test_expansion_keeps_the_origin(rng: np.random.Generator) -> None:
    from brickc.ir.brick import Composite

    graph = composite().graph
    new = check(graph, lambda g: expand(g, only_without_vjp=False), rng)
    assert not any(isinstance(n.brick, Composite) for n in new.nodes())
    notes = {n.origin.note for n in new.nodes() if n.brick.mnemonic != "input"}
    assert {str(n.origin)[:16] for n in new.nodes() if n.operands} == {'test.py:3 "norm"'}
    assert "softmax" in notes


def test_expansion_leaves_what_has_a_derivative(rng: np.random.Generator) -> None:
    from brickc.compiler.optimize.expand import has_own_vjp
    from brickc.ir.brick import Composite

    graph = composite().graph
    new = expand(graph, only_without_vjp=True)
    left = [n.brick for n in new.nodes() if isinstance(n.brick, Composite)]
    assert all(has_own_vjp(b) for b in left)


def test_an_undecided_brick_is_our_bug() -> None:
    net = Net()
    seed = net.builder.add(Constant(0, DType.I64))
    net.output("y", dropout(net.input("x", (3,)), seed, seed, 0.5, 0))
    with pytest.raises(InternalError, match="undecided between training and inference"):
        expand(net.graph, only_without_vjp=False)


# ── simplify ─────────────────────────────────────────────────────────────────────────────


def test_simplify_keeps_numbers_of_nodes(rng: np.random.Generator) -> None:
    graph = graph_of(lambda net, x: tanh(add(mul(x, 1.0), 2.0)))
    new = check(graph, simplify, rng)
    assert kinds(new) == ["input", "map", "tanh"]
    assert [n.id for n in new.nodes()] == [0, 4, 5]


def test_updates_follow(rng: np.random.Generator) -> None:
    net = Net()
    w = net.parameter("w", (3,))
    net.graph.updates[w.id] = mul(w, 1.0).id  # type: ignore[attr-defined]
    new = simplify(net.graph)
    assert new.updates == {w.id: w.id}


def test_a_gradient_after_simplification(rng: np.random.Generator) -> None:
    net = Net()
    x, labels = net.input("x", (6, 4)), net.input("labels", (6,), DType.I32, limit=4)
    w = net.parameter("w", (6, 4))
    y = relu(add(mul(x, w), 0.5))
    net.output("loss", softmax_loss(y, labels))
    graph = with_gradients(net.graph)
    new = simplify(expand(graph, only_without_vjp=False))
    assert len(new.live()) < len(graph.live()) + 12
    arrays = {
        "x": rng.normal(size=(6, 4)), "w": rng.normal(size=(6, 4)),
        "labels": rng.integers(0, 4, 6),
    }  # fmt: skip
    expected = outputs(graph, arrays)
    for name, value in outputs(new, arrays).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-10, atol=1e-12)


_UNARY: list[Callable[[Any], Any]] = [tanh, neg, square, relu, exp, lambda v: cast(v, DType.F64)]
_BINARY: list[Callable[[Any, Any], Any]] = [add, sub, mul, maximum]


@given(st.data())
def test_random_graphs_keep_their_values(data: st.DataObject) -> None:
    """Elementwise bricks, views, sums and constants in any combination, shapes of rank 2."""
    net = Net()
    rows, columns = 2, 3
    pool: list[Any] = [
        net.input("x", (rows, columns)), full(net, 1.0, (rows, columns)), full(net, 0.0, ()),
        full(net, -0.5, (columns,)), net.input("b", (columns,)),
    ]  # fmt: skip
    pick = st.sampled_from
    for _ in range(data.draw(st.integers(1, 14))):
        a = data.draw(pick(pool))
        match data.draw(st.integers(0, 6)):
            case 0 | 1:
                y = data.draw(pick(_BINARY))(a, data.draw(pick(pool)))
            case 2:
                y = data.draw(pick(_UNARY))(tanh(a))
            case 3:
                y = put(BroadcastTo((rows, columns)), a)
            case 4:
                two = put(BroadcastTo((rows, columns)), a)
                y = put(Transpose((1, 0)), put(Reshape((columns, rows)), put(Reverse((0,)), two)))
            case 5:
                two = put(BroadcastTo((rows, columns)), a)
                y = put(Reshape((columns,)), put(Slice((1, 0), (2, columns), (1, 1)), two))
            case _:
                y = reduce_sum(a, tuple(range(a.rank))[:1], False)
        pool.append(y)
    net.output("y", pool[-1])
    net.output("z", pool[-2])
    new = simplify(net.graph)
    assert simplify(new) is new
    assert len(new) <= len(net.graph)
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(rows, columns)), "b": rng.normal(size=columns)}
    expected = outputs(net.graph, arrays)
    for name, value in outputs(new, arrays).items():
        assert value.shape == expected[name].shape
        np.testing.assert_allclose(value, expected[name], rtol=1e-9, atol=1e-9)


def test_bricks_are_what_they_were() -> None:
    """A mul of two different values is nothing to simplify."""
    graph = graph_of(lambda net, x: mul(x, net.input("b", (4,))))
    assert simplify(graph) is graph
    assert any(isinstance(n.brick, Mul) for n in graph.nodes())
