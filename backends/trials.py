"""What the benches of all backends share: numbers for buffers, comparison of results, keys."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..ir.dims import Dim
from ..ir.dtypes import DType
from ..ir.kernel.memory import Buffer

__all__ = ["difference", "first_numbers", "generator", "sizes_to_compare", "text_hash"]

Array = npt.NDArray[Any]

#: a batch beside the typical one, at which results must agree too: no whole tile of examples
SMALL = 3

#: different random numbers in a buffer; longer ones repeat them
NUMBERS = 1 << 18


def generator() -> np.random.Generator:
    """The same numbers each time."""
    return np.random.Generator(np.random.Philox(key=20))


def first_numbers(buffer: Buffer, count: int, rng: np.random.Generator) -> Array:
    """What a buffer holds before a kernel runs: constants, normal numbers, flags, zeros.

    Integers are 0, which is an index into anything.
    """
    dtype = buffer.dtype.held
    if buffer.data:
        return np.frombuffer(buffer.data, dtype).copy()
    if buffer.dtype.is_float:
        return np.resize(rng.standard_normal(min(NUMBERS, count)), count).astype(dtype)
    if buffer.dtype is DType.BOOL:
        return np.resize(rng.random(min(NUMBERS, count)) < 0.5, count)
    return np.zeros(count, dtype)


def sizes_to_compare(dims: Mapping[str, Dim]) -> list[dict[str, int]]:
    """Sizes at which two ways must give the same: the typical ones, and small ones."""
    typical = {n: d.typical for n, d in dims.items()}
    small = {n: min(max(SMALL, d.lo), d.hi) for n, d in dims.items()}
    return [typical] if small == typical else [typical, small]


def difference(found: Array, right: Array) -> float:
    """Largest relative difference; what is not finite, or no float, must be the same."""
    if not np.issubdtype(right.dtype, np.floating):
        return 0.0 if np.array_equal(found, right) else math.inf
    finite = np.isfinite(right)
    if not np.array_equal(found[~finite], right[~finite], equal_nan=True):
        return math.inf
    scale = float(np.max(np.abs(right[finite]), initial=1e-30))
    worst = float(np.max(np.abs(found[finite] - right[finite]), initial=0.0))
    return worst / scale if math.isfinite(worst) else math.inf


def text_hash(folder: Path) -> str:
    """A hash of a backend's own text: other code may make other kernels of a choice."""
    digest = hashlib.sha256()
    for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.h")]):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
