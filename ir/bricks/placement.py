"""Identities that say where a value should lie: inserted by legalisation, never by users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...errors import ShapeError
from ..brick import Array, Brick, View
from ..dims import Size
from ..types import TensorType
from ..value import Value

__all__ = ["Copy", "Prefer"]


def _check(order: tuple[int, ...] | None, rank: int, mnemonic: str) -> None:
    if order is not None and sorted(order) != list(range(rank)):
        raise ShapeError(
            f"{mnemonic}: the order is no permutation of the axes", got=order,
            expected=f"some order of {list(range(rank))}",
        )  # fmt: skip


@dataclass(frozen=True)
class Copy(Brick):
    """y = x, in memory of its own, with the axes in a given order (outermost first).

    Shapes:  x [*S] -> y [*S]
    Dtypes:  any
    Grad:    dx = dy
    Raises:  ShapeError if the order is no permutation of the axes
    """

    mnemonic: ClassVar[str] = "copy"
    arity: ClassVar[int | None] = 1

    order: tuple[int, ...] | None

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        _check(self.order, operands[0].rank, self.mnemonic)
        return operands[0]

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return operands[0].copy()

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return (cotangent,)


@dataclass(frozen=True)
class Prefer(View):
    """y = x; the reader would like x's axes in this order. A wish, no obligation, no cost.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  any
    Grad:    dx = dy
    Raises:  ShapeError if the order is no permutation of the axes
    """

    mnemonic: ClassVar[str] = "prefer"

    order: tuple[int, ...]

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        _check(self.order, operands[0].rank, self.mnemonic)
        return operands[0]

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return operands[0]

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return (cotangent,)

    def restride(
        self, operand: TensorType, result: TensorType, offset: Size, strides: tuple[Size, ...]
    ) -> tuple[Size, tuple[Size, ...]] | None:
        return offset, strides
