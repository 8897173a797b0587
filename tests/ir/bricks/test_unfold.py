"""Windows as an axis and their adjoint, beside torch; the rest of a view's life in test_shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ladder import check_brick

from brickc.ir.bricks.unfold import Fold, Unfold, fold, unfold
from brickc.ir.value import Eager

Array = Any


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


UNFOLDS = [
    (0, 3, 1, 1),
    (1, 2, 2, 1),  # windows side by side
    (1, 3, 2, 2),
    (1, 2, 3, 1),  # gaps, and a rest that no window reaches
    (0, 1, 2, 3),
    (2, 4, 1, 1),  # one window, the whole axis
]


@pytest.mark.parametrize(("axis", "window", "stride", "dilation"), UNFOLDS)
def test_unfold(axis: int, window: int, stride: int, dilation: int) -> None:
    reach = dilation * (window - 1) + 1
    check_brick(
        Unfold(axis, window, stride, dilation),
        [normal(5, 9, 4)],
        lambda x: x.unfold(axis, reach, stride)[..., ::dilation],
    )


@pytest.mark.parametrize(("axis", "window", "stride", "dilation"), UNFOLDS)
@pytest.mark.parametrize("rest", [0, 1, 5])
def test_fold(axis: int, window: int, stride: int, dilation: int, rest: int) -> None:
    shape = [2, 3, 2]
    size = (shape[axis] - 1) * stride + dilation * (window - 1) + 1 + rest

    def theirs(x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros([*shape[:axis], size, *shape[axis + 1 :]], dtype=x.dtype)
        for k in range(window):
            places = torch.arange(shape[axis]) * stride + k * dilation
            y = y.index_add(axis, places, x[..., k])
        return y

    check_brick(Fold(axis, size, stride, dilation), [normal(*shape, window)], theirs)


def test_unfold_and_fold_are_adjoint() -> None:
    windows, adjoint = Unfold(1, 3, 2, 2), Fold(1, 12, 2, 2)
    x, dy = normal(2, 12, 3), normal(2, 4, 3, 3, seed=1)
    left = (windows.evaluate([x], {}) * dy).sum()
    np.testing.assert_allclose(left, (x * adjoint.evaluate([dy], {})).sum(), rtol=1e-12)


def test_functions() -> None:
    x = Eager.of(normal(2, 3, 4), {})
    windows = unfold(x, 2, 2)
    assert windows.shape == (2, 3, 3, 2)
    assert fold(windows, 2, 4).shape == (2, 3, 4)
