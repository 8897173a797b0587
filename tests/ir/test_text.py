"""The text form: printer and parser are exact inverses, and bad text gives clear errors."""

from __future__ import annotations

import math

import pytest
import sympy as sp
from brick_modules import catalogue
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import expressions, graphs

from brickc.errors import BrickcError, ImportModelError, UnsupportedError, VerifyError
from brickc.ir.brick import Input, Parameter, State
from brickc.ir.bricks.elementwise import Map
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.expression import Y, logistic, operand
from brickc.ir.expression_text import parse_expression, print_expression
from brickc.ir.graph import Graph
from brickc.ir.initializers import constant, uniform
from brickc.ir.origin import Origin
from brickc.ir.parser import parse
from brickc.ir.printer import print_graph, quoted, surroundings
from brickc.ir.types import TensorType

CATALOGUE = catalogue()
SCALAR = TensorType(DType.F32)
x0, x1 = operand(0), operand(1)

TEXT = r"""graph "two \"nets\"" {
  dim N = 1..1024 typical 64
  %0: f32[N,4] = input "x" {limit=0}
  %1: f32[4] = parameter "conv1.weight" {init=uniform(-0.5,0.5), lr_scale=2.0, decay_scale=0.0}
  %2: f32[] = state "lr" {init=constant(0.1,0.0)}
  %3: f32[N,4] = map(%0, %1) {expr="x0*(1-x1^2)", operands=2}  # net.prototxt:41 "Schicht ü" grad of %4
  %7: f32[4] = reduce_sum(%3) {axes=[0], keepdims=false}  # "a b\n" note "odd: \"note\""
  output "y" = %3
  update "conv1.weight" = %7
}
"""


def example() -> Graph:
    graph = Graph('two "nets"')
    matrix = TensorType(DType.F32, (Dim("N"), 4))
    graph.add(Input("x", matrix), [], Origin())
    weight = TensorType(DType.F32, (4,))
    graph.add(Parameter("conv1.weight", weight, uniform(-0.5, 0.5), 2.0, 0.0), [], Origin())
    graph.add(State("lr", TensorType(DType.F32), constant(0.1)), [], Origin())
    origin = Origin("net.prototxt", 41, "Schicht ü", "grad of %4")
    graph.add(Map(x0 * (1 - x1**2), 2), [0, 1], origin)
    total = CATALOGUE["reduce_sum"]((0,), False)
    graph.add(total, [3], Origin(layer="a b\n", note='odd: "note"'), id=7)
    graph.outputs["y"] = 3
    graph.updates[1] = 7
    return graph


def assert_same(a: Graph, b: Graph) -> None:
    assert a.name == b.name
    assert a.nodes() == b.nodes()
    assert (a.inputs, a.parameters, a.states) == (b.inputs, b.parameters, b.states)
    assert list(a.outputs.items()) == list(b.outputs.items())
    assert list(a.updates.items()) == list(b.updates.items())
    mine, theirs = a.dims, b.dims
    assert {n: (d.lo, d.hi, d.typical) for n, d in mine.items()} == {
        n: (d.lo, d.hi, d.typical) for n, d in theirs.items()
    }


def test_text_of_a_graph() -> None:
    assert print_graph(example()) == TEXT
    assert_same(parse(TEXT, CATALOGUE), example())


@given(graphs())
def test_graphs_round_trip(graph: Graph) -> None:
    text = print_graph(graph)
    again = parse(text, CATALOGUE)
    assert print_graph(again) == text
    assert_same(again, graph)


@given(expressions())
def test_expressions_round_trip(expr: sp.Basic) -> None:
    text = print_expression(expr)
    again = parse_expression(text)
    assert again == expr
    assert sp.srepr(again) == sp.srepr(expr)
    assert print_expression(again) == text


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (x0 * (1 - x1**2), "x0*(1-x1^2)"),
        (x0 / x1, "x0/x1"),
        (1 / x1, "1/x1"),
        (-x0 / x1**2, "-x0/x1^2"),
        (x0 / 2 + sp.Float(0.1), "0.1+1/2*x0"),
        (sp.sqrt(x0), "sqrt(x0)"),
        (logistic(x0) * (1 - Y), "(1-y)*logistic(x0)"),
        (sp.Piecewise((x0, x0 > 0), (0, True)), "select(x0>0, x0, 0)"),
        (sp.And(sp.Ne(x0, 0), x1 < 2), "x1<2 & x0!=0"),
        (sp.Mul(-1, sp.Mul(2, x0), evaluate=False), "(-1)*(2*x0)"),
        (sp.Pow(2, -1, evaluate=False), "2^(-1)"),
        (sp.diff(sp.Function("f1")(x0, x1), x1), "D(f1(x0, x1), x1, 1)"),
        (sp.oo, "inf"),
    ],
)
def test_expressions_read_well(expr: sp.Basic, text: str) -> None:
    assert print_expression(expr) == text
    assert sp.srepr(parse_expression(text)) == sp.srepr(expr)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got the end; expected a number, a name or"),
        ("x0+", "at character 4, near 'x0+'"),
        ("x0 $ 1", "got '$'"),
        ("9^9^9", r"expected parentheses: \(a\^b\)\^c"),
        ("((9^9)^9999)^99999", "smaller numbers"),
        ("9^(9^99)", "a smaller exponent"),
        ("x0<x1<x2", "'&' between two comparisons"),
        ("tanh(x0, x1)", "one argument of tanh"),
        ("1/0", "a divisor that is not 0"),
        ("1e999", "a number that a float can hold"),
        ("x0 + (x1 > 0)", "a number before this, not a condition"),
        ("select(x0>0, x1>2, 0)", "a number before this, not a condition"),
        ("select(x0+1, x1, 0)", "a condition before this, not a number"),
        ("__import__", "x0, x1, … y or a function|expected x0"),
        ("(" * 1000, "nested too deeply"),
        ("tanh(" * 1000, "nested too deeply"),
        ("!" * 1000, "nested too deeply"),
        ("1" * 5000, "at most 800 digits"),
        ("D(x0, x0)", "a derivative of an unspecified function"),
        ("x0 " * 400_000, "too long"),
    ],
)
def test_bad_expressions(text: str, message: str) -> None:
    with pytest.raises(
        ImportModelError, match=message.replace("$", r"\$").replace("x0+'", r"x0\+'")
    ):
        parse_expression(text)


def test_expressions_without_text() -> None:
    for expr in (sp.Symbol("x0"), sp.Symbol("w"), sp.gamma(x0), sp.Float("0.1", 30), sp.I):
        with pytest.raises(UnsupportedError, match="no text form"):
            print_expression(expr)


def replaced(old: str, new: str) -> str:
    assert TEXT.count(old) == 1
    return TEXT.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "net.ir: no graph"),
        ("hello", "net.ir:1: not IR text; got 'hello'"),
        (TEXT.removesuffix("}\n"), "net.ir: the graph has no end"),
        (TEXT + "more", "net.ir:11: text after the end"),
        (replaced("f32[4] = parameter", "f32[4} = parameter"), "net.ir:4, character 1: a node's line"),
        (replaced("map(%0, %1)", "map(%0, %9)"), "net.ir:6: %9 is used before it is defined"),
        (replaced("map(%0, %1)", "map(%0)"), r"net.ir:6: map takes 2 operand\(s\); got 1"),
        (replaced("map(%0, %1)", "mop(%0, %1)"), "net.ir:6: no such brick; got 'mop'"),
        (replaced("map(%0, %1)", "input(%0, %1)"), "net.ir:6: no such brick"),
        (replaced("%3: f32[N,4]", "%3: f32[N,5]"), r"net.ir:6: map makes .* got f32\[N,5\]; expected f32\[N,4\]"),
        (replaced("%3: f32[N,4]", "%3: f32[M,4]"), "net.ir:6: dim M is not declared"),
        (replaced("%3: f32[N,4]", "%3: f99[N,4]"), "net.ir:6: unknown dtype; got 'f99'"),
        (replaced("%3: f32[N,4]", "%0: f32[N,4]"), "net.ir:6: %0 is defined twice"),
        (replaced("axes=[0]", "axes=[7]"), "net.ir:7: reduce_sum: "),
        (replaced("axes=[0]", "axes=0"), "net.ir:7: reduce_sum, attribute axes: an attribute of another type"),
        (replaced("axes=[0], ", ""), "net.ir:7: reduce_sum lacks the attribute 'axes'"),
        (replaced("keepdims=false", "keepdim=false"), "net.ir:7: reduce_sum has no attribute 'keepdim'"),
        (replaced("x1^2", "x1^"), "net.ir:6: map, attribute expr: an expression is wrong"),
        (replaced("uniform(-0.5,0.5)", "evil(-0.5,0.5)"), "net.ir:4: parameter, attribute init: unknown init"),
        (replaced("typical 64", "typical 4096"), "net.ir:2: dim N: the typical size is out of range"),
        (replaced('output "y" = %3', 'output "y" = %5'), "net.ir:8: %5 does not exist"),
        (replaced('update "conv1.weight" = %7', 'update "conv1.weight" = %3'), "net.ir:9: the update of"),
        (replaced('update "conv1.weight" = %7', 'update "x" = %0'), "net.ir:9: an update of what is neither"),
        (replaced('state "lr"', 'state "x"'), "net.ir:5: two leaves are called 'x'"),
        (replaced('input "x" {limit=0}', r'input "\x" {limit=0}'), "net.ir:3: not a JSON string"),
    ],
)  # fmt: skip
def test_bad_text(text: str, message: str) -> None:
    with pytest.raises(BrickcError, match=message):
        parse(text, CATALOGUE, "net.ir")


def test_bounds() -> None:
    nested = replaced("axes=[0]", "axes=" + "[" * 5000 + "]" * 5000)
    many = replaced("f32[4] = parameter", "f32[" + ",".join(["4"] * 100) + "] = parameter")
    huge = replaced("f32[4] = parameter", "f32[" + ",".join(["2147483647"] * 9) + "] = parameter")
    number = replaced("%3: f32[N,4]", "%" + "9" * 5000 + ": f32[N,4]")
    for text in (nested, many, huge, number, replaced('"x" {', '"' + "x" * 5000 + '" {')):
        with pytest.raises(BrickcError, match=r"^net.ir:\d+"):
            parse(text, CATALOGUE, "net.ir")


@given(st.data())
def test_damaged_text(data: st.DataObject) -> None:
    """Whatever is flipped, cut out or doubled: a graph that still verifies, or a clear error."""
    text = print_graph(data.draw(graphs())) if data.draw(st.booleans()) else TEXT
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(text) - 1)))
        end = data.draw(st.integers(at, min(len(text), at + 30)))
        match data.draw(st.sampled_from(["flip", "cut", "truncate", "double", "insert"])):
            case "flip":
                flipped = chr(ord(text[at : at + 1] or "x") ^ (1 << data.draw(st.integers(0, 6))))
                text = text[:at] + flipped + text[at + 1 :]
            case "cut":
                text = text[:at] + text[end:]
            case "truncate":
                text = text[:at]
            case "double":
                text = text[:end] + text[at:]
            case _:
                extra = data.draw(st.sampled_from(["9" * 30, '"', "]", "{", "nan", "\n", "N", "-"]))
                text = text[:at] + extra + text[at:]
    try:
        graph = parse(text, CATALOGUE, "net.ir")
    except BrickcError as error:
        assert str(error).startswith("net.ir")
        assert len(str(error)) < 2000
    else:
        again = print_graph(graph)
        assert print_graph(parse(again, CATALOGUE)) == again


def test_quoted_hides_nothing() -> None:
    assert quoted("a\u202eb\x7f\n\U000e0001") == r'"a\u202eb\u007f\n\udb40\udc01"'
    assert quoted("größe × 2") == '"größe × 2"'


def test_empty_lines_and_comments() -> None:
    text = TEXT.replace("\n  output", "\n\n# a remark\n\t  output").replace("\n", "\r\n")
    assert_same(parse(text, CATALOGUE), example())


def test_surroundings_mark_the_node() -> None:
    lines = surroundings(example(), 3, radius=1).split("\n")
    assert [line[:6] for line in lines] == ["  %2: f"[:6], "> %3: ", "  %7: "]
    with pytest.raises(VerifyError, match="%5 does not exist"):
        example().node(5)


@given(st.floats())
def test_every_float(value: float) -> None:
    graph = Graph("floats")
    graph.add(Parameter("w", SCALAR, constant(value), lr_scale=value), [], Origin())
    brick = parse(print_graph(graph), CATALOGUE).node(0).brick
    assert isinstance(brick, Parameter)
    assert repr((brick.lr_scale, brick.init.a)) == repr((value, value))
    if math.isfinite(value):
        assert parse_expression(print_expression(sp.Float(value))) == sp.Float(value)
