"""Constants: computed where all operands are known, absorbed into expressions otherwise.

An elementwise brick with a constant operand becomes a Map with the number in its
expression: one operand less to load, and SymPy's own rules drop x + 0, x·1 and x·0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import sympy as sp
from sympy.logic.boolalg import Boolean

from ...errors import DtypeError
from ...ir.brick import View
from ...ir.bricks.arithmetic import number
from ...ir.bricks.convert import Cast
from ...ir.bricks.elementwise import Elementwise, Map
from ...ir.bricks.reduce import ReduceMax, ReduceMin, ReduceSum
from ...ir.bricks.shape import BroadcastTo, Pad
from ...ir.bricks.source import Constant, DimSize, Literal
from ...ir.builder import Builder, GraphValue
from ...ir.dims import product
from ...ir.dtypes import DType
from ...ir.expression import extremum, operand
from ...ir.graph import Graph, Node
from .patterns import broadcast, replace_node, rewritten, same_constant, uniform, uniform_value

__all__ = ["fold"]

Scalar = float | int | bool

#: literals are searched for a single repeated value up to this many bytes
_LITERAL_BYTES = 1 << 24

#: what is left of a conjunction with True: the operand, if that is a truth value
_TRUTH = sp.Ne(operand(0), 0)

#: an expression with one of these has left the reals, or the floats
_NO_NUMBERS = (sp.zoo, sp.nan, sp.oo, -sp.oo, sp.I)


def fold(graph: Graph) -> Graph:
    """The graph with its constants folded."""
    return rewritten(graph, _rule)


def _rule(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
    brick = node.brick
    if isinstance(brick, Elementwise):
        return _elementwise(builder, node, operands)
    if isinstance(brick, DimSize):
        if isinstance(brick.size, int):
            return replace_node(builder, node, Constant(brick.size, brick.dtype), [])
        return None
    if isinstance(brick, Literal):
        return _literal(builder, node, brick)
    if len(operands) != 1:
        return None
    constant = uniform(operands[0])
    if constant is None or isinstance(brick, BroadcastTo):
        return None
    value: Scalar | None = None
    match brick:
        case View():
            value = constant.value  # a view rearranges equal elements
        case Cast():
            value = _converted(constant, brick.dtype)
        case Pad():
            fill = brick.value if node.type.dtype.is_float else int(brick.value)
            value = constant.value if same_constant(constant.value, fill) else None
        case ReduceSum():
            count = product(operands[0].shape[a] for a in brick.axes)
            if isinstance(count, int) and node.type.dtype is not DType.BOOL:
                value = constant.value * count
        case ReduceMax() | ReduceMin():
            count = product(operands[0].shape[a] for a in brick.axes)
            value = constant.value if count != 0 else None
    return None if value is None else uniform_value(builder, node, value, node.type.shape)


def _converted(constant: Constant, dtype: DType) -> Scalar | None:
    """The constant in another dtype, as NumPy converts; None if it cannot be said exactly."""
    if DType.BF16 in (dtype, constant.dtype):
        return None
    if isinstance(constant.value, float) and not math.isfinite(constant.value):
        return constant.value if dtype.is_float else None
    array = np.asarray(constant.value, constant.dtype.numpy).astype(dtype.numpy)
    result: Scalar = array.item()
    return result


def _literal(builder: Builder, node: Node, brick: Literal) -> GraphValue | None:
    """A dense array of equal elements is a constant."""
    if not brick.data or len(brick.data) > _LITERAL_BYTES or brick.type.dtype is DType.BF16:
        return None
    array = np.frombuffer(brick.data, brick.type.dtype.numpy)
    first = array[:1]
    if brick.data != first.tobytes() * array.size:  # bits, so that -0.0 and NaN count
        return None
    return uniform_value(builder, node, first[0].item(), brick.type.shape)


# ── elementwise ──────────────────────────────────────────────────────────────────────────


def _elementwise(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
    brick = node.brick
    assert isinstance(brick, Elementwise)
    constants = {k: c for k, o in enumerate(operands) if (c := uniform(o)) is not None}
    ids = [o.id for o in operands]
    if constants and len(constants) == len(operands):
        return _computed(builder, node, brick, [constants[k] for k in range(len(operands))])
    if not constants and len(set(ids)) == len(ids) and not isinstance(brick, Map):
        return None
    numeric = [k for k, o in enumerate(operands) if o.dtype is not DType.BOOL]
    if numeric and all(k in constants for k in numeric) and node.type.dtype is not DType.BOOL:
        # the result takes its dtype from a numeric operand: one has to stay
        del constants[numeric[0]]
    if numeric and operands[numeric[0]].dtype.is_integer and constants:
        if brick.expression().has(sp.Pow, sp.Function):
            return None  # quotients of integers are not rational numbers
    known: list[tuple[int, sp.Basic]] = []
    for k, identity in enumerate(ids):
        first = ids.index(identity)
        if k in constants:
            literal = _number(constants[k])
            if literal is not None:
                known.append((k, literal))
        elif first < k and (extremum(brick.expression()) or not operands[k].dtype.is_float):
            # not for floats: SymPy knows that x - x is 0 and x == x true, infinity and NaN do
            # not; but the larger of x and x is x
            known.append((k, operand(first)))
    result = _absorbed(brick.expression(), len(operands), tuple(known))
    if result is None:
        return None
    expr, kept = result
    used = [operands[k] for k in kept]
    if expr.is_Symbol or (expr == _TRUTH and used[0].dtype is DType.BOOL):
        return broadcast(builder, node, used[0]) if used[0].dtype is node.type.dtype else None
    if isinstance(expr, Boolean) != (node.type.dtype is DType.BOOL):
        return None  # a condition where a number is wanted, or the reverse
    if not kept:
        return _known(builder, node, expr)
    new = Map(expr, len(kept))
    try:
        type = new.infer_type([o.type for o in used])
    except DtypeError:
        return None  # numbers are left in it, but no operand that has their dtype
    if type == node.type:
        return replace_node(builder, node, new, used)
    if type.dtype is not node.type.dtype:
        return None
    return broadcast(builder, node, builder.add(new, *used))


def _computed(
    builder: Builder, node: Node, brick: Elementwise, constants: Sequence[Constant]
) -> GraphValue | None:
    """The brick on constants, in the arithmetic of their dtype."""
    if any(c.dtype is DType.BF16 for c in constants):
        return None
    arrays = [np.asarray(c.value, c.dtype.numpy) for c in constants]
    value: Scalar = brick.evaluate(arrays, {}).item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return uniform_value(builder, node, value, node.type.shape)


def _known(builder: Builder, node: Node, expr: sp.Basic) -> GraphValue | None:
    """An expression without operands."""
    dtype = node.type.dtype
    value: Scalar
    if dtype is DType.BOOL:
        if expr not in (sp.true, sp.false):
            return None
        value = bool(expr)
    elif not expr.is_number or not expr.is_real:
        return None
    elif dtype.is_float:
        value = float(expr)
    elif expr.is_Integer:
        value = int(expr)
    else:
        return None
    return uniform_value(builder, node, value, node.type.shape)


def _number(constant: Constant) -> sp.Basic | None:
    """The constant as an exact literal; None for infinities and NaN."""
    return number(constant.value) if math.isfinite(constant.value) else None


@lru_cache(maxsize=8192)
def _absorbed(
    expr: sp.Basic, count: int, known: tuple[tuple[int, sp.Basic], ...]
) -> tuple[sp.Basic, tuple[int, ...]] | None:
    """The expression over the operands that are left, and which they are; None if unchanged."""
    result = expr.xreplace({operand(k): value for k, value in known})
    if result.has(*_NO_NUMBERS):
        return None
    free = result.free_symbols
    kept = tuple(k for k in range(count) if operand(k) in free)
    if len(kept) == count:
        return None
    return result.xreplace({operand(k): operand(n) for n, k in enumerate(kept)}), kept
