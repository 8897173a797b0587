"""Buffers, and strided accesses to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ...errors import InternalError
from ..dims import Size, product
from ..dtypes import DType

__all__ = ["Access", "Buffer", "Space", "contiguous_strides"]


class Space(Enum):
    """Where a buffer lives, and how long."""

    INPUT = "input"  #: staged copy of a call's argument, in the arena
    PARAMETER = "parameter"  #: outlives calls; trained
    STATE = "state"  #: outlives calls
    LITERAL = "literal"  #: constant data of the program
    ARENA = "arena"  #: lives within one call, at a planned offset


@dataclass(frozen=True)
class Buffer:
    """A flat piece of memory.

    ``label`` is the user's name for it (any text); ``name`` is an identifier. Leaves keep
    their logical ``shape`` and physical ``strides`` (in elements) for whoever fills them.
    """

    name: str
    dtype: DType
    size: Size
    space: Space
    label: str = ""
    shape: tuple[Size, ...] = ()
    strides: tuple[Size, ...] = ()
    data: bytes = b""

    @property
    def nbytes(self) -> Size:
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class Access:
    """Elements ``offset + Σ index·stride`` of a buffer; stride 0 repeats an element.

    ``dtype`` is that of the memory. A scalar program reads a half as f32 if its input is f32.
    """

    buffer: str
    dtype: DType
    offset: Size
    shape: tuple[Size, ...]
    strides: tuple[Size, ...]

    def permuted(self, axes: tuple[int, ...]) -> Access:
        """The same elements with the axes in another order."""
        return replace(
            self,
            shape=tuple(self.shape[a] for a in axes),
            strides=tuple(self.strides[a] for a in axes),
        )

    @property
    def nbytes(self) -> Size:
        """Bytes of the distinct elements (repeated ones count once)."""
        distinct = (n for n, s in zip(self.shape, self.strides, strict=True) if s != 0)
        return product(distinct) * self.dtype.itemsize

    @property
    def is_dense(self) -> bool:
        """True if the elements fill one piece of memory without holes, in some axis order."""
        axes = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n != 1]
        expected: Size = 1
        while axes:
            found = next((k for k, (_, s) in enumerate(axes) if s == expected), None)
            if found is None:
                return False
            expected = expected * axes.pop(found)[0]
        return True

    def __str__(self) -> str:
        return f"{self.buffer}[{self.offset} + {list(self.shape)}·{list(self.strides)}]"


def contiguous_strides(shape: tuple[Size, ...], order: tuple[int, ...]) -> tuple[Size, ...]:
    """Strides (in elements) of a dense array whose axes lie in ``order``, outermost first."""
    if sorted(order) != list(range(len(shape))):
        raise InternalError(f"{order} is no order of the axes of {list(shape)}")
    strides: list[Size] = [0] * len(shape)
    step: Size = 1
    for axis in reversed(order):
        strides[axis] = step
        if shape[axis] != 0:  # a stride of 0 would say that elements are repeated
            step = step * shape[axis]
    return tuple(strides)
