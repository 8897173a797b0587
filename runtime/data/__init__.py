"""Data sources by one line of text."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from .digits import digits
from .idx import mnist
from .source import Batches, Dataset, Split

__all__ = ["Batches", "Dataset", "Split", "digits", "load", "mnist"]

Array = npt.NDArray[Any]


#: an array of an ``npz`` file may not be larger, in bytes
LARGEST = 2**32


def load(spec: str) -> Dataset:
    """``digits``, ``mnist:FOLDER``, or ``npz:FILE``.

    An npz file holds x, float [n, C, H, W] or [n, D], taken as it is, and integer labels t [n];
    maybe x_test and t_test too. Where these are missing, a fifth of the examples is held out,
    drawn by a fixed seed, since files are often sorted by class.
    Raises DataError for another kind, or if the data cannot be read.
    """
    kind, _, place = spec.partition(":")
    match kind:
        case "digits" if not place:
            return digits()
        case "mnist" if place:
            return mnist(Path(place))
        case "npz" if place:
            return _npz(Path(place))
    raise DataError("unknown data", got=repr(spec)[:80], expected="digits, mnist:FOLDER, npz:FILE")


def _npz(path: Path) -> Dataset:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.file_size > LARGEST:
                    raise DataError(
                        f"{path}: {member.filename} is too large",
                        got=f"{member.file_size} bytes",
                        expected=f"at most {LARGEST}",
                    )
        with np.load(path, allow_pickle=False) as file:
            names = [n for n in ("x", "t", "x_test", "t_test") if n in file.files]
            arrays = {name: file[name] for name in names}
            others = file.files
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read", got=error) from None
    if "x" not in arrays or "t" not in arrays:
        raise DataError(f"{path} lacks arrays", got=", ".join(others) or "none", expected="x and t")
    if ("x_test" in arrays) != ("t_test" in arrays):
        raise DataError(f"{path} has one of x_test and t_test without the other")
    train = _checked(path, arrays, "x", "t")
    note = ""
    if "x_test" in arrays:
        held = _checked(path, arrays, "x_test", "t_test")
    else:
        order = np.random.Generator(np.random.Philox(key=0)).permutation(len(train))
        cut = len(train) - len(train) // 5
        first, last = order[:cut], order[cut:]
        train, held = Split(train.x[first], train.t[first]), Split(train.x[last], train.t[last])
        note = "no x_test: a fifth of the examples is held out"
    if not len(train):
        raise DataError(f"{path} has no examples")
    if train.x.shape[1:] != held.x.shape[1:]:
        raise DataError(f"{path}: x and x_test differ in shape",
                        got=f"{train.x.shape[1:]} and {held.x.shape[1:]}")  # fmt: skip
    classes = int(max(train.t.max(initial=0), held.t.max(initial=0))) + 1
    return Dataset(path.stem, train, held, classes, note)


def _checked(path: Path, arrays: dict[str, Array], x_name: str, t_name: str) -> Split:
    x, t = arrays[x_name], arrays[t_name]
    if x.dtype.kind not in "fiub" or x.ndim not in (2, 4):
        raise DataError(f"{path}: {x_name} does not hold examples", got=f"{x.dtype} {x.shape}",
                        expected="numbers [n, C, H, W] or [n, D]")  # fmt: skip
    if t.dtype.kind not in "iu" or t.ndim != 1:
        raise DataError(f"{path}: {t_name} does not hold labels", got=f"{t.dtype} {t.shape}",
                        expected="integers [n]")  # fmt: skip
    if t.size and (int(t.min()) < 0 or int(t.max()) >= 2**31 - 1):
        raise DataError(f"{path}: {t_name} has a label out of range",
                        got=f"{t.min()}..{t.max()}", expected="0 and up")  # fmt: skip
    with np.errstate(over="ignore"):  # what is too large for float32 is reported below
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise DataError(f"{path}: {x_name} has elements that are not finite in float32")
    return Split(x, t.astype(np.int32))
