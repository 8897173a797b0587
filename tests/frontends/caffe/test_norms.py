"""Normalising layers against the loops and formulas of Caffe's tests."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_nets import (
    check_gradients,
    gradients,
    imported,
    inputs_text,
    model_of,
    run_layer,
    run_model,
)

from brickc.compiler.optimize.specialise import specialise
from brickc.errors import ImportModelError
from brickc.ir.interpret import interpret

IMAGES = np.random.default_rng(4).standard_normal((2, 7, 3, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [5, 15])
def test_response_across_channels(size: int) -> None:
    # the reference loop of Caffe's test of LRN, sizes 5 and 15
    layer = (
        f'layer {{ name: "n" type: "LRN" bottom: "x" top: "y" lrn_param {{ local_size: {size} }} }}'
    )
    y = run_layer(layer, {"x": IMAGES})["y"]
    for c in range(7):
        lo, hi = max(0, c - (size - 1) // 2), min(7, c + (size - 1) // 2 + 1)
        scale = 1 + 1.0 / size * (IMAGES[:, lo:hi].astype(np.float64) ** 2).sum(1)
        np.testing.assert_allclose(y[:, c], IMAGES[:, c] / scale**0.75, rtol=1e-5)


def test_response_within_a_channel() -> None:
    # the loop of Caffe's test: a window of 3×3, alpha/9, and always the constant 1
    layer = (
        'layer { name: "n" type: "LRN" bottom: "x" top: "y" '
        "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 2 k: 5 } }"
    )
    y = run_layer(layer, {"x": IMAGES})["y"]
    padded = np.pad(IMAGES.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for h in range(3):
        for w in range(3):
            scale = 1 + 2 / 9 * (padded[:, :, h : h + 3, w : w + 3] ** 2).sum((2, 3))
            np.testing.assert_allclose(y[:, :, h, w], IMAGES[:, :, h, w] / scale**0.75, rtol=1e-5)


def test_even_sizes_are_refused() -> None:
    with pytest.raises(ImportModelError, match="odd"):
        run_layer(
            'layer { name: "n" type: "LRN" bottom: "x" top: "y" lrn_param { local_size: 4 } }',
            {"x": IMAGES},
        )


# ── batch statistics ─────────────────────────────────────────────────────────────────────

BN = 'layer {{ name: "b" type: "BatchNorm" bottom: "x" top: "y" {} batch_norm_param {{ {} }} }}'
LOSS = 'layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }'


def test_stored_statistics() -> None:
    # mean and variance are the sums divided by the factor: 8/4 and 36/4
    x = np.array([[5.0], [-1.0]])
    values = {"b.mean": [8], "b.variance": [36], "b.factor": [4]}
    y = run_layer(BN.format("", "eps: 7"), {"x": x}, values)["y"]
    np.testing.assert_allclose(y, [[3 / 4], [-3 / 4]])
    # a net that was never trained: sums and factor are 0
    y = run_layer(BN.format("", ""), {"x": x})["y"]
    np.testing.assert_allclose(y, x / np.sqrt(1e-5), rtol=1e-6)


def test_statistics_of_the_batch_and_what_is_kept() -> None:
    x = np.random.default_rng(5).normal(3, 2, (4, 2, 3, 3)).astype(np.float32)
    text = inputs_text({"x": x.shape}) + BN.format("", "moving_average_fraction: 0.75") + LOSS
    net = imported(text)
    assert net.blobs["b"] == ("b.mean", "b.variance", "b.factor")
    graph = specialise(net.model.training(), training=True)
    states = {"b.mean": [1, 2], "b.variance": [3, 4], "b.factor": [2]}
    found = interpret(graph, {"x": x}, {}, {n: np.array(a, np.float32) for n, a in states.items()})
    updates = found.updates
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    # batch_norm_layer.cpp: sum·fraction + new, the variance times m/(m-1), m = 4·3·3
    np.testing.assert_allclose(updates["b.mean"], 0.75 * np.array([1, 2]) + mean, rtol=1e-5)
    np.testing.assert_allclose(
        updates["b.variance"], 0.75 * np.array([3, 4]) + variance * 36 / 35, rtol=1e-5
    )
    assert updates["b.factor"].tolist() == [2.5]


def test_a_batch_has_mean_0_and_variance_1() -> None:
    # Caffe's TestForward
    x = np.random.default_rng(6).normal(-1, 3, (5, 2, 3, 4)).astype(np.float32)
    text = (
        BN.format("", "")
        + 'layer { name: "p" type: "Reduction" bottom: "y" top: "p" reduction_param { operation: SUMSQ } loss_weight: 1 }'
    )
    assert run_layer(text, {"x": x}, training=True)["loss"] == pytest.approx(x.size, rel=1e-4)
    text = BN.format("", "use_global_stats: false") + LOSS
    assert abs(run_layer(text, {"x": x}, training=True)["loss"]) < 1e-3
    assert abs(run_layer(text, {"x": x})["loss"]) < 1e-3


def test_forced_statistics_in_training() -> None:
    values = {"b.mean": [8], "b.variance": [36], "b.factor": [4]}
    text = BN.format("", "eps: 7 use_global_stats: true") + LOSS
    assert run_layer(text, {"x": [[5.0], [2.0]]}, values, training=True)["loss"] == pytest.approx(
        0.75
    )


def test_trained_statistics_are_refused() -> None:
    with pytest.raises(ImportModelError, match="no trained parameters"):
        run_layer(BN.format("param { lr_mult: 1 }", ""), {"x": [[1.0]]})


def test_shared_statistics_are_updated_twice() -> None:
    names = " ".join(f'param {{ name: "s{k}" lr_mult: 0 }}' for k in range(3))
    two = "".join(
        f'layer {{ name: "b{k}" type: "BatchNorm" bottom: "{x}" top: "y{k}" {names} batch_norm_param {{ moving_average_fraction: 0.5 }} }}'
        for k, x in enumerate("ab")
    )
    text = (
        inputs_text({"a": (2, 1), "b": (2, 1)})
        + two
        + ('layer { name: "e" type: "Eltwise" bottom: "y0" bottom: "y1" top: "y" }' + LOSS)
    )
    net = imported(text)
    assert net.blobs["b1"] == ("b0.mean", "b0.variance", "b0.factor")
    graph = net.model.training()
    zero = {n: np.zeros(1, np.float32) for n in net.blobs["b0"]}
    found = interpret(
        specialise(graph, training=True),
        {"a": np.array([[1], [3]], np.float32), "b": np.array([[5], [7]], np.float32)},
        {},
        zero,
    )
    updates = found.updates
    assert updates["b0.mean"].tolist() == [0.5 * 2 + 6]
    assert updates["b0.factor"].tolist() == [1.5]


# ── mean and variance ────────────────────────────────────────────────────────────────────

MVN = 'layer {{ name: "m" type: "MVN" bottom: "x" top: "y" mvn_param {{ {} }} }}'


@pytest.mark.parametrize("across", [False, True])
def test_mean_and_variance(across: bool) -> None:
    axes = (1, 2, 3) if across else (2, 3)
    flag = f"across_channels: {str(across).lower()}"
    x = IMAGES.astype(np.float64)
    y = run_layer(MVN.format(flag), {"x": IMAGES})["y"]
    centred = x - x.mean(axes, keepdims=True)
    np.testing.assert_allclose(
        y, centred / (x.std(axes, keepdims=True) + 1e-9), rtol=1e-4, atol=1e-6
    )
    y = run_layer(MVN.format(flag + " normalize_variance: false"), {"x": IMAGES})["y"]
    np.testing.assert_allclose(y, centred, atol=1e-6)


def test_eps_is_beside_the_root() -> None:
    x = np.array([1.0, 3.0]).reshape(1, 1, 1, 2)
    assert run_layer(MVN.format("eps: 1"), {"x": x})["y"].ravel().tolist() == [-0.5, 0.5]


def test_the_slope_where_nothing_varies() -> None:
    # mvn_layer.cpp: (dy - mean(dy) - y·mean(dy·y))/(0 + eps), finite
    text = (
        'layer { name: "v" type: "Parameter" top: "x" parameter_param { shape { dim: 1 dim: 1 dim: 1 dim: 2 } } }'
        + MVN.format("eps: 0.5")
        + 'layer { name: "k" type: "Slice" bottom: "y" top: "p" top: "q" slice_param { axis: 3 } }'
        'layer { name: "l" type: "Reduction" bottom: "p" top: "l" loss_weight: 1 }'
        'layer { name: "s" type: "Silence" bottom: "q" }'
    )
    found = gradients(model_of(text), {}, {"v.weight": np.ones((1, 1, 1, 2))})
    assert found["v.weight"].ravel().tolist() == [1.0, -1.0]


@pytest.mark.parametrize(
    "layer",
    [
        'layer { name: "n" type: "LRN" bottom: "x" top: "y" lrn_param { local_size: 3 } }',
        'layer { name: "n" type: "LRN" bottom: "x" top: "y" lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL } }',
        BN.format("", ""),
        'layer { name: "n" type: "Softmax" bottom: "x" top: "y" }',
        'layer { name: "n" type: "MVN" bottom: "x" top: "y" mvn_param { normalize_variance: false } }',
    ],
)
def test_gradients(layer: str) -> None:
    text = (
        'layer { name: "v" type: "Parameter" top: "x" parameter_param { shape { dim: 2 dim: 4 dim: 3 dim: 3 } } }'
        'layer { name: "w" type: "Parameter" top: "w" parameter_param { shape { dim: 2 dim: 4 dim: 3 dim: 3 } } }'
        + layer
        + 'layer { name: "e" type: "Eltwise" bottom: "y" bottom: "w" top: "z" eltwise_param { operation: PROD } }'
        'layer { name: "l" type: "Reduction" bottom: "z" top: "l" loss_weight: 1 }'
    )
    assert check_gradients(text, 1e-5) == []


def test_gradient_of_mean_and_variance() -> None:
    # against central differences in float64, away from equal elements
    text = (
        'layer { name: "v" type: "Parameter" top: "x" parameter_param { shape { dim: 1 dim: 2 dim: 2 dim: 2 } } }'
        + MVN.format("")
        + 'layer { name: "w" type: "Parameter" top: "w" parameter_param { shape { dim: 1 dim: 2 dim: 2 dim: 2 } } }'
        'layer { name: "e" type: "Eltwise" bottom: "y" bottom: "w" top: "z" eltwise_param { operation: PROD } }'
        'layer { name: "l" type: "Reduction" bottom: "z" top: "l" loss_weight: 1 }'
    )
    rng = np.random.default_rng(7)
    v, w = rng.standard_normal((2, 1, 2, 2, 2))
    found = gradients(model_of(text), {}, {"v.weight": v, "w.weight": w})["v.weight"]

    def value(x: np.ndarray) -> float:
        c = x - x.mean((2, 3), keepdims=True)
        return float((c / (c.std((2, 3), keepdims=True) + 1e-9) * w).sum())

    for k in np.ndindex(v.shape):
        step = np.zeros_like(v)
        step[k] = 1e-6
        assert found[k] == pytest.approx((value(v + step) - value(v - step)) / 2e-6, abs=1e-4)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_softmax_of_an_axis(axis: int) -> None:
    layer = f'layer {{ name: "n" type: "Softmax" bottom: "x" top: "y" softmax_param {{ axis: {axis} }} }}'
    y = run_layer(layer, {"x": IMAGES})["y"]
    powers = np.exp(IMAGES.astype(np.float64))
    np.testing.assert_allclose(y, powers / powers.sum(axis, keepdims=True), rtol=1e-5)


def test_no_update_outside_training() -> None:
    net = imported(inputs_text({"x": (2, 1)}) + BN.format("", "") + LOSS)
    assert set(net.model.states) == {"b.mean", "b.variance", "b.factor"}
    assert run_model(net.model, {"x": [[1], [3]]})["loss"] == pytest.approx(
        4 / np.sqrt(1e-5), rel=1e-5
    )
