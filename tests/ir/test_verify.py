"""The verifier finds every kind of broken graph, and shows the lines around the fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from random_graphs import graphs

from brickc.errors import VerifyError
from brickc.ir.brick import Input, Parameter, State
from brickc.ir.bricks.arithmetic import Add, Mul
from brickc.ir.bricks.reduce import ReduceSum
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.graph import Graph
from brickc.ir.initializers import constant
from brickc.ir.origin import Origin
from brickc.ir.types import TensorType
from brickc.ir.verify import verify

MATRIX = TensorType(DType.F32, (Dim("N"), 4))
ROW = TensorType(DType.F32, (4,))


def example() -> Graph:
    graph = Graph("example")
    graph.add(Input("x", MATRIX), [], Origin())
    graph.add(Parameter("w", ROW, constant(0)), [], Origin())
    graph.add(State("s", ROW, constant(0)), [], Origin())
    graph.add(Mul(), [0, 1], Origin("net.py", 12, "scale"))
    graph.add(ReduceSum((0,), False), [3], Origin())
    graph.add(Add(), [4, 2], Origin())
    graph.outputs["y"] = 3
    graph.updates[2] = 5
    return graph


def change(graph: Graph, id: int, **fields: object) -> None:
    graph._nodes[id] = replace(graph.node(id), **fields)  # type: ignore[arg-type]
    graph._order = None


def set_type(graph: Graph) -> None:
    change(graph, 3, type=ROW)


def set_operands(graph: Graph) -> None:
    change(graph, 3, operands=(0, 0))


def lose_operand(graph: Graph) -> None:
    change(graph, 3, operands=(0,))


def dangle(graph: Graph) -> None:
    change(graph, 3, operands=(0, 77))


def cycle(graph: Graph) -> None:
    graph._dag.add_edge(5, 3, key=2)
    graph._order = None


def bad_axes(graph: Graph) -> None:
    change(graph, 4, brick=ReduceSum((5,), False))


def no_sense(graph: Graph) -> None:
    change(graph, 4, brick=ReduceSum(None, False))  # type: ignore[arg-type]


def missing_output(graph: Graph) -> None:
    graph.outputs["z"] = 99


def missing_update(graph: Graph) -> None:
    graph.updates[1] = 99


def update_of_input(graph: Graph) -> None:
    graph.updates[0] = 3


def update_type(graph: Graph) -> None:
    graph.updates[2] = 3


def same_name(graph: Graph) -> None:
    change(graph, 2, brick=State("w", ROW, constant(0)))


def other_name(graph: Graph) -> None:
    change(graph, 2, brick=State("t", ROW, constant(0)))


def other_kind(graph: Graph) -> None:
    change(graph, 2, brick=Input("s", ROW))


def listed_only(graph: Graph) -> None:
    graph.inputs["ghost"] = 3


def two_dims(graph: Graph) -> None:
    other = TensorType(DType.F32, (Dim("N", 1, 7), 4))
    graph.add(Input("z", other), [], Origin())


def two_typicals(graph: Graph) -> None:
    other = TensorType(DType.F32, (Dim("N", 1, 1024, 3), 4))
    graph.add(Input("z", other), [], Origin())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            set_type,
            r'net.py:12 "scale": %3: mul has another type; got f32\[4\]; expected f32\[N,4\]',
        ),
        (set_operands, r"%3: the edges are not the operands; got \[0, 1\]; expected \[0, 0\]"),
        (lose_operand, "%3: the edges are not the operands"),
        (dangle, "%3: %77 does not exist"),
        (cycle, "has a cycle"),
        (bad_axes, "%4: reduce_sum: "),
        (no_sense, "%4: the attributes or operands of reduce_sum make no sense; got TypeError"),
        (missing_output, "output 'z' is %99, which graph 'example' does not have"),
        (missing_update, "the update of 'w' is %99"),
        (update_of_input, "%0: an update of what is neither parameter nor state"),
        (update_type, r"%3: the update of 's' has another type; got f32\[N,4\]; expected f32\[4\]"),
        (same_name, "%2: 'w' is the name of %1 too"),
        (other_name, "%2: state 't' is not listed as one"),
        (other_kind, "%2: input 's' is not listed as one"),
        (listed_only, "lists a leaf that it does not have; got 'ghost'"),
        (two_dims, "%6: dim N is not the same as in %0; got 1..7 typical 7; expected 1..1024"),
        (two_typicals, "%6: dim N is not the same as in %0; got 1..1024 typical 3"),
    ],
)
def test_broken_graphs(damage: Callable[[Graph], None], message: str) -> None:
    graph = example()
    verify(graph)
    damage(graph)
    with pytest.raises(VerifyError, match=message):
        verify(graph)


def test_the_lines_around() -> None:
    graph = example()
    set_type(graph)
    with pytest.raises(VerifyError) as caught:
        verify(graph)
    lines = str(caught.value).split("\n")
    assert '> %3: f32[4] = mul(%0, %1)  # net.py:12 "scale"' in lines
    assert "  %4: f32[4] = reduce_sum(%3) {axes=[0], keepdims=false}" in lines


@given(graphs())
def test_good_graphs(graph: Graph) -> None:
    verify(graph)
