"""Statements of loop programs as C text. It decides nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...errors import InternalError
from ...ir.dims import Dim, DimExpr, Size
from ...ir.dtypes import DType
from ...ir.kernel.loops import (
    Bound,
    Combine,
    Compute,
    Fill,
    Fma,
    For,
    IndexOp,
    Let,
    LetLoad,
    Load,
    Prefetch,
    Ramp,
    Reduce,
    Statement,
    Store,
    Transpose,
    When,
)

__all__ = ["RESERVED", "TYPES", "Body", "print_bound", "print_size", "word"]

#: words that a name of the program's would hide, or that C keeps for itself
_WORDS = """
auto break case char const continue default do double else enum extern float for goto if
inline int long register restrict return short signed sizeof static struct switch typedef
union unsigned void volatile while asm typeof linux unix i386 main errno stdin stdout stderr
signgam L r chunks arena memory dims inputs threads next f32 f64 i32 i64 flag least most
quotient remainder_of take thread item piece pieces pieces_of piece_start complete relax
first ramp philox pool Run Counter EOF NULL NAN INFINITY HUGE_VAL INLINE PIN ACCESS PARTS
EACH BASICS LIBM RAMP TRANSPOSE MAX_THREADS RAND_MAX INT32_MIN INT64_MIN INT64_C assert true
false bool KERNEL PHASE PHASES ALL SPLIT STAMP STAMPS APART phase UNSTAMP alone mine own
"""
RESERVED = frozenset(_WORDS.split())


def word(name: str) -> str:
    """The C identifier of a name of the program's."""
    return f"{name}_" if name in RESERVED else name


#: dtype -> name in the prelude
TYPES: dict[DType, str] = {
    DType.F32: "f32", DType.F64: "f64", DType.I32: "i32", DType.I64: "i64", DType.BOOL: "flag",
}  # fmt: skip

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_BITWISE = {"and": "&", "or": "|"}
_CALLS = {"min": "least", "max": "most", "div": "quotient", "mod": "remainder_of"}


def print_size(size: Size) -> str:
    """A polynomial as a C expression."""
    if isinstance(size, int):
        return str(size)
    if isinstance(size, Dim):
        return word(size.name)
    assert isinstance(size, DimExpr)
    text = ""
    for monomial, coefficient in size.terms:
        factors = [word(n) for n in monomial]
        if abs(coefficient) != 1 or not factors:
            factors.append(f"{abs(coefficient)}L" if factors else str(abs(coefficient)))
        sign = " - " if coefficient < 0 else " + "
        text += sign + " * ".join(factors)
    return "-" + text[3:] if text.startswith(" - ") else text[3:]


def _factor(size: Size) -> str:
    text = print_size(size)
    return f"({text})" if isinstance(size, DimExpr) else text


def print_bound(bound: Bound) -> str:
    """An integer as a C expression."""
    if not isinstance(bound, IndexOp):
        return print_size(bound)
    a, b = print_bound(bound.a), print_bound(bound.b)
    if bound.op in ("add", "sub", "mul"):
        return f"(({a}) {_INFIX[bound.op]} ({b}))"
    return f"{_CALLS[bound.op]}({a}, {b})"


def print_literal(value: bool | int | float, dtype: DType) -> str:
    """A number as a C literal of its dtype."""
    if dtype is DType.BOOL:
        return "1" if value else "0"
    if dtype.is_float:
        value = float(value)
        if math.isnan(value):
            return "NAN"
        if math.isinf(value):
            return "INFINITY" if value > 0 else "-INFINITY"
        if dtype is DType.F32 and abs(value) > 3.4028234663852886e38:
            return "INFINITY" if value > 0 else "-INFINITY"
        text = repr(value)
        return f"{text}f" if dtype is DType.F32 else text
    if dtype is DType.I64:
        return f"INT64_C({value})" if value != -(2**63) else "INT64_MIN"
    return str(value) if value != -(2**31) else "INT32_MIN"


class Body:
    """Text of statements. ``names`` gives buffers of the statements another name."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.lines: list[str] = []

    def block(self, body: Sequence[Statement], indent: str) -> None:
        for s in body:
            self.statement(s, indent)

    def statement(self, s: Statement, indent: str) -> None:
        say = self.lines.append
        match s:
            case Let():
                say(f"{indent}const long {s.name} = {print_bound(s.value)};")
            case LetLoad():
                kind = TYPES[s.dtype]
                say(f"{indent}long {s.name} = {self.buffer(s.buffer)}[{print_size(s.index)}];")
                if s.limit is None:
                    return
                say(f"{indent}if ({s.name} < 0 || {s.name} >= {print_size(s.limit)})")
                say(f"{indent}    atomic_store(&r->error, 1), {s.name} = 0; /* {kind} */")
            case Load():
                say(f"{indent}v{TYPES[s.dtype]} {s.name} = {self._load(s)};")
                if s.dtype is DType.F32 and s.stride == 1 and s.part is None:
                    say(f"{indent}PIN({s.name});")
            case Store():
                say(f"{indent}{self._store(s)};")
            case Compute():
                say(f"{indent}const v{TYPES[s.dtype]} {s.name} = {self._compute(s)};")
            case Fill():
                kind = TYPES[s.dtype]
                value = print_literal(s.literal, s.dtype)
                say(f"{indent}v{kind} {s.name} = splat_{kind}({value});")
            case Fma():
                say(f"{indent}{s.acc} += {s.a} * {s.b};")
            case Combine():
                say(f"{indent}{s.acc} = {self._combine(s)};")
            case Prefetch():
                at = self._address(s.buffer, s.index)
                say(f"{indent}__builtin_prefetch({at}, 0, 2);")
            case Ramp():
                kind = TYPES[s.dtype]
                say(f"{indent}const v{kind} {s.name} = "
                    f"ramp_{kind}({print_size(s.start)}, {print_size(s.step)});")  # fmt: skip
            case Reduce():
                kind = TYPES[s.dtype]
                say(f"{indent}const v{kind} {s.name} = "
                    f"splat_{kind}(all_{s.op}_{kind}({s.value}));")  # fmt: skip
            case Transpose():
                kind = TYPES[s.dtype]
                source = f"{self.buffer(s.source)} + {print_size(s.source_index)}"
                target = f"{self.buffer(s.target)} + {print_size(s.target_index)}"
                say(f"{indent}transpose_{kind}({source}, {print_size(s.source_stride)}, "
                    f"{target}, {print_size(s.target_stride)});")  # fmt: skip
            case For():
                step = f"{s.name} += {print_size(s.step)}" if s.step != 1 else f"{s.name}++"
                say(f"{indent}for (long {s.name} = {print_bound(s.start)}; "
                    f"{s.name} < {print_bound(s.stop)}; {step}) {{")  # fmt: skip
                self.block(s.body, indent + "    ")
                say(f"{indent}}}")
            case When():
                say(f"{indent}if ({print_bound(s.a)} < {print_bound(s.b)}) {{")
                self.block(s.body, indent + "    ")
                say(f"{indent}}}")
            case _:
                raise InternalError(f"no C for {s!r}")

    def buffer(self, name: str) -> str:
        return word(self.names.get(name, name))

    def _address(self, buffer: str, index: Size) -> str:
        name = self.buffer(buffer)
        return name if index == 0 else f"{name} + {print_size(index)}"

    def _load(self, s: Load) -> str:
        kind, at = TYPES[s.dtype], self._address(s.buffer, s.index)
        if s.stride == 0:
            return f"repeat_{kind}({at})"
        if s.part is not None:
            rest = f"{print_size(s.part)}, {print_literal(s.fill, s.dtype)}"
            if s.stride == 1:
                return f"load_part_{kind}({at}, {rest})"
            return f"gather_part_{kind}({at}, {print_size(s.stride)}, {rest})"
        if s.stride == 1:
            return f"load_{kind}({at})"
        return f"gather_{kind}({at}, {print_size(s.stride)})"

    def _store(self, s: Store) -> str:
        kind, at = TYPES[s.dtype], self._address(s.buffer, s.index)
        if s.part is not None:
            if s.stride == 1:
                return f"store_part_{kind}({at}, {s.value}, {print_size(s.part)})"
            rest = f"{s.value}, {print_size(s.part)}"
            return f"scatter_part_{kind}({at}, {print_size(s.stride)}, {rest})"
        if s.stride == 1:
            return f"store_{kind}({at}, {s.value})"
        return f"scatter_{kind}({at}, {print_size(s.stride)}, {s.value})"

    def _compute(self, s: Compute) -> str:
        kind = TYPES[s.dtype]
        match s.op:
            case "const":
                assert s.literal is not None
                return f"splat_{kind}({print_literal(s.literal, s.dtype)})"
            case "size":
                assert s.size is not None
                return f"splat_{kind}({print_size(s.size)})"
            case "neg":
                return f"-{s.args[0]}"
            case "not":
                return f"~{s.args[0]}"
            case "philox":
                index, seed, counter = s.args
                return f"philox_{kind}({index}, {s.literal}, {seed}, {counter})"
            case "cast":
                return self._cast(s)
            case _ if s.op in _BITWISE:
                return f"{s.args[0]} {_BITWISE[s.op]} {s.args[1]}"
            case _ if s.op in _INFIX:
                return f"{s.args[0]} {_INFIX[s.op]} {s.args[1]}"
        if s.op in ("lt", "le", "gt", "ge", "eq", "ne"):
            if s.source is DType.BOOL:
                return f"{s.op}_i32(-{s.args[0]}, -{s.args[1]})"
            kind = TYPES[s.source]
        return f"{s.op}_{kind}({', '.join(s.args)})"

    def _cast(self, s: Compute) -> str:
        (value,) = s.args
        if s.dtype is DType.BOOL:
            zero = f"splat_{TYPES[s.source]}(0)"
            return f"ne_{TYPES[s.source]}({value}, {zero})"
        if s.source is DType.BOOL:
            return f"__builtin_convertvector({value} & 1, v{TYPES[s.dtype]})"
        return f"__builtin_convertvector({value}, v{TYPES[s.dtype]})"

    def _combine(self, s: Combine) -> str:
        kind = TYPES[s.dtype]
        if s.op == "select":
            new = f"select_{kind}({s.mask}, {s.value}, {s.acc})"
        elif s.op in ("add", "or"):
            new = f"{s.acc} {'+' if s.op == 'add' else '|'} {s.value}"
        else:
            new = f"{s.op}_{kind}({s.value}, {s.acc})"
        if s.part is None:
            return new
        return f"select_{kind}(lanes_below({print_size(s.part)}), {new}, {s.acc})"
