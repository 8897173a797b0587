"""Bricks without operands: numbers, constant arrays, sizes, indices.

The functions take a ``place`` first: any value of the graph, trace or computation in which
the new one is made. It is no operand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import DtypeError, ShapeError
from ..brick import Array, Brick
from ..dims import Size, evaluate
from ..dtypes import DType
from ..types import TensorType
from ..value import Value

__all__ = ["Constant", "DimSize", "Iota", "Literal", "Number", "constant", "dim_size", "full_like",
           "iota", "lift", "literal", "ones_like", "zeros_like"]  # fmt: skip

Number = bool | int | float


class _Source(Brick):
    """Base of bricks without operands."""

    arity: ClassVar[int | None] = 0

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return ()


@dataclass(frozen=True)
class Constant(_Source):
    """A number. Floats keep 53 bits here and are rounded to the dtype where they are used.

    Shapes:  -> y []
    Dtypes:  any
    Grad:    none
    Raises:  DtypeError if the number is none of the dtype: a fraction or too large a number
             for an integer, anything but 0 and 1 for bool
    """

    mnemonic: ClassVar[str] = "constant"

    value: bool | int | float
    dtype: DType

    def __post_init__(self) -> None:
        # one spelling per value, so that equal constants are equal bricks
        object.__setattr__(self, "value", _typed(self.value, self.dtype))

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        return TensorType(self.dtype, ())

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        with np.errstate(over="ignore"):  # 1e300 in f32 is infinite
            return np.asarray(self.value, self.dtype.numpy)


def _typed(value: Number, dtype: DType) -> Number:
    """The number as bool, int or float, as the dtype has it."""
    try:
        if dtype.is_float:
            return float(value)
        whole = int(value)
        if whole == value:
            if dtype is DType.BOOL and whole in (0, 1):
                return bool(whole)
            if dtype.is_integer and -(bound := 2 ** (8 * dtype.itemsize - 1)) <= whole < bound:
                return whole
    except (OverflowError, ValueError):  # inf and nan are no integers, 10**400 no float
        pass
    raise DtypeError(
        "a number does not fit its dtype", got=f"{value!r}"[:80], expected=dtype,
        hint="" if dtype.is_float else "cast the tensor that it meets to a float first",
    )  # fmt: skip


@dataclass(frozen=True)
class Literal(_Source):
    """A constant array; ``data`` are its elements in C order, little-endian.

    Shapes:  -> y [*S], fixed sizes
    Dtypes:  any
    Grad:    none
    Raises:  ShapeError if the sizes are not fixed, or the bytes too few or too many
    """

    mnemonic: ClassVar[str] = "literal"

    data: bytes
    type: TensorType

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        if self.type.nbytes != len(self.data):
            raise ShapeError(
                "literal: the data do not fill the shape", got=f"{len(self.data)} bytes",
                expected=f"{self.type.nbytes} for {self.type}",
            )  # fmt: skip
        return self.type

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        stored = self.type.dtype.numpy.newbyteorder("<")
        flat = np.frombuffer(self.data, stored).astype(self.type.dtype.numpy)
        return flat.reshape(self.type.concrete(dims))


@dataclass(frozen=True)
class DimSize(_Source):
    """A size as a number: what a mean over a named dim divides by.

    Shapes:  -> y []
    Dtypes:  any but bool
    Grad:    none
    Raises:  DtypeError for bool
    """

    mnemonic: ClassVar[str] = "dim_size"

    size: Size
    dtype: DType

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        if self.dtype is DType.BOOL:
            raise DtypeError("a size is no bool", where=self.mnemonic)
        return TensorType(self.dtype, ())

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return np.asarray(evaluate(self.size, dims), self.dtype.numpy)


@dataclass(frozen=True)
class Iota(_Source):
    """y[..., i, ...] = i: the index along one axis.

    Shapes:  -> y [*S]
    Dtypes:  any but bool
    Grad:    none
    Raises:  ShapeError if there is no such axis; DtypeError for bool
    """

    mnemonic: ClassVar[str] = "iota"

    type: TensorType
    axis: int

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        if not 0 <= self.axis < self.type.rank:
            raise ShapeError(
                "iota: no such axis", got=f"axis {self.axis}", expected=f"an axis of {self.type}"
            )
        if self.type.dtype is DType.BOOL:
            raise DtypeError("iota counts, which bool cannot", got=self.type)
        return self.type

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        shape = self.type.concrete(dims)
        line = np.arange(shape[self.axis], dtype=self.type.dtype.numpy)
        column = line.reshape([-1 if a == self.axis else 1 for a in range(len(shape))])
        return np.broadcast_to(column, shape).copy()


def constant(place: Value, value: Number, dtype: DType) -> Value:
    """The number as a scalar of that dtype."""
    return place.apply(Constant(value, dtype))


def lift(value: Value | Number, like: Value) -> Value:
    """A number as a constant of ``like``'s dtype, in its place; values stay themselves."""
    return value if isinstance(value, Value) else constant(like, value, like.dtype)


def literal(place: Value, array: Array) -> Value:
    """The array as part of the program."""
    type = TensorType.of(DType.of(array.dtype), array.shape)
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return place.apply(Literal(data, type))


def dim_size(place: Value, size: Size, dtype: DType) -> Value:
    """The size as a scalar of that dtype: a Constant if it is known."""
    if isinstance(size, int):
        return constant(place, size, dtype)
    return place.apply(DimSize(size, dtype))


def iota(place: Value, type: TensorType, axis: int) -> Value:
    """The index along ``axis``, which counts from the end if negative."""
    return place.apply(Iota(type, axis + type.rank if axis < 0 else axis))


def full_like(x: Value, value: Number) -> Value:
    """The number in x's dtype and shape."""
    from .shape import broadcast_to  # its derivative needs reductions, and they need this module

    return broadcast_to(constant(x, value, x.dtype), x.shape)


def zeros_like(x: Value) -> Value:
    """Zeros in x's dtype and shape."""
    return full_like(x, 0)


def ones_like(x: Value) -> Value:
    """Ones in x's dtype and shape."""
    return full_like(x, 1)
