"""Windows as an axis of their own, a view, and the adjoint that adds them up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import DtypeError, ShapeError
from ..brick import Array, Brick, View
from ..dims import Size, evaluate, maximum, minimum
from ..types import TensorType
from ..value import Value
from .shape import Strides, range_hint, slice_

__all__ = ["Fold", "Unfold", "fold", "unfold"]


def _windows(size: Size, window: int, stride: int, dilation: int) -> Size:
    return (size - dilation * (window - 1) - 1) // stride + 1


@dataclass(frozen=True)
class Unfold(View):
    """A sliding view: y[…, o, …, k] = x[…, o·stride + k·dilation, …], k a new last axis.

    Shapes:  x [*S] -> y [*S', window], S' with the number of windows on ``axis``
    Dtypes:  any
    Grad:    dx = fold(dy)
    Raises:  ShapeError if the window does not fit the axis
    """

    mnemonic: ClassVar[str] = "unfold"

    axis: int
    window: int
    stride: int
    dilation: int

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        if not 0 <= self.axis < x.rank or min(self.window, self.stride, self.dilation) < 1:
            raise ShapeError("unfold: bad attributes", got=self.attributes(),
                             expected=f"an axis of {x}, and numbers of at least 1")  # fmt: skip
        size, reach = x.shape[self.axis], self.dilation * (self.window - 1) + 1
        if minimum(size) < reach:
            raise ShapeError("unfold: the window is larger than the axis", got=reach,
                             expected=f"at most {size}", hint=range_hint(size))  # fmt: skip
        count = _windows(size, self.window, self.stride, self.dilation)
        shape = list(x.shape)
        shape[self.axis] = count
        return x.with_shape((*shape, self.window))

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        (x,) = operands
        count = _windows(x.shape[self.axis], self.window, self.stride, self.dilation)
        assert isinstance(count, int)
        first = np.arange(count) * self.stride
        parts = [np.take(x, first + k * self.dilation, self.axis) for k in range(self.window)]
        return np.stack(parts, -1)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        size = operands[0].shape[self.axis]
        return (fold(cotangent, self.axis, size, self.stride, self.dilation),)

    def restride(
        self, operand: TensorType, result: TensorType, offset: Size, strides: Strides
    ) -> tuple[Size, Strides] | None:
        steps = list(strides)
        steps[self.axis] = strides[self.axis] * self.stride
        return offset, (*steps, strides[self.axis] * self.dilation)


@dataclass(frozen=True)
class Fold(Brick):
    """The adjoint of unfold: windows, the last axis, are added back where they came from.

    Shapes:  x [*S, window] -> y [*S'], S' with ``size`` on ``axis``
    Dtypes:  floats
    Grad:    dx = unfold(dy)
    Raises:  ShapeError if the windows do not fit ``size``
    """

    mnemonic: ClassVar[str] = "fold"
    arity: ClassVar[int | None] = 1

    axis: int
    size: Size
    stride: int
    dilation: int

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        window = x.shape[-1] if x.rank > 1 else 0
        if not isinstance(window, int) or not 0 <= self.axis < x.rank - 1 or min(
            window, self.stride, self.dilation
        ) < 1:  # fmt: skip
            raise ShapeError("fold: bad attributes", got=f"{self.attributes()} for {x}",
                             expected="an axis before the last one, which is the window, and "
                             "numbers of at least 1")  # fmt: skip
        if not x.dtype.is_float:
            raise DtypeError(f"fold of {x.dtype}", expected="a float dtype")
        reach = (x.shape[self.axis] - 1) * self.stride + (window - 1) * self.dilation + 1
        if minimum(x.shape[self.axis]) < 1 or maximum(reach - self.size) > 0:
            raise ShapeError("fold: the windows reach beyond the axis", got=reach,
                             expected=f"at most {self.size}, and at least one window",
                             hint=range_hint(reach, self.size))  # fmt: skip
        shape = list(x.shape[:-1])
        shape[self.axis] = self.size
        return x.with_shape(shape)

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        (x,) = operands
        shape = list(x.shape[:-1])
        count, shape[self.axis] = shape[self.axis], evaluate(self.size, dims)
        y = np.zeros(shape, x.dtype)
        rows, parts = np.moveaxis(y, self.axis, 0), np.moveaxis(x, self.axis, 0)
        for k in range(x.shape[-1]):
            first = k * self.dilation
            rows[first : first + (count - 1) * self.stride + 1 : self.stride] += parts[..., k]
        return y

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        window, count = operands[0].shape[-1], operands[0].shape[self.axis]
        assert isinstance(window, int)
        dx = unfold(cotangent, self.axis, window, self.stride, self.dilation)
        if dx.shape[self.axis] != count:
            stop = (*dx.shape[: self.axis], count, *dx.shape[self.axis + 1 :])
            dx = slice_(dx, (0,) * dx.rank, stop)
        return (dx,)


def unfold(x: Value, axis: int, window: int, stride: int = 1, dilation: int = 1) -> Value:
    return x.apply(Unfold(axis, window, stride, dilation), x)


def fold(x: Value, axis: int, size: Size, stride: int = 1, dilation: int = 1) -> Value:
    return x.apply(Fold(axis, size, stride, dilation), x)
