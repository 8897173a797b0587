"""Helper functions of generated modules; the printer includes those that are needed."""

from __future__ import annotations

from typing import Any

import numpy as np


def blocks(rows: int, arrays: Any, temps: Any = ()) -> list[tuple[Any, ...]]:
    """The arrays cut into blocks of ``rows`` rows; of each temp as many rows as a block has."""
    count = len(arrays[0])
    cut = []
    for start in range(0, count, rows):
        stop = min(start + rows, count)
        cut.append((*(a[start:stop] for a in arrays), *(t[: stop - start] for t in temps)))
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


def nan_windows(
    x: Any, y: Any, source: Any, target: Any, window: Any, stride: Any, start: Any, gather: bool
) -> None:
    """Windows whose maximum y is NaN: their first NaN in x takes part, in row-major order.

    Scatter adds source[window] to target[place], gather sets target[window] = source[place].
    ``start`` is where the first window begins: minus the padding. Nothing happens without NaN.
    """
    if not np.isnan(np.max(y, initial=-np.inf)):
        return
    windows = np.stack(np.nonzero(np.isnan(y)), axis=1)
    for offset in np.ndindex(*window):
        places = windows * stride + start + offset
        inside = np.all((places >= 0) & (places < x.shape), axis=1)
        found = np.flatnonzero(inside)
        found = found[np.isnan(x[tuple(places[found].T)])]
        at, place = tuple(windows[found].T), tuple(places[found].T)
        if gather:
            target[at] = source[place]
        else:
            np.add.at(target, place, source[at])
        windows = np.delete(windows, found, axis=0)


def philox_uniform(out: Any, seed: Any, counter: Any, stream: int) -> None:
    """out[i] in [0, 1): word i % 4 of Philox 4x32-10 at (i // 4, stream, counter), key seed.

    In chunks, so that the temporaries stay small. Source: Salmon et al., 2011.
    """
    word, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    m0, m1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
    key, count = int(seed) & (2**64 - 1), int(counter) & (2**64 - 1)
    chunk = 1 << 14
    for start in range(0, len(out), 4 * chunk):
        part = out[start : start + 4 * chunk]
        c0 = np.arange(start // 4, start // 4 + (len(part) + 3) // 4, dtype=np.uint64)
        c1 = np.full_like(c0, stream)
        c2 = np.full_like(c0, count & 0xFFFFFFFF)
        c3 = np.full_like(c0, count >> 32)
        k0, k1 = key & 0xFFFFFFFF, key >> 32
        for _ in range(10):
            p0, p1 = m0 * c0, m1 * c2
            c0, c1 = (p1 >> half) ^ c1 ^ np.uint64(k0), p1 & word
            c2, c3 = (p0 >> half) ^ c3 ^ np.uint64(k1), p0 & word
            k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
        words = np.stack((c0, c1, c2, c3), axis=1).reshape(-1)[: len(part)]
        np.multiply(words >> np.uint64(8), 2.0**-24, out=part, casting="unsafe")
