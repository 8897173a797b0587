"""The type of a value: dtype and shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import ShapeError
from .dims import Dim, DimExpr, Size, dims_of, evaluate, product
from .dtypes import DType

__all__ = ["Shape", "TensorType"]

Shape = tuple[Size, ...]


@dataclass(frozen=True)
class TensorType:
    """Dtype and shape of a value; ``str`` gives the text form, ``f32[N,10]``."""

    dtype: DType
    shape: Shape = ()

    @staticmethod
    def of(dtype: DType, shape: Iterable[Size]) -> TensorType:
        """A checked type. Raises ShapeError for an axis that is no size or negative."""
        checked = tuple(shape)
        for axis, size in enumerate(checked):
            if isinstance(size, bool) or not isinstance(size, int | Dim | DimExpr):
                raise ShapeError(
                    f"axis {axis} is no size", got=repr(size), expected="an int or a Dim"
                )
            if isinstance(size, int) and not 0 <= size < 2**31:
                raise ShapeError(f"axis {axis} has an impossible size", got=size)
        return TensorType(dtype, checked)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        """Number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Size:
        """Bytes of the elements."""
        return self.size * self.dtype.itemsize

    @property
    def dims(self) -> dict[str, Dim]:
        return dims_of(*self.shape)

    def concrete(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """The shape in integers when the dims have these sizes."""
        return tuple(evaluate(s, dims) for s in self.shape)

    def with_shape(self, shape: Iterable[Size]) -> TensorType:
        return TensorType.of(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(str(s) for s in self.shape)}]"

    __repr__ = __str__
