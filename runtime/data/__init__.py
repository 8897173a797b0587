"""Data sources by one line of text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import DataError, UsageError
from .digits import digits
from .idx import mnist
from .source import Batches, Dataset, Split

__all__ = ["Batches", "Dataset", "Split", "digits", "load", "mnist"]


def load(spec: str) -> Dataset:
    """``digits``, ``mnist:FOLDER``, or ``npz:FILE`` with arrays x, t and maybe x_test, t_test.

    Raises UsageError for another kind, DataError if the data cannot be read.
    """
    kind, _, place = spec.partition(":")
    match kind:
        case "digits" if not place:
            return digits()
        case "mnist" if place:
            return mnist(Path(place))
        case "npz" if place:
            return _npz(Path(place))
    raise UsageError("unknown data", got=spec, expected="digits, mnist:FOLDER or npz:FILE")


def _npz(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read", got=error) from None
    if not {"x", "t"} <= set(arrays):
        raise DataError(f"{path} lacks arrays", got=", ".join(arrays) or "none", expected="x and t")
    x, t = arrays["x"].astype(np.float32), arrays["t"].astype(np.int32)
    if "x_test" in arrays and "t_test" in arrays:
        held = Split(arrays["x_test"].astype(np.float32), arrays["t_test"].astype(np.int32))
        train = Split(x, t)
    else:
        cut = len(x) - len(x) // 5
        train, held = Split(x[:cut], t[:cut]), Split(x[cut:], t[cut:])
    classes = int(max(t.max(initial=0), held.t.max(initial=0))) + 1
    return Dataset(path.stem, train, held, classes)
