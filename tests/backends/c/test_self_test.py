"""Kernels are compared with their definitions when a library is built."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_kernels import small_network

import brickc as bc
from brickc.backends import c as c_backend
from brickc.driver import compile_model, planned
from brickc.errors import BuildError, InternalError, UnsupportedError
from brickc.ir.kernel.loops import LoopKernel
from brickc.program import Program, describe


def model() -> bc.Model:
    x = bc.input("x", (bc.Dim("N", 1, 64), 5))
    return bc.Model({"y": bc.Tanh(name="twice")(x) * 2})


def layers() -> bc.Model:
    n = bc.Dim("N", 1, 64)
    x, t = bc.input("x", (n, 8)), bc.input("t", (n, 8))
    y = bc.Sequential(bc.Linear(8), bc.Tanh(), bc.Linear(8), bc.Tanh())(x)
    return bc.Model({"y": y}, bc.square_loss(y, t))


def test_says_what_was_tested() -> None:
    compiled = compile_model(layers(), "c")
    report = json.loads(compiled.sources["self_test.json"])
    assert report["tested"]
    assert report["kernels"].keys() == {"infer", "evaluate", "train_step", "infer_single"}
    # the copies of the arguments are kernels too
    step = compiled.functions["train_step"]
    assert report["kernels"]["train_step"] == len(step.kernels) + len(step.program.inputs)
    lanes = c_backend.CBackend.of("").cpu.lanes
    assert report["sizes"]["train_step"] == {"N": lanes + 1}  # a vector and a tail
    results = report["results"]["train_step"]
    assert [r["kernel"] for r in results[-len(step.kernels) :]] == [
        k.name for k in step.program.kernels
    ]
    assert all(r["elements"] > 0 for r in results)
    # products are sums in another order: an error, but a small one
    own = zip(step.program.kernels, results[-len(step.kernels) :], strict=True)
    products = [r["error"] for k, r in own if k.kind == "contract"]
    assert len(products) == 5  # two forward, one for the input's gradient, two for the weights'
    assert all(0 < error < 1e-5 for error in products)


def test_explain_says_what_was_tested() -> None:
    program = Program.of(compile_model(layers(), "c"))
    found = program.explain("train_step")["train_step"]
    errors = [row["error"] for row in found["table"]]
    assert 0 < max(errors) < found["self_test"]["tolerances"]["f32"]
    assert found["self_test"]["kernels"] == len(errors) + 2
    assert "results" not in describe(program.compiled)["self_test"]


@pytest.mark.usefixtures("unbuilt")
def test_explain_says_why_not() -> None:
    program = Program.__new__(Program)
    program.compiled = compile_model(layers(), "c:native,untested")
    found = program.explain("infer")["infer"]
    assert found["self_test"] == {
        "tested": False, "reason": "not tested here: it was not asked for"
    }  # fmt: skip
    assert all("error" not in row for row in found["table"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        # as GCC 12.2 did: the function is there and is right, but nothing calls it
        pytest.param("PHASE(r, 1, infer_1(", "PHASE(r, 1, (void)sizeof(", "a difference of",
                     id="a call that is deleted"),
        # only in what is left after whole vectors
        pytest.param("const vf32 v2 = splat_f32(2.0f);", "const vf32 v2 = splat_f32(2.001f);",
                     "a difference of", id="a tail that is a little wrong"),
        pytest.param("store_part_f32(x_ + whole, v3, rest);",
                     "store_part_f32(x_ + whole, v3, rest), x_[N * 5] = 1;",
                     "it writes outside its results", id="a store behind the buffer"),
    ],
)  # fmt: skip
def test_miscompiled(monkeypatch: pytest.MonkeyPatch, old: str, new: str, said: str) -> None:
    """The message names the kernel, what is wrong, the compiler, its flags and the bricks."""
    real = c_backend.shared_library

    def build(units: Sequence[str], *args: Any, **kwargs: Any) -> bytes:
        assert sum(old in unit for unit in units) == 1
        return real([unit.replace(old, new, 1) for unit in units], *args, **kwargs)

    monkeypatch.setattr(c_backend, "shared_library", build)
    with pytest.raises(InternalError) as caught:
        compile_model(model(), "c", functions=["infer"])
    message = str(caught.value)
    for part in ("kernel 'map' of infer", said, "-O2", "bricks: ", "= tanh(%0)   y = tanh(x0)"):
        assert part in message


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler runs: only the text matters."""
    monkeypatch.setattr(c_backend, "shared_library", lambda *args, **kwargs: b"")


@pytest.mark.usefixtures("unbuilt")
def test_untested_on_request_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def report(target: str) -> Any:
        return json.loads(compile_model(model(), target).sources["self_test.json"])

    asked = {"tested": False, "reason": "not tested here: it was not asked for"}
    assert report("c:native,untested") == asked
    monkeypatch.setattr("brickc.backends.c.lacking", lambda cpu: "this processor has no avx1024")
    assert report("c")["reason"] == "not tested here: this processor has no avx1024"


@pytest.mark.usefixtures("unbuilt")
def test_equal_kernels_are_one_function() -> None:
    """The forward pass is the same in two functions, and so are its two layers."""
    compiled = compile_model(layers(), "c:native,untested")
    functions = compiled.functions.values()
    kernels = [k for f in functions for k in f.kernels if isinstance(k, LoopKernel)]
    infer = [k for k in compiled.functions["infer"].kernels if isinstance(k, LoopKernel)]
    evaluate = [k for k in compiled.functions["evaluate"].kernels if isinstance(k, LoopKernel)]
    assert len(infer) == 2
    assert infer[0].phases is infer[1].phases
    assert infer[0].phases in [k.phases for k in evaluate]
    # they read and write their own buffers all the same
    assert dict(infer[0].arguments).values() != dict(infer[1].arguments).values()
    source = compiled.sources["model.c"]
    assert isinstance(source, str)
    assert source.count("\nKERNEL void") < len(kernels)


@pytest.mark.usefixtures("unbuilt")
def test_units_hold_every_kernel_once() -> None:
    """What is compiled side by side is what model.c says, the same whatever the machine."""
    compiled = compile_model(small_network(bc.Dim("N", 1, 64)), "c:portable,untested")
    chosen = c_backend.CBackend.of("portable")
    source = chosen.source("small", planned(compiled.functions), compiled.leaves)
    units = source.units()
    assert len(units) > 1
    heads = [p.head for p in source.pieces if not isinstance(p, str)]
    for head in heads:
        assert sum(f"KERNEL {head} {{" in unit for unit in units) == 1
    assert source.text.count("\nKERNEL void") == len(heads)
    assert source.units() == units


def test_source_alone_needs_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For a machine of another kind too; it holds weights, and says why it cannot be called."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    other = "aarch64" if platform.machine() != "aarch64" else "x86-64-v2"
    with pytest.raises(BuildError, match="no C compiler for"):
        bc.compile(layers(), f"c:{other}", functions=["infer"])
    program = bc.compile(layers(), f"c:{other},source", functions=["infer"])
    written = program.emit_source(tmp_path / "out")
    assert {p.name for p in written} == {"model.c", "model.h", "weights.bin"}
    assert program.cannot_run
    with pytest.raises(UnsupportedError, match="cannot run here"):
        program.infer(x=np.zeros((1, 8), np.float32))
    with pytest.raises(UnsupportedError, match="no artifact"):
        program.save(tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()
