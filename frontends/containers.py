"""Layers made of layers.

Without a name a container leaves no trace in the names of its parts: they are numbered with
the rest of the model. With ``name="encoder"`` they are called ``encoder.conv1`` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..errors import ShapeError, UsageError
from ..ir.bricks.shape import concat
from . import place, trace
from .layer import Layer
from .trace import Tensor

__all__ = ["Concat", "Parallel", "Part", "Residual", "Sequential"]

#: what a container holds: layers, and plain functions such as ``bc.tanh``
Part = Layer | Callable[[Tensor], Tensor]


@dataclass(eq=False, repr=False)
class Concat(Layer):
    """Several tensors joined along one axis: ``Concat()([a, b])``."""

    kind: ClassVar[str] = "concat"

    axis: int = 1

    def forward(self, tensors: Sequence[Tensor]) -> Tensor:
        if not tensors or isinstance(tensors, Tensor):
            raise UsageError("several tensors are joined", expected="a list of tensors")
        (axis,) = trace.axes_of(tensors[0], self.axis)
        return trace.call(concat, tensors, axis)


class _Container(Layer):
    transparent: ClassVar[bool] = True

    def __init__(self, *parts: Part, name: str | None = None) -> None:
        super().__init__(name=name)
        self.parts = parts

    def __repr__(self) -> str:
        if self.name is not None:
            return self.name
        return f"{type(self).__name__}({len(self.parts)} parts)"

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Part:
        return self.parts[index]


class Sequential(_Container):
    """One layer after the other."""

    kind: ClassVar[str] = "sequential"

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = self.run_within(part, x)
        return x


class Parallel(_Container):
    """Layers on the same input, their outputs joined along ``axis`` or added up."""

    kind: ClassVar[str] = "parallel"

    def __init__(
        self, *parts: Part, combine: str = "concat", axis: int = 1, name: str | None = None
    ) -> None:
        super().__init__(*parts, name=name)
        if combine not in ("concat", "sum"):
            raise UsageError(
                "unknown way to combine", where=str(place.here()), got=combine,
                expected="concat or sum",
            )  # fmt: skip
        if not parts:
            raise UsageError("no layers to run in parallel", where=str(place.here()))
        self.combine = combine
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        results = [self.run_within(part, x) for part in self.parts]
        if self.combine == "concat":
            (axis,) = trace.axes_of(results[0], self.axis)
            return trace.call(concat, results, axis)
        total = results[0]
        for result in results[1:]:
            total = total + _alike(result, total)
        return total


class Residual(_Container):
    """x + parts(x), or shortcut(x) + parts(x)."""

    kind: ClassVar[str] = "residual"

    def __init__(self, *parts: Part, shortcut: Part | None = None, name: str | None = None) -> None:
        super().__init__(*parts, name=name)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for part in self.parts:
            y = self.run_within(part, y)
        straight = x if self.shortcut is None else self.run_within(self.shortcut, x)
        return _alike(y, straight) + straight


def _alike(x: Tensor, other: Tensor) -> Tensor:
    """x, if it has the other's type: branches that broadcast are a mistake more often."""
    if x.type != other.type:
        raise ShapeError(
            "branches that are added have different types", got=x.type, expected=other.type
        )
    return x
