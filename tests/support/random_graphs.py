"""Hypothesis strategies for expressions and whole graphs."""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp
from hypothesis import strategies as st

from brickc.errors import BrickcError
from brickc.ir.brick import Brick, Input, Parameter, State
from brickc.ir.bricks import arithmetic, convert, elementwise, normalization, random, reduce
from brickc.ir.bricks import contract as contracts
from brickc.ir.bricks import shape as shapes
from brickc.ir.bricks.loss import SquareLoss
from brickc.ir.bricks.placement import Copy
from brickc.ir.bricks.source import Constant, DimSize, Iota, Literal
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.expression import FUNCTIONS, Y, operand
from brickc.ir.graph import Graph
from brickc.ir.initializers import Initializer
from brickc.ir.origin import Origin
from brickc.ir.types import TensorType

__all__ = ["expressions", "graphs", "origins"]

# ── expressions ──────────────────────────────────────────────────────────────────────────

NUMBERS = st.one_of(
    st.integers(-20, 20).map(sp.Integer),
    st.fractions(-3, 3, max_denominator=12).map(lambda f: sp.Rational(f.numerator, f.denominator)),
    st.floats(allow_nan=False, allow_infinity=False).map(sp.Float),
    st.sampled_from([sp.pi, sp.E]),
)
SYMBOLS = st.sampled_from([operand(0), operand(1), operand(2), operand(11), Y])
COMPARISONS = [sp.StrictLessThan, sp.LessThan, sp.StrictGreaterThan, sp.GreaterThan, sp.Eq, sp.Ne]


def _built(kind: object, *args: object, simplify: bool) -> sp.Basic | None:
    """The node, simplified or as it is; None if SymPy makes something that has no place here."""
    try:
        made = kind(*args) if simplify else kind(*args, evaluate=False)  # type: ignore[operator]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if not isinstance(made, sp.Basic) or made.has(sp.zoo, sp.I, sp.nan, sp.oo, -sp.oo):
        return None
    # SymPy's floats have no largest exponent, ours do
    return None if any(sp.Float(float(f)) != f for f in made.atoms(sp.Float)) else made


def _relation(kind: type, a: sp.Basic, b: sp.Basic, simplify: bool) -> sp.Basic | None:
    return _built(kind, a, b, simplify=simplify)


@st.composite
def _larger(draw: st.DrawFn, inner: st.SearchStrategy[sp.Basic]) -> sp.Basic:
    simplify = draw(st.booleans())
    shape = draw(st.sampled_from(["sum", "product", "power", "function", "select", "unknown"]))
    first = draw(inner)
    match shape:
        case "sum" | "product":
            kind = sp.Add if shape == "sum" else sp.Mul
            made = _built(
                kind, first, *draw(st.lists(inner, min_size=1, max_size=3)), simplify=simplify
            )
        case "power":
            exponent = draw(st.one_of(st.integers(-4, 4).map(sp.Integer), SYMBOLS,
                                      st.sampled_from([sp.S.Half, sp.Rational(-3, 2)])))  # fmt: skip
            made = _built(sp.Pow, first, exponent, simplify=simplify)
        case "function":
            made = _built(draw(st.sampled_from(list(FUNCTIONS))), first, simplify=simplify)
        case "select":
            made = draw(_selects(inner))
        case _:
            function = sp.Function(draw(st.sampled_from(["f1", "g", "f_2"])))
            made = function(operand(0), operand(1))
            if draw(st.booleans()):
                made = sp.diff(made, operand(0), draw(st.integers(1, 3)))
    return first if made is None else made


@st.composite
def _selects(draw: st.DrawFn, inner: st.SearchStrategy[sp.Basic]) -> sp.Basic | None:
    pairs = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(COMPARISONS))
        condition = _relation(kind, draw(inner), draw(inner), draw(st.booleans()))
        other = _relation(draw(st.sampled_from(COMPARISONS)), draw(SYMBOLS), draw(NUMBERS), True)
        if condition is None or other is None:
            return None
        wrap = draw(st.sampled_from([None, sp.And, sp.Or, sp.Not]))
        if wrap is sp.Not:
            condition = sp.Not(condition, evaluate=False)
        elif wrap is not None:
            condition = wrap(condition, other)
        pairs.append((draw(inner), condition))
    pairs.append((draw(inner), True))
    return _built(sp.Piecewise, *pairs, simplify=draw(st.booleans()))


def expressions() -> st.SearchStrategy[sp.Basic]:
    """Expressions with a text form, simplified by SymPy and not."""
    return st.recursive(st.one_of(NUMBERS, SYMBOLS), _larger, max_leaves=12)


# ── graphs ───────────────────────────────────────────────────────────────────────────────

NAMES = st.text(max_size=12)
FLOATS = st.floats(allow_nan=False)
N = Dim("N", 1, 64, 8)
T = Dim("T", 2, 9)


def origins() -> st.SearchStrategy[Origin]:
    """Origins with odd names of files and layers."""
    files = st.sampled_from(["", "net.py", "a b.prototxt", 'q"uo:te\\.py', "dir/x.py:3", "ü.py"])
    notes = st.one_of(st.sampled_from(["", "grad of %4", "softmax, grad of %4", 'note "x"', "a.py:3",
                                       " lead", "trail ", "two  blanks", "# no"]), NAMES)  # fmt: skip
    return st.builds(Origin, files, st.integers(0, 99), NAMES, notes)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Small graphs of bricks of every kind of attribute, whose types are right."""
    graph = Graph(draw(NAMES))
    names = draw(st.lists(NAMES, min_size=4, max_size=4, unique=True))
    floats = st.sampled_from([DType.F32, DType.F64])
    dtype = draw(floats)
    inits = st.builds(
        Initializer,
        st.sampled_from(["constant", "uniform", "gaussian", "external"]),
        FLOATS,
        FLOATS,
    )
    matrix = TensorType(dtype, (draw(st.sampled_from([N, 3, N * 2 + 1])), 4))
    leaves = [
        Input(names[0], matrix),
        Parameter(names[1], TensorType(dtype, (5, 4)), draw(inits), draw(FLOATS)),
        State(names[2], matrix, draw(inits)),
        Input(names[3], TensorType(DType.I64, ()), draw(st.integers(0, 5))),
    ]
    ids = draw(st.permutations(range(draw(st.integers(4, 9)))))
    for leaf, id in zip(leaves, ids, strict=False):
        graph.add(leaf, [], draw(origins()), id=id)
    for _ in range(draw(st.integers(0, 12))):
        _add(draw, graph, dtype)
    made = sorted(n.id for n in graph.nodes())
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        graph.outputs[name] = draw(st.sampled_from(made))
    for leaf in (graph.states[names[2]], graph.parameters[names[1]]):
        same = [i for i in made if graph.node(i).type == graph.node(leaf).type]
        if draw(st.booleans()):
            graph.updates[leaf] = draw(st.sampled_from(same))
    return graph


def _add(draw: st.DrawFn, graph: Graph, dtype: DType) -> None:
    """One more node; if what was drawn does not fit, none."""
    ids = sorted(n.id for n in graph.nodes())
    a, b = draw(st.sampled_from(ids)), draw(st.sampled_from(ids))
    rank = graph.node(a).type.rank
    axis = draw(st.integers(0, max(0, rank - 1)))
    try:
        brick, operands = _BRICKS[draw(st.sampled_from(sorted(_BRICKS)))](draw, a, b, rank, axis)
        graph.add(brick, operands, draw(origins()))
    except (BrickcError, OverflowError):
        pass


def _map(draw: st.DrawFn, a: int, b: int, rank: int, axis: int) -> tuple[Brick, tuple[int, ...]]:
    expr = draw(expressions().filter(lambda e: not e.has(Y, operand(2), operand(11))))
    return elementwise.Map(expr, 2), (a, b)


#: name -> (draw, two ids, the first one's rank, one of its axes) -> a brick and its operands
_BRICKS: dict[str, Callable[..., tuple[Brick, tuple[int, ...]]]] = {
    "map": _map,
    "add": lambda draw, a, b, rank, axis: (arithmetic.Add(), (a, b)),
    "power": lambda draw, a, b, rank, axis: (arithmetic.Power(draw(FLOATS)), (a,)),
    "cast": lambda draw, a, b, rank, axis: (convert.Cast(draw(st.sampled_from(DType))), (a,)),
    "contract": lambda draw, a, b, rank, axis: (contracts.Contract("nk,ok->no"), (a, b)),
    "softmax": lambda draw, a, b, rank, axis: (normalization.Softmax(axis), (a,)),
    "lrn": lambda draw, a, b, rank, axis: (
        normalization.LRNAcross(draw(st.integers(1, 5)), draw(FLOATS), draw(FLOATS), 1.0), (a,)
    ),
    "loss": lambda draw, a, b, rank, axis: (SquareLoss(), (a, b)),
    "sum": lambda draw, a, b, rank, axis: (
        reduce.ReduceSum(tuple(range(axis, rank)), draw(st.booleans())), (a,)
    ),
    "transpose": lambda draw, a, b, rank, axis: (
        shapes.Transpose(tuple(reversed(range(rank)))), (a,)
    ),
    "pad": lambda draw, a, b, rank, axis: (
        shapes.Pad((0,) * rank, (1,) * rank, (0,) * rank, draw(FLOATS)), (a,)
    ),
    "concat": lambda draw, a, b, rank, axis: (shapes.Concat(axis), (a, a, a)),
    "copy": lambda draw, a, b, rank, axis: (
        Copy(draw(st.sampled_from([None, tuple(range(rank))]))), (a,)
    ),
    "random": lambda draw, a, b, rank, axis: (
        random.RandomUniform((T * N - 1, 2), draw(st.integers(0, 9)), DType.F32), (a, b)
    ),
    "constant": lambda draw, a, b, rank, axis: (
        Constant(draw(FLOATS | st.integers(-9, 9)), draw(st.sampled_from(DType))), ()
    ),
    "literal": lambda draw, a, b, rank, axis: (
        Literal(draw(st.binary(min_size=16, max_size=16)), TensorType(DType.I32, (2, 2))), ()
    ),
    "size": lambda draw, a, b, rank, axis: (
        DimSize(draw(st.sampled_from([N, 3, N * N * 2 - T + 7])), DType.I64), ()
    ),
    "iota": lambda draw, a, b, rank, axis: (Iota(TensorType(DType.F32, (T, 3)), 1), ()),
}  # fmt: skip
