"""From a torch program to tensors: names looked up, converters called, results checked."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import BrickcError, ImportModelError, InternalError, UnsupportedError
from ...ir.brick import Parameter
from ...ir.dims import Size
from ...ir.dtypes import DType
from ...ir.initializers import constant as constant_init
from ...ir.origin import Origin
from .. import place, trace
from ..trace import Tensor
from .arguments import Out, bind, is_size
from .exported import (
    Argument,
    Array,
    Call,
    Exported,
    InputKind,
    InputSpec,
    OutputKind,
    Ref,
    Unused,
    plain,
)
from .stateful import Kept
from .table import ALIASING, IGNORED, converter

__all__ = ["Converted", "convert"]

#: most lines of an error's list
_LONGEST_LIST = 40


@dataclass
class Converted:
    """The tensors that a program's names stand for."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    updates: dict[Tensor, Tensor] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    #: torch's name -> the parameter or state of the model, for every array that has one
    leaves: dict[str, str] = field(default_factory=dict)


def convert(program: Exported) -> Converted:
    """Every call of the program as bricks.

    Raises UnsupportedError that lists all calls without a converter, each with its place;
    ImportModelError if the program contradicts itself.
    """
    return _Conversion(program).run()


class _Conversion:
    def __init__(self, program: Exported) -> None:
        self.program = program
        self.values: dict[str, Any] = {}
        self.result = Converted()
        #: (place, operator, reason)
        self.missing: list[tuple[str, str, str]] = []
        #: name -> the name whose memory it is, where an operator wrote in place
        self.cells: dict[str, str] = {}
        #: names of which there are views
        self.shared: set[str] = set()
        #: buffer -> the name in the graph; torch may write in place
        self.buffers: dict[str, str] = {}
        #: the parameters and states, whatever their names in the graph stand for by now
        self.leaves: dict[str, Tensor] = {}
        #: label inputs: name in the graph -> number of rows that they choose from
        self.limits = _limits(program)

    def run(self) -> Converted:
        for spec in self.program.inputs:
            with place.at(_origin_of(spec)):
                self._input(spec)
        seen = _needed(self.program)
        for call in self.program.calls:
            # what only moves a buffer is not what its layer returns
            origin = call.origin if seen.intersection(call.results) else _beside(call.origin)
            with place.at(origin):
                self._call(call)
        self._refuse()
        self._outputs()
        return self.result

    # ── inputs ───────────────────────────────────────────────────────────────────────────

    def _input(self, spec: InputSpec) -> None:
        if spec.name in self.values:
            raise ImportModelError("two values of one name", got=repr(spec.name)[:80])
        self.values[spec.name] = self._leaf(spec)

    def _leaf(self, spec: InputSpec) -> Any:
        if spec.kind is InputKind.FIXED:
            return spec.value
        if spec.kind is InputKind.USER:
            if spec.type is None:
                raise UnsupportedError("an input of such a type", where=self.program.name,
                                       got=spec.name)  # fmt: skip
            limit = self.limits.get(spec.name, 0)
            shape, dtype = spec.type.shape, spec.type.dtype
            with _named(spec.name):
                tensor = trace.input(spec.name, shape, dtype, limit if dtype.is_integer else 0)
            self.result.inputs[spec.name] = tensor
            return tensor
        array = self.program.arrays.get(spec.target)
        if array is None:
            raise ImportModelError(f"no values of {spec.target!r}"[:200], where=self.program.name)
        dtype = _dtype_of(array, spec.target)
        if spec.type is not None and (spec.type.dtype, spec.type.shape) != (dtype, array.shape):
            raise ImportModelError(
                f"the values of {spec.target!r} do not fit"[:200], where=self.program.name,
                got=f"{dtype}{list(array.shape)}", expected=spec.type,
            )  # fmt: skip
        if spec.kind is InputKind.CONSTANT:
            return trace.literal(array, dtype)
        name = self.program.aliases.get(spec.target, spec.target)
        if name not in self.leaves:
            make = trace.parameter if spec.kind is InputKind.PARAMETER else trace.state
            with _named(name):
                self.leaves[name] = make(name, array.shape, constant_init(0.0), dtype)
            self.result.weights[name] = array
        if spec.persistent:
            self.result.leaves[spec.target] = name
        if spec.kind is InputKind.BUFFER:
            self.buffers[spec.target] = spec.name
        return self.leaves[name]

    # ── calls ────────────────────────────────────────────────────────────────────────────

    def _call(self, call: Call) -> None:
        if call.target in IGNORED:
            return self._assign(call, None)
        try:
            args = [self._value(a) for a in call.args]
            kwargs = {k: self._value(a) for k, a in call.kwargs.items()}
            if any(_holds(v, _Gap) for v in [*args, *kwargs.values()]):
                return self._skip(call)
            if call.target in _PYTHON:
                return self._assign(call, _PYTHON[call.target](*args))
            function, in_place = converter(call.target)
            if function is None:
                return self._miss(call, "")
            if isinstance(kwargs.get("dtype"), Unused):
                # an error only if it is read: torch keeps bytes that only its backward pass reads
                return self._assign(call, kwargs["dtype"])
            _refuse_unused([*args, *kwargs.values()])
            arguments = bind(call.target, function, args, kwargs)
            value = _called(call.target, function, Out(call.types), arguments)
        except UnsupportedError as error:
            return self._miss(call, error.what + (f", got {error.got}" if error.got else ""))
        except BrickcError as error:
            if isinstance(error, InternalError):
                raise
            raise ImportModelError(
                f"{call.target}: {error.what}", where=error.where or str(place.here()),
                got=error.got, expected=error.expected, hint=error.hint,
            ) from error  # fmt: skip
        if call.target in ALIASING and isinstance(call.args[0], Ref):
            first = call.args[0].name
            self.shared.update((self.cells.get(first, first), *call.results))
        if in_place:
            self._write(call, value)
        else:
            self._assign(call, value)

    def _write(self, call: Call, value: Any) -> None:
        """The operator wrote into its first operand: from here on, that is the result."""
        target = call.args[0] if call.args else None
        if not isinstance(target, Ref) or not isinstance(value, Tensor):
            return self._miss(call, "writes in place into no tensor")
        cell = self.cells.get(target.name, target.name)
        before = self.values[cell]
        if _functional(call.target) not in ALIASING:
            if cell in self.shared:
                return self._miss(call, "writes in place into a tensor of which there are views")
            if before.type != value.type:
                return self._miss(call, "writes another type in place")
        if isinstance(before.brick, Parameter):
            return self._miss(call, "writes into a parameter")
        self._check(call, (value,))
        self.values[cell] = value
        for name in call.results:
            self._name(name, value)
            self.cells[name] = cell

    def _assign(self, call: Call, value: Any) -> None:
        if call.whole:
            self._check(call, value if isinstance(value, tuple) else (value,))
            self._name(call.results[0], value)
            return
        many = value if isinstance(value, tuple) else (value,)
        if value is None:
            many = (None,) * len(call.results)
        if len(many) < len(call.results):
            raise ImportModelError(
                f"{call.target} has fewer results", where=str(call.origin), got=len(many),
                expected=len(call.results),
            )  # fmt: skip
        self._check(call, many)
        for name, each in zip(call.results, many, strict=False):
            self._name(name, each)

    def _name(self, name: str, value: Any) -> None:
        if name in self.values:
            raise ImportModelError("two values of one name", got=repr(name)[:80])
        self.values[name] = value

    def _check(self, call: Call, values: tuple[Any, ...]) -> None:
        """What the program says of its results is what we make of them."""
        for stated, value in zip(call.types, values, strict=False):
            if stated is not None and isinstance(value, Tensor) and value.type != stated:
                raise ImportModelError(
                    f"{call.target} gives another type than the program says",
                    where=str(call.origin), got=value.type, expected=stated,
                )  # fmt: skip

    def _value(self, argument: Argument) -> Any:
        if isinstance(argument, Ref):
            name = self.cells.get(argument.name, argument.name)
            if name not in self.values:
                raise ImportModelError("no value of that name", got=repr(argument.name)[:80],
                                       where=str(place.here()))  # fmt: skip
            value = self.values[name]
            return value.state if isinstance(value, Kept) else value
        if isinstance(argument, list | tuple):
            return [self._value(a) for a in argument]
        return argument

    # ── what is missing ──────────────────────────────────────────────────────────────────

    def _miss(self, call: Call, reason: str) -> None:
        self.missing.append((str(call.origin), call.target, reason))
        self._skip(call)

    def _skip(self, call: Call) -> None:
        for name in call.results:
            self.values.setdefault(name, _Gap())

    def _refuse(self) -> None:
        if not self.missing:
            return
        lines = dict.fromkeys(
            f"{where}: {target}" + (f" ({reason})" if reason else "")
            for where, target, reason in self.missing
        )
        shown = list(lines)[:_LONGEST_LIST]
        rest = len(lines) - len(shown)
        text = "\n  ".join(shown) + (f"\n  and {rest} more" if rest else "")
        names = sorted({target for _, target, _ in self.missing})
        raise UnsupportedError(
            f"{len(self.missing)} call(s) of operators that brickc does not have:\n  {text}\n",
            where=self.program.name, got=", ".join(names)[:400],
        )  # fmt: skip

    # ── results ──────────────────────────────────────────────────────────────────────────

    def _outputs(self) -> None:
        users = [s for s in self.program.outputs if s.kind is OutputKind.USER]
        names = self._output_names(len(users))
        for name, spec in zip(names, users, strict=True):
            value = self._value(spec.value)
            if isinstance(value, Unused):
                raise UnsupportedError("an output that brickc does not compute",
                                       where=self.program.name, got=value.what)  # fmt: skip
            if isinstance(value, Tensor):
                with _named(name):
                    self.result.outputs[trace.checked_name(name)] = value
        if not self.result.outputs:
            raise ImportModelError("a program without tensors as outputs", where=self.program.name)
        for spec in self.program.outputs:
            if spec.kind is OutputKind.BUFFER and isinstance(spec.value, Ref):
                self._update(spec.target, spec.value.name)
        for buffer, name in self.buffers.items():
            self._update(buffer, name)

    def _update(self, buffer: str, name: str) -> None:
        if buffer not in self.buffers:
            raise ImportModelError(f"an update of {buffer!r}, which is no buffer"[:200])
        leaf = self.leaves[self.program.aliases.get(buffer, buffer)]
        value = self.values.get(self.cells.get(name, name))
        if isinstance(value, Kept):
            if value.state is not leaf:
                raise ImportModelError(f"{buffer!r} takes another buffer's statistics"[:200])
            return
        if not isinstance(value, Tensor):
            raise ImportModelError(f"no value for the buffer {buffer!r}"[:200])
        if value is not leaf:
            self.result.updates[leaf] = value

    def _output_names(self, count: int) -> list[str]:
        given = list(self.program.output_names)
        if len(given) == count and len(set(given)) == count:
            return given
        return ["output"] if count == 1 else [f"output{k}" for k in range(count)]


def _origin_of(spec: InputSpec) -> Origin:
    """A parameter belongs to the module that holds it."""
    layer = plain(spec.target.rpartition(".")[0])
    return Origin(layer=layer) if layer else Origin(note=spec.kind.value)


def _beside(origin: Origin) -> Origin:
    return Origin(origin.file, origin.line, note=f"update in {origin.layer}")


def _needed(program: Exported) -> set[str]:
    """Names that the user's outputs depend on."""
    needed = {r for s in program.outputs if s.kind is OutputKind.USER for r in _refs(s.value)}
    for call in reversed(program.calls):
        if needed.intersection(call.results):
            for argument in (*call.args, *call.kwargs.values()):
                needed.update(_refs(argument))
    return needed


def _refs(argument: Argument) -> list[str]:
    if isinstance(argument, Ref):
        return [argument.name]
    if isinstance(argument, list):
        return [name for each in argument for name in _refs(each)]
    return []


def _called(
    target: str, function: Callable[..., Any], out: Out, arguments: Mapping[str, Any]
) -> Any:
    """What the converter makes. A file can say anything, and arguments that are each of the right
    kind may still not go together: wherever a converter stumbles over them, they are to blame."""
    try:
        return function(out, **arguments)
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise ImportModelError(
            "arguments that do not go together", got=f"{type(error).__name__}: {error}"[:200]
        ) from error


def _functional(target: str) -> str:
    """The operator that does not write: ``aten.squeeze.dim`` for ``aten.squeeze_.dim``."""
    name, dot, overload = target.rpartition(".")
    return f"{name.removesuffix('_')}{dot}{overload}"


class _Gap:
    """Stands for the result of a call that has no converter."""


def _holds(value: Any, kind: type) -> bool:
    if isinstance(value, list):
        return any(_holds(v, kind) for v in value)
    return isinstance(value, kind)


def _refuse_unused(values: list[Any]) -> None:
    for value in values:
        if isinstance(value, list):
            _refuse_unused(value)
        if isinstance(value, Unused):
            raise UnsupportedError(f"reads {value.what}")


class _named:  # noqa: N801 - reads as a statement
    """Turns a complaint about a name into one about the file."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace_: object) -> None:
        if isinstance(error, BrickcError):
            raise ImportModelError(
                f"{self.name[:60]!r}: {error.what}", got=error.got, expected=error.expected
            ) from None


def _dtype_of(array: Array, name: str) -> DType:
    try:
        return DType.of(array.dtype)
    except BrickcError as error:
        raise UnsupportedError(f"{name[:80]!r} has a dtype that brickc has not",
                               got=error.got, expected=error.expected) from None  # fmt: skip


# ── Python's own operators on sizes ──────────────────────────────────────────────────────


def _item(value: Any, index: Any) -> Any:
    if not isinstance(value, tuple) or not isinstance(index, int):
        raise ImportModelError("an element of what has none")
    if not 0 <= index < len(value):
        raise ImportModelError("an element that is not there", got=index, expected=len(value))
    return value[index]


def _on_sizes(function: Callable[[Any, Any], Size]) -> Callable[[Any, Any], Any]:
    def apply(a: Any, b: Any) -> Any:
        if not is_size(a) or not is_size(b):
            raise UnsupportedError("arithmetic on what is no size")
        if function is operator.floordiv and not (isinstance(b, int) and b > 0):
            raise UnsupportedError("a division by a named dim")
        return function(a, b)

    return apply


def _check_of_sizes(a: Any, b: Any) -> Any:
    """Guards compare sizes; nothing but an assertion reads the result."""
    return Unused("a comparison of sizes")


_PYTHON: dict[str, Callable[..., Any]] = {
    "operator.getitem": _item,
    "operator.add": _on_sizes(operator.add),
    "operator.sub": _on_sizes(operator.sub),
    "operator.mul": _on_sizes(operator.mul),
    "operator.floordiv": _on_sizes(operator.floordiv),
    **{f"operator.{n}": _check_of_sizes for n in ("eq", "ne", "lt", "le", "gt", "ge", "and_")},
}


def _limits(program: Exported) -> dict[str, int]:
    """Inputs that index an embedding's table: every element is below its number of rows."""
    rows = {
        s.name: s.type.shape[0]
        for s in program.inputs
        if s.kind in (InputKind.PARAMETER, InputKind.BUFFER) and s.type is not None and s.type.rank
    }
    found: dict[str, int] = {}
    for call in program.calls:
        if call.target == "aten.embedding.default" and len(call.args) >= 2:
            table, index = call.args[:2]
            if isinstance(table, Ref) and isinstance(index, Ref):
                size = rows.get(table.name)
                if isinstance(size, int) and size > 0:
                    found[index.name] = min(size, found.get(index.name, size))
    return found
