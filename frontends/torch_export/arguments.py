"""What the converters share: checked arguments, axes, and torch's rules for mixed dtypes."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from ...errors import ImportModelError, UnsupportedError
from ...ir.bricks.convert import cast
from ...ir.bricks.shape import reshape
from ...ir.bricks.source import Constant
from ...ir.dims import Dim, DimExpr, Size
from ...ir.dtypes import DType
from ...ir.types import TensorType
from .. import trace
from ..trace import Tensor

__all__ = ["Number", "Out", "Result", "Scalar", "axes_of", "axis_of", "bind", "columns", "each",
           "fixed", "fixed_shape", "floats", "promote", "promoted", "scalar", "to"]  # fmt: skip

Number = bool | int | float
#: a tensor, or a number that stands for one
Scalar = Tensor | Number
Result = Any


@dataclass(frozen=True)
class Out:
    """What the program says of a call's results: their types, None where it is not known."""

    types: tuple[TensorType | None, ...]

    @property
    def type(self) -> TensorType | None:
        return self.types[0] if self.types else None

    def dtype(self, otherwise: DType) -> DType:
        """The first result's dtype."""
        return self.type.dtype if self.type is not None else otherwise


# ── binding ──────────────────────────────────────────────────────────────────────────────


@cache
def _signature(function: Callable[..., Result]) -> tuple[inspect.Signature, Mapping[str, Any]]:
    return inspect.signature(function), get_type_hints(function)


def bind(
    target: str, function: Callable[..., Result], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments by the converter's parameter names, each of the kind that it declares.

    A program may come from a file that says anything, so nothing is handed on unchecked.
    Parameters are called as in torch's schema, with ``x`` for ``self``.
    """
    signature, hints = _signature(function)
    renamed = {("x" if k == "self" else k): v for k, v in kwargs.items()}
    try:
        bound = signature.bind(None, *args, **renamed)
    except TypeError as error:
        raise UnsupportedError(f"{target} with these arguments", got=str(error)) from None
    found: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        ok, kept = _fit(hints[name], value)
        if not ok:
            raise UnsupportedError(
                f"{target} with such an argument {name!r}", got=_shown(value),
                expected=_described(hints[name]),
            )  # fmt: skip
        found[name] = kept
    return found


def _fit(hint: Any, value: Any) -> tuple[bool, Any]:
    """Whether a value is of the kind, and the value in that kind."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        for option in get_args(hint):
            ok, kept = _fit(option, value)
            if ok:
                return True, kept
        return False, value
    if origin is not None and issubclass(origin, Sequence):
        if not isinstance(value, list | tuple):
            return False, value
        (item,) = get_args(hint)
        fitted = [_fit(item, v) for v in value]
        return all(ok for ok, _ in fitted), [kept for _, kept in fitted]
    if hint is Any:
        return True, value
    if hint is type(None):
        return value is None, value
    if hint is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        good = good and abs(value) < 2**1000 if isinstance(value, int) else good
        return good, float(value) if good else value
    if hint is int:
        good = isinstance(value, int) and not isinstance(value, bool)
        return good and -(2**63) <= value < 2**63, value
    return isinstance(value, hint), value


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {value.type}"
    return repr(value)[:80]


def _described(hint: Any) -> str:
    return str(hint).replace("brickc.", "").replace("typing.", "")[:120]


# ── axes ─────────────────────────────────────────────────────────────────────────────────


def axis_of(x: Tensor | int, axis: int, extra: int = 0) -> int:
    """The axis as a number from 0. A scalar has one axis, as torch sees it."""
    rank = (x.rank if isinstance(x, Tensor) else x) + extra
    least = max(rank, 1)
    if not -least <= axis < least:
        raise ImportModelError("no such axis", got=axis, expected=f"one of {rank} axes")
    return axis % least


def axes_of(x: Tensor, axes: int | Sequence[int] | None) -> tuple[int, ...]:
    """The axes in rising order; all of them for None and an empty list."""
    if axes is None or (not isinstance(axes, int) and not axes):
        return tuple(range(x.rank))
    given = [axes] if isinstance(axes, int) else axes
    found = sorted({axis_of(x, a) for a in given})
    if len(found) != len(given):
        raise ImportModelError("an axis comes twice", got=list(given))
    return tuple(a for a in found if a < x.rank)


def fixed(size: Size, what: str = "this axis") -> int:
    """The size as an integer. Raises UnsupportedError for a named dim."""
    if not isinstance(size, int):
        raise UnsupportedError(f"{what} has no fixed size", got=size, expected="an integer")
    return size


def fixed_shape(x: Tensor) -> tuple[int, ...]:
    """The shape in integers. Raises UnsupportedError for named dims."""
    return tuple(fixed(n) for n in x.shape)


def each(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """One number per axis from one for all, or a list of one or of all of them."""
    many = [value] if isinstance(value, int) else list(value)
    if len(many) == 1:
        many *= rank
    if len(many) != rank:
        raise ImportModelError("one number per axis", got=many, expected=rank)
    return tuple(many)


def columns(v: Tensor, rank: int, axis: int = 1) -> Tensor:
    """A vector as a tensor of ``rank`` axes that broadcasts along ``axis``."""
    return trace.of(reshape(v, (*(1,) * axis, v.shape[0], *(1,) * (rank - axis - 1))))


# ── dtypes ───────────────────────────────────────────────────────────────────────────────

#: from narrow to wide within a kind
_ORDER = (DType.BOOL, DType.I32, DType.I64, DType.F16, DType.F32, DType.F64)
DEFAULT_FLOAT = DType.F32


def _kind(dtype: DType) -> int:
    return 2 if dtype.is_float else 1 if dtype.is_integer else 0


def promoted(*values: Scalar | None) -> DType:
    """The dtype that torch computes in: tensors decide, then scalars, then Python numbers.

    Something of a lower rank counts only if its kind (bool, integer, float) is higher.
    """
    levels: list[DType | None] = [None, None, None]
    for v in values:
        match v:
            case None:
                continue
            case Tensor():
                level, dtype = (0 if v.rank else 1), v.dtype
            case bool():
                level, dtype = 2, DType.BOOL
            case int():
                level, dtype = 2, DType.I64
            case _:
                level, dtype = 2, DEFAULT_FLOAT
        now = levels[level]
        levels[level] = dtype if now is None else max(now, dtype, key=_ORDER.index)
    result: DType | None = None
    for found in levels:
        if found is not None and (result is None or _kind(found) > _kind(result)):
            result = found
    return result or DEFAULT_FLOAT


def to(value: Scalar, dtype: DType, place: Tensor | None = None) -> Tensor:
    """A tensor cast to the dtype, a number as a constant of it."""
    if isinstance(value, Tensor):
        return trace.of(cast(value, dtype))
    return scalar(value, dtype)


def scalar(value: Number, dtype: DType) -> Tensor:
    """A number as a tensor without axes; integers take floats cut towards zero."""
    if dtype is DType.BOOL:
        value = bool(value)
    elif dtype.is_integer and isinstance(value, float):
        if not math.isfinite(value):
            raise UnsupportedError("a number that no integer is", got=value)
        value = int(value)
    return Tensor(Constant(value, dtype), (), trace.here())


def promote(*values: Scalar) -> list[Tensor]:
    """All values in the dtype that torch computes in."""
    dtype = promoted(*values)
    return [to(v, dtype) for v in values]


def floats(*values: Scalar) -> list[Tensor]:
    """As ``promote``, with integers and truth values in the default float dtype."""
    dtype = promoted(*values)
    return [to(v, dtype if dtype.is_float else DEFAULT_FLOAT) for v in values]


def is_size(value: object) -> bool:
    """True for an integer or an expression of named dims."""
    return isinstance(value, int | Dim | DimExpr) and not isinstance(value, bool)
