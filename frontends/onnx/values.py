"""What an ONNX name stands for while a model is read.

A value is either known now (constants, and sizes of axes, which may be named dims) or a tensor
of the program that is being written down. Nodes of which everything is known are computed at
once; that folds the arithmetic on shapes, on which the form of the program depends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ImportModelError
from ...ir.brick import Array, Brick
from ...ir.dims import Dim, DimExpr, Size, maximum
from ...ir.dtypes import DType
from ...ir.types import TensorType
from ...ir.value import Eager, Value
from ..trace import Tensor

__all__ = ["Computed", "Failed", "Item", "Known", "Listed", "Stored", "TooLargeError", "computed",
           "plain_sizes", "sizes_array"]  # fmt: skip

#: elements of an array that is computed while importing
LARGEST_CONSTANT = 2**22


class TooLargeError(ImportModelError):
    """An array would be too large to be computed while importing."""


class Computed(Eager):
    """A value that is computed at once, unless it is large."""

    def apply(self, brick: Brick, *operands: Value) -> Computed:
        type = brick.infer_type([o.type for o in operands])
        if maximum(type.size) > LARGEST_CONSTANT:
            raise TooLargeError("a constant is too large to be computed while importing", got=type)
        arrays = [o.array for o in operands if isinstance(o, Eager)]
        return computed(brick.evaluate(arrays, {}))


def computed(array: Array) -> Computed:
    """The array as a value. Raises DtypeError for a dtype that brickc has not."""
    array = np.asarray(array)
    return Computed(array, TensorType(DType.of(array.dtype), array.shape), {})


@dataclass(frozen=True, eq=False)
class Known:
    """An array that is known now; of dtype object, its elements are sizes (int64 in ONNX)."""

    array: Array

    @property
    def symbolic(self) -> bool:
        return self.array.dtype == object


@dataclass(frozen=True, eq=False)
class Listed:
    """A sequence of values: it exists only while importing."""

    items: tuple[Item, ...]


@dataclass(frozen=True, eq=False)
class Failed:
    """The result of a node that is not supported; what depends on it is passed over."""


class Stored:
    """An initializer that training may change: a parameter once a node uses it as a tensor."""

    def __init__(
        self, name: str, type: TensorType, load: Callable[[], Array], trained: bool = True
    ) -> None:
        self.name = name
        self.type = type
        #: False for what the file says is no weight: a mask, a table
        self.trained = trained
        self._load = load
        self._array: Array | None = None
        #: the parameter, state or constant that was made of it
        self.leaf: Tensor | None = None

    @property
    def array(self) -> Array:
        if self._array is None:
            self._array = self._load()
        return self._array


Item = Known | Tensor | Listed | Stored | Failed | None


def sizes_array(sizes: Sequence[Size]) -> Array:
    """Sizes as an int64 array, or as one of objects if some are not known."""
    if all(isinstance(s, int) for s in sizes):
        return np.array(sizes, np.int64)
    found = np.empty(len(sizes), object)
    found[:] = list(sizes)
    return found


def plain_sizes(array: Array) -> Array:
    """An array of objects that turned out to be integers, as integers."""
    if array.dtype == object and not any(isinstance(s, Dim | DimExpr) for s in array.flat):
        return array.astype(np.int64)
    return array
