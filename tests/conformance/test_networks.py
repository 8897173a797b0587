"""Whole networks: one compiled training step against the interpreter and against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

import brickc as bc
from brickc.driver import compile_model
from brickc.frontends.model import Model
from brickc.ir.interpret import interpret
from brickc.program import Program

pytestmark = pytest.mark.parametrize("target", TARGETS)


def step_agrees(model: Model, target: str, batches: tuple[int, ...], part: float) -> None:
    """Loss and all updates of some steps equal the training graph before target passes."""
    compiled = compile_model(
        model, target, optimizer=bc.SGD(0.05, momentum=0.9), functions=["train_step"]
    )
    program = Program.of(compiled)
    reference = compiled.functions["train_step"].stages["join optimizer"]
    rng = np.random.default_rng(3)
    types = {n: reference.node(i).type for n, i in reference.inputs.items()}
    for rows in batches:
        feeds: dict[str, Any] = {}
        for name, type in types.items():
            shape = type.concrete({"N": rows})
            feeds[name] = (
                rng.standard_normal(shape).astype(type.dtype.numpy)
                if type.dtype.is_float
                else rng.integers(0, model.label_limit(name), shape).astype(type.dtype.numpy)
            )
        want = interpret(reference, {**feeds, **program.state_dict()})
        got = program.train_step(**feeds)
        np.testing.assert_allclose(got["loss"], want["loss"], rtol=part, atol=part)
        after = program.state_dict()
        for name, value in want.updates.items():
            scale = float(np.abs(value).max(initial=0.0))
            np.testing.assert_allclose(
                after[name], value, rtol=part, atol=part * scale, err_msg=name
            )


@st.composite
def networks(draw: st.DrawFn) -> Model:
    """Convolutions, pools, activations, branches that meet again; then a classifier."""
    height, width, channels = (
        draw(st.integers(6, 10)),
        draw(st.integers(6, 10)),
        draw(st.integers(1, 3)),
    )
    y = bc.input("x", (bc.Dim("N", 1, 8), channels, height, width), "f64")
    t = bc.input("t", (bc.Dim("N", 1, 8),), "i32", limit=4)
    for k in range(draw(st.integers(1, 4))):
        small = min(int(s) for s in y.shape[2:])
        kinds = ["conv", "branches", "residual", "activation"] + ["pool"] * (small >= 4)
        kind = draw(st.sampled_from(kinds))
        window = draw(st.integers(1, min(3, small)))
        if kind == "conv":
            stride, pad = draw(st.integers(1, 2)), draw(st.integers(0, window - 1))
            y = bc.Conv2d(
                draw(st.integers(1, 5)), window, stride=stride, padding=pad, name=f"c{k}"
            )(y)
        elif kind == "pool":
            pool = draw(st.sampled_from([bc.MaxPool, bc.MeanPool]))
            y = pool(draw(st.integers(2, 3)), draw(st.integers(1, 2)))(y)
        elif kind == "branches":
            parts = [bc.Conv2d(n, w, padding=w // 2, name=f"b{k}{w}")(y)
                     for n, w in ((2, 1), (3, 3))]  # fmt: skip
            y = bc.concat(parts, 1)
        elif kind == "residual":
            y = y + bc.Conv2d(int(y.shape[1]), 3, padding=1, name=f"r{k}")(bc.Tanh()(y))
        else:
            y = draw(st.sampled_from([bc.Tanh, bc.ReLU, bc.Logistic]))()(y)
    y = bc.Linear(4, name="out")(bc.Flatten()(y))
    return Model({"logits": y}, bc.softmax_loss(y, t), name="random")


@given(model=networks())
@settings(max_examples=12)
def test_random_networks(target: str, model: Model) -> None:
    step_agrees(model, target, (3, 1, 8), 1e-10)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "lenet"])
def test_zoo_equals_the_interpreter(target: str, name: str) -> None:
    step_agrees(bc.zoo.model(name, dtype="f64"), target, (2, 3), 1e-10)


@pytest.mark.slow
# googlenet in f32 is compared with torch alone: where two elements of a pooling window are equal
# up to rounding, another order of summation picks another winner
@pytest.mark.parametrize(
    ("name", "dtype", "part"),
    [("googlenet", "f64", 1e-9), ("alexnet", "f64", 1e-9), ("alexnet", "f32", 1e-4)],
)
def test_large_networks_equal_the_interpreter(
    target: str, name: str, dtype: str, part: float
) -> None:
    if target == "triton":
        pytest.skip(
            "Triton's interpreter takes many minutes; the random networks have the same kernels"
        )
    if target == "c" and name == "googlenet":
        pytest.skip(
            "minutes of the C compiler; AlexNet and the random networks have the same kernels"
        )
    step_agrees(bc.zoo.model(name, dtype=dtype), target, (1,), part)
