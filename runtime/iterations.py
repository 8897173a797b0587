"""Training by iterations, as Caffe's solvers do it: schedule, tests, snapshots, resuming."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ArtifactError
from ..frontends.caffe.solver import Plan
from ..frontends.caffe.weights import save_caffemodel
from .checkpoint import has_checkpoint, read_checkpoint, write_checkpoint

__all__ = ["Batches", "Iterations", "Tested"]

Array = npt.NDArray[Any]

#: the state that holds the learning rate
_RATE = "optimizer.lr"


class Runnable(Protocol):
    """A compiled program."""

    def train_step(self, **inputs: npt.ArrayLike) -> dict[str, Array]: ...
    def evaluate(self, **inputs: npt.ArrayLike) -> dict[str, Array]: ...
    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, values: Mapping[str, npt.ArrayLike], strict: bool = True) -> None: ...


class Batches(Protocol):
    """An endless run of batches."""

    @property
    def batches(self) -> int: ...
    def batch(self, k: int) -> Mapping[str, Array]: ...


@dataclass(frozen=True)
class Tested:
    """Means over the test batches, after so many iterations."""

    iteration: int
    means: Mapping[str, float]


@dataclass
class Iterations:
    """Runs a plan. ``progress`` is called after each iteration with (done, of, mean loss),
    ``tested`` after each test.

    With ``folder``, snapshots go there: ``PREFIX_iter_N.caffemodel`` with the weights, and
    ``state`` with everything, from which ``run`` goes on as if there had been no break.
    """

    program: Runnable
    train: Batches
    #: the batches of each test net
    test: Sequence[Batches]
    plan: Plan
    rate: Callable[[int], float]
    folder: Path | None = None
    progress: Callable[[int, int, float], None] | None = None
    tested: Callable[[Tested], None] | None = None
    #: the loss of every iteration, the mean over its batches
    losses: list[float] = field(default_factory=list)
    tests: list[Tested] = field(default_factory=list)

    def run(self) -> None:
        """Train up to the plan's last iteration, then test.

        Raises NumericsError if a loss is not finite; the last snapshot stays as it was.
        """
        plan = self.plan
        first = self._resume()
        recent: deque[float] = deque(self.losses[-plan.average_loss :], plan.average_loss)
        # a network in which nothing is trained has no rate
        rate = self.program.state_dict().get(_RATE)
        for iteration in range(first, plan.max_iter):
            due = plan.test_interval and iteration % plan.test_interval == 0
            if due and (iteration or plan.test_initialization) and not self._has(iteration):
                self._measure(iteration)
            if rate is not None:
                now = np.asarray(self.rate(iteration), rate.dtype)
                self.program.load_state_dict({_RATE: now}, strict=False)
            parts = []
            for part in range(plan.iter_size):
                batch = self.train.batch(iteration * plan.iter_size + part)
                parts.append(float(self.program.train_step(**batch)["loss"]))
            self.losses.append(float(np.mean(parts)))
            recent.append(self.losses[-1])
            if self.progress is not None:
                self.progress(iteration + 1, plan.max_iter, float(np.mean(recent)))
            if plan.snapshot and (iteration + 1) % plan.snapshot == 0:
                self._snapshot(iteration + 1)
        if not self._has(plan.max_iter):
            self._measure(plan.max_iter)
        ended = plan.max_iter > first and not (plan.snapshot and plan.max_iter % plan.snapshot == 0)
        if plan.snapshot_after_train and ended:
            self._snapshot(plan.max_iter)

    def _has(self, iteration: int) -> bool:
        return bool(self.tests) and self.tests[-1].iteration == iteration

    def _measure(self, iteration: int) -> None:
        """Means over test_iter batches, at most one pass over the data."""
        means: dict[str, float] = {}
        for number, test in enumerate(self.test):
            wanted = self.plan.test_iter[number] if number < len(self.plan.test_iter) else 0
            count = min(wanted or test.batches, test.batches)
            for k in range(count):
                for name, value in self.program.evaluate(**test.batch(k)).items():
                    if value.ndim == 0:
                        # the second test net's loss is loss#2
                        own = f"{name}#{number + 1}" if number else name
                        means[own] = means.get(own, 0.0) + float(value) / count
        if means:
            self.tests.append(Tested(iteration, means))
            if self.tested is not None:
                self.tested(self.tests[-1])

    # ── snapshots ────────────────────────────────────────────────────────────────────────

    def _snapshot(self, iteration: int) -> None:
        if self.folder is None:
            return
        name = f"{self.plan.prefix}_iter_{iteration}.caffemodel"
        save_caffemodel(self.program, self.folder / name)
        tests = [[t.iteration, dict(t.means)] for t in self.tests]
        progress = {"iteration": iteration, "losses": self.losses, "tests": tests}
        write_checkpoint(self.folder / "state", self.program, progress)

    def _resume(self) -> int:
        if self.folder is None or not has_checkpoint(self.folder / "state"):
            return 0
        state = read_checkpoint(self.folder / "state", self.program)
        try:
            iteration = int(state["iteration"])
            self.losses = [float(x) for x in state["losses"]]
            self.tests = [Tested(int(k), dict(means)) for k, means in state["tests"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"checkpoint {self.folder}/state is none of a solver", got=error,
                                hint="delete it to start over") from None  # fmt: skip
        return iteration
