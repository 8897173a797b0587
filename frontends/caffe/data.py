"""Layers where data comes in: inputs of the model, by the names of their tops.

What a data layer reads is not in the network's file, so its shape is found, in this order: said
by the user, read off the source, told by crop and mean, known for public data sets, taken from
the data that will be trained on.

Source: the layers of the same names in caffe/layers
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import ImportModelError
from ...ir.bricks.random import RandomUniform
from ...ir.dims import Size
from ...ir.dtypes import DType
from .. import functional as fn
from .. import trace
from ..trace import Tensor
from .call import Call
from .fillers import fill
from .message import Message

__all__ = [
    "DATA_LAYERS",
    "batch_of",
    "data",
    "dummy",
    "foreign", "foreign_problem",
    "hdf5",
    "images",
    "input_",
    "memory",
    "parameter",
]  # fmt: skip

#: the same for HDF5 files: features of each example
_KNOWN_ROWS: Mapping[str, tuple[int, ...]] = {"hdf5_classification": (4,)}

#: layers that read examples, and where they keep the size of a batch
DATA_LAYERS: Mapping[str, str] = {
    "Data": "data_param", "HDF5Data": "hdf5_data_param", "ImageData": "image_data_param",
    "MemoryData": "memory_data_param",
}  # fmt: skip

#: shapes of public data sets, by a word of the source's path
_KNOWN: Mapping[str, tuple[int, int, int]] = {
    "siamese": (2, 28, 28), "mnist": (1, 28, 28), "cifar": (3, 32, 32), "ilsvrc": (3, 256, 256),
    "imagenet": (3, 256, 256),
}  # fmt: skip


def batch_of(layer: Message) -> int:
    """The batch size of a data layer."""
    holder = layer.sub(DATA_LAYERS[layer.text("type")])
    size = holder.integer("batch_size")
    if size < 1:
        raise holder.fail("a data layer needs a batch_size", "batch_size", got=size)
    return size


def _top(call: Call, k: int, batch: int, shape: Sequence[int], integer: bool) -> Tensor:
    name = call.tops[k]
    sizes: list[Size] = [call.net.size(batch, reads=True), *shape]
    return call.net.input(name, sizes, integer)


def _integer(call: Call, k: int) -> bool:
    return call.tops[k] in call.integer_tops


def input_(call: Call) -> list[Tensor]:
    shapes = call.sub("input_param").subs("shape")
    if len(shapes) not in (1, len(call.tops)):
        raise call.fail("one shape for each top, or one for all", got=len(shapes))
    tops = []
    for k, name in enumerate(call.tops):
        dims = shapes[k if len(shapes) > 1 else 0].integers("dim")
        if any(not 1 <= n < 2**31 for n in dims) or len(dims) > 32:
            raise call.fail("impossible shape", got=str(dims)[:80])
        sizes: list[Size] = [*dims]
        if sizes:
            sizes[0] = call.net.size(dims[0])
        tops.append(call.net.input(name, sizes, _integer(call, k)))
    return tops


def data(call: Call) -> list[Tensor]:
    """A database of images: the first top holds them, the second their labels."""
    _one_or_two(call)
    given = call.sub("data_param")
    shape = _image_shape(call, given.text("source"), _peek_database(call, given))
    return _images_and_labels(call, shape)


def images(call: Call) -> list[Tensor]:
    """A list of image files with labels."""
    _one_or_two(call)
    given = call.sub("image_data_param")
    channels = 3 if given.flag("is_color") else 1
    height, width = given.integer("new_height"), given.integer("new_width")
    found = (channels, height, width) if height > 0 and width > 0 else _peek_images(call, channels)
    return _images_and_labels(call, _image_shape(call, given.text("source"), found))


def foreign(call: Call) -> list[Tensor]:
    """A Python layer that makes data: its code is not run, its tops are inputs whose shapes the
    user says."""
    return [
        _top(call, k, 1, call.net.hints[top], _integer(call, k)) for k, top in enumerate(call.tops)
    ]


def foreign_problem(layer: Message, hints: Mapping[str, tuple[int, ...]]) -> str:
    """Why a Python layer cannot be inputs; empty if it can."""
    tops = layer.texts("top")
    lacking = [top for top in tops if top not in hints]
    if layer.texts("bottom") or not tops:
        return "runs Python code that the file names"
    if not lacking:
        return ""
    shapes = " ".join(f"--shape {top}=N,…" for top in lacking)
    return f"runs Python code that the file names; its tops can be inputs: {shapes}"


def memory(call: Call) -> list[Tensor]:
    _one_or_two(call)
    given = call.sub("memory_data_param")
    shape = tuple(given.integer(f) for f in ("channels", "height", "width"))
    if min(shape) < 1:
        raise call.fail("channels, height and width must be positive", got=shape)
    return _images_and_labels(call, shape)


def hdf5(call: Call) -> list[Tensor]:
    """Data sets of HDF5 files by the tops' names."""
    batch = batch_of(call.layer)
    found, source = _peek_hdf5(call), call.sub("hdf5_data_param").text("source")
    tops = []
    for k, name in enumerate(call.tops):
        integer = _integer(call, k)
        if name in call.net.hints:
            shape = call.net.hints[name]
        elif name in found:
            shape = found[name]
        elif integer:
            shape = ()
        elif k == 0 and any(word in source for word in _KNOWN_ROWS):
            shape = next(s for word, s in _KNOWN_ROWS.items() if word in source)
        elif call.net.example is not None and k == 0:
            shape = call.net.example
        else:
            raise _unknown(call, name)
        tops.append(_top(call, k, batch, shape, integer))
    return tops


def _one_or_two(call: Call) -> None:
    if not 1 <= len(call.tops) <= 2:
        raise call.fail("a wrong number of tops", got=len(call.tops), expected="1 or 2")


def _images_and_labels(call: Call, shape: tuple[int, ...]) -> list[Tensor]:
    batch = batch_of(call.layer)
    tops = [_top(call, 0, batch, shape, False)]
    if len(call.tops) > 1:
        tops.append(_top(call, 1, batch, (), _integer(call, 1)))
    return tops


def _image_shape(call: Call, source: str, found: tuple[int, int, int] | None) -> tuple[int, ...]:
    """[C, H, W] of what the network sees: after the crop."""
    name = call.tops[0]
    if name in call.net.hints:
        return call.net.hints[name]
    transform = call.sub("transform_param")
    crop, mean = transform.integer("crop_size"), _mean_shape(call, transform)
    known = next((s for word, s in _KNOWN.items() if word in source.lower()), None)
    shape = found or mean or known
    if crop:
        values = len(transform.reals("mean_value"))
        channels = shape[0] if shape else (values if values > 1 else 3)
        return (channels, crop, crop)
    if shape is not None:
        return shape
    if call.net.example is not None:
        return call.net.example
    raise _unknown(call, name)


def _unknown(call: Call, name: str) -> ImportModelError:
    return ImportModelError(
        f"{call.layer.text('type')}: nothing tells the shape of {name!r}", where=call.where,
        expected="the source in the network's folder, or data to train on",
        hint=f"say it: --shape {name}=N,3,32,32",
    )  # fmt: skip


def _mean_shape(call: Call, transform: Message) -> tuple[int, int, int] | None:
    from .binary import read_blob

    path = call.net.find(transform.text("mean_file")) if (
        call.net.find is not None and transform.has("mean_file")
    ) else None  # fmt: skip
    if path is None:
        return None
    shape = list(read_blob(path).shape)
    while len(shape) > 3 and shape[0] == 1:
        shape.pop(0)
    return (shape[0], shape[1], shape[2]) if len(shape) == 3 else None


def _peek_database(call: Call, given: Message) -> tuple[int, int, int] | None:
    from .records import open_database

    path = call.net.find(given.text("source")) if call.net.find is not None else None
    if path is None or given.text("backend") != "LMDB":
        return None
    return open_database(path).shape


def _peek_images(call: Call, channels: int) -> tuple[int, int, int] | None:
    from .records import image_size, read_list

    given = call.sub("image_data_param")
    path = call.net.find(given.text("source")) if call.net.find is not None else None
    if path is None or call.net.find is None:
        return None
    entries = read_list(path)
    first = call.net.find(given.text("root_folder") + entries[0][0]) if entries else None
    return None if first is None else (channels, *image_size(first))


def _peek_hdf5(call: Call) -> Mapping[str, tuple[int, ...]]:
    from .records import hdf5_shapes, read_lines

    if call.net.find is None:
        return {}
    path = call.net.find(call.sub("hdf5_data_param").text("source"))
    if path is None:
        return {}
    for line in read_lines(path):
        file = call.net.find(line)
        if file is not None:
            return hdf5_shapes(file)
    return {}


# ── what is made, not read ───────────────────────────────────────────────────────────────


def dummy(call: Call) -> list[Tensor]:
    """Blobs that a filler makes: constants, or new random numbers in every step."""
    given = call.sub("dummy_data_param")
    fillers, shapes = given.subs("data_filler"), [m.integers("dim") for m in given.subs("shape")]
    if not shapes:
        parts = [given.integers(f) for f in ("num", "channels", "height", "width")]
        if len({len(p) for p in parts}) != 1:
            raise call.fail("num, channels, height and width for each top, or one for all")
        shapes = [list(sizes) for sizes in zip(*parts, strict=True)]
    count = len(call.tops)
    if len(shapes) not in (1, count) or len(fillers) not in (0, 1, count):
        raise call.fail("one shape and filler for each top, or one for all",
                        got=f"{len(shapes)} and {len(fillers)}", expected=count)  # fmt: skip
    tops = []
    for k in range(count):
        shape = tuple(shapes[k if len(shapes) > 1 else 0])
        if any(not 1 <= n < 2**31 for n in shape) or math.prod(shape) >= 2**28:
            raise call.fail("impossible shape", got=str(shape)[:80])
        filler = Message("FillerParameter", call.layer.line, call.layer.file)
        if fillers:
            filler = fillers[k if len(fillers) > 1 else 0]
        tops.append(_made(call, shape, filler, k))
    return tops


def _made(call: Call, shape: tuple[int, ...], filler: Message, k: int) -> Tensor:
    init, array = fill(filler, shape, f"{call.name}.{k}")
    if array is not None:
        return trace.literal(array)
    if init.kind == "constant":
        whole = np.broadcast_to(np.float32(init.a), shape)
        return trace.literal(np.ascontiguousarray(whole)) if math.prod(shape) <= 4096 else (
            fn.broadcast_to(trace.literal(np.float32(init.a)), shape)
        )  # fmt: skip
    stream = 2**30 + 4 * ((call.layer.line * 64 + k) % 2**24)
    first = _uniform(shape, stream)
    if init.kind == "uniform":
        return first * (init.b - init.a) + init.a
    # two uniform numbers make a normal one: Box and Muller, 1958
    radius = fn.sqrt(fn.log(1.0 - first) * -2.0)
    return radius * fn.cos(_uniform(shape, stream + 1) * (2.0 * math.pi)) * init.b + init.a


def _uniform(shape: tuple[int, ...], stream: int) -> Tensor:
    brick = RandomUniform(shape, stream, DType.F32)
    return trace.RANDOM_SEED.apply(brick, trace.RANDOM_SEED, trace.RANDOM_COUNTER)


def parameter(call: Call) -> list[Tensor]:
    """A trained blob as a top; it starts at zero."""
    shape = call.sub("parameter_param").sub("shape").integers("dim")
    return [call.parameter("weight", shape, Message("FillerParameter"))]
