"""The search, with a clock that only moves when something is built or run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from brickc.backends.base import Timed, Trial
from brickc.errors import UsageError
from brickc.ir.dtypes import DType
from brickc.ir.kernel.anchors import Contract
from brickc.ir.kernel.choices import UNDECIDED, Choice, Options, Picks, kernel_key, neighbours
from brickc.ir.kernel.kernel import Kernel, KernelProgram, Region
from brickc.ir.kernel.memory import Access
from brickc.ir.kernel.scalar import ScalarBuilder
from brickc.tuning import Memory, Outcome, Tuner, task_list

BUILD = 0.5  # seconds a candidate


@dataclass(frozen=True)
class Made:
    kernel: Kernel
    choice: Choice
    options: Options


def kernel(name: str, rows: int) -> Kernel:
    builder = ScalarBuilder()
    program = builder.build([builder.input(DType.F32)])
    result = Access("y", DType.F32, 0, (rows, 4), (4, 1))
    operands = (
        Access("x", DType.F32, 0, (rows, 3), (3, 1)), Access("w", DType.F32, 0, (3, 4), (4, 1))
    )  # fmt: skip
    after = Region((rows, 4), program, (), ((0, result),))
    return Kernel(name, Contract("ik", "kj", "ij"), operands, None, after)


def make(what: Kernel, wanted: Choice) -> Made:
    picks = Picks(wanted)
    if what.name != "fixed":
        picks.pick("rows", 4, (1, 2, 3, 5, 6))
        picks.pick("copy", "whole", ("panels",))
    return Made(what, *picks.finish())


class FakeBackend:
    """Expects most of few rows."""

    def candidates(
        self, program: KernelProgram, number: int, around: Choice = UNDECIDED
    ) -> Sequence[Made]:
        return neighbours(lambda wanted: make(program.kernels[number], wanted), around)

    def estimate(self, program: KernelProgram, made: Made) -> float:
        size = made.kernel.after.shape[0]
        assert isinstance(size, int)
        return 1e-6 * size * (10 + int(made.choice.as_dict().get("rows", 0)))


@dataclass
class FakeBench:
    """Seconds by kernel name and choice; the clock moves by what is done."""

    times: Mapping[tuple[str, str], float] = field(default_factory=dict)
    usual: float = 1e-3
    wrong: frozenset[str] = frozenset()
    environment: Mapping[str, str] = field(default_factory=lambda: {"target": "fake"})
    now: float = 100.0
    builds: list[list[str]] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def build(self, trials: Sequence[Trial]) -> list[Timed]:
        count = sum(len(t.ways) for t in trials)
        self.now += BUILD * count
        self.builds.append([f"{m.kernel.name} {m.choice}" for t in trials for m in t.ways])
        return [FakeTimed(self, t) for t in trials]


@dataclass
class FakeTimed:
    bench: FakeBench
    trial: Trial

    def seconds(self, way: int) -> float:
        made = self.trial.ways[way]
        seconds = self.bench.times.get((made.kernel.name, str(made.choice)), self.bench.usual)
        self.bench.now += seconds
        self.bench.runs.append(f"{made.kernel.name} {made.choice}")
        return seconds

    def error(self, way: int) -> dict[str, float]:
        text = str(self.trial.ways[way].choice)
        self.bench.checked.append(text)
        return {"f32": 1e-3 if text in self.bench.wrong else 1e-6}


def functions(*kernels: Kernel) -> list[tuple[str, KernelProgram, list[Made]]]:
    program = KernelProgram("step", {}, {}, kernels, {}, {})
    return [("train_step", program, [make(k, UNDECIDED) for k in kernels])]


def tune(bench: FakeBench, folder: Path, *kernels: Kernel, seconds: float = 1000.0) -> Outcome:
    backend: Any = FakeBackend()
    tuner = Tuner(
        backend, bench, Memory(bench.environment, folder), {"f32": 1e-4}, clock=bench.clock
    )
    return tuner.run(task_list(backend, functions(*kernels)), seconds)


FC = kernel("fc", 8)
KEY = kernel_key(FC)


def test_equal_kernels_are_one_task_and_fixed_ones_none() -> None:
    backend: Any = FakeBackend()
    twice = functions(FC, kernel("fixed", 5), kernel("fc2", 9), kernel("fc3", 8))
    tasks = task_list(backend, [*twice, ("infer", twice[0][1], twice[0][2])])
    assert [(t.name, t.count, t.functions) for t in tasks] == [
        ("fc", 4, ["train_step", "infer"]), ("fc2", 2, ["train_step", "infer"]),
    ]  # fmt: skip


def test_the_fastest_right_choice_is_found(tmp_path: Path) -> None:
    times = {("fc", "rows=6 copy=whole"): 7e-4, ("fc", "rows=6 copy=panels"): 5e-4}
    found = tune(FakeBench(times), tmp_path, FC)
    assert found.choices == {KEY: Choice((("rows", 6), ("copy", "panels")))}
    (row,) = found.rows
    assert (row.default, row.choice) == ("rows=4 copy=whole", "rows=6 copy=panels")
    assert row.default_seconds == 1e-3
    assert math.isclose(row.seconds, 5e-4)
    assert found.settled == 1


def test_the_usual_choice_stays_if_nothing_is_clearly_faster(tmp_path: Path) -> None:
    found = tune(FakeBench({("fc", "rows=6 copy=whole"): 0.98e-3}), tmp_path, FC)
    assert found.choices == {}
    assert found.rows[0].choice == "rows=4 copy=whole"
    # all six neighbours were looked at, and the usual way beside them
    assert found.rows[0].tried == 7


def test_a_choice_that_changes_results_is_not_taken(tmp_path: Path) -> None:
    times = {("fc", "rows=1 copy=whole"): 2e-4, ("fc", "rows=2 copy=whole"): 6e-4}
    bench = FakeBench(times, wrong=frozenset({"rows=1 copy=whole"}))
    found = tune(bench, tmp_path, FC)
    assert found.choices == {KEY: Choice((("rows", 2), ("copy", "whole")))}
    assert found.rows[0].wrong == ("rows=1 copy=whole",)
    assert set(bench.checked) == {"rows=1 copy=whole", "rows=2 copy=whole"}


def test_the_same_measurements_give_the_same_choices(tmp_path: Path) -> None:
    times = {("fc", "rows=2 copy=panels"): 5e-4, ("fc", "rows=2 copy=whole"): 9e-4,
             ("fc2", "rows=5 copy=whole"): 1e-4}  # fmt: skip
    runs = []
    for name in ("a", "b"):
        bench = FakeBench(times)
        runs.append((tune(bench, tmp_path / name, FC, kernel("fc2", 9)), bench.builds))
    assert runs[0] == runs[1]
    assert len(runs[0][0].choices) == 2


@pytest.mark.parametrize("seconds", [1.9, 5.0, 12.0, 30.0])
def test_the_budget_is_kept(tmp_path: Path, seconds: float) -> None:
    kernels = [kernel(f"fc{n}", n) for n in range(8, 40)]
    bench = FakeBench()
    found = tune(bench, tmp_path, *kernels, seconds=seconds)
    assert found.spent == bench.now - 100.0
    # timing a batch may end a second late, building one may not
    assert seconds / 2 <= found.spent <= seconds + 1.1
    assert 0 < found.timed < 32 * 7


def test_nothing_is_built_without_time(tmp_path: Path) -> None:
    bench = FakeBench()
    found = tune(bench, tmp_path, FC, seconds=0)
    assert (bench.builds, found.timed, found.choices) == ([], 0, {})
    assert math.isnan(found.rows[0].seconds)
    assert not (tmp_path / "tune").exists()
    assert tune(bench, tmp_path, FC, seconds=0.9).timed == 0


def test_kernels_that_take_longest_come_first(tmp_path: Path) -> None:
    bench = FakeBench()
    tune(bench, tmp_path, kernel("small", 8), kernel("large", 100), kernel("middle", 50))
    first = list(dict.fromkeys(text.split()[0] for batch in bench.builds for text in batch))
    assert first == ["large", "middle", "small"]
    # the usual way first, then those of which the model expects most
    assert bench.builds[0][:3] == [
        "large rows=4 copy=whole", "large rows=1 copy=whole", "large rows=2 copy=whole",
    ]  # fmt: skip


def test_every_turn_has_another_order(tmp_path: Path) -> None:
    bench = FakeBench()
    tune(bench, tmp_path, FC, kernel("fc2", 9), seconds=3.1)
    (built,) = bench.builds
    count = len(built)
    assert count == 4
    turns = [bench.runs[k : k + count] for k in range(0, len(bench.runs), count)]
    assert all(sorted(turn) == sorted(built) for turn in turns)
    # what a way finds in the caches is not always what the same one has left there
    assert len({tuple(turn) for turn in turns}) > 10


def test_results_are_remembered(tmp_path: Path) -> None:
    times = {("fc", "rows=6 copy=whole"): 5e-4}
    first = tune(FakeBench(times), tmp_path, FC)
    again = FakeBench(times)
    second = tune(again, tmp_path, FC)
    assert (second.choices, second.timed, again.builds) == (first.choices, 0, [])
    assert second.rows[0].remembered
    other = FakeBench(times, environment={"target": "fake", "threads": "3"})
    assert tune(other, tmp_path, FC).timed > 0


def test_a_search_goes_on_where_it_ended(tmp_path: Path) -> None:
    times = {("fc", "rows=6 copy=whole"): 5e-4}
    first = FakeBench(times)
    tune(first, tmp_path, FC, seconds=2.4)
    assert len(first.builds) == 1
    second = FakeBench(times)
    found = tune(second, tmp_path, FC)
    assert found.choices == {KEY: Choice((("rows", 6), ("copy", "whole")))}
    # of what the first run built only the usual way is built again, to compare with
    both = {text for batch in second.builds for text in batch} & set(first.builds[0])
    assert both == {"fc rows=4 copy=whole"}


def test_what_strategies_no_longer_offer_is_measured_anew(tmp_path: Path) -> None:
    bench = FakeBench({("fc", "rows=6 copy=whole"): 5e-4})
    tune(bench, tmp_path, FC)
    (file,) = (tmp_path / "tune").iterdir()
    file.write_text(file.read_text().replace('"rows",\n     6', '"rows",\n     7'))
    assert Memory(bench.environment, tmp_path).entries[KEY].choice.as_dict()["rows"] == 7
    found = tune(bench, tmp_path, FC)
    assert found.choices == {KEY: Choice((("rows", 6), ("copy", "whole")))}
    assert found.timed > 0
    assert not found.rows[0].remembered


def test_a_folder_that_cannot_be_written_is_said_first(tmp_path: Path) -> None:
    (tmp_path / "tune").touch()
    bench = FakeBench()
    said = pytest.warns(UserWarning, match="cannot be read")
    with said, pytest.raises(UsageError, match="cannot be kept"):
        tune(bench, tmp_path, FC)
    assert bench.builds == []
