"""What a brick is: the base classes of the catalogue in ``ir/bricks``.

A brick is a frozen dataclass of its attributes. It is written against two small
interfaces only: TensorType (to infer types) and Value (to state derivatives and
expansions), so one definition serves the tracer, every pass and the interpreter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy.typing as npt

from ..errors import ShapeError, UnsupportedError
from .dims import Dim, Size
from .initializers import Initializer
from .types import TensorType
from .value import Abstract, Eager, Value

__all__ = ["Array", "Brick", "Composite", "Input", "Leaf", "ModeDependent", "Parameter", "State",
           "View"]  # fmt: skip

Array = npt.NDArray[Any]


class Brick(ABC):
    """An operation's definition: types, meaning, derivative.

    Subclasses are frozen dataclasses; equality and hash are those of their attributes.
    """

    #: name in the text form of the IR; unique in the catalogue
    mnemonic: ClassVar[str]
    #: number of operands; None if any number is allowed
    arity: ClassVar[int | None] = None

    @abstractmethod
    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        """Type of the result. Raises ShapeError or DtypeError if the operands do not fit."""

    @abstractmethod
    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        """The result, computed in the slow and obvious way: the oracle of every test.

        ``dims`` gives the sizes of named dims. The operands must not be changed.
        """

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        """Cotangents of the operands, given the result's; None where there is none.

        None means that the derivative is zero or undefined (an index, a comparison).
        A brick whose derivative exists but is missing raises UnsupportedError.
        """
        raise UnsupportedError(
            f"{self.mnemonic} has no derivative", hint="use stop_gradient before it"
        )

    def attributes(self) -> dict[str, Any]:
        """The attributes in declaration order, for printers and parsers."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


class View(Brick):
    """A brick whose result shares the operand's memory if its strides allow it.

    An array is (offset, shape, strides) over a buffer, in elements. The lowering asks
    for the result's strides; None means that these strides need a copy.
    """

    arity: ClassVar[int | None] = 1

    @abstractmethod
    def restride(
        self, operand: TensorType, result: TensorType, offset: Size, strides: tuple[Size, ...]
    ) -> tuple[Size, tuple[Size, ...]] | None:
        """Offset and strides of the result in the operand's buffer, in elements."""


class Composite(Brick):
    """A brick that is defined by its expansion into other bricks."""

    @abstractmethod
    def expand(self, operands: Sequence[Value]) -> Value:
        """The same value by other bricks."""

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        return self.expand([Abstract(t) for t in operands]).type

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        # Types of the operands with the actual sizes: expansions only look at shapes.
        result = self.expand([Eager.of(a, dims) for a in operands])
        assert isinstance(result, Eager)
        return result.array


class ModeDependent(Brick):
    """A brick that means one thing in training and another in inference.

    ``evaluate`` and ``infer_type`` are those of inference. A pass replaces every such
    brick by its meaning in one mode before anything else happens.
    """

    @abstractmethod
    def specialise(
        self, operands: Sequence[Value], training: bool
    ) -> tuple[Value, Mapping[int, Value]]:
        """The value in this mode, and new values for operands that are states.

        The mapping's keys are operand positions: ``{3: v}`` updates the state that is
        operand 3 to ``v`` when the step ends. It is empty in inference.
        """

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        return self.specialise([Abstract(t) for t in operands], training=False)[0].type

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        result, _ = self.specialise([Eager.of(a, dims) for a in operands], training=False)
        assert isinstance(result, Eager)
        return result.array


@dataclass(frozen=True)
class Leaf(Brick):
    """A named value that comes from outside the graph."""

    arity: ClassVar[int | None] = 0

    name: str
    type: TensorType

    def infer_type(self, operands: Sequence[TensorType]) -> TensorType:
        return self.type

    def evaluate(self, operands: Sequence[Array], dims: Mapping[str, int]) -> Array:
        raise ShapeError(f"{self.mnemonic} {self.name!r} was given no value")

    def vjp(
        self, operands: Sequence[Value], result: Value, cotangent: Value
    ) -> Sequence[Value | None]:
        return ()


@dataclass(frozen=True)
class Input(Leaf):
    """An input of every call: a batch of images, of labels.

    ``limit`` is set on integer inputs that index something (labels): every element must
    be in ``0 <= element < limit``; 0 means that nothing is checked.
    """

    mnemonic: ClassVar[str] = "input"

    limit: int = 0


@dataclass(frozen=True)
class Parameter(Leaf):
    """A trained tensor. Its gradient is an optimizer's business.

    ``lr_scale`` and ``decay_scale`` multiply the optimizer's learning rate and weight
    decay for this parameter (Caffe's ``lr_mult`` and ``decay_mult``).
    """

    mnemonic: ClassVar[str] = "parameter"

    init: Initializer
    lr_scale: float = 1.0
    decay_scale: float = 1.0


@dataclass(frozen=True)
class State(Leaf):
    """A tensor that a step reads and writes but no gradient trains: momenta, running
    means, random counters."""

    mnemonic: ClassVar[str] = "state"

    init: Initializer


def check_arity(brick: Brick, count: int) -> None:
    """Raise ShapeError unless the brick takes that many operands."""
    if brick.arity is not None and brick.arity != count:
        raise ShapeError(
            f"{brick.mnemonic} takes {brick.arity} operand(s)", got=count, expected=brick.arity
        )


def free_dims(operands: Sequence[TensorType]) -> dict[str, Dim]:
    """The named dims of the operands."""
    found: dict[str, Dim] = {}
    for operand in operands:
        found.update(operand.dims)
    return found
