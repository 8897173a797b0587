"""From a scheduled graph to kernels."""

from __future__ import annotations

import numpy as np
import pytest

import brickc as bc
from brickc.frontends.build import build_graph
from brickc.frontends.trace import Tensor
from brickc.ir.bricks.convolution import ConvolutionInputGrad, ConvolutionWeightGrad
from brickc.ir.interpret import interpret


@pytest.mark.parametrize("of", ["input", "weight"])
def test_a_literal_lies_as_its_reader_wants_it(of: str, rng: np.random.Generator) -> None:
    """Convolutions' gradients want the batch innermost; a constant cotangent has to be moved."""
    cotangent: Tensor = bc.literal(rng.standard_normal((2, 8, 4, 4)), "f64")
    geometry = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    if of == "input":
        shape = (8, 4, 3, 3)
        x = bc.input("x", shape, "f64")
        y = x.apply(ConvolutionInputGrad(*geometry, (4, 4)), cotangent, x)
    else:
        shape = (2, 4, 4, 4)
        x = bc.input("x", shape, "f64")
        y = x.apply(ConvolutionWeightGrad(*geometry, (3, 3)), x, cotangent)
    inputs = {"x": rng.standard_normal(shape)}
    expected = interpret(build_graph("literal", {"y": y}, {}), inputs)["y"]
    program = bc.compile(bc.Model({"y": y}), functions=["infer"])
    np.testing.assert_allclose(program.infer(**inputs)["y"], expected, rtol=1e-9, atol=1e-9)


def test_integers_are_padded() -> None:
    x = bc.input("x", (3,), "i64")
    program = bc.compile(bc.Model({"y": bc.pad(x, (1,), (2,), -1.0)}), functions=["infer"])
    got = program.infer(x=np.array([5, 6, 7]))["y"]
    np.testing.assert_array_equal(got, [-1, 5, 6, 7, -1, -1])
