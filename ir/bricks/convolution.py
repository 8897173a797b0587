"""Convolution and its two adjoints; with them, differentiation is closed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import DtypeError, ShapeError, UnsupportedError
from ..brick import Array, Brick
from ..dims import Size, evaluate, exact_div, minimum
from ..dtypes import DType
from ..types import TensorType
from ..value import Value
from .contract import sums_dtype
from .convert import cast

__all__ = ["Convolution", "ConvolutionInputGrad", "ConvolutionWeightGrad", "convolution"]

Pairs = tuple[tuple[int, int], ...]
Ints = tuple[int, ...]


class _Convolution(Brick):
    """Geometry that the three bricks share; spatial axes come last, any number of them."""

    arity: ClassVar[int | None] = 2

    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int
    #: dtype of the sums and of the result, f32 for halves; None: the operands'
    sums: DType | None

    def _check(self, operands: Sequence[TensorType]) -> int:
        """The number of spatial axes."""
        rank = len(self.stride)
        where = self.mnemonic
        if not rank or not rank == len(self.padding) == len(self.dilation):
            raise ShapeError(f"{where}: one number per spatial axis", got=self.attributes(),
                             expected="stride, padding and dilation of one length, at least 1",
                             )  # fmt: skip
        if min((*self.stride, *self.dilation, self.groups)) < 1 or min(map(min, self.padding)) < 0:
            raise ShapeError(f"{where}: bad attributes", got=self.attributes(),
                             expected="stride, dilation and groups >= 1, padding >= 0",
                             )  # fmt: skip
        for x in operands:
            if x.rank != rank + 2:
                raise ShapeError(f"{where}: wrong number of axes", got=x,
                                 expected=f"{rank + 2} axes, {rank} of them spatial")  # fmt: skip
        if operands[0].dtype is not operands[1].dtype or not operands[0].dtype.is_float:
            raise DtypeError(f"{where}: operands must have one float dtype",
                             got=f"{operands[0].dtype} and {operands[1].dtype}",
                             expected="two of f32, or two of f64", hint="cast first")  # fmt: skip
        return rank

    def _output(self, size: Sequence[Size], kernel: Sequence[Size]) -> tuple[Size, ...]:
        """Spatial sizes of y. Raises ShapeError if the kernel does not fit."""
        result = []
        if not len(size) == len(kernel) == len(self.stride):
            raise ShapeError(f"{self.mnemonic}: one size per spatial axis",
                             got=f"{list(size)} and kernel {list(kernel)}",
                             expected=len(self.stride))  # fmt: skip
        for axis, (n, k, s, (lo, hi), d) in enumerate(
            zip(size, kernel, self.stride, self.padding, self.dilation, strict=True)
        ):
            reach = (k - 1) * d + 1
            padded = n + lo + hi
            if minimum(k) < 1:
                raise ShapeError(f"{self.mnemonic}: an empty kernel", got=list(kernel),
                                 expected="sizes of at least 1")  # fmt: skip
            if minimum(padded - reach) < 0:
                known = isinstance(padded, int)
                raise ShapeError(
                    f"{self.mnemonic}: the kernel is larger than the padded input on spatial "
                    f"axis {axis}", got=f"{reach} > {padded}", expected=f"at most {padded}",
                    hint="use a smaller kernel or more padding" if known
                    else "this must hold on the whole of the dims' ranges",
                )  # fmt: skip
            result.append((padded - reach) // s + 1)
        return tuple(result)

    def _channels(self, x: Size, w: TensorType) -> None:
        expected = w.shape[1] * self.groups
        if x != expected:
            hint_ = "the weights are [out, in/groups, *kernel]"
            raise ShapeError(f"{self.mnemonic}: channels do not fit", got=f"{x} input channels",
                             expected=f"{expected} ({w.shape[1]} × {self.groups} groups)",
                             hint=hint_)  # fmt: skip
        self._divide(w.shape[0], "output")

    def _divide(self, channels: Size, which: str) -> Size:
        """Channels of one group."""
        share = exact_div(channels, self.groups)
        if share is None:
            raise ShapeError(f"{self.mnemonic}: groups do not divide the {which} channels",
                             got=f"{channels} channels, {self.groups} groups",
                             expected=f"a multiple of {self.groups}")  # fmt: skip
        return share

    def _offsets(
        self, kernel: Sequence[int], count: Sequence[int]
    ) -> Iterator[tuple[Ints, tuple[slice, ...]]]:
        """For every kernel offset, the elements of the padded x that it meets."""
        for offset in itertools.product(*(range(k) for k in kernel)):
            yield (
                offset,
                tuple(
                    slice(j * d, j * d + (n - 1) * s + 1, s)
                    for j, d, s, n in zip(offset, self.dilation, self.stride, count, strict=True)
                ),
            )

    def _grouped(self, a: Array, axis: int) -> Array:
        """Split the channel axis into groups and channels of a group."""
        shape = (*a.shape[:axis], self.groups, a.shape[axis] // self.groups, *a.shape[axis + 1 :])
        return a.reshape(shape)

    def _padded(self, x: Array) -> Array:
        return np.pad(x, ((0, 0), (0, 0), *self.padding))

    def _result(self, operand: TensorType, shape: Sequence[Size]) -> TensorType:
        return TensorType.of(sums_dtype(operand, self.sums), shape)

    @property
    def _geometry(self) -> tuple[Ints, Pairs, Ints, int]:
        return self.stride, self.padding, self.dilation, self.groups


@dataclass(frozen=True)
class Convolution(_Convolution):
    """Cross-correlation, as every toolbox calls convolution.

    Shapes:  x [N, C, *S], w [O, C/groups, *K] -> y [N, O, *S'],
             S' = (S + lo + hi - dilation·(K - 1) - 1)//stride + 1
    Dtypes:  f32, f64, which accumulate in themselves; halves, in f32
    Grad:    dx by ConvolutionInputGrad, dw by ConvolutionWeightGrad
    Raises:  ShapeError if channels, groups or kernel do not fit
    """

    mnemonic: ClassVar[str] = "convolution"

    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int
    sums: DType | None = None

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        self._check(operands)
        x, w = operands
        self._channels(x.shape[1], w)
        return self._result(x, (x.shape[0], w.shape[0], *self._output(x.shape[2:], w.shape[2:])))

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        x, w = self._grouped(self._padded(operands[0]), 1), self._grouped(operands[1], 0)
        count = self._output(operands[0].shape[2:], w.shape[3:])
        n = [c for c in count if isinstance(c, int)]
        y = np.zeros((x.shape[0], self.groups, w.shape[1], *n), x.dtype)
        for offset, place in self._offsets(w.shape[3:], n):
            part = x[(slice(None), slice(None), slice(None), *place)]
            weight = w[_at(offset)]
            y += np.einsum("ngc...,goc->ngo...", part, weight, optimize=True)
        return y.reshape((y.shape[0], y.shape[1] * y.shape[2], *n))

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        x, w = operands
        cotangent = cast(cotangent, x.dtype)
        return (
            x.apply(ConvolutionInputGrad(*self._geometry, x.shape[2:]), cotangent, w),
            x.apply(ConvolutionWeightGrad(*self._geometry, _fixed(w.shape[2:])), x, cotangent),
        )


@dataclass(frozen=True)
class ConvolutionInputGrad(_Convolution):
    """The adjoint of Convolution in x; alone, a transposed convolution.

    Shapes:  dy [N, O, *S'], w [O, C/groups, *K] -> dx [N, C, *input_size]
    Dtypes:  as Convolution
    Grad:    in dy by Convolution, in w by ConvolutionWeightGrad
    Raises:  ShapeError if the sizes belong to no convolution
    """

    mnemonic: ClassVar[str] = "convolution_input_grad"

    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int
    input_size: tuple[Size, ...]
    sums: DType | None = None

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        self._check(operands)
        dy, w = operands
        if dy.shape[1] != w.shape[0]:
            raise ShapeError(f"{self.mnemonic}: channels do not fit",
                             got=f"{dy.shape[1]} output channels", expected=w.shape[0],
                             hint="the weights are [out, in/groups, *kernel]")  # fmt: skip
        self._divide(w.shape[0], "output")
        count = self._output(self.input_size, w.shape[2:])
        if count != dy.shape[2:]:
            raise ShapeError(f"{self.mnemonic}: sizes do not fit", got=list(dy.shape[2:]),
                             expected=list(count))  # fmt: skip
        return self._result(dy, (dy.shape[0], w.shape[1] * self.groups, *self.input_size))

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        dy, w = self._grouped(operands[0], 1), self._grouped(operands[1], 0)
        size = [evaluate(s, dims) for s in self.input_size]
        padded = [n + lo + hi for n, (lo, hi) in zip(size, self.padding, strict=True)]
        dx = np.zeros((dy.shape[0], self.groups, w.shape[2], *padded), dy.dtype)
        for offset, place in self._offsets(w.shape[3:], dy.shape[3:]):
            weight = w[_at(offset)]
            part = np.einsum("ngo...,goc->ngc...", dy, weight, optimize=True)
            dx[(slice(None), slice(None), slice(None), *place)] += part
        inside = tuple(slice(lo, lo + n) for n, (lo, _) in zip(size, self.padding, strict=True))
        whole = dx.reshape((dx.shape[0], dx.shape[1] * dx.shape[2], *padded))
        return whole[(slice(None), slice(None), *inside)]

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        dy, w = operands
        cotangent = cast(cotangent, dy.dtype)
        return (
            dy.apply(Convolution(*self._geometry), cotangent, w),
            dy.apply(ConvolutionWeightGrad(*self._geometry, _fixed(w.shape[2:])), cotangent, dy),
        )


@dataclass(frozen=True)
class ConvolutionWeightGrad(_Convolution):
    """The adjoint of Convolution in w.

    Shapes:  x [N, C, *S], dy [N, O, *S'] -> dw [O, C/groups, *kernel_size]
    Dtypes:  as Convolution
    Grad:    in x by ConvolutionInputGrad, in dy by Convolution
    Raises:  ShapeError if the sizes belong to no convolution
    """

    mnemonic: ClassVar[str] = "convolution_weight_grad"

    stride: Ints
    padding: Pairs
    dilation: Ints
    groups: int
    kernel_size: Ints
    sums: DType | None = None

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        self._check(operands)
        x, dy = operands
        if x.shape[0] != dy.shape[0]:
            raise ShapeError(f"{self.mnemonic}: batches differ", got=f"{x} and {dy}",
                             expected="equal sizes of axis 0")  # fmt: skip
        count = self._output(x.shape[2:], self.kernel_size)
        if count != dy.shape[2:]:
            raise ShapeError(f"{self.mnemonic}: sizes do not fit", got=list(dy.shape[2:]),
                             expected=list(count))  # fmt: skip
        channels = self._divide(x.shape[1], "input")
        self._divide(dy.shape[1], "output")
        return self._result(x, (dy.shape[1], channels, *self.kernel_size))

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        x, dy = self._grouped(self._padded(operands[0]), 1), self._grouped(operands[1], 1)
        dw = np.zeros((self.groups, dy.shape[2], x.shape[2], *self.kernel_size), x.dtype)
        flat = dy.reshape((*dy.shape[:3], int(np.prod(dy.shape[3:]))))
        for offset, place in self._offsets(self.kernel_size, dy.shape[3:]):
            part = x[(slice(None), slice(None), slice(None), *place)]
            part = part.reshape((*x.shape[:3], flat.shape[-1]))
            dw[_at(offset)] = np.einsum("ngcs,ngos->goc", part, flat, optimize=True)
        return dw.reshape((dw.shape[0] * dw.shape[1], *dw.shape[2:]))

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        x, dy = operands
        cotangent = cast(cotangent, x.dtype)
        return (
            x.apply(ConvolutionInputGrad(*self._geometry, x.shape[2:]), dy, cotangent),
            x.apply(Convolution(*self._geometry), x, cotangent),
        )


def _at(offset: Ints) -> tuple[slice | int, ...]:
    """The place of a kernel offset in weights [groups, out, in, *kernel]."""
    return (slice(None), slice(None), slice(None), *offset)


def _fixed(sizes: Sequence[Size]) -> Ints:
    fixed = []
    for size in sizes:
        if not isinstance(size, int):
            raise UnsupportedError("a kernel's size must be known at compile time", got=size,
                                   expected="an int")  # fmt: skip
        fixed.append(size)
    return tuple(fixed)


def convolution(
    x: Value,
    w: Value,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int | tuple[int, int]] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Value:
    """Convolution with numbers for all spatial axes, or one per axis."""
    rank = x.rank - 2

    def each(value: int | Sequence[int]) -> Ints:
        return (value,) * rank if isinstance(value, int) else tuple(value)

    pads = (padding,) * rank if isinstance(padding, int) else tuple(padding)
    pairs = tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in pads)
    return x.apply(Convolution(each(stride), pairs, each(dilation), groups), x, w)
