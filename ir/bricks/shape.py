"""Bricks that move elements: views where strides can say it, copies where they cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import DtypeError, ShapeError, UnsupportedError
from ..brick import Array, Brick, View
from ..dims import Size, evaluate, exact_div, maximum, minimum, product
from ..types import Shape, TensorType
from ..value import Value

__all__ = [
    "BroadcastTo", "Concat", "Pad", "Reshape", "Reverse", "Slice", "Transpose",
    "broadcast_to", "concat", "flatten", "pad", "range_hint", "reshape", "reverse", "slice_",
    "transpose", "upsample",
]  # fmt: skip

Strides = tuple[Size, ...]


def _concrete(shape: Sequence[Size], dims: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate(s, dims) for s in shape)


@dataclass(frozen=True)
class Reshape(View):
    """The same elements in C order under another shape.

    Shapes:  x [*S] -> y [*T], with as many elements
    Dtypes:  any
    Grad:    dx = dy reshaped
    Raises:  ShapeError if the numbers of elements differ
    """

    mnemonic: ClassVar[str] = "reshape"

    shape: tuple[Size, ...]

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        if product(self.shape) != x.size:
            raise ShapeError(
                "reshape: the number of elements changes", got=f"{list(x.shape)} to "
                f"{list(self.shape)}", expected=f"{x.size} elements",
            )  # fmt: skip
        return x.with_shape(self.shape)

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return operands[0].reshape(_concrete(self.shape, dims))

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return (reshape(cotangent, operands[0].shape),)

    def restride(
        self, operand: TensorType, result: TensorType, offset: Size, strides: Strides
    ) -> tuple[Size, Strides] | None:
        if operand.size == 0:
            return offset, (0,) * result.rank
        # runs of old axes that one stride walks through: [elements, innermost stride]
        runs: list[tuple[Size, Size]] = []
        for n, stride in zip(operand.shape, strides, strict=True):
            if n == 1:
                continue
            if runs and runs[-1][1] == stride * n:
                runs[-1] = (runs[-1][0] * n, stride)
            else:
                runs.append((n, stride))
        # Every run has to be made up of whole new axes; both are walked innermost first.
        steps: list[Size] = []
        taken: Size = 1
        for n in reversed(result.shape):
            if n == 1:
                steps.append(0)
                continue
            if not runs:
                return None
            elements, stride = runs[-1]
            steps.append(stride * taken)
            taken = taken * n
            if taken == elements:
                runs.pop()
                taken = 1
        return None if runs else (offset, tuple(reversed(steps)))


@dataclass(frozen=True)
class Transpose(View):
    """Axes in another order: axis k of y is axis permutation[k] of x.

    Shapes:  x [*S] -> y [S permuted]
    Dtypes:  any
    Grad:    dx = dy permuted back
    Raises:  ShapeError if the permutation is none
    """

    mnemonic: ClassVar[str] = "transpose"

    permutation: tuple[int, ...]

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        if sorted(self.permutation) != list(range(x.rank)):
            raise ShapeError("transpose: no permutation of the axes", got=list(self.permutation),
                             expected=f"some order of {list(range(x.rank))}")  # fmt: skip
        return x.with_shape(x.shape[p] for p in self.permutation)

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return operands[0].transpose(self.permutation)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        back = tuple(int(k) for k in np.argsort(self.permutation))
        return (transpose(cotangent, back),)

    def restride(
        self, operand: TensorType, result: TensorType, offset: Size, strides: Strides
    ) -> tuple[Size, Strides] | None:
        return offset, tuple(strides[p] for p in self.permutation)


@dataclass(frozen=True)
class BroadcastTo(View):
    """Axes of size 1 repeated, axes added in front, as NumPy broadcasts.

    Shapes:  x [*S] -> y [*T]
    Dtypes:  any
    Grad:    dx = sum of dy over the repeated axes
    Raises:  ShapeError if S does not broadcast to T
    """

    mnemonic: ClassVar[str] = "broadcast_to"

    shape: tuple[Size, ...]

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        tail = self.shape[len(self.shape) - x.rank :]
        if x.rank > len(self.shape) or any(
            n not in (1, m) for n, m in zip(x.shape, tail, strict=True)
        ):
            raise ShapeError(
                "broadcast_to: shapes do not fit",
                got=list(x.shape),
                expected=f"something that broadcasts to {list(self.shape)}",
            )
        return x.with_shape(self.shape)

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return np.broadcast_to(operands[0], _concrete(self.shape, dims))

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        from .reduce import sum_to

        return (sum_to(cotangent, operands[0].shape),)

    def restride(
        self, operand: TensorType, result: TensorType, offset: Size, strides: Strides
    ) -> tuple[Size, Strides] | None:
        lead = result.rank - operand.rank
        kept = (
            0 if n == 1 and m != 1 else s
            for n, m, s in zip(operand.shape, result.shape[lead:], strides, strict=True)
        )
        return offset, ((0,) * lead + tuple(kept))


@dataclass(frozen=True)
class Slice(View):
    """Elements start, start + step, … below stop, on every axis.

    Shapes:  x [*S] -> y: (stop - start)/step elements, rounded up, on each axis
    Dtypes:  any
    Grad:    dx = dy with zeros around and between
    Raises:  ShapeError if a bound lies outside the axis
    """

    mnemonic: ClassVar[str] = "slice"

    start: tuple[int, ...]
    stop: tuple[Size, ...]
    step: tuple[int, ...]

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        if not len(self.start) == len(self.stop) == len(self.step) == x.rank:
            raise ShapeError("slice: one bound per axis", got=len(self.start), expected=x.rank)
        shape = []
        for axis, (lo, hi, step, size) in enumerate(
            zip(self.start, self.stop, self.step, x.shape, strict=True)
        ):
            inside = 0 <= lo <= minimum(hi) and maximum(hi - size) <= 0
            if step < 1 or not inside:
                raise ShapeError(f"slice: axis {axis} is out of bounds",
                                 got=f"{lo}:{hi}:{step}", expected=f"within 0:{size}",
                                 hint=range_hint(hi, size))  # fmt: skip
            shape.append((hi - lo + step - 1) // step)
        return x.with_shape(shape)

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        stop = _concrete(self.stop, dims)
        return operands[0][
            tuple(slice(a, b, s) for a, b, s in zip(self.start, stop, self.step, strict=True))
        ]

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        gaps = tuple(s - 1 for s in self.step)
        hi = []
        for size, lo, step, count in zip(
            operands[0].shape, self.start, self.step, result.shape, strict=True
        ):
            reached = (count - 1) * step + 1 + lo if count != 0 else lo
            rest = size - reached
            if not isinstance(rest, int):
                raise UnsupportedError(
                    "slice: the gradient needs a padding that is not known at compile time",
                    got=rest, expected="a stop that is the axis' size, or an int below it",
                    hint="give this axis a fixed size",
                )  # fmt: skip
            hi.append(rest)
        return (cotangent.apply(Pad(self.start, tuple(hi), gaps, 0.0), cotangent),)

    def restride(
        self, operand: TensorType, result: TensorType, offset: Size, strides: Strides
    ) -> tuple[Size, Strides] | None:
        for lo, s in zip(self.start, strides, strict=True):
            offset = offset + s * lo
        return offset, tuple(s * k for s, k in zip(strides, self.step, strict=True))


@dataclass(frozen=True)
class Reverse(View):
    """Axes walked backwards.

    Shapes:  x [*S] -> y [*S]
    Dtypes:  any
    Grad:    dx = dy reversed
    Raises:  ShapeError if an axis does not exist
    """

    mnemonic: ClassVar[str] = "reverse"

    axes: tuple[int, ...]

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        rank = operands[0].rank
        if any(not 0 <= a < rank for a in self.axes) or len(set(self.axes)) != len(self.axes):
            raise ShapeError("reverse: not axes of the operand", got=list(self.axes),
                             expected=f"some of {list(range(rank))}, each once")  # fmt: skip
        return operands[0]

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return np.flip(operands[0], self.axes)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return (reverse(cotangent, self.axes),)

    def restride(
        self, operand: TensorType, result: TensorType, offset: Size, strides: Strides
    ) -> tuple[Size, Strides] | None:
        for a in self.axes:
            offset = offset + strides[a] * (operand.shape[a] - 1)
        return offset, tuple(s * -1 if a in self.axes else s for a, s in enumerate(strides))


def range_hint(*sizes: Size) -> str:
    """A hint, if the sizes are not known at compile time."""
    known = all(isinstance(s, int) for s in sizes)
    return "" if known else "this must hold on the whole of the dims' ranges"


@dataclass(frozen=True)
class Pad(Brick):
    """``value`` before (lo), after (hi) and between (interior) the elements of every axis.

    Shapes:  x [*S] -> y: lo + S + (S - 1)·interior + hi on each axis
    Dtypes:  any
    Grad:    dx = the slice of dy where x is
    Raises:  ShapeError for negative numbers or a wrong count of axes
    """

    mnemonic: ClassVar[str] = "pad"
    arity: ClassVar[int | None] = 1

    lo: tuple[int, ...]
    hi: tuple[int, ...]
    interior: tuple[int, ...]
    value: float

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        (x,) = operands
        if not len(self.lo) == len(self.hi) == len(self.interior) == x.rank:
            raise ShapeError("pad: one number per axis", got=len(self.lo), expected=x.rank)
        if min((*self.lo, *self.hi, *self.interior), default=0) < 0:
            raise ShapeError("pad: negative padding", got=self.attributes(),
                             expected="numbers of at least 0", hint="slice instead")  # fmt: skip
        return x.with_shape(
            n + lo + hi + ((n - 1) * gap if gap and n != 0 else 0)
            for n, lo, hi, gap in zip(x.shape, self.lo, self.hi, self.interior, strict=True)
        )

    def _inside(self, shape: Sequence[int]) -> tuple[slice, ...]:
        return tuple(
            slice(lo, lo + max(0, (n - 1) * (gap + 1) + 1), gap + 1)
            for n, lo, gap in zip(shape, self.lo, self.interior, strict=True)
        )

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        (x,) = operands
        shape = [
            n + lo + hi + max(0, n - 1) * gap
            for n, lo, hi, gap in zip(x.shape, self.lo, self.hi, self.interior, strict=True)
        ]
        y = np.full(shape, self.value, x.dtype)
        if x.size:
            y[self._inside(x.shape)] = x
        return y

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        stop = tuple(n - hi for n, hi in zip(result.shape, self.hi, strict=True))
        step = tuple(gap + 1 for gap in self.interior)
        return (cotangent.apply(Slice(self.lo, stop, step), cotangent),)


@dataclass(frozen=True)
class Concat(Brick):
    """The operands one after the other along one axis.

    Shapes:  xk [*S] -> y, with the sum of the sizes on ``axis``; the other axes are equal
    Dtypes:  one dtype
    Grad:    dxk = its slice of dy
    Raises:  ShapeError if other axes differ; DtypeError if dtypes do
    """

    mnemonic: ClassVar[str] = "concat"

    axis: int

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        if not operands:
            raise ShapeError("concat of nothing")
        first = operands[0]
        if not 0 <= self.axis < first.rank:
            raise ShapeError("concat: no such axis", got=self.axis, expected=f"an axis of {first}")
        total: Size = 0
        for x in operands:
            if x.dtype is not first.dtype:
                raise DtypeError("concat: dtypes differ", got=f"{first.dtype} and {x.dtype}",
                                 expected="one dtype", hint="cast one of them")  # fmt: skip
            rest = [n for a, n in enumerate(x.shape) if a != self.axis]
            if rest != [n for a, n in enumerate(first.shape) if a != self.axis]:
                raise ShapeError(
                    "concat: shapes differ beside the axis", got=f"{list(first.shape)} and "
                    f"{list(x.shape)}", expected=f"equal sizes except on axis {self.axis}",
                )  # fmt: skip
            total = total + x.shape[self.axis]
        return first.with_shape((*first.shape[: self.axis], total, *first.shape[self.axis + 1 :]))

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        return np.concatenate(list(operands), self.axis)

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        parts: list[Value | None] = []
        first: Size = 0
        for x in operands:
            last = first + x.shape[self.axis]
            if not isinstance(first, int):
                raise UnsupportedError(
                    "concat: the gradient needs an offset that is not known at compile time",
                    got=first, expected="an int", hint="put operands of fixed size first",
                )  # fmt: skip
            start, stop = [0] * x.rank, list(result.shape)
            start[self.axis], stop[self.axis] = first, last
            parts.append(slice_(cotangent, tuple(start), tuple(stop)))
            first = last
        return parts


def reshape(x: Value, shape: Sequence[Size]) -> Value:
    """x under another shape; one size may be -1 and is worked out."""
    wanted = tuple(shape)
    unknown = [a for a, n in enumerate(wanted) if isinstance(n, int) and n == -1]
    if len(unknown) > 1:
        raise ShapeError("reshape: two sizes are -1", got=list(wanted))
    if unknown:
        rest = product(n for a, n in enumerate(wanted) if a != unknown[0])
        size = exact_div(x.type.size, rest) if rest != 0 else None  # any size makes 0 elements
        if size is None:
            raise ShapeError("reshape: no size makes this fit", got=list(wanted),
                             expected=f"{x.type.size} elements")  # fmt: skip
        wanted = (*wanted[: unknown[0]], size, *wanted[unknown[0] + 1 :])
    return x if wanted == x.shape else x.apply(Reshape(wanted), x)


def flatten(x: Value, start_axis: int = 1) -> Value:
    """The axes from ``start_axis`` on as one."""
    return reshape(x, (*x.shape[:start_axis], product(x.shape[start_axis:])))


def transpose(x: Value, permutation: Sequence[int]) -> Value:
    return x.apply(Transpose(tuple(permutation)), x)


def broadcast_to(x: Value, shape: Shape) -> Value:
    return x if x.shape == tuple(shape) else x.apply(BroadcastTo(tuple(shape)), x)


def slice_(
    x: Value, start: Sequence[int], stop: Sequence[Size], step: Sequence[int] | None = None
) -> Value:
    """Elements start:stop:step of every axis."""
    return x.apply(Slice(tuple(start), tuple(stop), tuple(step or (1,) * x.rank)), x)


def reverse(x: Value, axes: Sequence[int]) -> Value:
    return x.apply(Reverse(tuple(axes)), x)


def pad(x: Value, lo: Sequence[int], hi: Sequence[int], value: float = 0.0) -> Value:
    return x.apply(Pad(tuple(lo), tuple(hi), (0,) * x.rank, float(value)), x)


def concat(values: Sequence[Value], axis: int) -> Value:
    if not values:
        raise ShapeError("concat of nothing")
    rank = values[0].rank
    return values[0].apply(Concat(axis + rank if -rank <= axis < 0 else axis), *values)


def upsample(x: Value, factors: Sequence[int]) -> Value:
    """Nearest neighbour: every element of the last axes repeated ``factors`` times."""
    lead = x.rank - len(factors)
    if lead < 0 or min(factors, default=1) < 1:
        raise ShapeError("upsample: factors do not fit", got=list(factors),
                         expected=f"at least 1 each, on the last axes of {x.type}")  # fmt: skip
    split: list[Size] = list(x.shape[:lead])
    wide: list[Size] = list(x.shape[:lead])
    final: list[Size] = list(x.shape[:lead])
    for size, k in zip(x.shape[lead:], factors, strict=True):
        split += [size, 1]
        wide += [size, k]
        final.append(size * k)
    return reshape(broadcast_to(reshape(x, split), tuple(wide)), final)
