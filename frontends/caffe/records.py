"""Where examples lie: LMDB databases, lists of images, HDF5 files.

Only what the importer needs to know shapes; ``runtime/data`` reads batches with it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DataError, UsageError
from .binary import Datum, decode_datum

__all__ = ["Database", "decode_image", "hdf5_array", "hdf5_members", "hdf5_shapes",
           "image_size", "open_database", "open_hdf5", "read_lines", "read_list"]  # fmt: skip

Array = npt.NDArray[Any]

#: bytes of a list of files
_LARGEST_LIST = 2**28
#: bytes of an HDF5 data set that are always fine, and how far a file may be compressed
_SMALL_SET, _COMPRESSION = 2**20, 64
#: pixels of one image
_LARGEST_IMAGE = 2**27


def _missing(package: str, what: str) -> UsageError:
    return UsageError(f"{what} need the package {package}", hint="pip install 'brickc[caffe]'")


# ── LMDB ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Database:
    """An LMDB database of Datum records, in the order of their keys."""

    path: Path
    environment: Any
    keys: tuple[bytes, ...]
    #: [C, H, W] of the first record
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int, color: bool | None = None) -> tuple[Array, int]:
        """Pixels [C, H, W], uint8 or float32, and the label."""
        with self.environment.begin() as transaction:
            data = transaction.get(self.keys[index])
        if data is None:
            raise DataError(f"{self.path}: a record has gone", got=self.keys[index][:40])
        datum = decode_datum(bytes(data), self.path.name)
        return _pixels(datum, color, self.path.name), datum.label


def open_database(path: Path) -> Database:
    """Open an LMDB folder (or file) for reading. Raises DataError if it is none or empty."""
    try:
        import lmdb
    except ImportError:
        raise _missing("lmdb", "LMDB databases") from None
    try:
        environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False,
            max_readers=1, create=False,
        )  # fmt: skip
        with environment.begin() as transaction, transaction.cursor() as cursor:
            keys = tuple(bytes(k) for k in cursor.iternext(keys=True, values=False))
            first = bytes(transaction.get(keys[0]) or b"") if keys else b""
    except (lmdb.Error, OSError) as error:
        raise DataError(f"{path} is no LMDB database", got=error) from None
    if not keys:
        raise DataError(f"{path} has no records")
    pixels = _pixels(decode_datum(first, path.name), None, path.name)
    channels, height, width = pixels.shape
    return Database(path, environment, keys, (channels, height, width))


def _pixels(datum: Datum, color: bool | None, where: str) -> Array:
    return decode_image(datum.encoded, color, where) if datum.encoded else datum.pixels


# ── images ───────────────────────────────────────────────────────────────────────────────


def decode_image(
    data: bytes, color: bool | None, where: str, size: tuple[int, int] | None = None
) -> Array:
    """An image file's pixels [C, H, W], uint8, channels blue, green, red as OpenCV has them.

    ``color`` None keeps the image's own number of channels. ``size`` is (height, width).
    """
    try:
        from PIL import Image
    except ImportError:
        raise _missing("pillow", "encoded images") from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > _LARGEST_IMAGE:
                raise DataError(f"{where}: the image is too large", got=image.size)
            grey = image.mode in ("1", "L", "I", "I;16", "F") if color is None else not color
            converted = image.convert("L" if grey else "RGB")
            if size is not None:
                converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            array = np.asarray(converted)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not an image", got=error) from None
    return array[None] if grey else np.ascontiguousarray(array[:, :, ::-1].transpose(2, 0, 1))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file."""
    try:
        from PIL import Image
    except ImportError:
        raise _missing("pillow", "images") from None
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not an image", got=error) from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty. Raises DataError."""
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise DataError(f"{path}: the list is too long")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read", got=error) from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_list(path: Path) -> list[tuple[str, int]]:
    """``file label`` on each line; names may hold spaces."""
    entries = []
    for number, line in enumerate(read_lines(path), 1):
        name, _, label = line.rpartition(" ")
        try:
            entries.append((name.strip(), int(label)))
        except ValueError:
            raise DataError(f"{path}:{number}: no label", got=repr(line)[:80],
                            expected="a file name, a space, a number") from None  # fmt: skip
    return entries


# ── HDF5 ─────────────────────────────────────────────────────────────────────────────────


def open_hdf5(path: Path) -> Any:
    """An open file. Raises DataError if it is none."""
    try:
        import h5py
    except ImportError:
        raise _missing("h5py", "HDF5 files") from None
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} is no HDF5 file", got=error) from None


def hdf5_members(group: Any) -> Iterator[tuple[str, Any]]:
    """What lies in a group itself: links to other places and files are left out."""
    import h5py

    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield name, group[name]


def hdf5_array(item: Any, path: Path) -> Array:
    """A data set's numbers. Raises DataError for one that is no plain array of this file, or
    that would be much larger in memory than the whole file is."""
    where = f"{path.name} {item.name}"
    if item.dtype.kind not in "fiub":
        raise DataError(f"{where}: no numbers", got=item.dtype)
    if item.is_virtual or item.external:
        raise DataError(f"{where}: its numbers lie in other files")
    most = max(_SMALL_SET, _COMPRESSION * path.stat().st_size)
    if item.size * item.dtype.itemsize > most:
        raise DataError(f"{where}: too large for this file", got=str(item.shape)[:80])
    try:
        return np.asarray(item)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{where}: cannot be read", got=error) from None


def hdf5_shapes(path: Path) -> Mapping[str, tuple[int, ...]]:
    """The data sets at the top of a file: name -> sizes after the first axis."""
    with open_hdf5(path) as file:
        return {
            name: tuple(item.shape[1:])
            for name, item in hdf5_members(file)
            if getattr(item, "shape", ()) and item.dtype.kind in "fiub"
        }
