"""The type of a value: dtype and shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import ShapeError
from .dims import Dim, DimExpr, Size, dims_of, evaluate, product
from .dtypes import DType

__all__ = ["Shape", "TensorType", "bind_dims"]

Shape = tuple[Size, ...]


@dataclass(frozen=True)
class TensorType:
    """Dtype and shape of a value; ``str`` gives the text form, ``f32[N,10]``."""

    dtype: DType
    shape: Shape = ()

    @staticmethod
    def of(dtype: DType, shape: Iterable[Size]) -> TensorType:
        """A checked type. Raises ShapeError for an axis that is no size or negative."""
        checked = tuple(shape)
        for axis, size in enumerate(checked):
            if isinstance(size, bool) or not isinstance(size, int | Dim | DimExpr):
                raise ShapeError(
                    f"axis {axis} is no size", got=repr(size), expected="an int or a Dim"
                )
            if isinstance(size, int) and not 0 <= size < 2**31:
                raise ShapeError(f"axis {axis} has an impossible size", got=size)
        return TensorType(dtype, checked)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        """Number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Size:
        """Bytes of the elements."""
        return self.size * self.dtype.itemsize

    @property
    def dims(self) -> dict[str, Dim]:
        return dims_of(*self.shape)

    def concrete(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """The shape in integers when the dims have these sizes."""
        return tuple(evaluate(s, dims) for s in self.shape)

    def with_shape(self, shape: Iterable[Size]) -> TensorType:
        return TensorType.of(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(str(s) for s in self.shape)}]"

    __repr__ = __str__


def bind_dims(
    types: Mapping[str, TensorType], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """The sizes of the named dims, read off the shapes of what is called with; sorted by name.

    Every shape must fit its type, a dim must be in its range and the same everywhere. An
    axis such as ``2*N`` fixes N where nothing else does.

    Raises ShapeError that names the array and the axis.
    """
    found: dict[str, int] = {}
    source: dict[str, str] = {}
    later: list[tuple[str, int, Size, int]] = []
    for name, type in types.items():
        shape = tuple(shapes[name])
        if len(shape) != type.rank:
            raise ShapeError(f"{name!r} has {len(shape)} axes", got=list(shape), expected=str(type))
        for axis, (size, got) in enumerate(zip(type.shape, shape, strict=True)):
            if not isinstance(size, Dim):
                later.append((name, axis, size, got))
                continue
            size.check(got, f"{name!r}, axis {axis}")
            if found.setdefault(size.name, got) != got:
                raise ShapeError(
                    f"dim {size.name} has two sizes", where=f"{name!r}, axis {axis}", got=got,
                    expected=f"{found[size.name]}, as in {source[size.name]}",
                )  # fmt: skip
            source.setdefault(size.name, f"{name!r}, axis {axis}")
    for name, axis, size, got in later:
        _solve(size, got, found, f"{name!r}, axis {axis}")
        if evaluate(size, found) != got:
            raise ShapeError(
                f"{name!r} does not fit its type", where=f"axis {axis}", got=got,
                expected=size if isinstance(size, int) else f"{size} = {evaluate(size, found)}",
            )  # fmt: skip
    return dict(sorted(found.items()))


def _solve(size: Size, got: int, found: dict[str, int], where: str) -> None:
    """Find the one unknown dim of a size, if there is one; the caller checks the result."""
    unknown = [d for name, d in dims_of(size).items() if name not in found]
    if not unknown:
        return
    (dim, *others) = unknown
    try:
        offset = evaluate(size, found | {dim.name: 0})
        slope = evaluate(size, found | {dim.name: 1}) - offset
    except ShapeError:
        offset, slope = 0, 0
    quotient, rest = divmod(got - offset, slope) if slope else (0, 1)
    if others or rest:
        raise ShapeError(
            "the sizes of the dims cannot be read off", where=where, got=got, expected=f"{size}"
        )
    dim.check(quotient, where)
    found[dim.name] = quotient
