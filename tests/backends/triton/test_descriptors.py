"""Operands read by descriptors: where they may be, what they compute, what is compiled of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import brickc as bc
from brickc.backends.base import Backend
from brickc.backends.triton import RESOURCES, TritonBackend
from brickc.backends.triton.launches import TritonKernel
from brickc.backends.triton.strategies import tiles
from brickc.backends.triton.strategies.tiles import Blocks
from brickc.driver import Compiled, Function, compile_model
from brickc.errors import UnsupportedError
from brickc.ir.kernel.choices import Choice, kernel_key

pytest.importorskip("triton")


class Everywhere:
    """Chooses how all kernels that have a choice read their operands."""

    def __init__(self, loads: str = "descriptors") -> None:
        self.loads = loads
        self.chosen: list[str] = []

    def __call__(self, chosen: Backend, functions: Mapping[str, Function]) -> dict[str, Choice]:
        found = {}
        for f in functions.values():
            for made in f.kernels:
                assert isinstance(made, TritonKernel)
                if "loads" in made.choice.as_dict():
                    found[kernel_key(made.kernel)] = made.choice.with_("loads", self.loads)
                    self.chosen.append(made.kernel.kind)
        return found


def dense(batch: bc.Dim, width: int = 40) -> bc.Model:
    """Sizes that no tile divides; the batch's rows hang over the edge."""
    x, t = bc.input("x", (batch, 24)), bc.input("t", (batch,), "i32", limit=8)
    y = bc.Sequential(bc.Linear(width), bc.Tanh(), bc.Linear(8))(x)
    return bc.Model({"y": y}, bc.softmax_loss(y, t))


def pointwise(batch: bc.Dim) -> bc.Model:
    """Convolutions whose windows are one place are products; the others are not."""
    x, t = bc.input("x", (batch, 8, 2, 3)), bc.input("t", (batch,), "i32", limit=8)
    y = bc.Sequential(
        bc.Conv2d(8, 1), bc.Tanh(), bc.Conv2d(16, 1), bc.ReLU(), bc.Conv2d(8, 1, groups=2),
        bc.Conv2d(8, 1, stride=2), bc.Flatten(), bc.Linear(8),
    )(x)  # fmt: skip
    return bc.Model({"y": y}, bc.softmax_loss(y, t))


N = bc.Dim("N", 1, 64, 32)


SWAPPED, SPLIT = Blocks(16, 32, 16, 4, 3, 1, True), Blocks(16, 16, 16, 4, 3, 2)


@pytest.mark.parametrize(
    ("build", "blocks", "precision"),
    [
        *((dense, blocks, "tf32") for blocks in (None, SWAPPED, SPLIT)),
        (dense, SWAPPED, "bf16"), (dense, None, "f16"),
        (pointwise, None, "tf32"), (pointwise, SWAPPED, "tf32"), (pointwise, None, "bf16"),
    ],
)  # fmt: skip
def test_they_bring_what_pointers_do(
    build: Any, blocks: Blocks | None, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tiles by pointers give the same bits."""
    if blocks is not None:
        monkeypatch.setattr(tiles, "_for_tensor_cores", lambda *_: blocks)
    model = build(N)
    rng = np.random.default_rng(0)
    shape = (19, 24) if build is dense else (3, 8, 2, 3)
    x, t = rng.standard_normal(shape).astype("f4"), (np.arange(shape[0]) % 8).astype("i4")
    found: list[dict[str, Any]] = []
    for loads in ("pointers", "descriptors"):
        tune = Everywhere(loads)
        compiled = compile_model(
            model, f"triton:{precision},launches", functions=["train_step"], tune=tune
        )
        source = compiled.sources["kernels.py"]
        assert isinstance(source, str)
        assert ("make_tensor_descriptor" in source) == (loads == "descriptors")
        # forward and gradients; nothing asks for that of x, which is given rows first besides
        assert Counter(tune.chosen) == {
            dense: {"contract": 5},
            pointwise: {"contract": 3, "convolution": 2, "convolutioninputgrad": 1,
                        "convolutionweightgrad": 2},
        }[build]  # fmt: skip
        program = bc.Program.of(compiled, seed=2)
        loss = program.train_step(x=x, t=t)["loss"]
        found.append({"loss": loss, **program.parameters()})
    assert np.isfinite(found[0]["loss"])
    for name, value in found[0].items():
        # the interpreter's products are NumPy's: their rounding may depend on how operands lie
        np.testing.assert_allclose(found[1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_nothing_uses_them_unasked() -> None:
    """They were never timed."""
    for target in ("triton:tf32", "triton:sm_90,bf16,launches"):
        kernels = TritonBackend.of(target.partition(":")[2]).select(functions(target).program)[0]
        found = [k.choice.as_dict().get("loads") for k in kernels]
        assert found.count("pointers") == 5
        assert "descriptors" not in found


def functions(target: str) -> Function:
    """The training step as a program of kernels, of a target whose binaries need not be made."""
    precision = "bf16" if "bf16" in target else "tf32"
    f = compile_model(dense(N), f"triton:{precision}", functions=["train_step"])
    return f.functions["train_step"]


@pytest.mark.parametrize(
    "option", ["sm_80,tf32", "gfx942,tf32", "sm_90,f32", "sm_90,tf32,persistent"]
)
def test_other_targets_do_not_have_them(option: str) -> None:
    chosen, program = TritonBackend.of(option), functions("triton:tf32").program
    kernels, _ = chosen.select(program)
    made = next(k for k in kernels if k.kernel.kind == "contract")
    assert "loads" not in made.choice.as_dict()
    wanted = {kernel_key(made.kernel): made.choice.with_("loads", "descriptors")}
    with pytest.raises(UnsupportedError, match="the strategy has no such choice; got loads"):
        chosen.select(program, wanted)


def test_the_cost_model_puts_them_behind_pointers() -> None:
    chosen, f = TritonBackend.of("sm_90,tf32"), functions("triton:tf32")
    compared = 0
    for number, kernel in enumerate(f.kernels):
        assert isinstance(kernel, TritonKernel)
        first, *others = chosen.candidates(f.program, number)
        wanted = first.choice.with_("loads", "descriptors")
        for other in others:
            if other.choice == wanted:
                assert chosen.estimate(f.program, other) > chosen.estimate(f.program, first)
                compared += 1
    assert compared == 5


def test_phases_of_one_kernel_have_none() -> None:
    """What a kernel has written itself, its descriptors do not see."""
    model = bc.zoo.model("mlp")
    form = compile_model(model, "triton:tf32", functions=["infer"]).functions["infer"].launching
    assert form is not None
    assert form.form == "persistent"
    compiled = compile_model(model, "triton:tf32", functions=["infer"], tune=Everywhere())
    form = compiled.functions["infer"].launching
    assert form is not None
    assert (form.form, form.reason) == (
        "launches", "descriptors do not see what the same kernel has written"
    )  # fmt: skip


# -- ahead of time ---------------------------------------------------------------------------------


def ahead(precision: str) -> Compiled:
    """Products of some size: rows of 64 and more."""
    n = bc.Dim("N", 64, 512, 256)
    return compile_model(
        dense(n, 136), f"triton:sm_90,{precision},launches", functions=["train_step"],
        tune=Everywhere(),
    )  # fmt: skip


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_binaries_have_them(precision: str) -> None:
    kernels = json.loads(ahead(precision).sources[RESOURCES])
    boxed = {k: r for k, r in kernels.items() if "by descriptors" in r["tile"]}
    assert len(boxed) == 5
    for name, r in boxed.items():
        assert r["loads"]["tile"] > 0, (name, r)
        # one of 128 bytes for each operand
        assert r["scratch"] == 256
        assert r["spilled"] == 0
        assert sum(r["tensor"].values()) > 0
        assert "loads below 128 bits" not in r["tile"]
    # of the one whose sum is a single step no loop is left
    assert sum(r["loop_loads"].get("tile", 0) > 0 for r in boxed.values()) >= 4
    rest = [r for k, r in kernels.items() if k not in boxed]
    assert not any(r["scratch"] or "tile" in r["loads"] for r in rest)


def test_the_same_bytes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for folder in ("one", "two"):
        monkeypatch.setenv("BRICKC_CACHE", str(tmp_path / folder))
        found.append(ahead("tf32").sources)
        assert any((tmp_path / folder).rglob("*"))  # compiled afresh
    assert found[0] == found[1]
