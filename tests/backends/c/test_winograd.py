"""Winograd's convolutions: exact in structure, and as close to exact results as is said."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import brickc as bc
from brickc.backends.c.strategies import winograd, winograd_grad
from brickc.backends.c.strategies.cook_toom import transform
from brickc.driver import compile_model
from brickc.errors import UsageError
from brickc.ir.kernel.loops import LoopKernel


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (2, 5), (3, 2), (6, 3)])
def test_the_matrices_are_exact(m: int, r: int) -> None:
    t = transform(m, r)
    data = [Fraction(7 * k * k - 3 * k + 2, 5) for k in range(t.size)]
    taps = [Fraction(k * k - 4, 3) for k in range(r)]

    def times(matrix: Any, vector: list[Fraction]) -> list[Fraction]:
        return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0))
                for row in matrix]  # fmt: skip

    products = [a * b for a, b in zip(times(t.filter, taps), times(t.data, data), strict=True)]
    expected = [sum(data[i + k] * taps[k] for k in range(r)) for i in range(m)]
    assert times(t.output, products) == expected


@dataclass(frozen=True)
class Case:
    channels: int
    rows: int
    height: int
    width: int
    padding: int
    groups: int = 1


#: tails of rows, channels, columns, tiles and vectors; no padding, some, and more than the kernel
#: needs; groups
CASES = [Case(5, 7, 9, 11, 1), Case(70, 102, 4, 5, 0), Case(4, 6, 8, 7, 2, 2)]


def _model(batch: bc.Dim | int, cases: list[Case], dtype: str) -> bc.Model:
    total: Any = None
    for k, c in enumerate(cases):
        x = bc.input(f"x{k}", (batch, c.channels, c.height, c.width), dtype)
        conv = bc.Conv2d(c.rows, 3, padding=c.padding, groups=c.groups)
        y = bc.Sequential(bc.Conv2d(c.channels, 1), bc.Tanh(), conv, bc.ReLU())(x)
        loss = bc.square_loss(y, bc.input(f"t{k}", y.shape, dtype))
        total = loss if total is None else total + loss
    return bc.Model(outputs={}, loss=total)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Winograd wherever it is possible, and the largest tiles that numerics allow."""
    monkeypatch.setattr(winograd, "GAIN", 0.0)
    monkeypatch.setattr(winograd_grad, "GAIN", 0.0)
    plan = winograd.plans_of
    monkeypatch.setattr(winograd, "plans_of", lambda *a, fast: plan(*a, fast=fast)[-1:])


def _strategies(program: bc.Program) -> list[str]:
    return [
        k.strategy
        for k in program.compiled.functions["train_step"].kernels
        if isinstance(k, LoopKernel) and "Winograd" in k.strategy
    ]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    ("batch", "sizes", "dtype", "numerics", "tile", "bound"),
    [
        (bc.Dim("N", 1, 40), (3, 37), "f32", "strict", "2x2", 3e-6),
        (2, (2,), "f32", "fast", "4x4", 1e-4),
        pytest.param(4, (4,), "f64", "strict", "2x2", 1e-14, marks=pytest.mark.slow),
        pytest.param(8, (8,), "f64", "fast", "4x4", 1e-12, marks=pytest.mark.slow),
        pytest.param(bc.Dim("N", 1, 40), (5, 16), "f32", "fast", "4x4", 1e-4,
                     marks=pytest.mark.slow),
    ],
    ids=["any", "two fast", "four", "eight fast", "any fast"],
)  # fmt: skip
def test_error_against_float64(
    batch: bc.Dim | int,
    sizes: tuple[int, ...],
    dtype: str,
    numerics: str,
    tile: str,
    bound: float,
) -> None:
    """Forward and both gradients, by the loss and by what the step makes of the parameters."""
    cases = CASES if numerics == "strict" and dtype == "f32" else CASES[1:]
    kwargs: dict[str, Any] = {
        "optimizer": bc.SGD(1e-2), "seed": 2, "functions": ["train_step"]
    }  # fmt: skip
    ours = bc.compile(_model(batch, cases, dtype), "c", numerics=numerics, **kwargs)
    exact = bc.compile(_model(batch, cases, "f64"), "numpy", **kwargs)
    strategies = _strategies(ours)
    assert sum(f"F({tile}, 3x3)" in s for s in strategies) == 2 * len(cases)
    # one block of weights is too little for the threads
    blocks = sum(c.channels > 64 or c.rows > 96 or c.groups > 1 for c in cases)
    assert sum("F(3x3, 2x2)" in s for s in strategies) == blocks
    rng = np.random.default_rng(0)
    exact.load_state_dict({n: v.astype(np.float64) for n, v in ours.state_dict().items()})
    for n in sizes:
        feed = {
            name: rng.standard_normal(type.concrete({"N": n})).astype(type.dtype.numpy)
            for name, type in ours.compiled.model.inputs.items()
        }
        wide = {name: value.astype(np.float64) for name, value in feed.items()}
        loss, expected = ours.train_step(**feed)["loss"], exact.train_step(**wide)["loss"]
        assert abs(loss - expected) <= bound * abs(expected)
    mine, other = ours.state_dict(), exact.state_dict()
    for name, value in other.items():
        error = np.abs(mine[name] - value).max() / np.abs(value).max()
        assert error <= bound, name


def test_the_model_of_costs_chooses() -> None:
    """Many channels go by Winograd's; few, strides and other kernels do not; strict has no 4x4."""

    def chosen(conv: bc.Conv2d, channels: int, numerics: str = "strict") -> str:
        x = bc.input("x", (8, channels, 28, 28))
        model = bc.Model(outputs={"y": conv(x)})
        f = compile_model(model, "c:x86-64-v4", numerics=numerics, functions=["infer"])
        (kernel,) = [k for k in f.functions["infer"].kernels if isinstance(k, LoopKernel)]
        return str(kernel.choice.as_dict().get("strategy", kernel.strategy))

    assert chosen(bc.Conv2d(128, 3, padding=1), 128) == "winograd 2x2"
    assert chosen(bc.Conv2d(128, 3, padding=1), 128, "fast") == "winograd 4x4"
    assert chosen(bc.Conv2d(16, 3, padding=1), 3) == "direct"
    assert chosen(bc.Conv2d(128, 3, stride=2), 128).startswith("direct")
    assert chosen(bc.Conv2d(128, 5, padding=2), 128).startswith("direct")


def test_numerics_are_in_the_manifest(tmp_path: Any) -> None:
    x = bc.input("x", (2, 3))
    model = bc.Model(outputs={"y": bc.Linear(3)(x)})
    import json

    for numerics, tolerance in (("strict", 1e-4), ("fast", 1e-3)):
        folder = tmp_path / numerics
        bc.compile(model, "c", numerics=numerics).save(folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["numerics"] == numerics
        assert manifest["tolerances"]["f32"] == tolerance
    with pytest.raises(UsageError, match="strict or fast"):
        bc.compile(model, "c", numerics="loose")
