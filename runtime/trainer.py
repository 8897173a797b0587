"""Training loops over compiled programs: epochs, evaluation, checkpoints that resume exactly."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ArtifactError, UsageError
from .checkpoint import has_checkpoint, read_checkpoint, write_checkpoint

__all__ = ["Epoch", "Position", "Runnable", "Source", "Trainer"]

Array = npt.NDArray[Any]
Batch = Mapping[str, Array]


class Runnable(Protocol):
    """What is trained: a compiled program."""

    @property
    def steps_per_launch(self) -> int: ...
    def train_step(self, **inputs: npt.ArrayLike) -> dict[str, Array]: ...
    def train_steps(self, **inputs: npt.ArrayLike) -> dict[str, Array]: ...
    def evaluate(self, **inputs: npt.ArrayLike) -> dict[str, Array]: ...
    def state_dict(self) -> dict[str, Array]: ...
    def load_state_dict(self, values: Mapping[str, npt.ArrayLike], strict: bool = True) -> None: ...


class Source(Protocol):
    """Where batches come from; an epoch's order depends on its number alone."""

    def training(self, epoch: int) -> Sequence[Batch]: ...
    def held_out(self) -> Sequence[Batch]: ...


@dataclass(frozen=True)
class Position:
    """How far training has come: whole epochs, and steps of the next one."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: the mean training loss, and means over the held-out data."""

    number: int
    loss: float
    held_out: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Trainer:
    """Runs epochs. ``progress`` is called after every step with (epoch, step, steps, loss).

    Programs compiled with ``steps_per_launch`` are given so many batches at a time where they
    have equal sizes, no checkpoint lies between them, and no schedule has to be asked.
    ``checkpoint`` is a folder; with it, the state is written after every ``every`` steps and
    every epoch, and ``run`` goes on from there with the same losses as without a break.
    """

    program: Runnable
    source: Source
    progress: Callable[[int, int, int, float], None] | None = None
    checkpoint: Path | None = None
    every: int = 0
    #: sets the learning rate before a step: (program, number of the step from 0)
    schedule: Callable[[Any, int], None] | None = None

    def run(self, epochs: int) -> list[Epoch]:
        """Train until ``epochs`` epochs are done, from the checkpoint if there is one.

        Raises NumericsError if a loss is not finite; the last checkpoint stays as it was.
        """
        position, history, losses = self._resume()
        for epoch in range(position.epoch, epochs):
            batches = self.source.training(epoch)
            first = position.step if epoch == position.epoch else 0
            taken = epoch * len(batches) + first
            step = first
            while step < len(batches):
                if self.schedule is not None:
                    self.schedule(self.program, taken)
                for loss in self._steps(batches, step):
                    losses.append(loss)
                    taken += 1
                    step += 1
                    if self.progress is not None:
                        self.progress(epoch, step, len(batches), loss)
                if self.every and step % self.every == 0 and step < len(batches):
                    self._save(Position(epoch, step), history, losses)
            history.append(Epoch(epoch, float(np.mean(losses)), self.measure()))
            losses = []
            self._save(Position(epoch + 1, 0), history, losses)
        return history

    def _steps(self, batches: Sequence[Batch], step: int) -> list[float]:
        """Losses of the steps that are carried out together from ``step`` on."""
        count = self.program.steps_per_launch
        end = min(len(batches), step + self.every - step % self.every if self.every else 2**63)
        if self.schedule is None and count > 1 and step + count <= end:
            chosen = [batches[k] for k in range(step, step + count)]
            if all(_shapes(b) == _shapes(chosen[0]) for b in chosen):
                stacked = {name: np.stack([b[name] for b in chosen]) for name in chosen[0]}
                return [float(x) for x in self.program.train_steps(**stacked)["loss"]]
        return [float(self.program.train_step(**batches[step])["loss"])]

    def measure(self) -> dict[str, float]:
        """Means of loss and metrics over the held-out data, weighted by batch size."""
        totals: dict[str, float] = {}
        count = 0
        for batch in self.source.held_out():
            size = len(next(iter(batch.values())))
            for name, value in self.program.evaluate(**batch).items():
                if value.ndim == 0:
                    totals[name] = totals.get(name, 0.0) + float(value) * size
            count += size
        return {name: total / count for name, total in totals.items()} if count else {}

    # -- checkpoints ---------------------------------------------------------------------------

    def _save(self, position: Position, history: Sequence[Epoch], losses: Sequence[float]) -> None:
        if self.checkpoint is not None:
            progress = {
                "position": asdict(position),
                "history": [asdict(e) for e in history],
                "losses": list(losses),
            }
            write_checkpoint(self.checkpoint, self.program, progress)

    def _resume(self) -> tuple[Position, list[Epoch], list[float]]:
        if self.checkpoint is None or not has_checkpoint(self.checkpoint):
            return Position(), [], []
        state = read_checkpoint(self.checkpoint, self.program)
        try:
            position = Position(**state["position"])
            history = [Epoch(**e) for e in state["history"]]
            losses = [float(x) for x in state["losses"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"checkpoint {os.fspath(self.checkpoint)} cannot be read", got=error,
                hint="delete it to start over",
            ) from None  # fmt: skip
        return position, history, losses


def _shapes(batch: Batch) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in batch.items()}


def check_epochs(epochs: int) -> None:
    """Raise UsageError unless at least one epoch is asked for."""
    if epochs < 1:
        raise UsageError("nothing to train", got=f"{epochs} epochs", expected="at least 1")
