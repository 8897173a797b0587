"""Operators that make new tensors: filled ones, ranges, identities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks import arithmetic
from ...ir.bricks import shape as shapes
from ...ir.bricks.convert import cast
from ...ir.bricks.source import iota
from ...ir.dims import Dim, DimExpr, Size, product
from ...ir.dtypes import DType
from ...ir.types import TensorType
from ...ir.value import Value
from .. import trace
from ..trace import Tensor
from .arguments import (
    DEFAULT_FLOAT,
    Number,
    Out,
    Result,
    Scalar,
    promoted,
    scalar,
    to,
)

__all__ = ["CREATION", "iota_"]

of = trace.of
#: a size as an argument of an operator
Extent = int | Dim | DimExpr

#: elements; no constant of a program is larger
_LARGEST = 2**31 - 1


def filled(shape: Sequence[Size], value: Scalar, dtype: DType) -> Tensor:
    total = product(shape)
    if isinstance(total, int) and total > _LARGEST:
        raise ImportModelError("a constant that is too large", got=list(shape))
    return of(shapes.broadcast_to(to(value, dtype), tuple(shape)))


def full(
    out: Out, size: Sequence[Extent], fill_value: Number, *, dtype: DType | None = None,
    layout: object = None, device: object = None, pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    return filled(size, fill_value, dtype or out.dtype(promoted(fill_value)))


def filled_with(value: Number) -> Callable[..., Tensor]:
    def convert(
        out: Out, size: Sequence[Extent], *, dtype: DType | None = None, layout: object = None,
        device: object = None, pin_memory: bool | None = None,
    ) -> Tensor:  # fmt: skip
        return filled(size, value, dtype or out.dtype(DEFAULT_FLOAT))

    return convert


def full_like(
    out: Out, x: Tensor, fill_value: Number, *, dtype: DType | None = None,
    layout: object = None, device: object = None, pin_memory: bool | None = None,
    memory_format: object = None,
) -> Tensor:  # fmt: skip
    return filled(x.shape, fill_value, dtype or x.dtype)


def like_with(value: Number) -> Callable[..., Tensor]:
    def convert(
        out: Out, x: Tensor, *, dtype: DType | None = None, layout: object = None,
        device: object = None, pin_memory: bool | None = None, memory_format: object = None,
    ) -> Tensor:  # fmt: skip
        return filled(x.shape, value, dtype or x.dtype)

    return convert


def new_with(value: Number) -> Callable[..., Tensor]:
    def convert(
        out: Out, x: Tensor, size: Sequence[Extent], *, dtype: DType | None = None,
        layout: object = None, device: object = None, pin_memory: bool | None = None,
    ) -> Tensor:  # fmt: skip
        return filled(size, value, dtype or x.dtype)

    return convert


def new_full(
    out: Out, x: Tensor, size: Sequence[Extent], fill_value: Number, *,
    dtype: DType | None = None, layout: object = None, device: object = None,
    pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    return filled(size, fill_value, dtype or x.dtype)


def fill(out: Out, x: Tensor, value: Scalar) -> Tensor:
    return filled(x.shape, value, x.dtype)


def empty(
    out: Out, size: Sequence[Extent], *, dtype: DType | None = None, layout: object = None,
    device: object = None, pin_memory: bool | None = None, memory_format: object = None,
) -> Tensor:  # fmt: skip
    if product(size) != 0:
        raise UnsupportedError("memory that is not set")
    return filled(size, 0, dtype or out.dtype(DEFAULT_FLOAT))


def copy(out: Out, x: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    return of(shapes.broadcast_to(to(src, x.dtype), x.shape))


def scalar_tensor(
    out: Out, s: Number, *, dtype: DType | None = None, layout: object = None,
    device: object = None, pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    return scalar(s, dtype or out.dtype(DEFAULT_FLOAT))


def arange_step(
    out: Out, start: Number | Extent, end: Number | Extent, step: Number = 1, *,
    dtype: DType | None = None, layout: object = None, device: object = None,
    pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    whole = all(not isinstance(v, float) for v in (start, end, step))
    kind = dtype or out.dtype(DType.I64 if whole else DEFAULT_FLOAT)
    if not isinstance(end, int | float):
        if start != 0 or step != 1:
            raise UnsupportedError("an arange over a named dim with a start or step", got=end)
        return of(iota(scalar(0, kind), TensorType(kind, (end,)), 0))
    if not isinstance(start, int | float) or step == 0:
        raise UnsupportedError("such an arange", got=f"{start}, {end}, {step}")
    count = max(0, math.ceil((end - start) / step))
    if count > _LARGEST:
        raise ImportModelError("an arange that is too long", got=count)
    index = iota(scalar(0, kind), TensorType.of(kind, (count,)), 0)
    return of(_line(index, start, step, kind))


def _line(index: Value, start: Number, step: Number, kind: DType) -> Value:
    y = index if step == 1 else arithmetic.mul(index, step if kind.is_float else int(step))
    if start == 0:
        return y
    return arithmetic.add(y, start if kind.is_float else int(start))


def arange(
    out: Out, end: Number | Extent, *, dtype: DType | None = None, layout: object = None,
    device: object = None, pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    return arange_step(out, 0, end, 1, dtype=dtype)


def arange_start(
    out: Out, start: Number | Extent, end: Number | Extent, *, dtype: DType | None = None,
    layout: object = None, device: object = None, pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    return arange_step(out, start, end, 1, dtype=dtype)


def iota_(
    out: Out, length: Extent, *, start: int, step: int, dtype: DType, device: object = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    index = iota(scalar(0, dtype), TensorType.of(dtype, (length,)), 0)
    return of(_line(index, start, step, dtype))


def eye(
    out: Out, n: int, m: int | None = None, *, dtype: DType | None = None,
    layout: object = None, device: object = None, pin_memory: bool | None = None,
) -> Tensor:  # fmt: skip
    kind = TensorType.of(DType.I64, (n, n if m is None else m))
    place = scalar(0, DType.I64)
    same = arithmetic.equal(iota(place, kind, 0), iota(place, kind, 1))
    return of(cast(same, dtype or out.dtype(DEFAULT_FLOAT)))


CREATION: dict[str, Callable[..., Result]] = {
    "full.default": full, "zeros.default": filled_with(0), "ones.default": filled_with(1),
    "full_like.default": full_like, "zeros_like.default": like_with(0),
    "ones_like.default": like_with(1), "new_zeros.default": new_with(0),
    "new_ones.default": new_with(1), "new_full.default": new_full, "empty.memory_format": empty,
    "copy.default": copy, "fill.Scalar": fill, "fill.Tensor": fill,
    "scalar_tensor.default": scalar_tensor, "arange.default": arange,
    "arange.start": arange_start, "arange.start_step": arange_step,
    "eye.default": eye, "eye.m": eye,
}  # fmt: skip
