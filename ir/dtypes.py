"""Element types of tensors."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np

from ..errors import DtypeError, UnsupportedError

__all__ = ["DType", "round_to"]

Array = np.ndarray[Any, Any]


class DType(Enum):
    """An element type. The value is its name in the text form of the IR."""

    F64 = "f64"
    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"
    I64 = "i64"
    I32 = "i32"
    BOOL = "bool"

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return _ITEMSIZE[self]

    @property
    def is_float(self) -> bool:
        return self in (DType.F64, DType.F32, DType.BF16, DType.F16)

    @property
    def is_half(self) -> bool:
        """True for the floats of two bytes, in which nothing is computed: only kept."""
        return self in (DType.BF16, DType.F16)

    @property
    def is_integer(self) -> bool:
        return self in (DType.I64, DType.I32)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype. Raises UnsupportedError for bf16, which NumPy has not."""
        if self is DType.BF16:
            raise UnsupportedError("NumPy has no bf16", hint="use f32 on the CPU")
        return _NUMPY[self]

    @property
    def held(self) -> np.dtype[Any]:
        """The NumPy dtype of arrays of such values; those of bf16 are f32 with short mantissas."""
        return _NUMPY[DType.F32 if self is DType.BF16 else self]

    @staticmethod
    def parse(name: str) -> DType:
        """The dtype of that name: brickc's (``f32``) or NumPy's (``float32``)."""
        try:
            return DType(name)
        except ValueError:
            pass
        try:
            return DType.of(np.dtype(name))
        except TypeError:
            raise DtypeError(
                "unknown dtype", got=repr(name), expected=", ".join(d.value for d in DType)
            ) from None

    @staticmethod
    def of(dtype: object) -> DType:
        """The dtype of a NumPy dtype, array or scalar type."""
        found: np.dtype[Any] = np.dtype(dtype)  # type: ignore[call-overload]
        for ours, theirs in _NUMPY.items():
            if theirs == found:
                return ours
        raise DtypeError("unsupported dtype", got=found, expected=", ".join(d.value for d in DType))

    def __repr__(self) -> str:
        return self.value

    __str__ = __repr__


_ITEMSIZE = {
    DType.F64: 8,
    DType.F32: 4,
    DType.BF16: 2,
    DType.F16: 2,
    DType.I64: 8,
    DType.I32: 4,
    DType.BOOL: 1,
}

_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F64: np.dtype(np.float64),
    DType.F32: np.dtype(np.float32),
    DType.F16: np.dtype(np.float16),
    DType.I64: np.dtype(np.int64),
    DType.I32: np.dtype(np.int32),
    DType.BOOL: np.dtype(np.bool_),
}


def round_to(array: Array, dtype: DType) -> Array:
    """The array in another dtype, as casts convert: floats to the nearest, ties to even."""
    with np.errstate(all="ignore"):
        found: Array = np.asarray(array).astype(dtype.held)
    if dtype is not DType.BF16:
        return found
    bits = found.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) & np.uint32(
        0xFFFF0000
    )
    return np.where(np.isnan(found), np.float32(np.nan), rounded.view(np.float32))
