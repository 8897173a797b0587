"""The loop over tiles of products: every way of walking them computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import brickc as bc
from brickc.backends.triton.options import ARCHITECTURES
from brickc.backends.triton.strategies import tiles
from brickc.backends.triton.strategies.tiles import Blocks, Operands, Problem
from brickc.driver import compile_model
from brickc.ir.dtypes import DType
from brickc.ir.kernel.choices import Picks

pytest.importorskip("triton")


def stepped(model: Any, target: str, x: Any, t: Any) -> dict[str, Any]:
    """Parameters after a training step, and the loss."""
    program = bc.compile(model, target, functions=["train_step"], seed=2)
    loss = program.train_step(x=x, t=t)["loss"]
    return {"loss": loss, **program.parameters()}


def agrees(model: Any, x: Any, blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> str:
    """Products in these tiles against NumPy's; the kernels' text."""
    t = np.arange(len(x), dtype="i4") % 5
    want = stepped(model, "numpy", x, t)
    monkeypatch.setattr(tiles, "_for_tensor_cores", lambda *_: blocks)
    got = stepped(model, "triton:tf32", x, t)
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-4, atol=2e-5, err_msg=name)
    return str(compile_model(model, "triton:tf32", functions=["train_step"]).sources["kernels.py"])


def linear(batch: int, width: int) -> Any:
    x, t = bc.input("x", (batch, 24)), bc.input("t", (batch,), "i32", limit=5)
    y = bc.Sequential(bc.Linear(width), bc.Tanh(), bc.Linear(5))(x)
    return bc.Model({"y": y}, bc.softmax_loss(y, t))


def convolution(stride: int, groups: int = 1) -> Any:
    x, t = bc.input("x", (2, 2, 4, 5)), bc.input("t", (2,), "i32", limit=5)
    y = bc.Sequential(
        bc.Conv2d(32, 3, padding=1), bc.Tanh(),
        bc.Conv2d(6, 3, padding=1, stride=stride, groups=groups), bc.Flatten(), bc.Linear(5),
    )(x)  # fmt: skip
    return bc.Model({"y": y}, bc.softmax_loss(y, t))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("swap", [False, True])
def test_products(swap: bool, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((19, 24)).astype("f4")
    blocks = Blocks(16, 32, 16, 4, 3, parts, swap)
    text = agrees(linear(19, 40), x, blocks, monkeypatch)
    assert ("parts" in text) == (parts > 1)


@pytest.mark.parametrize(
    ("swap", "parts", "stride", "groups"), [(False, 1, 1, 1), (True, 2, 2, 1), (True, 1, 1, 2)]
)
def test_convolutions(
    swap: bool, parts: int, stride: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).standard_normal((2, 2, 4, 5)).astype("f4")
    blocks = Blocks(16, 32, 16, 4, 3, parts, swap)
    text = agrees(convolution(stride, groups), x, blocks, monkeypatch)
    assert "rest" in text  # 32 channels: a step of 16 lies within one place of the window
    assert "tf32(" in text


def test_many_tiles_are_walked_in_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((150, 24)).astype("f4")
    text = agrees(linear(150, 152), x, Blocks(16, 16, 32, 4, 3), monkeypatch)
    assert "height" in text


# ── the cost model ───────────────────────────────────────────────────────────────────────────


def chosen(
    m: int, n: int, k: int, dtype: DType = DType.F32, architecture: str = "sm_90",
    along: tuple[bool, bool] = (True, True), reads_more: bool = False,
) -> Blocks:  # fmt: skip
    options = tiles.Options(ARCHITECTURES[architecture], "tf32")
    operands = Operands(dtype, *along, reads_more=reads_more)
    return tiles.choose(Problem((), (m,), (n,), (k,)), operands, options, Picks())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [DType.F32, DType.BF16])
@pytest.mark.parametrize("sizes", [(100_000, 64, 576), (64, 4096, 9216), (384, 1728, 21_632),
                                   (16, 10, 300), (4096, 4096, 4096), (8, 100_000, 27)])  # fmt: skip
def test_tiles_fit(sizes: tuple[int, int, int], dtype: DType, architecture: str) -> None:
    for reads_more in (False, True):
        b = chosen(*sizes, dtype, architecture, reads_more=reads_more)
        few = b.parts == 1 and (reads_more or architecture == "sm_80")
        assert b.m * b.n // (32 * b.warps) <= (64 if few else 128)
        lanes = ARCHITECTURES[architecture].warp
        assert min(b.m, b.n) * b.k * dtype.itemsize >= 16 * lanes * b.warps or b.m >= 64
        held = b.stages - (architecture == "gfx942")
        assert (b.m + b.n) * b.k * dtype.itemsize * held <= ARCHITECTURES[architecture].shared
        assert b.k * dtype.itemsize <= 128
        assert b.k >= 16
        assert 1 <= b.parts <= 64
        # a group of warps multiplies 64 rows
        if architecture == "sm_90" and max(sizes[:2]) >= 64:
            assert b.m >= 64


def test_long_sums_of_few_tiles_are_split() -> None:
    assert chosen(384, 1728, 21_632).parts > 1
    assert chosen(100_000, 256, 576).parts == 1


def test_operands_that_lie_across_the_sum_are_rows_in_tf32() -> None:
    assert chosen(1000, 512, 512, along=(True, False)).swap
    assert not chosen(1000, 512, 512, along=(False, True)).swap
    assert not chosen(1000, 512, 512, DType.BF16, along=(True, False)).swap
    assert not chosen(1000, 512, 512, architecture="sm_80", along=(True, False)).swap
    assert chosen(16, 512, 512).swap  # 64 rows at once
