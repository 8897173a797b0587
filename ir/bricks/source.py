"""Bricks without operands: numbers, constant arrays, sizes, indices."""

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

__all__ = ["Constant", "DimSize", "Iota", "Literal", "constant", "dim_size", "full_like", "iota",
           "literal", "ones_like", "zeros_like"]  # fmt: skip


class _Source(Brick):
    """Base of bricks without operands."""

    arity: ClassVar[int | None] = 0

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return ()


@dataclass(frozen=True)
class Constant(_Source):
    """A number.

    Shapes:  -> y []
    Dtypes:  any
    Grad:    none
    Raises:  DtypeError if the number does not fit the dtype
    """

    mnemonic: ClassVar[str] = "constant"

    value: bool | int | float
    dtype: DType

    def __post_init__(self) -> None:
        # one spelling per value, so that equal constants are equal bricks
        if self.dtype is DType.BOOL:
            typed: bool | int | float = bool(self.value)
        elif self.dtype.is_float:
            typed = float(self.value)
        elif float(self.value).is_integer():
            typed = int(self.value)
        else:
            raise DtypeError("not an integer", got=self.value, expected=self.dtype)
        object.__setattr__(self, "value", typed)

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        return TensorType(self.dtype, ())

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return np.asarray(self.value, self.dtype.numpy)


@dataclass(frozen=True)
class Literal(_Source):
    """A constant array; ``data`` are its elements in C order.

    Shapes:  -> y [*S], fixed sizes
    Dtypes:  any that NumPy has
    Grad:    none
    Raises:  ShapeError if the number of bytes does not fit the type
    """

    mnemonic: ClassVar[str] = "literal"

    data: bytes
    type: TensorType

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        if self.type.nbytes != len(self.data):
            raise ShapeError("literal: the data do not fit", got=f"{len(self.data)} bytes",
                             expected=f"{self.type.nbytes} for {self.type}")  # fmt: skip
        return self.type

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return np.frombuffer(self.data, self.type.dtype.numpy).reshape(self.type.concrete(dims))


@dataclass(frozen=True)
class DimSize(_Source):
    """A size as a number: what a mean over a named dim divides by.

    Shapes:  -> y []
    Dtypes:  any but bool
    Grad:    none
    """

    mnemonic: ClassVar[str] = "dim_size"

    size: Size
    dtype: DType

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        return TensorType(self.dtype, ())

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return np.asarray(evaluate(self.size, dims), self.dtype.numpy)


@dataclass(frozen=True)
class Iota(_Source):
    """The index along one axis.

    Shapes:  -> y [*S]
    Dtypes:  i32, i64, f32, f64
    Grad:    none
    Raises:  ShapeError if there is no such axis
    """

    mnemonic: ClassVar[str] = "iota"

    type: TensorType
    axis: int

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        if not 0 <= self.axis < self.type.rank:
            raise ShapeError("iota: no such axis", got=self.axis, expected=f"0..{self.type.rank - 1}")
        return self.type

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        shape = self.type.concrete(dims)
        line = np.arange(shape[self.axis], dtype=self.type.dtype.numpy)
        column = line.reshape([-1 if a == self.axis else 1 for a in range(len(shape))])
        return np.broadcast_to(column, shape).copy()


def constant(place: Value, value: bool | int | float, dtype: DType) -> Value:
    """A number where ``place`` is."""
    return place.apply(Constant(value, dtype))


def literal(place: Value, array: Array) -> Value:
    """A constant array where ``place`` is."""
    type = TensorType(DType.of(array.dtype), array.shape)
    return place.apply(Literal(np.ascontiguousarray(array).tobytes(), type))


def dim_size(place: Value, size: Size, dtype: DType) -> Value:
    """A size as a number."""
    if isinstance(size, int):
        return constant(place, size, dtype)
    return place.apply(DimSize(size, dtype))


def iota(place: Value, type: TensorType, axis: int) -> Value:
    """Indices along ``axis``."""
    return place.apply(Iota(type, axis))


def full_like(x: Value, value: bool | int | float) -> Value:
    """A number in x's type."""
    from .shape import broadcast_to

    return broadcast_to(constant(x, value, x.dtype), x.shape)


def zeros_like(x: Value) -> Value:
    return full_like(x, 0)


def ones_like(x: Value) -> Value:
    return full_like(x, 1)
