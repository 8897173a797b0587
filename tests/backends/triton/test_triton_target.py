"""Target triton: trained through the interpreter, compiled ahead of time, refused without a GPU."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brickc as bc
from brickc.backends.triton.options import parse
from brickc.driver import compile_model
from brickc.errors import UnsupportedError
from brickc.runtime.artifact import load, verify
from brickc.runtime.data.digits import digits

pytest.importorskip("triton")


def steps(target: str, x: Any, t: Any, count: int, batch: int) -> list[float]:
    """Losses of the first training steps."""
    program = bc.compile(
        bc.zoo.model("lenet5"), target, optimizer=bc.SGD(0.1, momentum=0.9),
        functions=["train_step"], seed=3,
    )  # fmt: skip
    cut = [slice(k * batch, (k + 1) * batch) for k in range(count)]
    return [float(program.train_step(x=x[c], t=t[c])["loss"]) for c in cut]


def test_lenet5_follows_numpys_losses_on_digits() -> None:
    data = digits().fit_to((1, 32, 32))
    x, t = data.train.x[:20], data.train.t[:20]
    wanted = steps("numpy", x, t, 5, 4)
    np.testing.assert_allclose(steps("triton", x, t, 5, 4), wanted, rtol=1e-4)
    assert len(set(wanted)) == 5


def test_equal_kernels_are_one() -> None:
    compiled = compile_model(bc.zoo.model("lenet5"), "triton:launches", optimizer=bc.SGD(0.1))
    text = str(compiled.sources["kernels.py"])
    launches = str(compiled.sources["model.py"]).count('"), ')
    assert text.count("_tile(tile, ") < 0.7 * launches


# ── artifacts ────────────────────────────────────────────────────────────────────────────────


def alone(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in the artifact's folder, without the interpreter of Triton unless asked for."""
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=kept, capture_output=True, text=True, check=False
    )  # fmt: skip


def small_model() -> Any:
    n = bc.Dim("N", 1, 16)
    x, t = bc.input("x", (n, 6)), bc.input("t", (n,), "i32")
    y = bc.Sequential(bc.Linear(5), bc.Tanh(), bc.Linear(3))(x)
    return bc.Model({"logits": y}, bc.softmax_loss(y, t))


CALL = """
import numpy as np, model
p = model.load()
print(sorted(p.state_dict())[:2])
try:
    print(p.train_step(x=np.ones((2, 6), "f4"), t=np.zeros(2, "i4"))["loss"])
except model.ModelError as error:
    print("ModelError:", error)
"""


def test_artifact_runs_through_the_interpreter(tmp_path: Path) -> None:
    program = bc.compile(small_model(), "triton", seed=1)
    program.save(tmp_path / "a")
    assert max(verify(tmp_path / "a").values()) < 1e-6
    done = alone(tmp_path / "a", CALL, TRITON_INTERPRET="1")
    want = bc.compile(small_model(), "numpy", seed=1).train_step(
        x=np.ones((2, 6), "f4"), t=np.zeros(2, "i4")
    )
    assert float(done.stdout.splitlines()[1]) == pytest.approx(float(want["loss"]), rel=1e-5)


@pytest.mark.parametrize("target", ["triton", "triton:sm_90,bf16", "triton:gfx942,f16"])
def test_without_a_gpu_it_compiles_and_says_why_it_cannot_run(target: str, tmp_path: Path) -> None:
    if Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists():
        pytest.skip("there is a GPU")
    folder = tmp_path / "a"
    code = (
        "import brickc as bc, sys; sys.path.insert(0, sys.argv[1]) if len(sys.argv) > 1 else None\n"
        f"n = bc.Dim('N', 1, 16)\nx, t = bc.input('x', (n, 6)), bc.input('t', (n,), 'i32')\n"
        "y = bc.Sequential(bc.Linear(5), bc.Tanh(), bc.Linear(3))(x)\n"
        "m = bc.Model({'logits': y}, bc.softmax_loss(y, t))\n"
        f"bc.compile(m, {target!r}, seed=1).save({str(folder)!r})\n"
    )
    done = alone(tmp_path, code)
    assert done.returncode == 0, done.stderr
    done = alone(folder, CALL)
    assert done.returncode == 0, done.stderr
    state, said = done.stdout.splitlines()
    assert "bias" in state
    assert said.startswith("ModelError: this program cannot run here")
    assert "numpy" in said
    # what the interpreter of the graph says it gives lies in the artifact
    golden = load(folder)
    assert golden.cannot_run or target == "triton"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["target"] == target
    assert "golden.safetensors" in manifest["files"]
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_options() -> None:
    assert parse("").architecture is None
    assert parse("sm_80,bf16").precision == "bf16"
    assert parse("f16").precision == "f16"
    with pytest.raises(UnsupportedError, match="bf16, f16"):
        parse("f8")
    with pytest.raises(UnsupportedError, match="sm_90"):
        parse("sm_75")


@pytest.mark.parametrize(("precision", "part"), [("tf32", 1e-5), ("bf16", 2e-2), ("f16", 2e-3)])
def test_precisions_run(precision: str, part: float) -> None:
    """The interpreter forms tf32 products in full f32; halves are rounded there too."""
    x = np.random.default_rng(0).standard_normal((8, 6)).astype("f4")
    t = np.arange(8, dtype="i4") % 3
    rounded = bc.compile(small_model(), f"triton:{precision}", seed=1)
    whole = bc.compile(small_model(), "numpy", seed=1)
    np.testing.assert_allclose(
        rounded.infer(x=x)["logits"], whole.infer(x=x)["logits"], rtol=part, atol=part
    )
    assert rounded.train_step(x=x, t=t)["loss"] == pytest.approx(
        float(whole.train_step(x=x, t=t)["loss"]), rel=part
    )
