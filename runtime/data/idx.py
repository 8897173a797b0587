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

_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"

#: element type by the third byte of the magic number; MNIST has 8
_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}

#: no file of ours is larger; a gzip file that claims more is refused before it is unpacked
LARGEST = 2**30

#: deflate cannot shrink data by more than this, so a small file cannot hold a large array
_DEFLATE = 1032

#: NumPy arrays have no more axes
_MOST_AXES = 64


def read_idx(path: Path) -> Array:
    """The array of an IDX file, gzipped or not, in the file's (big-endian) dtype.

    What the header claims is checked against the size of the file before anything of that size
    is allocated or unpacked. Raises DataError if the file is missing, truncated, too long,
    damaged, or no IDX file.
    """
    try:
        with path.open("rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b"
        stored = path.stat().st_size
        opener: Any = gzip.open if zipped else open
        with opener(path, "rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
                raise DataError(f"{path} is no IDX file", got=f"magic {magic.hex()}",
                                expected="0000, a type (08 for bytes), the number of axes",
                                hint="is it the file that its name says?")  # fmt: skip
            rank = magic[3]
            if rank > _MOST_AXES:
                raise DataError(f"{path} has too many axes", got=rank)
            head = file.read(4 * rank)
            if len(head) < 4 * rank:
                raise DataError(f"{path} is truncated", got=f"{4 + len(head)} bytes",
                                expected=f"a header of {4 + 4 * rank}")  # fmt: skip
            shape = tuple(int(n) for n in np.frombuffer(head, ">u4"))
            dtype = np.dtype(_TYPES[magic[2]])
            size = math.prod(shape) * dtype.itemsize
            if size > LARGEST:
                raise DataError(f"{path} claims to be too large", got=f"{shape}, {size} bytes",
                                expected=f"at most {LARGEST} bytes")  # fmt: skip
            room = stored * _DEFLATE if zipped else stored - 4 - 4 * rank
            if size > room:
                raise DataError(f"{path} is truncated", got=f"a file of {stored} bytes",
                                expected=f"{size} bytes of data for {shape}")  # fmt: skip
            # one more than there should be: shows what is too long, and makes gzip check its sum
            data = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read", got=error) from None
    if len(data) != size:
        state = "truncated" if len(data) < size else "longer than it says"
        raise DataError(
            f"{path} is {state}", got=f"{len(data)} bytes of data", expected=f"{size} for {shape}"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def mnist(folder: Path) -> Dataset:
    """x [n, 1, 28, 28], 0..255 divided by 255 and normalised by the mean and deviation of the
    examples to train on; from the usual file names, with or without ``.gz``.

    Where only the 10,000 test images are there, the first 8,000 are trained on and the last
    2,000 held out; ``note`` says so. Raises DataError if neither set is there or a file is
    corrupt.
    """
    if any(_find(folder, f"train-{part}", required=False) for part in (_IMAGES, _LABELS)):
        train = _pair(folder, "train")
        held = _pair(folder, "t10k")
        note = ""
    else:
        x, t = _pair(folder, "t10k")
        if len(x) != 10_000:
            raise DataError(f"{folder}: the test set is not MNIST's", got=f"{len(x)} images",
                            expected="10000, or training files beside it")  # fmt: skip
        train, held = (x[:8000], t[:8000]), (x[8000:], t[8000:])
        note = "no training files: the first 8,000 test images are trained on, 2,000 held out"
    if train[0].shape[1:] != held[0].shape[1:]:
        raise DataError(f"{folder}: images to train on and held-out ones differ in size",
                        got=f"{train[0].shape[1:]} and {held[0].shape[1:]}")  # fmt: skip
    first, second = normalised(train[0], held[0])
    return Dataset("mnist", Split(first, train[1]), Split(second, held[1]), 10, note)


def _pair(folder: Path, which: str) -> tuple[Array, Array]:
    images_at = _find(folder, f"{which}-{_IMAGES}")
    labels_at = _find(folder, f"{which}-{_LABELS}")
    assert images_at is not None
    assert labels_at is not None
    images, labels = read_idx(images_at), read_idx(labels_at)
    for path, array, rank in ((images_at, images, 3), (labels_at, labels, 1)):
        if array.ndim != rank or array.dtype != np.uint8:
            raise DataError(f"{path} does not hold {'images' if rank == 3 else 'labels'}",
                            got=f"{array.dtype} of shape {array.shape}",
                            expected=f"bytes with {rank} axes")  # fmt: skip
    if len(images) != len(labels):
        raise DataError(f"{folder}: {images_at.name} and {labels_at.name} differ in number",
                        got=f"{len(images)} images and {len(labels)} labels")  # fmt: skip
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
