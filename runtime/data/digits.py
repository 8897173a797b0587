"""Handwritten digits that scikit-learn bundles: 1,797 images of 8×8, no network needed."""

from __future__ import annotations

import numpy as np

from ...errors import DataError
from .source import Dataset, Split, normalised

__all__ = ["digits"]

#: share of the examples that is held out
HELD_OUT = 0.2


def digits(seed: int = 0) -> Dataset:
    """x [n, 1, 8, 8], 0..16 divided by 16 and normalised by the mean and deviation of the
    examples to train on; every class is split 80 : 20 by the seed.

    Raises DataError if scikit-learn is not installed.
    Source: UCI Optical Recognition of Handwritten Digits, the test part
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("the digits come with scikit-learn, which is not installed",
                        hint="pip install scikit-learn") from None  # fmt: skip
    bunch = load_digits()
    x = np.asarray(bunch.images, np.float32)[:, None] / 16
    t = np.asarray(bunch.target, np.int32)
    rng = np.random.Generator(np.random.Philox(key=seed))
    held = np.zeros(len(t), bool)
    for label in range(10):
        members = rng.permutation(np.flatnonzero(t == label))
        held[members[: round(len(members) * HELD_OUT)]] = True
    train, test = normalised(x[~held], x[held])
    return Dataset("digits", Split(train, t[~held]), Split(test, t[held]), 10)
