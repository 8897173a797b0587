"""Loop programs as C text. It decides nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ...errors import InternalError
from ...ir.dims import Dim, DimExpr, Size
from ...ir.dtypes import DType
from ...ir.kernel.kernel import KernelProgram
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
    LoopKernel,
    Parallel,
    Prefetch,
    Ramp,
    Reduce,
    Statement,
    Store,
    Transpose,
    When,
)
from ...ir.kernel.memory import Buffer, Space

__all__ = [
    "RESERVED",
    "TYPES",
    "print_bound",
    "print_function",
    "print_literals",
    "print_size",
    "word",
]

#: words that a name of the program's would hide, or that C keeps for itself
_WORDS = """
auto break case char const continue default do double else enum extern float for goto if
inline int long register restrict return short signed sizeof static struct switch typedef
union unsigned void volatile while asm typeof linux unix i386 main errno stdin stdout stderr
signgam L r chunks arena memory dims inputs threads next f32 f64 i32 i64 flag least most
quotient remainder_of take thread item piece pieces pieces_of piece_start complete alone mine own
relax first ramp philox pool Run Counter EOF NULL NAN INFINITY HUGE_VAL INLINE PIN ACCESS PARTS
EACH BASICS LIBM RAMP TRANSPOSE MAX_THREADS RAND_MAX INT32_MIN INT64_MIN INT64_C assert true
false bool STAMPS STAMP UNSTAMP
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


class _Body:
    """Text of statements."""

    def __init__(self) -> None:
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
                say(f"{indent}long {s.name} = {word(s.buffer)}[{print_size(s.index)}];")
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
                source = f"{word(s.source)} + {print_size(s.source_index)}"
                target = f"{word(s.target)} + {print_size(s.target_index)}"
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

    def _address(self, buffer: str, index: Size) -> str:
        return word(buffer) if index == 0 else f"{word(buffer)} + {print_size(index)}"

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


def _comment(text: str) -> str:
    """Any text inside a C comment: no control characters, no end of comment, bounded."""
    safe = "".join(c if c.isprintable() else "?" for c in text)
    safe = safe.replace("*/", "* /").replace("/*", "/ *").replace("??/", "? ?/")
    return safe if len(safe) <= 240 else safe[:237] + "..."


def _buffers(body: Sequence[Statement]) -> set[str]:
    found: set[str] = set()
    for s in body:
        match s:
            case Load() | Store() | LetLoad() | Prefetch():
                found.add(s.buffer)
            case Transpose():
                found |= {s.source, s.target}
            case For() | When():
                found |= _buffers(s.body)
            case _:
                pass
    return found


def _written(body: Sequence[Statement]) -> set[str]:
    found: set[str] = set()
    for s in body:
        match s:
            case Store():
                found.add(s.buffer)
            case Transpose():
                found.add(s.target)
            case For() | When():
                found |= _written(s.body)
            case _:
                pass
    return found


def print_function(
    name: str,
    program: KernelProgram,
    kernels: Sequence[LoopKernel],
    buffers: Mapping[str, Buffer],
    places: Mapping[str, str],
    parallel_from: str,
) -> str:
    """One function of the program: its kernels, and an entry that the host calls.

    ``places`` gives for each buffer the C expression of its first byte; ``parallel_from`` is a
    C condition under which several threads pay.
    """
    texts: list[str] = []
    steps: list[tuple[str, float]] = []
    phases = 0
    dims = list(program.dims)
    for number, kernel in enumerate(kernels):
        for part, phase in enumerate(kernel.phases):
            symbol = f"{name}_{number}" + (f"_{part}" if len(kernel.phases) > 1 else "")
            lines = []
            if part == 0:
                lines.append(f"/* {number}: {_comment(kernel.kernel.name)} "
                             f"({_comment(kernel.strategy)})")  # fmt: skip
                lines += [f" *   {_comment(n)}" for n in kernel.kernel.notes]
                lines[-1] += " */"
            if phase.note:
                lines.append(f"/* {_comment(phase.note)} */")
            lines.append(f"static void {symbol}(Run *r, int thread) {{")
            for k, dim in enumerate(dims):
                lines.append(f"    const long {word(dim)} = r->dims[{k}];")
                lines.append(f"    (void){word(dim)};")
            written = _written(phase.work.body)
            own = {b.name for b in phase.private}
            for buffer in sorted(_buffers(phase.work.body) - own):
                b = buffers[buffer]
                const = "" if buffer in written else "const "
                lines.append(f"    {const}{TYPES[b.dtype]} *restrict {word(buffer)} = "
                             f"({const}{TYPES[b.dtype]} *)({places[buffer]});")  # fmt: skip
            for b in phase.private:
                lines.append(f"    _Alignas(64) {TYPES[b.dtype]} {word(b.name)}[{b.size}];")
            lines += _chunks(phase.work, phases)
            body = _Body()
            work = phase.work
            body.block(work.body, "        ")
            lines += body.lines
            total = "chunks" if work.split is None else "chunks * pieces"
            lines += ["    }", f"    complete(r, {phases}, mine, {total});", "}"]
            texts.append("\n".join(lines))
            steps.append((symbol, phase.alone))
            phases += 1
    body_of_all = [
        f"STAMPS({name}_stamps, {phases + 1})",
        f"static void {name}_body(Run *r, int thread) {{",
        "    (void)r, (void)thread;",
        f"    STAMP({name}_stamps, 0);",
        *_calls(name, program, steps),
        "}",
    ]
    texts.append("\n".join(body_of_all))
    sizes = "".join(
        f"    const long {word(d)} = dims[{k}];\n    (void){word(d)};\n" for k, d in enumerate(dims)
    )
    texts.append(
        f"ENTRY int {name}(char *arena, char *memory, const i64 *dims, const void *const *inputs,\n"
        f"{' ' * (11 + len(name))}int threads) {{\n{sizes}"
        f"    if (!({parallel_from})) threads = 1;\n"
        f"    if (threads > MAX_THREADS) threads = MAX_THREADS;\n"
        f"    Counter next[{2 * max(phases, 1)} * (threads + 1)];\n"
        "    memset(next, 0, sizeof next);\n"
        f"    UNSTAMP({name}_stamps);\n"
        "    Run r = {arena, memory, dims, inputs, next, threads, 0, "
        f"{name}_body}};\n"
        "    run_parallel(&r);\n"
        "    return atomic_load(&r.error);\n}"
    )
    return "\n\n".join(texts)


def _calls(name: str, program: KernelProgram, steps: Sequence[tuple[str, float]]) -> list[str]:
    """The calls of all phases; those with little work in a row go to one thread together."""
    lines: list[str] = []

    def call(number: int, run: str, thread: str, indent: str) -> None:
        lines.append(f"{indent}{steps[number][0]}({run}, {thread});")
        lines.append(f"{indent}STAMP({name}_stamps, {number + 1});")

    start = 0
    while start < len(steps):
        stop = start
        while stop < len(steps) and steps[stop][1]:
            stop += 1
        if stop == start:
            call(start, "r", "thread", "    ")
            start += 1
            continue
        section = len(steps) + start  # its counters: those of phases are used otherwise
        most = min(alone for _, alone in steps[start:stop])
        lines.append(f"    if ({_at_most(program, most)}) {{")
        lines.append(f"        const int mine = take(r, {section}, thread, 1, -1) == 0;")
        lines.append("        if (mine) {")
        lines.append("            Run own = alone(r);")
        for number in range(start, stop):
            call(number, "&own", "0", "            ")
        lines.append("            if (atomic_load(&own.error)) atomic_store(&r->error, 1);")
        lines.append("        }")
        lines.append(f"        complete(r, {section}, mine, 1);")
        lines.append("    } else {")
        for number in range(start, stop):
            call(number, "r", "thread", "        ")
        lines.append("    }")
        start = stop
    return lines


def _at_most(program: KernelProgram, times: float) -> str:
    """A C condition: are the sizes at most so many times the typical ones?"""
    typical, size = 1, "1"
    for number, dim in enumerate(program.dims.values()):
        typical *= dim.typical
        size += f" * r->dims[{number}]"
    return f"{size} <= {int(typical * times)}" if program.dims else "1"


def _chunks(work: Parallel, phase: int) -> list[str]:
    """The head of the loop over a phase's chunks."""
    lines = [f"    const long chunks = {print_bound(work.count)};", "    long mine = 0;"]
    if work.split is None:
        take = f"take(r, {phase}, thread, chunks, {work.name})"
        return [
            *lines,
            f"    for (long {work.name} = -1; ({work.name} = {take}) >= 0; mine++) {{",
        ]
    size = print_size(work.split.size)
    take = f"take(r, {phase}, thread, chunks * pieces, item)"
    return [
        *lines,
        f"    const long pieces = pieces_of({size}, r->threads);",
        f"    for (long item = -1; (item = {take}) >= 0; mine++) {{",
        f"        const long {work.name} = item % chunks, piece = item / chunks;",
        f"        const long {work.split.lo} = piece_start({size}, piece, pieces);",
        f"        const long {work.split.hi} = piece_start({size}, piece + 1, pieces);",
    ]


def print_literals(buffers: Mapping[str, Buffer]) -> str:
    """Constant data of the program as arrays of bytes."""
    texts = []
    for name, buffer in sorted(buffers.items()):
        if buffer.space is Space.LITERAL:
            lines = []
            for start in range(0, len(buffer.data), 24):
                lines.append("    " + ",".join(str(b) for b in buffer.data[start : start + 24]))
            body = ",\n".join(lines)
            texts.append(
                f"static const _Alignas(64) unsigned char {word(name)}_data[] = {{\n{body}}};"
            )
    return "\n".join(texts)
