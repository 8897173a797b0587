"""Sums and slopes of a max pooling's gradient move to the pooled side."""

from __future__ import annotations

import numpy as np
import pytest
from graph_tools import Net

from brickc.compiler.optimize.pool_gradients import shrink_pool_gradients
from brickc.ir.brick import Brick
from brickc.ir.bricks.elementwise import Map
from brickc.ir.bricks.reduce import ReduceSum
from brickc.ir.bricks.window import WindowMax, WindowMaxScatter
from brickc.ir.expression import operand
from brickc.ir.interpret import interpret


def _net(brick: Brick, *, reads_scatter: int = 1, padding: int = 0, extra: bool = False) -> Net:
    net = Net()
    x, v = net.input("x", (2, 3, 6, 6)), net.input("v", (2, 3, 3 + padding, 3 + padding))
    pads = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    geometry = (1, 1, 2, 2), (1, 1, 2, 2), pads
    y = net.builder.add(WindowMax(*geometry), x)
    s = net.builder.add(WindowMaxScatter(*geometry), x, y, v)
    net.output("result", net.builder.add(brick, s, *[x] * (reads_scatter - 1)))
    if extra:
        net.output("whole", s)
    return net


def _same(net: Net) -> list[str]:
    """Mnemonics after the pass, once its values have been compared."""
    after = shrink_pool_gradients(net.graph)
    rng = np.random.default_rng(3)
    feed = {n.brick.name: rng.standard_normal(n.type.concrete({}))  # type: ignore[attr-defined]
            for n in net.graph.nodes() if not n.operands}  # fmt: skip
    old, new = interpret(net.graph, feed), interpret(after, feed)
    np.testing.assert_allclose(new["result"], old["result"], rtol=1e-12)
    found = after.node(after.outputs["result"])
    return [found.brick.mnemonic, *(after.node(o).brick.mnemonic for o in found.operands)]


@pytest.mark.parametrize("padding", [0, 1])
def test_sum_over_windows(padding: int) -> None:
    assert _same(_net(ReduceSum((0, 2, 3), False), padding=padding)) == ["reduce_sum", "input"]


def test_sum_that_cuts_windows_stays() -> None:
    assert _same(_net(ReduceSum((0, 2), False))) == ["reduce_sum", "window_max_scatter"]


def test_slope_moves_before_the_scatter() -> None:
    x0, x1 = operand(0), operand(1)
    net = _net(Map(x0 * x1**2, 2), reads_scatter=2)
    assert _same(net) == ["window_max_scatter", "input", "window_max", "map"]


@pytest.mark.parametrize("expression", ["x0 + x1", "x0**2*x1"])
def test_what_is_no_factor_stays(expression: str) -> None:
    x0, x1 = operand(0), operand(1)
    formula = {"x0 + x1": x0 + x1, "x0**2*x1": x0**2 * x1}[expression]
    assert _same(_net(Map(formula, 2), reads_scatter=2))[0] == "map"


def test_a_scatter_that_others_read_stays() -> None:
    x0, x1 = operand(0), operand(1)
    assert _same(_net(Map(x0 * x1, 2), reads_scatter=2, extra=True))[0] == "map"
