"""Softmax and the normalisations: values, gradients and second gradients beside torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch_check import agree_with_torch

from brickc.errors import BrickcError, DtypeError, ShapeError, UsageError
from brickc.ir.brick import ModeDependent
from brickc.ir.bricks import normalization as norm
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract, Eager, Value

torch = pytest.importorskip("torch")
F = torch.nn.functional
Rng = np.random.Generator


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 3), (1, 1)])
def test_softmax(axis: int, shape: tuple[int, ...], rng: Rng) -> None:
    x = rng.standard_normal(shape) * 3
    agree_with_torch(lambda v: norm.softmax(v, axis), lambda t: t.softmax(axis), [x], rng)
    agree_with_torch(lambda v: norm.log_softmax(v, axis), lambda t: t.log_softmax(axis), [x], rng)


def test_softmax_of_large_numbers() -> None:
    x = np.array([[1000.0, 0.0, -1000.0], [-3000.0, -3000.0, -3000.0]])
    np.testing.assert_allclose(norm.Softmax(1).evaluate([x], {}), [[1, 0, 0], [1 / 3] * 3])
    expected = [[0, -1000, -2000], [-np.log(3)] * 3]
    np.testing.assert_allclose(norm.LogSoftmax(1).evaluate([x], {}), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(2, 7, 3, 2), (2, 3), (1, 1, 4), (2, 4, 2, 3, 2)])
def test_lrn_across(size: int, shape: tuple[int, ...], rng: Rng) -> None:
    x = rng.standard_normal(shape)
    # below three axes torch refuses: lend it one
    lent = (..., None) if len(shape) == 2 else (...,)

    def theirs(t: Any) -> Any:
        return F.local_response_norm(t[lent], size, 0.3, 0.75, 1.5).reshape(shape)

    agree_with_torch(lambda v: norm.lrn(v, size, 0.3, 0.75, 1.5), theirs, [x], rng)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn_within(size: int, rng: Rng) -> None:
    """Caffe: x · (1 + alpha · mean of x² over a padded square window)^-beta."""
    x = rng.standard_normal((2, 3, 5, 4))

    def theirs(t: Any) -> Any:
        mean = F.avg_pool2d(t * t, size, stride=1, padding=size // 2, count_include_pad=True)
        return t * (1 + 0.3 * mean) ** -0.75

    agree_with_torch(lambda v: norm.lrn(v, size, 0.3, within=True), theirs, [x], rng)


@pytest.mark.parametrize("axes", [(-1,), (1, 2), (0, 2)])
def test_normalize(axes: tuple[int, ...], rng: Rng) -> None:
    x = rng.standard_normal((4, 3, 5)) + 2

    def theirs(t: Any) -> Any:
        centred = t - t.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True) + 1e-3).sqrt()

    agree_with_torch(lambda v: norm.normalize(v, axes, 1e-3), theirs, [x], rng)


def test_layer_norm(rng: Rng) -> None:
    x, w, b = (rng.standard_normal(s) for s in ((4, 3, 5), (3, 5), (3, 5)))

    def theirs(t: Any, weight: Any, bias: Any) -> Any:
        return F.layer_norm(t, (3, 5), weight, bias, 1e-5)

    agree_with_torch(lambda v, w, b: norm.layer_norm(v, w, b, (1, 2)), theirs, [x, w, b], rng)
    agree_with_torch(
        lambda v: norm.layer_norm(v, None, None), lambda t: F.layer_norm(t, (5,)), [x], rng
    )


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape: tuple[int, ...], training: bool, rng: Rng) -> None:
    x = rng.standard_normal(shape) * 2 + 1
    gamma, beta, mean = (rng.standard_normal(3) for _ in range(3))
    var = rng.uniform(0.5, 2, 3)
    brick = norm.BatchNorm(0.3, 1e-5)

    def ours(x: Value, gamma: Value, beta: Value) -> Value:
        states = [x.apply(_literal(a)) for a in (mean, var)]
        return brick.specialise([x, gamma, beta, *states], training)[0]

    def theirs(x: Any, gamma: Any, beta: Any) -> Any:
        states = (torch.tensor(mean), torch.tensor(var))
        return F.batch_norm(x, *states, gamma, beta, training, 0.3, 1e-5)

    agree_with_torch(ours, theirs, [x, gamma, beta], rng)


def _literal(array: np.ndarray[Any, Any]) -> Any:
    from brickc.ir.bricks.source import Literal

    return Literal(array.tobytes(), TensorType(DType.of(array.dtype), array.shape))


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4, 2), (1, 3, 1, 1)])
def test_running_statistics(shape: tuple[int, ...], rng: Rng) -> None:
    x = rng.standard_normal(shape) * 2 + 1
    mean, var = rng.standard_normal(3), rng.uniform(0.5, 2, 3)
    arrays = [x, np.ones(3), np.zeros(3), mean, var]
    operands = [Eager.of(a, {}) for a in arrays]
    _, updates = norm.BatchNorm(0.3, 1e-5).specialise(operands, training=True)
    assert sorted(updates) == [3, 4]
    got = {k: v.array for k, v in updates.items() if isinstance(v, Eager)}
    batch = x.transpose(1, 0, *range(2, x.ndim)).reshape(3, -1)
    np.testing.assert_allclose(got[3], 0.7 * mean + 0.3 * batch.mean(1), rtol=1e-12)
    if batch.shape[1] == 1:  # torch refuses; a variance of nothing is 0
        np.testing.assert_allclose(got[4], 0.7 * var, rtol=1e-12)
        return
    np.testing.assert_allclose(got[4], 0.7 * var + 0.3 * batch.var(1, ddof=1), rtol=1e-12)
    states = (torch.tensor(mean), torch.tensor(var))
    F.batch_norm(torch.tensor(x), *states, training=True, momentum=0.3)
    np.testing.assert_allclose(got[3], states[0].numpy(), rtol=1e-12)
    np.testing.assert_allclose(got[4], states[1].numpy(), rtol=1e-12)


def test_named_dims() -> None:
    """Types follow through every expansion when the batch is a named dim."""
    n = Dim("N")
    x = Abstract(TensorType(DType.F32, (n, 3, 4, 4)))
    row = Abstract(TensorType(DType.F32, (3,)))
    for value in (norm.softmax(x, 1), norm.log_softmax(x), norm.lrn(x), norm.lrn(x, within=True),
                  norm.normalize(x, (0, 2, 3)), norm.batch_norm(x, row, row, row, row)):  # fmt: skip
        assert value.type == x.type
    for brick in (norm.Softmax(1), norm.LogSoftmax(0), norm.LRNAcross(5, 1.0, 0.5, 1.0),
                  norm.LRNWithin(3, 1.0, 0.5, 1.0), norm.Normalize((0, 2), 0.1)):  # fmt: skip
        assert brick.expand([x]).type == x.type
        assert brick.vjp([x], x, x)[0].type == x.type  # type: ignore[union-attr]
    new, updates = norm.BatchNorm(0.1, 1e-5).specialise([x, row, row, row, row], training=True)
    assert new.type == x.type
    assert [u.type for u in updates.values()] == [row.type, row.type]


def typed(dtype: DType, *shape: int) -> Abstract:
    return Abstract(TensorType(dtype, shape))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: norm.softmax(typed(DType.F32, 2), 3), ShapeError, "softmax: no such axis"),
        (lambda: norm.softmax(typed(DType.I32, 2)), DtypeError, "softmax takes floats"),
        (lambda: norm.lrn(typed(DType.F32, 2)), ShapeError, "lrn_across: too few axes"),
        (lambda: norm.lrn(typed(DType.F32, 2, 2), within=True), ShapeError, "too few axes"),
        (lambda: norm.lrn(typed(DType.F32, 2, 2), 0), UsageError, "impossible size"),
        (lambda: norm.normalize(typed(DType.F32, 2, 2), ()), ShapeError, "at least one"),
    ],
)
def test_wrong_operands(make: Any, error: type[BrickcError], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("operand", "error", "message"),
    [
        ((0, typed(DType.F32, 2)), ShapeError, "x has no channels"),
        ((2, typed(DType.F32, 4)), ShapeError, "beta fits no channel"),
        ((3, typed(DType.F64, 3)), DtypeError, "running_mean"),
    ],
)
def test_wrong_batch_norm(
    operand: tuple[int, Abstract], error: type[BrickcError], message: str
) -> None:
    operands = [typed(DType.F32, 2, 3), *(typed(DType.F32, 3) for _ in range(4))]
    operands[operand[0]] = operand[1]
    brick: ModeDependent = norm.BatchNorm(0.1, 1e-5)
    for training in (True, False):
        with pytest.raises(error, match=message):
            brick.specialise(operands, training)
