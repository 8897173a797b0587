"""Layers on every element. Expected numbers are written out from the formulas of Caffe's layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from caffe_nets import check_gradients, gradients, inputs_text, model_of, run_layer

from brickc.errors import ImportModelError

X = np.array([[-2.0, -0.5, 0.0, 0.5, 3.0]], np.float32)
E = math.e


def neuron(type: str, parameters: str = "") -> list[float]:
    layer = f'layer {{ name: "n" type: "{type}" bottom: "x" top: "y" {parameters} }}'
    return [float(v) for v in run_layer(layer, {"x": X})["y"][0]]


@pytest.mark.parametrize(
    ("type", "parameters", "expected"),
    [
        ("ReLU", "", [0, 0, 0, 0.5, 3]),
        # Caffe's TestReLUWithNegativeSlope has 0.01
        ("ReLU", "relu_param { negative_slope: 0.01 }", [-0.02, -0.005, 0, 0.5, 3]),
        ("ReLU6", "", [0, 0, 0, 0.5, 3]),
        ("Sigmoid", "", [0.1192029, 0.3775407, 0.5, 0.6224593, 0.9525741]),
        ("TanH", "", [-0.9640276, -0.4621172, 0, 0.4621172, 0.9950548]),
        ("AbsVal", "", [2, 0.5, 0, 0.5, 3]),
        ("BNLL", "", [0.1269280, 0.4740770, 0.6931472, 0.9740770, 3.0485874]),
        ("ELU", "", [E**-2 - 1, E**-0.5 - 1, 0, 0.5, 3]),
        ("ELU", "elu_param { alpha: 0.5 }", [(E**-2 - 1) / 2, (E**-0.5 - 1) / 2, 0, 0.5, 3]),
        ("Swish", "", [-0.2384058, -0.1887703, 0, 0.3112297, 2.8577224]),
        ("Swish", "swish_param { beta: 0 }", [-1, -0.25, 0, 0.25, 1.5]),
        ("Clip", "clip_param { min: -1 max: 2 }", [-1, -0.5, 0, 0.5, 2]),
        ("Threshold", "", [0, 0, 0, 1, 1]),
        ("Threshold", "threshold_param { threshold: 0.5 }", [0, 0, 0, 0, 1]),
        ("Power", "", [-2, -0.5, 0, 0.5, 3]),
        # (shift + scale·x)^power
        ("Power", "power_param { power: 2 scale: 3 shift: 1 }", [25, 0.25, 1, 6.25, 100]),
        ("Power", "power_param { power: 0 }", [1, 1, 1, 1, 1]),
        ("Power", "power_param { power: 2 scale: 0 shift: 3 }", [9, 9, 9, 9, 9]),
        ("Exp", "", [E**v for v in X[0]]),
        ("Exp", "exp_param { base: 2 }", [0.25, 2**-0.5, 1, 2**0.5, 8]),
        ("Exp", "exp_param { base: 2 scale: 3 shift: 1 }", [2**-5, 2**-0.5, 2, 2**2.5, 1024]),
        ("Log", "log_param { base: 2 shift: 5 }", [math.log2(v + 5) for v in X[0]]),
        ("Log", "log_param { scale: 2 shift: 5 }", [math.log(2 * v + 5) for v in X[0]]),
        ("PReLU", "", [-0.5, -0.125, 0, 0.5, 3]),
        ("PReLU", 'prelu_param { channel_shared: true filler { value: 0.1 } }', [-0.2, -0.05, 0, 0.5, 3]),
        ("Dropout", "", [-2, -0.5, 0, 0.5, 3]),
    ],
)  # fmt: skip
def test_values(type: str, parameters: str, expected: list[float]) -> None:
    np.testing.assert_allclose(neuron(type, parameters), expected, rtol=1e-5, atol=1e-6)


def test_dropout_in_training() -> None:
    text = (
        inputs_text({"x": (4, 50)})
        + 'layer { name: "d" type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: 0.75 } }'
        + 'layer { name: "r" type: "Reduction" bottom: "y" top: "r" loss_weight: 1 }'
    )
    # what stays is scaled by 1/(1 - ratio): multiples of 4
    total = run_layer(text.partition("\n")[2], {"x": np.ones((4, 50))}, training=True)["loss"]
    assert total % 4 == 0
    assert 80 < total < 400


@pytest.mark.parametrize(
    ("type", "parameters"),
    [
        ("ReLU", ""), ("ReLU", "relu_param { negative_slope: 0.2 }"), ("Sigmoid", ""), ("TanH", ""),
        ("AbsVal", ""), ("BNLL", ""), ("ELU", ""), ("Swish", "swish_param { beta: 1.5 }"),
        ("Power", "power_param { power: 3 scale: 0.5 shift: 2 }"), ("Exp", "exp_param { base: 2 }"),
        ("PReLU", ""), ("Scale", "scale_param { bias_term: true }"), ("Bias", ""),
        ("Scale", "scale_param { axis: 0 num_axes: -1 }"),
    ],
)  # fmt: skip
def test_gradients(type: str, parameters: str) -> None:
    text = (
        'layer { name: "v" type: "Parameter" top: "x" parameter_param { shape { dim: 3 dim: 4 dim: 2 } } }'
        f'layer {{ name: "n" type: "{type}" bottom: "x" top: "y" {parameters} }}'
        'layer { name: "l" type: "Reduction" bottom: "y" top: "l" reduction_param { operation: SUMSQ } loss_weight: 1 }'
    )
    assert check_gradients(text) == []


def test_slopes_at_the_kink() -> None:
    # relu: diff·(x > 0 + slope·(x <= 0)); prelu the same; absval: diff·sign(x)
    text = (
        'layer {{ name: "v" type: "Parameter" top: "x" parameter_param {{ shape {{ dim: 1 dim: 1 }} }} }}'
        'layer {{ name: "n" type: "{}" bottom: "x" top: "y" {} }}'
        'layer {{ name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }}'
    )
    for type, parameters, slope in (
        ("ReLU", "", 0),
        ("ReLU", "relu_param { negative_slope: 0.25 }", 0.25),
        ("PReLU", "", 0.25),
        ("AbsVal", "", 0),
    ):
        assert gradients(model_of(text.format(type, parameters)), {})["v.weight"] == slope


# ── two blobs ────────────────────────────────────────────────────────────────────────────

A, B, C = (np.array([[1, 5, -3]]), np.array([[2, 4, -3]]), np.array([[0, 9, 1]]))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("", [3, 18, -5]),  # the sum is the default
        ("operation: PROD", [0, 180, 9]),
        ("operation: MAX", [2, 9, 1]),
        # Caffe's TestSumCoeff has the coefficients 1, -0.5, 2
        ("operation: SUM coeff: 1 coeff: -0.5 coeff: 2", [0, 21, 0.5]),
    ],
)
def test_eltwise(parameters: str, expected: list[float]) -> None:
    layer = (
        'layer { name: "e" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "y" '
        f"eltwise_param {{ {parameters} }} }}"
    )
    assert run_layer(layer, {"a": A, "b": B, "c": C})["y"].tolist() == [expected]


def test_ties_of_a_maximum() -> None:
    # the first blob wins if it is greater, so a tie is the second's; the third must be greater
    text = "".join(
        f'layer {{ name: "{n}" type: "Parameter" top: "{n}" parameter_param {{ shape {{ dim: 1 }} }} }}'
        for n in "abc"
    ) + (
        'layer { name: "e" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "y" eltwise_param { operation: MAX } }'
        'layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }'
    )
    found = gradients(model_of(text), {}, {"a.weight": [1], "b.weight": [1], "c.weight": [1]})
    assert [found[f"{n}.weight"].item() for n in "abc"] == [0, 1, 0]


@pytest.mark.parametrize(
    "parameters", ["operation: PROD coeff: 1 coeff: 2 coeff: 3", "coeff: 1 coeff: 2"]
)
def test_eltwise_that_makes_no_sense(parameters: str) -> None:
    layer = (
        'layer { name: "e" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "y" '
        f"eltwise_param {{ {parameters} }} }}"
    )
    with pytest.raises(ImportModelError, match="coefficient"):
        run_layer(layer, {"a": A, "b": B, "c": C})


@pytest.mark.parametrize(
    ("axis", "shape"),
    [(0, (2, 3, 4, 5)), (0, (2, 3)), (1, (3, 4)), (2, (4, 5)), (-1, (5,)), (0, ())],
)
@pytest.mark.parametrize("type", ["Scale", "Bias"])
def test_a_second_bottom_is_broadcast(type: str, axis: int, shape: tuple[int, ...]) -> None:
    # the shapes of Caffe's tests: TestForwardBroadcastBegin, …Middle, …End, scalar
    rng = np.random.default_rng(3)
    x, b = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal(shape)
    layer = (
        f'layer {{ name: "s" type: "{type}" bottom: "x" bottom: "b" top: "y" '
        f"{type.lower()}_param {{ axis: {axis} }} }}"
    )
    first = axis % 4
    wide = b.reshape((1,) * first + shape + (1,) * (4 - first - len(shape)))
    expected = x * wide if type == "Scale" else x + wide
    np.testing.assert_allclose(run_layer(layer, {"x": x, "b": b})["y"], expected, rtol=1e-5)


def test_scale_with_bias() -> None:
    layer = 'layer { name: "s" type: "Scale" bottom: "x" top: "y" scale_param { bias_term: true } }'
    values = {"s.weight": [2, 3], "s.bias": [10, 20]}
    y = run_layer(layer, {"x": np.ones((1, 2, 2))}, values)["y"]
    assert y.tolist() == [[[12, 12], [23, 23]]]
    # without a filler the scale starts at 1
    assert run_layer(layer, {"x": np.ones((1, 2, 2))})["y"].tolist() == [[[1, 1], [1, 1]]]


def test_axpy_of_forks() -> None:
    layer = 'layer { name: "s" type: "Axpy" bottom: "a" bottom: "x" bottom: "z" top: "y" }'
    y = run_layer(
        layer,
        {"a": np.full((1, 2, 1, 1), 3), "x": np.ones((1, 2, 2, 2)), "z": np.full((1, 2, 2, 2), 5)},
    )
    assert (y["y"] == 8).all()
