"""What bricks share with their neighbours: views, several results, memory written in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sympy as sp
from conformance import TARGETS, check
from graph_tools import Net
from hypothesis import given
from hypothesis import strategies as st

from brickc.ir.bricks import arithmetic as a
from brickc.ir.bricks.activation import Logistic, ReLU, Tanh
from brickc.ir.bricks.contract import Contract
from brickc.ir.bricks.convert import Cast
from brickc.ir.bricks.convolution import (
    Convolution,
    ConvolutionInputGrad,
    ConvolutionWeightGrad,
)
from brickc.ir.bricks.elementwise import Map
from brickc.ir.bricks.indexing import Gather, ScatterAdd
from brickc.ir.bricks.reduce import ArgMax, ReduceMax, ReduceSum
from brickc.ir.bricks.shape import (
    BroadcastTo,
    Concat,
    Fold,
    Pad,
    Reshape,
    Reverse,
    Slice,
    Transpose,
    Unfold,
)
from brickc.ir.bricks.source import Constant, DimSize
from brickc.ir.bricks.window import WindowMax, WindowMaxScatter, WindowSum, WindowSumGrad
from brickc.ir.builder import GraphValue
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType
from brickc.ir.expression import operand

pytestmark = pytest.mark.parametrize("target", TARGETS)

N = Dim("N", 1, 8)

# ── anchors that read through views ──────────────────────────────────────────────────────────

VIEWS = {
    "transposed": ((6, 5, 4, 3), (Transpose((3, 2, 1, 0)),)),
    "sliced": ((5, 6, 7, 9), (Slice((1, 1, 0, 2), (4, 5, 5, 8), (1, 1, 1, 1)),)),
    "every second": ((6, 7, 9, 12), (Slice((1, 0, 0, 0), (6, 7, 9, 12), (2, 2, 2, 2)),)),
    "reversed": ((3, 4, 5, 6), (Reverse((0, 2, 3)),)),
    "broadcast": ((4, 1, 6), (BroadcastTo((3, 4, 5, 6)),)),
    "one element": ((), (BroadcastTo((3, 4, 5, 6)),)),
    "reshaped": ((3, 20, 6), (Reshape((3, 4, 5, 6)),)),
    "reshaped, transposed": ((5, 24, 3), (Reshape((5, 4, 6, 3)), Transpose((3, 1, 0, 2)))),
    "copied by a reshape": ((6, 3, 20), (Transpose((1, 2, 0)), Reshape((3, 4, 5, 6)))),
    "windows": ((3, 4, 10), (Unfold(2, 6, 1, 1),)),
    "windows, transposed": ((3, 4, 15), (Unfold(2, 5, 2, 1), Transpose((0, 1, 3, 2)))),
    "all at once": (
        (1, 5, 9, 14),
        (
            Slice((0, 0, 1, 0), (1, 5, 9, 12), (1, 1, 2, 2)), Transpose((0, 2, 1, 3)),
            BroadcastTo((3, 4, 5, 6)), Reverse((1, 2)),
        ),
    ),
}  # fmt: skip

WINDOW = ((1, 1, 3, 2), (1, 1, 2, 1), ((0, 0), (0, 0), (1, 1), (0, 1)))
CONV = ((1, 2), ((1, 0), (1, 1)), (1, 1), 1)


def _conv_grad(x: GraphValue, net: Net) -> GraphValue:
    """x as the cotangent of a convolution of something of 7 by 12."""
    w = net.input("w", (4, 2, 2, 3))
    return x.apply(ConvolutionInputGrad(*CONV, (5, 12)), x, w)  # type: ignore[return-value]


def _scatter(x: GraphValue, net: Net) -> GraphValue:
    big = net.input("big", (3, 4, 5, 6))
    y = big.apply(WindowMax(*WINDOW), big)
    part = x.apply(Slice((0, 0, 0, 0), y.shape, (1, 1, 1, 1)), x)
    return big.apply(WindowMaxScatter(*WINDOW), big, y, part)  # type: ignore[return-value]


READERS = {
    "map": lambda x, net: x.apply(Tanh(), x),
    "sum": lambda x, net: x.apply(ReduceSum((1, 3), False), x),
    "maximum": lambda x, net: x.apply(ReduceMax((0, 2), True), x),
    "argmax": lambda x, net: x.apply(ArgMax(2, False), x),
    "product": lambda x, net: x.apply(Contract("abcd,ed->abce"), x, net.input("w", (7, 6))),
    "batched product": lambda x, net: x.apply(
        Contract("abcd,abde->abce"), x, net.input("w", (3, 4, 6, 2))
    ),
    "with itself": lambda x, net: x.apply(Contract("abcd,abed->abce"), x, x),
    "inner product": lambda x, net: x.apply(Contract("abcd,abcd->"), x, x),
    "convolution": lambda x, net: x.apply(Convolution(*CONV), x, net.input("w", (2, 4, 2, 3))),
    "input gradient": _conv_grad,
    "weight gradient": lambda x, net: x.apply(
        ConvolutionWeightGrad(*CONV, (2, 3)), x, net.input("w", (3, 2, 5, 3))
    ),
    "window sum": lambda x, net: x.apply(WindowSum(*WINDOW), x),
    "window max": lambda x, net: x.apply(WindowMax(*WINDOW), x),
    "window sum gradient": lambda x, net: x.apply(WindowSumGrad(*WINDOW, (3, 4, 9, 6)), x),
    "scatter": _scatter,
    "pad": lambda x, net: x.apply(Pad((0, 1, 0, 2), (1, 0, 0, 1), (0, 1, 0, 0), 0.5), x),
    "concat": lambda x, net: x.apply(Concat(1), x, net.input("w", (3, 2, 5, 6)), x),
    "fold": lambda x, net: x.apply(Fold(2, 14, 2, 1), x),
    "gather": lambda x, net: x.apply(Gather(1), x, net.input("i", (2,), DType.I32, 4)),
    "scatter add": lambda x, net: x.apply(ScatterAdd(0, 5), net.input("i", (3,), DType.I32, 5), x),
    "unfold": lambda x, net: x.apply(Unfold(3, 3, 2, 1), x),
}


def arrays(net: Net, rng: np.random.Generator, **dims: int) -> dict[str, Any]:
    """Values for all leaves; integers below their limit."""
    found = {}
    graph = net.graph
    for name, id in (graph.inputs | graph.parameters | graph.states).items():
        type = graph.node(id).type
        shape = type.concrete(dims)
        if type.dtype.is_float:
            found[name] = rng.standard_normal(shape).astype(type.dtype.numpy)
        elif type.dtype is DType.BOOL:
            found[name] = rng.random(shape) < 0.5
        else:
            limit = getattr(graph.node(id).brick, "limit", 0) or 5
            found[name] = rng.integers(0, limit, shape).astype(type.dtype.numpy)
    return found


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("view", VIEWS)
def test_view_as_operand(target: str, view: str, reader: str, rng: np.random.Generator) -> None:
    shape, bricks = VIEWS[view]
    net = Net()
    x: Any = net.input("x", shape)
    for brick in bricks:
        x = x.apply(brick, x)
    assert x.shape == (3, 4, 5, 6)
    net.output("y", READERS[reader](x, net))
    check(net.graph, arrays(net, rng), target=target)
