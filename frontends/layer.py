"""What a layer is: a small object that is called on tensors and owns its parameters.

Parameters are made at the first call, from the input's shape, and shared by later calls. A
layer of your own subclasses ``Layer`` and writes ``forward``::

    class Scale(bc.Layer):
        kind = "scale"

        def forward(self, x):
            return x * self.parameter("weight", (x.shape[-1],), init.constant(1.0), x)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

from ..errors import BrickcError, DtypeError, ShapeError, UsageError
from ..ir.dims import Size
from ..ir.initializers import Initializer
from . import place, trace
from .place import Scope
from .trace import Tensor

__all__ = ["Init", "Layer", "Param", "channels_of", "expect_float", "expect_rank", "fixed_size",
           "per_axis", "per_channel"]  # fmt: skip


@dataclass(frozen=True)
class Param:
    """How a parameter starts, with factors for its learning rate and its weight decay."""

    init: Initializer | Callable[[int], Initializer]
    lr_scale: float = 1.0
    decay_scale: float = 1.0


#: a distribution, or a function from the number of inputs of one output (its fan-in) to one
Init = Initializer | Callable[[int], Initializer] | Param


@dataclass(eq=False, repr=False)
class Layer:
    """The base of all layers.

    ``name`` names the layer in messages and its parameters ``name.weight`` and so on. Layers
    without a name are numbered by kind when the model is put together: conv1, conv2, pool1.
    """

    #: the stem of a numbered name
    kind: ClassVar[str] = "layer"
    #: containers without a name leave no trace in the names of what they contain
    transparent: ClassVar[bool] = False

    name: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.name is not None:
            trace.checked_name(self.name)
        self._place = place.here()
        self._scope: Scope | None = None
        self._tensors: dict[str, Tensor] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output, as an expression of its inputs."""
        raise UsageError(
            f"{type(self).__name__} has no forward",
            expected="a method forward(self, x) that returns a tensor",
        )

    def __call__(self, *inputs: Any, **kwargs: Any) -> Tensor:
        if not hasattr(self, "_tensors"):
            raise UsageError(
                f"{type(self).__name__}.__init__ must call super().__init__()",
                where=str(place.here()),
            )
        if self.transparent and self.name is None:
            return self._run(*inputs, **kwargs)
        if self._scope is None:
            self._scope = Scope(self.kind, self.name, repr(self), place.current_scope())
        with place.inside(self._scope):
            return self._run(*inputs, **kwargs)

    def _run(self, *inputs: Any, **kwargs: Any) -> Tensor:
        try:
            for x in inputs:
                for each in x if isinstance(x, list | tuple) else [x]:
                    if not isinstance(each, Tensor):
                        raise UsageError(
                            f"{self!r} is called on tensors", got=type(each).__name__,
                            hint="make inputs with bc.input, fixed arrays with bc.literal",
                        )  # fmt: skip
            result = self.forward(*inputs, **kwargs)
            if not isinstance(result, Tensor):
                raise UsageError(f"{self!r} must return a tensor", got=type(result).__name__)
        except BrickcError as error:
            raise error.at(str(place.here())) from None
        return result

    def run_within(self, layer: Layer | Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """A part of this layer on ``x``; its tensors come from the line that made the part."""
        if isinstance(layer, Layer):
            with place.at(layer._place):
                return layer(x)
        if not callable(layer):
            raise UsageError(
                f"{type(self).__name__} holds layers and functions", got=repr(layer)[:80]
            )
        result = layer(x)
        if not isinstance(result, Tensor):
            raise UsageError(
                f"{getattr(layer, '__name__', layer)} must return a tensor",
                got=type(result).__name__,
            )
        return result

    def parameter(self, name: str, shape: Sequence[Size], init: Init, like: Tensor,
                  fan_in: int = 1) -> Tensor:  # fmt: skip
        """The layer's parameter of that name, made at the first call with ``like``'s dtype."""
        known = self._known(name, shape, like)
        if known is not None:
            return known
        spec = init if isinstance(init, Param) else Param(init)
        first = spec.init if isinstance(spec.init, Initializer) else spec.init(fan_in)
        made = trace.parameter(
            name, shape, first, like.dtype, spec.lr_scale, spec.decay_scale
        )  # fmt: skip
        self._tensors[name] = made
        return made

    def state(self, name: str, shape: Sequence[Size], init: Initializer, like: Tensor) -> Tensor:
        """The layer's state of that name, made at the first call with ``like``'s dtype."""
        known = self._known(name, shape, like)
        if known is not None:
            return known
        made = trace.state(name, shape, init, like.dtype)
        self._tensors[name] = made
        return made

    def _known(self, name: str, shape: Sequence[Size], like: Tensor) -> Tensor | None:
        known = self._tensors.get(name)
        if known is not None and known.type != like.type.with_shape(shape):
            raise ShapeError(
                f"the calls of {self!r} share its {name}, but this input needs another",
                got=like.type.with_shape(shape), expected=f"{known.type} ({known.origin})",
                hint="make a layer of its own for this input",
            )  # fmt: skip
        return known

    def __repr__(self) -> str:
        """The call that makes the layer, without what is left at its default."""
        parts = []
        for f in fields(self):
            if f.name.endswith("init"):
                continue  # long, and never what a message is about
            value = getattr(self, f.name)
            if f.default is MISSING and f.default_factory is MISSING:
                parts.append(repr(value))
            elif value != f.default:
                parts.append(f"{f.name}={value!r}")
        # the base's fields come first, but keywords go last
        parts.sort(key=lambda part: part.startswith("name="))
        return f"{type(self).__name__}({', '.join(parts)})"


# ── what layers ask of their inputs and arguments ────────────────────────────────────────


def expect_rank(x: Tensor, rank: int, layout: str) -> None:
    """Raise ShapeError unless x has that many axes."""
    if x.rank != rank:
        raise ShapeError(f"an input of {rank} axes is needed", got=x.type, expected=layout)


def expect_float(x: Tensor) -> None:
    """Raise DtypeError unless x holds floating-point numbers."""
    if not x.dtype.is_float:
        raise DtypeError(
            "an input of floating-point numbers is needed", got=x.type,
            hint='convert it first: x.astype("f32")',
        )  # fmt: skip


def fixed_size(x: Tensor, axis: int, what: str) -> int:
    """The size of an axis that parameters depend on. Raises ShapeError if it is a Dim."""
    size = x.shape[axis]
    if not isinstance(size, int):
        raise ShapeError(
            f"axis {axis % x.rank} holds the {what} and must have a fixed size", got=x.type
        )
    return size


def per_axis(value: int | Sequence[int], rank: int, what: str, least: int) -> tuple[int, ...]:
    """One integer for each spatial axis, from one for all or a sequence."""
    given = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(given) != rank or not all(v >= least for v in given):
        raise ShapeError(
            f"impossible {what}", got=value, expected=f"{rank} integer(s) of at least {least}"
        )
    return given


def channels_of(x: Tensor) -> int:
    """The size of axis 1. Raises ShapeError if there is none, or it is a Dim."""
    if x.rank < 2:
        raise ShapeError("an input with channels is needed", got=x.type, expected="[N, C, ...]")
    return fixed_size(x, 1, "channels")


def per_channel(layer: Layer, name: str, init: Init, x: Tensor) -> Tensor:
    """A parameter [C], shaped so that it broadcasts along axis 1 of x."""
    channels = channels_of(x)
    made = layer.parameter(name, (channels,), init, x)
    return made if x.rank == 2 else made.reshape(channels, *(1,) * (x.rank - 2))
