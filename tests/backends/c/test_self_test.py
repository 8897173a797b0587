"""Kernels are compared with their definitions when a library is built."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from c_kernels import small_network

import brickc as bc
from brickc.backends import c as c_backend
from brickc.driver import compile_model, planned
from brickc.errors import InternalError
from brickc.ir.kernel.loops import LoopKernel


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
    for part in ("kernel 'map' of infer", said, "-O3", "bricks: ", "= tanh(%0)   y = tanh(x0)"):
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
