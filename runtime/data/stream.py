"""An endless run of batches over a finite number of examples: what iterations are counted in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import DataError, UsageError
from .source import Split

__all__ = ["Examples", "Joined", "SplitExamples", "Stream"]

Array = npt.NDArray[Any]


class Examples(Protocol):
    """Examples by number, as arrays under the names of a model's inputs."""

    def __len__(self) -> int: ...

    def fetch(self, indices: Array, random: np.random.Generator) -> Mapping[str, Array]:
        """The examples with those numbers; ``random`` is for crops and mirroring."""
        ...


@dataclass(frozen=True)
class SplitExamples:
    """Arrays in memory; without a name for them, labels are left out."""

    split: Split
    names: tuple[str, str | None]

    def __len__(self) -> int:
        return len(self.split)

    def fetch(self, indices: Array, random: np.random.Generator) -> Mapping[str, Array]:
        found = {self.names[0]: self.split.x[indices]}
        if self.names[1] is not None:
            found[self.names[1]] = self.split.t[indices]
        return found


@dataclass
class Stream:
    """Batch ``k`` of an endless run: a function of (seed, k) alone, so that it can be resumed.

    The examples come in their order, again from the first after the last; with ``shuffle`` each
    pass has an order of its own. Every batch is full.
    Raises UsageError for a size below 1, DataError if there are no examples.
    """

    examples: Examples
    size: int
    seed: int
    shuffle: bool
    _pass: int = field(default=-1, repr=False)
    _order: Array = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError("a batch needs examples", got=self.size)
        if not len(self.examples):
            raise DataError("there are no examples")

    @property
    def batches(self) -> int:
        """Batches that see every example once."""
        return -(-len(self.examples) // self.size)

    def batch(self, k: int) -> Mapping[str, Array]:
        """The arrays of batch k."""
        count = len(self.examples)
        places = np.arange(k * self.size, (k + 1) * self.size, dtype=np.int64)
        if self.shuffle:
            chosen = np.array([self._shuffled(int(p) // count)[p % count] for p in places])
        else:
            chosen = places % count
        return self.examples.fetch(chosen, _generator(self.seed, k, 1))

    def _shuffled(self, number: int) -> Array:
        if number != self._pass:
            self._order = _generator(self.seed, number, 2).permutation(len(self.examples))
            self._pass = number
        return self._order


def _generator(seed: int, number: int, purpose: int) -> np.random.Generator:
    key = np.array([seed & (2**64 - 1), number * 4 + purpose], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


@dataclass(frozen=True)
class Joined:
    """Several sources side by side, as a network with several data layers has them.

    Raises DataError if they name an input twice.
    """

    streams: Sequence[Stream]

    @property
    def batches(self) -> int:
        return max(stream.batches for stream in self.streams)

    def batch(self, k: int) -> Mapping[str, Array]:
        found: dict[str, Array] = {}
        for stream in self.streams:
            part = stream.batch(k)
            if found.keys() & part.keys():
                raise DataError("two sources fill one input", got=", ".join(part))
            found.update(part)
        return found
