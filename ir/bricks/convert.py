"""Bricks that keep every element: another dtype, no gradient.

``Copy``, the identity that owns its memory, is in placement.py: only legalisation needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..brick import Array, Brick
from ..dtypes import DType
from ..types import TensorType
from ..value import Value

__all__ = ["Cast", "StopGradient", "cast", "stop_gradient"]


@dataclass(frozen=True)
class Cast(Brick):
    """y = x in another dtype: rounded to the nearest float, cut towards zero to an integer;
    to bool, y = [x ≠ 0]. What an integer cannot hold becomes some integer.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  any -> any
    Grad:    dx = dy in x's dtype; none from or to integers and bool
    """

    mnemonic: ClassVar[str] = "cast"
    arity: ClassVar[int | None] = 1

    dtype: DType

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        return operands[0].with_dtype(self.dtype)

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        with np.errstate(all="ignore"):
            return operands[0].astype(self.dtype.numpy)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        source = operands[0].dtype
        if not (source.is_float and self.dtype.is_float):
            return (None,)
        return (cast(cotangent, source),)


@dataclass(frozen=True)
class StopGradient(Brick):
    """y = x, but a constant as far as gradients are concerned.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  any
    Grad:    none
    """

    mnemonic: ClassVar[str] = "stop_gradient"
    arity: ClassVar[int | None] = 1

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        return operands[0]

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return operands[0]

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return (None,)


def cast(x: Value, dtype: DType | str) -> Value:
    """x in another dtype; x itself if it has that one."""
    wanted = dtype if isinstance(dtype, DType) else DType.parse(dtype)
    return x if x.dtype is wanted else x.apply(Cast(wanted), x)


def stop_gradient(x: Value) -> Value:
    """x as a constant."""
    return x.apply(StopGradient(), x)
