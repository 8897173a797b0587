"""Typed scalar programs: what a kernel computes at one point of its index space.

Static single assignment in a flat list. Values are numbered: the inputs first, then one
per instruction. A program says nothing about where its inputs come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import InternalError
from ..dims import Size
from ..dtypes import DType

__all__ = ["ARITHMETIC", "COMPARISONS", "Instr", "Literal", "ScalarBuilder", "ScalarProgram"]

Literal = bool | int | float

#: opcode -> number of arguments; the result has the arguments' dtype
ARITHMETIC: dict[str, int] = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "neg": 1, "min": 2, "max": 2, "pow": 2,
    "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "sqrt": 1, "tanh": 1, "logistic": 1,
    "softplus": 1, "erf": 1, "abs": 1, "sign": 1, "sin": 1, "cos": 1, "floor": 1, "ceil": 1,
}  # fmt: skip

#: opcodes of two arguments whose result is bool
COMPARISONS: tuple[str, ...] = ("lt", "le", "gt", "ge", "eq", "ne")

#: the rest: const (a literal), size (a named size), select (cond, a, b), cast, and, or, not
OTHERS: dict[str, int] = {
    "const": 0, "size": 0, "select": 3, "cast": 1, "and": 2, "or": 2, "not": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instr:
    """One operation. ``literal`` belongs to const, ``size`` to size."""

    op: str
    args: tuple[int, ...]
    dtype: DType
    literal: Literal | None = None
    size: Size | None = None


@dataclass(frozen=True)
class ScalarProgram:
    """``inputs`` are dtypes; ``results`` are value numbers."""

    inputs: tuple[DType, ...]
    instrs: tuple[Instr, ...]
    results: tuple[int, ...]

    def dtype(self, value: int) -> DType:
        """The dtype of a value, by number."""
        if value < len(self.inputs):
            return self.inputs[value]
        return self.instrs[value - len(self.inputs)].dtype

    @property
    def is_identity(self) -> bool:
        """True if nothing is computed: every result is an input."""
        return not self.instrs

    def __str__(self) -> str:
        lines = []
        for k, instr in enumerate(self.instrs, start=len(self.inputs)):
            args = ", ".join(f"v{a}" for a in instr.args)
            if instr.literal is not None:
                args = repr(instr.literal)
            elif instr.size is not None:
                args = str(instr.size)
            lines.append(f"v{k}: {instr.dtype} = {instr.op}({args})")
        lines.append("-> " + ", ".join(f"v{r}" for r in self.results))
        return "\n".join(lines)


class ScalarBuilder:
    """Builds a program; equal instructions become one, constants are folded trivially."""

    def __init__(self) -> None:
        self.inputs: list[DType] = []
        self.instrs: list[Instr] = []
        self._known: dict[Instr, int] = {}
        self._sealed = False

    def input(self, dtype: DType) -> int:
        """A new input; all inputs come before the first instruction."""
        if self.instrs:
            raise InternalError("scalar program: an input after an instruction")
        self.inputs.append(dtype)
        return len(self.inputs) - 1

    def dtype(self, value: int) -> DType:
        if value < len(self.inputs):
            return self.inputs[value]
        return self.instrs[value - len(self.inputs)].dtype

    def literal(self, value: int) -> Literal | None:
        """The literal that a value is, if it is one."""
        if value < len(self.inputs):
            return None
        return self.instrs[value - len(self.inputs)].literal

    def const(self, value: Literal, dtype: DType) -> int:
        typed: Literal
        if dtype is DType.BOOL:
            typed = bool(value)
        elif dtype.is_float:
            typed = float(value)
        else:
            typed = int(value)
        return self._emit(Instr("const", (), dtype, literal=typed))

    def size(self, size: Size, dtype: DType) -> int:
        if isinstance(size, int):
            return self.const(size, dtype)
        return self._emit(Instr("size", (), dtype, size=size))

    def cast(self, value: int, dtype: DType) -> int:
        if self.dtype(value) is dtype:
            return value
        literal = self.literal(value)
        if literal is not None:
            return self.const(literal, dtype)
        return self._emit(Instr("cast", (value,), dtype))

    def select(self, condition: int, then: int, other: int) -> int:
        if then == other:
            return then
        return self._emit(Instr("select", (condition, then, other), self.dtype(then)))

    def op(self, op: str, *args: int) -> int:
        """An arithmetic, comparison or logical instruction. Raises InternalError if ill-typed."""
        dtypes = {self.dtype(a) for a in args}
        if len(dtypes) != 1:
            raise InternalError(f"scalar {op}: operands have dtypes {sorted(map(str, dtypes))}")
        (dtype,) = dtypes
        if op in COMPARISONS or op in ("and", "or", "not"):
            return self._emit(Instr(op, args, DType.BOOL))
        if ARITHMETIC.get(op) != len(args):
            raise InternalError(f"scalar {op} with {len(args)} arguments")
        simplified = self._neutral(op, args)
        if simplified is not None:
            return simplified
        return self._emit(Instr(op, args, dtype))

    def _neutral(self, op: str, args: Sequence[int]) -> int | None:
        literals = [self.literal(a) for a in args]
        if op == "mul":
            for this, other in ((0, 1), (1, 0)):
                if literals[this] == 1:
                    return args[other]
        if op == "add":
            for this, other in ((0, 1), (1, 0)):
                if literals[this] == 0:
                    return args[other]
        if op == "div" and literals[1] == 1:
            return args[0]
        return None

    def _emit(self, instr: Instr) -> int:
        found = self._known.get(instr)
        if found is None:
            found = len(self.inputs) + len(self.instrs)
            self.instrs.append(instr)
            self._known[instr] = found
        return found

    def build(self, results: Sequence[int]) -> ScalarProgram:
        """The program that computes the results; what they do not need is left out."""
        first = len(self.inputs)
        needed = set(results)
        for k in reversed(range(len(self.instrs))):
            if first + k in needed:
                needed.update(self.instrs[k].args)
        number = {k: k for k in range(first)}
        kept: list[Instr] = []
        for k, instr in enumerate(self.instrs):
            if first + k in needed:
                number[first + k] = first + len(kept)
                args = tuple(number[a] for a in instr.args)
                kept.append(Instr(instr.op, args, instr.dtype, instr.literal, instr.size))
        return ScalarProgram(tuple(self.inputs), tuple(kept), tuple(number[r] for r in results))
