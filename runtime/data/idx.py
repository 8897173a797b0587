"""IDX files, the format of MNIST, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from .source import Dataset, Split, normalised

__all__ = ["mnist", "read_idx"]

Array = npt.NDArray[Any]

#: element type by the third byte of the magic number; MNIST has 8
_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}

#: no file of ours is larger; a gzip file that claims more is refused before it is unpacked
LARGEST = 2**30


def read_idx(path: Path) -> Array:
    """The array of an IDX file. Sizes are checked before anything is allocated.

    Raises DataError if the file is missing, truncated, too long, or no IDX file.
    """
    try:
        with path.open("rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b"
        opener: Any = gzip.open if zipped else open
        with opener(path, "rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
                raise DataError(f"{path} is no IDX file", got=f"magic {magic.hex()}")
            rank = magic[3]
            head = file.read(4 * rank)
            if len(head) < 4 * rank:
                raise DataError(f"{path} is truncated", got=f"{4 + len(head)} bytes")
            shape = tuple(int(n) for n in np.frombuffer(head, ">u4"))
            dtype = np.dtype(_TYPES[magic[2]])
            size = math.prod(shape) * dtype.itemsize
            if size > LARGEST:
                raise DataError(f"{path} claims to be too large", got=f"{shape}, {size} bytes",
                                expected=f"at most {LARGEST} bytes")  # fmt: skip
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read", got=error) from None
    if len(data) != size:
        state = "truncated" if len(data) < size else "longer than it says"
        raise DataError(f"{path} is {state}", got=f"{len(data)} bytes of data", expected=size)
    return np.frombuffer(data, dtype).reshape(shape)


def mnist(folder: Path) -> Dataset:
    """x [n, 1, 28, 28], normalised, from the usual file names, with or without ``.gz``.

    Where only the 10,000 test images are there, the first 8,000 are trained on and the last
    2,000 held out. Raises DataError if neither set is there or a file is corrupt.
    """
    if _find(folder, "train-images-idx3-ubyte", required=False) is not None:
        train = _pair(folder, "train")
        held = _pair(folder, "t10k")
        note = ""
    else:
        x, t = _pair(folder, "t10k")
        if len(x) < 10_000:
            raise DataError(f"{folder}: too few images", got=len(x), expected=10_000)
        train, held = (x[:8000], t[:8000]), (x[8000:10_000], t[8000:10_000])
        note = "no training files: the first 8,000 test images are trained on, 2,000 held out"
    first, second = normalised(train[0], held[0])
    return Dataset("mnist", Split(first, train[1]), Split(second, held[1]), 10, note)


def _pair(folder: Path, which: str) -> tuple[Array, Array]:
    images_at = _find(folder, f"{which}-images-idx3-ubyte")
    labels_at = _find(folder, f"{which}-labels-idx1-ubyte")
    assert images_at is not None
    assert labels_at is not None
    images, labels = read_idx(images_at), read_idx(labels_at)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(f"{folder}: images and labels do not belong together",
                        got=f"{images.shape} and {labels.shape}")  # fmt: skip
    if labels.size and labels.max() > 9:
        raise DataError(f"{labels_at}: a label is out of range", got=int(labels.max()),
                        expected="0..9")  # fmt: skip
    return images[:, None].astype(np.float32) / 255, labels.astype(np.int32)


def _find(folder: Path, name: str, required: bool = True) -> Path | None:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    if required:
        raise DataError(f"{folder} has no {name}", expected=f"{name} or {name}.gz")
    return None
