"""Reductions over axes, and the sum that undoes broadcasting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...errors import DtypeError, ShapeError
from ..brick import Array, Brick
from ..dims import product
from ..dtypes import DType
from ..types import Shape, TensorType
from ..value import Value
from .arithmetic import div, equal, mul
from .convert import cast
from .source import dim_size

__all__ = ["ArgMax", "ArgMin", "ReduceMax", "ReduceMin", "ReduceSum", "arg_max", "arg_min",
           "reduce_max", "reduce_mean", "reduce_min", "reduce_sum", "sum_to"]  # fmt: skip

Axes = int | Sequence[int] | None


def _reduced(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    return tuple(
        1 if a in axes else size for a, size in enumerate(shape) if keepdims or a not in axes
    )


def _check(mnemonic: str, x: TensorType, axes: tuple[int, ...]) -> None:
    if list(axes) != sorted(set(axes)) or any(not 0 <= a < x.rank for a in axes):
        raise ShapeError(
            f"{mnemonic}: not the axes of a tensor of rank {x.rank}", got=list(axes),
            expected="each axis once, in rising order",
        )  # fmt: skip
    if x.dtype is DType.BOOL:
        raise DtypeError(f"{mnemonic} is not defined for bool", got=x, hint="cast it to a number")


class _Reduce(Brick):
    """Base of reductions over several axes."""

    arity: ClassVar[int | None] = 1

    axes: tuple[int, ...]
    keepdims: bool

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        _check(self.mnemonic, x, self.axes)
        return x.with_shape(_reduced(x.shape, self.axes, self.keepdims))

    def _over(self, value: Value, x: Value) -> Value:
        """A reduced value with the axes back in their places, each of size 1."""
        return _reshaped(value, _reduced(x.shape, self.axes, True))


@dataclass(frozen=True)
class ReduceSum(_Reduce):
    """Sum over axes.

    Shapes:  x [*S] -> y: S without the axes, or with size 1 there if keepdims
    Dtypes:  floats, f16 and bf16 accumulate in f32; integers wrap around
    Grad:    dx = dy, repeated along the axes
    Raises:  ShapeError if an axis does not exist or comes twice; DtypeError for bool
    """

    mnemonic: ClassVar[str] = "reduce_sum"

    axes: tuple[int, ...]
    keepdims: bool

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        (x,) = operands
        # an oracle's sum: in double precision, rounded once
        wide = np.dtype(np.float64) if x.dtype.kind == "f" else x.dtype
        total = np.sum(x, axis=self.axes, keepdims=self.keepdims, dtype=wide)
        with np.errstate(over="ignore"):
            return np.asarray(total).astype(x.dtype)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        from .shape import broadcast_to  # whose derivative needs sum_to

        return (broadcast_to(self._over(cotangent, operands[0]), operands[0].shape),)


class _Extremum(_Reduce):
    """Base of maximum and minimum over axes."""

    function: ClassVar[Any]

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        result = super().infer_type(operands)
        _check_some(self.mnemonic, operands[0], self.axes)
        return result

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return np.asarray(type(self).function(operands[0], axis=self.axes, keepdims=self.keepdims))

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        (x,) = operands
        if not x.dtype.is_float:
            return (None,)
        hit = cast(equal(x, self._over(result, x)), x.dtype)
        share = div(cotangent, reduce_sum(hit, self.axes, self.keepdims))
        return (mul(hit, self._over(share, x)),)


def _check_some(mnemonic: str, x: TensorType, axes: tuple[int, ...]) -> None:
    for a in axes:
        if x.shape[a] == 0:
            raise ShapeError(f"{mnemonic} of nothing", got=f"axis {a} of {x} has size 0")


@dataclass(frozen=True)
class ReduceMax(_Extremum):
    """Maximum over axes; NaN where an element is NaN.

    Shapes:  x [*S] -> y: S without the axes, or with size 1 there if keepdims
    Dtypes:  floats, integers
    Grad:    dx = dy where x = y, else 0; at ties: equal shares of dy
    Raises:  ShapeError if an axis does not exist, comes twice or is empty; DtypeError for bool
    Source:  torch.amax
    """

    mnemonic: ClassVar[str] = "reduce_max"
    function: ClassVar[Any] = np.max

    axes: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True)
class ReduceMin(_Extremum):
    """Minimum over axes; NaN where an element is NaN.

    Shapes:  x [*S] -> y: S without the axes, or with size 1 there if keepdims
    Dtypes:  floats, integers
    Grad:    dx = dy where x = y, else 0; at ties: equal shares of dy
    Raises:  ShapeError if an axis does not exist, comes twice or is empty; DtypeError for bool
    Source:  torch.amin
    """

    mnemonic: ClassVar[str] = "reduce_min"
    function: ClassVar[Any] = np.min

    axes: tuple[int, ...]
    keepdims: bool


class _ArgReduce(Brick):
    """Base of the indices of maximum and minimum."""

    arity: ClassVar[int | None] = 1
    function: ClassVar[Any]

    axis: int
    keepdims: bool

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        _check(self.mnemonic, x, (self.axis,))
        _check_some(self.mnemonic, x, (self.axis,))
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
    """Index of the maximum along one axis: the first at ties, that of the first NaN if any.

    Shapes:  x [*S] -> y: S without the axis, or with size 1 there if keepdims
    Dtypes:  floats, integers -> i32
    Grad:    none
    Raises:  ShapeError if the axis does not exist or is empty; DtypeError for bool
    """

    mnemonic: ClassVar[str] = "arg_max"
    function: ClassVar[Any] = np.argmax

    axis: int
    keepdims: bool


@dataclass(frozen=True)
class ArgMin(_ArgReduce):
    """Index of the minimum along one axis: the first at ties, that of the first NaN if any.

    Shapes:  x [*S] -> y: S without the axis, or with size 1 there if keepdims
    Dtypes:  floats, integers -> i32
    Grad:    none
    Raises:  ShapeError if the axis does not exist or is empty; DtypeError for bool
    """

    mnemonic: ClassVar[str] = "arg_min"
    function: ClassVar[Any] = np.argmin

    axis: int
    keepdims: bool


def _normal(x: Value, axes: Axes) -> tuple[int, ...]:
    """The axes as sorted non-negative numbers; all of them for None."""
    if axes is None:
        return tuple(range(x.rank))
    many = (axes,) if isinstance(axes, int) else tuple(axes)
    for a in many:
        if not -x.rank <= a < x.rank:
            raise ShapeError("no such axis", got=a, expected=f"an axis of {x.type}")
    return tuple(sorted(a % x.rank for a in many))


def _reshaped(x: Value, shape: Shape) -> Value:
    from .shape import reshape  # that module imports sum_to

    return x if x.shape == shape else reshape(x, shape)


def reduce_sum(x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """The sum over the axes; negative axes count from the end, None means all."""
    return x.apply(ReduceSum(_normal(x, axes), keepdims), x)


def reduce_max(x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """The maximum over the axes; negative axes count from the end, None means all."""
    return x.apply(ReduceMax(_normal(x, axes), keepdims), x)


def reduce_min(x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """The minimum over the axes; negative axes count from the end, None means all."""
    return x.apply(ReduceMin(_normal(x, axes), keepdims), x)


def reduce_mean(x: Value, axes: Axes = None, keepdims: bool = False) -> Value:
    """The sum over the axes, divided by how many elements there are.

    Raises DtypeError for integers, whose mean is none, and ShapeError for the mean of nothing.
    """
    chosen = _normal(x, axes)
    if not x.dtype.is_float:
        raise DtypeError("mean is not defined for integers and bool", got=x.type, hint="cast first")
    _check_some("mean", x.type, chosen)
    count = product(x.shape[a] for a in chosen)
    total = reduce_sum(x, chosen, keepdims)
    return total if count == 1 else div(total, dim_size(x, count, x.dtype))


def arg_max(x: Value, axis: int = -1, keepdims: bool = False) -> Value:
    """The index of the maximum along the axis, the first at ties."""
    return x.apply(ArgMax(_normal(x, axis)[0], keepdims), x)


def arg_min(x: Value, axis: int = -1, keepdims: bool = False) -> Value:
    """The index of the minimum along the axis, the first at ties."""
    return x.apply(ArgMin(_normal(x, axis)[0], keepdims), x)


def sum_to(x: Value, shape: Shape) -> Value:
    """Undo broadcasting: the sum over the axes that ``shape`` lacks or has with size 1.

    Raises ShapeError unless ``shape`` broadcasts to x's shape.
    """
    lead = x.rank - len(shape)
    stretched = [a for a, size in enumerate(shape) if size == 1 and x.shape[lead + a] != 1]
    fits = lead >= 0 and all(
        a in stretched or size == x.shape[lead + a] for a, size in enumerate(shape)
    )
    if not fits:
        raise ShapeError(
            "sum_to: the shape was not broadcast from this one", got=list(x.shape),
            expected=f"something that {list(shape)} broadcasts to",
        )  # fmt: skip
    axes = (*range(lead), *(lead + a for a in stretched))
    return _reshaped(reduce_sum(x, axes) if axes else x, shape)
