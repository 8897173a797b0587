"""Sliding windows over any axes: pooling, and the sums of local response normalization."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import DtypeError, ShapeError, UnsupportedError
from ..brick import Array, Brick
from ..dims import Size, evaluate, maximum, minimum
from ..types import Shape, TensorType
from ..value import Value
from .arithmetic import mul
from .source import literal

__all__ = ["WindowMax", "WindowMaxGather", "WindowMaxScatter", "WindowSum", "WindowSumGrad",
           "max_pool", "mean_pool", "window_max", "window_sum"]  # fmt: skip

Pairs = tuple[tuple[int, int], ...]
Ints = tuple[int, ...]


class _Window(Brick):
    """A window on every axis; 1 with stride 1 leaves an axis alone."""

    window: Ints
    stride: Ints
    padding: Pairs

    def _check(self, x: TensorType) -> None:
        if not x.rank == len(self.window) == len(self.stride) == len(self.padding):
            raise ShapeError(f"{self.mnemonic}: one window per axis", got=len(self.window),
                             expected=x.rank)  # fmt: skip
        if min((*self.window, *self.stride, 1)) < 1 or min(map(min, self.padding), default=0) < 0:
            raise ShapeError(f"{self.mnemonic}: bad attributes", got=self.attributes(),
                             expected="window and stride >= 1, padding >= 0")  # fmt: skip
        if not x.dtype.is_float:
            raise DtypeError(f"{self.mnemonic} of {x.dtype}", expected="a float dtype")

    def _output(self, shape: Sequence[Size]) -> Shape:
        if len(shape) != len(self.window):
            raise ShapeError(f"{self.mnemonic}: one size per axis", got=list(shape),
                             expected=len(self.window))  # fmt: skip
        result = []
        for axis, (n, k, s, (lo, hi)) in enumerate(
            zip(shape, self.window, self.stride, self.padding, strict=True)
        ):
            if minimum(n + lo + hi) < k and k > 1:
                known = isinstance(n, int)
                raise ShapeError(
                    f"{self.mnemonic}: the window is larger than axis {axis} with its padding",
                    got=f"{k} > {n + lo + hi}", expected=f"at most {n + lo + hi}",
                    hint="use a smaller window or more padding" if known
                    else "this must hold on the whole of the dims' ranges",
                )  # fmt: skip
            result.append((n + lo + hi - k) // s + 1)
        return tuple(result)

    def _places(self, count: Sequence[int]) -> Iterator[tuple[slice, ...]]:
        """For every offset in the window, row-major: the elements of the padded array."""
        for offset in itertools.product(*(range(k) for k in self.window)):
            yield tuple(
                slice(j, j + (n - 1) * s + 1, s)
                for j, n, s in zip(offset, count, self.stride, strict=True)
            )

    def _count(self, shape: Sequence[int]) -> Ints:
        return tuple(n for n in self._output(shape) if isinstance(n, int))

    def _inside(self, shape: Sequence[int]) -> tuple[slice, ...]:
        return tuple(slice(lo, lo + n) for n, (lo, _) in zip(shape, self.padding, strict=True))

    def _winner(self, x: Array) -> Array:
        """The position in the window of every window's first maximum, or of its first NaN."""
        places = list(self._places(self._count(x.shape)))
        padded = np.pad(x, self.padding, constant_values=-np.inf)
        inside = np.pad(np.ones(x.shape, np.bool_), self.padding)  # a pad is no maximum of -infs
        parts = np.stack([padded[p] for p in places])
        wins = (parts == parts.max(0)) | np.isnan(parts)
        return np.asarray(np.argmax(wins & np.stack([inside[p] for p in places]), 0))

    @property
    def _geometry(self) -> tuple[Ints, Ints, Pairs]:
        return self.window, self.stride, self.padding


@dataclass(frozen=True)
class WindowSum(_Window):
    """Sum over a sliding window; padding counts as zero.

    Shapes:  x [*S] -> y: (S + lo + hi - window)//stride + 1 on each axis
    Dtypes:  f32, f64
    Grad:    dx = window_sum_grad(dy)
    Raises:  ShapeError if a window does not fit
    """

    mnemonic: ClassVar[str] = "window_sum"
    arity: ClassVar[int | None] = 1

    window: Ints
    stride: Ints
    padding: Pairs

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        self._check(operands[0])
        return operands[0].with_shape(self._output(operands[0].shape))

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        (x,) = operands
        padded = np.pad(x, self.padding)
        count = self._count(x.shape)
        y = np.zeros(count, x.dtype)
        for place in self._places(count):
            y += padded[place]
        return y

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return (cotangent.apply(WindowSumGrad(*self._geometry, operands[0].shape), cotangent),)


@dataclass(frozen=True)
class WindowSumGrad(_Window):
    """The adjoint of WindowSum: every element goes to all places of its window.

    Shapes:  dy [*S'] -> dx [*input_size]
    Dtypes:  f32, f64
    Grad:    by WindowSum
    Raises:  ShapeError if the sizes do not belong together
    """

    mnemonic: ClassVar[str] = "window_sum_grad"
    arity: ClassVar[int | None] = 1

    window: Ints
    stride: Ints
    padding: Pairs
    input_size: tuple[Size, ...]

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (dy,) = operands
        self._check(dy)
        if self._output(self.input_size) != dy.shape:
            raise ShapeError(f"{self.mnemonic}: sizes do not fit", got=list(dy.shape),
                             expected=list(self._output(self.input_size)))  # fmt: skip
        return dy.with_shape(self.input_size)

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        (dy,) = operands
        size = [evaluate(n, dims) for n in self.input_size]
        padded = np.zeros([n + lo + hi for n, (lo, hi) in zip(size, self.padding, strict=True)],
                          dy.dtype)  # fmt: skip
        for place in self._places(dy.shape):
            padded[place] += dy
        return padded[self._inside(size)]

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return (cotangent.apply(WindowSum(*self._geometry), cotangent),)


@dataclass(frozen=True)
class WindowMax(_Window):
    """Maximum over a sliding window; padding never wins.

    Shapes:  x [*S] -> y: (S + lo + hi - window)//stride + 1 on each axis
    Dtypes:  f32, f64
    Grad:    dy to the maximum; at ties to the first in row-major order, as Caffe and torch
    Raises:  ShapeError if a window does not fit, or lies in the padding alone
    """

    mnemonic: ClassVar[str] = "window_max"
    arity: ClassVar[int | None] = 1

    window: Ints
    stride: Ints
    padding: Pairs

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        self._check(x)
        count = self._output(x.shape)
        for axis, (n, m, k, s, (lo, _)) in enumerate(
            zip(x.shape, count, self.window, self.stride, self.padding, strict=True)
        ):
            empty = n == 0 and m != 0
            if empty or lo >= k or maximum((m - 1) * s - lo - n) >= 0:
                raise ShapeError(
                    f"{self.mnemonic}: a window on axis {axis} sees padding alone",
                    got=f"window {k}, stride {s}, padding {self.padding[axis]}, size {n}",
                    expected="windows that reach the input",
                    hint="use less padding",
                )
        return x.with_shape(count)

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        (x,) = operands
        padded = np.pad(x, self.padding, constant_values=-np.inf)
        count = self._count(x.shape)
        y = np.full(count, -np.inf, x.dtype)
        for place in self._places(count):
            y = np.maximum(y, padded[place])
        return y

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        (x,) = operands
        return (x.apply(WindowMaxScatter(*self._geometry), x, result, cotangent),)


@dataclass(frozen=True)
class WindowMaxScatter(_Window):
    """The adjoint of WindowMaxGather: v goes to the first maximum of its window of x.

    y is WindowMax of x, given so that it need not be found again.

    Shapes:  x [*S], y [*S'], v [*S'] -> dx [*S]
    Dtypes:  f32, f64
    Grad:    in v by WindowMaxGather; none in x and y
    Raises:  ShapeError if the sizes do not belong together
    """

    mnemonic: ClassVar[str] = "window_max_scatter"
    arity: ClassVar[int | None] = 3

    window: Ints
    stride: Ints
    padding: Pairs

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        x, y, v = operands
        self._check(x)
        if y != v or x.dtype is not v.dtype or self._output(x.shape) != v.shape:
            raise ShapeError(f"{self.mnemonic}: types do not fit", got=f"{y} and {v}",
                             expected=x.with_shape(self._output(x.shape)))  # fmt: skip
        return x

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        x, _, v = operands
        winner = self._winner(x)
        padded = np.zeros([n + lo + hi for n, (lo, hi) in zip(x.shape, self.padding, strict=True)],
                          v.dtype)  # fmt: skip
        for k, place in enumerate(self._places(v.shape)):
            padded[place] += np.where(winner == k, v, 0)
        return padded[self._inside(x.shape)]

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        x, y, _ = operands
        return None, None, x.apply(WindowMaxGather(*self._geometry), x, y, cotangent)


@dataclass(frozen=True)
class WindowMaxGather(_Window):
    """v at the first maximum of every window of x; y is WindowMax of x.

    Shapes:  x [*S], y [*S'], v [*S] -> [*S']
    Dtypes:  f32, f64
    Grad:    in v by WindowMaxScatter; none in x and y
    Raises:  ShapeError if the sizes do not belong together
    """

    mnemonic: ClassVar[str] = "window_max_gather"
    arity: ClassVar[int | None] = 3

    window: Ints
    stride: Ints
    padding: Pairs

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        x, y, v = operands
        self._check(x)
        if x != v or x.dtype is not y.dtype or self._output(x.shape) != y.shape:
            raise ShapeError(f"{self.mnemonic}: types do not fit", got=f"{y} and {v}",
                             expected=f"{x.with_shape(self._output(x.shape))} and {x}")  # fmt: skip
        return y

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        x, _, v = operands
        winner = self._winner(x)
        padded = np.pad(v, self.padding)
        result = np.zeros(winner.shape, v.dtype)
        for k, place in enumerate(self._places(winner.shape)):
            result = np.where(winner == k, padded[place], result)
        return result

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        x, y, _ = operands
        return None, None, x.apply(WindowMaxScatter(*self._geometry), x, y, cotangent)


def window_sum(x: Value, window: Ints, stride: Ints, padding: Pairs) -> Value:
    return x.apply(WindowSum(window, stride, padding), x)


def window_max(x: Value, window: Ints, stride: Ints, padding: Pairs) -> Value:
    return x.apply(WindowMax(window, stride, padding), x)


@dataclass(frozen=True)
class _Pool:
    """Windows of a pooling layer on the spatial axes of [N, C, *S]."""

    window: Ints
    stride: Ints
    #: (lo, hi) with what ceil mode adds
    padding: Pairs
    #: (lo, hi) as the user gave them
    given: Pairs


Numbers = int | Sequence[int]


def _pool(
    x: Value,
    window: Numbers,
    stride: Numbers | None,
    padding: int | Sequence[int | tuple[int, int]],
    ceil_mode: bool,
) -> _Pool:
    rank = x.rank - 2
    if rank < 1:
        raise ShapeError("pooling needs axes [N, C, *S]", got=x.type)

    def each(value: Numbers) -> Ints:
        numbers = (value,) * rank if isinstance(value, int) else tuple(value)
        if len(numbers) != rank:
            raise ShapeError("pooling: one number per spatial axis", got=numbers, expected=rank)
        return numbers

    sizes = each(window)
    steps = sizes if stride is None else each(stride)
    pads = (padding,) * rank if isinstance(padding, int) else tuple(padding)
    given = tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in pads)
    if len(given) != rank or min((*sizes, *steps)) < 1 or min(map(min, given)) < 0:
        raise ShapeError("pooling: bad attributes",
                         got=f"window {sizes}, stride {steps}, padding {given}",
                         expected=f"window and stride >= 1, padding >= 0, on {rank} axes",
                         )  # fmt: skip
    final = []
    for n, k, s, (lo, hi) in zip(x.shape[2:], sizes, steps, given, strict=True):
        extra = 0
        if ceil_mode:
            if not isinstance(n, int):
                raise UnsupportedError("pooling in ceil mode needs fixed spatial sizes", got=n,
                                       expected="an int")  # fmt: skip
            count = -(-(n + lo + hi - k) // s) + 1
            # Caffe's and torch's rule: the last window starts inside the image or its left pad
            if (count - 1) * s >= n + lo:
                count -= 1
            extra = max(0, (count - 1) * s + k - (n + lo + hi))
        final.append((lo, hi + extra))
    ones = (1, 1)
    zeros = ((0, 0), (0, 0))
    return _Pool(ones + sizes, ones + steps, (*zeros, *final), (*zeros, *given))


def max_pool(
    x: Value,
    window: Numbers,
    stride: Numbers | None = None,
    padding: int | Sequence[int | tuple[int, int]] = 0,
    ceil_mode: bool = False,
) -> Value:
    """Maximum over windows of the spatial axes of [N, C, *S]; stride defaults to the window."""
    pool = _pool(x, window, stride, padding, ceil_mode)
    return window_max(x, pool.window, pool.stride, pool.padding)


def mean_pool(
    x: Value,
    window: Numbers,
    stride: Numbers | None = None,
    padding: int | Sequence[int | tuple[int, int]] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:
    """Mean over windows of the spatial axes of [N, C, *S].

    A window that ceil mode lets reach beyond image and padding divides by what lies within
    them, as Caffe and torch do; without ``count_include_pad`` by what lies in the image.
    """
    pool = _pool(x, window, stride, padding, ceil_mode)
    total = window_sum(x, pool.window, pool.stride, pool.padding)
    counts = [
        _counts(total.shape[a], x.shape[a], pool, a, count_include_pad) for a in range(2, x.rank)
    ]
    flat = [c[0] for c in counts if all(v == c[0] for v in c)]
    if len(flat) == len(counts):
        area = 1
        for n in flat:
            area *= n
        return mul(total, 1.0 / area)
    area_of = np.ones((), np.float64)
    for c in counts:
        area_of = np.multiply.outer(area_of, np.asarray(c, np.float64))
    scale = (1.0 / area_of).astype(x.dtype.numpy)
    return mul(total, literal(x, scale))


def _counts(count: Size, size: Size, pool: _Pool, axis: int, include_pad: bool) -> list[int]:
    """How many elements each window on one axis divides by; one number if all are alike."""
    k, s = pool.window[axis], pool.stride[axis]
    (lo, hi), (_, full) = pool.given[axis], pool.padding[axis]
    if full == hi and (include_pad or (lo, hi) == (0, 0)):
        return [k]
    if not isinstance(count, int) or not isinstance(size, int):
        raise UnsupportedError("mean pooling with padding needs fixed spatial sizes", got=size,
                               expected="an int", hint="count_include_pad=True")  # fmt: skip
    first, last = (-lo, size + hi) if include_pad else (0, size)
    counts = [min(o * s - lo + k, last) - max(o * s - lo, first) for o in range(count)]
    if min(counts, default=k) < 1:
        raise ShapeError(f"mean pooling: a window on axis {axis} sees padding alone",
                         got=f"window {k}, stride {s}, padding {(lo, hi)}, size {size}",
                         expected="windows that reach the input",
                         hint="use less padding")  # fmt: skip
    return counts or [k]
