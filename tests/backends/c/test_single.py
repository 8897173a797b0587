"""Convolutions of a single example with their channels in the lanes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import brickc as bc
from brickc.driver import compile_model
from brickc.ir.kernel.anchors import Convolution
from brickc.ir.kernel.loops import LoopKernel

#: channels in and out, image, kernel, padding, stride, dilation, groups
GEOMETRIES: list[tuple[int, int, tuple[int, ...], int, int, int, int, int]] = [
    (3, 16, (7, 6), 3, 1, 1, 1, 1),
    (4, 50, (6, 9), 3, 0, 1, 1, 2),
    (2, 33, (9, 10), 5, 2, 2, 1, 1),
    (3, 17, (9, 10), 3, 2, 1, 2, 1),
    (2, 9, (5, 5), 1, 0, 1, 1, 1),
    (6, 80, (4, 5), 3, 3, 1, 1, 1),
    (2, 20, (4, 3, 5), 3, 1, 1, 1, 1),
]


def _model(dtype: str) -> bc.Model:
    outputs: dict[str, Any] = {}
    for number, (c, o, size, k, padding, stride, dilation, groups) in enumerate(GEOMETRIES):
        x = bc.input(f"x{number}", (1, c, *size), dtype)
        layer = bc.Conv2d if len(size) == 2 else bc.Conv3d
        y = layer(o, k, padding=padding, stride=stride, dilation=dilation, groups=groups)(x)
        outputs[f"y{number}"] = bc.tanh(y) + x.sum() * 0.1
    return bc.Model(outputs=outputs)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("f64", 1e-12), pytest.param("f32", 2e-5, marks=pytest.mark.slow)]
)
def test_agrees_with_numpy(dtype: str, tolerance: float) -> None:
    model = _model(dtype)
    rng = np.random.default_rng(0)
    feed = {
        name: rng.standard_normal(type.concrete({})).astype(type.dtype.numpy)
        for name, type in model.inputs.items()
    }
    ours, theirs = (
        bc.compile(model, target, seed=2, functions=["infer"]).infer(**feed)
        for target in ("c", "numpy")
    )
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=tolerance, atol=tolerance)


def test_lenet5_reads_weights_where_they_lie() -> None:
    """C3 has more channels than places in a row: no copy of its weights, no turned results."""
    compiled = compile_model(bc.zoo.model("lenet5", batch=1), "c", functions=["infer"])
    kernels = [k for k in compiled.functions["infer"].kernels if isinstance(k, LoopKernel)]
    phases = [len(k.phases) for k in kernels if isinstance(k.kernel.anchor, Convolution)]
    # each is pooled in a phase of its own: channels are the lanes
    assert phases == [3, 2]
