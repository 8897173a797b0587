"""Endless runs of batches: functions of seed and number alone."""

from __future__ import annotations

import numpy as np
import pytest

from brickc.errors import DataError, UsageError
from brickc.runtime.data.source import Split
from brickc.runtime.data.stream import Joined, SplitExamples, Stream


def split(count: int) -> Split:
    x = np.arange(count, dtype=np.float32).reshape(-1, 1)
    return Split(x, np.arange(count, dtype=np.int32))


def labels(stream: Stream, k: int) -> list[int]:
    return [int(t) for t in stream.batch(k)["t"]]


def test_in_order_and_around() -> None:
    stream = Stream(SplitExamples(split(5), ("x", "t")), 3, 0, False)
    assert [labels(stream, k) for k in range(4)] == [[0, 1, 2], [3, 4, 0], [1, 2, 3], [4, 0, 1]]
    assert stream.batches == 2


def test_shuffled_passes_see_everything_once() -> None:
    stream = Stream(SplitExamples(split(10), ("x", "t")), 4, 7, True)
    seen = [t for k in range(5) for t in labels(stream, k)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    # any batch by itself, in any order, is the same
    again = Stream(SplitExamples(split(10), ("x", "t")), 4, 7, True)
    assert labels(again, 3) == seen[12:16]
    assert labels(again, 0) == seen[:4]
    assert labels(Stream(SplitExamples(split(10), ("x", "t")), 4, 8, True), 0) != seen[:4]


def test_without_labels() -> None:
    stream = Stream(SplitExamples(split(3), ("x", None)), 2, 0, False)
    assert set(stream.batch(0)) == {"x"}


def test_side_by_side() -> None:
    a = Stream(SplitExamples(split(4), ("a", None)), 2, 0, False)
    b = Stream(SplitExamples(split(6), ("b", "t")), 2, 0, False)
    joined = Joined([a, b])
    assert joined.batches == 3
    assert set(joined.batch(2)) == {"a", "b", "t"}
    with pytest.raises(DataError, match="two sources"):
        Joined([a, a]).batch(0)


def test_refused() -> None:
    with pytest.raises(UsageError, match="a batch needs examples"):
        Stream(SplitExamples(split(3), ("x", "t")), 0, 0, False)
    with pytest.raises(DataError, match="no examples"):
        Stream(SplitExamples(split(0), ("x", "t")), 1, 0, False)
