"""Sizes in torch's symbols as brickc's: polynomials in named dims.

torch writes a size as SymPy does: ``2*s77 + 1``, or in files as the calls that would build it,
``Add(Mul(Integer(2), Symbol('s77', integer=True)), Integer(1))``. Text is parsed to a syntax
tree that is only looked at; nothing is evaluated.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from ...errors import BrickcError, ImportModelError, UnsupportedError
from ...ir.dims import Dim, DimExpr, Size

__all__ = ["LARGEST_SIZE", "dim_of", "size_of"]

#: a named dim without an upper bound gets this one: memory is planned over the whole range
OPEN_END = 1024

#: what torch's range says when there is no bound
LARGEST_SIZE = 2**31 - 1

_LONGEST = 600
_HIGHEST_POWER = 4
_MOST_TERMS = 32


def dim_of(name: str, lo: int | None, hi: int | None) -> Dim:
    """The dim of that name. torch's ranges begin at 0, and have no end unless one is given."""
    least = max(1, lo or 0)
    most = hi if hi is not None and hi < LARGEST_SIZE else max(OPEN_END, least)
    try:
        return Dim(name, least, most)
    except BrickcError as error:
        raise ImportModelError(error.what, got=error.got, expected=error.expected) from None


def size_of(text: str, dims: Mapping[str, Dim]) -> Size:
    """The size that ``text`` says.

    Raises UnsupportedError for what is no polynomial, ImportModelError for what is no size.
    """
    if len(text) > _LONGEST or not text.isascii():
        raise UnsupportedError("a size that is too long to be read", got=text[:60] + "…")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ImportModelError("not a size", got=repr(text)[:80]) from None
    return _size(tree.body, dims, text)


def _size(node: ast.expr, dims: Mapping[str, Dim], text: str) -> Size:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            if abs(value) >= 2**62:
                raise ImportModelError("an impossible size", got=repr(text)[:80])
            return value
        case ast.Name(id=name):
            if name not in dims:
                raise ImportModelError(f"a size of an unknown name {name!r}", got=text)
            return dims[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _size(operand, dims, text) * -1
        case ast.BinOp(left=left, op=op, right=right):
            operands = [_size(left, dims, text), _size(right, dims, text)]
            return _combined(type(op).__name__, operands, text)
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))]):
            return _size(ast.Name(name), dims, text)
        case ast.Call(func=ast.Name(id="Integer"), args=[number], keywords=[]):
            return _size(number, dims, text)
        case ast.Call(func=ast.Name(id=function), args=[_, *_] as args, keywords=[]):
            return _combined(function, [_size(a, dims, text) for a in args], text)
    raise UnsupportedError("a size that is no polynomial of the dims", got=text)


def _combined(function: str, sizes: list[Size], text: str) -> Size:
    """Operators of the syntax tree, and SymPy's functions of the same meaning."""
    first, *rest = sizes
    total: Size = first
    match function, rest:
        case "Add", _:
            for each in rest:
                total = _short(total + each, text)
            return total
        case "Mul" | "Mult", _:
            for each in rest:
                total = _short(total * each, text)
            return total
        case "Sub", [other]:
            return total - other
        case "FloorDiv", [int(divisor)] if divisor > 0:
            return total // divisor
        case "Pow", [int(power)] if 1 <= power <= _HIGHEST_POWER:
            for _ in range(power - 1):
                total = _short(total * first, text)
            return total
    raise UnsupportedError("a size that is no polynomial of the dims", got=text)


def _short(size: Size, text: str) -> Size:
    if isinstance(size, DimExpr) and len(size.terms) > _MOST_TERMS:
        raise UnsupportedError("a size of too many terms", got=text)
    return size
