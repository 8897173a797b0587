"""Losses beside torch; accuracy by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch_check import agree_with_torch

from brickc.errors import BrickcError, DataError, DtypeError, ShapeError
from brickc.ir.bricks import loss
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.types import TensorType
from brickc.ir.value import Abstract

torch = pytest.importorskip("torch")
F = torch.nn.functional
Rng = np.random.Generator


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("shape", [(6, 4), (1, 3), (2, 5, 3), (2, 4, 3, 2)])
def test_softmax_loss(shape: tuple[int, ...], dtype: type, rng: Rng) -> None:
    logits = rng.standard_normal(shape) * 3
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:])).astype(dtype)
    agree_with_torch(
        loss.softmax_loss, lambda y, t: F.cross_entropy(y, t.long()), [logits, labels], rng
    )


def test_softmax_loss_of_large_logits() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 1e4]])
    value = loss.SoftmaxLoss().evaluate([logits, np.array([0, 1])], {})
    assert value == 5e3


def test_wrong_labels(rng: Rng) -> None:
    for labels in ([0, 4], [-1, 2]):
        with pytest.raises(DataError, match=r"a label is out of range; got .*; expected 0..3"):
            loss.SoftmaxLoss().evaluate([rng.standard_normal((2, 4)), np.array(labels)], {})


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 2)])
def test_square_loss(shape: tuple[int, ...], rng: Rng) -> None:
    y, t = rng.standard_normal(shape), rng.standard_normal(shape)
    count = shape[0] if shape else 1
    agree_with_torch(loss.square_loss, lambda y, t: (y - t).square().sum() / 2 / count, [y, t], rng)


@pytest.mark.parametrize("label_type", [np.int32, np.int64])
def test_accuracy(label_type: type) -> None:
    logits = np.array([[1.0, 3, 2], [5, 5, 1], [0, 0, 0], [-3, -2, -1]], np.float32)
    labels = np.array([1, 0, 2, 2], label_type)
    value = loss.Accuracy().evaluate([logits, labels], {})
    assert value.dtype == np.float32
    assert value == 0.75  # at ties the first class counts


def test_accuracy_of_places(rng: Rng) -> None:
    logits = rng.standard_normal((3, 5, 2, 4))
    labels = rng.integers(0, 5, (3, 2, 4)).astype(np.int32)
    value = loss.Accuracy().evaluate([logits, labels], {})
    np.testing.assert_allclose(value, (logits.argmax(1) == labels).mean(), rtol=1e-6)


def test_named_dims() -> None:
    n = Dim("N")
    for spatial in ((), (n, 7)):
        y = Abstract(TensorType(DType.F32, (n, 10, *spatial)))
        t = Abstract(TensorType(DType.I32, (n, *spatial)))
        scalar = TensorType(DType.F32)
        assert loss.softmax_loss(y, t).type == loss.accuracy(y, t).type == scalar
        assert loss.square_loss(y, y).type == scalar
        assert loss.SoftmaxLoss().expand([y, t]).type == scalar
        assert loss.SquareLoss().expand([y, y]).type == scalar
        assert loss.Accuracy().expand([y, t]).type == scalar
        gradient, none = loss.SoftmaxLoss().vjp([y, t], Abstract(scalar), Abstract(scalar))
        assert gradient is not None
        assert gradient.type == y.type
        assert none is None


def typed(dtype: DType, *shape: int) -> Abstract:
    return Abstract(TensorType(dtype, shape))


LOGITS, LABELS = typed(DType.F32, 4, 10), typed(DType.I32, 4)


@pytest.mark.parametrize(
    ("operands", "error", "message"),
    [
        ((LOGITS, typed(DType.I32, 5)), ShapeError, r"labels do not fit .* got i32\[5\]; expected i32\[4\]"),
        ((LOGITS, typed(DType.I32, 4, 10)), ShapeError, "not one-hot"),
        ((LOGITS, typed(DType.F32, 4)), DtypeError, "labels that are integers"),
        ((typed(DType.I32, 4, 10), LABELS), DtypeError, "logits that are floats"),
        ((typed(DType.F32, 4), LABELS), ShapeError, "logits have no classes"),
    ],
)  # fmt: skip
def test_wrong_operands(operands: Any, error: type[BrickcError], message: str) -> None:
    for function in (loss.softmax_loss, loss.accuracy):
        with pytest.raises(error, match=message):
            function(*operands)


def test_wrong_operands_of_the_square_loss() -> None:
    with pytest.raises(ShapeError, match="shapes differ"):
        loss.square_loss(LOGITS, typed(DType.F32, 4))
    with pytest.raises(DtypeError, match="floats of one dtype"):
        loss.square_loss(LOGITS, typed(DType.F64, 4, 10))
