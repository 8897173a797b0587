"""The search: kernels in the order of what they may gain, a few candidates of each at a time.

Candidates are what differs in one decision from the best choice so far (``Backend.candidates``),
those first of which the cost model expects most. They are built together, run in turns with all
others of their batch, and compared by the medians of their faster runs. A choice is taken if it is
clearly faster twice, and its results are those of the usual choice within the tolerance.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..backends.base import Backend, Bench, Choices, Timed, Trial
from ..ir.dims import hint
from ..ir.kernel.choices import Choice, Made, NoSuchChoiceError, kernel_key
from ..ir.kernel.kernel import KernelProgram
from .cache import Entry, Memory

__all__ = ["Outcome", "Row", "Task", "Tuner", "task_list"]

#: a choice must take at most this part of the best one's time, or noise would decide
CLEARLY = 0.97

#: runs of each candidate: at least, at most, and after how long they end if there were enough
LEAST_RUNS, MOST_RUNS = 3, 60
RUN_SECONDS = 1.0

#: candidates that are built together, and those of one kernel
BATCH = 16
NEW = 5

#: bytes of the kernels that are built together, unless a single one has more
BATCH_BYTES = 1 << 30

#: seconds that building one candidate takes, and how many are built at first to find that out
BUILD_SECONDS = 0.5
FIRST_BATCH = 4

#: how much less a kernel is worth after each batch of its candidates
FADING = 0.5

#: called with the seconds that have gone by, and what happens now
Progress = Callable[[float, str], None]


@dataclass
class Task:
    """One distinct kernel that can be carried out in several ways."""

    key: str
    program: KernelProgram
    number: int
    #: functions that have it, and how often it occurs in all of them
    functions: list[str]
    count: int
    usual: Made
    best: Made
    #: expected, then measured
    seconds: float
    default_seconds: float = math.nan
    tried: set[str] = field(default_factory=set)
    batches: int = 0
    settled: bool = False
    #: choices that were faster but gave other results
    wrong: list[str] = field(default_factory=list)
    remembered: bool = False
    #: what differs from the best in one decision and was not measured yet, best expected first
    waiting: list[Made] | None = None

    @property
    def name(self) -> str:
        return self.usual.kernel.name

    @property
    def measured(self) -> bool:
        return not math.isnan(self.default_seconds)

    def gain(self, scale: float) -> float:
        """Seconds of a step that more candidates of this kernel may be about."""
        seconds = self.seconds if self.measured else self.seconds * scale
        return float(seconds * self.count * FADING**self.batches)


@dataclass(frozen=True)
class Row:
    """What became of one kernel: seconds are NaN where nothing was measured."""

    kernel: str
    functions: tuple[str, ...]
    count: int
    default: str
    choice: str
    default_seconds: float
    seconds: float
    tried: int
    remembered: bool
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """Choices for ``Backend.select``, and how they came about."""

    choices: Choices
    rows: tuple[Row, ...]
    environment: Mapping[str, str]
    #: seconds that tuning took, and candidates that were timed
    spent: float
    timed: int
    settled: int


def task_list(
    backend: Backend, functions: Iterable[tuple[str, KernelProgram, Sequence[Made]]]
) -> list[Task]:
    """Distinct kernels with something to choose; of equal ones the first stands for all."""
    found: dict[str, Task] = {}
    for name, program, kernels in functions:
        for number, made in enumerate(kernels):
            if not any(others for _, others in made.options):
                continue
            key = kernel_key(made.kernel)
            task = found.get(key)
            if task is None:
                seconds = backend.estimate(program, made)
                found[key] = Task(key, program, number, [name], 1, made, made, seconds)
                continue
            task.count += 1
            if name not in task.functions:
                task.functions.append(name)
    return list(found.values())


class Tuner:
    """One run of the search. ``clock`` gives seconds."""

    def __init__(
        self,
        backend: Backend,
        bench: Bench,
        memory: Memory,
        tolerances: Mapping[str, float],
        *,
        clock: Callable[[], float] = time.monotonic,
        progress: Progress | None = None,
    ) -> None:
        self.backend = backend
        self.bench = bench
        self.memory = memory
        self.tolerances = tolerances
        self.clock = clock
        self.progress = progress or (lambda seconds, what: None)
        self._started = 0.0
        self._build_seconds = BUILD_SECONDS
        self._timed = 0

    def run(self, tasks: Sequence[Task], seconds: float) -> Outcome:
        """Search until the seconds are over, or nothing is left to try."""
        self._started = self.clock()
        deadline = self._started + seconds
        for task in tasks:
            self._remember(task)
        if seconds > 0:
            self.memory.store({})  # a folder that cannot be written is said now, not at the end
        while self.clock() < deadline:
            batch = self._batch(tasks, deadline)
            if not batch:
                break
            self._try(batch)
        return self._outcome(tasks)

    # -- what is known -----------------------------------------------------------------------------

    def _remember(self, task: Task) -> None:
        entry = self.memory.entries.get(task.key)
        if entry is None:
            return
        try:
            first, *_ = self.backend.candidates(task.program, task.number, entry.choice)
        except NoSuchChoiceError:
            return  # of a strategy that has changed since: measured anew
        task.best = first
        task.seconds, task.default_seconds = entry.seconds, entry.default_seconds
        task.tried, task.settled = set(entry.tried), entry.settled
        task.remembered = True

    def _entry(self, task: Task) -> Entry:
        return Entry(task.name, task.best.choice, task.seconds, task.default_seconds,
                     frozenset(task.tried), task.settled)  # fmt: skip

    # -- what comes next ---------------------------------------------------------------------------

    def _batch(self, tasks: Sequence[Task], deadline: float) -> list[tuple[Task, list[Made]]]:
        """Kernels with the best choice so far and some others, as many as there is time for."""
        known = [t for t in tasks if t.measured]
        expected = sum(self.backend.estimate(t.program, t.usual) for t in known)
        scale = sum(t.default_seconds for t in known) / expected if expected else 1.0
        room, left = BATCH if self._timed else FIRST_BATCH, deadline - self.clock()
        space = BATCH_BYTES
        batch: list[tuple[Task, list[Made]]] = []
        for task in sorted(tasks, key=lambda t: -t.gain(scale)):
            # building one, and running it some times more than is needed at least
            runs = (LEAST_RUNS + 2) * task.seconds * (1 if task.measured else scale)
            each = self._build_seconds + runs
            most = min(NEW + 1, room, int(left / each))
            size = hint(task.usual.kernel.bytes_moved)
            if task.settled or most < 2 or (batch and size > space):
                continue
            self.progress(self.clock() - self._started, f"candidates of {task.name}")
            ways = self._ways(task, most)
            if len(ways) == 1:
                task.settled = True
                if task.measured:
                    self.memory.store({task.key: self._entry(task)})
                continue
            batch.append((task, ways))
            room -= len(ways)
            left -= len(ways) * each
            space -= size
        return batch

    def _ways(self, task: Task, most: int) -> list[Made]:
        """The usual way first, then the best so far if that is another, then new ones."""
        if task.waiting is None:
            around = self.backend.candidates(task.program, task.number, task.best.choice)
            task.waiting = sorted(around[1:], key=lambda m: self.backend.estimate(task.program, m))
        known = [task.usual]
        if task.best.choice != task.usual.choice:
            known.append(task.best)
        done = task.tried | {str(m.choice) for m in known}
        task.waiting = [m for m in task.waiting if str(m.choice) not in done]
        new = task.waiting[: max(1, most - len(known))]
        return [*known, *new] if new else known[:1]

    # -- measuring ---------------------------------------------------------------------------------

    def _try(self, batch: Sequence[tuple[Task, list[Made]]]) -> None:
        count = sum(len(ways) for _, ways in batch)
        names = ", ".join(task.name for task, _ in batch)
        self.progress(self.clock() - self._started, f"building {count} candidates: {names}")
        before = self.clock()
        built = self.bench.build([Trial(t.program, t.number, ways) for t, ways in batch])
        self._build_seconds = (self.clock() - before) / count
        self.progress(self.clock() - self._started, f"timing {count} candidates: {names}")
        everyone = [(k, way) for k, (_, ways) in enumerate(batch) for way in range(len(ways))]
        medians = self._medians(built, everyone)
        self._timed += count
        for number, (task, ways) in enumerate(batch):
            times = [medians[number, way] for way in range(len(ways))]
            self._judge(task, ways, times, built[number])
            task.batches += 1
        self.memory.store({task.key: self._entry(task) for task, _ in batch})

    def _medians(
        self, built: Sequence[Timed], who: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], float]:
        """Seconds of some ways that run in turns, so that a slow moment meets them all.

        Each turn has another order, since a way finds in the caches what the one before it has
        left there. The median of the faster half of each one's runs: what disturbs a run makes it
        longer.
        """
        times: dict[tuple[int, int], list[float]] = {pair: [] for pair in who}
        for pair in who:
            built[pair[0]].seconds(pair[1])  # memory is touched, and threads are awake
        started = self.clock()
        order, shuffled = list(who), random.Random(0)
        for turn in range(MOST_RUNS):
            shuffled.shuffle(order)
            for pair in order:
                times[pair].append(built[pair[0]].seconds(pair[1]))
            if turn + 1 >= LEAST_RUNS and self.clock() - started >= RUN_SECONDS:
                break
        halves = {pair: sorted(found)[: -(-len(found) // 2)] for pair, found in times.items()}
        return {pair: statistics.median(half) for pair, half in halves.items()}

    def _judge(
        self, task: Task, ways: Sequence[Made], times: Sequence[float], built: Timed
    ) -> None:
        """Take the fastest way if it is clearly faster than the best so far, and right."""
        best = next(k for k, m in enumerate(ways) if m.choice == task.best.choice)
        task.tried |= {str(m.choice) for m in ways}
        task.default_seconds, task.seconds = times[0], times[best]
        for way in sorted(range(len(ways)), key=lambda k: times[k]):
            if times[way] >= CLEARLY * times[best]:
                return
            again = self._medians([built], [(0, best), (0, way)])
            if again[0, way] >= CLEARLY * again[0, best]:
                continue
            if not self._right(built, way):
                task.wrong.append(str(ways[way].choice))
                continue
            # what it gains on the best so far, in one unit with the usual way's time
            task.seconds = times[best] * again[0, way] / again[0, best]
            task.best, task.waiting = ways[way], None
            return

    def _right(self, built: Timed, way: int) -> bool:
        errors = built.error(way)
        return all(e <= self.tolerances.get(dtype, 0.0) for dtype, e in errors.items())

    # -- the end -----------------------------------------------------------------------------------

    def _outcome(self, tasks: Sequence[Task]) -> Outcome:
        choices: dict[str, Choice] = {}
        rows = []
        for task in tasks:
            if task.best.choice != task.usual.choice:
                choices[task.key] = task.best.choice
            rows.append(
                Row(task.name, tuple(task.functions), task.count, str(task.usual.choice),
                    str(task.best.choice), task.default_seconds,
                    task.seconds if task.measured else math.nan,
                    len(task.tried), task.remembered, tuple(task.wrong))
            )  # fmt: skip
        spent = self.clock() - self._started
        settled = sum(t.settled for t in tasks)
        return Outcome(choices, tuple(rows), self.bench.environment, spent, self._timed, settled)
