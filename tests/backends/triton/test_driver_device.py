"""Programs compiled ahead of time meet a driver that records what it is asked to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import brickc as bc
from brickc.backends.base import Backend
from brickc.backends.triton.launches import TritonKernel
from brickc.driver import Function, compile_model
from brickc.ir.kernel.choices import Choice, kernel_key

pytest.importorskip("triton")

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler for the stand-in")

SOURCE = Path(__file__).resolve().parents[2] / "support" / "fake_driver.c"

CHILD = """
import json, sys
import numpy as np
try:
    import model
    p = model.load()
except Exception as error:
    assert type(error).__name__ == "ModelError"
    print(json.dumps({"error": str(error)}))
    sys.exit()
before = p.state_dict()
fresh = {n: np.arange(v.size, dtype=v.dtype).reshape(v.shape) + 1 for n, v in before.items()}
p.load_state_dict(fresh)
after = p.state_dict()
same = all(np.array_equal(after[n], fresh[n]) for n in fresh)
steps = int(sys.argv[1])
try:
    x, t = np.arange(384, dtype="f4").reshape(3, 2, 8, 8), np.zeros(3, "i4")
    if steps:
        x, t = np.stack([x + 1000 * k for k in range(steps)]), np.stack([t] * steps)
    train = p.train_steps if steps else p.train_step
    loss = train(x=x, t=t)["loss"].tolist()
    train(x=x, t=t)
except model.ModelError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()
(bound,) = p._bound.values()
staged = bool(np.array_equal(bound[0].inputs["x"].copy(), x))
launches = [[name, programs, [(m.block.value, at) for m, at, _ in pointers], list(sizes)]
            for name, programs, pointers, sizes in bound[0].launches]
print(json.dumps({"same": same, "loss": loss, "launches": launches, "staged": staged,
                  "kernels": model.KERNELS, "peak": p.peak_bytes("train_step", N=3),
                  "arena": p._arena.block.value, "memory": p.memory.block.value}))
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, whose weights do not lie in the model's order of axes."""
    n = bc.Dim("N", 1, 16)
    x, t = bc.input("x", (n, 2, 8, 8)), bc.input("t", (n,), "i32")
    conv = bc.Sequential(bc.Conv2d(4, 3, padding=1), bc.ReLU(), bc.MaxPool(2), bc.Flatten(),
                         bc.Linear(5))  # fmt: skip
    dense = bc.Sequential(bc.Flatten(), bc.Linear(160), bc.Linear(5))
    folder = tmp_path_factory.mktemp("driver")
    for name, layers, form, steps in (
        ("a", conv, "launches", 2), ("b", dense, "persistent", 2),
    ):  # fmt: skip
        y = layers(x)
        model = bc.Model({"logits": y}, bc.softmax_loss(y, t))
        program = bc.compile(model, f"triton:sm_90,{form}", functions=["train_step"],
                             steps_per_launch=steps)  # fmt: skip
        program.save(folder / name)
    # the dense one once more, operands by descriptors
    compiled = compile_model(model, "triton:sm_90,tf32,launches", functions=["train_step"],
                             tune=_by_descriptors)  # fmt: skip
    bc.Program.of(compiled).save(folder / "c")
    assert COMPILER is not None
    command = [COMPILER, "-shared", "-fPIC", "-w", "-o", str(folder / "libcuda.so.1"), str(SOURCE)]
    subprocess.run(command, check=True)
    return folder


def _by_descriptors(chosen: Backend, functions: Mapping[str, Function]) -> dict[str, Choice]:
    """The choice of descriptors wherever there is one."""
    return {
        kernel_key(made.kernel): made.choice.with_("loads", "descriptors")
        for f in functions.values()
        for made in f.kernels
        if isinstance(made, TritonKernel) and "loads" in made.choice.as_dict()
    }


def call(
    artifact: Path, log: Path, *, name: str = "a", steps: int = 0, more: int = 0, **environment: str
) -> dict[str, Any]:
    """What the child found; the log has each kernel's parameters and ``more`` behind them."""
    kernels = json.loads((artifact / name / "kernels" / "resources.json").read_text())
    source = (artifact / name / "kernels.py").read_text()
    counts = ""
    for kernel, takes in kernels.items():
        head = source.split(f"def {kernel}(", 1)[1].split(")", 1)[0]
        counts += f"{takes['symbol']}={len(head.split(',')) + more} "
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    kept |= {"LD_LIBRARY_PATH": str(artifact), "FAKE_LOG": str(log), "FAKE_COUNTS": counts}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(steps)], cwd=artifact / name, env=kept | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_launches_reach_the_driver_as_they_were_planned(artifact: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = call(artifact, log)
    assert found["same"]
    assert found["staged"]
    assert found["loss"] == 0.0  # memory starts at zero, and nothing was run
    lines = [line.split() for line in log.read_text().splitlines()]
    launched = [line[1:] for line in lines if line[0] == "launch"]
    assert len(launched) == len(found["launches"]) > 10
    assert [line[0] for line in lines].count("graph") == 2  # recorded once, started twice
    allocated = {int(line[1]): int(line[2]) for line in lines if line[0] == "alloc"}
    assert allocated[found["arena"]] == found["peak"]
    assert {found["arena"], found["memory"]} <= {m for x in found["launches"] for m, _ in x[2]}
    for line, (name, programs, pointers, sizes) in zip(launched, found["launches"], strict=True):
        _, _, threads, shared, scratch, file, symbol = found["kernels"][name]
        assert scratch == 0
        assert line[:4] == [symbol, str(programs), str(threads), str(shared)]
        assert (artifact / "a" / file).read_bytes()[:4] == b"\x7fELF"
        given = list(map(int, line[4:]))
        assert len(given) == len(pointers) + len(sizes)
        for value, (block, at) in zip(given, pointers, strict=False):
            assert value == block + at
            assert at < allocated[block]
        assert [v % 2**32 for v in given[len(pointers) :]] == sizes
        assert all(size == 3 for size in sizes)


def test_descriptors_are_made_in_scratch_memory(artifact: Path, tmp_path: Path) -> None:
    """One block of memory for all launches of the graph, as large as the largest of them needs."""
    log = tmp_path / "log"
    found = call(artifact, log, name="c", more=2)
    lines = [line.split() for line in log.read_text().splitlines()]
    launched = [list(map(int, line[5:])) for line in lines if line[0] == "launch"]
    allocated = {int(line[1]): int(line[2]) for line in lines if line[0] == "alloc"}
    needs = {name: row[4] for name, row in found["kernels"].items()}
    wanted = [needs[name] * programs for name, programs, *_ in found["launches"]]
    assert sum(map(bool, wanted)) >= 4
    places = set()
    for given, bytes_ in zip(launched, wanted, strict=True):
        *_, scratch, profile = given
        assert profile == 0
        assert (scratch != 0) == (bytes_ != 0)
        if scratch:
            places.add(scratch)
            assert scratch % 16 == 0
    (place,) = places
    assert allocated[place] == max(wanted)
    assert place not in {found["arena"], found["memory"]}


def test_several_steps_are_one_graph(artifact: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = call(artifact, log, steps=2)
    assert found["staged"]
    assert found["loss"] == [0.0, 0.0]
    words = [line.split()[0] for line in log.read_text().splitlines()]
    assert words.count("graph") == 2
    assert words.count("launch") == len(found["launches"])
    half = len(found["launches"]) // 2
    one, other = found["launches"][:half], found["launches"][half:]
    assert [x[0] for x in one] == [x[0] for x in other]
    # arguments and results of the second step lie elsewhere, everything else is the same
    moved = {
        at - before
        for a, b in zip(one, other, strict=True)
        for (_, before), (_, at) in zip(a[2], b[2], strict=True)
    }
    # x, the labels, the loss: N times a cache line or more, or a cache line
    assert moved == {0, 3 * 2 * 8 * 8 * 4, 3 * 64, 64}


@pytest.mark.parametrize(("resident", "grid"), [(1, 7), (2, 11)])
@pytest.mark.parametrize("steps", [0, 2])
def test_a_persistent_kernel_is_one_cooperative_launch(
    artifact: Path, tmp_path: Path, steps: int, resident: int, grid: int
) -> None:
    """No more programs than run at the same time, none without work; steps are an argument."""
    log = tmp_path / "log"
    found = call(artifact, log, name="b", steps=steps, FAKE_RESIDENT=str(resident))
    assert found["same"]
    assert found["staged"]
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [line[0] for line in lines if line[0] != "alloc"] == ["cooperative", "graph", "graph"]
    (line,) = (line[1:] for line in lines if line[0] == "cooperative")
    ((name, programs, pointers, sizes),) = found["launches"]
    _, _, threads, shared, _, _, symbol = found["kernels"][name]
    assert programs == 11
    assert line[:4] == [symbol, str(grid), str(threads), str(shared)]
    given = list(map(int, line[4:]))
    assert given[: len(pointers)] == [block + at for block, at in pointers]
    assert [v % 2**32 for v in given[len(pointers) :]] == sizes == [3, max(steps, 1)]
    assert found["loss"] == ([0.0] * steps if steps else 0.0)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"FAKE_FAIL": "cooperative"}, "cannot start programs that wait for one another"),
        ({"FAKE_RESIDENT": "0"}, "the kernel does not fit this GPU"),
    ],
)
def test_a_persistent_kernel_that_cannot_run_says_so(
    artifact: Path, tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    assert said in call(artifact, tmp_path / "log", name="b", **environment)["error"]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"FAKE_SM": "80"}, "sm_80, compiled for sm_90"),
        ({"FAKE_SM": "100"}, "sm_100, compiled for sm_90"),
        ({"FAKE_FAIL": "cuModuleLoadData"}, "driver failed in cuModuleLoadData; got status 999"),
        ({"FAKE_FAIL": "cuMemAlloc_v2"}, "driver failed in cuMemAlloc_v2"),
    ],
)
def test_what_cannot_run_says_so(
    artifact: Path, tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    assert said in call(artifact, tmp_path / "log", **environment)["error"]
