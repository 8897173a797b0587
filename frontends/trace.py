"""Tensors that remember how they were made: the Python API's expression graph.

Nothing is computed while a network is written down. Every operation makes a ``Tensor``, an
immutable node that knows its brick, its operands, its type and the line it was written on;
types are inferred at once, so a mistake is reported where it stands. ``Model`` turns the
tensors into a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt

from ..errors import BrickcError, DtypeError, ShapeError, UsageError
from ..ir.brick import Brick, Input, Parameter, State, check_arity
from ..ir.bricks import arithmetic, contract, convert, reduce, source
from ..ir.bricks import shape as shapes
from ..ir.dims import Dim, Size, product
from ..ir.dtypes import DType
from ..ir.initializers import Initializer
from ..ir.initializers import constant as constant_init
from ..ir.origin import Origin
from ..ir.types import TensorType
from ..ir.value import Value
from .place import Scope, at, current_scope, here

__all__ = ["BATCH", "RANDOM_COUNTER", "RANDOM_SEED", "Scope", "Tensor", "at", "here", "input",
           "literal", "parameter", "state"]  # fmt: skip

#: the batch size of the networks in the zoo, and a good first axis for yours
BATCH = Dim("N", 1, 1024)

#: what may stand beside a tensor in an expression
Number = bool | int | float | np.generic | npt.NDArray[Any]
P = ParamSpec("P")


class Tensor(Value):
    """A value of the network that is being written down.

    Operators and the functions in ``functional`` make new tensors; Python numbers and NumPy
    arrays among the operands become constants of the tensor's dtype. Tensors are compared by
    identity; elementwise comparisons are functions (``less``, ``equal`` …).
    """

    __slots__ = ("_brick", "_operands", "_origin", "_scope", "_type")

    #: NumPy leaves ``array + tensor`` to us
    __array_ufunc__ = None
    __iter__ = None

    def __init__(self, brick: Brick, operands: tuple[Tensor, ...], origin: Origin) -> None:
        try:
            check_arity(brick, len(operands))
            self._type = brick.infer_type([o.type for o in operands])
        except BrickcError as error:
            raise error.at(str(origin)) from None
        self._brick = brick
        self._operands = operands
        self._origin = origin
        self._scope = current_scope()

    @property
    def brick(self) -> Brick:
        return self._brick

    @property
    def operands(self) -> tuple[Tensor, ...]:
        return self._operands

    @property
    def type(self) -> TensorType:
        return self._type

    @property
    def origin(self) -> Origin:
        """The line that made it; the layer is as the user called it, before numbering."""
        return self._origin

    @property
    def scope(self) -> Scope | None:
        """The layer that made it."""
        return self._scope

    def apply(self, brick: Brick, *operands: Value) -> Tensor:
        """The brick on the operands. Errors name the user's line."""
        origin = here()
        tensors = []
        for operand in operands:
            if not isinstance(operand, Tensor):
                raise UsageError(
                    f"{brick.mnemonic}: an operand is not a tensor of this program",
                    where=str(origin), got=type(operand).__name__, expected="a Tensor",
                )  # fmt: skip
            tensors.append(operand)
        return Tensor(brick, tuple(tensors), origin)

    def __repr__(self) -> str:
        return f"<Tensor {self.type} {self.brick.mnemonic} at {self.origin}>"

    def __bool__(self) -> bool:
        raise UsageError(
            "a tensor has no truth value while the network is written down",
            where=str(here()), hint="choose between two tensors with where(condition, a, b)",
        )  # fmt: skip

    # ── operators ────────────────────────────────────────────────────────────────────────

    def __add__(self, other: Tensor | Number) -> Tensor:
        return _binary(arithmetic.Add(), self, other)

    def __radd__(self, other: Number) -> Tensor:
        return _binary(arithmetic.Add(), other, self)

    def __sub__(self, other: Tensor | Number) -> Tensor:
        return _binary(arithmetic.Sub(), self, other)

    def __rsub__(self, other: Number) -> Tensor:
        return _binary(arithmetic.Sub(), other, self)

    def __mul__(self, other: Tensor | Number) -> Tensor:
        return _binary(arithmetic.Mul(), self, other)

    def __rmul__(self, other: Number) -> Tensor:
        return _binary(arithmetic.Mul(), other, self)

    def __truediv__(self, other: Tensor | Number) -> Tensor:
        return _binary(arithmetic.Div(), self, other)

    def __rtruediv__(self, other: Number) -> Tensor:
        return _binary(arithmetic.Div(), other, self)

    def __pow__(self, other: Tensor | Number) -> Tensor:
        if isinstance(other, int | float):
            return self.apply(arithmetic.Power(float(other)), self)
        return _binary(arithmetic.Pow(), self, other)

    def __rpow__(self, other: Number) -> Tensor:
        return _binary(arithmetic.Pow(), other, self)

    def __matmul__(self, other: Tensor) -> Tensor:
        if not isinstance(other, Tensor):
            return NotImplemented
        return call(contract.matmul, self, other)

    def __neg__(self) -> Tensor:
        return self.apply(arithmetic.Neg(), self)

    def __getitem__(self, index: Any) -> Tensor:
        """NumPy's basic indexing: integers, slices with a positive step, ``...``."""
        return _index(self, index)

    # ── methods ──────────────────────────────────────────────────────────────────────────

    def reshape(self, *shape: Size) -> Tensor:
        """The same elements in another shape; one size may be -1."""
        return call(shapes.reshape, self, shape)

    def flatten(self, start: int = 1) -> Tensor:
        """The axes from ``start`` on as one."""
        start = start + self.rank if start < 0 else start
        return self.reshape(*self.shape[:start], product(self.shape[start:]))

    def transpose(self, *axes: int) -> Tensor:
        """The axes in that order; without arguments reversed."""
        order = tuple(a + self.rank if a < 0 else a for a in axes)
        return call(shapes.transpose, self, order or tuple(reversed(range(self.rank))))

    def sum(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return call(reduce.reduce_sum, self, axes_of(self, axis), keepdims)

    def mean(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return call(reduce.reduce_mean, self, axes_of(self, axis), keepdims)

    def max(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return call(reduce.reduce_max, self, axes_of(self, axis), keepdims)

    def min(self, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return call(reduce.reduce_min, self, axes_of(self, axis), keepdims)

    def astype(self, dtype: str | DType) -> Tensor:
        """The elements converted to ``dtype``."""
        return call(convert.cast, self, _dtype(dtype))


def of(value: Value) -> Tensor:
    """The tensor that a function on values made from tensors."""
    assert isinstance(value, Tensor)
    return value


def call(function: Callable[P, Value], *args: P.args, **kwargs: P.kwargs) -> Tensor:
    """The function on tensors; errors that it raises itself name the user's line, too."""
    try:
        return of(function(*args, **kwargs))
    except BrickcError as error:
        raise error.at(str(here())) from None


# ── leaves ───────────────────────────────────────────────────────────────────────────────


def input(name: str, shape: Sequence[Size], dtype: str | DType = "f32", limit: int = 0) -> Tensor:
    """A named input of the network: a batch of images, of labels.

    ``limit`` bounds integers that index something: labels of ten classes have limit 10, and
    programs check 0 <= label < 10 before they run. 0 checks nothing.
    """
    origin = here()
    return Tensor(Input(_name(name, origin), _type(shape, dtype, origin), limit), (), origin)


def parameter(
    name: str,
    shape: Sequence[Size],
    init: Initializer | None = None,
    dtype: str | DType = "f32",
    lr_scale: float = 1.0,
    decay_scale: float = 1.0,
) -> Tensor:
    """A tensor to be trained; zero at first without ``init``.

    ``lr_scale`` and ``decay_scale`` multiply the optimizer's learning rate and weight decay.
    Inside a layer's ``forward`` the name is completed to ``layer.name``.
    """
    origin = here()
    type = _fixed(name, _type(shape, dtype, origin), origin)
    first = init or constant_init(0.0)
    return Tensor(Parameter(_name(name, origin), type, first, lr_scale, decay_scale), (), origin)


def state(
    name: str,
    shape: Sequence[Size],
    init: Initializer | None = None,
    dtype: str | DType = "f32",
) -> Tensor:
    """A tensor that training steps read and write but no gradient trains.

    ``Model(updates={state: value})`` says what it becomes.
    """
    origin = here()
    type = _fixed(name, _type(shape, dtype, origin), origin)
    return Tensor(State(_name(name, origin), type, init or constant_init(0.0)), (), origin)


def literal(array: npt.ArrayLike, dtype: str | DType | None = None) -> Tensor:
    """A fixed array as part of the program: a mean image, a table."""
    data = np.asarray(array)
    kind = DType.of(data.dtype) if dtype is None else _dtype(dtype)
    data = np.ascontiguousarray(data, kind.numpy).reshape(data.shape)
    brick = source.Literal(data.tobytes(), TensorType.of(kind, data.shape))
    return Tensor(brick, (), here())


_SCALAR_I64 = TensorType(DType.I64)

#: One seed and one counter serve every dropout of a model, and every model its own pair:
#: these leaves are only names. The seed is that of the program (``init(seed)``); ``Model`` adds
#: one to the counter in each training step.
RANDOM_SEED = Tensor(
    State("random.seed", _SCALAR_I64, Initializer("seed")), (), Origin(note="random numbers")
)
RANDOM_COUNTER = Tensor(
    State("random.counter", _SCALAR_I64, constant_init(0.0)), (), Origin(note="random numbers")
)


def _name(name: object, origin: Origin) -> str:
    """Names are data: printed in IR text and comments, stored as keys of weight files."""
    fine = isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable()
    if not isinstance(name, str) or not fine or name != name.strip() or set(name) & set("\"'\\"):
        raise UsageError(
            "not a name", where=str(origin), got=repr(name)[:80],
            expected="1 to 200 printable characters without quotes and \\, no space at the ends",
        )  # fmt: skip
    return name


def checked_name(name: str) -> str:
    """The name, if it is one. Raises UsageError."""
    return _name(name, here())


def _dtype(dtype: str | DType) -> DType:
    try:
        return dtype if isinstance(dtype, DType) else DType.parse(dtype)
    except BrickcError as error:
        raise error.at(str(here())) from None


def _type(shape: Sequence[Size], dtype: str | DType, origin: Origin) -> TensorType:
    try:
        return TensorType.of(_dtype(dtype), shape)
    except BrickcError as error:
        raise error.at(str(origin)) from None


def _fixed(name: str, type: TensorType, origin: Origin) -> TensorType:
    for axis, size in enumerate(type.shape):
        if not isinstance(size, int):
            raise ShapeError(
                f"axis {axis} of {name} has no fixed size", where=str(origin), got=type,
                expected="integers: trained and kept tensors are allocated once",
            )  # fmt: skip
    return type


# ── arguments ────────────────────────────────────────────────────────────────────────────


def lift(other: object, like: Tensor) -> Tensor | None:
    """A number or array as a constant of ``like``'s dtype; None for anything else."""
    if isinstance(other, Tensor):
        return other
    if isinstance(other, np.ndarray):
        return literal(other, like.dtype)
    if isinstance(other, np.generic):
        other = other.item()
    if not isinstance(other, bool | int | float):
        return None
    if isinstance(other, float) and not like.dtype.is_float:
        raise DtypeError(
            "a fraction meets a tensor of integers", where=str(here()),
            got=f"{other}, {like.dtype}", hint='convert the tensor first: x.astype("f32")',
        )  # fmt: skip
    return of(source.constant(like, other, like.dtype))


def _binary(brick: Brick, left: object, right: object) -> Tensor:
    like = left if isinstance(left, Tensor) else right
    assert isinstance(like, Tensor)
    a, b = lift(left, like), lift(right, like)
    if a is None or b is None:
        return NotImplemented  # type: ignore[no-any-return]
    return like.apply(brick, a, b)


def axes_of(x: Tensor, axis: int | Sequence[int] | None) -> tuple[int, ...]:
    """The axes as sorted non-negative numbers; all of them for None."""
    if axis is None:
        return tuple(range(x.rank))
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    axes = sorted({a + x.rank if a < 0 else a for a in given})
    if len(axes) != len(given) or any(not 0 <= a < x.rank for a in axes):
        raise ShapeError(
            "no such axes", where=str(here()), got=list(given), expected=f"axes of {x.type}"
        )
    return tuple(axes)


def _index(x: Tensor, index: Any) -> Tensor:
    given = list(index) if isinstance(index, tuple) else [index]
    if any(not isinstance(i, int | slice | EllipsisType) for i in given) or given.count(...) > 1:
        raise UsageError(
            "a tensor is indexed by integers and slices", where=str(here()),
            got=repr(index)[:80], hint="use gather(x, indices) for anything else",
        )  # fmt: skip
    used = sum(i is not ... for i in given)
    if used > x.rank:
        raise ShapeError("too many indices", where=str(here()), got=used, expected=x.type)
    gap = given.index(...) if ... in given else len(given)
    filler = [slice(None)] * (x.rank - used)
    full = [*given[:gap], *filler, *given[gap + 1 :]]
    start: list[int] = []
    stop: list[Size] = []
    step: list[int] = []
    kept: list[int] = []
    for axis, (i, size) in enumerate(zip(full, x.shape, strict=True)):
        if isinstance(i, slice) and i == slice(None):
            bounds: tuple[int, Size, int] = (0, size, 1)
        elif not isinstance(size, int):
            raise ShapeError(
                f"axis {axis} has no fixed size to be indexed", where=str(here()), got=x.type
            )
        elif isinstance(i, slice):
            bounds = i.indices(size)
        elif -size <= i < size:
            bounds = (i % size, i % size + 1, 1)
        else:
            raise ShapeError(f"index {i} is out of axis {axis}", where=str(here()), got=x.type)
        if bounds[2] < 1:
            raise UsageError("a slice's step is positive", where=str(here()), got=bounds[2])
        start.append(bounds[0])
        stop.append(bounds[1])
        step.append(bounds[2])
        if isinstance(i, slice):
            kept.append(axis)
    cut = call(shapes.slice_, x, start, stop, step)
    return cut if len(kept) == x.rank else cut.reshape(*(cut.shape[a] for a in kept))
