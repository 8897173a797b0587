"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...errors import DtypeError, ShapeError
from ..brick import Array, Brick
from ..dims import Size, product
from ..dtypes import DType
from ..types import Shape, TensorType
from ..value import Value
from .arithmetic import div, equal, mul
from .convert import cast
from .shape import broadcast_to, reshape
from .source import dim_size

__all__ = ["ArgMax", "ArgMin", "ReduceMax", "ReduceMin", "ReduceSum", "arg_max", "arg_min",
           "reduce_max", "reduce_mean", "reduce_min", "reduce_sum", "sum_to"]  # fmt: skip


def _reduced(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    return tuple(
        1 if a in axes else size for a, size in enumerate(shape) if keepdims or a not in axes
    )


def _check_axes(mnemonic: str, axes: tuple[int, ...], rank: int) -> None:
    if list(axes) != sorted(set(axes)) or any(not 0 <= a < rank for a in axes):
        raise ShapeError(
            f"{mnemonic}: bad axes", got=list(axes), expected=f"rising axes of 0..{rank - 1}"
        )


class _Reduce(Brick):
    """Base of reductions over several axes."""

    arity: ClassVar[int | None] = 1
    function: ClassVar[Any]

    axes: tuple[int, ...]
    keepdims: bool

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        _check_axes(self.mnemonic, self.axes, x.rank)
        if x.dtype is DType.BOOL:
            raise DtypeError(f"{self.mnemonic} of bool", hint="cast it to a number")
        return x.with_shape(_reduced(x.shape, self.axes, self.keepdims))

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        (x,) = operands
        result = type(self).function(x, axis=self.axes, keepdims=self.keepdims)
        return np.asarray(result, x.dtype)

    def _spread(self, value: Value, like: Value) -> Value:
        """A reduced value back in the operand's shape."""
        return broadcast_to(reshape(value, _reduced(like.shape, self.axes, True)), like.shape)


@dataclass(frozen=True)
class ReduceSum(_Reduce):
    """Sum over axes.

    Shapes:  x [*S] -> y: S without the axes, or with size 1 there if keepdims
    Dtypes:  floats and integers
    Grad:    dx = dy, repeated
    Raises:  ShapeError if an axis does not exist
    """

    mnemonic: ClassVar[str] = "reduce_sum"
    function: ClassVar[Any] = np.sum

    axes: tuple[int, ...]
    keepdims: bool

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return (self._spread(cotangent, operands[0]),)


class _Extremum(_Reduce):
    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        (x,) = operands
        hit = cast(equal(x, self._spread(result, x)), x.dtype)
        share = div(cotangent, reduce_sum(hit, self.axes, self.keepdims))
        return (mul(hit, self._spread(share, x)),)


@dataclass(frozen=True)
class ReduceMax(_Extremum):
    """Maximum over axes.

    Shapes:  x [*S] -> y: S without the axes, or with size 1 there if keepdims
    Dtypes:  floats and integers
    Grad:    dy to the maximum; at ties in equal shares, as torch.amax
    Raises:  ShapeError if an axis does not exist
    """

    mnemonic: ClassVar[str] = "reduce_max"
    function: ClassVar[Any] = np.max

    axes: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True)
class ReduceMin(_Extremum):
    """Minimum over axes.

    Shapes:  x [*S] -> y: S without the axes, or with size 1 there if keepdims
    Dtypes:  floats and integers
    Grad:    dy to the minimum; at ties in equal shares, as torch.amin
    Raises:  ShapeError if an axis does not exist
    """

    mnemonic: ClassVar[str] = "reduce_min"
    function: ClassVar[Any] = np.min

    axes: tuple[int, ...]
    keepdims: bool


class _ArgReduce(Brick):
    arity: ClassVar[int | None] = 1
    function: ClassVar[Any]

    axis: int
    keepdims: bool

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        _check_axes(self.mnemonic, (self.axis,), x.rank)
        return TensorType(DType.I32, _reduced(x.shape, (self.axis,), self.keepdims))

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        found = type(self).function(operands[0], axis=self.axis, keepdims=self.keepdims)
        return np.asarray(found, np.int32)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return (None,)


@dataclass(frozen=True)
class ArgMax(_ArgReduce):
    """Index of the maximum along one axis, the first at ties.

    Shapes:  x [*S] -> y: S without the axis, or with size 1 there if keepdims
    Dtypes:  floats and integers -> i32
    Grad:    none
    Raises:  ShapeError if the axis does not exist
    """

    mnemonic: ClassVar[str] = "arg_max"
    function: ClassVar[Any] = np.argmax

    axis: int
    keepdims: bool


@dataclass(frozen=True)
class ArgMin(_ArgReduce):
    """Index of the minimum along one axis, the first at ties.

    Shapes:  x [*S] -> y: S without the axis, or with size 1 there if keepdims
    Dtypes:  floats and integers -> i32
    Grad:    none
    Raises:  ShapeError if the axis does not exist
    """

    mnemonic: ClassVar[str] = "arg_min"
    function: ClassVar[Any] = np.argmin

    axis: int
    keepdims: bool


Axes = int | Sequence[int] | None


def _normal(x: Value, axes: Axes) -> tuple[int, ...]:
    """All axes if None; negative ones count from the end."""
    if axes is None:
        return tuple(range(x.rank))
    many = (axes,) if isinstance(axes, int) else tuple(axes)
    for a in many:
        if not -x.rank <= a < x.rank:
            raise ShapeError("no such axis", got=a, expected=f"0..{x.rank - 1}")
    return tuple(sorted(a % x.rank for a in many))


def reduce_sum(x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    return x.apply(ReduceSum(_normal(x, axes), keepdims), x)


def reduce_max(x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    return x.apply(ReduceMax(_normal(x, axes), keepdims), x)


def reduce_min(x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    return x.apply(ReduceMin(_normal(x, axes), keepdims), x)


def reduce_mean(x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """Sum over the axes, divided by the number of elements."""
    chosen = _normal(x, axes)
    count = product(x.shape[a] for a in chosen)
    total = reduce_sum(x, chosen, keepdims)
    if isinstance(count, int):
        return mul(total, 1.0 / count) if count else total
    return div(total, dim_size(x, count, x.dtype))


def arg_max(x: Value, axis: int = -1, keepdims: bool = False) -> Value:
    return x.apply(ArgMax(_normal(x, axis)[0], keepdims), x)


def arg_min(x: Value, axis: int = -1, keepdims: bool = False) -> Value:
    return x.apply(ArgMin(_normal(x, axis)[0], keepdims), x)


def sum_to(x: Value, shape: tuple[Size, ...]) -> Value:
    """Undo broadcasting: sum over the axes that ``shape`` lacks or has with size 1."""
    if x.shape == shape:
        return x
    lead = x.rank - len(shape)
    stretched = [
        lead + a for a, size in enumerate(shape) if size == 1 and x.shape[lead + a] != 1
    ]
    axes = (*range(lead), *stretched)
    return reshape(reduce_sum(x, axes), shape) if axes else reshape(x, shape)
