"""Products by letters."""

from __future__ import annotations

import numpy as np

from ....ir.bricks.contract import contract
from ....ir.bricks.convert import cast
from ....ir.bricks.indexing import gather
from ....ir.bricks.reduce import reduce_sum
from ....ir.bricks.shape import reshape, transpose
from ....ir.dtypes import DType
from ....ir.value import Value
from ..node import Node
from .kind import Table
from .movement import fixed

__all__ = ["TABLE"]

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _terms(node: Node, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of every operand and of the result, without ellipses."""
    equation = node.get_string("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise node.wrong("wrong number of terms", len(terms), len(ranks))
    used = set(equation) & set(_LETTERS)
    free = [c for c in _LETTERS if c not in used]
    most = 0
    for term, rank in zip(terms, ranks, strict=True):
        if "..." in term:
            most = max(most, rank - len(term) + 3)
    if most > len(free):
        raise node.unsupported("so many axes", most)
    hidden = "".join(free[:most])
    full = []
    for term, rank in zip(terms, ranks, strict=True):
        count = rank - len(term) + 3
        whole = term.replace("...", hidden[most - count :] if count else "")
        if len(whole) != rank or not set(whole) <= set(_LETTERS):
            raise node.wrong("a term does not fit its operand", term, f"{rank} axes")
        full.append(whole)
    if arrow:
        result = right.replace("...", hidden)
    else:
        every = "".join(full)
        result = hidden + "".join(sorted(c for c in set(every) - set(hidden) if every.count(c) < 2))
    if len(set(result)) != len(result) or not set(result) <= set("".join(full)):
        raise node.wrong("impossible result", equation)
    return full, result


def _without_repeats(node: Node, x: Value, letters: str) -> tuple[Value, str]:
    """Diagonals in place of axes that have one letter."""
    for c in dict.fromkeys(letters):
        while letters.count(c) > 1:
            first = letters.index(c)
            second = letters.index(c, first + 1)
            size = fixed(node, x.shape[first], "a diagonal")
            if x.shape[second] != size:
                raise node.wrong("a letter has two sizes", x.type)
            rest = [k for k in range(x.rank) if k not in (first, second)]
            moved = transpose(x, (*rest, first, second))
            flat = reshape(moved, (*moved.shape[:-2], size * size))
            x = gather(flat, node.literal(np.arange(size) * (size + 1)), flat.rank - 1)
            letters = "".join(letters[k] for k in rest) + c
    return x, letters


def _only(x: Value, letters: str, wanted: set[str]) -> tuple[Value, str]:
    """Summed over the axes whose letters nobody wants."""
    axes = tuple(k for k, c in enumerate(letters) if c not in wanted)
    if not axes:
        return x, letters
    return reduce_sum(x, axes), "".join(c for c in letters if c in wanted)


def einsum(node: Node) -> Value:
    """Operands are joined from left to right."""
    values = node.tensors()
    dtype = values[0].dtype
    if not dtype.is_float or dtype is DType.F16:
        wide = DType.F32 if dtype is DType.F16 else DType.F64
        values = [cast(v, wide) for v in values]
    terms, result = _terms(node, [v.rank for v in values])
    operands = [
        _without_repeats(node, x, letters) for x, letters in zip(values, terms, strict=True)
    ]
    x, letters = operands[0]
    for k in range(1, len(operands)):
        later = {c for _, term in operands[k + 1 :] for c in term} | set(result)
        y, others = operands[k]
        x, letters = _only(x, letters, later | set(others))
        y, others = _only(y, others, later | set(letters))
        joined = "".join(c for c in dict.fromkeys(letters + others) if c in later)
        x = contract(f"{letters},{others}->{joined}", x, y)
        letters = joined
    x, letters = _only(x, letters, set(result))
    order = tuple(letters.index(c) for c in result)
    return cast(transpose(x, order) if order != tuple(range(len(order))) else x, dtype)


TABLE: Table = {"Einsum": einsum}
