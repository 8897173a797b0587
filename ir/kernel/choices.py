"""Choices: what a strategy decided for one kernel, as data that can be printed, stored, forced.

A strategy asks for each decision by name and says what it would take and what else there is
(``Picks.pick``). What it took is the kernel's ``Choice``; the same strategy with another choice
wanted gives a candidate, which computes the same in another way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Protocol, TypeVar

from ...errors import InternalError, UnsupportedError
from ..dims import Dim, DimExpr, dims_of
from .kernel import Kernel

__all__ = ["UNDECIDED", "Choice", "Made", "NoSuchChoiceError", "Options", "Picks", "Value",
           "kernel_key", "neighbours"]  # fmt: skip

Value = int | str
V = TypeVar("V", int, str)

#: name of a decision -> other values that it can take
Options = tuple[tuple[str, tuple[Value, ...]], ...]


@dataclass(frozen=True)
class Choice:
    """Decisions by name, in the order in which a strategy makes them."""

    values: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.values)

    def with_(self, name: str, value: Value) -> Choice:
        """The same with one decision more, or another one."""
        return Choice((*(v for v in self.values if v[0] != name), (name, value)))

    def as_dict(self) -> dict[str, Value]:
        return dict(self.values)


#: leaves every decision to the strategy
UNDECIDED = Choice()


class NoSuchChoiceError(UnsupportedError):
    """A strategy was told to decide what it cannot, or in a way that is wrong for the kernel."""


class Picks:
    """The decisions of one kernel while its strategy makes them.

    ``wanted`` are taken where the strategy asks for them; it decides all others itself.
    """

    def __init__(self, wanted: Choice = UNDECIDED) -> None:
        self._wanted = wanted.as_dict()
        self._taken: dict[str, Value] = {}
        self._options: dict[str, tuple[Value, ...]] = {}

    def pick(self, name: str, default: V, others: Iterable[V] = ()) -> V:
        """What is wanted under this name, else the default.

        ``others`` are the values that are right for this kernel beside the default. Raises
        NoSuchChoiceError if another one is wanted.
        """
        if name in self._taken:
            raise InternalError(f"a strategy decides {name!r} twice")
        values: tuple[Value, ...] = tuple(dict.fromkeys((default, *others)))
        value = self._wanted.pop(name, default)
        if value not in values:
            raise NoSuchChoiceError(
                f"no such choice of {name}", got=value, expected=", ".join(map(str, values))
            )
        self._taken[name] = value
        self._options[name] = tuple(v for v in values if v != value)
        return value  # type: ignore[return-value]  # one of ``values``

    def finish(self) -> tuple[Choice, Options]:
        """What was taken, and what else could have been.

        Raises NoSuchChoiceError if something was wanted that nobody asked for.
        """
        if self._wanted:
            raise NoSuchChoiceError(
                "the strategy has no such choice", got=", ".join(self._wanted),
                expected=", ".join(self._taken) or "none",
            )  # fmt: skip
        return Choice(tuple(self._taken.items())), tuple(self._options.items())


class Made(Protocol):
    """A backend's program for one kernel: what ``select`` gives."""

    @property
    def kernel(self) -> Kernel: ...

    @property
    def choice(self) -> Choice: ...

    @property
    def options(self) -> Options: ...


M = TypeVar("M", bound=Made)


def neighbours(make: Callable[[Choice], M], around: Choice = UNDECIDED) -> list[M]:
    """The kernel as ``around`` wants it, then all that differ from it in one decision.

    ``make`` carries it out with decisions that are wanted. Decisions after the one that differs
    stay, and once more are left to the strategy, where that is something else. Always in the same
    order. Raises NoSuchChoiceError if ``around`` is none.
    """
    first = make(around)
    found: dict[Choice, M] = {first.choice: first}
    taken = first.choice.values
    for place, (name, others) in enumerate(first.options):
        for value in others:
            changed = (*taken[:place], (name, value))
            for wanted in (Choice((*changed, *taken[place + 1 :])), Choice(changed)):
                try:
                    made = make(wanted)
                except NoSuchChoiceError:
                    continue  # this value and one that was decided later do not go together
                found.setdefault(made.choice, made)
    return list(found.values())


# -- keys ------------------------------------------------------------------------------------------


def kernel_key(kernel: Kernel) -> str:
    """The same for kernels that do the same on the same shapes: names and origins do not count.

    Buffers count by the order in which they appear, so that it matters whether a result lies
    over an operand. Dims count with range and typical size.
    """
    names: dict[str, str] = {}
    dims: dict[str, Dim] = {}

    def text(value: object) -> str:
        match value:
            case Enum():
                return value.name
            case Dim() | DimExpr():
                dims.update(dims_of(value))
                return repr(value)
            case bytes():
                return hashlib.sha256(value).hexdigest()
            case tuple() | list():
                return f"({', '.join(map(text, value))})"
            case Mapping():
                return f"{{{', '.join(f'{text(k)}: {text(v)}' for k, v in value.items())}}}"
        if is_dataclass(value) and not isinstance(value, type):
            parts = []
            for field in fields(value):
                item = getattr(value, field.name)
                if field.name == "buffer" and isinstance(item, str):
                    item = names.setdefault(item, f"b{len(names)}")
                parts.append(f"{field.name}={text(item)}")
            return f"{type(value).__name__}({', '.join(parts)})"
        return repr(value)

    body = text([kernel.anchor, kernel.operands, kernel.before, kernel.after, kernel.pool])
    ranges = [f"{d.name}={d.lo}:{d.hi}:{d.typical}" for _, d in sorted(dims.items())]
    return hashlib.sha256(" ".join([body, *ranges]).encode()).hexdigest()[:32]
