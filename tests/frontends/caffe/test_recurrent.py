"""LSTM and RNN against NumPy loops of lstm_layer.cpp's and rnn_layer.cpp's formulas."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_nets import check_gradients, imported, inputs_text, run_layer

from brickc.errors import BrickcError

T, N, D, H = 3, 2, 4, 5
RNG = np.random.default_rng(10)
X = RNG.standard_normal((T, N, D))
CONT = np.array([[0, 0], [1, 1], [1, 0]])


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def layer_of(type: str, extra: str = "", bottoms: str = "", tops: str = "") -> str:
    return (
        f'layer {{ name: "r" type: "{type}" bottom: "x" bottom: "cont" {bottoms} top: "y" {tops} '
        f"recurrent_param {{ num_output: {H} {extra} }} }}"
    )


def cell(c: np.ndarray, gate: np.ndarray, cont: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # i, f, o, g in this order; the forget gate is multiplied by cont
    i, f, o, g = np.split(gate, 4, axis=-1)
    c = cont * logistic(f) * c + logistic(i) * np.tanh(g)
    return c, logistic(o) * np.tanh(c)


@pytest.mark.parametrize("static", [False, True])
def test_lstm(static: bool) -> None:
    values = {
        "r.weight": RNG.standard_normal((4 * H, D)),
        "r.bias": RNG.standard_normal(4 * H),
        "r.weight_static": RNG.standard_normal((4 * H, 3)),
        "r.weight_h": RNG.standard_normal((4 * H, H)),
    }
    inputs = {"x": X, "cont": CONT}
    extra = np.zeros((N, 4 * H))
    if static:
        inputs["s"] = RNG.standard_normal((N, 3))
        extra = inputs["s"] @ values["r.weight_static"].T
    else:
        del values["r.weight_static"]
    found = run_layer(layer_of("LSTM", bottoms='bottom: "s"' if static else ""), inputs, values)[
        "y"
    ]
    h = c = np.zeros((N, H))
    for t in range(T):
        cont = CONT[t][:, None]
        gate = (
            X[t] @ values["r.weight"].T
            + values["r.bias"]
            + (cont * h) @ values["r.weight_h"].T
            + extra
        )
        c, h = cell(c, gate, cont)
        np.testing.assert_allclose(found[t], h, rtol=1e-4, atol=1e-6)


def test_exposed_states() -> None:
    values = {
        "r.weight": RNG.standard_normal((4 * H, D)),
        "r.bias": RNG.standard_normal(4 * H),
        "r.weight_h": RNG.standard_normal((4 * H, H)),
    }
    h, c = RNG.standard_normal((2, 1, N, H))
    inputs = {"x": X, "cont": np.ones((T, N)), "h0": h, "c0": c}
    text = layer_of(
        "LSTM", "expose_hidden: true", 'bottom: "h0" bottom: "c0"', 'top: "h1" top: "c1"'
    )
    found = run_layer(text, inputs, values)
    for t in range(T):
        gate = X[t] @ values["r.weight"].T + values["r.bias"] + h[-1] @ values["r.weight_h"].T
        c, h = (a[None] for a in cell(c[-1], gate, np.ones((N, 1))))
    np.testing.assert_allclose(found["h1"], h, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["c1"], c, rtol=1e-4, atol=1e-6)


def test_rnn() -> None:
    values = {
        "r.weight": RNG.standard_normal((H, D)), "r.bias": RNG.standard_normal(H),
        "r.weight_h": RNG.standard_normal((H, H)), "r.weight_o": RNG.standard_normal((H, H)),
        "r.bias_o": RNG.standard_normal(H),
    }  # fmt: skip
    found = run_layer(layer_of("RNN"), {"x": X, "cont": CONT}, values)["y"]
    h = np.zeros((N, H))
    for t in range(T):
        h = np.tanh(
            X[t] @ values["r.weight"].T
            + values["r.bias"]
            + (CONT[t][:, None] * h) @ values["r.weight_h"].T
        )
        np.testing.assert_allclose(
            found[t], np.tanh(h @ values["r.weight_o"].T + values["r.bias_o"]), rtol=1e-4, atol=1e-5
        )


def test_one_step() -> None:
    c, gate, cont = (
        RNG.standard_normal((1, N, H)),
        RNG.standard_normal((1, N, 4 * H)),
        np.array([[1, 0]]),
    )
    layer = 'layer { name: "u" type: "LSTMUnit" bottom: "c" bottom: "g" bottom: "k" top: "c1" top: "h1" }'
    found = run_layer(layer, {"c": c, "g": gate, "k": cont})
    after, h = cell(c, gate, cont[:, :, None])
    np.testing.assert_allclose(found["c1"], after, rtol=1e-5)
    np.testing.assert_allclose(found["h1"], h, rtol=1e-5)


def test_blobs_are_in_caffes_order() -> None:
    text = inputs_text({"x": (T, N, D), "cont": (T, N)})
    assert imported(text + layer_of("LSTM")).blobs["r"] == ("r.weight", "r.bias", "r.weight_h")
    names = ("r.weight", "r.bias", "r.weight_h", "r.weight_o", "r.bias_o")
    assert imported(text + layer_of("RNN")).blobs["r"] == names


@pytest.mark.parametrize("type", ["LSTM", "RNN"])
def test_gradients(type: str) -> None:
    filler = 'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }'
    text = (
        inputs_text({"x": (T, N, D), "cont": (T, N)})
        + layer_of(type, filler)
        + (
            'layer { name: "l" type: "Reduction" bottom: "y" top: "l" reduction_param { operation: SUMSQ } loss_weight: 1 }'
        )
    )
    assert check_gradients(text, 1e-5) == []


@pytest.mark.parametrize(
    "shapes",
    [
        {"x": (T, D), "cont": (T, N)},
        {"x": (T, N, D), "cont": (N, T, 1)},
        {"x": (5000, N, D), "cont": (5000, N)},
    ],
)
def test_what_makes_no_sense(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(BrickcError, match="LSTM"):
        imported(inputs_text(shapes) + layer_of("LSTM"))
