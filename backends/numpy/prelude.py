"""Helper functions of generated modules; the printer includes those that are needed."""

from __future__ import annotations

from typing import Any

import numpy as np


def view(
    memory: Any, dtype: str, offset: int, shape: Any, strides: Any = None
) -> np.ndarray[Any, Any]:
    """Elements of ``memory`` from byte ``offset`` on; strides count elements, C order if None."""
    size = np.dtype(dtype).itemsize
    steps = None if strides is None else tuple(s * size for s in strides)
    return np.ndarray(shape, dtype, memory, offset, steps)


def blocks(rows: int, arrays: Any, temps: Any = ()) -> list[tuple[Any, ...]]:
    """The arrays cut into blocks of ``rows`` rows; of each temp as many rows as a block has."""
    count = len(arrays[0])
    cut = []
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        cut.append(
            (*(a[start:stop] for a in arrays), *(t[: stop - start] for t in temps))
        )
    return cut


def take_into(out: Any, source: Any, index: Any, axis: int) -> None:
    """out = source taken at ``index`` along ``axis``; raises IndexError if out of range."""
    if index.size and (index.min() < 0 or index.max() >= source.shape[axis]):
        raise IndexError(f"index {index.min()}..{index.max()} out of 0..{source.shape[axis] - 1}")
    np.copyto(out, np.take(source, index, axis=axis))


def scatter_add_into(out: Any, index: Any, updates: Any, axis: int) -> None:
    """out[…, index, …] += updates; equal indices add up."""
    if index.size and (index.min() < 0 or index.max() >= out.shape[axis]):
        raise IndexError(f"index {index.min()}..{index.max()} out of 0..{out.shape[axis] - 1}")
    rank = index.ndim
    target = np.moveaxis(out, axis, 0)
    source = np.moveaxis(updates, range(axis, axis + rank), range(rank))
    np.add.at(target, index, source)


def philox_uniform(out: Any, seed: Any, counter: Any, stream: int) -> None:
    """out[i] = uniform in [0, 1) from Philox 4x32-10 of (seed, counter, stream, i)."""
    raise NotImplementedError
