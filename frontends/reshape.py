"""``--shape`` and ``--range``: a model at other batch sizes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import ShapeError, UsageError
from ..ir.dims import Dim, Size
from ..ir.substitute import substitute
from .model import Model

__all__ = ["parse_shape", "with_shapes"]

_RANGE = re.compile(r"([A-Za-z][A-Za-z0-9_]*)=(\d+):(\d+)\Z")


def with_shapes(model: Model, shapes: Sequence[str], ranges: Sequence[str]) -> Model:
    """The model with named dims fixed, renamed or given other ranges.

    ``shapes`` are texts like ``x=N,1,32,32``, ``ranges`` like ``N=1:1024``. An axis that the
    model fixes cannot change: its parameters depend on it.
    Raises UsageError for bad text, ShapeError where a shape does not fit.
    """
    wanted_ranges = dict(_range(text) for text in ranges)
    sizes: dict[str, Size] = {}
    known: dict[str, Dim] = {}
    for type in model.inputs.values():
        known.update(type.dims)
    for text in shapes:
        name, axes = _shape(text)
        if name not in model.inputs:
            raise UsageError("no such input", got=name, expected=", ".join(model.inputs))
        declared = model.inputs[name].shape
        if len(axes) != len(declared):
            raise ShapeError(
                f"--shape {name} has the wrong number of axes", got=text, expected=list(declared)
            )
        for axis, old in zip(axes, declared, strict=True):
            _match(name, axis, old, sizes, wanted_ranges, known)
    for dim, (lo, hi) in wanted_ranges.items():
        if dim in known and dim not in sizes:
            sizes[dim] = Dim(dim, lo, hi)
        elif dim not in known and not any(
            isinstance(s, Dim) and s.name == dim for s in sizes.values()
        ):
            raise UsageError("--range of an unknown dim", got=dim, expected=", ".join(known))
    return model.rebuilt(substitute(model.graph(), sizes))


def _match(
    name: str,
    axis: str,
    old: Size,
    sizes: dict[str, Size],
    ranges: dict[str, tuple[int, int]],
    known: dict[str, Dim],
) -> None:
    """Learn what one axis says about a dim."""
    if not isinstance(old, Dim):
        if axis != str(old):
            raise ShapeError(
                f"--shape {name}: this axis is fixed by the model", got=axis, expected=old
            )
        return
    if axis.isdigit():
        new: Size = int(axis)
    else:
        lo, hi = ranges.get(axis, (old.lo, old.hi))
        new = Dim(axis, lo, hi)
    if sizes.setdefault(old.name, new) != new:
        raise ShapeError(
            f"--shape {name}: dim {old.name} has two sizes", got=f"{sizes[old.name]} and {new}"
        )


def _range(text: str) -> tuple[str, tuple[int, int]]:
    found = _RANGE.match(text)
    if not found:
        raise UsageError("not a range", got=text, expected="DIM=LO:HI, e.g. N=1:1024")
    lo, hi = int(found[2]), int(found[3])
    Dim(found[1], lo, hi)  # checks the range
    return found[1], (lo, hi)


def parse_shape(text: str) -> tuple[str, list[int | str]]:
    """``x=N,1,32,32`` as a name and its sizes. Raises UsageError for anything else."""
    name, axes = _shape(text)
    return name, [int(a) if a.isdigit() else a for a in axes]


def _shape(text: str) -> tuple[str, list[str]]:
    name, equals, axes = text.partition("=")
    parts = [a.strip() for a in axes.split(",")] if axes else []
    if not equals or not all(re.match(r"(\d+|[A-Za-z][A-Za-z0-9_]*)\Z", p) for p in parts):
        raise UsageError("not a shape", got=text, expected="NAME=SIZE,…, e.g. x=N,1,32,32")
    return name, parts
