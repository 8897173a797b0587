"""Max pooling by number: which place of its window wins, and gradients made of winners alone.

The gradient through a max pool has one element a window that is not zero. Where windows lie side
by side, a number a window says all about it: the image need not be kept, and the two gradients of
the convolution before the pool are sums over windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import DtypeError, ShapeError, UnsupportedError
from ..brick import Composite
from ..dims import Size
from ..dtypes import DType
from ..types import TensorType
from ..value import Value
from .comparison import equal, where
from .convert import cast
from .convolution import ConvolutionInputGrad, ConvolutionWeightGrad
from .shape import broadcast_to
from .source import literal
from .window import WindowMax, WindowMaxGather, WindowSumGrad

__all__ = ["PooledInputGrad", "PooledWeightGrad", "WindowArgMax"]

Pairs = tuple[tuple[int, int], ...]
Ints = tuple[int, ...]


def _numbers(place: Value, window: Ints, shape: Sequence[Size], dtype: DType) -> Value:
    """For every place of an image, its number in the window that holds it, row-major."""
    sizes: list[int] = []
    for n, k in zip(shape, window, strict=True):
        if k > 1 and not isinstance(n, int):
            raise UnsupportedError("numbers in windows need fixed sizes along them", got=n,
                                   expected="an int")  # fmt: skip
        sizes.append(n if k > 1 and isinstance(n, int) else 1)
    grid = np.indices(sizes) if sizes else np.zeros((0,))
    number = np.zeros(sizes, np.int64)
    for at, k in zip(grid, window, strict=True):
        number = number * k + at % k
    return literal(place, number.astype(dtype.numpy))


@dataclass(frozen=True)
class WindowArgMax(Composite):
    """The number, row-major in its window, of every window's first maximum, or of its first NaN.

    Windows lie side by side, without padding; what does not fill a window is left out.

    Shapes:  x [*S] -> y: S//window on each axis
    Dtypes:  f32, f64 -> i32
    Grad:    none
    Raises:  ShapeError if a window does not fit, UnsupportedError if an axis with one has no
             fixed size
    """

    mnemonic: ClassVar[str] = "window_arg_max"
    arity: ClassVar[int | None] = 1

    window: Ints

    @property
    def _maximum(self) -> WindowMax:
        return WindowMax(self.window, self.window, ((0, 0),) * len(self.window))

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        return TensorType(DType.I32, self._maximum.infer_type(operands).shape)

    def expand(self, operands: Sequence[Value]) -> Value:
        (x,) = operands
        top = x.apply(self._maximum, x)
        numbers = broadcast_to(_numbers(x, self.window, x.shape, x.dtype), x.shape)
        gather = WindowMaxGather(self._maximum.window, self.window, self._maximum.padding)
        return cast(x.apply(gather, x, top, numbers), DType.I32)


@dataclass(frozen=True)
class _Pooled(Composite):
    """A convolution's gradient, of the maxima of windows of its result."""

    arity: ClassVar[int | None] = 3

    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int
    #: on the spatial axes of the convolution's result
    window: Ints
    #: spatial sizes of the convolution's result
    pooled_size: Ints

    def _image(self, index: Value, v: Value) -> Value:
        """The gradient of the convolution's result: v at every window's winner, else zero."""
        if index.shape != v.shape or v.rank != len(self.window) + 2:
            raise ShapeError(f"{self.mnemonic}: one number a window", got=index.type,
                             expected=v.type)  # fmt: skip
        if index.dtype is not DType.I32:
            raise DtypeError(f"{self.mnemonic}: numbers of winners", got=index.dtype,
                             expected=DType.I32)  # fmt: skip
        window = (1, 1, *self.window)
        shape = (*v.shape[:2], *self.pooled_size)
        repeat = WindowSumGrad(window, window, ((0, 0),) * len(window), shape)
        winner = v.apply(repeat, cast(index, v.dtype))
        numbers = _numbers(v, window, shape, v.dtype)
        return where(equal(winner, numbers), v.apply(repeat, v), 0.0)


@dataclass(frozen=True)
class PooledWeightGrad(_Pooled):
    """ConvolutionWeightGrad for a convolution whose result is max-pooled.

    ``index`` is WindowArgMax of the result, and v the gradient of the maxima.

    Shapes:  x [N, C, *S], index [N, O, *S'], v [N, O, *S'] -> dw [O, C/groups, *kernel_size]
    Dtypes:  x and v f32 or f64, index i32
    Grad:    through the expansion
    Raises:  ShapeError if the sizes do not belong together
    """

    mnemonic: ClassVar[str] = "pooled_weight_grad"

    kernel_size: Ints

    def expand(self, operands: Sequence[Value]) -> Value:
        x, index, v = operands
        brick = ConvolutionWeightGrad(
            self.stride, self.padding, self.dilation, self.groups, self.kernel_size
        )
        return x.apply(brick, x, self._image(index, v))


@dataclass(frozen=True)
class PooledInputGrad(_Pooled):
    """ConvolutionInputGrad for a convolution whose result is max-pooled.

    Shapes:  index [N, O, *S'], v [N, O, *S'], w [O, C/groups, *K] -> dx [N, C, *input_size]
    Dtypes:  index i32, v and w f32 or f64
    Grad:    through the expansion
    Raises:  ShapeError if the sizes do not belong together
    """

    mnemonic: ClassVar[str] = "pooled_input_grad"

    input_size: Ints

    def expand(self, operands: Sequence[Value]) -> Value:
        index, v, w = operands
        brick = ConvolutionInputGrad(
            self.stride, self.padding, self.dilation, self.groups, self.input_size
        )
        return v.apply(brick, self._image(index, v), w)
