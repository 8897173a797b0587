"""Fillers against the properties that Caffe's tests of them check, and their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from brickc.errors import ImportModelError
from brickc.frontends.caffe.fillers import fill
from brickc.frontends.caffe.text import parse_text
from brickc.ir.dtypes import DType


def filled(text: str, shape: tuple[int, ...] = (2, 3, 4, 5)) -> np.ndarray:
    init, array = fill(parse_text(text, "FillerParameter"), shape, "conv.weight")
    if array is not None:
        assert array.dtype == np.float32
        return array
    return init.sample("conv.weight", shape, DType.F32, 0)


def test_constant() -> None:
    assert (filled("value: 10") == 10).all()
    assert (filled("") == 0).all()


def test_uniform() -> None:
    data = filled('type: "uniform" min: 1 max: 2')
    assert data.min() >= 1
    assert data.max() <= 2
    assert len(np.unique(data)) > 100


def test_gaussian() -> None:
    data = filled('type: "gaussian" mean: 10 std: 0.1', (50, 50))
    assert abs(data.mean() - 10) < 0.01
    assert abs(data.std() - 0.1) < 0.01


def test_sparse_gaussian() -> None:
    # on average `sparse` of the weights of an input are not 0: sparse/num_outputs of all
    data = filled('type: "gaussian" sparse: 5', (50, 400))
    assert (data != 0).mean() == pytest.approx(5 / 50, abs=0.01)
    assert data[data != 0].std() == pytest.approx(1, abs=0.05)


def test_positive_unitball() -> None:
    data = filled('type: "positive_unitball"', (5, 4, 3))
    assert data.min() >= 0
    np.testing.assert_allclose(data.reshape(5, -1).sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("norm", "count"),
    [("FAN_IN", 2 * 4 * 5), ("FAN_OUT", 1000 * 4 * 5), ("AVERAGE", (2 + 1000) * 10)],
)
@pytest.mark.parametrize(("type", "factor"), [("xavier", 1), ("msra", 2)])
def test_scaled_fillers(type: str, factor: int, norm: str, count: int) -> None:
    # Caffe's XavierFillerTest and MSRAFillerTest: the deviation is sqrt(factor/n) on [1000, 2, 4, 5]
    data = filled(f'type: "{type}" variance_norm: {norm}', (1000, 2, 4, 5))
    assert abs(data.mean()) < 0.1 * math.sqrt(factor / count)
    assert data.std() == pytest.approx(math.sqrt(factor / count), rel=0.03)
    if type == "xavier":
        assert abs(data).max() <= math.sqrt(3 / count)


@pytest.mark.parametrize("size", [6, 7])
def test_bilinear(size: int) -> None:
    # the formula of BilinearFiller, element by element
    data = filled('type: "bilinear"', (1, 2, size, size))
    f = math.ceil(size / 2)
    c = (size - 1) / (2 * f)
    for y in range(size):
        for x in range(size):
            expected = (1 - abs(x / f - c)) * (1 - abs(y / f - c))
            assert data[0, 1, y, x] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ('type: "nice"', (2,), "unknown filler"),
        ('type: "uniform" sparse: 3', (2,), "not sparse"),
        ('type: "gaussian" sparse: -3', (2,), "below 0"),
        ('type: "gaussian" std: -3', (2,), "below 0"),
        ('type: "bilinear"', (2, 3), "square kernels"),
        ('type: "bilinear"', (1, 1, 2, 3), "square kernels"),
        ('type: "positive_unitball"', (2**15, 2**15), "too large"),
    ],
)
def test_refused(text: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ImportModelError, match=message):
        filled(text, shape)
