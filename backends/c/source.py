"""``model.c``: kernels, each printed once, and functions that call them in order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...ir.dims import Dim
from ...ir.kernel.loops import (
    Compute,
    Fill,
    For,
    Let,
    LetLoad,
    Load,
    LoopKernel,
    Parallel,
    Phase,
    Prefetch,
    Ramp,
    Reduce,
    Statement,
    Store,
    Transpose,
    When,
)
from .functions import Function, Literals
from .printer import RESERVED, TYPES, Body, print_bound, print_size, word
from .sharing import kernel_dims

__all__ = ["Source", "comment_text", "print_source"]

#: characters of kernels in a translation unit of its own; smaller programs are one
UNIT = 30_000

#: most units of a program: each reads the prelude, a twentieth of a second
MOST = 32


@dataclass(frozen=True)
class KernelText:
    """A C function for one phase: its head without KERNEL, comments above it, its body."""

    head: str
    comments: str
    body: str

    @property
    def text(self) -> str:
        return f"{self.comments}\nKERNEL {self.head} {{\n{self.body}\n}}"


@dataclass(frozen=True)
class Source:
    """A program in C. ``pieces`` are kernels and functions, a function after its kernels."""

    head: str
    literals: str
    pieces: tuple[KernelText | str, ...]

    @property
    def text(self) -> str:
        """All of it as one translation unit."""
        pieces = [p if isinstance(p, str) else p.text for p in self.pieces]
        return "\n\n".join(filter(None, [self.head, self.literals, *pieces])) + "\n"

    def units(self) -> list[str]:
        """The same as several translation units, to be compiled side by side.

        How many there are depends on nothing but the program: the same input gives the same
        library. Kernels lose their ``static``, and stay hidden outside the library.
        """
        kernels = [p for p in self.pieces if isinstance(p, KernelText)]
        count = min(len(kernels), MOST, 1 + sum(len(k.body) for k in kernels) // UNIT)
        if count < 2:
            return [self.text]
        shares: list[list[KernelText]] = [[] for _ in range(count)]
        sizes = [sum(len(p) for p in self.pieces if isinstance(p, str)), *[0] * (count - 1)]
        for k in sorted(kernels, key=lambda k: (-len(k.body), k.head)):
            least = sizes.index(min(sizes))
            shares[least].append(k)
            sizes[least] += len(k.body)
        head = f"#define SPLIT\n{self.head}"
        declared = "\n".join(f"KERNEL {k.head};" for k in kernels)
        functions = [p for p in self.pieces if isinstance(p, str)]
        first = [head, self.literals, declared, *functions, *(k.text for k in shares[0])]
        rest = [[f"#define REST\n{head}", *(k.text for k in share)] for share in shares[1:]]
        return ["\n\n".join(filter(None, unit)) + "\n" for unit in [first, *rest]]


def comment_text(text: str) -> str:
    """Any text inside a C comment: no control characters, no end of comment, bounded."""
    safe = "".join(c if c.isprintable() else "?" for c in text)
    safe = safe.replace("*/", "* /").replace("/*", "/ *").replace("??/", "? ?/")
    return safe if len(safe) <= 240 else safe[:237] + "..."


@dataclass
class _Kernels:
    """The kernels' functions so far, by their phases: equal kernels have the very same ones."""

    #: calls of kernels with these phases, for the comment above them
    users: dict[int, list[str]]
    #: phases -> symbol, formal buffers and dims of each
    known: dict[int, list[tuple[str, list[str], list[Dim]]]] = field(default_factory=dict)

    def add(self, f: Function, kernel: LoopKernel, number: int) -> list[KernelText]:
        """Functions for the kernel's phases; none if an equal kernel has them."""
        if id(kernel.phases) in self.known:
            return []
        texts, calls = [], []
        for part, phase in enumerate(kernel.phases):
            symbol = f"{f.name}_{number}" + (f"_{part}" if len(kernel.phases) > 1 else "")
            sizes = f.program.dims if number in f.pairs else kernel_dims(kernel.kernel)
            text, formals, dims = _phase(f, kernel, phase, symbol, sizes)
            comments = []
            if part == 0:
                comments.append(f"/* {number}: {comment_text(kernel.kernel.name)} "
                                f"({comment_text(kernel.strategy)})")  # fmt: skip
                comments += [f" *   {comment_text(n)}" for n in kernel.kernel.notes]
                if len(self.users[id(kernel.phases)]) > 1:
                    users = ", ".join(self.users[id(kernel.phases)][1:])
                    comments.append(f" * and {comment_text(users)}")
                comments[-1] += " */"
            if phase.note:
                comments.append(f"/* {comment_text(phase.note)} */")
            texts.append(KernelText(text.head, "\n".join(comments), text.body))
            calls.append((symbol, formals, dims))
        self.known[id(kernel.phases)] = calls
        return texts

    def steps(self, f: Function, kernel: LoopKernel) -> Iterator[_Step]:
        """What calls each phase."""
        known = self.known[id(kernel.phases)]
        for phase, (symbol, formals, dims) in zip(kernel.phases, known, strict=True):
            arguments = [word(d.name) for d in dims]
            for formal in formals:
                actual = f.actual(kernel, formal)
                kind = TYPES[f.buffers[actual].dtype]
                arguments.append(f"({kind} *)({f.places[actual].print()})")
            yield _Step(symbol, arguments, phase.alone)


@dataclass(frozen=True)
class _Step:
    """A call of a phase; with up to ``alone`` times the typical sizes it has little work."""

    symbol: str
    arguments: Sequence[str]
    alone: float
    comment: str = ""


def print_source(head: str, functions: Sequence[Function], literals: Literals) -> Source:
    """The program. ``head`` is what comes before everything else."""
    users: dict[int, list[str]] = {}
    for f in functions:
        for number, kernel in enumerate(f.kernels):
            name = f"{f.name} {number}: {kernel.kernel.name}"
            users.setdefault(id(kernel.phases), []).append(name)
    kernels = _Kernels(users)
    pieces: list[KernelText | str] = []
    for f in functions:
        for number, kernel in enumerate(f.kernels):
            pieces += kernels.add(f, kernel, number)
        pieces.append(_function(f, kernels))
    return Source(head, print_literals(literals), tuple(pieces))


def _phase(
    f: Function, kernel: LoopKernel, phase: Phase, symbol: str, sizes: Mapping[str, Dim]
) -> tuple[KernelText, list[str], list[Dim]]:
    work = phase.work
    own = {b.name for b in phase.private}
    formals = sorted(_buffers(work.body) - own)
    written = _written(work.body)
    # parameters are called like the first caller's buffers, unless that means something here
    taken = RESERVED | own | {work.name} | set(_defined(work.body))
    taken |= set(sizes)
    if work.split is not None:
        taken |= {work.split.lo, work.split.hi}
    names: dict[str, str] = {}
    for formal in formals:
        name = f.actual(kernel, formal)
        while name in taken:
            name += "_"
        taken |= {name}
        names[formal] = name
    body = Body(names)
    body.lines += [
        f"    _Alignas(64) {TYPES[b.dtype]} {word(b.name)}[{b.size}];" for b in phase.private
    ]
    body.lines += _chunks(work)
    body.block(work.body, "        ")
    total = "chunks" if work.split is None else "chunks * pieces"
    body.lines += ["    }", f"    complete(r, phase, mine, {total});"]
    text = "\n".join(body.lines)
    # a phase may read fewer sizes than its kernel: a call names what it needs
    tokens = set(re.findall(r"\w+", text))
    dims = [d for n, d in sizes.items() if word(n) in tokens]
    parameters = ["Run *r", "int thread", "int phase", *(f"long {word(d.name)}" for d in dims)]
    for formal in formals:
        kind = TYPES[f.buffers[f.actual(kernel, formal)].dtype]
        const = "" if formal in written else "const "
        parameters.append(f"{const}{kind} *restrict {word(names[formal])}")
    return KernelText(f"void {symbol}({', '.join(parameters)})", "", text), formals, dims


def _chunks(work: Parallel) -> list[str]:
    """The head of the loop over a phase's chunks."""
    lines = [f"    const long chunks = {print_bound(work.count)};", "    long mine = 0;"]
    if work.split is None:
        take = f"take(r, phase, thread, chunks, {work.name})"
        head = f"    for (long {work.name} = -1; ({work.name} = {take}) >= 0; mine++) {{"
        return [*lines, head]
    size = print_size(work.split.size)
    take = "take(r, phase, thread, chunks * pieces, item)"
    return [
        *lines,
        f"    const long pieces = pieces_of({size}, r->threads);",
        f"    for (long item = -1; (item = {take}) >= 0; mine++) {{",
        f"        const long {work.name} = item % chunks, piece = item / chunks;",
        f"        const long {work.split.lo} = piece_start({size}, piece, pieces);",
        f"        const long {work.split.hi} = piece_start({size}, piece + 1, pieces);",
    ]


def _function(f: Function, kernels: _Kernels) -> str:
    """What runs all kernels on each thread, and the entries that the host calls."""
    name, phases = f.name, sum(len(k.phases) for k in f.kernels)
    dims = [word(d) for d in f.program.dims]
    lines = [
        f"STAMPS({name}_stamps, {phases + 1})",
        f"static void {name}_body(Run *r, int thread) {{",
        *(f"    const long {d} = r->dims[{k}];" for k, d in enumerate(dims)),
        *(f"    (void){d};" for d in ["r", "thread", *dims]),
        f"    STAMP({name}_stamps, 0);",
    ]
    steps: list[_Step] = []
    for number, kernel in enumerate(f.kernels):
        comment = f"/* {number}: {comment_text(kernel.kernel.name)} */"
        for step in kernels.steps(f, kernel):
            steps.append(replace(step, comment=comment))
            comment = ""
    lines += _calls(f, steps)
    lines += ["}", ""]
    gap = " " * (11 + len(name))
    lines += [
        f"ENTRY int {name}(char *arena, char *memory, const i64 *dims, const void *const *inputs,",
        f"{gap}int threads) {{",
        *(f"    const long {d} = dims[{k}];" for k, d in enumerate(dims)),
        *(f"    (void){d};" for d in dims),
        f"    if (!({f.parallel})) threads = 1;",
        "    if (threads > MAX_THREADS) threads = MAX_THREADS;",
        f"    Counter next[{2 * max(phases, 1)} * (threads + 1)];",
        "    memset(next, 0, sizeof next);",
        f"    UNSTAMP({name}_stamps);",
        f"    Run r = {{arena, memory, dims, inputs, next, threads, ALL, 0, {name}_body}};",
        "    run_parallel(&r);",
        "    return atomic_load(&r.error);",
        "}",
        "",
        f"PHASES({name}, {max(phases, 1)})",
    ]
    return "\n".join(lines)


def _calls(f: Function, steps: Sequence[_Step]) -> list[str]:
    """The calls of all phases; those with little work in a row go to one thread together."""
    lines: list[str] = []

    def call(number: int, run: str, thread: str, indent: str) -> None:
        step = steps[number]
        if step.comment:
            lines.append(f"{indent}{step.comment}")
        arguments = ", ".join([run, thread, str(number), *step.arguments])
        lines.append(f"{indent}PHASE(r, {number}, {step.symbol}({arguments}));")
        lines.append(f"{indent}STAMP({f.name}_stamps, {number + 1});")

    start = 0
    while start < len(steps):
        stop = start
        while stop < len(steps) and steps[stop].alone:
            stop += 1
        if stop == start:
            call(start, "r", "thread", "    ")
            start += 1
            continue
        section = len(steps) + start  # its counters: those of phases are used otherwise
        most = min(step.alone for step in steps[start:stop])
        lines.append(f"    if ({_at_most(f, most)}) {{")
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


def _at_most(f: Function, times: float) -> str:
    """A C condition: are the sizes at most so many times the typical ones?"""
    typical = 1
    for dim in f.program.dims.values():
        typical *= dim.typical
    size = " * ".join(["1", *(word(d) for d in f.program.dims)])
    return f"{size} <= {int(typical * times)}" if f.program.dims else "1"


def print_literals(literals: Literals) -> str:
    """Constant data of the program as arrays of bytes."""
    texts = []
    for symbol, data in literals.arrays.items():
        lines = []
        for start in range(0, len(data), 24):
            lines.append("    " + ",".join(str(b) for b in data[start : start + 24]))
        body = ",\n".join(lines)
        texts.append(f"static const _Alignas(64) unsigned char {symbol}[] = {{\n{body}}};")
    return "\n".join(texts)


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


def _defined(body: Sequence[Statement]) -> Iterator[str]:
    """Names that the statements give to values and integers."""
    for s in body:
        match s:
            case Let() | LetLoad() | Load() | Ramp() | Compute() | Fill() | Reduce():
                yield s.name
            case For():
                yield s.name
                yield from _defined(s.body)
            case When():
                yield from _defined(s.body)
            case _:
                pass
