"""Kernels of target triton carried out otherwise: choices, the bench, tables; no device needed."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import brickc as bc
from brickc.backends.base import Backend, Trial
from brickc.backends.trials import text_hash
from brickc.backends.triton import TritonBackend
from brickc.backends.triton import tables as tables_module
from brickc.backends.triton.bench import RUNS, GpuTimer, TritonBench, open_bench
from brickc.backends.triton.launches import TritonKernel
from brickc.backends.triton.options import parse
from brickc.backends.triton.tables import read_table, shipped, table_text
from brickc.driver import Compiled, Function, compile_model
from brickc.errors import InternalError, UnsupportedError
from brickc.ir.interpret import interpret
from brickc.ir.kernel.choices import Choice, kernel_key
from brickc.tuning import Entry, Memory, Tuner, task_list

pytest.importorskip("triton")


def small_model() -> bc.Model:
    N = bc.Dim("N", 1, 8, 4)
    x, t = bc.input("x", (N, 3, 6, 6)), bc.input("t", (N,), "i32")
    y = bc.Sequential(
        bc.Conv2d(5, 3, padding=1), bc.ReLU(), bc.Conv2d(6, 3), bc.Tanh(), bc.Flatten(),
        bc.Linear(10),
    )(x)  # fmt: skip
    return bc.Model(outputs={"logits": y}, loss=bc.softmax_loss(y, t))


def train_step(target: str = "triton") -> Function:
    return compile_model(small_model(), target, functions=["train_step"]).functions["train_step"]


def tunable(f: Function) -> Iterator[tuple[int, TritonKernel]]:
    for k, made in enumerate(f.kernels):
        assert isinstance(made, TritonKernel)
        if any(others for _, others in made.options):
            yield k, made


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

    return compile_model(small_model(), "triton", functions=["train_step"], tune=others)


@pytest.mark.parametrize("number", [0, 3])
def test_other_choices_agree_with_the_interpreter(number: int) -> None:
    compiled = with_choices(number)
    f = compiled.functions["train_step"]
    assert len(compiled.choices) == sum(1 for _ in tunable(f)) >= 6
    program = bc.Program.of(compiled, seed=1)
    rng = np.random.default_rng(number)
    feed = {"x": rng.standard_normal((3, 3, 6, 6)).astype(np.float32),
            "t": rng.integers(0, 10, 3).astype(np.int32)}  # fmt: skip
    wanted = interpret(f.graph, {**feed, **program.state_dict()})
    np.testing.assert_allclose(
        program.train_step(**feed)["loss"], wanted.outputs["loss"], rtol=1e-5
    )
    after = program.state_dict()
    for name, value in wanted.updates.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-4, atol=1e-5)


def scripted(seconds: Callable[[int], float]) -> Callable[[Callable[[], None]], float]:
    """A timer that runs what it times, and says what it is told for the n-th thing it sees."""
    seen: list[Callable[[], None]] = []

    def timer(start: Callable[[], None]) -> float:
        if start not in seen:
            start()
            seen.append(start)
        return seconds(seen.index(start))

    return timer


def test_the_bench_runs_and_compares_ways() -> None:
    f, chosen = train_step(), TritonBackend.of("")
    numbers = [k for k, made in tunable(f) if made.kernel.kind == "contract"]
    trials = [Trial(f.program, k, chosen.candidates(f.program, k)[:3]) for k in numbers[:2]]
    bench = TritonBench(chosen.options, "cpu", "interpreter", scripted(lambda n: 1.0 + n))
    built = bench.build(trials)
    assert [t.seconds(w) for t in built for w in range(3)] == [1, 2, 3, 4, 5, 6]
    assert built[1].seconds(1) == 5
    for timed in built:
        assert all(timed.error(w)["f32"] < 1e-5 for w in range(3))
    assert set(bench.environment) == {"target", "device", "precision", "triton", "code"}


class FakeCuda:
    """Events a millisecond apart; a graph that says how often it was recorded and replayed."""

    def __init__(self) -> None:
        self.replays = 0
        self.now = 0.0

    def synchronize(self) -> None:
        pass

    @contextmanager
    def graph(self, graph: object) -> Iterator[None]:
        yield

    def CUDAGraph(self) -> SimpleNamespace:  # noqa: N802
        def replay() -> None:
            self.replays += 1

        return SimpleNamespace(replay=replay)

    def Event(self, *, enable_timing: bool) -> SimpleNamespace:  # noqa: N802
        assert enable_timing
        event = SimpleNamespace(at=0.0, synchronize=lambda: None)

        def record() -> None:
            self.now += 1.0
            event.at = self.now

        event.record = record
        event.elapsed_time = lambda other: other.at - event.at
        return event


def test_the_devices_clock_times_a_graph_of_many_runs() -> None:
    cuda = FakeCuda()
    timer = GpuTimer(SimpleNamespace(cuda=cuda))
    started = []

    def start() -> None:
        started.append(1)

    assert timer(start) == 1e-3 / RUNS
    assert (len(started), cuda.replays) == (1 + RUNS, 2)
    assert timer(start) == 1e-3 / RUNS
    assert (len(started), cuda.replays) == (1 + RUNS, 3)
    assert len(timer.graphs) == 1
    del start
    assert len(timer.graphs) == 0


def test_the_search_takes_what_the_timer_prefers(tmp_path: Path) -> None:
    f, chosen = train_step(), TritonBackend.of("")
    number, made = next((k, m) for k, m in tunable(f) if m.kernel.kind == "contract")
    tasks = [t for t in task_list(chosen, [(f.name, f.program, f.kernels)]) if t.number == number]
    bench = TritonBench(
        chosen.options, "cpu", "interpreter", scripted(lambda n: 0.5 if n == 2 else 1.0)
    )
    now = iter(range(100_000))
    memory = Memory(bench.environment, tmp_path)
    tuner = Tuner(chosen, bench, memory, {"f32": 1e-4}, clock=lambda: float(next(now)))
    found = tuner.run(tasks, 60)
    assert found.choices[kernel_key(made.kernel)] != made.choice
    assert (found.rows[0].tried, found.rows[0].wrong) == (9, ())
    kernels, _ = chosen.select(f.program, found.choices)
    assert kernels[number].choice == found.choices[kernel_key(made.kernel)]


def test_without_a_device_tuning_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="no device to time on; got Triton's interpreter"):
        bc.compile(small_model(), "triton", tune=1)
    torch = pytest.importorskip("torch")
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnsupportedError, match="no device to time on; got no GPU"):
        open_bench(parse("sm_90"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    with pytest.raises(UnsupportedError, match=r"another one .*; got sm_80; expected sm_90"):
        open_bench(parse("sm_90"))


def test_estimates_follow_the_work() -> None:
    chosen = TritonBackend.of("sm_90,tf32")
    f = train_step("triton")
    for number, made in tunable(f):
        cost = chosen.estimate(f.program, made)
        assert 1e-6 < cost < 1e-3
        for way in chosen.candidates(f.program, number):
            assert chosen.estimate(f.program, way) > 0
    # a tile whose operands outgrow the shared memory is never expected to run
    number, made = next(tunable(f))
    wide = Choice((("m", 256), ("n", 128), ("k", 64), ("warps", 8), ("stages", 4), ("parts", 1)))
    huge = TritonKernel(made.kernel, made.launches, (), wide, ())
    assert chosen.estimate(f.program, huge) == math.inf


# -- tables ----------------------------------------------------------------------------------------


def test_no_table_is_shipped_that_was_not_measured() -> None:
    for path in tables_module.FOLDER.glob("*.json"):
        data = json.loads(path.read_text())
        assert data["measured"]["device"].endswith(path.stem)
        assert read_table(path)
    assert shipped(parse("")) == {}


def test_a_table_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen = TritonBackend.of("sm_80")
    f = compile_model_only(chosen)
    number, made = next((k, m) for k, m in tunable(f) if m.kernel.kind == "contract")
    key, other = kernel_key(made.kernel), chosen.candidates(f.program, number)[2].choice
    stale = next(kernel_key(m.kernel) for k, m in tunable(f) if k != number)
    table = {"f32": {key: other, stale: Choice((("m", 7),))}}
    text = table_text("sm_80", {"device": "a GPU, sm_80"}, table)
    assert text == table_text("sm_80", {"device": "a GPU, sm_80"}, dict(reversed(table.items())))
    (tmp_path / "sm_80.json").write_text(text)
    monkeypatch.setattr(tables_module, "FOLDER", tmp_path)
    kernels, _ = chosen.select(f.program)
    assert kernels[number].choice == other
    # of an entry that no strategy offers the rules make the best
    rest = [a.choice == b.choice for k, (a, b) in enumerate(zip(kernels, f.kernels, strict=True))
            if k != number]  # fmt: skip
    assert all(rest)
    # what a caller wants goes first
    kernels, _ = chosen.select(f.program, {key: made.choice})
    assert kernels[number].choice == made.choice
    assert shipped(parse("sm_80,tf32")) == {}


def compile_model_only(chosen: TritonBackend) -> Function:
    """The training step without its binaries."""
    f = train_step("triton")
    kernels, _ = chosen.select(f.program)
    return Function(f.name, f.stages, f.graph, f.layouts, f.fusion, f.order, f.program, kernels,
                    f.plan)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "{", '{"format": 1, "architecture": "sm_90", "kernels": {}}',
     '{"format": 1, "architecture": "sm_80", "kernels": {"f32": {"k": 3}}}',
     '{"format": 1, "architecture": "sm_80", "kernels": {"f32": {"k": [["m", null]]}}}'],
)  # fmt: skip
def test_what_is_no_table(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sm_80.json"
    path.write_text(text)
    with pytest.raises(InternalError, match="is no table of choices"):
        read_table(path)


def test_a_table_is_made_of_what_was_remembered(tmp_path: Path) -> None:
    code = text_hash(tables_module.FOLDER.parent)
    here = {"target": "triton", "device": "a GPU, sm_90", "precision": "tf32", "triton": "3.6",
            "code": code}  # fmt: skip
    faster = Choice((("m", 64),))

    def entry(seconds: float) -> Entry:
        return Entry("fc", faster, seconds, 1.0, frozenset(), True)

    Memory(here, tmp_path).store({"a": entry(0.5), "b": entry(1.0)})
    Memory({**here, "device": "a GPU, sm_80"}, tmp_path).store({"c": entry(0.5)})
    Memory({**here, "code": "older"}, tmp_path).store({"d": entry(0.5)})
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "tuning_table.py"
    spec = importlib.util.spec_from_file_location("tuning_table", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    measured, found = script.collect(tmp_path, "sm_90")
    assert measured == {"device": "a GPU, sm_90", "triton": "3.6"}
    assert found == {"tf32": {"a": faster}}
    (tmp_path / "sm_90.json").write_text(table_text("sm_90", measured, found))
    assert read_table(tmp_path / "sm_90.json") == found
