"""Bricks that keep every element: another dtype, no gradient.

``Copy``, the identity that owns its memory, is in placement.py: only legalisation needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..brick import Array, Brick
from ..dtypes import DType, round_to
from ..types import TensorType
from ..value import Value

__all__ = ["Cast", "StopGradient", "cast", "is_rounding", "is_widening", "stop_gradient"]


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
        return round_to(operands[0], self.dtype)

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


def is_rounding(brick: Brick, operand: TensorType) -> bool:
    """True for a cast from f32 to a half."""
    return isinstance(brick, Cast) and brick.dtype.is_half and operand.dtype is DType.F32


def is_widening(brick: Brick, operand: TensorType) -> bool:
    """True for a cast from a half to f32, which changes no value."""
    return isinstance(brick, Cast) and brick.dtype is DType.F32 and operand.dtype.is_half


def cast(x: Value, dtype: DType | str) -> Value:
    """x in another dtype; x itself if it has that one."""
    wanted = dtype if isinstance(dtype, DType) else DType.parse(dtype)
    return x if x.dtype is wanted else x.apply(Cast(wanted), x)


def stop_gradient(x: Value) -> Value:
    """x as a constant."""
    return x.apply(StopGradient(), x)
