"""Small fixed batches: examples and places share the lanes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import brickc as bc
from brickc.driver import compile_model
from brickc.ir.kernel.loops import LoopKernel

#: channels in and out, height, width, kernel, padding, stride, dilation, groups
GEOMETRIES = [
    (3, 5, 7, 9, 3, 1, 1, 1, 1),
    (4, 6, 8, 8, 3, 1, 1, 1, 2),
    (2, 7, 6, 11, 1, 0, 1, 1, 1),
    (3, 4, 9, 10, 5, 2, 1, 1, 1),
    (3, 4, 9, 10, 3, 2, 1, 2, 1),
    (3, 4, 9, 10, 3, 1, 2, 1, 1),
    (17, 13, 5, 5, 3, 1, 1, 1, 1),
    (2, 3, 5, 40, 3, 3, 1, 1, 1),
]


def _branch(batch: bc.Dim | int, number: int) -> Any:
    c, o, h, w, k, padding, stride, dilation, groups = GEOMETRIES[number]
    x = bc.input(f"x{number}", (batch, c, h, w), "f64")
    y = bc.Sequential(
        bc.Conv2d(c, 1),
        bc.Tanh(),
        bc.Conv2d(o, k, padding=padding, stride=stride, dilation=dilation, groups=groups),
        bc.ReLU(),
    )(x)
    return bc.square_loss(y, bc.input(f"t{number}", y.shape, "f64"))


def _model(batch: bc.Dim | int, count: int = len(GEOMETRIES)) -> bc.Model:
    losses = [_branch(batch, k) for k in range(count)]
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return bc.Model(outputs={}, loss=total)


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_agrees_with_numpy(batch: int) -> None:
    model = _model(batch)
    rng = np.random.default_rng(0)
    feed = {name: rng.standard_normal(type.concrete({})) for name, type in model.inputs.items()}
    programs = [
        bc.compile(model, target, optimizer=bc.SGD(1e-3), seed=2, functions=["train_step"])
        for target in ("c", "numpy")
    ]
    losses = [[p.train_step(**feed)["loss"] for _ in range(2)] for p in programs]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-11)
    ours, theirs = (p.state_dict() for p in programs)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-9, atol=1e-12)


def _notes(batch: bc.Dim | int) -> list[str]:
    f = compile_model(_model(batch, 1), "c:x86-64-v3", functions=["train_step"])
    kernels = f.functions["train_step"].kernels
    return [p.note for k in kernels if isinstance(k, LoopKernel) for p in k.phases]


def test_only_batches_that_leave_lanes_idle() -> None:
    """Forward, input and weight gradient copy a padded image, for a known small batch only."""
    assert _notes(3).count("zeros around") == 3
    assert _notes(8).count("zeros around") == 0
    assert _notes(bc.Dim("N", 1, 64)).count("zeros around") == 0
