"""NaN in the windows of a maximum: every backend picks the element that the interpreter picks.

A maximum over a NaN is NaN, and the first NaN of the window has it: before infinities, after
padding, in windows that overlap, in any memory order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance import TARGETS, check
from graph_tools import Net

from brickc.ir.bricks.shape import Transpose
from brickc.ir.bricks.window import WindowMax, WindowMaxGather, WindowMaxScatter
from brickc.ir.dims import Dim
from brickc.ir.dtypes import DType

pytestmark = pytest.mark.parametrize("target", TARGETS)

NONE = ((0, 0),) * 4
GEOMETRY = {
    "tiles": ((1, 1, 2, 2), (1, 1, 2, 2), NONE),
    "overlapping": ((1, 1, 3, 3), (1, 1, 1, 2), NONE),
    "gaps": ((1, 1, 2, 1), (1, 1, 3, 2), NONE),
    "padded": ((1, 1, 3, 2), (1, 1, 2, 1), ((0, 0), (0, 0), (1, 1), (0, 1))),
    "padded, overlapping": ((1, 1, 3, 3), (1, 1, 1, 1), ((0, 0), (0, 0), (1, 1), (2, 1))),
}


def _spoilt(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Ties, signed zeros, infinities of both signs and NaNs side by side."""
    kinds = np.array([0.0, -0.0, 1.0, 1.0, -2.0, np.inf, -np.inf, np.nan, np.nan])
    x = rng.choice(kinds, shape)
    x[:, 0] = rng.choice(kinds[:5], shape[2:])  # windows without NaN, too
    x[0, -1] = np.nan
    x[-1, -1] = -np.inf
    return x


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize("geometry", GEOMETRY.values(), ids=GEOMETRY)
def test_the_first_nan_of_a_window(target: str, geometry: Any, dtype: DType) -> None:
    net = Net(dtype)
    x, v = net.input("x", (3, 4, 7, 8)), net.input("v", (3, 4, 7, 8))
    y = x.apply(WindowMax(*geometry), x)
    dy = net.input("dy", y.shape)
    net.output("maximum", y)
    net.output("scattered", x.apply(WindowMaxScatter(*geometry), x, y, dy))
    net.output("gathered", x.apply(WindowMaxGather(*geometry), x, y, v))
    rng = np.random.default_rng(7)
    feeds = [
        {
            "x": _spoilt(rng, x.shape).astype(dtype.numpy),  # type: ignore[arg-type]
            # whole numbers: sums of overlapping windows are exact in any order
            "v": rng.integers(1, 99, x.shape).astype(dtype.numpy),  # type: ignore[arg-type]
            "dy": rng.integers(1, 99, y.shape).astype(dtype.numpy),  # type: ignore[arg-type]
        }
        for _ in range(2)
    ]
    clean = feeds[0] | {"x": np.nan_to_num(feeds[0]["x"], nan=0.5)}
    check(net.graph, *feeds, clean, target=target, tolerance=0.0)


def test_nan_in_another_memory_order(target: str) -> None:
    net = Net()
    n = Dim("N", 1, 8)
    x = net.input("x", (7, 8, n, 3))
    moved = x.apply(Transpose((2, 3, 0, 1)), x)
    y = moved.apply(WindowMax(*GEOMETRY["tiles"]), moved)
    net.output("maximum", y)
    net.output("scattered", moved.apply(WindowMaxScatter(*GEOMETRY["tiles"]), moved, y, y))
    rng = np.random.default_rng(3)
    feeds = [{"x": _spoilt(rng, (k, 3, 7, 8)).transpose(2, 3, 0, 1)} for k in (5, 1)]
    check(net.graph, *feeds, target=target, tolerance=0.0)
