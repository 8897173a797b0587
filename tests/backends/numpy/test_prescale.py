"""The learning rate scales the small operand of a weight gradient, not the gradient."""

from __future__ import annotations

import re

import numpy as np
import pytest

import brickc as bc
from brickc.driver import compile_model


def _model(batch: bc.Dim | int, width: int) -> bc.Model:
    x = bc.input("x", (batch, 48), "f64")
    y = bc.Sequential(bc.Linear(width), bc.Tanh(), bc.Linear(3))(x)
    return bc.Model(outputs={}, loss=bc.square_loss(y, bc.input("t", y.shape, "f64")))


def _update(source: str, weight: str) -> list[str]:
    """The calls of the kernel that updates ``weight``, without their arguments."""
    (body,) = [
        part for part in source.split("\n\n") if re.search(rf"subtract\({weight}\w*, ", part)
    ]
    return re.findall(r"^ *np\.(\w+)\(", body, re.MULTILINE)


def test_one_pass_over_a_large_gradient() -> None:
    program = bc.compile(_model(bc.Dim("N", 1, 8), 64), "numpy", optimizer=bc.SGD(0.1))
    source = program.source[program.source.index("def bind_train_step") :]
    assert _update(source, "linear1_weight") == ["multiply", "matmul", "subtract"]
    assert re.search(r"multiply\(\w+, optimizer_lr\w*, out=\w+_scaled\w*\)", source)


def test_a_small_gradient_takes_the_factor_itself() -> None:
    program = bc.compile(_model(bc.Dim("N", 64, 128), 4), "numpy", optimizer=bc.SGD(0.1))
    source = program.source[program.source.index("def bind_train_step") :]
    assert "_scaled" not in source
    assert _update(source, "linear1_weight") == ["matmul", "multiply", "subtract"]


@pytest.mark.parametrize(
    "optimizer",
    [bc.SGD(0.1), bc.SGD(0.1, momentum=0.9, nesterov=True), bc.SGD(0.1, weight_decay=0.01),
     bc.Adam(0.01)],
    ids=["sgd", "nesterov", "decay", "adam"],
)  # fmt: skip
def test_agrees_with_the_interpreter(optimizer: bc.Optimizer) -> None:
    """Two steps of the compiled program beside the graph's own evaluation."""
    from brickc.ir.interpret import interpret

    model = _model(3, 64)
    compiled = compile_model(model, "numpy", optimizer=optimizer, functions=["train_step"])
    program = bc.compile(model, "numpy", optimizer=optimizer, seed=4)
    rng = np.random.default_rng(1)
    feed = {name: rng.standard_normal(kind.concrete({})) for name, kind in model.inputs.items()}
    graph = compiled.functions["train_step"].stages["join optimizer"]
    leaves = program.state_dict()
    for _ in range(2):
        expected = interpret(graph, feed, leaves)
        assert program.train_step(**feed)["loss"] == pytest.approx(expected.outputs["loss"])
        leaves = {**leaves, **expected.updates}
    for name, value in program.state_dict().items():
        np.testing.assert_allclose(value, leaves[name], rtol=1e-11, atol=1e-13)
