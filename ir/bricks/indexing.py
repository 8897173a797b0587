"""Bricks that look elements up by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import DataError, DtypeError, ShapeError
from ..brick import Array, Brick
from ..dims import Size, evaluate
from ..dtypes import DType
from ..types import TensorType
from ..value import Value
from .arithmetic import equal
from .convert import cast
from .shape import reshape
from .source import iota

__all__ = ["Gather", "ScatterAdd", "gather", "one_hot", "scatter_add"]


def _check_indices(indices: TensorType, mnemonic: str) -> None:
    if not indices.dtype.is_integer:
        raise DtypeError(f"{mnemonic}: indices are no integers", got=indices,
                         expected="i32 or i64", hint="cast them")  # fmt: skip


def _in_range(indices: Array, size: int, mnemonic: str) -> None:
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise DataError(
            f"{mnemonic}: an index is out of range",
            got=f"{indices.min()}..{indices.max()}",
            expected=f"0..{size - 1}",
        )


@dataclass(frozen=True)
class Gather(Brick):
    """x taken at indices along one axis.

    Shapes:  x [A, n, B], indices [*I] -> y [A, *I, B], n being the axis
    Dtypes:  x any; indices i32 or i64
    Grad:    dx = scatter_add(indices, dy); none in indices
    Raises:  ShapeError if there is no such axis; DataError if an index is out of range
    """

    mnemonic: ClassVar[str] = "gather"
    arity: ClassVar[int | None] = 2

    axis: int

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        x, indices = operands
        _check_indices(indices, self.mnemonic)
        if not 0 <= self.axis < x.rank:
            raise ShapeError("gather: no such axis", got=self.axis, expected=f"an axis of {x}")
        return x.with_shape((*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :]))

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        x, indices = operands
        _in_range(indices, x.shape[self.axis], self.mnemonic)
        return np.asarray(np.take(x, indices, self.axis))

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        x, indices = operands
        return scatter_add(indices, cotangent, self.axis, x.shape[self.axis]), None


@dataclass(frozen=True)
class ScatterAdd(Brick):
    """The adjoint of gather: updates added at indices along one axis; equal indices add up.

    Shapes:  indices [*I], updates [A, *I, B] -> y [A, size, B]
    Dtypes:  indices i32 or i64; updates f32, f64
    Grad:    dupdates = gather(dy, indices); none in indices
    Raises:  ShapeError if the shapes do not fit; DataError if an index is out of range
    """

    mnemonic: ClassVar[str] = "scatter_add"
    arity: ClassVar[int | None] = 2

    axis: int
    size: Size

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        indices, updates = operands
        _check_indices(indices, self.mnemonic)
        last = self.axis + indices.rank
        fits = self.axis >= 0 and last <= updates.rank
        if not fits or updates.shape[self.axis : last] != indices.shape:
            raise ShapeError(
                "scatter_add: updates do not fit the indices",
                got=updates,
                expected=f"axes {self.axis}.. equal to {list(indices.shape)}",
            )
        return updates.with_shape((*updates.shape[: self.axis], self.size, *updates.shape[last:]))

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        indices, updates = operands
        size = evaluate(self.size, dims)
        _in_range(indices, size, self.mnemonic)
        last = self.axis + indices.ndim
        y = np.zeros((*updates.shape[: self.axis], size, *updates.shape[last:]), updates.dtype)
        parts = np.moveaxis(updates, range(self.axis, last), range(indices.ndim))
        np.add.at(np.moveaxis(y, self.axis, 0), indices, parts)
        return y

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return None, gather(cotangent, operands[0], self.axis)


def gather(x: Value, indices: Value, axis: int = 0) -> Value:
    return x.apply(Gather(axis + x.rank if -x.rank <= axis < 0 else axis), x, indices)


def scatter_add(indices: Value, updates: Value, axis: int, size: Size) -> Value:
    return updates.apply(ScatterAdd(axis, size), indices, updates)


def one_hot(indices: Value, depth: int, dtype: DType | str = DType.F32) -> Value:
    """1 where the new last axis equals the index, else 0."""
    places = iota(indices, TensorType(indices.dtype, (depth,)), 0)
    return cast(equal(places, reshape(indices, (*indices.shape, 1))), dtype)
