"""Kernels of target c carried out otherwise than the rules would: the same results."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import brickc as bc
from brickc.backends.base import Backend, Trial
from brickc.backends.c import CBackend
from brickc.backends.c.build import compiler
from brickc.backends.c.cost import estimate
from brickc.backends.c.cpu import CPUS
from brickc.driver import Compiled, Function, compile_model
from brickc.errors import UnsupportedError, UsageError
from brickc.ir.interpret import interpret
from brickc.ir.kernel.choices import Choice, kernel_key
from brickc.ir.kernel.loops import LoopKernel

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BRICKC_CACHE", str(tmp_path / "cache"))


def small_model() -> bc.Model:
    """Convolutions with padding and stride, and a product long enough to be summed in blocks."""
    N = bc.Dim("N", 1, 64, 20)
    x, t = bc.input("x", (N, 3, 9, 9)), bc.input("t", (N,), "i32")
    y = bc.Sequential(
        bc.Conv2d(7, 3, padding=1), bc.ReLU(), bc.Conv2d(9, 3, stride=2), bc.Tanh(),
        bc.Flatten(), bc.Linear(10),
    )(x)  # fmt: skip
    return bc.Model(outputs={"logits": y}, loss=bc.softmax_loss(y, t))


def with_choices(number: int) -> Compiled:
    """Every kernel that can be is carried out in another way, by number."""

    def others(chosen: Backend, functions: Mapping[str, Function]) -> dict[str, Choice]:
        found = {}
        for f in functions.values():
            for k, made in enumerate(f.kernels):
                ways = chosen.candidates(f.program, k)
                if len(ways) > 1:
                    found[kernel_key(made.kernel)] = ways[1 + number % (len(ways) - 1)].choice
        return found

    return compile_model(small_model(), "c", functions=["train_step"], tune=others)


@pytest.mark.parametrize("number", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_other_choices_agree_with_the_interpreter(number: int) -> None:
    compiled = with_choices(number)
    f = compiled.functions["train_step"]
    assert len(compiled.choices) >= 6
    for made in f.kernels:
        if kernel_key(made.kernel) in compiled.choices:
            assert made.choice == compiled.choices[kernel_key(made.kernel)]
    program = bc.Program.of(compiled, seed=1)
    rng = np.random.default_rng(number)
    for batch in (20, 3):
        feed = {"x": rng.standard_normal((batch, 3, 9, 9)).astype(np.float32),
                "t": rng.integers(0, 10, batch).astype(np.int32)}  # fmt: skip
        before = program.state_dict()
        wanted = interpret(f.graph, {**feed, **before})
        np.testing.assert_allclose(
            program.train_step(**feed)["loss"], wanted.outputs["loss"], rtol=1e-5
        )
        after = program.state_dict()
        for name, value in wanted.updates.items():
            np.testing.assert_allclose(after[name], value, rtol=1e-4, atol=1e-5)


class Enough(Exception):  # noqa: N818 (not an error)
    """Ends a compilation before the C compiler is called."""


def train_step(model: bc.Model, target: str) -> Function:
    found: list[Function] = []

    def look(_: Backend, functions: Mapping[str, Function]) -> dict[str, Choice]:
        found.append(functions["train_step"])
        raise Enough

    with pytest.raises(Enough):
        compile_model(model, target, functions=["train_step"], tune=look)
    return found[0]


@cache
def lenet5() -> tuple[CBackend, Function]:
    return CBackend.of("x86-64-v3"), train_step(bc.zoo.model("lenet5"), "c:x86-64-v3")


def tunable(f: Function) -> Iterator[tuple[int, LoopKernel]]:
    for k, made in enumerate(f.kernels):
        assert isinstance(made, LoopKernel)
        if any(others for _, others in made.options):
            yield k, made


def test_which_kernels_have_a_choice() -> None:
    _, f = lenet5()
    kinds = {made.kernel.kind for _, made in tunable(f)}
    assert kinds == {"contract", "convolution", "convolutioninputgrad", "convolutionweightgrad"}
    assert sum(1 for _ in tunable(f)) == 14


def test_candidates_are_the_same_each_time_and_all_different() -> None:
    chosen, f = lenet5()
    for k, made in list(tunable(f))[:4]:
        assert isinstance(made, LoopKernel)
        ways = chosen.candidates(f.program, k)
        assert [w.choice for w in ways] == [w.choice for w in chosen.candidates(f.program, k)]
        assert ways[0] == made
        assert len({w.choice for w in ways}) == len(ways) >= 5
        # another choice is another program
        assert len({w.phases for w in ways}) > 1


def test_estimates_grow_with_the_work() -> None:
    cpu = CPUS["x86-64-v3"]
    _, f = lenet5()
    costs = {made.kernel.name: (estimate(made, f.program, cpu), made.kernel.flops)
             for _, made in tunable(f)}  # fmt: skip
    for cost, flops in costs.values():
        # two multiply-adds a cycle and thread are the most that there is
        assert cost.core >= flops / (2 * 2 * 2 * cpu.lanes)
        assert cost.core <= 6 * flops / (2 * 2 * 2 * cpu.lanes) + 5000
        assert cost.first >= 0
    assert costs["c3_convolution"][0].seconds > costs["f6"][0].seconds > costs["output"][0].seconds


def test_estimates_prefer_tiles_that_fill_the_registers() -> None:
    chosen, f = lenet5()
    number, made = next((k, m) for k, m in tunable(f) if m.kernel.name == "c5")
    decided = made.choice.as_dict()
    narrow = Choice((("columns", 1), ("rows", 7)))
    (first, *_) = chosen.candidates(f.program, number, narrow)
    assert first.choice.as_dict()["columns"] == 1 != decided["columns"]
    assert chosen.estimate(f.program, first) > chosen.estimate(f.program, made)


def test_the_bench_runs_and_compares_ways() -> None:
    f, chosen = train_step(small_model(), "c"), CBackend.of("")
    numbers = [k for k, made in tunable(f) if made.kernel.kind == "contract"][:2]
    trials = [Trial(f.program, k, chosen.candidates(f.program, k)[:2]) for k in numbers]
    bench = chosen.bench(2)
    for timed in bench.build(trials):
        for way in range(2):
            assert timed.seconds(way) > 0
            assert 0 <= timed.error(way)["f32"] < 1e-5
    assert bench.environment["threads"] == "2"
    assert set(bench.environment) == {
        "target", "processor", "instructions", "lanes", "threads", "compiler", "code", "numerics",
    }  # fmt: skip


def threads_here() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="no list of threads")
def test_threads_end_with_the_trials() -> None:
    f, chosen = train_step(small_model(), "c"), CBackend.of("")
    number = next(k for k, made in tunable(f) if made.kernel.kind == "contract")
    gc.collect()
    before = threads_here()
    built = chosen.bench(4).build([Trial(f.program, number, [f.kernels[number]])])
    timed = next(iter(built))
    timed.threads.value = 4  # type: ignore[attr-defined]
    assert timed.seconds(0) > 0
    assert threads_here() == before + 3
    del built, timed
    gc.collect()
    # a thread that has said that it ends may still be listed for a moment
    for _ in range(1000):
        if threads_here() == before:
            break
        time.sleep(0.01)
    assert threads_here() == before


def test_a_way_that_leaves_something_out_is_seen() -> None:
    f, chosen = train_step(small_model(), "c"), CBackend.of("")
    number, made = next((k, m) for k, m in tunable(f) if m.kernel.kind == "contract")
    short = replace(made, phases=made.phases[:-1])
    (timed,) = chosen.bench(1).build([Trial(f.program, number, [made, short])])
    assert timed.error(0)["f32"] == 0
    assert timed.error(1)["f32"] > 0.1


def test_without_time_and_memory_the_rules_decide(tmp_path: Path) -> None:
    x = bc.input("x", (bc.Dim("N", 1, 64), 8))
    model = bc.Model(outputs={"y": bc.Linear(4)(x)})
    plain = bc.compile(model, "c", functions=["infer"])
    tuned = bc.compile(model, "c", functions=["infer"], tune=0)
    assert tuned.compiled.sources["model.c"] == plain.compiled.sources["model.c"]
    assert tuned.tuning is not None
    assert plain.tuning is None
    assert tuned.tuning.choices == {}
    assert not (tmp_path / "cache").exists()


def test_what_was_measured_is_used_and_written_down(tmp_path: Path) -> None:
    N = bc.Dim("N", 1, 64)
    model = bc.Model(outputs={"y": bc.Linear(24)(bc.input("x", (N, 200)))})
    program = bc.compile(model, "c", tune=1.5, threads=1)
    assert program.tuning is not None
    assert program.tuning.timed >= 2
    # whatever was faster here: pretend that it was another choice
    (file,) = (tmp_path / "cache" / "tune").iterdir()
    data = json.loads(file.read_text())
    assert data["environment"]["threads"] == "1"
    for entry in data["kernels"].values():
        entry["choice"] = [["columns", 1]]
        entry["settled"] = True
    file.write_text(json.dumps(data))
    again = bc.compile(model, "c", tune=0, threads=1)
    assert again.tuning is not None
    assert again.tuning.timed == 0
    (chosen, *_) = again.choices("infer")
    assert chosen["by"] == "tuner"
    assert chosen["choice"].startswith("columns=1 ")
    x = np.random.default_rng(0).standard_normal((20, 200)).astype(np.float32)
    plain = bc.compile(model, "c", threads=1)
    np.testing.assert_allclose(again.infer(x=x)["y"], plain.infer(x=x)["y"], rtol=1e-4, atol=1e-5)
    again.save(tmp_path / "artifact")
    manifest = json.loads((tmp_path / "artifact" / "manifest.json").read_text())
    assert next(iter(manifest["tuned"].values())).startswith("columns=1 ")
    text = (tmp_path / "artifact" / "kernels" / "infer.kernels.txt").read_text()
    assert "choice columns=1 " in text


def test_bad_requests() -> None:
    model = small_model()
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="takes a number of seconds"):
            bc.compile(model, "c", tune=seconds)
    with pytest.raises(UnsupportedError, match="target numpy has nothing to tune; expected c"):
        bc.compile(model, "numpy", tune=1)
    with pytest.raises(UnsupportedError, match="cannot be timed here"):
        bc.compile(model, "c:aarch64", tune=1)
    with pytest.raises(UsageError, match="no number of threads; got 100"):
        bc.compile(model, "c", tune=1, threads=100)
