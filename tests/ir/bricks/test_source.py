"""Bricks without operands, and conversions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ladder import check_brick, derivatives

from brickc.errors import DtypeError, ShapeError
from brickc.ir.bricks.convert import Cast, StopGradient, cast
from brickc.ir.bricks.source import (
    Constant,
    DimSize,
    Iota,
    Literal,
    dim_size,
    full_like,
    iota,
    lift,
    literal,
    ones_like,
    zeros_like,
)
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract, Eager


def test_constants() -> None:
    assert Constant(1, DType.F32) == Constant(1.0, DType.F32)
    assert isinstance(Constant(1, DType.F32).value, float)
    assert isinstance(Constant(2.0, DType.I32).value, int)
    assert Constant(1, DType.BOOL).value is True
    assert Constant(1.0, DType.F32) != Constant(1, DType.I32)
    assert Constant(math.inf, DType.F32).evaluate([], {}) == np.inf
    for value, dtype in [
        (0.5, DType.I32), (2, DType.BOOL), (2**31, DType.I32), (math.nan, DType.I64),
        (math.inf, DType.I32), (10**400, DType.F64),
    ]:  # fmt: skip
        with pytest.raises(DtypeError):
            Constant(value, dtype)
    for dtype in (DType.F64, DType.F32, DType.F16, DType.I64, DType.I32, DType.BOOL):
        made = Constant(1, dtype).evaluate([], {})
        assert (made.dtype, made.shape) == (dtype.numpy, ())


def test_lift() -> None:
    like = Abstract(TensorType(DType.F32, (3,)))
    assert lift(like, like) is like
    assert lift(2, like).type == TensorType(DType.F32, ())


def test_literals() -> None:
    place = Eager.of(np.zeros(()), {})
    for array in (np.arange(6.0).reshape(2, 3).T, np.array(3, np.int32), np.zeros((0, 2), bool)):
        made = literal(place, array)
        assert isinstance(made, Eager)
        np.testing.assert_array_equal(made.array, array)
        assert made.array.dtype == array.dtype
    for type in (TensorType(DType.F32, (3,)), TensorType(DType.F32, (Dim("N", 1, 4),))):
        with pytest.raises(ShapeError, match="fill"):
            Literal(b"12345678", type).infer_type([])


def test_sizes_and_indices() -> None:
    n = Dim("N", 1, 8)
    assert DimSize(2 * n + 1, DType.F32).evaluate([], {"N": 3}) == 7
    place = Eager.of(np.zeros(()), {"N": 3})
    assert str(dim_size(Abstract(TensorType(DType.F32)), 4, DType.I32).type) == "i32[]"
    made = iota(place, TensorType(DType.I32, (n, 2)), -2)
    assert isinstance(made, Eager)
    np.testing.assert_array_equal(made.array, [[0, 0], [1, 1], [2, 2]])
    with pytest.raises(ShapeError):
        Iota(TensorType(DType.I32, (3,)), 1).infer_type([])
    for brick in (DimSize(n, DType.BOOL), Iota(TensorType(DType.BOOL, (3,)), 0)):
        with pytest.raises(DtypeError):
            brick.infer_type([])


def test_likes() -> None:
    x = Eager.of(np.zeros((2, 3), np.float32), {})
    for made, value in [(zeros_like(x), 0), (ones_like(x), 1), (full_like(x, 0.5), 0.5)]:
        assert isinstance(made, Eager)
        assert made.type == x.type
        np.testing.assert_array_equal(made.array, np.full((2, 3), value))


def test_casts() -> None:
    x = np.array([-1.7, 0.0, 2.5])
    check_brick(StopGradient(), [x], lambda x: x.detach(), kinks=True)
    for dtype, expected in [(DType.I32, [-1, 0, 2]), (DType.BOOL, [True, False, True])]:
        np.testing.assert_array_equal(Cast(dtype).evaluate([x], {}), expected)
        assert not derivatives(Cast(dtype), [x], np.ones(3))[0].any()
    (dx,) = derivatives(Cast(DType.F32), [x], np.ones(3, np.float32))
    assert dx.dtype == np.float64
    np.testing.assert_array_equal(dx, np.ones(3))
    value = Abstract(TensorType(DType.F32, (3,)))
    assert cast(value, "f32") is value
    assert cast(value, "float64").dtype is DType.F64
