"""What bricks share with their neighbours: views, several results, memory written in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
from conformance import TARGETS, check
from graph_tools import Net
from hypothesis import given
from hypothesis import strategies as st

from brickc.ir.bricks import arithmetic as a
from brickc.ir.bricks.activation import Logistic, ReLU, Tanh
from brickc.ir.bricks.contract import Contract
from brickc.ir.bricks.convert import Cast
from brickc.ir.bricks.convolution import (
    Convolution,
    ConvolutionInputGrad,
    ConvolutionWeightGrad,
)
from brickc.ir.bricks.elementwise import Map
from brickc.ir.bricks.indexing import Gather, ScatterAdd
from brickc.ir.bricks.reduce import ArgMax, ReduceMax, ReduceSum
from brickc.ir.bricks.shape import (
    BroadcastTo,
    Concat,
    Pad,
    Reshape,
    Reverse,
    Slice,
    Transpose,
)
from brickc.ir.bricks.source import Constant, DimSize
from brickc.ir.bricks.unfold import Fold, Unfold
from brickc.ir.bricks.window import WindowMax, WindowMaxScatter, WindowSum, WindowSumGrad
from brickc.ir.builder import GraphValue
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.expression import operand

pytestmark = pytest.mark.parametrize("target", TARGETS)

N = Dim("N", 1, 8)

# ── anchors that read through views ──────────────────────────────────────────────────────────

VIEWS = {
    "transposed": ((6, 5, 4, 3), (Transpose((3, 2, 1, 0)),)),
    "sliced": ((5, 6, 7, 9), (Slice((1, 1, 0, 2), (4, 5, 5, 8), (1, 1, 1, 1)),)),
    "every second": ((6, 7, 9, 12), (Slice((1, 0, 0, 0), (6, 7, 9, 12), (2, 2, 2, 2)),)),
    "reversed": ((3, 4, 5, 6), (Reverse((0, 2, 3)),)),
    "broadcast": ((4, 1, 6), (BroadcastTo((3, 4, 5, 6)),)),
    "one element": ((), (BroadcastTo((3, 4, 5, 6)),)),
    "reshaped": ((3, 20, 6), (Reshape((3, 4, 5, 6)),)),
    "reshaped, transposed": ((5, 24, 3), (Reshape((5, 4, 6, 3)), Transpose((3, 1, 0, 2)))),
    "copied by a reshape": ((6, 3, 20), (Transpose((1, 2, 0)), Reshape((3, 4, 5, 6)))),
    "windows": ((3, 4, 10), (Unfold(2, 6, 1, 1),)),
    "windows, transposed": ((3, 4, 15), (Unfold(2, 5, 2, 1), Transpose((0, 1, 3, 2)))),
    "all at once": (
        (1, 5, 9, 14),
        (
            Slice((0, 0, 1, 0), (1, 5, 9, 12), (1, 1, 2, 2)), Transpose((0, 2, 1, 3)),
            BroadcastTo((3, 4, 5, 6)), Reverse((1, 2)),
        ),
    ),
}  # fmt: skip

WINDOW = ((1, 1, 3, 2), (1, 1, 2, 1), ((0, 0), (0, 0), (1, 1), (0, 1)))
CONV = ((1, 2), ((1, 0), (1, 1)), (1, 1), 1)


def _conv_grad(x: GraphValue, net: Net) -> GraphValue:
    """x as the cotangent of a convolution of something of 7 by 12."""
    w = net.input("w", (4, 2, 2, 3))
    return x.apply(ConvolutionInputGrad(*CONV, (5, 12)), x, w)  # type: ignore[return-value]


def _scatter(x: GraphValue, net: Net) -> GraphValue:
    big = net.input("big", (3, 4, 5, 6))
    y = big.apply(WindowMax(*WINDOW), big)
    part = x.apply(Slice((0, 0, 0, 0), y.shape, (1, 1, 1, 1)), x)
    return big.apply(WindowMaxScatter(*WINDOW), big, y, part)  # type: ignore[return-value]


READERS = {
    "map": lambda x, net: x.apply(Tanh(), x),
    "sum": lambda x, net: x.apply(ReduceSum((1, 3), False), x),
    "maximum": lambda x, net: x.apply(ReduceMax((0, 2), True), x),
    "argmax": lambda x, net: x.apply(ArgMax(2, False), x),
    "product": lambda x, net: x.apply(Contract("abcd,ed->abce"), x, net.input("w", (7, 6))),
    "batched product": lambda x, net: x.apply(
        Contract("abcd,abde->abce"), x, net.input("w", (3, 4, 6, 2))
    ),
    "with itself": lambda x, net: x.apply(Contract("abcd,abed->abce"), x, x),
    "inner product": lambda x, net: x.apply(Contract("abcd,abcd->"), x, x),
    "convolution": lambda x, net: x.apply(Convolution(*CONV), x, net.input("w", (2, 4, 2, 3))),
    "input gradient": _conv_grad,
    "weight gradient": lambda x, net: x.apply(
        ConvolutionWeightGrad(*CONV, (2, 3)), x, net.input("w", (3, 2, 5, 3))
    ),
    "window sum": lambda x, net: x.apply(WindowSum(*WINDOW), x),
    "window max": lambda x, net: x.apply(WindowMax(*WINDOW), x),
    "window sum gradient": lambda x, net: x.apply(WindowSumGrad(*WINDOW, (3, 4, 9, 6)), x),
    "scatter": _scatter,
    "pad": lambda x, net: x.apply(Pad((0, 1, 0, 2), (1, 0, 0, 1), (0, 1, 0, 0), 0.5), x),
    "concat": lambda x, net: x.apply(Concat(1), x, net.input("w", (3, 2, 5, 6)), x),
    "fold": lambda x, net: x.apply(Fold(2, 14, 2, 1), x),
    "gather": lambda x, net: x.apply(Gather(1), x, net.input("i", (2,), DType.I32, 4)),
    "scatter add": lambda x, net: x.apply(ScatterAdd(0, 5), net.input("i", (3,), DType.I32, 5), x),
    "unfold": lambda x, net: x.apply(Unfold(3, 3, 2, 1), x),
}


def arrays(net: Net, rng: np.random.Generator, **dims: int) -> dict[str, Any]:
    """Values for all leaves; integers below their limit."""
    found = {}
    graph = net.graph
    for name, id in (graph.inputs | graph.parameters | graph.states).items():
        type = graph.node(id).type
        shape = type.concrete(dims)
        if type.dtype.is_float:
            found[name] = rng.standard_normal(shape).astype(type.dtype.numpy)
        elif type.dtype is DType.BOOL:
            found[name] = rng.random(shape) < 0.5
        else:
            limit = getattr(graph.node(id).brick, "limit", 0) or 5
            found[name] = rng.integers(0, limit, shape).astype(type.dtype.numpy)
    return found


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("view", VIEWS)
def test_view_as_operand(target: str, view: str, reader: str, rng: np.random.Generator) -> None:
    shape, bricks = VIEWS[view]
    net = Net()
    x: Any = net.input("x", shape)
    for brick in bricks:
        x = x.apply(brick, x)
    assert x.shape == (3, 4, 5, 6)
    net.output("y", READERS[reader](x, net))
    check(net.graph, arrays(net, rng), target=target)


# ── several results of one kernel ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [DType.F64, DType.F32], ids=str)
@pytest.mark.parametrize("size", [4, 90_000])  # one block, many blocks
def test_chain_with_many_outputs(
    target: str, dtype: DType, size: int, rng: np.random.Generator
) -> None:
    net = Net(dtype)
    x, y = net.input("x", (3, size)), net.input("y", (size,))
    t = a.add(x.apply(Tanh(), x), y)
    u = a.mul(t, t)
    v = x.apply(Logistic(), u)
    w = x.apply(ReLU(), a.sub(v, x))
    s = x.apply(ReduceSum((1,), False), w)
    for name, value in {"t": t, "u": u, "v": v, "w": w, "s": s, "x": x}.items():
        net.output(name, value)
    # the same value under another name, and a view of it
    net.output("again", t)
    net.output("turned", t.apply(Transpose((1, 0)), t))
    run = check(net.graph, arrays(net, rng), target=target, tolerance=1e-4 if size > 4 else None)
    assert len(run.function.program.kernels) <= 2


def test_dtypes_change_on_the_way(target: str, rng: np.random.Generator) -> None:
    net = Net(DType.F32)
    x, i = net.input("x", (50, 7)), net.input("i", (50, 7), DType.I32)
    wide = x.apply(Cast(DType.F64), x)
    flags = x.apply(a.Greater(), wide, i.apply(Cast(DType.F64), i))
    picked = i.apply(a.Where(), flags, i, i.apply(Cast(DType.I32), x))
    net.output("wide", a.mul(wide, wide))
    net.output("flags", flags)
    net.output("picked", picked)
    net.output("count", x.apply(ReduceSum((0,), False), x.apply(Cast(DType.F32), flags)))
    net.output("both", flags.apply(a.LogicalAnd(), flags, flags.apply(a.LogicalNot(), flags)))
    net.output("chosen", x.apply(a.Where(), flags, flags.apply(a.LogicalNot(), flags), flags))
    check(net.graph, arrays(net, rng), target=target)


@pytest.mark.parametrize("dtype", [DType.I32, DType.I64], ids=str)
@pytest.mark.parametrize("rows", [3, 60_000])
def test_integers(target: str, dtype: DType, rows: int, rng: np.random.Generator) -> None:
    net = Net()
    i, j = net.input("i", (rows, 5), dtype, 9), net.input("j", (5,), dtype, 9)
    total = a.add(a.mul(i, j), i)
    net.output("total", total)
    net.output("least", i.apply(a.Minimum(), i, j))
    net.output("sum", i.apply(ReduceSum((0,), False), total))
    net.output("most", i.apply(ReduceMax((0,), False), total))
    net.output("all", i.apply(ReduceMax((0, 1), True), i))
    check(net.graph, arrays(net, rng), target=target, exact=True)


def test_border_of_integers(target: str, rng: np.random.Generator) -> None:
    net = Net()
    i = net.input("i", (3, 4), DType.I32, 9)
    net.output("y", i.apply(Pad((1, 0), (0, 2), (0, 1), 7.0), i))
    check(net.graph, arrays(net, rng), target=target, exact=True)


def test_anchor_takes_over_what_is_added(target: str, rng: np.random.Generator) -> None:
    """The second border array may lie over the first, which is added to it: not before that."""
    net = Net()
    first, second = (x.apply(Pad((k,), (8 - k,), (0,), 0.0), x)
                     for k, x in enumerate((net.input("a", (4,)), net.input("b", (4,)))))  # fmt: skip
    net.output("sum", a.mul(a.add(first, second), second))
    net.output("later", a.add(second, second.apply(Reverse((0,)), second)))
    check(net.graph, arrays(net, rng), target=target)


def test_reduction_of_a_copied_view(target: str, rng: np.random.Generator) -> None:
    """Windows over two axes cannot be one axis by strides alone."""
    net = Net()
    x = net.input("x", (2, 3, 6, 7))
    windows = x.apply(Unfold(3, 2, 1, 2), x.apply(Unfold(2, 3, 1, 1), x))
    flat = x.apply(Reshape((2, 3, 4, 5, 6)), windows)
    net.output("most", x.apply(ReduceMax((4,), False), flat))
    check(net.graph, arrays(net, rng), target=target)


def test_nothing_is_summed(target: str, rng: np.random.Generator) -> None:
    net = Net()
    x = net.input("x", (2, 0, 4))
    net.output("total", x.apply(ReduceSum((1,), True), a.mul(x, x)))
    net.output("doubled", a.add(x, x))
    check(net.graph, arrays(net, rng), target=target)


def test_sizes_are_numbers_too(target: str, rng: np.random.Generator) -> None:
    """What depends on sizes alone is worked out once per batch, in every dtype."""
    net = Net()
    x, i = net.input("x", (N, 3)), net.input("i", (N, 3), DType.I32)
    n, k = (x.apply(DimSize(N * 2 - 1, d)) for d in (DType.F64, DType.I32))
    one = x.apply(Constant(1.0, DType.F64))
    least = x.apply(a.Maximum(), a.sub(n, one), one)
    net.output("mean", a.div(x, least))
    net.output("root", a.mul(x, a.sqrt(a.exp(a.neg(n)))))
    net.output("count", i.apply(a.Add(), i, a.mul(k, k)))
    many = n.apply(a.Greater(), n, x.apply(Constant(4.0, DType.F64)))
    net.output("picked", x.apply(a.Where(), many, x, a.neg(x)))
    net.output("number", x.apply(a.Where(), many, n, one))
    net.output("whole", n.apply(BroadcastTo((2, N)), n))
    net.output("sum", x.apply(ReduceSum((0,), False), n.apply(BroadcastTo((N, 3)), n)))
    net.output("product", x.apply(Contract("nk,kn->n"), x, n.apply(BroadcastTo((3, N)), n)))
    feeds = [arrays(net, rng, N=rows) for rows in (1, 2, 5, 8, 1)]
    check(net.graph, *feeds, target=target)


# ── NaN, infinities, signed zeros ────────────────────────────────────────────────────────────

ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -2.5, 5e-324, 1e308])


@pytest.mark.parametrize("dtype", [DType.F64, DType.F32], ids=str)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_select_is_exact(target: str, dtype: DType) -> None:
    net = Net(dtype)
    size = len(ODD)
    c = net.input("c", (size, size), DType.BOOL)
    x, y = net.input("x", (size, 1)), net.input("y", (size,))
    nothing, infinite, minus = (
        x.apply(Constant(v, dtype)) for v in (0.0, float("inf"), float("-inf"))
    )
    where = a.Where()
    net.output("both", x.apply(where, c, x, y))
    net.output("then", x.apply(where, c, x, nothing))
    net.output("other", x.apply(where, c, nothing, y))
    net.output("numbers", x.apply(where, c, infinite, minus))
    net.output("nested", x.apply(where, c, x.apply(where, x.apply(a.Less(), x, y), x, y), x))
    net.output("self", y.apply(where, x.apply(a.Equal(), y, y), y, nothing))
    net.output("turned", x.apply(where, c.apply(Transpose((1, 0)), c), y, x))
    net.output("relu", x.apply(ReLU(), y))
    net.output("most", x.apply(a.Maximum(), x, y))
    net.output("least", x.apply(a.Minimum(), x, y))
    net.output("clip", y.apply(a.Clip(-1.0, 2.0), y))
    hidden = sp.Piecewise((operand(0), operand(0) > operand(1)), (0, True))
    net.output("piecewise", x.apply(Map(hidden, 2), x, y))
    with np.errstate(all="ignore"):
        odd = ODD.astype(dtype.numpy)
        flags = np.arange(size * size).reshape(size, size) % 3 == 0
        check(net.graph, {"c": flags, "x": odd[:, None], "y": odd}, target=target, exact=True)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_maxima_of_odd_numbers(target: str) -> None:
    """A window or reduction with NaN in it is NaN; -inf is an ordinary smallest number."""
    net = Net()
    x = net.input("x", (1, 1, 6, 6))
    values = np.arange(36.0).reshape(1, 1, 6, 6)
    values[..., 0, 0], values[..., 3, 3], values[..., 5, :] = -np.inf, np.nan, -np.inf
    tiles = ((1, 1, 2, 2), (1, 1, 2, 2), ((0, 0),) * 4)
    net.output("pooled", x.apply(WindowMax(*tiles), x))
    net.output("padded", x.apply(WindowMax(*WINDOW), x))
    net.output("rows", x.apply(ReduceMax((3,), False), x))
    net.output("all", x.apply(ReduceMax((0, 1, 2, 3), False), x))
    check(net.graph, {"x": values}, target=target, exact=True)


# ── memory that is written in place ──────────────────────────────────────────────────────────


def test_update_in_place(target: str, rng: np.random.Generator) -> None:
    net = Net()
    w, v, g = net.parameter("w", (30, 4)), net.state("v", (30, 4)), net.input("g", (30, 4))
    velocity = a.add(a.mul(v, 0.9), g)
    net.graph.updates = {w.id: a.sub(w, a.mul(velocity, 0.1)).id, v.id: velocity.id}  # type: ignore[attr-defined]
    net.output("before", a.mul(w, 2.0))  # must be read before it is overwritten
    run = check(net.graph, arrays(net, rng), target=target)
    assert len(run.function.fusion.in_place) == 2


def test_parameters_change_places(target: str, rng: np.random.Generator) -> None:
    net = Net()
    p, q, r = net.parameter("p", (4, 3)), net.parameter("q", (4, 3)), net.parameter("r", (4, 3))
    net.graph.updates = {p.id: q.id, q.id: p.id, r.id: r.id}
    net.output("sum", a.add(p, a.add(q, r)))
    check(net.graph, arrays(net, rng), target=target)


def test_a_cycle_of_sums(target: str, rng: np.random.Generator) -> None:
    """Each update reads what another one overwrites."""
    net = Net()
    p, q, r = (net.state(n, (50,)) for n in "pqr")
    net.graph.updates = {
        p.id: a.add(p, q).id, q.id: a.sub(q, r).id, r.id: a.mul(r, p).id
    }  # type: ignore[attr-defined]  # fmt: skip
    net.output("old", a.add(a.add(p, q), r))
    values = arrays(net, rng)
    run = check(net.graph, values, target=target)
    for _ in range(3):  # calls follow each other in the same memory
        after = run(values).updates
        np.testing.assert_allclose(after["p"], values["p"] + values["q"], rtol=1e-15)
        np.testing.assert_allclose(after["r"], values["r"] * values["p"], rtol=1e-15)
        values = dict(after)


def test_new_value_read_by_others(target: str, rng: np.random.Generator) -> None:
    net = Net()
    s, t = net.state("s", (6, 5)), net.state("t", (5, 6))
    x = net.input("x", (6, 5))
    new = a.add(s, x)
    net.graph.updates = {s.id: new.id, t.id: new.apply(Transpose((1, 0)), new).id}  # type: ignore[attr-defined]
    net.output("new", new)
    net.output("difference", a.sub(new, s))
    net.output("product", x.apply(Contract("ij,jk->ik"), s, t))
    net.output("turned", new.apply(Transpose((1, 0)), new))
    check(net.graph, arrays(net, rng), target=target)


def test_one_value_for_two_states(target: str, rng: np.random.Generator) -> None:
    net = Net()
    s, t, x = net.state("s", (7,)), net.state("t", (7,)), net.input("x", (7,))
    new = a.mul(a.add(s, t), x)
    zero = a.mul(x, 0.0)
    u = net.state("u", ())
    one = x.apply(Constant(1.5, DType.F64))
    net.graph.updates = {s.id: new.id, t.id: new.id, u.id: one.id}  # type: ignore[attr-defined]
    net.output("zero", zero)
    check(net.graph, arrays(net, rng), target=target)


def test_anchors_write_in_place(target: str, rng: np.random.Generator) -> None:
    """Anchors read elements that they have already written: not over their own operand."""
    net = Net()
    w, m, k = net.parameter("w", (5, 5)), net.state("m", (5,)), net.state("k", (5, 5))
    x = net.input("x", (5, 5))
    net.graph.updates = {
        w.id: w.apply(Contract("ij,jk->ik"), w, x).id,
        m.id: w.apply(ReduceSum((0,), False), w).id,
        k.id: k.apply(Transpose((1, 0)), k).id,
    }
    net.output("y", a.add(x, m))
    check(net.graph, arrays(net, rng), target=target)


def test_broadcast_of_what_is_updated(target: str, rng: np.random.Generator) -> None:
    net = Net()
    s, x = net.state("s", (4, 3)), net.input("x", (3,))
    row = s.apply(Slice((0, 0), (1, 3), (1, 1)), s)
    net.graph.updates = {s.id: a.add(s, row).id}  # type: ignore[attr-defined]
    net.output("y", a.add(row, x))
    check(net.graph, arrays(net, rng), target=target)


def test_reversed_update(target: str, rng: np.random.Generator) -> None:
    net = Net()
    s = net.state("s", (9,))
    back = s.apply(Reverse((0,)), s)
    net.graph.updates = {s.id: a.add(s, back).id}  # type: ignore[attr-defined]
    net.output("s", s)
    check(net.graph, arrays(net, rng), target=target)


def test_view_of_an_update_in_another_order(target: str, rng: np.random.Generator) -> None:
    """A value that would be stored over a leaf is read through a view that knows its own order."""
    net = Net()
    x, t = net.input("x", (4, 4, 5)), net.state("t", (4, 4, 5))
    value = a.mul(x.apply(Transpose((1, 0, 2)), x), 0.5)
    net.graph.updates = {t.id: value.id}  # type: ignore[attr-defined]
    net.output("y", a.mul(value.apply(Reverse((0, 2)), value), 0.5))
    check(net.graph, arrays(net, rng), target=target)


# ── random chains ────────────────────────────────────────────────────────────────────────────

STEPS = {
    "tanh": lambda x, y: x.apply(Tanh(), x),
    "relu": lambda x, y: x.apply(ReLU(), x),
    "add": a.add,
    "mul": a.mul,
    "double": lambda x, y: a.add(x, x),
    "where": lambda x, y: x.apply(a.Where(), x.apply(a.Less(), x, y), y, a.mul(x, 0.5)),
    "centre": lambda x, y: a.sub(x, a.mul(x.apply(ReduceSum((2,), True), x), 0.2)),
    "norm": lambda x, y: a.div(x, a.add(x.apply(ReduceMax((0, 1), True), a.abs(x)), 1.0)),
    "turn": lambda x, y: x.apply(Transpose((1, 0, 2)), x),
    "back": lambda x, y: x.apply(Reverse((0, 2)), x),
    "roll": lambda x, y: x.apply(
        Concat(2), x.apply(Slice((0, 0, 2), (4, 4, 5), (1, 1, 1)), x),
        x.apply(Slice((0, 0, 0), (4, 4, 2), (1, 1, 1)), x),
    ),
    "reshape": lambda x, y: x.apply(
        Reshape((4, 4, 5)), x.apply(Transpose((1, 0)), x.apply(Reshape((16, 5)), x))
    ),
    "product": lambda x, y: x.apply(Contract("abc,abd->adc"), x, y.apply(Slice((0, 0, 0), (4, 4, 4), (1, 1, 1)), y)),
    "window": lambda x, y: x.apply(
        WindowSum((1, 3, 1), (1, 1, 1), ((0, 0), (1, 1), (0, 0))), x
    ),
}  # fmt: skip


@given(data=st.data())
def test_random_chains(target: str, data: st.DataObject) -> None:
    """Any order of fusible and unfusible bricks, some values as outputs, some as updates."""
    net = Net()
    values: list[Any] = [net.input("x", (4, 4, 5)), net.state("s", (4, 4, 5)),
                         net.state("t", (4, 4, 5))]  # fmt: skip
    s, t = values[1:]
    for _ in range(data.draw(st.integers(1, 10), "steps")):
        step = STEPS[data.draw(st.sampled_from(sorted(STEPS)))]
        x, y = (values[data.draw(st.integers(0, len(values) - 1))] for _ in range(2))
        values.append(a.mul(step(x, y), 0.5))
    last = len(values) - 1
    for k in {last, *data.draw(st.lists(st.integers(0, last), max_size=3), "outputs")}:
        net.output(f"v{k}", values[k])
    for leaf in (s, t):
        if data.draw(st.booleans()):
            net.graph.updates[leaf.id] = values[data.draw(st.integers(0, last))].id
    check(net.graph, arrays(net, np.random.default_rng(7)), target=target)
