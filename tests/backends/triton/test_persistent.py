"""Whole functions as one kernel: decisions, stages, and the same numbers as launch by launch."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import brickc as bc
from brickc.backends.triton import RESOURCES
from brickc.backends.triton.launches import TritonKernel
from brickc.backends.triton.options import ARCHITECTURES, parse
from brickc.driver import Compiled, Function, compile_model
from brickc.errors import MemoryLimitError, UnsupportedError, UsageError
from brickc.ir.dims import evaluate
from brickc.ir.kernel.memory import Access, Space
from brickc.program import dump_text
from brickc.runtime.artifact import load, verify

pytest.importorskip("triton")

SGD = bc.SGD(0.05, momentum=0.9)


def varied_model() -> Any:
    """Split sums, windows, dropout, running statistics, updates that are bundled."""
    n = bc.Dim("N", 1, 16)
    x, t = bc.input("x", (n, 2, 8, 8)), bc.input("t", (n,), "i32", limit=3)
    y = bc.Sequential(
        bc.Conv2d(4, 3, padding=1), bc.BatchNorm(), bc.ReLU(), bc.MaxPool(2), bc.Dropout(0.3),
        bc.Flatten(), bc.Linear(5), bc.Tanh(), bc.Linear(3),
    )(x)  # fmt: skip
    return bc.Model({"logits": y}, bc.softmax_loss(y, t), {"accuracy": bc.accuracy(y, t)})


def batches(count: int, rows: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((count, rows, 2, 8, 8)).astype("f4")
    return {"x": x, "t": rng.integers(0, 3, (count, rows)).astype("i4")}


# -- decisions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form", "launches", "stages"),
    [
        ("mlp", "persistent", 22, 14),
        ("lenet5", "persistent", 36, 21),
        ("lenet", "persistent", 36, 22),
        ("alexnet", "launches", 58, 58),
        ("googlenet", "launches", 409, 409),
    ],
)
def test_small_networks_are_one_kernel(name: str, form: str, launches: int, stages: int) -> None:
    compiled = compile_model(bc.zoo.model(name), "triton", optimizer=SGD, functions=["train_step"])
    how = compiled.functions["train_step"].launching
    assert how is not None
    assert (how.form, sum(map(len, how.stages)), how.count) == (form, launches, stages)
    model, kernels = str(compiled.sources["model.py"]), str(compiled.sources["kernels.py"])
    if form == "launches":
        assert "MFLOP and " in how.reason
        assert "grid_barrier" not in kernels
        assert "COOPERATIVE = ()" in model
        return
    text = kernels.split("def train_step_phases(")[1]
    assert text.count("grid_barrier(counter, first, count)") == stages - 1
    assert text.count("for tile in range(") == launches
    assert "COOPERATIVE = ('train_step_phases',)" in model
    # the means of loss and accuracy share a text; no kernel is there that nobody starts
    assert len(re.findall(r"^def \w+_tile\(tile, ", kernels, re.M)) < launches
    assert kernels.count("tl.program_id(0)") == 1


def test_the_form_can_be_asked_for() -> None:
    forms = {
        option: compile_model(varied_model(), f"triton:{option}", functions=["infer"])
        .functions["infer"].launching
        for option in ("launches", "persistent")
    }  # fmt: skip
    for option, how in forms.items():
        assert how is not None
        assert (how.form, how.reason) == (option, "asked for")
    assert parse("sm_90,tf32,persistent").form == "persistent"
    assert parse("sm_90").form == ""
    with pytest.raises(UnsupportedError, match="gfx942 starts each kernel by itself"):
        parse("gfx942,persistent")


def test_too_many_buffers_are_refused_where_one_kernel_was_asked_for() -> None:
    with pytest.raises(UnsupportedError, match="buffers, more than the 400"):
        compile_model(bc.zoo.model("googlenet"), "triton:persistent", functions=["train_step"])


def test_the_decision_is_in_manifest_dump_and_explanation(tmp_path: Any) -> None:
    program = bc.compile(varied_model(), "triton", functions=["infer"])
    how = program.explain("infer")["infer"]["launching"]
    assert how["form"] == "persistent"
    assert "MFLOP" in how["reason"]
    text = dump_text(program.compiled.functions["infer"], "schedule")
    assert f"persistent, {how['stages']} stages: {how['reason']}" in text
    assert bc.compile(varied_model(), "numpy").explain("infer")["infer"]["launching"] is None


# -- stages ----------------------------------------------------------------------------------------


def elements(access: Access, sizes: dict[str, int]) -> tuple[int, int]:
    """First byte of an access within its buffer, and the byte after its last."""
    lo = hi = evaluate(access.offset, sizes)
    for n, stride in zip(access.shape, access.strides, strict=True):
        step = (evaluate(n, sizes) - 1) * evaluate(stride, sizes)
        lo, hi = lo + min(step, 0), hi + max(step, 0)
    return lo * access.dtype.itemsize, (hi + 1) * access.dtype.itemsize


@dataclass(frozen=True)
class Use:
    """Bytes that a launch reads or writes, where they lie and in which buffer."""

    space: str
    start: int
    lo: int
    hi: int
    writes: bool
    buffer: str

    def shares_memory(self, other: Use) -> bool:
        mine, theirs = self.start + self.lo, other.start + other.lo
        return (
            self.space == other.space
            and (self.writes or other.writes)
            and mine < other.start + other.hi
            and theirs < self.start + self.hi
        )

    def shares_values(self, other: Use) -> bool:
        same = self.buffer == other.buffer or self.space == "memory"
        return same and self.shares_memory(other)


def uses(
    compiled: Compiled, f: Function, sizes: dict[str, int]
) -> Iterator[tuple[int, tuple[int, int], list[Use]]]:
    """Of every launch its stage, kernel and number, and what it touches."""
    places = {leaf.name: leaf.offset for leaf in compiled.leaves}
    assert f.launching is not None
    for number, kernel in enumerate(f.kernels):
        assert isinstance(kernel, TritonKernel)
        for step, launch in enumerate(kernel.launches):
            given = {b.name for b in launch.pointers}
            found = []
            every = [(a, False) for a in kernel.kernel.reads()]
            every += [(a, True) for a in kernel.kernel.writes()]
            for access, writes in every:
                if access.buffer not in given:
                    continue
                lo, hi = elements(access, sizes)
                buffer = f.program.buffers[access.buffer]
                if buffer.space in (Space.PARAMETER, Space.STATE):
                    space, start = "memory", places[buffer.label]
                elif buffer.space is Space.LITERAL:
                    space, start = buffer.name, 0
                else:
                    space, start = "arena", evaluate(f.plan.offsets[buffer.name], sizes)
                found.append(Use(space, start, lo, hi, writes, buffer.name))
            for buffer in kernel.scratch:
                if buffer.name in given:
                    start, size = f.plan.offsets[buffer.name], buffer.nbytes
                    found.append(Use("arena", evaluate(start, sizes), 0, evaluate(size, sizes),
                                     True, buffer.name))  # fmt: skip
            yield f.launching.stages[number][step], (number, step), found


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("name", ["mlp", "lenet5", "lenet", "varied"])
def test_what_shares_a_stage_shares_no_memory_that_is_written(name: str, rows: int) -> None:
    """By the addresses as they are planned: parts of the arena are used again and again."""
    model = varied_model() if name == "varied" else bc.zoo.model(name)
    compiled = compile_model(model, "triton:persistent", optimizer=SGD)
    pairs = overtaken = 0
    for f in compiled.functions.values():
        every = sorted(uses(compiled, f, {"N": rows}), key=lambda p: p[:2])
        for (one, place, first), (other, later, second) in itertools.combinations(every, 2):
            if one == other:
                pairs += 1
                assert not any(a.shares_memory(b) for a in first for b in second)
            elif later < place:  # it runs before what comes before it in the schedule
                overtaken += 1
                assert not any(a.shares_values(b) for a in first for b in second)
    assert pairs > 4
    assert overtaken > 4


# -- numbers ---------------------------------------------------------------------------------------


def test_one_kernel_gives_the_bits_of_many() -> None:
    data = batches(2)
    programs = [
        bc.compile(varied_model(), f"triton:{form}", optimizer=SGD, seed=2,
                   functions=["infer", "train_step"])
        for form in ("persistent", "launches")
    ]  # fmt: skip
    one, many = programs
    for step in range(2):
        batch = {n: v[step] for n, v in data.items()}
        a, b = one.train_step(**batch), many.train_step(**batch)
        assert all(np.array_equal(a[n], b[n]) for n in a)
        a, b = one.infer(x=batch["x"]), many.infer(x=batch["x"])
        assert np.array_equal(a["logits"], b["logits"])
    states = one.state_dict(), many.state_dict()
    assert all(np.array_equal(states[0][n], states[1][n]) for n in states[0])
    # dropout's seed and step, statistics and rate are states, and live where parameters do
    assert {"random.seed", "random.counter", "optimizer.lr"} <= set(states[0])


@pytest.mark.parametrize("target", ["numpy", "c", "triton:launches", "triton:persistent"])
def test_steps_at_once_are_steps_one_by_one(target: str) -> None:
    data = batches(3)
    program = bc.compile(
        varied_model(), target, optimizer=SGD, functions=["train_step"], seed=2, steps_per_launch=2
    )
    single = bc.compile(varied_model(), target, optimizer=SGD, functions=["train_step"], seed=2)
    assert (program.steps_per_launch, single.steps_per_launch) == (2, 1)
    found = program.train_steps(**data)  # two steps together, and one by itself
    assert {n: v.shape for n, v in found.items()} == {"loss": (3,), "accuracy": (3,)}
    for step in range(3):
        one = single.train_step(**{n: v[step] for n, v in data.items()})
        assert all(np.array_equal(one[n], found[n][step]) for n in one)
    after, want = program.state_dict(), single.state_dict()
    assert all(np.array_equal(after[n], want[n]) for n in want)
    assert len(set(found["loss"].tolist())) == 3


def test_launches_of_several_steps_are_counted() -> None:
    data = batches(3)
    batch = {n: v[0] for n, v in data.items()}
    found = {}
    for form in ("launches", "persistent"):
        program = bc.compile(varied_model(), f"triton:{form}", functions=["train_step"],
                             steps_per_launch=3)._program  # fmt: skip
        three = program._bind("train_step", data, 3)
        one = program._bind("train_step", batch, 0)
        found[form] = len(three[0].launches), len(one[0].launches)
        assert program.arena_bytes == program.peak_bytes("train_step", N=3)
    assert found["persistent"] == (1, 1)
    assert found["launches"][0] == 3 * found["launches"][1] > 30


def test_several_steps_in_an_artifact(tmp_path: Any) -> None:
    program = bc.compile(varied_model(), "triton", optimizer=SGD, seed=2, steps_per_launch=2,
                         functions=["train_step"])  # fmt: skip
    program.save(tmp_path / "a")
    verify(tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())["functions"]
    assert manifest["train_step"]["steps_per_launch"] == 2
    assert manifest["train_step"]["launching"]["form"] == "persistent"
    loaded = load(tmp_path / "a")
    assert loaded.steps_per_launch == 2
    data = batches(2)
    a, b = loaded.train_steps(**data), program.train_steps(**data)
    assert np.array_equal(a["loss"], b["loss"])


def test_what_several_steps_refuse() -> None:
    with pytest.raises(UsageError, match=r"1\.\.1024"):
        bc.compile(varied_model(), "numpy", steps_per_launch=0)
    with pytest.raises(UsageError, match="train_step"):
        bc.compile(varied_model(), "numpy", functions=["infer"], steps_per_launch=2)
    program = bc.compile(varied_model(), "numpy", functions=["train_step"], steps_per_launch=2)
    data = batches(4)
    with pytest.raises(bc.BrickcError, match="not stacked"):
        program.train_steps(x=data["x"], t=data["t"][:3])
    data["x"][2, 0, 0, 0, 0] = np.nan
    with pytest.raises(bc.BrickcError, match="step 2 of the call"):
        program.train_steps(**data)
    # room for the arguments of every step counts
    limit = compile_model(varied_model(), "triton").functions["train_step"].plan.peak
    most = evaluate(limit, {"N": 16})
    compile_model(varied_model(), "triton", memory_limit=most)
    with pytest.raises(MemoryLimitError):
        compile_model(varied_model(), "triton", memory_limit=most, steps_per_launch=8)


@pytest.mark.parametrize("form", ["launches", "persistent"])
def test_results_that_are_parameters_and_states(form: str) -> None:
    """A parameter's value before each update; a state that no step changes, the same each time."""
    n = bc.Dim("N", 1, 16)
    x, t = bc.input("x", (n, 6)), bc.input("t", (n,), "i32", limit=3)
    scale, kept = bc.parameter("scale", (), init=bc.constant(2.0)), bc.state("kept", ())
    y = bc.matmul(x, bc.parameter("w", (6, 3), init=bc.uniform(-1.0, 1.0))) * scale + kept
    metrics = {"factor": scale, "kept": kept}
    model = bc.Model({"logits": y}, bc.softmax_loss(y, t), metrics)
    programs = [
        bc.compile(model, f"triton:{form}", optimizer=SGD, functions=["train_step"], seed=1,
                   steps_per_launch=steps)
        for steps in (3, 1)
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((3, 4, 6)).astype("f4"),
              "t": rng.integers(0, 3, (3, 4)).astype("i4")}  # fmt: skip
    found, want = (p.train_steps(**inputs) for p in programs)
    assert all(np.array_equal(found[n], want[n]) for n in want)
    assert len(set(found["factor"].tolist())) == 3
    assert found["factor"][0] == 2.0
    assert not found["kept"].any()


# -- ahead of time ---------------------------------------------------------------------------------

#: what is compiled always; all of them take many minutes, a process each
_ALWAYS = (("mlp", "sm_80", "f32"), ("mlp", "sm_80", "tf32"), ("mlp", "sm_90", "tf32"),
           ("lenet5", "sm_90", "tf32"))  # fmt: skip
_COMBINATIONS = [
    pytest.param(*names, marks=() if names in _ALWAYS else pytest.mark.exhaustive)
    for names in itertools.product(("mlp", "lenet5", "lenet"), ("sm_80", "sm_90"), ("f32", "tf32"))
]  # fmt: skip


@pytest.mark.parametrize(("name", "architecture", "precision"), _COMBINATIONS)
def test_training_steps_compile_ahead_of_time(name: str, architecture: str, precision: str) -> None:
    """One kernel with all phases: it does not spill, and one block at least fits."""
    target = f"triton:{architecture},{precision}"
    compiled = compile_model(bc.zoo.model(name), target, optimizer=SGD, functions=["train_step"])
    ((kernel, found),) = json.loads(compiled.sources[RESOURCES]).items()
    assert kernel == "train_step_phases"
    assert found["spilled"] == 0
    assert 0 < found["registers"] <= 255
    assert found["threads"] * found["registers"] <= 65536
    assert found["shared"] <= ARCHITECTURES[architecture].shared
    if precision == "tf32" and "tensor" in found:
        assert found["tensor"]


def test_the_same_bytes_twice(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    n = bc.Dim("N", 1, 16)
    x, t = bc.input("x", (n, 6)), bc.input("t", (n,), "i32", limit=3)
    y = bc.Linear(3)(x)
    model = bc.Model({"logits": y}, bc.softmax_loss(y, t))
    found = []
    for folder in ("one", "two"):
        monkeypatch.setenv("BRICKC_CACHE", str(tmp_path / folder))
        compiled = compile_model(
            model, "triton:sm_90,persistent", functions=["train_step"], steps_per_launch=4
        )
        assert any((tmp_path / folder).iterdir())  # compiled afresh
        assert len(compiled.sources) == 4
        found.append(compiled.sources)
    assert found[0] == found[1]
