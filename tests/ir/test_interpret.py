"""The interpreter: checks of what it is given, dims, and what it computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from brickc.errors import BrickcError, DataError, DtypeError, InternalError, ShapeError
from brickc.ir.brick import Input, Parameter, State
from brickc.ir.bricks.arithmetic import Add, Mul
from brickc.ir.bricks.reduce import ReduceSum
from brickc.ir.builder import Builder, GraphValue
from brickc.ir.dims import Dim, Size
from brickc.ir.dtypes import DType
from brickc.ir.graph import Graph
from brickc.ir.initializers import constant
from brickc.ir.interpret import interpret
from brickc.ir.origin import Origin
from brickc.ir.types import TensorType, bind_dims

N, M = Dim("N", 2, 16), Dim("M", 1, 8)


def f64(*shape: Size) -> TensorType:
    return TensorType(DType.F64, shape)


def example() -> Graph:
    """y = x·w, total = sum y; w becomes w + s."""
    graph = Graph("example")
    builder = Builder(graph, Origin("net.py", 3, "scale"))
    x = builder.add(Input("x", f64(N, 3)))
    w = builder.add(Parameter("w", f64(3), constant(1)))
    s = builder.add(State("s", f64(3), constant(0)))
    labels = builder.add(Input("labels", TensorType(DType.I32, (N,)), 10))
    y = builder.add(Mul(), x, w)
    graph.outputs = {
        "y": y.id,
        "total": builder.add(ReduceSum((0, 1), False), y).id,
        "t": labels.id,
    }
    graph.updates = {w.id: builder.add(Add(), w, s).id}
    return graph


X = np.arange(12.0).reshape(4, 3)
W, S, T = np.array([1.0, 2.0, 3.0]), np.ones(3), np.arange(4, dtype=np.int32)


def test_values() -> None:
    results = interpret(
        example(), {"x": X, "labels": T}, {"w": W, "other": W}, {"s": S}, keep=[1, 4]
    )
    np.testing.assert_array_equal(results["y"], X * W)
    assert results["total"] == (X * W).sum()
    assert list(results) == ["y", "total", "t"]
    np.testing.assert_array_equal(results.updates["w"], W + 1)
    assert sorted(results.values) == [1, 4]
    np.testing.assert_array_equal(results.values[4], X * W)


def test_all_leaves_may_be_inputs() -> None:
    results = interpret(example(), {"x": X, "labels": T, "w": W, "s": S})
    assert results["total"] == (X * W).sum()


def test_what_nothing_needs_may_be_missing() -> None:
    graph = example()
    graph.outputs = {"y": graph.outputs["y"]}
    graph.updates = {}
    np.testing.assert_array_equal(interpret(graph, {"x": X, "w": W})["y"], X * W)


@pytest.mark.parametrize(
    ("feeds", "error", "message"),
    [
        ({"w": None}, ShapeError, "parameter 'w' was given no value; expected f64"),
        ({"z": X}, ShapeError, "no input of that name; got 'z'; expected 'x', 'labels'"),
        ({"x": X.astype("f4")}, DtypeError, "net.py:3 \"scale\": input 'x' has another dtype; got float32"),
        ({"x": X[0]}, ShapeError, r"'x' has 1 axes; got \[3\]; expected f64\[N,3\]"),
        ({"x": X[:, :2]}, ShapeError, "axis 1: 'x' does not fit its type; got 2; expected 3"),
        ({"x": X[:1]}, ShapeError, "'x', axis 0: dim N is out of its range; got 1; expected 2..16"),
        ({"x": X[:3]}, ShapeError, "dim N has two sizes; got 4; expected 3, as in 'x', axis 0"),
        ({"labels": T + 7}, DataError, "an element of input 'labels' is out of range; got 7..10"),
        ({"labels": T - 1}, DataError, r"got -1..2; expected 0..9"),
        ({"w": W[:2]}, ShapeError, "'w' does not fit"),
    ],
)  # fmt: skip
def test_wrong_values(feeds: dict[str, object], error: type[BrickcError], message: str) -> None:
    given = {"x": X, "labels": T, "w": W, "s": S, **feeds}
    with pytest.raises(error, match=message):
        interpret(example(), {k: v for k, v in given.items() if v is not None})  # type: ignore[misc]


def test_wrong_brick() -> None:
    graph = Graph("wrong")
    x = graph.add(Input("x", f64(3)), [], Origin())
    graph.outputs["y"] = graph.add(Add(), [x.id, x.id], Origin("a.py", 1), type=f64(4)).id
    with pytest.raises(InternalError, match=r"%1 a.py:1: add: the value is not of the stated type"):
        interpret(graph, {"x": W})


def test_errors_of_bricks_name_the_node() -> None:
    class Picky(Add):
        def evaluate(self, operands: Sequence[object], dims: object) -> np.ndarray:
            raise DataError("no such index")

    graph = Graph("picky")
    builder = Builder(graph, Origin("a.py", 7))
    x = builder.add(Input("x", f64(3)))
    y: GraphValue = builder.add(Picky(), x, x)
    graph.outputs["y"] = y.id
    with pytest.raises(DataError, match=r"^%1 a.py:7: no such index"):
        interpret(graph, {"x": W})


def test_bind_dims() -> None:
    types = {"a": f64(N, N * M), "b": f64(M, 5)}
    assert bind_dims(types, {"a": (4, 12), "b": (3, 5)}) == {"M": 3, "N": 4}
    assert bind_dims({"a": f64(N * 2 + 1)}, {"a": (9,)}) == {"N": 4}
    assert bind_dims({"a": f64(N, N * M)}, {"a": (4, 12)}) == {"M": 3, "N": 4}
    with pytest.raises(
        ShapeError, match=r"axis 1: 'a' does not fit its type; got 13; expected N\*M = 12|M\*N"
    ):
        bind_dims(types, {"a": (4, 13), "b": (3, 5)})
    with pytest.raises(ShapeError, match="cannot be read off"):
        bind_dims({"a": f64(N * 2 + 1)}, {"a": (8,)})
    with pytest.raises(ShapeError, match="cannot be read off"):
        bind_dims({"a": f64(N * M)}, {"a": (8,)})
    with pytest.raises(ShapeError, match="dim N is out of its range; got 1"):
        bind_dims({"a": f64(N * 2 + 1)}, {"a": (3,)})
