"""Scalar programs as lines of Triton."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...errors import InternalError
from ...ir.dtypes import DType
from ...ir.kernel.kernel import Region
from ...ir.kernel.scalar import Instr, ScalarProgram
from .writer import Tile, Writer, dtype_text, wide

__all__ = ["emit_program", "emit_region", "number"]

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "eq": "==", "ne": "!=", "and": "&", "or": "|",
}  # fmt: skip

_CALLS = {"exp": "tl.exp", "log": "tl.log", "sqrt": "tl.sqrt", "sin": "tl.sin", "cos": "tl.cos",
          "floor": "tl.floor", "ceil": "tl.ceil", "abs": "tl.abs", "erf": "tl.erf"}  # fmt: skip

#: functions of ``prelude``, by opcode
_HELPERS = ("expm1", "log1p", "tanh", "logistic", "softplus", "pow", "sign")


def number(value: float | int | bool, dtype: DType) -> str:
    """A literal with its dtype: bare ones would be taken for f32."""
    if dtype is DType.BOOL:
        return f"tl.full([], {int(value)}, tl.int8) != 0"
    if dtype.is_float:
        value = float(value)
        text = repr(value) if math.isfinite(value) else f'float("{value}")'
        return f"tl.full([], {text}, {dtype_text(wide(dtype))})"
    return f"tl.full([], {int(value)}, {dtype_text(dtype)})"


def emit_program(w: Writer, program: ScalarProgram, inputs: Sequence[str]) -> list[str]:
    """Lines for every instruction; names of the results."""
    values = list(inputs)
    for instr in program.instrs:
        values.append(w.let("v", _text(w, program, instr, [values[a] for a in instr.args])))
    return [values[r] for r in program.results]


def emit_region(w: Writer, region: Region, tile: Tile, anchor: str | None = None) -> list[str]:
    """Loads, program and stores of a region over a tile; names of the program's results."""
    inputs = [] if anchor is None else [anchor]
    inputs += [w.load(access, tile) for access in region.loads]
    program = region.program
    results = emit_program(w, program, inputs)
    casts = {len(program.inputs) + k for k, i in enumerate(program.instrs) if i.op == "cast"}
    for position, access in region.stores:
        w.store(access, tile, results[position], done=program.results[position] in casts)
    return results


def _text(w: Writer, program: ScalarProgram, instr: Instr, args: Sequence[str]) -> str:
    op, dtype = instr.op, instr.dtype
    if op in _INFIX:
        return f"{args[0]} {_INFIX[op]} {args[1]}"
    if op in _CALLS:
        return f"{_CALLS[op]}({args[0]})"
    if op in _HELPERS:
        name = op if op != "pow" else "power"
        name = "signum" if op == "sign" else name
        w.helpers.add(name)
        return f"{name}({', '.join(args)})"
    match op:
        case "const":
            assert instr.literal is not None
            return number(instr.literal, dtype)
        case "size":
            assert instr.size is not None
            return f"({w.size(instr.size)}).to({dtype_text(wide(dtype))})"
        case "select":
            return f"tl.where({', '.join(args)})"
        case "cast":
            if dtype is DType.BOOL:
                return f"{args[0]} != 0"
            if dtype.is_half:
                return w.rounded(args[0], dtype)
            if dtype is DType.F32 and program.dtype(instr.args[0]).is_half:
                w.helpers.add("widened")
                return f"widened({args[0]})"
            return f"{args[0]}.to({dtype_text(dtype)})"
        case "not":
            return f"{args[0]} == 0"
        case "neg":
            return f"-{args[0]}"
        case "div":
            return f"{args[0]} {'//' if dtype.is_integer else '/'} {args[1]}"
        case "min" | "max":
            name = "tl.minimum" if op == "min" else "tl.maximum"
            nan = ", propagate_nan=tl.PropagateNan.ALL" if dtype.is_float else ""
            return f"{name}({args[0]}, {args[1]}{nan})"
    raise InternalError(f"no Triton text for {op}")
