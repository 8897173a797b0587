"""Artifacts in a process that has no brickc: same losses, little time, clear errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import brickc as bc

ALONE = """
import sys, json

class OnlyNumPy:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"brickc", "networkx", "sympy", "safetensors", "torch", "scipy"}:
            raise ImportError(f"{name} is not to be had here")

sys.meta_path.insert(0, OnlyNumPy())
import numpy as np
sys.path.insert(0, sys.argv[1])
import time
started = time.perf_counter()
import model
draw, model.sample = model.sample, None  # loading draws no value that the file has anyway
p = model.load()
model.sample = draw
data = np.load(sys.argv[2])
first = float(p.train_step(x=data["x"][0], t=data["t"][0])["loss"])
seconds = time.perf_counter() - started
losses = [first] + [
    float(p.train_step(x=x, t=t)["loss"]) for x, t in zip(data["x"][1:], data["t"][1:])
]
logits = p.infer(x=data["x"][0])["logits"]
p.save(sys.argv[3])
print(json.dumps({"losses": losses, "logits": logits.tolist(), "seconds": seconds,
                  "arena": p.arena_bytes, "peak": p.peak_bytes("train_step", N=16)}))
"""


@pytest.mark.parametrize("target", ["numpy", "c"])
def test_the_same_losses_without_brickc(tmp_path: Path, target: str) -> None:
    program = bc.compile(bc.zoo.model("lenet5"), target, optimizer=bc.SGD(0.05, momentum=0.9))
    program.save(tmp_path / "artifact")
    rng = np.random.default_rng(0)
    # one batch over and over, so that the losses fall
    x = np.repeat(rng.standard_normal((1, 16, 1, 32, 32)).astype(np.float32), 12, 0)
    t = np.repeat(rng.integers(0, 10, (1, 16)).astype(np.int32), 12, 0)
    np.savez(tmp_path / "data.npz", x=x, t=t)
    (tmp_path / "alone.py").write_text(ALONE)
    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "alone.py", tmp_path / "artifact",
         tmp_path / "data.npz", tmp_path / "trained"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alone = json.loads(done.stdout)
    losses = [float(program.train_step(x=a, t=b)["loss"]) for a, b in zip(x, t, strict=True)]
    np.testing.assert_allclose(alone["losses"], losses, rtol=1e-5)
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(alone["logits"], program.infer(x=x[0])["logits"], atol=1e-5)
    assert alone["arena"] == alone["peak"]
    trained = bc.load(tmp_path / "trained").state_dict()
    for name, value in program.state_dict().items():
        np.testing.assert_allclose(trained[name], value, rtol=1e-4, atol=1e-6)


def test_the_arena_is_exactly_the_planned_peak() -> None:
    program = bc.compile(bc.zoo.model("lenet5"), functions=["train_step"])
    x, t = np.zeros((1, 1, 32, 32), np.float32), np.zeros(1, np.int32)
    for n in (1, 7, 64):
        program.train_step(x=np.repeat(x, n, 0), t=np.repeat(t, n))
        assert program.arena_bytes == program.peak_bytes("train_step", N=n)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    import pytest

    program = bc.compile(bc.zoo.model("mlp"), functions=["train_step"])
    x = np.full((2, 784), np.nan, np.float32)
    with pytest.raises(bc.BrickcError, match="not finite"):
        program.train_step(x=x, t=np.zeros(2, np.int32))
