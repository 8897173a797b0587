"""Reductions against torch; ties, empty axes, sizes that are not known, undoing broadcasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ladder import Taped, backward, check_brick, derivatives

from brickc.errors import DtypeError, ShapeError
from brickc.ir.brick import Brick
from brickc.ir.bricks import reduce as r
from brickc.ir.bricks.arithmetic import add, mul
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract, Eager

AXES = [(), (0,), (1,), (0, 2), (0, 1, 2)]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def over(function: Callable[..., Any], axes: tuple[int, ...], keepdims: bool) -> Any:
    """torch's reduction; without axes torch reduces all of them, NumPy and we none."""
    if not axes:
        return lambda x: x * 1.0
    return lambda x: function(x, dim=axes, keepdim=keepdims)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(
    ("kind", "theirs"),
    [(r.ReduceSum, torch.sum), (r.ReduceMax, torch.amax), (r.ReduceMin, torch.amin)],
)
def test_reductions(
    kind: Callable[..., Brick], theirs: Any, axes: tuple[int, ...], keepdims: bool
) -> None:
    check_brick(kind(axes, keepdims), [normal(3, 4, 2)], over(theirs, axes, keepdims))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("keepdims", [False, True])
def test_indices_of_extrema(axis: int, keepdims: bool) -> None:
    x = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.float64)  # many ties
    for brick, theirs in [
        (r.ArgMax(axis, keepdims), np.argmax),
        (r.ArgMin(axis, keepdims), np.argmin),
    ]:
        check_brick(brick, [x])
        found = brick.evaluate([x], {})
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, theirs(x, axis=axis, keepdims=keepdims))
    first = r.ArgMax(0, False).evaluate([np.array([1.0, 3.0, 3.0])], {})
    assert first == 1


@pytest.mark.parametrize("kind", [r.ReduceMax, r.ReduceMin])
def test_ties_share_the_cotangent(kind: Callable[..., Brick]) -> None:
    x = np.array([[2.0, 2.0, 2.0, 2.0], [1.0, 3.0, 3.0, 1.0]])
    theirs = torch.amax if kind is r.ReduceMax else torch.amin
    check_brick(kind((1,), False), [x], over(theirs, (1,), False), kinks=True)
    (dx,) = derivatives(kind((1,), False), [x], np.array([1.0, 1.0]))
    wanted = [0, 0.5, 0.5, 0] if kind is r.ReduceMax else [0.5, 0, 0, 0.5]
    np.testing.assert_array_equal(dx, [[0.25] * 4, wanted])


def test_the_oracle_sums_in_double() -> None:
    x = np.full(2**20, 0.1, np.float32)
    exact = float(np.float32(0.1)) * 2**20
    assert r.ReduceSum((0,), False).evaluate([x], {}) == np.float32(exact)
    half = np.full(70000, 1.0, np.float16)
    assert np.isinf(r.ReduceSum((0,), False).evaluate([half], {}))
    assert r.ReduceSum((0,), False).evaluate([half[:60000]], {}) == 60000


def test_integers() -> None:
    x = np.array([[2**30, 2**30], [1, -5]], np.int32)
    np.testing.assert_array_equal(r.ReduceSum((1,), False).evaluate([x], {}), [-(2**31), -4])
    np.testing.assert_array_equal(r.ReduceMax((1,), False).evaluate([x], {}), [2**30, 1])
    check_brick(r.ReduceSum((0,), True), [x])
    check_brick(r.ReduceMin((0, 1), False), [x])


def test_nan_stays() -> None:
    x = np.array([1.0, np.nan, 3.0])
    for brick in (r.ReduceMax((0,), False), r.ReduceMin((0,), False), r.ReduceSum((0,), False)):
        assert np.isnan(brick.evaluate([x], {}))
    assert r.ArgMax(0, False).evaluate([x], {}) == 1


F32 = TensorType(DType.F32, (2, 3))


@pytest.mark.parametrize("brick", [
    r.ReduceSum((2,), False), r.ReduceSum((1, 0), False), r.ReduceSum((0, 0), False),
    r.ReduceMax((-1,), False), r.ArgMax(2, False), r.ArgMin(-1, True),
], ids=str)  # fmt: skip
def test_axes_that_do_not_exist(brick: Brick) -> None:
    with pytest.raises(ShapeError, match="rising order"):
        brick.infer_type([F32])


def test_what_cannot_be_reduced() -> None:
    for brick in (r.ReduceSum((0,), False), r.ReduceMax((0,), False), r.ArgMin(0, False)):
        with pytest.raises(DtypeError, match="bool"):
            brick.infer_type([TensorType(DType.BOOL, (3,))])
    nothing = TensorType(DType.F32, (2, 0))
    for empty in (r.ReduceMax((1,), False), r.ReduceMin((0, 1), False), r.ArgMax(1, False)):
        with pytest.raises(ShapeError, match="of nothing"):
            empty.infer_type([nothing])
    assert r.ReduceMax((0,), False).infer_type([nothing]).shape == (0,)
    check_brick(r.ReduceSum((1,), False), [np.zeros((2, 0))], over(torch.sum, (1,), False))


def test_functions_normalise_axes() -> None:
    x = Abstract(TensorType(DType.F32, (2, 3, 4)))
    assert r.reduce_sum(x).shape == ()
    assert r.reduce_sum(x, -1).shape == (2, 3)
    assert r.reduce_max(x, (-1, 0), True).shape == (1, 3, 1)
    assert r.reduce_min(x, [1]).shape == (2, 4)
    assert r.arg_max(x).type == TensorType(DType.I32, (2, 3))
    assert r.arg_min(x, 0, True).shape == (1, 3, 4)
    for axes in (3, -4, (0, 5)):
        with pytest.raises(ShapeError):
            r.reduce_sum(x, axes)
    with pytest.raises(ShapeError):
        r.reduce_sum(x, (0, -3))


def test_means() -> None:
    x = normal(3, 4, 2)
    for axes in (None, 0, (1, 2), -1):
        found = r.reduce_mean(Eager.of(x, {}), axes)
        assert isinstance(found, Eager)
        np.testing.assert_allclose(found.array, x.mean(axis=axes), rtol=1e-14)
    with pytest.raises(DtypeError):
        r.reduce_mean(Abstract(TensorType(DType.I32, (3,))))
    with pytest.raises(ShapeError):
        r.reduce_mean(Abstract(TensorType(DType.F32, (0, 3))), 0)


def test_a_mean_over_a_size_that_is_not_known() -> None:
    n = Dim("N", 1, 8)
    x = Abstract(TensorType(DType.F32, (n, 3)))
    assert r.reduce_mean(x).type == TensorType(DType.F32, ())
    assert r.reduce_mean(x, 0, True).shape == (1, 3)
    assert r.reduce_mean(x, 1).shape == (n,)
    y = r.reduce_sum(x, 0)
    (dx,) = r.ReduceSum((0,), False).vjp([x], y, y)
    assert dx is not None
    assert dx.type == x.type
    (dx,) = r.ReduceMax((1,), True).vjp([x], r.reduce_max(x, 1, True), r.reduce_max(x, 1, True))
    assert dx is not None
    assert dx.type == x.type


# ── sum_to ───────────────────────────────────────────────────────────────────────────────


@given(st.data())
def test_sum_to_is_the_adjoint_of_broadcasting(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 3), max_size=4)))
    small = tuple(1 if data.draw(st.booleans()) else size for size in shape)
    small = small[data.draw(st.integers(0, len(small))) :]
    x, y = normal(*small, seed=1), normal(*shape, seed=2)
    found = r.sum_to(Eager.of(y, {}), small)
    assert isinstance(found, Eager)
    assert found.shape == small
    left = float((np.broadcast_to(x, shape) * y).sum())
    assert float((x * found.array).sum()) == pytest.approx(left)


def test_sum_to_does_no_more_than_needed() -> None:
    x = Taped.of(normal(2, 3))
    assert r.sum_to(x, (2, 3)) is x
    total = r.sum_to(x, (3,))
    assert isinstance(total, Taped)
    assert total.brick == r.ReduceSum((0,), False)
    n = Dim("N", 1, 8)
    y = Abstract(TensorType(DType.F32, (n, 1, 3)))
    assert r.sum_to(y, (1, 3)).shape == (1, 3)
    assert r.sum_to(y, (n, 1, 1)).shape == (n, 1, 1)
    assert r.sum_to(y, ()).shape == ()


@pytest.mark.parametrize("shape", [(2,), (3, 2), (1, 2, 3), (2, 2)])
def test_sum_to_a_shape_that_was_not_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="not broadcast"):
        r.sum_to(Abstract(F32), shape)


def test_gradients_of_broadcast_operands_are_summed() -> None:
    x, b = Taped.of(normal(2, 3, 4)), Taped.of(normal(3, 1, seed=1))
    y = add(mul(x, b), b)
    assert isinstance(y, Taped)
    _, db = backward(y, Taped.of(np.ones((2, 3, 4))), [x, b])
    assert db is not None
    wanted = (x.array + 1).sum(axis=(0, 2)).reshape(3, 1)
    np.testing.assert_allclose(db.array, wanted, rtol=1e-13)
