"""One seed for parameters and dropout: the same numbers everywhere, and exact continuation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance import TARGETS

import brickc as bc
from brickc.frontends.load import load_model
from brickc.ir.interpret import interpret
from brickc.ir.printer import print_graph
from brickc.runtime.trainer import Trainer
from brickc.training import ModelData

X = np.ones((4, 64), np.float32)


def _model() -> bc.Model:
    """The loss is the sum of what dropout keeps: each step shows its mask's size."""
    x, w = bc.input("x", (4, 64)), bc.parameter("w", (64,), bc.gaussian(0.1))
    kept = bc.dropout(x, 0.5)
    return bc.Model({"y": x * w}, (kept * bc.literal(np.arange(64, dtype="f4"))).sum() + w.sum())


def _losses(program: Any, count: int) -> list[float]:
    return [float(program.train_step(x=X)["loss"]) for _ in range(count)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", [0, 7, 2**40 + 3, -1, 2**64 + 5])
def test_the_program_s_seed_is_dropout_s(target: str, seed: int) -> None:
    program = bc.compile(_model(), target, functions=["train_step"], seed=seed)
    state = program.state_dict()
    bits = seed & (2**64 - 1)
    assert state["random.seed"] == np.uint64(bits).astype(np.int64)
    assert state["random.counter"] == 0
    graph = _model().training()
    leaves = {n: state[n] for n in graph.parameters | graph.states}
    values = interpret(graph, {"x": X, **leaves}).outputs
    np.testing.assert_allclose(_losses(program, 1)[0], values["loss"], rtol=1e-6)


@pytest.mark.parametrize("target", ["numpy", "c"])
def test_seeds_differ_and_repeat(target: str) -> None:
    first, again, other = (
        bc.compile(_model(), target, functions=["train_step"], seed=s) for s in (1, 1, 2)
    )
    start = _losses(first, 4)
    assert start == _losses(again, 4)
    assert start != _losses(other, 4)
    other.init(1)  # parameters, seed and counter
    assert start == _losses(other, 4)


def test_artifacts_go_on_exactly(tmp_path: Path) -> None:
    program = bc.compile(_model(), seed=11)
    _losses(program, 3)
    program.save(tmp_path / "artifact")
    loaded = bc.load(tmp_path / "artifact")
    assert loaded.state_dict()["random.seed"] == 11
    assert _losses(loaded, 3) == _losses(program, 3)


def test_training_resumes_exactly(tmp_path: Path) -> None:
    def run(seed: int, epochs: tuple[int, ...], folder: Path | None) -> list[float]:
        found: list[float] = []
        for count in epochs:  # a new program each time, as after a crash
            x = bc.input("x", (bc.Dim("N", 1, 512), 64))
            t = bc.input("t", (bc.Dim("N", 1, 512),), "i32", limit=10)
            y = bc.Linear(10)(bc.dropout(bc.Linear(16)(x), 0.5))
            model = bc.Model({"y": y}, bc.softmax_loss(y, t))
            program = bc.compile(model, seed=seed)
            source = ModelData.of(model, bc.data.load("digits"), 256, seed)
            found += [e.loss for e in Trainer(program, source, checkpoint=folder).run(count)]
        return found

    whole = run(3, (2,), None)
    parts = run(3, (1, 2), tmp_path / "checkpoint")
    assert whole[-1] == parts[-1]
    assert whole != run(4, (2,), None)


def test_programs_of_before_keep_their_seed_of_zero(tmp_path: Path) -> None:
    """Their text says constant(0,0), and their artifacts bring their own first values."""
    text = print_graph(_model().graph())
    assert "seed(0.0,0.0)" in text
    (tmp_path / "old.ir").write_text(text.replace("seed(0.0,0.0)", "constant(0.0,0.0)"))
    old = bc.compile(load_model(str(tmp_path / "old.ir")), seed=9)
    assert old.state_dict()["random.seed"] == 0
    old.save(tmp_path / "artifact")
    assert _losses(bc.load(tmp_path / "artifact"), 2) == _losses(old, 2)
