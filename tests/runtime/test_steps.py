"""Several training steps at a time: the trainer's groups, the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

import brickc as bc
from brickc.cli import app
from brickc.runtime.trainer import Trainer
from brickc.training import ModelData


def model() -> Any:
    x = bc.input("x", (bc.Dim("N", 1, 512), 64))
    t = bc.input("t", (bc.Dim("N", 1, 512),), "i32", limit=10)
    y = bc.Linear(10)(bc.dropout(bc.Linear(16)(x), 0.5))
    return bc.Model({"y": y}, bc.softmax_loss(y, t))


class Counted:
    """A program that notes how it is called."""

    def __init__(self, program: Any) -> None:
        self.program = program
        self.calls: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.program, name)

    def train_step(self, **inputs: Any) -> Any:
        self.calls.append(1)
        return self.program.train_step(**inputs)

    def train_steps(self, **inputs: Any) -> Any:
        self.calls.append(len(inputs["t"]))
        return self.program.train_steps(**inputs)


def train(steps: int, **options: Any) -> tuple[list[int], list[float], list[tuple[int, int]]]:
    """How the program was called, the epochs' losses, and what progress was told."""
    program = Counted(bc.compile(model(), optimizer=bc.SGD(0.1), seed=1, steps_per_launch=steps))
    source = ModelData.of(model(), bc.data.load("digits"), 256, 1)
    told: list[tuple[int, int]] = []
    trainer = Trainer(program, source, lambda e, s, n, loss: told.append((e, s)), **options)
    return program.calls, [e.loss for e in trainer.run(2)], told


def test_groups_of_steps_change_nothing(tmp_path: Path) -> None:
    one, losses, told = train(1)
    assert one == [1] * 12  # six batches an epoch, the last one smaller
    for steps, calls in ((2, [2, 2, 1, 1] * 2), (5, [5, 1] * 2), (6, [1] * 12)):
        assert train(steps) == (calls, losses, told)
    # a checkpoint is written where it was asked for: between groups
    calls, found, _ = train(2, checkpoint=tmp_path / "c", every=3)
    assert (calls, found) == ([2, 1, 2, 1] * 2, losses)
    # a schedule is asked before each step
    rates: list[int] = []
    calls, found, _ = train(3, schedule=lambda program, step: rates.append(step))
    assert (calls, found, rates) == ([1] * 12, losses, list(range(12)))


def test_command_line(tmp_path: Path) -> None:
    runner = CliRunner()
    folder = tmp_path / "a"
    done = runner.invoke(app, ["compile", "zoo:mlp", "-o", str(folder), "--steps-per-launch", "4",
                               "--function", "train_step"])  # fmt: skip
    assert done.exit_code == 0, done.output
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["functions"]["train_step"]["steps_per_launch"] == 4
    losses = bc.load(folder).train_steps(
        x=np.zeros((2, 3, 784), "f4"), t=np.zeros((2, 3), "i4")
    )["loss"]  # fmt: skip
    assert losses.shape == (2,)
    assert losses[1] < losses[0]
    done = runner.invoke(app, ["train", "zoo:mlp", "--steps-per-launch", "8", "--epochs", "1",
                               "--json"])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["history"][0]["accuracy"] > 0.5
    done = runner.invoke(app, ["train", "zoo:mlp", "--steps-per-launch", "0"])
    assert done.exit_code == 2


def test_explanations_of_other_targets_speak_of_no_launches() -> None:
    done = CliRunner().invoke(app, ["explain", "zoo:mlp"])
    assert done.exit_code == 0
    assert "stages)" not in done.stdout
