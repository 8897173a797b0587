"""A program as C source alone: ``model.c`` with typed entry points, and its ``model.h``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...ir.kernel.memory import Access
from ..base import Leaf, PlannedFunction
from ..module import comment
from .functions import Place
from .printer import TYPES, print_size, word

__all__ = ["identifier", "print_entries", "print_header"]

_C_TYPES = {"f32": "float", "f64": "double", "i32": "int32_t", "i64": "int64_t", "flag": "uint8_t"}


def identifier(title: str) -> str:
    """A C identifier that resembles the model's name."""
    text = "".join(c if c.isascii() and c.isalnum() else "_" for c in title.lower())[:40]
    return text if text[:1].isalpha() else f"model_{text}".rstrip("_")


def _type(access: Access) -> str:
    return _C_TYPES[TYPES[access.dtype]]


def _arguments(f: PlannedFunction) -> list[tuple[str, str, Access, bool]]:
    """C type, name, access and whether it is a result, for each argument."""
    found = []
    taken: set[str] = {"arena", "memory", "threads", *f.program.dims}
    for side, result in ((f.program.inputs, False), (f.program.outputs, True)):
        for name, access in side.items():
            base = identifier(name)
            unique, number = base, 2
            while unique in taken or word(unique) != unique:
                unique = f"{base}_{number}"
                number += 1
            taken.add(unique)
            found.append((_type(access), unique, access, result))
    return found


def _prototype(title: str, f: PlannedFunction) -> str:
    sizes = [f"int64_t {word(d)}" for d in f.program.dims]
    arrays = [
        f"{'' if result else 'const '}{kind} *{name}" for kind, name, _, result in _arguments(f)
    ]
    arguments = ", ".join(["void *arena", "void *memory", *sizes, "int threads", *arrays])
    return f"int {identifier(title)}_{f.name}({arguments})"


def _arena(title: str, f: PlannedFunction) -> str:
    sizes = ", ".join(f"int64_t {word(d)}" for d in f.program.dims) or "void"
    return f"int64_t {identifier(title)}_{f.name}_arena_bytes({sizes})"


def print_header(
    title: str,
    functions: Sequence[PlannedFunction],
    leaves: Sequence[Leaf],
    memory_bytes: int,
    flags: str,
) -> str:
    """``model.h``. ``flags`` are the compiler's for the instruction set."""
    name = identifier(title)
    lines = [
        f"/* {_safe(title)}: compiled by brickc.",
        " *",
        " * Build: cc -O3 -ffp-contract=fast -fno-math-errno FLAGS model.c main.c -lm -lpthread",
        f" * with FLAGS {flags or 'as you like'}.",
        " *",
        " * A function takes an arena, for what lives during the call, and the memory of",
        " * parameters and states, which weights.bin holds as they start. Both begin at a multiple",
        " * of 64 bytes and belong to the caller: nothing here allocates. Arrays lie in row-major",
        " * order. The result is 0, or 1 if an index was out of range.",
        " *",
        " * Parameters and states in the memory, strides in elements:",
    ]
    for leaf in leaves:
        b = leaf.buffer
        shape = ", ".join(print_size(n) for n in b.shape)
        strides = ", ".join(print_size(n) for n in b.strides)
        lines.append(f" *   byte {leaf.offset:>9}  {b.dtype}[{shape}] strides [{strides}]  "
                     f"{leaf.role} {_safe(leaf.name)}")  # fmt: skip
    lines += [
        " */",
        f"#ifndef BRICKC_{name.upper()}_H",
        f"#define BRICKC_{name.upper()}_H",
        "#include <stdint.h>",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
        f"#define {name.upper()}_MEMORY_BYTES {memory_bytes}",
        "",
    ]
    for f in functions:
        for dim in f.program.dims.values():
            lines.append(f"/* {dim.name} is {dim.lo} to {dim.hi} */")
        for kind, argument, access, result in _arguments(f):
            shape = ", ".join(print_size(n) for n in access.shape)
            lines.append(f"/* {argument}: {kind}[{shape}], {'written' if result else 'read'} */")
        lines.append(f"{_arena(title, f)};")
        lines.append(f"{_prototype(title, f)};")
        lines.append("")
    lines += ["#ifdef __cplusplus", "}", "#endif", "#endif"]
    return "\n".join(lines) + "\n"


def print_entries(
    title: str, functions: Sequence[PlannedFunction], places: Mapping[str, Mapping[str, Place]]
) -> str:
    """The definitions of what the header declares, to stand below the program.

    ``places`` says by function where its buffers lie.
    """
    texts = ['#include "model.h"']
    for f in functions:
        sizes = ", ".join(word(d) for d in f.program.dims) or "0"
        arguments = _arguments(f)
        given = ", ".join(n for _, n, _, result in arguments if not result) or "0"
        lines = [
            f"{_arena(title, f)} {{ return {print_size(f.peak)}; }}",
            "",
            f"{_prototype(title, f)} {{",
            f"    const i64 sizes[] = {{{sizes}}};",
            f"    const void *given[] = {{{given}}};",
            f"    const int failed = {f.name}(arena, memory, sizes, given, threads);",
        ]
        for kind, name, access, result in arguments:
            if result:
                lines += _copy_out(kind, name, access, places[f.name][access.buffer])
        lines += ["    return failed;", "}"]
        texts.append("\n".join(lines))
    return "\n\n".join(texts) + "\n"


def _copy_out(kind: str, name: str, access: Access, place: Place) -> list[str]:
    """Loops that copy a result from where the program keeps it."""
    start = place.print().replace("r->", "(const char *)")
    lines = [
        "    {",
        f"        const {kind} *from = (const {kind} *)({start});",
        "        long k = 0;",
    ]
    index: str = print_size(access.offset)
    indent = "        "
    for axis, (size, stride) in enumerate(zip(access.shape, access.strides, strict=True)):
        i = f"i{axis}_"
        lines.append(f"{indent}for (long {i} = 0; {i} < {print_size(size)}; {i}++)")
        index += f" + {i} * ({print_size(stride)})"
        indent += "    "
    lines.append(f"{indent}{name}[k++] = from[{index}];")
    lines.append("    }")
    return lines


def _safe(text: str) -> str:
    return comment(text).replace("*/", "* /").replace("/*", "/ *")
