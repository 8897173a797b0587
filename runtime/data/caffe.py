"""What Caffe's data layers read: LMDB, lists of images, HDF5 files, with their transformations.

Source: caffe/data_transformer.cpp and the data layers of caffe/layers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import DataError, UnsupportedError
from ...frontends.caffe.binary import read_blob
from ...frontends.caffe.data import batch_of
from ...frontends.caffe.message import Message
from ...frontends.caffe.records import (
    Database,
    decode_image,
    hdf5_array,
    hdf5_members,
    open_database,
    open_hdf5,
    read_lines,
    read_list,
)
from .stream import Stream

__all__ = ["Transform", "layer_stream"]

Array = npt.NDArray[Any]
Find = Callable[[str], Path | None]


@dataclass(frozen=True)
class Transform:
    """Mean, crop, mirror, scale: pixels [C, H, W] of any numbers -> float32 [C, h, w].

    In training the crop lies anywhere, else in the middle; half of the images are mirrored
    where mirroring is asked for.
    """

    scale: float = 1.0
    mirror: bool = False
    crop: int = 0
    #: [C, H, W], [C, 1, 1] or [1, 1, 1]
    mean: Array | None = None
    training: bool = False

    @staticmethod
    def of(given: Message, find: Find, training: bool) -> Transform:
        """The transformation of a TransformationParameter. Raises DataError."""
        values = given.reals("mean_value")
        mean: Array | None = None
        if given.has("mean_file"):
            if values:
                raise given.fail("both mean_file and mean_value are given", "mean_value")
            path = find(given.text("mean_file"))
            if path is None:
                raise DataError(
                    "the mean image is not there", where=given.place_of("mean_file"),
                    got=repr(given.text("mean_file"))[:100],
                    hint="replace the data: --data …, or say where it lies: --root FOLDER",
                )  # fmt: skip
            blob = read_blob(path)
            if blob.ndim < 3 or blob.size != np.prod(blob.shape[-3:]):
                raise DataError(f"{path.name} is no mean image", got=list(blob.shape))
            mean = blob.reshape(blob.shape[-3:])
        elif values:
            mean = np.asarray(values, np.float32).reshape(-1, 1, 1)
        return Transform(given.real("scale"), given.flag("mirror"), given.integer("crop_size"),
                         mean, training)  # fmt: skip

    def apply(self, pixels: Array, random: np.random.Generator, where: str) -> Array:
        """One image. Raises DataError if mean or crop do not fit it."""
        channels, height, width = pixels.shape
        image = pixels.astype(np.float32)
        if self.mean is not None:
            wide = self.mean.shape[1:] != (1, 1)
            fits = self.mean.shape == pixels.shape if wide else len(self.mean) in (1, channels)
            if not fits:
                raise DataError(f"{where}: the mean does not fit the image",
                                got=list(self.mean.shape), expected=list(pixels.shape))  # fmt: skip
            image = image - self.mean
        if self.crop:
            if self.crop > min(height, width):
                raise DataError(f"{where}: the image is smaller than the crop",
                                got=f"{height}×{width}", expected=self.crop)  # fmt: skip
            top, left = (height - self.crop) // 2, (width - self.crop) // 2
            if self.training:
                top = int(random.integers(height - self.crop + 1))
                left = int(random.integers(width - self.crop + 1))
            image = image[:, top : top + self.crop, left : left + self.crop]
        if self.mirror and random.integers(2):
            image = image[:, :, ::-1]
        return np.ascontiguousarray(image * np.float32(self.scale), np.float32)


def _stacked(images: Sequence[Array], where: str) -> Array:
    if len({i.shape for i in images}) > 1:
        raise DataError(f"{where}: the images differ in size",
                        got=", ".join(str(i.shape) for i in images[:4]))  # fmt: skip
    return np.stack(images)


def _batch(
    tops: Sequence[str], images: Array, labels: Sequence[int], dtypes: Mapping[str, Any]
) -> dict[str, Array]:
    found = {tops[0]: images}
    if len(tops) > 1:
        found[tops[1]] = np.asarray(labels).astype(dtypes.get(tops[1], np.int32))
    return found


@dataclass(frozen=True)
class _Records:
    """An LMDB database."""

    database: Database
    transform: Transform
    tops: Sequence[str]
    dtypes: Mapping[str, Any]
    color: bool | None

    def __len__(self) -> int:
        return len(self.database)

    def fetch(self, indices: Array, random: np.random.Generator) -> Mapping[str, Array]:
        name = self.database.path.name
        images, labels = [], []
        for index in indices:
            pixels, label = self.database.read(int(index), self.color)
            images.append(self.transform.apply(pixels, random, name))
            labels.append(label)
        return _batch(self.tops, _stacked(images, name), labels, self.dtypes)


@dataclass(frozen=True)
class _Images:
    """Image files by a list."""

    entries: Sequence[tuple[str, int]]
    folder: str
    find: Find
    size: tuple[int, int] | None
    color: bool
    transform: Transform
    tops: Sequence[str]
    dtypes: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.entries)

    def fetch(self, indices: Array, random: np.random.Generator) -> Mapping[str, Array]:
        images, labels = [], []
        for index in indices:
            name, label = self.entries[int(index)]
            path = self.find(self.folder + name)
            if path is None:
                raise DataError("an image is not there", got=repr(name)[:100])
            pixels = decode_image(path.read_bytes(), self.color, name, self.size)
            images.append(self.transform.apply(pixels, random, name))
            labels.append(label)
        return _batch(self.tops, _stacked(images, "images"), labels, self.dtypes)


@dataclass(frozen=True)
class _Arrays:
    """Data sets of HDF5 files, one after the other."""

    arrays: Mapping[str, Array]
    dtypes: Mapping[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def fetch(self, indices: Array, random: np.random.Generator) -> Mapping[str, Array]:
        return {name: array[indices].astype(self.dtypes.get(name, np.float32), copy=False)
                for name, array in self.arrays.items()}  # fmt: skip


def layer_stream(
    layer: Message, find: Find, *, training: bool, seed: int, dtypes: Mapping[str, Any]
) -> Stream:
    """The batches of a data layer. ``dtypes`` are those of the model's inputs.

    Raises DataError if the source cannot be read, UnsupportedError for a kind that brickc
    does not read; ``--data`` replaces any of them.
    """
    type, tops = layer.text("type"), layer.texts("top")
    transform = Transform.of(layer.sub("transform_param"), find, training)
    batch = batch_of(layer) if type != "Input" else 0
    where = f'{layer.where} "{layer.text("name")}"'
    match type:
        case "Data":
            given = layer.sub("data_param")
            if given.text("backend") != "LMDB":
                raise UnsupportedError(f"databases of kind {given.text('backend')}", where=where,
                                       expected="LMDB", hint="replace it: --data …")  # fmt: skip
            color = True if given.flag("force_encoded_color") else None
            database = open_database(_found(given, find, where))
            records = _Records(database, transform, tops, dtypes, color)
            return Stream(records, batch, seed, shuffle=False)
        case "ImageData":
            given = layer.sub("image_data_param")
            height, width = given.integer("new_height"), given.integer("new_width")
            images = _Images(
                read_list(_found(given, find, where)), given.text("root_folder"), find,
                (height, width) if height > 0 and width > 0 else None, given.flag("is_color"),
                transform, tops, dtypes,
            )  # fmt: skip
            return Stream(images, batch, seed, given.flag("shuffle"))
        case "HDF5Data":
            given = layer.sub("hdf5_data_param")
            files = []
            for line in read_lines(_found(given, find, where)):
                path = find(line)
                if path is None:
                    raise DataError("an HDF5 file is not there", where=where, got=repr(line)[:100])
                files.append(path)
            return Stream(_Arrays(_read(files, tops), dtypes), batch, seed, given.flag("shuffle"))
    raise UnsupportedError(f"{type} has no examples of its own", where=where,
                           hint="give some: --data …")  # fmt: skip


def _found(given: Message, find: Find, where: str) -> Path:
    path = find(given.text("source"))
    if path is None:
        raise DataError(
            "the source is not there", where=where, got=repr(given.text("source"))[:100],
            hint="replace it: --data …, or say where it lies: --root FOLDER",
        )  # fmt: skip
    return path


def _read(files: Sequence[Path], tops: Sequence[str]) -> dict[str, Array]:
    """The data sets of all files, joined."""
    parts: dict[str, list[Array]] = {top: [] for top in tops}
    for path in files:
        with open_hdf5(path) as file:
            rows = set()
            members = dict(hdf5_members(file))
            for top in tops:
                item = members.get(top)
                if not getattr(item, "shape", ()):
                    raise DataError(f"{path.name} has no numbers called {top!r}",
                                    got=", ".join(file))  # fmt: skip
                parts[top].append(hdf5_array(item, path))
                rows.add(len(parts[top][-1]))
            if len(rows) > 1:
                raise DataError(f"{path.name}: data sets of different length", got=sorted(rows))
    if not files:
        raise DataError("the list of HDF5 files is empty")
    try:
        return {top: np.concatenate(arrays) for top, arrays in parts.items()}
    except ValueError as error:
        raise DataError("the HDF5 files do not fit together", got=error) from None
