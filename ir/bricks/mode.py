"""A choice between two values by the mode: what files with two phases need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...errors import DtypeError, ShapeError
from ..brick import ModeDependent
from ..value import Value

__all__ = ["ByMode", "by_mode"]


@dataclass(frozen=True)
class ByMode(ModeDependent):
    """y = x0 in training, x1 in inference.

    Shapes:  x0, x1 [*S] -> y [*S]
    Dtypes:  any, both the same
    Grad:    that of the operand which is taken
    Raises:  ShapeError or DtypeError if the operands differ
    Source:  Caffe's networks with other layers in phase TRAIN than in phase TEST
    """

    mnemonic: ClassVar[str] = "by_mode"
    arity: ClassVar[int | None] = 2

    def specialise(
        self, operands: Sequence[Value], training: bool
    ) -> tuple[Value, Mapping[int, Value]]:
        train, infer = operands
        if train.dtype is not infer.dtype:
            raise DtypeError("by_mode: dtypes differ", got=infer.type, expected=train.type)
        if train.shape != infer.shape:
            raise ShapeError("by_mode: shapes differ", got=infer.type, expected=train.type)
        return (train if training else infer), {}


def by_mode(train: Value, infer: Value) -> Value:
    """One value in training, another in inference; the value itself if they are one."""
    return train if train is infer else train.apply(ByMode(), train, infer)
