"""Values: what bricks are applied to, whatever they are applied for.

A brick's derivative and expansion are written once against ``Value``. Behind it stands a
node of a graph (``ir/builder``), a traced tensor (``frontends/trace``), nothing but a
type (``Abstract``) or an array that is computed at once (``Eager``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from .dims import Size
from .dtypes import DType
from .types import Shape, TensorType

if TYPE_CHECKING:
    from .brick import Brick

__all__ = ["Abstract", "Eager", "Value"]


class Value(ABC):
    """Something with a type that bricks can be applied to."""

    @property
    @abstractmethod
    def type(self) -> TensorType: ...

    @abstractmethod
    def apply(self, brick: Brick, *operands: Value) -> Self:
        """A new value: the brick applied to the operands.

        ``self`` gives the place (the graph, the trace) and is an operand only if listed.
        Raises ShapeError or DtypeError if the operands do not fit.
        """

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def rank(self) -> int:
        return self.type.rank

    def size(self, axis: int) -> Size:
        return self.type.shape[axis]


class Abstract(Value):
    """A value of which only the type is known."""

    def __init__(self, type: TensorType) -> None:
        self._type = type

    @property
    def type(self) -> TensorType:
        return self._type

    def apply(self, brick: Brick, *operands: Value) -> Abstract:
        return Abstract(brick.infer_type([o.type for o in operands]))


class Eager(Value):
    """A value that is an array; bricks are evaluated at once."""

    def __init__(self, array: npt.NDArray[Any], type: TensorType, dims: Mapping[str, int]) -> None:
        self.array = array
        self._type = type
        self.dims = dims

    @staticmethod
    def of(array: npt.NDArray[Any], dims: Mapping[str, int]) -> Eager:
        array = np.asarray(array)
        return Eager(array, TensorType(DType.of(array.dtype), array.shape), dims)

    @property
    def type(self) -> TensorType:
        return self._type

    def apply(self, brick: Brick, *operands: Value) -> Eager:
        arrays = [o.array for o in operands if isinstance(o, Eager)]
        return Eager.of(brick.evaluate(arrays, self.dims), self.dims)
