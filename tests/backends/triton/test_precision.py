"""Target triton with bf16 and f16: the kernels compute what the graph with its casts says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance import build, draw
from graph_tools import Net

import brickc as bc
from brickc.backends.base import Trial
from brickc.backends.triton import RESOURCES, TritonBackend
from brickc.backends.triton.bench import TritonBench
from brickc.backends.triton.launches import TritonKernel
from brickc.driver import backend, compile_model
from brickc.ir.bricks.convert import Cast
from brickc.ir.dims import Dim, hint
from brickc.ir.dtypes import DType
from brickc.ir.interpret import interpret
from brickc.program import Program
from brickc.runtime.artifact import load, verify
from brickc.runtime.data.digits import digits

pytest.importorskip("triton")

HALVES = {"bf16": torch.bfloat16, "f16": torch.float16}
N = Dim("N", 1, 8)


@pytest.mark.parametrize("precision", HALVES)
def test_stores_round_to_nearest_even(precision: str, rng: np.random.Generator) -> None:
    net = Net(DType.F32)
    x = net.input("x", (Dim("K", 1, 4096),))
    half = x.apply(Cast(DType(precision)), x)
    net.output("y", half.apply(Cast(DType.F32), half))
    bits = rng.integers(0, 2**32, 4000, np.uint32)
    bits[::2] = (bits[::2] & 0xFFFF0000) | 0x8000  # halfway between two of bf16
    special = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 65519.0, 65520.0, 3.4e38])
    given = np.concatenate([special, bits.view(np.float32)])
    got = build(net.graph, target=f"triton:{precision}")({"x": given})["y"]
    want = torch.from_numpy(given).to(HALVES[precision]).float().numpy()
    np.testing.assert_array_equal(got, want)


def network() -> Any:
    """Every family of kernels that a half may pass through."""
    x, t = bc.input("x", (N, 2, 8, 8)), bc.input("t", (N,), "i32", limit=3)
    y = bc.Sequential(
        bc.Conv2d(4, 3, padding=1, name="c1"), bc.BatchNorm(), bc.ReLU(), bc.MaxPool(2),
        bc.Residual(bc.Conv2d(4, 3, padding=1, name="c2"), bc.Tanh()), bc.LRN(3),
        bc.MeanPool(3, 1, padding=1),
    )(x)  # fmt: skip
    y = bc.concat([y, bc.Conv2d(2, 1, name="c3")(y)], 1)
    y = bc.Sequential(bc.MaxPool(3, 1), bc.Flatten(), bc.Dropout(0.25), bc.Linear(3, name="f"))(y)
    return bc.Model({"logits": y}, bc.softmax_loss(y, t))


@pytest.mark.parametrize("precision", HALVES)
def test_a_step_is_what_its_graph_says(precision: str) -> None:
    """Up to sums in another order, which now and then round to the other side."""
    compiled = compile_model(network(), f"triton:{precision}", optimizer=bc.SGD(0.1, momentum=0.9))
    program, graph = Program.of(compiled, seed=4), compiled.functions["train_step"].graph
    exact = bc.compile(network(), optimizer=bc.SGD(0.1, momentum=0.9), seed=4)
    allowed = backend(compiled.target).tolerances["f32"]
    rng = np.random.default_rng(7)
    for rows in (4, 3):
        feeds: dict[str, Any] = {
            "x": draw(rng, (rows, 2, 8, 8), DType.F32), "t": rng.integers(0, 3, rows).astype("i4")
        }  # fmt: skip
        want = interpret(graph, {**feeds, **program.state_dict()})
        got = program.train_step(**feeds)
        after = program.state_dict()
        np.testing.assert_allclose(got["loss"], want["loss"], rtol=1e-4)
        for name, value in want.updates.items():
            scale = float(np.abs(value).max())
            np.testing.assert_allclose(after[name], value, atol=2e-3 * scale, err_msg=name)
        np.testing.assert_allclose(got["loss"], exact.train_step(**feeds)["loss"], rtol=allowed)
    logits = program.infer(x=feeds["x"])["logits"]
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, exact.infer(x=feeds["x"])["logits"], atol=2 * allowed)


def test_parameters_are_rounded_in_one_launch() -> None:
    compiled = compile_model(bc.zoo.model("lenet5"), "triton:f16", functions=["infer"])
    f = compiled.functions["infer"]
    first, *rest = f.kernels
    rounded = [k for k in f.program.kernels if f.program.rounds_leaf(k)]
    assert len(rounded) == 5
    assert tuple(f.program.kernels[:5]) == tuple(rounded)
    assert isinstance(first, TritonKernel)
    assert [len(k.launches) for k in (first, *rest[:5])] == [1, 0, 0, 0, 0, 1]  # type: ignore[attr-defined]
    ((programs, _),) = first.launches[0].grid.factors
    assert programs == sum(-(-hint(k.after.loads[0].nbytes) // 4096) for k in rounded)
    assert len(first.launches[0].pointers) == 10


def test_lenet5_follows_numpys_losses_on_digits() -> None:
    data = digits().fit_to((1, 32, 32))
    x, t = data.train.x[:6], data.train.t[:6]

    def losses(target: str) -> list[float]:
        program = bc.compile(bc.zoo.model("lenet5"), target, functions=["train_step"], seed=3,
                             optimizer=bc.SGD(0.1, momentum=0.9))  # fmt: skip
        cut = [slice(k, k + 2) for k in (0, 2, 4)]
        return [float(program.train_step(x=x[c], t=t[c])["loss"]) for c in cut]

    wanted = losses("numpy")
    for precision in HALVES:
        allowed = backend(f"triton:{precision}").tolerances["f32"]
        np.testing.assert_allclose(losses(f"triton:{precision}"), wanted, rtol=allowed)


@pytest.mark.parametrize("precision", HALVES)
def test_lenet5_compiles_ahead_of_time(precision: str) -> None:
    """Tensor-core instructions in every product, which reads halves without widening them."""
    compiled = compile_model(
        bc.zoo.model("lenet5"), f"triton:sm_90,{precision},launches",
        optimizer=bc.SGD(0.01, momentum=0.9), functions=["train_step"],
    )  # fmt: skip
    kernels = json.loads(compiled.sources[RESOURCES])
    assert not {k for k, r in kernels.items() if r["spilled"]}
    products = {
        k: r for k, r in kernels.items()
        if k.startswith(("contract_", "convolution")) and "_total" not in k
    }  # fmt: skip
    assert len(products) >= 12
    assert not [k for k, r in products.items() if "tensor" in r and not r["tensor"]]


def test_artifact_runs_and_says_its_precision(tmp_path: Path) -> None:
    program = bc.compile(network(), "triton:bf16", optimizer=bc.SGD(0.1), seed=1)
    program.save(tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert (manifest["target"], manifest["precision"]) == ("triton:bf16", "bf16")
    assert manifest["tolerances"]["f32"] == 5e-2
    assert max(verify(tmp_path / "a").values()) < 1e-6
    assert "bfloat16" in (tmp_path / "a" / "model.py").read_text()
    x = np.random.default_rng(0).standard_normal((2, 2, 8, 8)).astype("f4")
    np.testing.assert_array_equal(
        load(tmp_path / "a").infer(x=x)["logits"], program.infer(x=x)["logits"]
    )


def test_candidates_of_halves_are_compared_and_estimated() -> None:
    chosen = TritonBackend.of("bf16")
    f = compile_model(network(), "triton:bf16", functions=["train_step"]).functions["train_step"]
    number = next(k for k, made in enumerate(f.kernels) if made.kernel.kind == "convolution")
    ways = chosen.candidates(f.program, number)[:2]
    bench = TritonBench(chosen.options, "cpu", "interpreter", lambda start: 1.0)
    (timed,) = bench.build([Trial(f.program, number, ways)])
    (error,) = timed.error(1).items()
    assert error[0] == "bf16"
    assert error[1] <= chosen.tolerances["bf16"]
    for precision in ("bf16", "f16"):
        same = TritonBackend.of(precision)
        assert all(0 < same.estimate(f.program, way) < float("inf") for way in ways)
