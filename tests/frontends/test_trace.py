"""Tensors: types at once, the user's line, operators and indexing."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from brickc.errors import BrickcError, DtypeError, ShapeError, UsageError
from brickc.frontends import functional as F  # noqa: N812 - as in torch
from brickc.frontends.model import Model
from brickc.frontends.trace import Tensor, at, input, literal, parameter, state
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.interpret import interpret
from brickc.ir.origin import Origin

N = Dim("N", 1, 16)


def line() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def run(y: Tensor, /, **feeds: Any) -> np.ndarray[Any, Any]:
    """The value of a tensor by the reference interpreter."""
    return interpret(Model(y).graph(), feeds)["output"]


def test_the_origin_is_the_users_line() -> None:
    x = input("x", (N, 4))
    here = line() - 1
    assert x.origin == Origin("test_trace.py", here)
    y = F.tanh(x * 2.0 + 1.0)
    here = line() - 1
    assert y.origin == Origin("test_trace.py", here)
    assert y.operands[0].origin.line == here


def test_a_mistake_names_the_users_line() -> None:
    x, y = input("x", (N, 4)), input("y", (N, 5))
    with pytest.raises(ShapeError) as caught:
        x + y
    here = line() - 1
    assert str(caught.value).startswith(f"test_trace.py:{here}: ")
    with pytest.raises(DtypeError, match=r"test_trace.py:\d+"):
        x + input("i", (N, 4), "i32")


def test_importers_say_where_things_come_from() -> None:
    x = input("x", (N, 4))
    with at(Origin("net.prototxt", 41, "sig1")):
        y = F.logistic(x)
    assert str(y.origin) == 'net.prototxt:41 "sig1"'
    assert F.logistic(x).origin.file == "test_trace.py"


def test_operators(rng: np.random.Generator) -> None:
    x, y = input("x", (2, 3)), input("y", (2, 3))
    a = rng.uniform(0.5, 2, (2, 3)).astype(np.float32)
    b = rng.uniform(0.5, 2, (2, 3)).astype(np.float32)
    for got, expected in [
        (x + y, a + b),
        (x - y, a - b),
        (x * y, a * b),
        (x / y, a / b),
        (x**y, a**b),
        (-x, -a),
        (1 + x, 1 + a),
        (1 - x, 1 - a),
        (2 * x, 2 * a),
        (1 / x, 1 / a),
        (2**x, 2**a),
        (x + 1, a + 1),
        (x - 1.5, a - 1.5),
        (x / 3, a / 3),
        (x**2, a**2),
        (x**0.5, a**0.5),
        (x + np.float32(0.5), a + 0.5),
        (b + x, a + b),
        (x * b, a * b),
        (F.less(x, y).astype("f32"), a < b),
    ]:
        assert got.shape == (2, 3)
        feeds = {k: v for k, v in (("x", a), ("y", b)) if k in Model(got).inputs}
        np.testing.assert_allclose(run(got, **feeds), expected, rtol=1e-6)


def test_matmul(rng: np.random.Generator) -> None:
    x, w = input("x", (N, 3)), input("w", (3, 4))
    a, b = rng.random((5, 3), np.float32), rng.random((3, 4), np.float32)
    assert (x @ w).shape == (N, 4)
    np.testing.assert_allclose(run(x @ w, x=a, w=b), a @ b, rtol=1e-6)


def test_numbers_take_the_tensors_dtype() -> None:
    x = input("x", (N,), "f64")
    assert (x + 1).dtype is DType.F64
    i = input("i", (N,), "i32")
    assert (i + 1).dtype is DType.I32
    with pytest.raises(DtypeError, match="fraction"):
        i + 0.5
    with pytest.raises(TypeError):
        x + "1"  # type: ignore[operator]


def test_methods(rng: np.random.Generator) -> None:
    x = input("x", (2, 3, 4))
    a = rng.random((2, 3, 4), np.float32)
    for got, expected in [
        (x.reshape(6, -1), a.reshape(6, -1)),
        (x.flatten(), a.reshape(2, 12)),
        (x.flatten(-2), a.reshape(2, 12)),
        (x.transpose(), a.T),
        (x.transpose(0, 2, 1), a.transpose(0, 2, 1)),
        (x.sum(), a.sum()),
        (x.sum(1), a.sum(1)),
        (x.mean((0, -1), keepdims=True), a.mean((0, -1), keepdims=True)),
        (x.max(-1), a.max(-1)),
        (x.min(0), a.min(0)),
        (x.astype("f64"), a.astype(np.float64)),
    ]:
        value = run(got, x=a)
        assert value.shape == expected.shape
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_reshape_keeps_a_dim_symbolic() -> None:
    x = input("x", (N, 6, 4))
    assert x.reshape(-1, 24).shape == (N, 24)
    assert x.reshape(N, -1).shape == (N, 24)
    with pytest.raises(ShapeError, match=r"test_trace.py:\d+: reshape: no size"):
        x.reshape(N, -1, 5)
    with pytest.raises(ShapeError):
        x.reshape(-1, -1)


@pytest.mark.parametrize(
    "index",
    [0, -1, slice(1, None), (slice(None), 1), (..., 2), (0, ..., slice(0, 3, 2)),
     (slice(None), slice(None, 2)), (0, 1, 2)],
    ids=str,
)  # fmt: skip
def test_indexing(index: Any, rng: np.random.Generator) -> None:
    a = rng.random((2, 3, 4), np.float32)
    value = run(input("x", (2, 3, 4))[index], x=a)
    np.testing.assert_array_equal(value, a[index])


@pytest.mark.parametrize("index", [2, -3, (0, 0, 0, 0), "a", slice(None, None, -1), 0.5], ids=str)
def test_impossible_indices(index: Any) -> None:
    with pytest.raises(BrickcError, match=r"test_trace.py:\d+"):
        input("x", (2, 3, 4))[index]


def test_a_dim_is_not_indexed() -> None:
    x = input("x", (N, 3))
    assert x[:, 0].shape == (N,)
    with pytest.raises(ShapeError, match="no fixed size"):
        x[0]


def test_literals() -> None:
    table = literal([[1, 2], [3, 4]], "f32")
    assert str(table.type) == "f32[2,2]"
    np.testing.assert_array_equal(run(table.transpose() + 0), [[1, 3], [2, 4]])
    assert literal(7).shape == ()


def test_tensors_are_not_values() -> None:
    x = input("x", (N,))
    with pytest.raises(UsageError, match="no truth value"):
        bool(x)
    with pytest.raises(TypeError):
        iter(x)
    with pytest.raises(UsageError, match=r"tanh is applied to tensors; got ndarray"):
        F.tanh(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        x.type = None  # type: ignore[assignment, misc]


@pytest.mark.parametrize("name", ["", " a", 'a"b', "a\nb", "x" * 201, "a\\b", 3])
def test_names_are_checked(name: Any) -> None:
    with pytest.raises(UsageError, match="not a name"):
        input(name, (N,))
    with pytest.raises(UsageError, match="not a name"):
        parameter(name, (3,))


def test_leaves_are_checked() -> None:
    with pytest.raises(ShapeError, match=r"test_trace.py:\d+: axis 0 of w has no fixed size"):
        parameter("w", (N, 3))
    with pytest.raises(ShapeError, match="no fixed size"):
        state("s", (N,))
    with pytest.raises(DtypeError, match=r"test_trace.py:\d+: unknown dtype"):
        input("x", (N,), "f33")
    with pytest.raises(ShapeError, match=r"test_trace.py:\d+"):
        input("x", (-1,))
