"""Large matrices and few columns: read once, and updated in the same reading."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import brickc as bc
from brickc.backends.c.strategies import thin
from brickc.driver import compile_model
from brickc.ir.kernel.loops import LoopKernel


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thin, "LARGE", 1024)


def _model(batch: bc.Dim | int, dtype: str = "f64") -> bc.Model:
    x = bc.input("x", (batch, 9), dtype)
    y = bc.Sequential(
        bc.Linear(40, bias=False), bc.Linear(77), bc.Tanh(), bc.Linear(45), bc.ReLU(),
        bc.Linear(33),
    )(x)  # fmt: skip
    return bc.Model(outputs={"y": y}, loss=bc.square_loss(y, bc.input("t", y.shape, dtype)))


OPTIMIZERS = {
    "sgd": bc.SGD(1e-2),
    "momentum": bc.SGD(1e-2, momentum=0.9, weight_decay=1e-3),
    "adam": bc.Adam(1e-3),
}


@pytest.mark.parametrize(
    ("batch", "sizes", "optimizer", "dtype"),
    [
        (bc.Dim("N", 1, 64), (1, 3, 16, 37), "momentum", "f32"),
        (4, (4,), "adam", "f64"),
        (3, (3,), "sgd", "f32"),
    ],
    ids=["any", "four", "three"],
)
def test_agrees_with_numpy(
    batch: bc.Dim | int, sizes: tuple[int, ...], optimizer: str, dtype: str
) -> None:
    model = _model(batch, dtype)
    rng = np.random.default_rng(0)
    programs = [
        bc.compile(model, target, optimizer=OPTIMIZERS[optimizer], seed=2, functions=["train_step"])
        for target in ("c", "numpy")
    ]
    tolerance = 1e-10 if dtype == "f64" else 2e-5
    for n in sizes:
        feed = {
            name: rng.standard_normal(type.concrete({"N": n})).astype(type.dtype.numpy)
            for name, type in model.inputs.items()
        }
        for _ in range(2):
            ours, theirs = (p.train_step(**feed)["loss"] for p in programs)
            np.testing.assert_allclose(ours, theirs, rtol=tolerance)
    mine, other = (p.state_dict() for p in programs)
    for name, value in other.items():
        np.testing.assert_allclose(mine[name], value, rtol=tolerance * 10, atol=tolerance)


def _kernels(model: bc.Model) -> list[LoopKernel]:
    compiled = compile_model(model, "c:x86-64-v3", functions=["train_step"])
    found: list[Any] = list(compiled.functions["train_step"].kernels)
    return found


def _pair(batch: bc.Dim | int) -> bc.Model:
    """Two layers; the second has an input whose gradient is wanted."""
    y = bc.Sequential(bc.Linear(20), bc.Linear(18))(bc.input("x", (batch, 9)))
    return bc.Model(outputs={}, loss=bc.square_loss(y, bc.input("t", y.shape)))


def test_the_update_shares_a_reading() -> None:
    kernels = _kernels(_pair(4))
    (together,) = [k for k in kernels if k.strategy == "one reading, with the update"]
    (left,) = [k for k in kernels if k.strategy.startswith("with ")]
    assert not left.phases
    assert together.kernel.operands[1].buffer == left.kernel.writes()[0].buffer


def test_large_batches_go_the_other_way() -> None:
    """With a batch of any size both forms are there."""
    (left,) = [k for k in _kernels(_pair(bc.Dim("N", 1, 64))) if k.strategy.startswith("with ")]
    assert left.phases
    assert not [k for k in _kernels(_pair(64)) if k.strategy.startswith("with ")]


def test_not_if_the_matrix_is_read_in_between() -> None:
    """A weight used twice has one update, of the sum: nothing to share."""
    x = bc.input("x", (4, 18))
    layer = bc.Linear(18)
    y = layer(bc.tanh(layer(bc.Linear(18)(x))))
    model = bc.Model(outputs={}, loss=bc.square_loss(y, bc.input("t", y.shape)))
    strategies = [k.strategy for k in _kernels(model)]
    assert strategies.count("one reading, with the update") == 0
