"""Caffe's binary files: .caffemodel, .binaryproto, and the records of its databases.

The descriptors are built from the table in ``schema`` when they are first needed. Numbers of
blobs are declared as bytes: a packed list of floats and a string of bytes look alike on the
wire, and NumPy reads four bytes a float without making an object of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ImportModelError, UsageError
from .schema import ENUMS, MESSAGES, SCALARS, fields_of

__all__ = ["Datum", "StoredLayer", "decode_datum", "encode_datum", "encode_net", "read_blob",
           "read_net", "write_blob"]  # fmt: skip

Array = npt.NDArray[Any]

#: bytes; protocol buffers themselves end here
LARGEST_FILE = 2**31 - 1

#: repeated numbers that are read as bytes
_AS_BYTES = {("BlobProto", f) for f in ("data", "diff", "double_data", "double_diff")}
_PACKAGE = "brickc_caffe"
_LENGTHS = {"bool": 8, "bytes": 12, "double": 1, "float": 2, "int32": 5, "int64": 3, "string": 9,
            "uint32": 13, "uint64": 4}  # fmt: skip


@lru_cache(maxsize=1)
def _messages() -> Mapping[str, Any]:
    """A class for each message of the schema."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise UsageError(
            "Caffe's binary files need the package protobuf", hint="pip install 'brickc[caffe]'"
        ) from None
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2"
    )
    for message in MESSAGES:
        described = file.message_type.add(name=message)
        for field in fields_of(message).values():
            many = field.repeated
            entry = described.field.add(
                name=field.name, number=field.number, label=3 if many else 1
            )
            if (message, field.name) in _AS_BYTES:
                entry.type = _LENGTHS["bytes"]
            elif field.type in SCALARS:
                entry.type = _LENGTHS[field.type]
                if many and field.type in ("int64", "int32", "uint32", "float"):
                    entry.options.packed = field.name in ("dim",)
            elif field.type in ENUMS:
                entry.type = _LENGTHS["int32"]  # the same bytes
            else:
                entry.type = 11
                entry.type_name = f".{_PACKAGE}.{field.type}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in MESSAGES
    }


def _parse(kind: str, data: bytes, where: str) -> Any:
    message = _messages()[kind]()
    try:
        message.ParseFromString(data)
    except Exception as error:  # protobuf has an exception class for each of its runtimes
        raise ImportModelError(f"not a {kind} of Caffe", where=where, got=error) from None
    return message


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ImportModelError("the file is too large", where=path.name, got=f"{size} bytes",
                                   expected=f"at most {LARGEST_FILE}")  # fmt: skip
        return path.read_bytes()
    except OSError as error:
        raise ImportModelError("cannot be read", where=path.name, got=error.strerror) from None


# ── blobs ────────────────────────────────────────────────────────────────────────────────


def _array(blob: Any, where: str) -> Array:
    """A BlobProto's numbers in its shape, float32."""
    parts: list[bytes] = list(blob.data)
    dtype: np.dtype[Any] = np.dtype("<f4")
    if blob.double_data:
        parts, dtype = list(blob.double_data), np.dtype("<f8")
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    if len(data) % dtype.itemsize:
        raise ImportModelError("a blob is cut off", where=where, got=f"{len(data)} bytes")
    flat = np.frombuffer(data, dtype).astype(np.float32)
    shape = [blob.num, blob.channels, blob.height, blob.width]
    if blob.HasField("shape"):
        shape = list(blob.shape.dim)
    elif not any(blob.HasField(f) for f in ("num", "channels", "height", "width")):
        shape = [flat.size]
    count = 1
    for size in shape:
        count *= size
    if len(shape) > 32 or min(shape, default=1) < 0 or count != flat.size:
        raise ImportModelError("a blob's numbers do not fill its shape", where=where,
                               got=f"{flat.size} numbers", expected=str(shape)[:80])  # fmt: skip
    return flat.reshape(shape)


def _fill(blob: Any, array: Array) -> None:
    blob.shape.dim.extend(array.shape)
    blob.data.append(np.ascontiguousarray(array, "<f4").tobytes())


def read_blob(path: Path) -> Array:
    """The blob of a .binaryproto file, float32: a mean image, a matrix."""
    return _array(_parse("BlobProto", _read(path), path.name), path.name)


def write_blob(path: Path, array: Array) -> None:
    """Write a .binaryproto file."""
    blob = _messages()["BlobProto"]()
    _fill(blob, np.asarray(array))
    path.write_bytes(blob.SerializeToString(deterministic=True))


# ── networks ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a .caffemodel: its name, its type, its blobs in order."""

    name: str
    type: str
    blobs: tuple[Array, ...]


def read_net(path: Path) -> list[StoredLayer]:
    """The layers that have blobs, of any generation. Raises ImportModelError."""
    net = _parse("NetParameter", _read(path), path.name)
    found = []
    for layer in _layers(net):
        holder = layer.layer if layer.DESCRIPTOR.name == "V1LayerParameter" and layer.HasField(
            "layer"
        ) else layer  # fmt: skip
        if not holder.blobs:
            continue
        where = f'{path.name} "{holder.name[:60]}"'
        arrays = tuple(_array(blob, where) for blob in holder.blobs)
        found.append(StoredLayer(holder.name, str(holder.type), arrays))
    if not found:
        raise ImportModelError("no layer has weights", where=path.name,
                               expected="a .caffemodel file")  # fmt: skip
    return found


def _layers(net: Any) -> Iterator[Any]:
    yield from net.layer
    yield from net.layers


def encode_net(name: str, layers: Sequence[StoredLayer]) -> bytes:
    """A .caffemodel file's bytes; the same layers give the same bytes."""
    net = _messages()["NetParameter"]()
    net.name = name
    for layer in layers:
        entry = net.layer.add()
        entry.name = layer.name
        if layer.type:
            entry.type = layer.type
        for array in layer.blobs:
            _fill(entry.blobs.add(), array)
    data: bytes = net.SerializeToString(deterministic=True)
    return data


# ── records ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Datum:
    """An example of a database: [C, H, W], uint8 or float32, and its label.

    ``encoded`` holds the file of an image instead, for Pillow to decode.
    """

    pixels: Array
    label: int
    encoded: bytes = b""


def decode_datum(data: bytes, where: str) -> Datum:
    """A Datum from its bytes. Raises ImportModelError."""
    datum = _parse("Datum", data, where)
    label = int(datum.label)
    if datum.encoded:
        return Datum(np.zeros((0, 0, 0), np.uint8), label, bytes(datum.data))
    shape = (datum.channels, datum.height, datum.width)
    if len(datum.data):
        flat = np.frombuffer(datum.data, np.uint8)
    else:
        flat = np.asarray(datum.float_data, np.float32)
    if min(shape) < 1 or shape[0] * shape[1] * shape[2] != flat.size:
        raise ImportModelError("a record's numbers do not fill its shape", where=where,
                               got=f"{flat.size} numbers", expected=list(shape))  # fmt: skip
    return Datum(flat.reshape(shape), label)


def encode_datum(pixels: Array, label: int) -> bytes:
    """A Datum's bytes: uint8 as bytes, anything else as floats."""
    datum = _messages()["Datum"]()
    datum.channels, datum.height, datum.width = pixels.shape
    datum.label = label
    if pixels.dtype == np.uint8:
        datum.data = np.ascontiguousarray(pixels).tobytes()
    else:
        datum.float_data.extend(np.asarray(pixels, np.float32).ravel().tolist())
    data: bytes = datum.SerializeToString(deterministic=True)
    return data
