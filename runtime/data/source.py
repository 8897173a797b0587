"""Data sets as arrays, and their batches in an order that can be resumed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ...errors import DataError, UsageError

__all__ = ["Batches", "Dataset", "Split"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Split:
    """Examples x [n, C, H, W] or [n, D] float32 and labels t [n] int32."""

    x: Array
    t: Array

    def __post_init__(self) -> None:
        if self.x.ndim < 2 or self.t.ndim != 1:
            raise DataError("examples are [n, ...] and labels [n]",
                            got=f"{self.x.shape} and {self.t.shape}")  # fmt: skip
        if len(self.x) != len(self.t):
            raise DataError("examples and labels differ in number",
                            got=f"{len(self.x)} and {len(self.t)}")  # fmt: skip

    def __len__(self) -> int:
        return len(self.t)


@dataclass(frozen=True)
class Dataset:
    """Examples to train on and held-out ones. Labels are 0 … classes-1."""

    name: str
    train: Split
    held_out: Split
    classes: int
    #: what a reader should know about the split
    note: str = ""

    def __post_init__(self) -> None:
        for split in (self.train, self.held_out):
            if len(split) and (split.t.min() < 0 or split.t.max() >= self.classes):
                raise DataError(f"{self.name}: a label is out of range",
                                got=f"{split.t.min()}..{split.t.max()}",
                                expected=f"0..{self.classes - 1}")  # fmt: skip

    def fit_to(self, shape: Sequence[int]) -> Dataset:
        """The examples in a model's shape (without the batch axis), float32.

        Images are enlarged by a whole factor (linearly, corners aligned) and centred on their
        background, which is the darkest value of the examples to train on: 8×8 becomes 24×24
        in a field of 28×28 or 32×32; 28×28 is centred in 32×32. One channel is repeated where
        more are wanted (grey as equal parts of red, green and blue), never the other way.
        For [D], images of D elements are flattened as they are, channel by channel; smaller
        ones of one channel are first fitted to a square of D.

        The values are not normalised anew: a border moves the mean below zero.
        Raises DataError if the examples cannot be made to fit.
        """
        wanted = tuple(shape)
        if tuple(self.train.x.shape[1:]) == wanted:
            return self
        background = float(self.train.x.min()) if self.train.x.size else 0.0

        def change(split: Split) -> Split:
            return Split(_fit(split.x, wanted, self.name, background), split.t)

        return replace(self, train=change(self.train), held_out=change(self.held_out))


def _fit(x: Array, wanted: tuple[int, ...], name: str, background: float) -> Array:
    if x.ndim == 4 and len(wanted) == 1:
        if math.prod(x.shape[1:]) == wanted[0]:
            return x.reshape(len(x), -1)
        side = math.isqrt(wanted[0])
        if side * side != wanted[0] or x.shape[1] != 1:
            raise DataError(f"{name}: images cannot be flattened to fit", got=x.shape[1:],
                            expected=wanted)  # fmt: skip
        return _fit(x, (1, side, side), name, background).reshape(len(x), -1)
    if x.ndim != 4 or len(wanted) != 3:
        raise DataError(f"{name} does not fit the model's input", got=x.shape[1:], expected=wanted)
    channels, height, width = wanted
    if x.shape[1] != channels:
        if x.shape[1] != 1:
            raise DataError(f"{name}: the number of channels does not fit", got=x.shape[1],
                            expected=channels)  # fmt: skip
        x = np.repeat(x, channels, axis=1)
    if not x.shape[2] or not x.shape[3]:
        raise DataError(f"{name}: the images are empty", got=x.shape[1:])
    factor = min(height // x.shape[2], width // x.shape[3])
    if factor < 1:
        raise DataError(f"{name}: the images are larger than the model's input",
                        got=x.shape[2:], expected=f"at most {height}×{width}")  # fmt: skip
    # a border is worth more than the last factor: strokes must not touch the edge
    if factor > 1 and (factor * x.shape[2] > height - 4 or factor * x.shape[3] > width - 4):
        factor -= 1
    if factor > 1:
        x = _enlarge(_enlarge(x, 2, factor), 3, factor)
    pad_h, pad_w = height - x.shape[2], width - x.shape[3]
    border = ((0, 0), (0, 0), (pad_h // 2, pad_h - pad_h // 2), (pad_w // 2, pad_w - pad_w // 2))
    filled: Array = np.pad(x, border, constant_values=background)
    return np.ascontiguousarray(filled, np.float32)


def _enlarge(x: Array, axis: int, factor: int) -> Array:
    """Linear interpolation along one axis, ``factor`` times as many places."""
    size = x.shape[axis]
    if size == 1:
        return np.repeat(x, factor, axis)
    places = np.linspace(0, size - 1, size * factor)
    low = np.minimum(places.astype(int), size - 2)
    weight = (places - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    left, right = np.take(x, low, axis), np.take(x, low + 1, axis)
    blended: Array = left * (1 - weight) + right * weight
    return blended.astype(np.float32)


def normalised(train: Array, held_out: Array) -> tuple[Array, Array]:
    """Both with the mean and standard deviation of the examples to train on, float32.

    One mean and one deviation for all pixels: those that are always black have none of their
    own. Raises DataError if there is nothing to train on.
    """
    if not train.size:
        raise DataError("there are no examples to train on", got=train.shape)
    mean, std = float(train.mean()), float(train.std()) or 1.0
    return (
        ((train - mean) / std).astype(np.float32),
        ((held_out - mean) / std).astype(np.float32),
    )


class Batches(Sequence[dict[str, Array]]):
    """The batches of one epoch as dicts of arrays; the last may be smaller.

    ``names`` are the keys of the examples, float32 [b, …], and of the labels, int32 [b], which
    are left out if there is none. The
    order depends on (seed, epoch) alone (a counter-based generator keyed by both), so that
    training can go on in the middle of an epoch: batch ``k`` is ``batches[k]``, and
    ``batches.starting_at(step)`` gives the rest. ``seed`` None keeps the order of the examples.
    Raises UsageError if the size or the epoch makes no sense.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        names: tuple[str, str | None],
        seed: int | None,
        epoch: int = 0,
    ) -> None:
        if size < 1:
            raise UsageError("a batch needs examples", got=size)
        if epoch < 0:
            raise UsageError("epochs count from 0", got=epoch)
        self.split = split
        self.size = size
        self.names = names
        self.order: Array = np.arange(len(split))
        if seed is not None:
            # as uint64: in a list, a number over 2**63 would make floats of both
            key = np.array([seed & (2**64 - 1), epoch], np.uint64)
            rng = np.random.Generator(np.random.Philox(key=key))
            self.order = rng.permutation(len(split))

    def __len__(self) -> int:
        return (len(self.split) + self.size - 1) // self.size

    @overload
    def __getitem__(self, index: int) -> dict[str, Array]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Array]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Array] | list[dict[str, Array]]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        first = index % len(self) * self.size
        chosen = self.order[first : first + self.size]
        found = {self.names[0]: self.split.x[chosen]}
        if self.names[1] is not None:
            found[self.names[1]] = self.split.t[chosen]
        return found

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return self.starting_at(0)

    def starting_at(self, step: int) -> Iterator[dict[str, Array]]:
        """The batches from ``step`` on, made as they are asked for.

        Raises UsageError if the epoch has fewer steps.
        """
        if not 0 <= step <= len(self):
            raise UsageError("the epoch has no such step", got=step, expected=f"0..{len(self)}")
        return (self[k] for k in range(step, len(self)))
