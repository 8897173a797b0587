"""The same change all through a graph."""

from __future__ import annotations

import numpy as np

from brickc.frontends import trace
from brickc.frontends.model import Model
from brickc.ir.dtypes import DType
from brickc.ir.interpret import interpret
from brickc.ir.substitute import retype


def test_literals_follow_their_dtype() -> None:
    table = np.array([0.5, -1.25, 3.0], np.float32)
    model = Model(trace.input("x", (3,)) * trace.literal(table))
    graph = retype(model.inference(), {DType.F32: DType.F64})
    y = interpret(graph, {"x": np.array([2.0, 4.0, 1.0])}).outputs["output"]
    assert y.dtype == np.float64
    assert y.tolist() == [1.0, -5.0, 3.0]
