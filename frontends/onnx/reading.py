"""Bytes of an ONNX file to messages and arrays. Nothing is allocated that the file has not.

Protocol buffers bound the nesting of messages and the length of a file themselves; here the
sizes that a message claims are compared with the bytes that are there before an array is made.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import ImportModelError, UnsupportedError
from ...ir.dtypes import DType
from .package import onnx_package

if TYPE_CHECKING:
    import onnx

__all__ = ["DTYPES", "array_of", "opset_of", "printable", "read_model"]

Array = npt.NDArray[Any]

#: ONNX element type -> ours
DTYPES = {
    1: DType.F32, 6: DType.I32, 7: DType.I64, 9: DType.BOOL, 10: DType.F16, 11: DType.F64,
}  # fmt: skip

#: bytes; what one message can hold
_LARGEST_FILE = 2**31 - 1
_LOWEST_OPSET = 6

#: TensorProto.DataType -> (bytes of an element, the field that holds elements if not raw_data)
_LAYOUT: dict[int, tuple[int, str]] = {
    1: (4, "float_data"), 2: (1, "int32_data"), 3: (1, "int32_data"), 4: (2, "int32_data"),
    5: (2, "int32_data"), 6: (4, "int32_data"), 7: (8, "int64_data"), 9: (1, "int32_data"),
    10: (2, "int32_data"), 11: (8, "double_data"), 12: (4, "uint64_data"),
    13: (8, "uint64_data"), 16: (2, "int32_data"),
}  # fmt: skip


def printable(text: str | bytes, most: int = 80) -> str:
    """A name from a file as it may stand in a message or a comment: short, without quotes.

    What is no UTF-8 comes out of a message as bytes.
    """
    if isinstance(text, bytes):
        text = text[: 4 * most].decode("utf-8", "replace")
    clean = "".join(c if c.isprintable() and c not in "\"'\\" else "_" for c in text[:most])
    return clean.strip()


def read_model(path: Path) -> onnx.ModelProto:
    """The message in a file. Raises ImportModelError if it is no ONNX model."""
    onnx = onnx_package()
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise ImportModelError(
            "an ONNX file cannot be this large", where=path.name, got=f"{size} bytes",
            expected=f"at most {_LARGEST_FILE}", hint="keep the weights as external data",
        )  # fmt: skip
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    # the two implementations of protocol buffers raise different classes
    except Exception as error:
        raise ImportModelError(
            "not an ONNX model, or a damaged one", where=path.name,
            got=printable(str(error)) or f"{size} bytes",
        ) from None  # fmt: skip
    return model  # type: ignore[no-any-return]


def opset_of(model: onnx.ModelProto, where: str) -> dict[str, int]:
    """Operator set versions by domain; "" is ONNX's own.

    Raises ImportModelError if the model has none, UnsupportedError below version 7.
    """
    found = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    if not model.HasField("graph"):
        raise ImportModelError("the model has no graph", where=where)
    if not found:
        raise ImportModelError("the model names no operator set", where=where)
    if found.get("", _LOWEST_OPSET) < _LOWEST_OPSET:
        raise UnsupportedError(
            "the operator set is too old", where=where, got=f"opset {found['']}",
            expected=f"{_LOWEST_OPSET} or later",
            hint="onnx.version_converter.convert_version brings models forward",
        )  # fmt: skip
    return found


def array_of(tensor: onnx.TensorProto, folder: Path | None, where: str) -> Array:
    """The elements of a tensor, from the message or from a file beside the model.

    Raises ImportModelError if data and shape do not fit together or a path leads out of the
    model's folder, UnsupportedError for element types that NumPy has not.
    """
    onnx = onnx_package()
    dims = tuple(tensor.dims)
    name = printable(tensor.name)
    if any(d < 0 for d in dims):
        raise ImportModelError(f"tensor {name!r} has a negative size", where=where, got=list(dims))
    layout = _LAYOUT.get(tensor.data_type)
    if layout is None:
        raise UnsupportedError(
            f"tensor {name!r} has an element type that brickc has not", where=where,
            got=_type_name(tensor.data_type),
        )  # fmt: skip
    width, field = layout
    count = math.prod(dims)
    needed = count * width
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raw = _external(tensor, folder, needed, where)
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
    else:
        given = len(getattr(tensor, field))
        if given != count:
            raise ImportModelError(
                f"the data of tensor {name!r} do not fill its shape", where=where,
                got=f"{given} elements", expected=f"{count} for {list(dims)}",
            )  # fmt: skip
        return _checked(onnx.numpy_helper.to_array(tensor))
    if len(raw) != needed:
        raise ImportModelError(
            f"the data of tensor {name!r} do not fill its shape", where=where,
            got=f"{len(raw)} bytes", expected=f"{needed} for {list(dims)}",
        )  # fmt: skip
    plain = onnx.TensorProto()
    plain.data_type = tensor.data_type
    plain.dims.extend(dims)
    plain.raw_data = raw
    return _checked(onnx.numpy_helper.to_array(plain))


def _checked(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(array.shape)


def _type_name(number: int) -> str:
    onnx = onnx_package()
    try:
        return str(onnx.TensorProto.DataType.Name(number)).lower()
    except ValueError:
        return f"type {number}"


def _external(tensor: onnx.TensorProto, folder: Path | None, needed: int, where: str) -> bytes:
    """Exactly ``needed`` bytes of a regular file in the model's folder."""
    entries = {e.key: e.value for e in tensor.external_data}
    name = printable(tensor.name)
    location = entries.get("location", "")
    if folder is None:
        raise ImportModelError(
            f"the data of tensor {name!r} lie in another file", where=where,
            got=printable(location), hint="give the path of the model's file",
        )  # fmt: skip
    path = _inside(folder, location, name, where)
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or needed)
    except ValueError:
        raise ImportModelError(f"the place of tensor {name!r} is no number", where=where) from None
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImportModelError("external data is no file", where=where, got=path.name)
            inside = 0 <= offset <= status.st_size and offset + needed <= status.st_size
            if length != needed or not inside:
                raise ImportModelError(
                    f"the data of tensor {name!r} do not fill its shape", where=where,
                    got=f"{length} bytes at {offset} of a file of {status.st_size}",
                    expected=f"{needed} bytes",
                )  # fmt: skip
            file.seek(offset)
            return file.read(needed)
    except OSError as error:
        raise ImportModelError(
            f"the data of tensor {name!r} cannot be read", where=where,
            got=f"{printable(location)}: {error.strerror}",
        ) from None  # fmt: skip


def _inside(folder: Path, location: str, name: str, where: str) -> Path:
    """The path of external data, every part of which is a plain name and no link."""
    parts = location.split("/")
    refused = {"", ".."}
    bad = "\\" in location or "\0" in location or ":" in location or refused & set(parts)
    path = folder
    if not bad:
        for part in parts:
            path = path / part
            if path.is_symlink():
                bad = True
    if bad:
        raise ImportModelError(
            f"the data of tensor {name!r} lie outside of the model's folder", where=where,
            got=printable(location) or "no location",
            expected="a path below the folder, without .. and links",
        )  # fmt: skip
    return path
